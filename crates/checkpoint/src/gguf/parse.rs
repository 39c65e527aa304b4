//! The header of one GGUF file.
//!
//! Every count and length is held against the bytes that are left before anything is allocated for
//! it, so a header cannot ask for more memory than it has bytes (a few times over, for entries that
//! are small in the file and less so in memory).

use std::io::Read;
use std::path::Path;

use super::MAGIC;
use super::metadata::{Array, Metadata, Value, ValueKind};
use super::types;
use crate::error::{CheckpointError, EntryError, FileError, GgufError, shown};
use crate::safetensors::{NAME_BYTES_MAX, TENSORS_MAX};
use crate::table::{Extent, TensorInfo};

/// Longest header, metadata and tensor infos together. Real ones have 1 to 40 MB.
pub const HEADER_BYTES_MAX: u64 = 256 << 20;
/// Most metadata entries. Real files have about 50.
pub const KEYS_MAX: u64 = 1 << 16;
/// Longest key; the format's own limit.
pub const KEY_BYTES_MAX: u64 = (1 << 16) - 1;
/// Longest text. The longest real ones are chat templates of some 30 kB.
pub const STRING_BYTES_MAX: u64 = 16 << 20;
/// Most values in one array. The largest real ones are vocabularies and their merges.
pub const ITEMS_MAX: u64 = 1 << 24;
/// Most dimensions of a tensor; ggml's limit.
pub const DIMENSIONS_MAX: u32 = 4;
/// Largest alignment of tensors. Real files have 32.
pub const ALIGNMENT_MAX: u64 = 1 << 20;

/// What a header says.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    /// In the file's order.
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) header_bytes: u64,
}

/// Parses and checks the header of the file at `path`, number `file` of its checkpoint, which has
/// `file_bytes` bytes in all.
pub(super) fn parse(
    path: &Path,
    file: u32,
    reader: impl Read,
    file_bytes: u64,
) -> Result<Header, CheckpointError> {
    let mut source = Source { path, reader, offset: 0, file_bytes };
    let version = source.preamble()?;
    let tensor_count = source.count("number of tensors", as_u64(TENSORS_MAX), TENSOR_BYTES_MIN)?;
    let key_count = source.count("number of metadata entries", KEYS_MAX, ENTRY_BYTES_MIN)?;
    let metadata = source.metadata(key_count)?;
    let alignment = alignment(path, &metadata)?;
    let raw = source.tensors(tensor_count)?;
    let header_bytes = source.offset;
    // Both are far below 2^63.
    let data_start = header_bytes.next_multiple_of(alignment);
    let place = Place { path, file, data_start, alignment, file_bytes };
    let tensors = raw.into_iter().map(|raw| place.tensor(raw)).collect::<Result<Vec<_>, _>>()?;
    check_overlap(path, &tensors)?;
    Ok(Header { version, metadata, tensors, header_bytes })
}

/// The metadata entries that end within the first `bytes` bytes of the file.
///
/// # Errors
/// It is no GGUF file of a version that is read.
pub(super) fn first_entries(path: &Path, reader: impl Read, bytes: u64) -> Result<Metadata, CheckpointError> {
    let mut source = Source { path, reader, offset: 0, file_bytes: bytes };
    source.preamble()?;
    let _tensors = source.u64("number of tensors")?;
    let entries = source.u64("number of metadata entries")?.min(KEYS_MAX);
    let mut metadata = Metadata::default();
    for _ in 0..entries {
        // The first one that is cut off, or makes no sense, ends the look.
        let Ok((key, value, offset)) = source.entry() else { break };
        metadata.insert(key, value, offset);
    }
    Ok(metadata)
}

/// The alignment of tensors that the file asks for.
fn alignment(path: &Path, metadata: &Metadata) -> Result<u64, CheckpointError> {
    let Some(value) = metadata.get(ALIGNMENT) else { return Ok(ALIGNMENT_DEFAULT) };
    let alignment = value.as_u64().filter(|bytes| bytes.is_power_of_two() && *bytes <= ALIGNMENT_MAX);
    alignment.ok_or_else(|| {
        CheckpointError::new(
            path,
            GgufError::Unread {
                offset: metadata.offset(ALIGNMENT),
                item: ALIGNMENT.to_owned(),
                expected: format!("a power of two of at most {ALIGNMENT_MAX}"),
                got: shown(&value.to_string()),
            },
        )
    })
}

