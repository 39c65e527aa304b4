//! A Hugging Face directory: one safetensors file, or shards with an index.
//!
//! `model.safetensors.index.json` maps each tensor to the shard it is in. When it is there it is
//! binding in both directions: each shard it names must exist, hold every tensor the index gives
//! it, and no other. Without an index there must be a `model.safetensors`. Other safetensors files
//! in the directory are not part of the model.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{CheckpointError, EntryError, FileError, SafetensorsError, shown};
use crate::read::{file_exists, is_plain_name, read_small};
use crate::safetensors::{NAME_BYTES_MAX, TENSORS_MAX, read_header};
use crate::table::TensorInfo;

/// File name of the index.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// File name of a model in one file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Longest index that is read, in bytes.
pub const INDEX_BYTES_MAX: u64 = 256 << 20;
/// Most shards of one model.
pub const SHARDS_MAX: usize = 10_000;

/// The shards of a directory and every tensor in them.
pub(crate) struct Shards {
    /// Paths, sorted by name; [`crate::Extent::file`] is an index in here.
    pub(crate) files: Vec<PathBuf>,
    /// Tensors, sorted by name.
    pub(crate) tensors: Vec<TensorInfo>,
}

/// Reads the index and all headers of `directory`.
pub(crate) fn open(directory: &Path) -> Result<Shards, CheckpointError> {
    let index_path = directory.join(INDEX);
    let mut shards = if file_exists(&index_path)? {
        open_indexed(directory, &index_path)?
    } else {
        let path = directory.join(SINGLE);
        let tensors = read_header(&path, 0)?;
        Shards { files: vec![path], tensors }
    };
    shards.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(shards)
}

fn open_indexed(directory: &Path, index_path: &Path) -> Result<Shards, CheckpointError> {
    let weight_map = read_index(index_path)?;
    let names = shard_names(index_path, &weight_map)?;
    let mut files: Vec<PathBuf> = Vec::with_capacity(names.len());
    let mut tensors = Vec::new();
    for (file, (shard, claim)) in names.iter().enumerate() {
        let path = directory.join(shard);
        if !file_exists(&path)? {
            return Err(CheckpointError::new(
                path,
                SafetensorsError::MissingShard {
                    index: index_path.to_path_buf(),
                    tensor: shown(claim.first_tensor),
                },
            ));
        }
        // `shard_names` bounds the number of shards far below u32::MAX.
        let found = read_header(&path, u32::try_from(file).unwrap_or(u32::MAX))?;
        check_against_index(&path, index_path, (shard, claim.count), &weight_map, &found)?;
        tensors.extend(found);
        files.push(path);
    }
    Ok(Shards { files, tensors })
}

/// The tensors of one shard are exactly those that the index gives it.
fn check_against_index(
    path: &Path,
    index_path: &Path,
    (shard, claimed_count): (&str, usize),
    weight_map: &BTreeMap<String, String>,
    found: &[TensorInfo],
) -> Result<(), CheckpointError> {
    for t in found {
        let claimed = match weight_map.get(&t.name) {
            Some(claimed) if claimed == shard => continue,
            Some(claimed) => format!("that it is in {}", shown(claimed)),
            None => "nothing about it".to_owned(),
        };
        return Err(CheckpointError::new(
            path,
            SafetensorsError::AbsentFromIndex {
                index: index_path.to_path_buf(),
                tensor: shown(&t.name),
                claimed,
            },
        ));
    }
    if claimed_count == found.len() {
        return Ok(());
    }
    // All found are claimed and no name is there twice, so some claimed one is not found.
    let mut names: Vec<&str> = found.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    let absent = weight_map
        .iter()
        .find(|(name, claimed)| *claimed == shard && names.binary_search(&name.as_str()).is_err());
    Err(CheckpointError::new(
        path,
        SafetensorsError::AbsentFromShard {
            index: index_path.to_path_buf(),
            tensor: absent.map_or_else(String::new, |(name, _)| shown(name)),
        },
    ))
}

/// What the index says about one shard.
struct Claim<'a> {
    /// The first tensor (by name) in it.
    first_tensor: &'a str,
    /// Number of tensors in it.
    count: usize,
}

/// The shards that the index names.
fn shard_names<'a>(
    index_path: &Path,
    weight_map: &'a BTreeMap<String, String>,
) -> Result<BTreeMap<&'a str, Claim<'a>>, CheckpointError> {
    let mut names = BTreeMap::new();
    for (tensor, shard) in weight_map {
        if !is_plain_name(shard) || !shard.ends_with(".safetensors") {
            return Err(CheckpointError::new(
                index_path,
                SafetensorsError::BadShardName { tensor: shown(tensor), got: shown(shard) },
            ));
        }
        let claim = names.entry(shard.as_str()).or_insert(Claim { first_tensor: tensor.as_str(), count: 0 });
        claim.count += 1;
    }
    if names.len() > SHARDS_MAX {
        return Err(CheckpointError::new(
            index_path,
            FileError::TooLarge {
                what: "the number of shards",
                limit: u64::try_from(SHARDS_MAX).unwrap_or(u64::MAX),
                got: u64::try_from(names.len()).unwrap_or(u64::MAX),
            },
        ));
    }
    Ok(names)
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let text = read_small(path, "the index in bytes", INDEX_BYTES_MAX)?;
    parse_index(path, &text)
}

/// Parses an index: tensor name to shard name.
pub(crate) fn parse_index(path: &Path, text: &[u8]) -> Result<BTreeMap<String, String>, CheckpointError> {
    let invalid = |reason: String| {
        CheckpointError::new(
            path,
            FileError::Json {
                expected: "safetensors index",
                reason: shown(&reason),
                advice: "download it again",
            },
        )
    };
    let index: RawIndex = serde_json::from_slice(text).map_err(|e| invalid(e.to_string()))?;
    if index.weight_map.0.len() > TENSORS_MAX {
        return Err(CheckpointError::new(
            path,
            FileError::TooLarge {
                what: "the number of tensors",
                limit: u64::try_from(TENSORS_MAX).unwrap_or(u64::MAX),
                got: u64::try_from(index.weight_map.0.len()).unwrap_or(u64::MAX),
            },
        ));
    }
    if index.weight_map.0.is_empty() {
        return Err(invalid("weight_map names no tensor".to_owned()));
    }
    let mut map = BTreeMap::new();
    for (name, shard) in index.weight_map.0 {
        if name.len() > NAME_BYTES_MAX {
            return Err(CheckpointError::new(
                path,
                EntryError::NameTooLong { tensor: shown(&name), limit: NAME_BYTES_MAX, got: name.len() },
            ));
        }
        if let Some(_earlier) = map.insert(name.clone(), shard) {
            return Err(CheckpointError::new(path, EntryError::Duplicate { tensor: shown(&name) }));
        }
    }
    Ok(map)
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: Pairs,
    /// Has `total_size`, which nobody needs.
    #[serde(default, rename = "metadata")]
    _metadata: Option<IgnoredAny>,
}

/// A map of strings as the list of its entries, so that equal keys can be found.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensor names to file names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}
