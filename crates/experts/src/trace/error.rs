//! What can go wrong with a trace.

use std::io;
use std::path::PathBuf;

/// What went wrong with a trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The trace.
        path: PathBuf,
        /// What the operating system said.
        r#source: io::Error,
    },
    /// The bytes are no trace, or a damaged one.
    #[error("{}: at offset {offset}: {reason}; record the trace again", path.display())]
    Damaged {
        /// The trace.
        path: PathBuf,
        /// Where in the file.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
}
