//! GGUF, in place: metadata and tensors of one file, or of a model split into shards.
//!
//! A file is `"GGUF" | version u32 | tensor count u64 | entry count u64 | entries | tensor infos |
//! padding | data`, all little endian. An entry is a key and a typed value; a tensor info has a name,
//! dimensions (fastest first), a type and an offset from the start of the data. `parse` has the
//! rules, `types` the tensor types. Shards are files `NAME-00001-of-0000N.gguf`; the first has the
//! metadata, and each has its own tensors.
//!
//! Tensors keep the names that the file has. What they mean is the business of `models`, which gives
//! them the names that the rest of the program knows ([`crate::Checkpoint::adopt`]).

pub mod metadata;
mod parse;
mod types;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

pub use metadata::{Array, Metadata, Value};
pub use parse::{
    ALIGNMENT_MAX, DIMENSIONS_MAX, HEADER_BYTES_MAX, ITEMS_MAX, KEY_BYTES_MAX, KEYS_MAX, STRING_BYTES_MAX,
};

use crate::error::{CheckpointError, EntryError, GgufError, shown};
use crate::hf::SHARDS_MAX;
use crate::read::file_exists;
use crate::table::TensorInfo;
use parse::{Header, as_u64};

/// First bytes of a GGUF file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Extension of a GGUF file.
pub(crate) const EXTENSION: &str = "gguf";

/// What a GGUF file says about itself, tensors apart.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    header_bytes: u64,
}

impl Gguf {
    /// Version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata (of the first shard, which has the model's).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes of the header, metadata and tensor infos, of the first file.
    pub fn header_bytes(&self) -> u64 {
        self.header_bytes
    }
}

/// A model in one or several files.
pub(crate) struct Opened {
    pub(crate) files: Vec<PathBuf>,
    /// Sorted by name.
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) gguf: Gguf,
}

/// Opens the model whose first or only file is `path`.
pub(crate) fn open(path: &Path) -> Result<Opened, CheckpointError> {
    let first = read_header(path, 0)?;
    let split = Split::of(path, &first.metadata)?;
    let mut files = vec![path.to_path_buf()];
    let mut tensors = first.tensors;
    for number in 1..split.count {
        let shard = split.shard_path(path, number);
        let header = read_shard(path, &shard, &split, number, &first.metadata)?;
        tensors.extend(header.tensors);
        files.push(shard);
    }
    check_tensors(path, &files, &split, &tensors, &first.metadata)?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let gguf = Gguf { version: first.version, metadata: first.metadata, header_bytes: first.header_bytes };
    Ok(Opened { files, tensors, gguf })
}

