//! The header of one safetensors file: names, types, shapes, extents.
//!
//! A file is `u64 n (little endian) | n bytes of JSON | data`. The JSON maps each tensor's name to
//! `{"dtype", "shape", "data_offsets": [begin, end]}` with offsets from the start of the data, and
//! may have `__metadata__`, a map of strings. The rules are those of the reference implementation
//! and nothing more lenient: the header is at most 100 MB and begins with `{`, each tensor has
//! exactly the bytes of its shape and type, and the tensors cover the data without overlap or hole
//! to the last byte of the file.
//!
//! Only the header is read. Its length is checked against the limit and the file before anything is
//! allocated, and numbers in it size nothing before they are checked.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tensor::Format;

use crate::error::{CheckpointError, EntryError, FileError, SafetensorsError, shown};
use crate::table::{Extent, TensorInfo};

/// Longest header that is read; the reference implementation's limit.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Most tensors in one checkpoint. The largest published models have about 200 thousand (one per
/// expert matrix and scale).
pub const TENSORS_MAX: usize = 1 << 20;
/// Longest tensor name.
pub const NAME_BYTES_MAX: usize = 1024;
/// Most dimensions of a tensor.
pub const RANK_MAX: usize = 8;

/// Reads the header of the shard at `path`, which is number `file` of its checkpoint. The tensors
/// come in the order of their offsets.
pub(crate) fn read_header(path: &Path, file: u32) -> Result<Vec<TensorInfo>, CheckpointError> {
    let io = |action| move |source| CheckpointError::io(path, action, source);
    let mut shard = File::open(path).map_err(io("open the shard"))?;
    let file_bytes = shard.seek(SeekFrom::End(0)).map_err(io("find the size"))?;
    shard.rewind().map_err(io("read the header"))?;
    parse_shard(path, file, shard, file_bytes)
}

/// The header at the start of a shard of `file_bytes` bytes.
fn parse_shard(
    path: &Path,
    file: u32,
    mut shard: impl Read,
    file_bytes: u64,
) -> Result<Vec<TensorInfo>, CheckpointError> {
    let io = |action| move |source| CheckpointError::io(path, action, source);
    if file_bytes < LENGTH_BYTES {
        return Err(CheckpointError::new(path, SafetensorsError::NoHeader { got: file_bytes }));
    }
    let mut length = [0u8; 8];
    shard.read_exact(&mut length).map_err(io("read the header"))?;
    if &length == LFS_PREFIX {
        return Err(CheckpointError::new(path, FileError::LfsPointer));
    }
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > file_bytes - LENGTH_BYTES {
        return Err(CheckpointError::new(
            path,
            SafetensorsError::HeaderBeyondFile { expected: file_bytes - LENGTH_BYTES, got: header_bytes },
        ));
    }
    if header_bytes > HEADER_BYTES_MAX {
        return Err(CheckpointError::new(
            path,
            FileError::TooLarge {
                what: "the safetensors header in bytes",
                limit: HEADER_BYTES_MAX,
                got: header_bytes,
            },
        ));
    }
    let mut header = Vec::new();
    shard.take(header_bytes).read_to_end(&mut header).map_err(io("read the header"))?;
    parse_header(path, file, &header, file_bytes)
}

/// Parses the header of a shard out of bytes, for fuzzing: the file is taken to be these bytes and no
/// more.
///
/// # Errors
/// As [`crate::Checkpoint::open`].
pub fn parse_safetensors(path: &Path, bytes: &[u8]) -> Result<Vec<TensorInfo>, CheckpointError> {
    let file_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    parse_shard(path, 0, bytes, file_bytes)
}

