//! Everything that can go wrong between a name and a file, each in one line: the wish, the hub's
//! answer, and the next step. Texts that came from a hub are escaped and cut with
//! [`checkpoint::shown`] when the error is built.

use std::path::{Path, PathBuf};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name that can be no model's.
    #[error("{name}: {reason}; write ORG/NAME, ORG/NAME:QUANT, ORG/NAME@REVISION or an https address")]
    Name {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The network must not be used.
    #[error("{what}: HF_HUB_OFFLINE forbids to ask the hub; unset it, or use a model that is here already")]
    Offline {
        /// What was wanted.
        what: String,
    },
    /// The hub has no such repository, revision or file.
    #[error("{url}: the hub has no {what} (404{said}); check the spelling{private}")]
    NotFound {
        /// The address that was asked.
        url: String,
        /// Repository, revision or file.
        what: String,
        /// The hub's own words, after a colon.
        said: String,
        /// A half-sentence on private repositories.
        private: &'static str,
    },
    /// The repository is private or its licence must be accepted first.
    #[error("{repo}: the hub refuses access ({status}{said}); {todo}")]
    Refused {
        /// The repository, or the address.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// The hub's own words, after a colon.
        said: String,
        /// What to do.
        todo: String,
    },
    /// Any other status.
    #[error("{url}: the hub answered {status}{said}{tried}")]
    Status {
        /// The address that was asked.
        url: String,
        /// The status.
        status: u16,
        /// The hub's own words, after a colon.
        said: String,
        /// How often it was tried, in words.
        tried: String,
    },
    /// No answer.
    #[error("{url}: {reason}{tried}; check the connection, and HF_ENDPOINT if it is set")]
    Transport {
        /// The address that was asked.
        url: String,
        /// What happened.
        reason: String,
        /// How often it was tried, in words.
        tried: String,
    },
    /// An answer that makes no sense or breaks a limit.
    #[error("{url}: the answer is not a hub's: {reason}")]
    Answer {
        /// The address that was asked.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A file name that would leave the directory.
    #[error(
        "{repo}: the hub lists a file {path:?}, which would lie outside of the model's directory; nothing was written"
    )]
    UnsafePath {
        /// The repository.
        repo: String,
        /// The name, escaped.
        path: String,
    },
    /// No file has the wanted quantisation or name.
    #[error("{repo}: there is no {asked}; it has {available}")]
    NoSuchFile {
        /// The repository.
        repo: String,
        /// The quantisation or file that was asked for.
        asked: String,
        /// What there is, with sizes.
        available: String,
    },
    /// Several models fit.
    #[error("{repo}: {asked} fits several files; name one of {available}")]
    Ambiguous {
        /// The repository.
        repo: String,
        /// What was asked for.
        asked: String,
        /// Those that fit, with sizes.
        available: String,
    },
    /// The repository has no model that could be run.
    #[error("{repo}: neither a GGUF file nor a config.json with safetensors files is in it; {hint}")]
    NoModel {
        /// The repository.
        repo: String,
        /// What it has instead, or what to do.
        hint: String,
    },
    /// Some of a split model's files are absent.
    #[error(
        "{repo}: {file} is one of {count} files, of which only {found} are there; the model is incomplete"
    )]
    SplitIncomplete {
        /// The repository.
        repo: String,
        /// The first file.
        file: String,
        /// How many there should be.
        count: usize,
        /// How many there are.
        found: usize,
    },
    /// The disk is too small.
    #[error("{dir}: {needed} more are needed and {free} are free; make room, or set HF_HOME to another disk", dir = dir.display())]
    DiskFull {
        /// Where the files would lie.
        dir: PathBuf,
        /// Needed, for people.
        needed: String,
        /// Free, for people.
        free: String,
    },
    /// The bytes are not those that were announced.
    #[error(
        "{file}: the {kind} checksum is {got} instead of {expected}; the download was removed, get it again"
    )]
    Checksum {
        /// The file.
        file: String,
        /// sha256 or git.
        kind: &'static str,
        /// The one that the hub announced.
        expected: String,
        /// That of the bytes.
        got: String,
    },
    /// The file is another than a moment ago.
    #[error("{file}: it changed on the hub during the download ({what} {expected}, now {got}); start again")]
    Changed {
        /// The file.
        file: String,
        /// Size, checksum or commit.
        what: &'static str,
        /// Before.
        expected: String,
        /// Now.
        got: String,
    },
    /// The operating system refused something.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file of a cache or of another program is damaged.
    #[error("{path}: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file on the hub is no model that can be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// Headers of a model that cannot be read.
    #[error("{file}: {reason}")]
    Header {
        /// The file on the hub.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Not removed: this program did not fetch it.
    #[error("{name}: {reason}")]
    NotOurs {
        /// The model.
        name: String,
        /// Who did, and what to do.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("{file}: stopped; what has arrived is kept, and the next attempt goes on from there")]
    Cancelled {
        /// The file under way.
        file: String,
    },
}

impl HubError {
    /// Wraps an error of the operating system.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }
}

/// `17.3 GB`: decimal, as hubs and sellers of disks count.
pub fn decimal_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, 0);
    while whole >= 1000 && unit + 1 < UNITS.len() {
        tenths = whole % 1000 / 100;
        whole /= 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{whole} B"),
        _ => format!("{whole}.{tenths} {}", UNITS[unit]),
    }
}
