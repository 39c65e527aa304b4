//! `pack.journal`: what an unfinished container has so far.
//!
//! A line is the checksum of its JSON (16 digits), a space, the JSON, a line feed. The first line
//! is a [`JournalHead`]; each further one is a unit that was finished, and is written only after
//! the unit's bytes are on the disk. A torn or damaged line ends the journal.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::checksum::{CHECKSUM_DIGITS, Checksum};

/// The first line of `pack.journal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalHead {
    /// Always [`JOURNAL_FORMAT`].
    pub format: String,
    /// Always [`crate::manifest::VERSION`].
    pub version: u32,
    /// Program and version that began it: another one may encode differently.
    pub created_by: String,
    /// Identity of the plan, as in the manifest.
    pub plan: Checksum,
    /// The command that resumes it.
    pub resume: String,
}

/// Value of `format` in the first line of a journal.
pub const JOURNAL_FORMAT: &str = "flash-moe-pack-journal";

/// One line of a journal: the checksum of the rest, a space, JSON, a line feed.
pub fn journal_line<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(value)?;
    Ok(format!("{} {json}\n", Checksum(xxh3_64(json.as_bytes()))))
}

/// Reads a line of a journal without its line feed; `None` when it is torn or damaged.
pub fn parse_journal_line<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Option<T> {
    let (checksum, json) = line.split_at_checked(CHECKSUM_DIGITS)?;
    let json = json.strip_prefix(b" ")?;
    let checksum = Checksum::parse(str::from_utf8(checksum).ok()?)?;
    if checksum.0 != xxh3_64(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}