/// Parses and checks a header whose file has `file_bytes` bytes in all.
pub(crate) fn parse_header(
    path: &Path,
    file: u32,
    header: &[u8],
    file_bytes: u64,
) -> Result<Vec<TensorInfo>, CheckpointError> {
    let invalid = |reason: String| CheckpointError::new(path, SafetensorsError::HeaderInvalid { reason });
    if header.first() != Some(&b'{') {
        return Err(invalid("expected `{`".to_owned()));
    }
    let raw: RawHeader = serde_json::from_slice(header).map_err(|e| invalid(shown(&e.to_string())))?;
    if raw.count > TENSORS_MAX {
        return Err(CheckpointError::new(
            path,
            FileError::TooLarge {
                what: "the number of tensors",
                limit: u64::try_from(TENSORS_MAX).unwrap_or(u64::MAX),
                got: u64::try_from(raw.count).unwrap_or(u64::MAX),
            },
        ));
    }
    let header_bytes = u64::try_from(header.len()).unwrap_or(u64::MAX);
    let data_start = LENGTH_BYTES.saturating_add(header_bytes);
    let mut tensors = raw
        .tensors
        .into_iter()
        .map(|(name, entry)| check_tensor(path, file, name, &entry, data_start))
        .collect::<Result<Vec<_>, _>>()?;
    // By end as well: an empty tensor sorts before the one that begins where it lies.
    tensors.sort_by(|a, b| {
        let key = |t: &TensorInfo| (t.extent.offset, t.extent.bytes);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    check_unique(path, &tensors)?;
    check_coverage(path, &tensors, data_start, file_bytes)?;
    Ok(tensors)
}

/// One tensor's own consistency: name, rank, dtype, offsets and size.
fn check_tensor(
    path: &Path,
    file: u32,
    name: String,
    entry: &RawTensor,
    data_start: u64,
) -> Result<TensorInfo, CheckpointError> {
    let error = |kind: EntryError| CheckpointError::new(path, kind);
    let tensor = || shown(&name);
    if name.len() > NAME_BYTES_MAX {
        let (limit, got) = (NAME_BYTES_MAX, name.len());
        return Err(error(EntryError::NameTooLong { tensor: tensor(), limit, got }));
    }
    if entry.shape.rank > RANK_MAX {
        let (limit, got) = (RANK_MAX, entry.shape.rank);
        return Err(error(EntryError::RankTooHigh { tensor: tensor(), limit, got }));
    }
    let format = parse_dtype(path, &name, &entry.dtype)?;
    let dims = &entry.shape.dims;
    let bad_shape = || {
        let reason = "its size does not fit in 64 bits".to_owned();
        error(EntryError::BadShape { tensor: tensor(), shape: dims.clone(), reason })
    };
    let shape = dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<usize>, _>>();
    let shape = shape.map_err(|_| bad_shape())?;
    let element_bytes = u64::try_from(format.block_bytes()).unwrap_or(u64::MAX);
    let expected = dims.iter().try_fold(element_bytes, |bytes, &dim| bytes.checked_mul(dim));
    let expected = expected.ok_or_else(bad_shape)?;
    let extent = extent(path, file, &name, entry.data_offsets, data_start)?;
    if extent.bytes != expected {
        let (offset, got) = (extent.offset, extent.bytes);
        return Err(error(EntryError::SizeMismatch { tensor: tensor(), offset, expected, got }));
    }
    Ok(TensorInfo { name, format, shape, extent, checksum: None })
}

/// Where a tensor's bytes are, from the offsets in its header; no file is longer than i64::MAX, so
/// later sums of an offset and a length cannot overflow.
fn extent(
    path: &Path,
    file: u32,
    name: &str,
    (begin, end): (u64, u64),
    data_start: u64,
) -> Result<Extent, CheckpointError> {
    let tensor = shown(name);
    let Some(bytes) = end.checked_sub(begin) else {
        return Err(CheckpointError::new(path, SafetensorsError::ReversedOffsets { tensor, begin, end }));
    };
    let limit = i64::MAX.unsigned_abs();
    let last = data_start.checked_add(end).filter(|&end| end <= limit);
    match (data_start.checked_add(begin), last) {
        (Some(offset), Some(_)) => Ok(Extent { file, offset, bytes }),
        _ => {
            let offset = data_start.saturating_add(begin);
            let error = EntryError::OutOfRange { tensor, offset, expected: limit, got: end };
            Err(CheckpointError::new(path, error))
        }
    }
}

/// The formats among safetensors' dtypes; the rest of them are told apart from nonsense.
fn parse_dtype(path: &Path, name: &str, dtype: &str) -> Result<Format, CheckpointError> {
    match dtype {
        "F32" => Ok(Format::F32),
        "F16" => Ok(Format::F16),
        "BF16" => Ok(Format::BF16),
        known if OTHER_DTYPES.contains(&known) => Err(CheckpointError::new(
            path,
            SafetensorsError::UnsupportedDtype { tensor: shown(name), got: known.to_owned() },
        )),
        unknown => Err(CheckpointError::new(
            path,
            SafetensorsError::UnknownDtype { tensor: shown(name), got: shown(unknown) },
        )),
    }
}

fn check_unique(path: &Path, tensors: &[TensorInfo]) -> Result<(), CheckpointError> {
    let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(CheckpointError::new(path, EntryError::Duplicate { tensor: shown(pair[0]) })),
    }
}

/// The tensors, sorted by offset, lie one behind the other from the start of the data to the end of
/// the file.
fn check_coverage(
    path: &Path,
    tensors: &[TensorInfo],
    data_start: u64,
    file_bytes: u64,
) -> Result<(), CheckpointError> {
    let path_buf = || path.to_path_buf();
    let mut expected = data_start;
    let mut previous = "the header";
    for t in tensors {
        let (got, end) = (t.extent.offset, t.extent.offset + t.extent.bytes);
        if got < expected {
            return Err(CheckpointError::new(
                path_buf(),
                EntryError::Overlap { tensor: shown(&t.name), other: shown(previous), expected, got },
            ));
        }
        if got > expected && end > file_bytes {
            return Err(CheckpointError::new(
                path_buf(),
                EntryError::OutOfRange {
                    tensor: shown(&t.name),
                    offset: got,
                    expected: file_bytes,
                    got: end,
                },
            ));
        }
        if got > expected {
            let tensor = shown(&t.name);
            return Err(CheckpointError::new(path_buf(), SafetensorsError::Hole { tensor, expected, got }));
        }
        expected = end;
        previous = &t.name;
    }
    if file_bytes < expected {
        // The last tensor ends at `expected`, so at least one is not whole.
        let cut = tensors.iter().find(|t| t.extent.offset + t.extent.bytes > file_bytes);
        return Err(CheckpointError::new(
            path_buf(),
            EntryError::Truncated {
                tensor: cut.map_or_else(String::new, |t| shown(&t.name)),
                offset: cut.map_or(0, |t| t.extent.offset),
                expected,
                got: file_bytes,
            },
        ));
    }
    if file_bytes > expected {
        return Err(CheckpointError::new(
            path_buf(),
            SafetensorsError::TrailingData { expected, got: file_bytes },
        ));
    }
    Ok(())
}

/// The header as it is written, before any check of meaning.
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    /// How many there were, of which at most [`TENSORS_MAX`] are in `tensors`.
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: RawShape,
    data_offsets: (u64, u64),
}

