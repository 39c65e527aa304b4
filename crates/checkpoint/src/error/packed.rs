//! What is wrong with a packed container.

/// What is wrong with a packed container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// A directory in which packing was interrupted.
    #[error(
        "packing was not finished; run `{resume}` with the same options to resume it, or \
         delete the directory"
    )]
    Incomplete {
        /// The command that resumes it.
        resume: String,
    },
    /// A manifest whose checksum is wrong.
    #[error(
        "manifest is damaged: expected checksum {expected}, got {got} over the bytes from \
         offset {offset}; pack the model again or restore the file"
    )]
    ManifestChecksum {
        /// First byte that the checksum covers.
        offset: u64,
        /// Checksum in the file.
        expected: String,
        /// Checksum of the file.
        got: String,
    },
    /// A `manifest.json` that does not begin as ours.
    #[error(
        "not a manifest of flash-moe at offset 0: expected {expected}, got {got}; pack \
         the model again or restore the file"
    )]
    ManifestForeign {
        /// How it should begin.
        expected: String,
        /// How it begins.
        got: String,
    },
    /// A container of a later format version.
    #[error(
        "packed format version {got} is newer than this flash-moe, which reads up to \
         version {expected}; update flash-moe"
    )]
    NewerVersion {
        /// Newest version that this program reads.
        expected: u32,
        /// Version of the container.
        got: u64,
    },
    /// A manifest whose checksum is right and whose content is impossible.
    #[error("impossible manifest: {item}: expected {expected}, got {got}; pack the model again")]
    ManifestInvalid {
        /// Which field, tensor or layer.
        item: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A file of a container that has another size than the manifest says.
    #[error(
        "size differs from the manifest: expected {expected} bytes, got {got}; copy the \
         file again or pack the model again"
    )]
    FileSize {
        /// Size in the manifest.
        expected: u64,
        /// Size on disk.
        got: u64,
    },
    /// A small file of a container whose content is not what was packed.
    #[error(
        "damaged: expected checksum {expected}, got {got} at offset 0; copy the file again \
         or pack the model again"
    )]
    FileChecksum {
        /// Checksum in the manifest.
        expected: String,
        /// Checksum of the file.
        got: String,
    },
}
