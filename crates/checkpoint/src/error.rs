//! Everything that can be wrong with a model on disk, each with one line that says where, what was
//! expected, what was found and what to do.
//!
//! Names and reasons that come out of a file are escaped and cut with [`shown`] when the error is
//! built, so that a hostile file can neither break the line nor fill the screen.

use std::path::{Path, PathBuf};

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is nothing at the path.
    #[error(
        "{path}: no such file or directory; pass a GGUF file, a directory that holds config.json \
         and safetensors files, or one that `flash-moe pack` made"
    )]
    NotFound {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The operating system refused an operation.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, e.g. "read the header".
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A directory without a model, or a file that is none.
    #[error(
        "{path}: not a model: found {found}; expected a GGUF file, config.json with \
         model.safetensors or model.safetensors.index.json, or a directory that `flash-moe pack` made"
    )]
    NotAModel {
        /// The path that was asked for.
        path: PathBuf,
        /// What lies there, in words.
        found: String,
    },
    /// A directory of GGUF files where one file was expected.
    #[error("{path}: this directory holds GGUF files; pass one of them, for instance {file}")]
    GgufDirectory {
        /// The directory.
        path: PathBuf,
        /// The first GGUF file in it.
        file: PathBuf,
    },
    /// A version of GGUF that is not read.
    #[error(
        "{path}: GGUF version {got} is not supported; expected version 2 or 3 in little-endian \
         byte order; download a newer conversion of the model"
    )]
    GgufVersion {
        /// The file.
        path: PathBuf,
        /// The version, with the byte order if it is the wrong one.
        got: String,
    },
    /// Something in a GGUF header that cannot be.
    #[error(
        "{path}: impossible GGUF header at offset {offset}: {item}: expected {expected}, got {got}; \
         the file is damaged or truncated, download it again"
    )]
    GgufInvalid {
        /// The file.
        path: PathBuf,
        /// Where the reader stood.
        offset: u64,
        /// Which field, key or tensor.
        item: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A tensor type that is not read.
    #[error(
        "{path}: tensor {tensor}: ggml type {got} is not supported; expected one of {known}; \
         download the model in one of these formats"
    )]
    UnsupportedGgmlType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type in the file, by name where it has one.
        got: String,
        /// The formats that are read.
        known: String,
    },
    /// One of the later files of a split GGUF.
    #[error("{path}: this is not the first file of a split model; pass {first} instead")]
    GgufOtherShard {
        /// The file.
        path: PathBuf,
        /// The first file.
        first: PathBuf,
    },
    /// A file of a split GGUF that is not there.
    #[error(
        "{path}: missing, but {first} says that the model is split into {count} files; download \
         the missing file into the same directory"
    )]
    GgufShardMissing {
        /// The file.
        path: PathBuf,
        /// The first file.
        first: PathBuf,
        /// How many files there are.
        count: usize,
    },
    /// A file of a split GGUF that belongs to another model.
    #[error(
        "{path}: does not belong to {first}: {item}: expected {expected}, got {got}; the files are \
         of different models or have changed names, download both again"
    )]
    GgufShardForeign {
        /// The file.
        path: PathBuf,
        /// The first file.
        first: PathBuf,
        /// Which key.
        item: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A file of a model where its directory was expected.
    #[error("{path}: this is one file of a model; pass its directory {directory} instead")]
    FileOfModel {
        /// The path that was asked for.
        path: PathBuf,
        /// The directory to pass.
        directory: PathBuf,
    },
    /// A file that the model cannot do without is not there.
    #[error("{path}: missing; {advice}")]
    MissingFile {
        /// The file that is missing.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A shard that the index names is not there.
    #[error(
        "{path}: shard is missing, but {index} says that it holds tensor {tensor}; \
         download the missing file into the same directory"
    )]
    MissingShard {
        /// The shard.
        path: PathBuf,
        /// The index file that names it.
        index: PathBuf,
        /// The first tensor (by name) that should be in it.
        tensor: String,
    },
    /// A file larger than any honest one.
    #[error("{path}: {what} is too large: expected at most {limit}, got {got}; refused")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large, with its unit.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What the file says.
        got: u64,
    },
    /// A Git LFS pointer where the real file should be.
    #[error(
        "{path}: this is a Git LFS pointer, not the file itself; run `git lfs pull` in its \
         directory or download the file again"
    )]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A file that should be JSON and is not, or whose JSON has another form.
    #[error("{path}: not valid {expected}: {reason}; {advice}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be, e.g. "JSON object".
        expected: &'static str,
        /// The parser's answer, with line and column.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// A safetensors file too short to have a header.
    #[error(
        "{path}: truncated: expected at least 8 bytes of header length, got a file of {got} \
         bytes; download it again"
    )]
    NoHeader {
        /// The shard.
        path: PathBuf,
        /// Its size in bytes.
        got: u64,
    },
    /// A header length that goes beyond the end of the file.
    #[error(
        "{path}: header length at offset 0 goes beyond the file: expected at most {expected} \
         bytes, got {got}; the file is damaged or truncated, download it again"
    )]
    HeaderBeyondFile {
        /// The shard.
        path: PathBuf,
        /// Bytes of the file behind the length field.
        expected: u64,
        /// The header length in the file.
        got: u64,
    },
    /// A header that is no safetensors header.
    #[error(
        "{path}: not a safetensors header at offset 8: {reason}; the file is damaged or of \
         another kind, download it again"
    )]
    HeaderInvalid {
        /// The shard.
        path: PathBuf,
        /// The parser's answer.
        reason: String,
    },
    /// A name that occurs twice.
    #[error("{path}: tensor {tensor} is listed twice; the file is damaged, download it again")]
    DuplicateTensor {
        /// The shard, index or manifest.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor name longer than any real one.
    #[error("{path}: tensor {tensor}: name too long: expected at most {limit} bytes, got {got}")]
    NameTooLong {
        /// The file.
        path: PathBuf,
        /// The start of the name.
        tensor: String,
        /// The limit in bytes.
        limit: usize,
        /// Its length in bytes.
        got: usize,
    },
    /// More dimensions than any real tensor has.
    #[error("{path}: tensor {tensor}: expected at most {limit} dimensions, got {got}")]
    RankTooHigh {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The limit.
        limit: usize,
        /// What the file says.
        got: usize,
    },
    /// A dtype that no version of safetensors has.
    #[error(
        "{path}: tensor {tensor}: unknown dtype {got}; expected F32, F16 or BF16; the file is \
         damaged or needs a newer flash-moe"
    )]
    UnknownDtype {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The dtype in the file.
        got: String,
    },
    /// A dtype of safetensors that flash-moe does not read.
    #[error(
        "{path}: tensor {tensor}: dtype {got} is not supported; expected F32, F16 or BF16; use \
         the model's original 16-bit release instead of an FP8, GPTQ, AWQ or MLX conversion"
    )]
    UnsupportedDtype {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The dtype in the file.
        got: String,
    },
    /// A shape whose size does not fit in 64 bits, or that its format cannot hold.
    #[error("{path}: tensor {tensor}: impossible shape {shape:?}: {reason}; the file is damaged")]
    BadShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape in the file.
        shape: Vec<u64>,
        /// Why it cannot be.
        reason: String,
    },
    /// A tensor that ends before it begins.
    #[error(
        "{path}: tensor {tensor}: data offsets are reversed: begin {begin}, end {end}; the file \
         is damaged, download it again"
    )]
    ReversedOffsets {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// First byte, from the start of the data.
        begin: u64,
        /// End, from the start of the data.
        end: u64,
    },
    /// A tensor whose bytes are not as many as its shape and format need.
    #[error(
        "{path}: tensor {tensor} at offset {offset}: expected {expected} bytes for its shape and \
         dtype, got {got}; the file is damaged, download it again"
    )]
    SizeMismatch {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its first byte in the file.
        offset: u64,
        /// Bytes that the shape needs.
        expected: u64,
        /// Bytes that the header gives it.
        got: u64,
    },
    /// A tensor that lies outside the data section.
    #[error(
        "{path}: tensor {tensor} at offset {offset} is out of range: expected an end of at most \
         {expected}, got {got}; the file is damaged, download it again"
    )]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its first byte in the file.
        offset: u64,
        /// End of the file.
        expected: u64,
        /// End of the tensor.
        got: u64,
    },
    /// Two tensors that share bytes.
    #[error(
        "{path}: tensor {tensor} overlaps {other}: expected an offset of at least {expected}, got \
         {got}; the file is damaged, download it again"
    )]
    Overlap {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The tensor before it.
        other: String,
        /// End of the tensor before it.
        expected: u64,
        /// First byte of the tensor.
        got: u64,
    },
    /// Bytes between two tensors that belong to neither, which safetensors forbids.
    #[error(
        "{path}: tensor {tensor}: expected offset {expected} (safetensors has no holes), got \
         {got}; the file is damaged, download it again"
    )]
    Hole {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// End of the tensor before it.
        expected: u64,
        /// First byte of the tensor.
        got: u64,
    },
    /// A shard that ends before its last tensor does.
    #[error(
        "{path}: truncated: tensor {tensor} at offset {offset} is cut off; expected a file of \
         {expected} bytes, got {got}; download it again"
    )]
    Truncated {
        /// The shard.
        path: PathBuf,
        /// The first tensor that is not whole.
        tensor: String,
        /// Its first byte in the file.
        offset: u64,
        /// Size the file should have.
        expected: u64,
        /// Size the file has.
        got: u64,
    },
    /// Bytes behind the last tensor.
    #[error(
        "{path}: data behind the last tensor: expected a file of {expected} bytes, got {got}; \
         the file is damaged, download it again"
    )]
    TrailingData {
        /// The shard.
        path: PathBuf,
        /// Size the file should have.
        expected: u64,
        /// Size the file has.
        got: u64,
    },
    /// A shard name in the index that is no plain file name.
    #[error(
        "{path}: tensor {tensor}: expected a plain file name ending in .safetensors, got {got}; \
         refused"
    )]
    BadShardName {
        /// The index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The name in the index.
        got: String,
    },
    /// A tensor that the index names and its shard has not.
    #[error(
        "{path}: tensor {tensor} is absent, but {index} says that it is in this file; index and \
         shards are of different downloads, download both again"
    )]
    AbsentFromShard {
        /// The shard.
        path: PathBuf,
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that a shard has and the index does not assign to it.
    #[error(
        "{path}: tensor {tensor} is in this file, but {index} says {claimed}; index and shards \
         are of different downloads, download both again"
    )]
    AbsentFromIndex {
        /// The shard.
        path: PathBuf,
        /// The index.
        index: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the index says about it, in words.
        claimed: String,
    },
    /// A directory in which packing was interrupted.
    #[error(
        "{path}: packing was not finished; run `{resume}` with the same options to resume it, or \
         delete the directory"
    )]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// The command that resumes it.
        resume: String,
    },
    /// A manifest whose checksum is wrong.
    #[error(
        "{path}: manifest is damaged: expected checksum {expected}, got {got} over the bytes from \
         offset {offset}; pack the model again or restore the file"
    )]
    ManifestChecksum {
        /// The manifest.
        path: PathBuf,
        /// First byte that the checksum covers.
        offset: u64,
        /// Checksum in the file.
        expected: String,
        /// Checksum of the file.
        got: String,
    },
    /// A `manifest.json` that does not begin as ours.
    #[error(
        "{path}: not a manifest of flash-moe at offset 0: expected {expected}, got {got}; pack \
         the model again or restore the file"
    )]
    ManifestForeign {
        /// The manifest.
        path: PathBuf,
        /// How it should begin.
        expected: String,
        /// How it begins.
        got: String,
    },
    /// A container of a later format version.
    #[error(
        "{path}: packed format version {got} is newer than this flash-moe, which reads up to \
         version {expected}; update flash-moe"
    )]
    NewerVersion {
        /// The manifest.
        path: PathBuf,
        /// Newest version that this program reads.
        expected: u32,
        /// Version of the container.
        got: u64,
    },
    /// A manifest whose checksum is right and whose content is impossible.
    #[error("{path}: impossible manifest: {item}: expected {expected}, got {got}; pack the model again")]
    ManifestInvalid {
        /// The manifest.
        path: PathBuf,
        /// Which field, tensor or layer.
        item: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A file of a container that has another size than the manifest says.
    #[error(
        "{path}: size differs from the manifest: expected {expected} bytes, got {got}; copy the \
         file again or pack the model again"
    )]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Size in the manifest.
        expected: u64,
        /// Size on disk.
        got: u64,
    },
    /// A small file of a container whose content is not what was packed.
    #[error(
        "{path}: damaged: expected checksum {expected}, got {got} at offset 0; copy the file again \
         or pack the model again"
    )]
    FileChecksum {
        /// The file.
        path: PathBuf,
        /// Checksum in the manifest.
        expected: String,
        /// Checksum of the file.
        got: String,
    },
}

impl CheckpointError {
    /// Wraps an operating-system error with the path and what was tried.
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        CheckpointError::Io { path: path.to_path_buf(), action, source }
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
