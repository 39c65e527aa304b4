//! The journal of an unfinished container, from the writing side.
//!
//! Order is everything: a unit's bytes are synced before its line is written, and the line is
//! synced before the unit counts. So after a kill or a power cut each whole line is true; a torn
//! last line is cut off when the pack resumes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use checkpoint::journal::{JournalHead, journal_line, parse_journal_line};
use checkpoint::manifest::{Checksum, JOURNAL};
use serde::{Deserialize, Serialize};

use super::disk::sync_directory;
use super::error::PackError;
use super::names::PARTIAL;

/// A finished unit.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnitLine {
    /// Index in the layout.
    pub(crate) unit: u64,
    /// Checksum of its bytes.
    pub(crate) checksum: Checksum,
}

/// An open journal, to which lines are appended.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

/// What an earlier run left.
pub(crate) struct Found {
    pub(crate) head: JournalHead,
    pub(crate) units: Vec<UnitLine>,
    /// Length of the part that is whole.
    valid_bytes: u64,
}

impl Found {
    /// Reads the journal of `directory`. `None` when there is none or its first line is damaged.
    pub(crate) fn read(directory: &Path) -> Result<Option<Found>, PackError> {
        let path = directory.join(JOURNAL);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(PackError::io(&path, "read the journal", e)),
        };
        let mut lines = text.split_inclusive(|&b| b == b'\n');
        let Some((head, mut valid_bytes)) = lines.next().and_then(whole_line::<JournalHead>) else {
            return Ok(None);
        };
        let mut units = Vec::new();
        for (unit, bytes) in lines.map_while(whole_line::<UnitLine>) {
            units.push(unit);
            valid_bytes += bytes;
        }
        Ok(Some(Found { head, units, valid_bytes }))
    }
}

/// A line with its line feed and a right checksum, and its length.
fn whole_line<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Option<(T, u64)> {
    let value = parse_journal_line(line.strip_suffix(b"\n")?)?;
    Some((value, line.len() as u64))
}

impl Journal {
    /// Starts the journal of an empty directory.
    pub(crate) fn create(directory: &Path, head: &JournalHead) -> Result<Journal, PackError> {
        Journal::replace(directory, head, &[])
    }

    /// Goes on with the journal that was found, without its torn end.
    pub(crate) fn resume(directory: &Path, found: &Found) -> Result<Journal, PackError> {
        let path = directory.join(JOURNAL);
        let io = |e| PackError::io(&path, "open the journal", e);
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        file.set_len(found.valid_bytes).and_then(|()| file.sync_all()).map_err(io)?;
        Ok(Journal { path, file })
    }

    /// Puts a journal with these units in place of the one that is there, if any.
    pub(crate) fn replace(
        directory: &Path,
        head: &JournalHead,
        units: &[UnitLine],
    ) -> Result<Journal, PackError> {
        let path = directory.join(JOURNAL);
        let partial = directory.join(JOURNAL.to_owned() + PARTIAL);
        let io = |e| PackError::io(&path, "write the journal", e);
        let text = lines(&path, head, units)?;
        let mut file = File::create(&partial).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        drop(file);
        std::fs::rename(&partial, &path).map_err(io)?;
        sync_directory(directory).map_err(io)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok(Journal { path, file })
    }

    /// Adds finished units durably. Their bytes must be durable already.
    pub(crate) fn append(&mut self, units: &[UnitLine]) -> Result<(), PackError> {
        let mut text = String::new();
        for unit in units {
            text += &journal_line(unit).map_err(|e| json(&self.path, e))?;
        }
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|e| PackError::io(&self.path, "write the journal", e))
    }
}

fn lines(path: &Path, head: &JournalHead, units: &[UnitLine]) -> Result<String, PackError> {
    let mut text = journal_line(head).map_err(|e| json(path, e))?;
    for unit in units {
        text += &journal_line(unit).map_err(|e| json(path, e))?;
    }
    Ok(text)
}

fn json(path: &Path, source: serde_json::Error) -> PackError {
    PackError::io(path, "write the journal", source.into())
}
