//! Errors of traces.

use std::io;
use std::path::PathBuf;

/// A trace that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The trace.
        path: PathBuf,
        /// The operating system's error.
        r#source: io::Error,
    },
    /// The bytes are no trace, or a damaged one.
    #[error("{}: at offset {offset}: {reason}; record the trace again", path.display())]
    Damaged {
        /// The trace.
        path: PathBuf,
        /// Where in the file.
        offset: usize,
        /// The reason.
        reason: &'static str,
    },
}
