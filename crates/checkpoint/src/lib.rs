//! What is in a model on disk and where: headers only, never a tensor's bytes.
//!
//! [`Checkpoint::open`] finds out what lies at a path (a Hugging Face directory, a GGUF file or a
//! packed container), reads and checks all that describes it, and yields names, formats, shapes and
//! extents. It knows no architecture: which tensors a model must have is the business of `models`.
//!
//! Everything read here is untrusted. Sizes are checked before they allocate, offsets before they
//! point, names before they become paths; limits are named constants. Each error is one line with
//! path, tensor, offset, expected, got and what to do.
//!
//! * [`table`]: the vocabulary – extents, tensors, experts
//! * `safetensors`, `hf`: one shard's header; a directory of shards
//! * [`gguf`]: one GGUF file, or several that a model is split into
//! * [`manifest`], [`journal`], `packed`: our own container
#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::as_conversions)]

mod checksum;
mod error;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::as_conversions, reason = "tests")]
mod fuzz;
pub mod gguf;
mod glance;
mod hf;
pub mod journal;
pub mod manifest;
mod packed;
mod read;
mod resolve;
mod safetensors;
pub mod table;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use error::{
    CheckpointError, EntryError, ErrorKind, FileError, GgufError, PackedError, SafetensorsError, shown,
};
pub use gguf::Gguf;
pub use glance::{Glance, glance};
pub use hf::{INDEX_BYTES_MAX, SHARDS_MAX};
pub use manifest::Manifest;
pub use read::{CONFIG_BYTES_MAX, file_exists};
pub use resolve::PackedExperts;
pub use safetensors::{HEADER_BYTES_MAX, NAME_BYTES_MAX, RANK_MAX, TENSORS_MAX, parse_safetensors};
pub use table::{ExpertPart, ExpertTable, Extent, LayerExperts, TensorInfo};

/// The checksum that containers store for tensors and expert records: XXH3-64, seed 0.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// What kind of checkpoint lies at a path.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// `config.json` and safetensors files, as published.
    HfDirectory,
    /// A container that `flash-moe pack` made.
    Packed,
    /// A GGUF file, or several that one model is split into.
    Gguf,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::HfDirectory => "Hugging Face directory",
            Kind::Packed => "packed container",
            Kind::Gguf => "GGUF file",
        })
    }
}

/// An opened model: what it consists of and where each piece lies.
#[derive(Debug)]
pub struct Checkpoint {
    kind: Kind,
    root: PathBuf,
    files: Vec<PathBuf>,
    config: serde_json::Value,
    /// Sorted by name.
    tensors: Vec<TensorInfo>,
    packed: Option<PackedExperts>,
    manifest: Option<Manifest>,
    gguf: Option<Gguf>,
}

impl Checkpoint {
    /// Opens the model at `path`, whatever kind it is.
    ///
    /// # Errors
    /// When there is no model, or anything in its headers is wrong; see [`CheckpointError`].
    pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
        match detect(path)? {
            Kind::HfDirectory => {
                let config = read::read_config(&path.join(manifest::CONFIG))?;
                let hf::Shards { files, tensors } = hf::open(path)?;
                Ok(Checkpoint {
                    kind: Kind::HfDirectory,
                    root: path.to_path_buf(),
                    files,
                    config,
                    tensors,
                    packed: None,
                    manifest: None,
                    gguf: None,
                })
            }
            Kind::Gguf => {
                let gguf::Opened { files, tensors, gguf } = gguf::open(path)?;
                Ok(Checkpoint {
                    kind: Kind::Gguf,
                    root: path.to_path_buf(),
                    files,
                    config: serde_json::Value::Null,
                    tensors,
                    packed: None,
                    manifest: None,
                    gguf: Some(gguf),
                })
            }
            Kind::Packed => {
                let (manifest, resolved) = packed::open(path)?;
                let config = read::read_config(&path.join(manifest::CONFIG))?;
                Ok(Checkpoint {
                    kind: Kind::Packed,
                    root: path.to_path_buf(),
                    files: resolved.files,
                    config,
                    tensors: resolved.tensors,
                    packed: Some(resolved.experts),
                    manifest: Some(manifest),
                    gguf: None,
                })
            }
        }
    }

    /// A model of these dense tensors in one file that need not exist, for measurements: its bytes are
    /// the storage's business.
    ///
    /// # Errors
    /// As [`Checkpoint::adopt`].
    pub fn of_tensors(root: &Path, tensors: Vec<TensorInfo>) -> Result<Checkpoint, CheckpointError> {
        let nothing = Checkpoint {
            kind: Kind::HfDirectory,
            root: root.to_path_buf(),
            files: vec![root.to_path_buf()],
            config: serde_json::Value::Null,
            tensors: Vec::new(),
            packed: None,
            manifest: None,
            gguf: None,
        };
        nothing.adopt(serde_json::Value::Null, tensors)
    }

    /// What kind of checkpoint it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same files under other names: what `models` makes of a container whose configuration and
    /// names are not Hugging Face's. `tensors` may be parts of those there were.
    ///
    /// # Errors
    /// [`EntryError::Duplicate`] if two tensors have one name.
    pub fn adopt(
        mut self,
        config: serde_json::Value,
        mut tensors: Vec<TensorInfo>,
    ) -> Result<Checkpoint, CheckpointError> {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let (path, tensor) = (self.root, shown(&pair[0].name));
            return Err(CheckpointError::new(path, EntryError::Duplicate { tensor }));
        }
        self.config = config;
        self.tensors = tensors;
        Ok(self)
    }

    /// The directory, or the (first) GGUF file.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The files that hold tensors and records; [`Extent::file`] is an index in here.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// `config.json` as it is; a nested `text_config` stays nested. Of a GGUF file null, until it
    /// was [adopted](Checkpoint::adopt).
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// A small file beside the weights (`tokenizer.json`, `chat_template.jinja`, …), if present. A
    /// GGUF file has none: what lies beside it may belong to another model.
    ///
    /// # Errors
    /// See [`file_exists`]: a link to nothing is not the absence of the file.
    pub fn aux_file(&self, name: &str) -> Result<Option<PathBuf>, CheckpointError> {
        let path = self.root.join(name);
        if self.kind == Kind::Gguf || !read::is_plain_name(name) {
            return Ok(None);
        }
        Ok(file_exists(&path)?.then_some(path))
    }

    /// All tensors, sorted by name; of a packed container the dense ones.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let position = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name)).ok()?;
        self.tensors.get(position)
    }

    /// The expert records, if this is a packed container.
    pub fn packed(&self) -> Option<&PackedExperts> {
        self.packed.as_ref()
    }

    /// Metadata, if this is a GGUF file.
    pub fn gguf(&self) -> Option<&Gguf> {
        self.gguf.as_ref()
    }

    /// The manifest, if this is a packed container.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }
}

