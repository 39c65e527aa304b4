//! The registry: every family is one file and one line of [`FAMILIES`].

mod decoder;
mod llama;
mod mixtral;
mod qwen2;
mod qwen3;
mod qwen35moe;
mod qwen3moe;

use std::path::Path;

use checkpoint::gguf::Metadata;
use checkpoint::{Checkpoint, Kind, TensorInfo};
use serde_json::Value;

use crate::config_keys::UnreadKey;
use crate::family::Family;
use crate::gguf_keys::{Keys, has_experts};
use crate::names::{PUBLISHED_PREFIX, TEXT_PREFIX};
use crate::section::Section;
use crate::spec::ModelSpec;
use crate::{ModelError, gguf_names, names};

/// Every family that this version runs.
pub(crate) static FAMILIES: &[&dyn Family] = &[
    &qwen35moe::Qwen35Moe,
    &qwen3moe::Qwen3Moe,
    &mixtral::Mixtral,
    &llama::Llama,
    &qwen2::Qwen2,
    &qwen3::Qwen3,
];

/// Where a GGUF file names its architecture.
const GGUF_KEY: &str = "general.architecture";

/// Reads the specification of a checkpoint from its config.json.
///
/// # Errors
/// An unknown family, a missing key or a value out of range, each naming the key.
pub fn read_config(path: &Path, json: &Value) -> Result<ModelSpec, ModelError> {
    Ok(read_with_unread(path, json)?.0)
}

/// The specification, and the keys that it does not depend on.
fn read_with_unread(path: &Path, json: &Value) -> Result<(ModelSpec, Vec<UnreadKey>), ModelError> {
    let model_type = json.get("model_type").and_then(Value::as_str);
    match of_model_type(model_type) {
        Some(family) => {
            let root = Section::new(path, family.name(), json);
            let spec = family.spec(&root)?;
            Ok((spec, root.unread()?))
        }
        None => Err(unknown(path, "model_type of config.json", model_type, known_model_types())),
    }
}

/// The keys of a checkpoint's configuration that its model does not depend on, as it was opened and before
/// [`adopt`]: those of config.json, or of a GGUF file's metadata but for `general.`, `tokenizer.` and `split.`.
///
/// # Errors
/// Those of [`adopt`] and [`read_config`].
pub fn unread_keys(checkpoint: &Checkpoint) -> Result<Vec<UnreadKey>, ModelError> {
    match checkpoint.kind() {
        Kind::Gguf => {
            let (family, keys) = gguf_keys_of(checkpoint)?;
            family.from_gguf(&keys)?;
            keys.unread()
        }
        _ => Ok(read_with_unread(checkpoint.root(), checkpoint.config())?.1),
    }
}

/// Gives the tensors of a checkpoint the names that the rest of the program knows, and a GGUF file
/// a config.json. A packed container, and a directory of an unknown family, is handed back as it
/// is.
///
/// # Errors
/// A GGUF file of an unknown architecture; metadata that is missing or out of range, naming the
/// key.
pub fn adopt(checkpoint: Checkpoint) -> Result<Checkpoint, ModelError> {
    let checkpoint = adopt_names(checkpoint)?;
    match with_own_head(&checkpoint) {
        Some(config) => {
            let tensors = checkpoint.tensors().cloned().collect();
            Ok(checkpoint.adopt(config, tensors)?)
        }
        None => Ok(checkpoint),
    }
}

/// The configuration of a checkpoint that has a head of its own although a flag says that the embedding is
/// the head: the tensor counts, as in transformers.
fn with_own_head(checkpoint: &Checkpoint) -> Option<Value> {
    const FLAG: &str = "tie_word_embeddings";
    checkpoint.tensor(HEAD)?;
    let mut config = checkpoint.config().clone();
    let mut changed = false;
    for section in ["", "/text_config"] {
        let flag = config.pointer_mut(section).and_then(|section| section.get_mut(FLAG));
        if let Some(flag) = flag.filter(|flag| **flag == Value::Bool(true)) {
            *flag = false.into();
            changed = true;
        }
    }
    changed.then_some(config)
}

fn adopt_names(checkpoint: Checkpoint) -> Result<Checkpoint, ModelError> {
    let (json, tensors) = match checkpoint.kind() {
        Kind::Gguf => adopt_gguf(&checkpoint)?,
        Kind::HfDirectory => {
            let Some(family) = family_of(&checkpoint).filter(|family| !family.names().is_empty()) else {
                return Ok(checkpoint);
            };
            let renamed =
                |info: &TensorInfo| TensorInfo { name: our_name(family, &info.name), ..info.clone() };
            (checkpoint.config().clone(), checkpoint.tensors().map(renamed).collect())
        }
        _ => return Ok(checkpoint),
    };
    Ok(checkpoint.adopt(json, tensors)?)
}

