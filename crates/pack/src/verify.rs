//! Re-reading a container: every checksum, every byte of padding.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use checkpoint::manifest::{CONFIG, Checksum, DENSE, Manifest};
use checkpoint::{CheckpointError, FileError, shown};
use xxhash_rust::xxh3::Xxh3;

use super::disk::{FilePool, read_exact_at, wont_need};
use super::error::PackError;
use super::plan::PackProgress;
use super::threads;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Pieces checked: small files, dense tensors, gaps between them, expert records.
    pub checked: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that is not as the manifest says, in the order of the container.
    pub bad: Vec<BadRecord>,
}

impl VerifyReport {
    /// Whether the container is whole.
    pub fn is_ok(&self) -> bool {
        self.bad.is_empty()
    }
}

/// One damaged piece of a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {item} at offset {offset}: expected {expected}, got {got}")]
#[non_exhaustive]
pub struct BadRecord {
    /// The file.
    pub path: PathBuf,
    /// Which tensor, record or file.
    pub item: String,
    /// First byte of the piece in the file.
    pub offset: u64,
    /// Length of the piece.
    pub bytes: u64,
    /// The checksum, or in words what was expected.
    pub expected: String,
    /// The checksum that was found, or in words what was.
    pub got: String,
}

/// Checks the container in `directory`: reads all of it with all cores and lists every damaged
/// piece, not only the first.
///
/// # Errors
/// When there is no container or its manifest is damaged, so that nothing can be said about the
/// rest. Damage elsewhere is in the report.
pub fn verify(directory: &Path, progress: &dyn PackProgress) -> Result<VerifyReport, PackError> {
    if !checkpoint::file_exists(&directory.join(checkpoint::manifest::MANIFEST))? {
        // Says what the directory is instead, or that packing was not finished.
        let opened = checkpoint::Checkpoint::open(directory)?;
        let path = opened.root().to_path_buf();
        let found = "no packed container".to_owned();
        return Err(CheckpointError::new(path, FileError::NotAModel { found }).into());
    }
    let manifest = Manifest::read(directory)?;
    Ok(verify_manifest(&manifest, directory, progress))
}

/// Checks what `manifest` says about the files in `directory`.
pub(crate) fn verify_manifest(
    manifest: &Manifest,
    directory: &Path,
    progress: &dyn PackProgress,
) -> VerifyReport {
    let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    let pool = FilePool::new(names.iter().map(|name| directory.join(name)).collect(), false);
    let checks = checks(manifest);
    progress.start(checks.iter().map(Check::bytes_to_read).sum(), 0);
    let next = AtomicUsize::new(0);
    let advance = Mutex::new(0u64);
    let bad = Mutex::new(Vec::new());
    threads::side_by_side(0, || {
        let mut buffer = Vec::new();
        let read = |bytes| {
            let mut total = advance.lock().unwrap_or_else(PoisonError::into_inner);
            *total += bytes;
            progress.advance(bytes);
        };
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(check) = checks.get(index) else { return };
            if let Err(found) = check.run(&pool, &mut buffer, &read) {
                bad.lock().unwrap_or_else(PoisonError::into_inner).push((index, found));
            }
        }
    });
    let mut bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    bad.sort_by_key(|&(index, _)| index);
    progress.finish();
    VerifyReport {
        checked: checks.len() as u64,
        bytes: advance.into_inner().unwrap_or_else(PoisonError::into_inner),
        bad: bad.into_iter().map(|(_, record)| record).collect(),
    }
}

/// A range of a file and what it must be.
struct Check {
    file: usize,
    offset: u64,
    bytes: u64,
    item: String,
    expected: Expected,
}

enum Expected {
    /// A file of `bytes` bytes in all; it is read when it has a checksum of its own.
    File(Option<Checksum>),
    Sum(Checksum),
    Zeros,
}

