//! The packed container: one directory, made by `flash-moe pack`.
//!
//! `docs/packed-format.md` describes every byte. In short: `dense.bin` has the tensors that every
//! token needs; `experts-NNNN.bin` has one aligned record per expert; `manifest.json` says where
//! everything lies and what its checksum is. The manifest is written last and renamed into place,
//! so a directory that has one is complete, and its own checksum covers everything in it: a byte
//! that flips anywhere is found either here (manifest, sizes, small files), when the dense tensors
//! are loaded, or when a record is.
//!
//! This module opens containers; [`crate::manifest`] and [`crate::journal`] define what a writer
//! must produce, and the writer is `pack`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::checksum::Checksum;
use crate::error::{CheckpointError, FileError, PackedError, shown};
use crate::journal::{JournalHead, parse_journal_line};
use crate::manifest::{AUX_BYTES_MAX, FileEntry, JOURNAL, MANIFEST, MANIFEST_START, Manifest};
use crate::read::{file_exists, read_small};
use crate::resolve::{Resolved, resolve};

/// Longest first line of a journal that is read.
const JOURNAL_HEAD_BYTES_MAX: u64 = 64 << 10;

/// Opens the container in `directory`: manifest, sizes of all files, checksums of the small ones.
pub(crate) fn open(directory: &Path) -> Result<(Manifest, Resolved), CheckpointError> {
    let manifest = Manifest::read(directory)?;
    for entry in &manifest.files {
        check_file(directory, entry)?;
    }
    let resolved = resolve(&manifest, &directory.join(MANIFEST))?;
    Ok((manifest, resolved))
}

/// Whether `directory` has a manifest that begins as ours do.
pub(crate) fn has_manifest(directory: &Path) -> bool {
    let mut start = [0u8; MANIFEST_START.len()];
    let read = File::open(directory.join(MANIFEST)).and_then(|mut f| f.read_exact(&mut start));
    read.is_ok() && start == *MANIFEST_START.as_bytes()
}

/// The error for a directory whose packing was interrupted: names the command in its journal.
pub(crate) fn incomplete(directory: &Path) -> CheckpointError {
    let mut text = Vec::new();
    let read = File::open(directory.join(JOURNAL))
        .and_then(|file| file.take(JOURNAL_HEAD_BYTES_MAX).read_to_end(&mut text));
    let head = read.ok().and_then(|_| text.split(|&b| b == b'\n').next());
    let resume = head
        .and_then(parse_journal_line::<JournalHead>)
        .map_or_else(|| format!("flash-moe pack SRC {}", directory.display()), |head| shown(&head.resume));
    CheckpointError::new(directory, PackedError::Incomplete { resume })
}

/// A file has the size of its entry and, if the entry has one, the checksum.
fn check_file(directory: &Path, entry: &FileEntry) -> Result<(), CheckpointError> {
    let path = directory.join(&entry.name);
    if !file_exists(&path)? {
        let advice = "the manifest lists it; copy the whole container or pack the model again";
        return Err(CheckpointError::new(path, FileError::MissingFile { advice }));
    }
    let got = std::fs::metadata(&path).map_err(|e| CheckpointError::io(&path, "find the size", e))?.len();
    if got != entry.bytes {
        return Err(CheckpointError::new(path, PackedError::FileSize { expected: entry.bytes, got }));
    }
    let Some(expected) = entry.checksum else {
        return Ok(());
    };
    let got = Checksum(xxh3_64(&read_small(&path, "the file in bytes", AUX_BYTES_MAX)?));
    if got != expected {
        let (expected, got) = (expected.to_string(), got.to_string());
        return Err(CheckpointError::new(path, PackedError::FileChecksum { expected, got }));
    }
    Ok(())
}
