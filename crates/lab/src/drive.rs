//! What the drive gives for the experts of a model, on its own files or on a temporary one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::door::{Opened, open_files};
use storage::{AlignedBuf, SplitMix64, Storage};

use crate::LabError;
use crate::facts::{Facts, Record, distinct_records};
use crate::probe::{self, Deck, DriveProbe, Limit};

/// One measurement of the drive.
const DRIVE_LIMIT: Limit = Limit { time: Duration::from_millis(700), bytes: 2 << 30 };

/// What is read.
pub(crate) enum Source<'a> {
    /// The experts of a model on this machine.
    Model(&'a Path),
    /// A temporary file of so many bytes in this directory.
    Temporary(&'a Path, u64),
}

/// What the drive gives for experts of this model.
pub(crate) struct Drive {
    pub(crate) measured_on: String,
    pub(crate) bytes_per_s: f64,
    pub(crate) bytes_per_s_computing: f64,
    pub(crate) record_bytes: u64,
    pub(crate) depth: usize,
    pub(crate) bursts_s: Vec<(usize, f64)>,
}

impl Drive {
    /// Measures; `memory` is the number of threads and the bytes that they read meanwhile where
    /// that is measured too.
    ///
    /// # Errors
    /// Anything wrong with the model's files; a temporary file that cannot be written; a failed
    /// read.
    pub(crate) fn measure(
        source: &Source<'_>,
        facts: &Facts,
        storage: &dyn Storage,
        memory: (usize, usize),
    ) -> Result<Self, LabError> {
        match *source {
            Source::Model(path) => {
                let opened = Opened::new(path)?;
                let files = open_files(&opened.checkpoint, storage)?;
                let deck = Deck::new(distinct_records(&opened, &files), 1);
                if deck.is_empty() {
                    return Ok(Self::unused());
                }
                Self::measure_deck("the model's own files".into(), deck, facts, storage, memory)
            }
            Source::Temporary(dir, bytes) => {
                let file = ProbeFile::write(dir, bytes)?;
                let id = storage.open(&file.path)?;
                let record = |at: u64| -> Record { vec![(id, at * facts.slot_bytes, facts.slot_bytes)] };
                let records = bytes / facts.slot_bytes.max(1);
                let deck = Deck::new((0..records).map(record).collect(), 1);
                let measured_on = format!("a temporary file in {}", dir.display());
                Self::measure_deck(measured_on, deck, facts, storage, memory)
            }
        }
    }

    /// Of a model without experts, of which nothing is read while it runs.
    fn unused() -> Self {
        let measured_on = "nothing: the model has no experts".into();
        let (bytes_per_s, bytes_per_s_computing) = (0.0, 0.0);
        Self {
            measured_on,
            bytes_per_s,
            bytes_per_s_computing,
            record_bytes: 0,
            depth: 0,
            bursts_s: Vec::new(),
        }
    }

    fn measure_deck(
        measured_on: String,
        mut deck: Deck,
        facts: &Facts,
        storage: &dyn Storage,
        (threads, memory_bytes): (usize, usize),
    ) -> Result<Self, LabError> {
        let depth = facts.config.per_token_max().max(1);
        let slot_bytes = usize::try_from(facts.slot_bytes).unwrap_or(usize::MAX);
        let mut bufs = AlignedBuf::many(depth, slot_bytes)?;
        bufs.iter_mut().for_each(|buf| buf.fill(1));
        let mut probe = DriveProbe { storage, deck: &mut deck };
        // A drive that has slept gives less at first.
        probe.steady(&mut bufs, DRIVE_LIMIT)?;
        let steady = probe.steady(&mut bufs, DRIVE_LIMIT)?;
        let bytes_per_s_computing =
            probe::drive_while_computing(threads, memory_bytes, &mut probe, &mut bufs, DRIVE_LIMIT)?;
        let mut bursts_s = Vec::new();
        let mut sizes = vec![depth, depth.div_ceil(2), 1];
        sizes.dedup();
        for size in sizes {
            bufs.truncate(size);
            if let Some(seconds) = probe.bursts(&mut bufs, DRIVE_LIMIT)? {
                bursts_s.insert(0, (size, seconds));
            }
        }
        let record_bytes = steady.bytes / steady.reads.max(1);
        let bytes_per_s = steady.bytes_per_s();
        Ok(Self { measured_on, bytes_per_s, bytes_per_s_computing, record_bytes, depth, bursts_s })
    }
}

/// A file of random bytes that is gone when it is dropped.
struct ProbeFile {
    path: PathBuf,
}

impl ProbeFile {
    fn write(dir: &Path, bytes: u64) -> Result<Self, LabError> {
        let path = dir.join(format!("flash-moe-probe-{}.tmp", std::process::id()));
        let failed = |source| LabError::ProbeFile { path: path.clone(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        if let Some(free) = storage::free_disk_bytes(dir).filter(|free| bytes > *free) {
            return Err(LabError::ProbeFileTooLarge {
                dir: dir.into(),
                needed_bytes: bytes,
                free_bytes: free,
            });
        }
        let mut file = File::create(&path).map_err(failed)?;
        let probe = Self { path: path.clone() };
        let mut random = SplitMix64::new(1);
        let mut block = vec![0u8; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            // What a drive could compress would not be measured.
            block.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random.next_u64().to_le_bytes()));
            let len = left.min(block.len() as u64);
            file.write_all(&block[..len as usize]).map_err(failed)?;
            left -= len;
        }
        file.sync_all().map_err(failed)?;
        Ok(probe)
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
