//! Any text as the journal of an unfinished container: packing either resumes, and the container is the same to the
//! byte, or says what is wrong; it never panics and never publishes a container with other bytes.
//!
//! A journal's lines have checksums, which a fuzzer does not guess: each line of the input gets its own here. The bits
//! of the first byte choose more: 1, the head that packing itself wrote goes first; 2, the data files are there already;
//! 4, the bytes go in as they are, without checksums.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use checkpoint::manifest::JOURNAL;
use checkpoint::{ExpertPart, Extent, LayerExperts};
use libfuzzer_sys::fuzz_target;
use pack::{DenseItem, LayerItem, NoProgress, PackOptions, PackPlan, pack};
use tempfile::TempDir;
use tensor::Format;

const EXPERTS: u64 = 3;
const HIDDEN: usize = 32;
const INNER: usize = 32;
const WEIGHTS: usize = HIDDEN + EXPERTS as usize * 3 * HIDDEN * INNER;

/// Name and content of each file.
type Files = BTreeMap<String, Vec<u8>>;

struct Fixture {
    directory: TempDir,
    plan: PackPlan,
    head: Vec<u8>,
    whole: Files,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let directory = TempDir::new().expect("a directory");
    let weights: Vec<u8> = (0..WEIGHTS * 4).map(|i| (i * 7 % 61) as u8).collect();
    fs::write(directory.path().join("weights.bin"), weights).expect("a file");
    let plan = plan(directory.path());
    let target = target(directory.path());
    let mut stopped = options();
    stopped.hooks.stop_after_units = Some(1);
    pack(&plan, &target, &stopped, &NoProgress).expect_err("an interruption");
    let journal = fs::read(target.join(JOURNAL)).expect("a journal");
    let head = journal.split_inclusive(|&byte| byte == b'\n').next().expect("a head").to_vec();
    pack(&plan, &target, &options(), &NoProgress).expect("a container");
    Fixture { whole: files(&target), directory, plan, head }
});

fn target(directory: &Path) -> PathBuf {
    directory.join("packed")
}

fn options() -> PackOptions {
    let mut options = PackOptions::default();
    (options.threads, options.commit_bytes) = (1, 1);
    options
}

fn plan(directory: &Path) -> PackPlan {
    let part = |rows, cols, offset| ExpertPart { format: Format::F32, rows, cols, extent: 0, offset };
    let matrix = (4 * HIDDEN * INNER) as u64;
    let start = (4 * HIDDEN) as u64;
    let extent = |expert| Extent { file: 0, offset: start + 3 * matrix * expert, bytes: 3 * matrix };
    PackPlan {
        dense: vec![DenseItem {
            name: "norm.weight".to_owned(),
            shape: vec![HIDDEN],
            source: Extent { file: 0, offset: 0, bytes: start },
            source_format: Format::F32,
            format: Format::F32,
        }],
        layers: vec![LayerItem {
            layer: 0,
            source: LayerExperts {
                parts: [part(INNER, HIDDEN, 0), part(INNER, HIDDEN, matrix), part(HIDDEN, INNER, 2 * matrix)],
                extents: (0..EXPERTS).map(|expert| vec![extent(expert)]).collect(),
                checksums: None,
            },
            formats: [Format::F32; 3],
        }],
        aux_files: Vec::new(),
        aux_made: Vec::new(),
        source_files: vec![directory.join("weights.bin")],
        description: "fuzz".to_owned(),
        config: serde_json::json!({"model_type": "fuzz"}),
    }
}

fn files(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

fn signed(text: &[u8]) -> Vec<u8> {
    let lines = text.split(|&byte| byte == b'\n');
    lines
        .flat_map(|line| [format!("{:016x} ", checkpoint::checksum(line)).as_bytes(), line, b"\n"].concat())
        .collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, text)) = bytes.split_first() else { return };
    let fixture = &*FIXTURE;
    let target = target(fixture.directory.path());
    let _ = fs::remove_dir_all(&target);
    fs::create_dir(&target).expect("a directory");
    if choice & 2 != 0 {
        for (name, content) in fixture.whole.iter().filter(|(name, _)| name.ends_with(".bin")) {
            fs::write(target.join(name), content).expect("a file");
        }
    }
    let mut journal = if choice & 1 != 0 { fixture.head.clone() } else { Vec::new() };
    journal.extend(if choice & 4 != 0 { text.to_vec() } else { signed(text) });
    fs::write(target.join(JOURNAL), &journal).expect("a file");
    if pack(&fixture.plan, &target, &options(), &NoProgress).is_ok() {
        assert_eq!(files(&target), fixture.whole);
    }
});
