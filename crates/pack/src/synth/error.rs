//! What can go wrong while a synthetic model is written.

use crate::PackError;

/// Why no synthetic model was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// The target or the disk; see [`PackError`].
    #[error(transparent)]
    Write(#[from] PackError),
    /// A number of layers that no model can have.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// The limit on the disk leaves no room for even one file of records.
    #[error(
        "a limit of {asked} bytes on the disk is too small: the dense weights take {dense} bytes and \
         the experts of one layer {layer}; {needed} bytes are needed"
    )]
    DiskLimit {
        /// The limit.
        asked: u64,
        /// Bytes of the dense weights and the small files.
        dense: u64,
        /// Bytes of one layer's experts.
        layer: u64,
        /// The least that works.
        needed: u64,
    },
    /// There is no memory for a buffer.
    #[error(transparent)]
    Memory(#[from] storage::StorageError),
}