/// The output head.
const HEAD: &str = "lm_head.weight";

/// The name of one of our tensors where the checkpoint's user can look for it.
pub(crate) fn shown_name(checkpoint: &Checkpoint, name: &str) -> String {
    let shown = match checkpoint.kind() {
        Kind::Gguf => gguf_names::source_name(checkpoint, name),
        Kind::HfDirectory => family_of(checkpoint).and_then(|family| their_name(family, name)),
        _ => None,
    };
    shown.unwrap_or_else(|| name.to_string())
}

fn adopt_gguf(checkpoint: &Checkpoint) -> Result<(Value, Vec<TensorInfo>), ModelError> {
    let (family, keys) = gguf_keys_of(checkpoint)?;
    let json = family.from_gguf(&keys)?;
    keys.unread()?;
    let spec = read_config(checkpoint.root(), &json).map_err(|error| keys.in_terms_of_metadata(error))?;
    let tensors = gguf_names::renamed(checkpoint, &spec);
    Ok((json, tensors))
}

/// The name of the family that runs models whose config.json is `config`, if there is one. Its other keys
/// are not looked at.
pub fn family_of_config(config: &Value) -> Option<&'static str> {
    of_model_type(config.get("model_type").and_then(Value::as_str)).map(|family| family.name())
}

/// The name of the family that runs GGUF files of this metadata, if there is one. Its other keys are not
/// looked at.
pub fn family_of_metadata(metadata: &Metadata) -> Option<&'static str> {
    of_gguf(metadata).map(|family| family.name())
}

/// The family of a GGUF file, and its metadata as that reads it.
fn gguf_keys_of(checkpoint: &Checkpoint) -> Result<(&'static dyn Family, Keys<'_>), ModelError> {
    let metadata = checkpoint.gguf().map(|gguf| gguf.metadata());
    let name = metadata.and_then(|metadata| metadata.text(GGUF_KEY));
    match (metadata, metadata.and_then(of_gguf)) {
        (Some(metadata), Some(family)) => {
            Ok((family, Keys::new(checkpoint, metadata, family.ids().gguf, family.name())))
        }
        _ => Err(unknown(checkpoint.root(), GGUF_KEY, name, known_gguf())),
    }
}

/// The family of a GGUF file. Where two share the architecture's name, experts tell them apart.
fn of_gguf(metadata: &Metadata) -> Option<&'static dyn Family> {
    let name = metadata.text(GGUF_KEY)?;
    let mut named = FAMILIES.iter().copied().filter(|family| family.ids().gguf == name);
    let first = named.next()?;
    let moe = has_experts(metadata, name);
    let exact = std::iter::once(first).chain(named).find(|family| family.ids().moe == moe);
    Some(exact.unwrap_or(first))
}

fn of_model_type(model_type: Option<&str>) -> Option<&'static dyn Family> {
    let model_type = model_type?;
    FAMILIES.iter().copied().find(|family| family.ids().model_types.contains(&model_type))
}

fn family_of(checkpoint: &Checkpoint) -> Option<&'static dyn Family> {
    of_model_type(checkpoint.config().get("model_type").and_then(Value::as_str))
}

/// Our name of a tensor in a Hugging Face directory.
fn our_name(family: &dyn Family, name: &str) -> String {
    renamed(name, |rest| names::ours(family.names(), rest)).unwrap_or_else(|| name.to_string())
}

fn their_name(family: &dyn Family, name: &str) -> Option<String> {
    renamed(name, |rest| names::theirs(family.names(), rest))
}

/// `name` with the part behind the layer's number replaced.
fn renamed(name: &str, replace: impl Fn(&str) -> Option<String>) -> Option<String> {
    let layers = name.strip_prefix(PUBLISHED_PREFIX).or_else(|| name.strip_prefix(TEXT_PREFIX))?;
    let (_, rest) = layers.strip_prefix("layers.")?.split_once('.')?;
    Some(format!("{}{}", &name[..name.len() - rest.len()], replace(rest)?))
}

fn known_model_types() -> String {
    let all: Vec<&str> = FAMILIES.iter().flat_map(|family| family.ids().model_types).copied().collect();
    all.join(", ")
}

fn known_gguf() -> String {
    let mut all: Vec<&str> = Vec::new();
    for name in FAMILIES.iter().map(|family| family.ids().gguf) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    format!("GGUF files of {}", all.join(", "))
}

fn unknown(path: &Path, key: &'static str, got: Option<&str>, known: String) -> ModelError {
    let quoted = |got: &str| format!("{:?}", got.chars().take(80).collect::<String>());
    let got = got.map_or("missing".into(), quoted);
    ModelError::UnknownArchitecture { path: path.to_path_buf(), key, got, known }
}

#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod tests;
