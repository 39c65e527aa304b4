//! What is wrong with a GGUF file.

use std::path::PathBuf;

/// What is wrong with a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// A version of GGUF that is not read.
    #[error(
        "GGUF version {got} is not supported; expected version 2 or 3 in little-endian \
         byte order; download a newer conversion of the model"
    )]
    Version {
        /// The version, with the byte order if it is the wrong one.
        got: String,
    },
    /// Something in a GGUF header that cannot be.
    #[error(
        "impossible GGUF header at offset {offset}: {item}: expected {expected}, got {got}; \
         the file is damaged or truncated, download it again"
    )]
    Invalid {
        /// Where the reader stood.
        offset: u64,
        /// Which field, key or tensor.
        item: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// Something in a GGUF header that may be as its maker wanted it, but is not read.
    #[error(
        "GGUF header at offset {offset}: {item}: expected {expected}, got {got}; this program does not read \
         such a file; use another conversion of the model"
    )]
    Unread {
        /// Where the reader stood.
        offset: u64,
        /// Which field, key or tensor.
        item: String,
        /// What can be read.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A part of a split GGUF whose name does not tell those of the others.
    #[error(
        "this is part {number} of {count} of a split model, under a name that does not tell those of the other \
         parts; expected a name that ends in {suffix}: rename the parts, in a hub's cache open the link in \
         snapshots/ and not the blob, and join parts with gguf-split only, which can merge them"
    )]
    PartRenamed {
        /// Number of the part, from 1.
        number: usize,
        /// How many parts there are.
        count: usize,
        /// How the name of this part would end.
        suffix: String,
    },
    /// A tensor type that is not read.
    #[error(
        "tensor {tensor}: ggml type {got} is not supported; expected one of {known}; \
         download the model in one of these formats"
    )]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// The type in the file, by name where it has one.
        got: String,
        /// The formats that are read.
        known: String,
    },
    /// One of the later files of a split GGUF.
    #[error("this is not the first file of a split model; pass {first} instead")]
    OtherShard {
        /// The first file.
        first: PathBuf,
    },
    /// A file of a split GGUF that is not there.
    #[error(
        "missing, but {first} says that the model is split into {count} files; download \
         the missing file into the same directory"
    )]
    ShardMissing {
        /// The first file.
        first: PathBuf,
        /// How many files there are.
        count: usize,
    },
    /// A file of a split GGUF that belongs to another model.
    #[error(
        "does not belong to {first}: {item}: expected {expected}, got {got}; the files are \
         of different models or have changed names, download both again"
    )]
    ShardForeign {
        /// The first file.
        first: PathBuf,
        /// Which key.
        item: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
}