/// Parses a header out of bytes, for fuzzing: the file is taken to be these bytes and no more.
///
/// # Errors
/// As [`crate::Checkpoint::open`].
pub fn parse_bytes(path: &Path, bytes: &[u8]) -> Result<(Gguf, Vec<TensorInfo>), CheckpointError> {
    read_from(path, bytes, u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// Parses the header of one file that need not be here: `reader` gives its bytes from the beginning,
/// `path` is its name in messages, `file_bytes` the length of the whole.
///
/// # Errors
/// As [`crate::Checkpoint::open`].
pub fn read_from(
    path: &Path,
    reader: impl Read,
    file_bytes: u64,
) -> Result<(Gguf, Vec<TensorInfo>), CheckpointError> {
    let Header { version, metadata, tensors, header_bytes } = parse::parse(path, 0, reader, file_bytes)?;
    Ok((Gguf { version, metadata, header_bytes }, tensors))
}

/// The metadata entries that begin in the first bytes of a file; a vocabulary and what is behind it are
/// not among them.
pub(crate) fn first_entries(path: &Path) -> Result<Metadata, CheckpointError> {
    let source = File::open(path).map_err(|e| CheckpointError::io(path, "open the file", e))?;
    let file_bytes = source.metadata().map_err(|e| CheckpointError::io(path, "find the size", e))?.len();
    parse::first_entries(
        path,
        BufReader::with_capacity(FIRST_BYTES, source),
        file_bytes.min(as_u64(FIRST_BYTES)),
    )
}

fn read_header(path: &Path, file: u32) -> Result<Header, CheckpointError> {
    let source = File::open(path).map_err(|e| CheckpointError::io(path, "open the file", e))?;
    let file_bytes = source.metadata().map_err(|e| CheckpointError::io(path, "find the size", e))?.len();
    parse::parse(path, file, BufReader::with_capacity(READ_BYTES, source), file_bytes)
}

/// One of the later shards, which must belong to the first.
fn read_shard(
    first: &Path,
    path: &Path,
    split: &Split,
    number: usize,
    of_first: &Metadata,
) -> Result<Header, CheckpointError> {
    if !file_exists(path)? {
        return Err(CheckpointError::new(
            path,
            GgufError::ShardMissing { first: first.to_path_buf(), count: split.count },
        ));
    }
    // The number of files is bounded by `SHARDS_MAX`.
    let header = read_header(path, u32::try_from(number).unwrap_or(u32::MAX))?;
    let foreign = |item: &str, expected: String, got: String| {
        CheckpointError::new(
            path,
            GgufError::ShardForeign { first: first.to_path_buf(), item: item.to_owned(), expected, got },
        )
    };
    let text = |value: Option<&Value>| value.map_or("nothing".to_owned(), |value| shown(&value.to_string()));
    for (key, expected) in [(SPLIT_NO, number), (SPLIT_COUNT, split.count)] {
        let got = header.metadata.get(key);
        let number = got.and_then(Value::as_u64).and_then(|got| usize::try_from(got).ok());
        if number != Some(expected) {
            return Err(foreign(key, expected.to_string(), text(got)));
        }
    }
    // Later shards need not say what they belong to; what they say must agree.
    for key in [ARCHITECTURE, NAME, SPLIT_TENSORS] {
        let (expected, got) = (of_first.get(key), header.metadata.get(key));
        if got.is_some() && got != expected {
            return Err(foreign(key, text(expected), text(got)));
        }
    }
    Ok(header)
}

/// Each name once, and as many tensors as the first shard says there are.
fn check_tensors(
    path: &Path,
    files: &[PathBuf],
    split: &Split,
    tensors: &[TensorInfo],
    of_first: &Metadata,
) -> Result<(), CheckpointError> {
    let mut seen = HashMap::with_capacity(tensors.len());
    for info in tensors {
        if seen.insert(info.name.as_str(), ()).is_some() {
            let file = usize::try_from(info.extent.file).ok().and_then(|index| files.get(index));
            return Err(CheckpointError::new(
                file.map_or(path, PathBuf::as_path),
                EntryError::Duplicate { tensor: shown(&info.name) },
            ));
        }
    }
    match split.tensors {
        Some(expected) if expected != tensors.len() => Err(CheckpointError::new(
            path,
            GgufError::Invalid {
                offset: of_first.offset(SPLIT_TENSORS),
                item: SPLIT_TENSORS.to_owned(),
                expected: format!("{expected} tensors in {} files", files.len()),
                got: tensors.len().to_string(),
            },
        )),
        _ => Ok(()),
    }
}

/// Into how many files a model is split.
struct Split {
    count: usize,
    /// How many tensors all of them have together, if the file says so.
    tensors: Option<usize>,
    /// The file's name up to the shard's number.
    stem: String,
}

impl Split {
    /// What the first shard says, which `path` must be.
    fn of(path: &Path, metadata: &Metadata) -> Result<Split, CheckpointError> {
        let invalid = |key: &str, expected: String, got: String| {
            CheckpointError::new(
                path,
                GgufError::Invalid { offset: metadata.offset(key), item: key.to_owned(), expected, got },
            )
        };
        let number = |key: &str, default: usize, max: usize| {
            let Some(value) = metadata.get(key) else { return Ok(default) };
            let number = value.as_u64().and_then(|value| usize::try_from(value).ok());
            let number = number.filter(|number| *number <= max);
            let expected = format!("a whole number of at most {max}");
            number.ok_or_else(|| invalid(key, expected, shown(&value.to_string())))
        };
        // Some converters write a count of 0 into a file that was not split.
        let count = number(SPLIT_COUNT, 1, SHARDS_MAX)?.max(1);
        let this = number(SPLIT_NO, 0, SHARDS_MAX)?;
        if count == 1 {
            return Ok(Split { count, tensors: None, stem: String::new() });
        }
        let tensors = match metadata.get(SPLIT_TENSORS) {
            Some(_) => Some(number(SPLIT_TENSORS, 0, crate::TENSORS_MAX)?),
            None => None,
        };
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let suffix = shard_suffix(this, count);
        let split = |stem: &str| Split { count, tensors, stem: stem.to_owned() };
        let stem = file_name.strip_suffix(suffix.as_str()).map(split);
        match stem {
            Some(split) if this == 0 => Ok(split),
            Some(split) => {
                Err(CheckpointError::new(path, GgufError::OtherShard { first: split.shard_path(path, 0) }))
            }
            None => {
                Err(CheckpointError::new(path, GgufError::PartRenamed { number: this + 1, count, suffix }))
            }
        }
    }

    /// The file of shard `number`, from 0.
    fn shard_path(&self, first: &Path, number: usize) -> PathBuf {
        let name = format!("{}{}", self.stem, shard_suffix(number, self.count));
        first.with_file_name(name)
    }
}

/// How the name of shard `number`, from 0, of `count` ends.
fn shard_suffix(number: usize, count: usize) -> String {
    format!("-{:05}-of-{count:05}.{EXTENSION}", number.saturating_add(1))
}

/// Bytes that a first look reads.
const FIRST_BYTES: usize = 64 << 10;
/// Read at a time from a header.
const READ_BYTES: usize = 256 << 10;
/// Number of a shard, from 0.
const SPLIT_NO: &str = "split.no";
/// Number of shards.
const SPLIT_COUNT: &str = "split.count";
/// Tensors in all shards together.
const SPLIT_TENSORS: &str = "split.tensors.count";
/// What kind of model it is.
const ARCHITECTURE: &str = "general.architecture";
/// What the model is called.
const NAME: &str = "general.name";
