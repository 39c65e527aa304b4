//! Small banks of experts with random bytes, laid out as the containers do, for the tests of the
//! store.
#![allow(dead_code)] // Each test file uses a part of it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use checkpoint::{ExpertPart, ExpertTable, Extent, LayerExperts};
use experts::{
    Demand, ExpertStore, ExpertsError, Hint, LoadedExpert, Occupancy, Phase, PolicyKind, StoreOptions, Verify,
};
use storage::{BLOCK_BYTES, FileId, FileStorage, IoMode, SplitMix64, Storage, StorageOptions};
use tempfile::TempDir;
use tensor::Format;
use xxhash_rust::xxh3::xxh3_64;

/// How the experts lie on disk.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    /// One aligned record for each expert, gate, up and down one after the other, with checksums.
    Packed,
    /// Three extents for each expert, at any offset, in two files.
    Apart,
    /// The same with checksums, over the three extents in order.
    ApartWithChecksums,
    /// Gate and up in one extent and down in another, as in Hugging Face's fused tensors.
    Fused,
}

impl Container {
    pub(crate) const ALL: [Container; 4] =
        [Container::Packed, Container::Apart, Container::ApartWithChecksums, Container::Fused];
}

pub(crate) struct Bank {
    dir: TempDir,
    pub(crate) container: Container,
    pub(crate) table: ExpertTable,
    pub(crate) paths: Vec<PathBuf>,
    /// [layer][expert][part]: the bytes that the store has to give.
    pub(crate) bytes: Vec<Vec<[Vec<u8>; 3]>>,
}

impl Bank {
    /// Layers with these numbers of experts. Shapes differ from layer to layer.
    pub(crate) fn new(container: Container, expert_counts: &[usize], seed: u64) -> Bank {
        let dir = TempDir::new().unwrap();
        let mut random = SplitMix64::new(seed);
        let mut files: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
        let mut layers = Vec::new();
        let mut bytes = Vec::new();
        for &experts in expert_counts {
            let shape = [1 + random.below(40) as usize, 32 * (1 + random.below(8) as usize)];
            let layer_bytes: Vec<[Vec<u8>; 3]> = (0..experts)
                .map(|_| {
                    PARTS.map(|format| {
                        let len = shape[0] * format.row_bytes(shape[1]).unwrap();
                        (0..len).map(|_| random.next_u64() as u8).collect()
                    })
                })
                .collect();
            layers.push(lay_out(container, shape, &layer_bytes, &mut files, &mut random));
            bytes.push(layer_bytes);
        }
        let paths = ["a.bin", "b.bin"].map(|name| dir.path().join(name)).to_vec();
        for (path, contents) in paths.iter().zip(&files) {
            fs::write(path, contents).unwrap();
        }
        Bank { dir, container, table: ExpertTable { layers }, paths, bytes }
    }

    pub(crate) fn expert_count(&self) -> usize {
        self.bytes.iter().map(Vec::len).sum()
    }

    pub(crate) fn open(&self, storage: &dyn Storage) -> Vec<FileId> {
        self.paths.iter().map(|path| storage.open(path).unwrap()).collect()
    }

    pub(crate) fn store(&self, storage: Arc<dyn Storage>, slots: usize, verify: Verify) -> ExpertStore {
        let files = self.open(storage.as_ref());
        let options = StoreOptions { slots, verify, lookahead: true, policy: PolicyKind::Lru };
        ExpertStore::new(self.table.clone(), &files, storage, options).unwrap()
    }

    /// Checks an expert that was given out. `context` is printed when it is wrong.
    pub(crate) fn check(&self, layer: u32, loaded: &LoadedExpert<'_>, context: &str) {
        let expected = &self.bytes[layer as usize][loaded.expert as usize];
        for (part, (view, expected)) in loaded.parts.iter().zip(expected).enumerate() {
            let described = &self.table.layers[layer as usize].parts[part];
            assert_eq!(
                (view.format, view.rows, view.cols),
                (described.format, described.rows, described.cols),
                "{context}"
            );
            let name = format!("layer {layer} expert {} part {part}", loaded.expert);
            assert!(view.bytes == expected, "wrong bytes of {name}: {context}");
        }
    }

    /// Takes the rest of a fetch, in batches of up to `max`: the right bytes of each expert. Experts as
    /// they came.
    pub(crate) fn drain(&self, layer: u32, max: usize, store: &mut ExpertStore, context: &str) -> Vec<u32> {
        let mut given = Vec::new();
        loop {
            let ready = store.next_batch(max, true);
            assert!(ready.len() <= max, "{context}");
            if ready.is_empty() {
                break;
            }
            for loaded in ready {
                self.check(layer, &loaded, context);
                given.push(loaded.expert);
            }
        }
        assert!(!store.is_fetching(), "{context}");
        given
    }