/// Everything there is to check, in the order of the container.
fn checks(manifest: &Manifest) -> Vec<Check> {
    let mut checks = Vec::new();
    let by_name: HashMap<&str, usize> =
        manifest.files.iter().enumerate().map(|(i, file)| (file.name.as_str(), i)).collect();
    for (file, entry) in manifest.files.iter().enumerate() {
        let item = if entry.name == CONFIG { "configuration" } else { "file" }.to_owned();
        let expected = Expected::File(entry.checksum);
        checks.push(Check { file, offset: 0, bytes: entry.bytes, item, expected });
    }
    let mut end = 0;
    // The manifest was checked: every named file is in `files`, and dense tensors are in order.
    if let Some(&file) = by_name.get(DENSE) {
        let gap = |from, to: u64| Check {
            file,
            offset: from,
            bytes: to - from,
            item: "padding".to_owned(),
            expected: Expected::Zeros,
        };
        for entry in &manifest.dense {
            if entry.offset > end {
                checks.push(gap(end, entry.offset));
            }
            let (offset, bytes) = (entry.offset, entry.bytes);
            let item = format!("tensor {}", shown(&entry.name));
            let expected = Expected::Sum(entry.checksum);
            checks.push(Check { file, offset, bytes, item, expected });
            end = offset + bytes;
        }
        let file_bytes = manifest.files[file].bytes;
        if file_bytes > end {
            checks.push(gap(end, file_bytes));
        }
    }
    let mut seen = HashSet::new();
    for layer in &manifest.layers {
        let Some(&file) = by_name.get(layer.file.as_str()) else { continue };
        for (expert, &checksum) in layer.checksums.iter().enumerate() {
            let record = layer.first_record + expert as u64;
            // Layers of a synthetic model may share records: read those once.
            if !seen.insert((file, record * layer.record_bytes, layer.record_bytes, checksum)) {
                continue;
            }
            checks.push(Check {
                file,
                offset: record * layer.record_bytes,
                bytes: layer.record_bytes,
                item: format!("layer {} expert {expert}", layer.layer),
                expected: Expected::Sum(checksum),
            });
        }
    }
    checks
}

impl Check {
    fn bytes_to_read(&self) -> u64 {
        if matches!(self.expected, Expected::File(None)) { 0 } else { self.bytes }
    }

    /// Reads the range; `Err` is what is wrong with it. `advance` hears of bytes read.
    fn run(&self, pool: &FilePool, buffer: &mut Vec<u8>, advance: &dyn Fn(u64)) -> Result<(), BadRecord> {
        let bad = |expected: String, got: String| BadRecord {
            path: pool.path(self.file).to_path_buf(),
            item: self.item.clone(),
            offset: self.offset,
            bytes: self.bytes,
            expected,
            got,
        };
        let failed = |e: std::io::Error| bad(format!("{} readable bytes", self.bytes), shown(&e.to_string()));
        let file = pool.file(self.file).map_err(failed)?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let expected = match self.expected {
            Expected::File(_) if file_bytes != self.bytes => {
                return Err(bad(format!("{} bytes", self.bytes), format!("{file_bytes} bytes")));
            }
            Expected::File(None) => return Ok(()),
            Expected::File(Some(checksum)) | Expected::Sum(checksum) => Some(checksum),
            Expected::Zeros => None,
        };
        let mut hash = Xxh3::new();
        let mut zeros = true;
        let mut done = 0;
        while done < self.bytes {
            let step = (self.bytes - done).min(STEP_BYTES);
            buffer.resize(step as usize, 0);
            read_exact_at(&file, buffer, self.offset + done).map_err(failed)?;
            match expected {
                Some(_) => hash.update(buffer),
                None => zeros &= buffer.iter().all(|&byte| byte == 0),
            }
            wont_need(&file, self.offset + done, step);
            advance(step);
            done += step;
        }
        match expected {
            Some(expected) if hash.digest() != expected.0 => {
                Err(bad(format!("checksum {expected}"), Checksum(hash.digest()).to_string()))
            }
            None if !zeros => Err(bad("zeros".to_owned(), "other bytes".to_owned())),
            _ => Ok(()),
        }
    }
}

/// Bytes read at a time by one thread.
const STEP_BYTES: u64 = 1 << 20;
