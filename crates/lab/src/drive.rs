//! What the drive gives for the experts of a model, on its own files or on a temporary one.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use engine::door::{Opened, open_files};
use storage::{AlignedBuf, FileId, SplitMix64, Storage};

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
                let id = write_probe_file(dir, bytes, storage)?;
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

/// How the names of files begin that drives are measured with.
const PROBE_PREFIX: &str = "flash-moe-probe-";
/// A file of that name which is older was left by a process that was killed, seconds.
const PROBE_STALE_S: u64 = 60;

/// A file of random bytes without a name: it loses it when the storage has opened it and before
/// anything is written, so that nothing is left however the process ends.
fn write_probe_file(dir: &Path, bytes: u64, storage: &dyn Storage) -> Result<FileId, LabError> {
    let failed = |source| LabError::ProbeFile { path: dir.join(PROBE_PREFIX), source };
    fs::create_dir_all(dir).map_err(failed)?;
    remove_stale(dir);
    if let Some(free_bytes) = storage::free_disk_bytes(dir).filter(|free| bytes > *free) {
        return Err(LabError::ProbeFileTooLarge { dir: dir.into(), needed_bytes: bytes, free_bytes });
    }
    let named = tempfile::Builder::new().prefix(PROBE_PREFIX).tempfile_in(dir).map_err(failed)?;
    // The storage takes the length when it opens the file.
    named.as_file().set_len(bytes).map_err(failed)?;
    let id = storage.open(named.path())?;
    let (mut file, path) = named.into_parts();
    path.close().map_err(failed)?;
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
    Ok(id)
}

/// Removes files of processes that were killed before they could take the name away.
fn remove_stale(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let named = entry.file_name().to_string_lossy().starts_with(PROBE_PREFIX);
        let age = entry.metadata().ok().and_then(|file| file.modified().ok()?.elapsed().ok());
        if named && age.is_some_and(|age| age.as_secs() > PROBE_STALE_S) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::{Duration, SystemTime};

    use storage::{FileStorage, StorageOptions};

    use super::*;

    #[test]
    fn the_probe_file_has_no_name_and_stale_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let stale = fs::File::create(dir.path().join("flash-moe-probe-77.tmp")).unwrap();
        stale.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        let storage = FileStorage::new(StorageOptions::default()).unwrap();
        let file = write_probe_file(dir.path(), 3 << 20, storage.as_ref()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let (buf, start) = storage.read_range(file, 2 << 20, 1 << 20).unwrap();
        assert!(buf[start..][..1 << 20].iter().any(|byte| *byte != 0));
    }
}