/// The first [`RANK_MAX`] dimensions, and how many there were.
struct RawShape {
    dims: Vec<u64>,
    rank: usize,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            // A map type would drop all but one of two equal names; here both are kept and found.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader { tensors: Vec::new(), count: 0 };
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<Option<StringMap>>()?;
                        continue;
                    }
                    header.count += 1;
                    if header.count > TENSORS_MAX {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let entry = map
                        .next_value::<RawTensor>()
                        .map_err(|e| A::Error::custom(format!("tensor {}: {e}", shown(&name))))?;
                    header.tensors.push((name, entry));
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

impl<'de> Deserialize<'de> for RawShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = RawShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawShape, A::Error> {
                let mut shape = RawShape { dims: Vec::new(), rank: 0 };
                while let Some(dim) = seq.next_element::<u64>()? {
                    shape.rank += 1;
                    if shape.rank <= RANK_MAX {
                        shape.dims.push(dim);
                    }
                }
                Ok(shape)
            }
        }
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

/// A map of strings whose content nobody needs.
struct StringMap;

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringMapVisitor;
        impl<'de> Visitor<'de> for StringMapVisitor {
            type Value = StringMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMap, A::Error> {
                while map.next_entry::<String, String>()?.is_some() {}
                Ok(StringMap)
            }
        }
        deserializer.deserialize_map(StringMapVisitor)
    }
}

/// Size of the length field before the header.
const LENGTH_BYTES: u64 = 8;
/// The one key of the header that is no tensor.
const METADATA: &str = "__metadata__";
/// How a Git LFS pointer file begins.
const LFS_PREFIX: &[u8; 8] = b"version ";
/// safetensors' dtypes besides the three that are read.
const OTHER_DTYPES: &[&str] = &[
    "BOOL",
    "F4",
    "F6_E2M3",
    "F6_E3M2",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "F8_E8M0",
    "F8_E4M3FNUZ",
    "F8_E5M2FNUZ",
    "I16",
    "U16",
    "I32",
    "U32",
    "C64",
    "F64",
    "I64",
    "U64",
];