/// The header as it is read, front to back.
struct Source<'a, R> {
    path: &'a Path,
    reader: R,
    offset: u64,
    file_bytes: u64,
}

impl<R: Read> Source<'_, R> {
    fn invalid(&self, item: &str, expected: impl ToString, got: impl ToString) -> CheckpointError {
        CheckpointError::new(
            self.path,
            GgufError::Invalid {
                offset: self.offset,
                item: item.to_owned(),
                expected: expected.to_string(),
                got: got.to_string(),
            },
        )
    }

    /// Something that other readers may know.
    fn unread(&self, item: &str, expected: impl ToString, got: impl ToString) -> CheckpointError {
        let (item, expected, got) = (item.to_owned(), expected.to_string(), got.to_string());
        CheckpointError::new(self.path, GgufError::Unread { offset: self.offset, item, expected, got })
    }

    /// Makes sure that `bytes` more are in the file and within the longest header.
    fn check_room(&self, item: &str, bytes: u64) -> Result<(), CheckpointError> {
        let left = self.file_bytes.saturating_sub(self.offset);
        if bytes > left {
            let got = format!("the end of the file after {left} of them");
            return Err(self.invalid(item, format!("{bytes} more bytes"), got));
        }
        // No sum of two lengths that files have overflows.
        let end = self.offset.saturating_add(bytes);
        if end > HEADER_BYTES_MAX {
            return Err(CheckpointError::new(
                self.path,
                FileError::TooLarge { what: "the GGUF header in bytes", limit: HEADER_BYTES_MAX, got: end },
            ));
        }
        Ok(())
    }

    fn fill(&mut self, item: &str, into: &mut [u8]) -> Result<(), CheckpointError> {
        let bytes = as_u64(into.len());
        self.check_room(item, bytes)?;
        self.reader
            .read_exact(into)
            .map_err(|source| CheckpointError::io(self.path, "read the header", source))?;
        self.offset = self.offset.saturating_add(bytes);
        Ok(())
    }

    /// The next `bytes` bytes, appended to `to`. They are in the file, so they may be allocated.
    fn append(&mut self, item: &str, bytes: u64, to: &mut Vec<u8>) -> Result<(), CheckpointError> {
        self.check_room(item, bytes)?;
        let start = to.len();
        let len = usize::try_from(bytes).map_err(|_| self.invalid(item, "fewer bytes", bytes))?;
        to.resize(start.saturating_add(len), 0);
        self.fill(item, to.get_mut(start..).unwrap_or_default())
    }

    fn u32(&mut self, item: &str) -> Result<u32, CheckpointError> {
        let mut bytes = [0; 4];
        self.fill(item, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self, item: &str) -> Result<u64, CheckpointError> {
        let mut bytes = [0; 8];
        self.fill(item, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A count of at most `limit` things that take at least `bytes_each` in the header.
    fn count(&mut self, item: &str, limit: u64, bytes_each: u64) -> Result<u64, CheckpointError> {
        let count = self.u64(item)?;
        if count > limit {
            return Err(self.unread(item, format!("at most {limit}"), count));
        }
        let room = self.file_bytes.saturating_sub(self.offset) / bytes_each.max(1);
        if count > room {
            return Err(self.invalid(
                item,
                format!("at most the {room} that the rest of the file has room for"),
                count,
            ));
        }
        self.check_room(item, count.saturating_mul(bytes_each))?;
        Ok(count)
    }

    /// A length and as many bytes.
    fn text(&mut self, item: &str, limit: u64, to: &mut Vec<u8>) -> Result<(), CheckpointError> {
        let bytes = self.u64(item)?;
        if bytes > limit {
            return Err(self.unread(
                item,
                format!("a text of at most {limit} bytes"),
                format!("{bytes} bytes"),
            ));
        }
        self.append(item, bytes, to)
    }

    /// A text that names something.
    fn name(&mut self, item: &str, limit: u64) -> Result<String, CheckpointError> {
        let mut bytes = Vec::new();
        self.text(item, limit, &mut bytes)?;
        String::from_utf8(bytes)
            .map_err(|e| self.invalid(item, "UTF-8", shown(&String::from_utf8_lossy(e.as_bytes()))))
    }

    /// Magic and version.
    fn preamble(&mut self) -> Result<u32, CheckpointError> {
        if self.file_bytes == 0 {
            return Err(self.invalid("magic", "GGUF", "an empty file"));
        }
        let mut magic = [0; 4];
        self.fill("magic", &mut magic)?;
        if magic == *b"vers" {
            return Err(CheckpointError::new(self.path, FileError::LfsPointer));
        }
        if magic != *MAGIC {
            let got = shown(&String::from_utf8_lossy(&magic));
            return Err(CheckpointError::new(
                self.path,
                GgufError::Invalid { offset: 0, item: "magic".to_owned(), expected: "GGUF".to_owned(), got },
            ));
        }
        let version = self.u32("version")?;
        if !VERSIONS.contains(&version) {
            let big_endian = VERSIONS.contains(&version.swap_bytes());
            return Err(CheckpointError::new(
                self.path,
                GgufError::Version {
                    got: match big_endian {
                        true => format!("{} in big-endian byte order", version.swap_bytes()),
                        false => version.to_string(),
                    },
                },
            ));
        }
        Ok(version)
    }

    fn metadata(&mut self, count: u64) -> Result<Metadata, CheckpointError> {
        let mut metadata = Metadata::default();
        for _ in 0..count {
            let (key, value, offset) = self.entry()?;
            let item = format!("key {}", shown(&key));
            if !metadata.insert(key, value, offset) {
                return Err(self.unread(&item, "each key once", "it twice"));
            }
        }
        Ok(metadata)
    }

    /// A key, its value, and where that begins.
    fn entry(&mut self) -> Result<(String, Value, u64), CheckpointError> {
        let key = self.name("key", KEY_BYTES_MAX)?;
        let kind = self.kind(&key)?;
        let offset = self.offset;
        let value = self.value(&key, kind)?;
        Ok((key, value, offset))
    }

    fn kind(&mut self, key: &str) -> Result<ValueKind, CheckpointError> {
        let item = format!("type of {}", shown(key));
        let number = self.u32(&item)?;
        ValueKind::of(number).ok_or_else(|| self.unread(&item, "a number from 0 to 12", number))
    }

    fn value(&mut self, key: &str, kind: ValueKind) -> Result<Value, CheckpointError> {
        let item = format!("value of {}", shown(key));
        if kind == ValueKind::Array {
            return self.array(key, &item).map(Value::Array);
        }
        if kind == ValueKind::Text {
            let mut bytes = Vec::new();
            self.text(&item, STRING_BYTES_MAX, &mut bytes)?;
            return Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()));
        }
        let mut bytes = [0; 8];
        // Types without a fixed size are dealt with above.
        let bytes = bytes.get_mut(..kind.bytes().unwrap_or(0)).unwrap_or_default();
        self.fill(&item, bytes)?;
        kind.decode(bytes).ok_or_else(|| self.invalid(&item, "a number", "none"))
    }

    fn array(&mut self, key: &str, item: &str) -> Result<Array, CheckpointError> {
        let kind = self.kind(key)?;
        if kind == ValueKind::Array {
            return Err(self.unread(item, "an array of plain values", "an array of arrays"));
        }
        let bytes_each = kind.bytes().map_or(LENGTH_BYTES, as_u64);
        let count = self.count(item, ITEMS_MAX, bytes_each)?;
        let mut array = Array { kind, bytes: Vec::new(), ends: Vec::new() };
        if kind != ValueKind::Text {
            // The product is at most what is left of the file.
            self.append(item, count.saturating_mul(bytes_each), &mut array.bytes)?;
            return Ok(array);
        }
        for _ in 0..count {
            self.text(item, STRING_BYTES_MAX, &mut array.bytes)?;
            // Texts lie in the header, which is shorter than 2^32.
            array.ends.push(u32::try_from(array.bytes.len()).unwrap_or(u32::MAX));
        }
        Ok(array)
    }

    fn tensors(&mut self, count: u64) -> Result<Vec<RawTensor>, CheckpointError> {
        let mut tensors = Vec::new();
        for _ in 0..count {
            let name = self.name("tensor name", as_u64(NAME_BYTES_MAX))?;
            let item = format!("tensor {}", shown(&name));
            let rank = self.u32(&item)?;
            if rank > DIMENSIONS_MAX {
                return Err(self.unread(&item, format!("at most {DIMENSIONS_MAX} dimensions"), rank));
            }
            let mut dims = Vec::new();
            for _ in 0..rank {
                dims.push(self.u64(&item)?);
            }
            // Slowest first, as everywhere else.
            dims.reverse();
            let kind = self.u32(&item)?;
            let at = self.offset;
            let offset = self.u64(&item)?;
            tensors.push(RawTensor { name, dims, kind, offset, at });
        }
        Ok(tensors)
    }
}

