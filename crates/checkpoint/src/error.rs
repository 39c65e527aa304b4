//! Everything that can be wrong with a model on disk, each with one line that says where, what was
//! expected, what was found and what to do.
//!
//! Names and reasons that come out of a file are escaped and cut with [`shown`] when the error is
//! built, so that a hostile file can neither break the line nor fill the screen.

mod entry;
mod file;
mod gguf;
mod packed;
mod safetensors;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

pub use entry::EntryError;
pub use file::FileError;
pub use gguf::GgufError;
pub use packed::PackedError;
pub use safetensors::SafetensorsError;

/// What is wrong with a checkpoint: which file, and what. Prints as one line.
#[derive(Debug)]
pub struct CheckpointError {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong with it; boxed, so that results stay small.
    pub kind: Box<ErrorKind>,
}

/// What is wrong, by the container that says it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file itself, in any container.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor in a header or manifest, in any container.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A Hugging Face directory.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A packed container.
    #[error(transparent)]
    Packed(#[from] PackedError),
}

impl CheckpointError {
    /// What is wrong with `path`.
    pub fn new(path: impl Into<PathBuf>, kind: impl Into<ErrorKind>) -> Self {
        CheckpointError { path: path.into(), kind: Box::new(kind.into()) }
    }

    /// Wraps an operating-system error with the path and what was tried.
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        CheckpointError::new(path, FileError::Io { action, source })
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.kind)
    }
}

impl Error for CheckpointError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

/// A name or reason out of a file, made safe for one line: control characters escaped, at most
/// 200 characters.
pub fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(SHOWN_CHARS_MAX).flat_map(escape).collect();
    if chars.next().is_some() { head + "…" } else { head }
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let (escaped, plain) = if c.is_control() { (Some(c.escape_default()), None) } else { (None, Some(c)) };
    escaped.into_iter().flatten().chain(plain)
}

/// Longest name or reason that an error repeats.
const SHOWN_CHARS_MAX: usize = 200;