    /// Fetches experts: each comes once, with the right bytes. Positions in the list as they came.
    pub(crate) fn check_all(
        &self,
        layer: u32,
        list: &[u32],
        store: &mut ExpertStore,
        context: &str,
    ) -> Vec<usize> {
        store.start(&demand(layer, list)).unwrap_or_else(|error| panic!("{error}: {context}"));
        let given = self.drain(layer, 1, store, context);
        store.end();
        if let Some(failed) = store.failures().first() {
            panic!("{}: {context}", failed.error);
        }
        let position = |expert: &u32| list.iter().position(|other| other == expert).unwrap();
        let positions: Vec<usize> = given.iter().map(position).collect();
        let mut sorted = positions.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..list.len()), "{given:?} of {list:?}: {context}");
        positions
    }

    /// Flips a bit in the first extent of an expert.
    pub(crate) fn damage(&self, layer: usize, expert: usize) {
        let extent = self.table.layers[layer].extents[expert][0];
        let path = &self.paths[extent.file as usize];
        let mut contents = fs::read(path).unwrap();
        contents[extent.offset as usize + 3] ^= 0x10;
        fs::write(path, contents).unwrap();
    }
}

/// The demand of one decoding row.
pub(crate) fn demand(layer: u32, experts: &[u32]) -> Demand<'_> {
    Demand { layer, experts, phase: Phase::Decode, tokens: 1, prompt: None }
}

/// Names these experts as those that a layer will probably demand.
pub(crate) fn hint(
    store: &mut ExpertStore,
    layer: u32,
    phase: Phase,
    experts: &[u32],
) -> Result<(), ExpertsError> {
    let hint = Hint { layer, phase, tokens: 1 };
    store.hint(&hint, &mut |ranked| ranked.extend_from_slice(experts))
}

/// No slot is lost: each holds an expert or is free, and nothing is being read unless prefetches may be.
pub(crate) fn no_slot_leaked(store: &ExpertStore, prefetches: bool, context: &str) {
    let Occupancy { free, resident, reading, lost, .. } = store.occupancy();
    assert_eq!((free + resident + reading, lost), (store.slot_count(), 0), "{context}");
    assert!(prefetches || reading == 0, "{context}");
}

/// Formats of gate, up and down.
const PARTS: [Format; 3] = [Format::Q8_0, Format::BF16, Format::Q5_0];

fn lay_out(
    container: Container,
    [rows, cols]: [usize; 2],
    bytes: &[[Vec<u8>; 3]],
    files: &mut [Vec<u8>; 2],
    random: &mut SplitMix64,
) -> LayerExperts {
    let part_bytes = PARTS.map(|format| (rows * format.row_bytes(cols).unwrap()) as u64);
    let (grouping, gap): (&[&[usize]], _) = match container {
        Container::Packed => (&[&[0, 1, 2]], 0),
        Container::Apart | Container::ApartWithChecksums => (&[&[0], &[1], &[2]], 3000),
        Container::Fused => (&[&[0, 1], &[2]], 0),
    };
    let mut extents = Vec::new();
    let mut checksums = Vec::new();
    for expert in bytes {
        let mut own = Vec::new();
        let mut all = Vec::new();
        for (number, group) in grouping.iter().enumerate() {
            let file = &mut files[number % 2];
            file.resize(file.len() + random.below(gap + 1) as usize, 0x77);
            if container == Container::Packed {
                file.resize(file.len().next_multiple_of(BLOCK_BYTES), 0);
            }
            let offset = file.len() as u64;
            let contents = group.iter().flat_map(|part| &expert[*part]).copied();
            file.extend(contents);
            all.extend_from_slice(&file[offset as usize..]);
            let bytes = file.len() as u64 - offset;
            own.push(Extent { file: number as u32 % 2, offset, bytes });
        }
        extents.push(own);
        checksums.push(xxh3_64(&all));
    }
    let parts = [0, 1, 2].map(|part| {
        let extent = grouping.iter().position(|group| group.contains(&part)).unwrap();
        let before = grouping[extent].iter().take_while(|other| **other != part);
        let offset = before.map(|other| part_bytes[*other]).sum();
        ExpertPart { format: PARTS[part], rows, cols, extent, offset }
    });
    let has_checksums = matches!(container, Container::Packed | Container::ApartWithChecksums);
    LayerExperts { parts, extents, checksums: has_checksums.then_some(checksums) }
}

pub(crate) fn file_storage(mode: IoMode) -> Arc<FileStorage> {
    FileStorage::with_piece_bytes(StorageOptions { mode, threads: 3, ..Default::default() }, BLOCK_BYTES)
        .unwrap()
}

/// A list of different experts of a layer in random order, at least `least` long.
pub(crate) fn random_list(random: &mut SplitMix64, experts: usize, least: usize) -> Vec<u32> {
    let mut list: Vec<u32> = (0..experts as u32).collect();
    for last in (1..list.len()).rev() {
        list.swap(last, random.below(last as u64 + 1) as usize);
    }
    let length = least as u64 + random.below((experts - least) as u64 + 1);
    list.truncate(length as usize);
    list
}

/// Runs a test that must come to an end.
pub(crate) fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, watch) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match watch.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => panic!("hangs: not done within {limit:?}"),
        // Done, or panicked, which dropped the sender.
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}
