//! A small source of random weights, its plan, and ways to look at the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use checkpoint::{ExpertPart, Extent, LayerExperts};
use pack::{DenseItem, LayerItem, NoProgress, PackError, PackOptions, PackPlan, PackReport};
use tempfile::TempDir;
use tensor::Format;

pub(crate) const EXPERTS: usize = 5;
pub(crate) const HIDDEN: usize = 256;
pub(crate) const FFN: usize = 96;

/// A source directory with one file of weights, a tokenizer and a configuration.
pub(crate) struct Source {
    pub(crate) directory: TempDir,
    pub(crate) weights: Vec<u8>,
}

/// bf16 numbers of a plausible size, the same for the same seed.
pub(crate) fn random_bf16(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(2 * count);
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        bytes.extend_from_slice(&((uniform * 0.2).to_bits() >> 16).to_le_bytes()[..2]);
    }
    bytes
}

impl Source {
    pub(crate) fn new(seed: u64) -> Source {
        let directory = TempDir::new().unwrap();
        let weights = random_bf16(DENSE_WEIGHTS + LAYERS * EXPERTS * EXPERT_WEIGHTS, seed);
        std::fs::write(directory.path().join("weights.bin"), &weights).unwrap();
        std::fs::write(directory.path().join("tokenizer.json"), "{\"vocab\": []}").unwrap();
        std::fs::write(directory.path().join("config.json"), "{ \"model_type\": \"test\" }\n").unwrap();
        Source { directory, weights }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn plan(&self) -> PackPlan {
        plan_of(self.path())
    }
}

const VOCAB: usize = 40;
const DENSE_WEIGHTS: usize = VOCAB * HIDDEN + HIDDEN + 1 + 3 * 50;
const LAYERS: usize = 3;
const EXPERT_WEIGHTS: usize = 3 * HIDDEN * FFN;

/// Four dense tensors and layers 0, 1, 3, as fused tensors: gate and up in one extent, down in
/// another.
pub(crate) fn plan_of(source: &Path) -> PackPlan {
    let mut next = 0u64;
    let mut extent = |weights: usize| {
        let extent = Extent { file: 0, offset: next, bytes: 2 * weights as u64 };
        next += extent.bytes;
        extent
    };
    let mut dense = |name: &str, shape: &[usize], format| DenseItem {
        name: name.to_owned(),
        shape: shape.to_vec(),
        source: extent(shape.iter().product()),
        source_format: Format::BF16,
        format,
    };
    let dense = vec![
        dense("embed.weight", &[VOCAB, HIDDEN], Format::Q8_0),
        dense("norm.weight", &[HIDDEN], Format::F32),
        dense("scalar", &[], Format::F32),
        dense("conv.weight", &[3, 1, 50], Format::BF16),
        dense("none", &[0, 7], Format::F32),
    ];
    let part = |rows, cols, extent, offset| ExpertPart { format: Format::BF16, rows, cols, extent, offset };
    let half = (2 * FFN * HIDDEN) as u64;
    let layers = [0, 1, 3].map(|layer| {
        let gate_up = extent(EXPERTS * 2 * FFN * HIDDEN);
        let down = extent(EXPERTS * FFN * HIDDEN);
        let slice = |whole: Extent, bytes: u64, expert: u64| Extent {
            offset: whole.offset + bytes * expert,
            bytes,
            ..whole
        };
        LayerItem {
            layer,
            source: LayerExperts {
                parts: [part(FFN, HIDDEN, 0, 0), part(FFN, HIDDEN, 0, half), part(HIDDEN, FFN, 1, 0)],
                extents: (0..EXPERTS as u64)
                    .map(|expert| vec![slice(gate_up, 2 * half, expert), slice(down, half, expert)])
                    .collect(),
                checksums: None,
            },
            formats: [Format::Q4K, Format::Q8_0, Format::Q4K.for_cols(FFN)],
        }
    });
    PackPlan {
        dense,
        layers: layers.to_vec(),
        aux_files: vec![source.join("tokenizer.json"), source.join("config.json")],
        aux_made: Vec::new(),
        source_files: vec![source.join("weights.bin")],
        description: "a test".to_owned(),
        config: serde_json::json!({"model_type": "other"}),
    }
}

pub(crate) fn options(change: impl FnOnce(&mut PackOptions)) -> PackOptions {
    let mut options = PackOptions::default();
    change(&mut options);
    options
}

pub(crate) fn pack(plan: &PackPlan, target: &Path) -> Result<PackReport, PackError> {
    pack::pack(plan, target, &PackOptions::default(), &NoProgress)
}

/// Every file of a directory with its bytes.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

/// Two directories have the same files with the same bytes.
#[track_caller]
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(bytes == &b[name], "{name} differs");
    }
}

/// A message without the temporary directories in it, which must be one line.
#[track_caller]
pub(crate) fn message(error: impl ToString, directories: &[(&Path, &str)]) -> String {
    let mut message = error.to_string();
    assert!(!message.contains('\n') && !message.ends_with('.'), "{message}");
    for (path, name) in directories {
        message = message.replace(path.to_str().unwrap(), name);
    }
    message
}

/// A target directory that does not exist yet.
pub(crate) struct Target {
    parent: TempDir,
}

impl Target {
    pub(crate) fn new() -> Target {
        Target { parent: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.parent.path().join("packed")
    }
}

/// Records what it is told.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) calls: Mutex<Calls>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) started: Vec<(u64, u64)>,
    pub(crate) advanced: u64,
    pub(crate) finished: u32,
}

impl pack::PackProgress for Recorder {
    fn start(&self, total_bytes: u64, done_bytes: u64) {
        self.calls.lock().unwrap().started.push((total_bytes, done_bytes));
    }
    fn advance(&self, bytes: u64) {
        self.calls.lock().unwrap().advanced += bytes;
    }
    fn finish(&self) {
        self.calls.lock().unwrap().finished += 1;
    }
}