/// The files of a directory that a tokenizer is made of. Each but the first may be absent.
pub const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Finds out what lies at `path`, from names and a few first bytes.
fn detect(path: &Path) -> Result<Kind, CheckpointError> {
    if !read::exists(path)? {
        return Err(CheckpointError::new(path, FileError::NotFound));
    }
    let metadata = std::fs::metadata(path).map_err(|e| CheckpointError::io(path, "open the model", e))?;
    if !metadata.is_dir() {
        return match is_gguf(path) {
            true => Ok(Kind::Gguf),
            false => Err(not_a_directory(path)),
        };
    }
    let has = |name: &str| file_exists(&path.join(name));
    if has(manifest::MANIFEST)? && (packed::has_manifest(path) || has(manifest::DENSE)?) {
        return Ok(Kind::Packed);
    }
    if has(manifest::JOURNAL)? {
        return Err(packed::incomplete(path));
    }
    let has_weights = has(hf::INDEX)? || has(hf::SINGLE)?;
    match (has(manifest::CONFIG)?, has_weights) {
        (true, true) => Ok(Kind::HfDirectory),
        (false, true) => Err(CheckpointError::new(
            path.join(manifest::CONFIG),
            FileError::MissingFile { advice: "download it from where the safetensors files came from" },
        )),
        (has_config, false) => Err(no_weights(path, has_config)),
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Whether a file is GGUF, by name or first bytes.
fn is_gguf(path: &Path) -> bool {
    let mut magic = Vec::new();
    // An unreadable file simply has no magic.
    let _ = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    magic == gguf::MAGIC || has_extension(path, gguf::EXTENSION)
}

/// The error for a path that is a file.
fn not_a_directory(path: &Path) -> CheckpointError {
    let path_buf = || path.to_path_buf();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let sibling = |name: &str| directory.join(name).is_file();
    if has_extension(path, "safetensors") || sibling(manifest::CONFIG) || sibling(manifest::MANIFEST) {
        return CheckpointError::new(
            path_buf(),
            FileError::FileOfModel { directory: directory.to_path_buf() },
        );
    }
    CheckpointError::new(path_buf(), FileError::NotAModel { found: "a file that is no model".to_owned() })
}

/// The error for a directory that has neither safetensors nor a container.
fn no_weights(path: &Path, has_config: bool) -> CheckpointError {
    let mut names: Vec<String> = match std::fs::read_dir(path) {
        Err(e) => return CheckpointError::io(path, "list the directory", e),
        Ok(entries) => entries
            .take(LISTED_ENTRIES_MAX)
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect(),
    };
    names.sort();
    if let Some(name) = names.iter().find(|name| has_extension(Path::new(name), gguf::EXTENSION)) {
        return CheckpointError::new(path, FileError::GgufDirectory { file: path.join(name) });
    }
    if names.iter().any(|name| name.ends_with(".safetensors")) {
        return CheckpointError::new(
            path.join(hf::INDEX),
            FileError::MissingFile {
                advice: "the shards need their index; download it from where they came from",
            },
        );
    }
    if has_config {
        return CheckpointError::new(
            path.join(hf::SINGLE),
            FileError::MissingFile {
                advice: "the directory has config.json but no weights; download the model's \
                     safetensors files and, if there are several, model.safetensors.index.json",
            },
        );
    }
    let found = match names.as_slice() {
        [] => "an empty directory".to_owned(),
        names => {
            let more = if names.len() > 3 { ", …" } else { "" };
            shown(&(names.iter().take(3).cloned().collect::<Vec<_>>().join(", ") + more))
        }
    };
    CheckpointError::new(path, FileError::NotAModel { found })
}

/// Directory entries that are looked at for an error message.
const LISTED_ENTRIES_MAX: usize = 4096;