/// A tensor info before any check of meaning.
struct RawTensor {
    name: String,
    /// Slowest first.
    dims: Vec<u64>,
    kind: u32,
    /// From the start of the data.
    offset: u64,
    /// Where the header says so.
    at: u64,
}

/// Where tensors may lie.
struct Place<'a> {
    path: &'a Path,
    file: u32,
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
}

impl Place<'_> {
    /// One tensor's own consistency: type, size, alignment and end.
    fn tensor(&self, raw: RawTensor) -> Result<TensorInfo, CheckpointError> {
        let RawTensor { name, dims, kind, offset, at } = raw;
        let (path, tensor) = (|| self.path.to_path_buf(), || shown(&name));
        let format = types::format(kind).ok_or_else(|| {
            CheckpointError::new(
                path(),
                GgufError::UnsupportedType {
                    tensor: tensor(),
                    got: types::name(kind).map_or_else(|| format!("number {kind}"), str::to_owned),
                    known: types::known(),
                },
            )
        })?;
        let bad_shape = |reason: String| {
            CheckpointError::new(
                path(),
                EntryError::BadShape { tensor: tensor(), shape: dims.clone(), reason },
            )
        };
        let too_large = || bad_shape("its size does not fit in 64 bits".to_owned());
        let shape = dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| too_large())?;
        let (&cols, outer) = shape.split_last().unwrap_or((&1, &[]));
        let row_bytes = format.row_bytes(cols).map_err(|e| bad_shape(e.to_string()))?;
        let bytes = outer.iter().try_fold(row_bytes, |bytes, &dim| bytes.checked_mul(dim));
        let bytes = bytes.map(as_u64).ok_or_else(too_large)?;
        // The number of weights must fit too: a dimension of 0 hides any other.
        shape
            .iter()
            .filter(|dim| **dim > 0)
            .try_fold(1usize, |n, &dim| n.checked_mul(dim))
            .ok_or_else(too_large)?;
        let bad_offset = |expected: String| {
            CheckpointError::new(
                path(),
                GgufError::Invalid {
                    offset: at,
                    item: format!("offset of tensor {}", tensor()),
                    expected,
                    got: offset.to_string(),
                },
            )
        };
        if offset % self.alignment != 0 {
            return Err(bad_offset(format!("a multiple of {}", self.alignment)));
        }
        let start = self.data_start.checked_add(offset);
        let place = start.and_then(|start| Some((start, start.checked_add(bytes)?)));
        let (offset, end) = place
            .ok_or_else(|| bad_offset(format!("one within the {} bytes of the file", self.file_bytes)))?;
        if end > self.file_bytes {
            let (expected, got) = (end, self.file_bytes);
            return Err(CheckpointError::new(
                path(),
                EntryError::Truncated { tensor: tensor(), offset, expected, got },
            ));
        }
        let extent = Extent { file: self.file, offset, bytes };
        Ok(TensorInfo { name, format, shape, extent, checksum: None })
    }
}

