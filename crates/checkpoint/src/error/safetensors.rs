//! What is wrong with a Hugging Face directory or one of its shards.

use std::path::PathBuf;

/// What is wrong with a Hugging Face directory or one of its shards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// A shard that the index names is not there.
    #[error(
        "shard is missing, but {index} says that it holds tensor {tensor}; \
         download the missing file into the same directory"
    )]
    MissingShard {
        /// The index file that names it.
        index: PathBuf,
        /// The first tensor (by name) that should be in it.
        tensor: String,
    },
    /// A safetensors file too short to have a header.
    #[error(
        "truncated: expected at least 8 bytes of header length, got a file of {got} \
         bytes; download it again"
    )]
    NoHeader {
        /// Its size in bytes.
        got: u64,
    },
    /// A header length that goes beyond the end of the file.
    #[error(
        "header length at offset 0 goes beyond the file: expected at most {expected} \
         bytes, got {got}; the file is damaged or truncated, download it again"
    )]
    HeaderBeyondFile {
        /// Bytes of the file behind the length field.
        expected: u64,
        /// The header length in the file.
        got: u64,
    },
    /// A header that is no safetensors header.
    #[error(
        "not a safetensors header at offset 8: {reason}; the file is damaged or of \
         another kind, download it again"
    )]
    HeaderInvalid {
        /// The parser's answer.
        reason: String,
    },
    /// A dtype that no version of safetensors has.
    #[error(
        "tensor {tensor}: unknown dtype {got}; expected F32, F16 or BF16; the file is \
         damaged or needs a newer flash-moe"
    )]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// The dtype in the file.
        got: String,
    },
    /// A dtype of safetensors that flash-moe does not read.
    #[error(
        "tensor {tensor}: dtype {got} is not supported; expected F32, F16 or BF16; use \
         the model's original 16-bit release instead of an FP8, GPTQ, AWQ or MLX conversion"
    )]
    UnsupportedDtype {
        /// The tensor.
        tensor: String,
        /// The dtype in the file.
        got: String,
    },
    /// A tensor that ends before it begins.
    #[error(
        "tensor {tensor}: data offsets are reversed: begin {begin}, end {end}; the file \
         is damaged, download it again"
    )]
    ReversedOffsets {
        /// The tensor.
        tensor: String,
        /// First byte, from the start of the data.
        begin: u64,
        /// End, from the start of the data.
        end: u64,
    },
    /// Bytes between two tensors that belong to neither, which safetensors forbids.
    #[error(
        "tensor {tensor}: expected offset {expected} (safetensors has no holes), got \
         {got}; the file is damaged, download it again"
    )]
    Hole {
        /// The tensor.
        tensor: String,
        /// End of the tensor before it.
        expected: u64,
        /// First byte of the tensor.
        got: u64,
    },
    /// Bytes behind the last tensor.
    #[error(
        "data behind the last tensor: expected a file of {expected} bytes, got {got}; \
         the file is damaged, download it again"
    )]
    TrailingData {
        /// Size the file should have.
        expected: u64,
        /// Size the file has.
        got: u64,
    },
    /// A shard name in the index that is no plain file name.
    #[error(
        "tensor {tensor}: expected a plain file name ending in .safetensors, got {got}; \
         refused"
    )]
    BadShardName {
        /// The tensor.
        tensor: String,
        /// The name in the index.
        got: String,
    },
    /// A tensor that the index names and its shard has not.
    #[error(
        "tensor {tensor} is absent, but {index} says that it is in this file; index and \
         shards are of different downloads, download both again"
    )]
    AbsentFromShard {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that a shard has and the index does not assign to it.
    #[error(
        "tensor {tensor} is in this file, but {index} says {claimed}; index and shards \
         are of different downloads, download both again"
    )]
    AbsentFromIndex {
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the index says about it, in words.
        claimed: String,
    },
}