/// No two tensors share bytes.
fn check_overlap(path: &Path, tensors: &[TensorInfo]) -> Result<(), CheckpointError> {
    let mut sorted: Vec<&TensorInfo> = tensors.iter().filter(|tensor| tensor.extent.bytes > 0).collect();
    sorted.sort_by_key(|tensor| tensor.extent.offset);
    let end = |tensor: &TensorInfo| tensor.extent.offset.saturating_add(tensor.extent.bytes);
    let overlap = sorted.windows(2).find(|pair| pair[1].extent.offset < end(pair[0]));
    let Some([before, tensor]) = overlap else { return Ok(()) };
    Err(CheckpointError::new(
        path,
        EntryError::Overlap {
            tensor: shown(&tensor.name),
            other: shown(&before.name),
            expected: end(before),
            got: tensor.extent.offset,
        },
    ))
}

pub(super) fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Versions that are read. They differ in nothing that is read here.
const VERSIONS: [u32; 2] = [2, 3];
/// Key of the alignment of tensors.
const ALIGNMENT: &str = "general.alignment";
/// Alignment of tensors where the file says nothing.
const ALIGNMENT_DEFAULT: u64 = 32;
/// Bytes of a text's or an array's length.
const LENGTH_BYTES: u64 = 8;
/// Least bytes of a metadata entry: an empty key, its type and one byte.
const ENTRY_BYTES_MIN: u64 = 8 + 4 + 1;
/// Least bytes of a tensor info: an empty name, no dimension, type and offset.
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 4 + 8;
