//! The architectures that are known, and which file knows each.

use std::path::Path;

use checkpoint::Checkpoint;
use serde_json::Value;

use crate::layout::{PUBLISHED_PREFIX, TEXT_PREFIX};
use crate::{Config, ModelError, llama, llama_gguf, qwen35moe, qwen35moe_gguf};

/// A family of models that one file maps to the layers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// [`qwen35moe`].
    Qwen35Moe,
    /// [`llama`]: Llama, SmolLM2, Mistral and others of that build.
    Llama,
    /// [`llama`] with biases on queries, keys and values.
    Qwen2,
    /// [`llama`] with norms on queries and keys.
    Qwen3,
}

/// What [`config`] knows, for messages.
const MODEL_TYPES: &str = "qwen3_5_moe, qwen3_5_moe_text, llama, mistral, qwen2 and qwen3";
/// What [`adopt`] knows, for messages.
const GGUF_ARCHITECTURES: &str = "GGUF files of qwen35moe, llama, qwen2 and qwen3";

/// Where a GGUF file names its architecture.
const GGUF_KEY: &str = "general.architecture";

impl Architecture {
    /// Name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Qwen35Moe => "Qwen3.5-MoE",
            Architecture::Llama => "Llama",
            Architecture::Qwen2 => "Qwen2",
            Architecture::Qwen3 => "Qwen3",
        }
    }

    /// Prefixes that the text model's tensors may have, the published one first.
    pub(crate) fn prefixes(self) -> &'static [&'static str] {
        match self {
            Architecture::Qwen35Moe => &[PUBLISHED_PREFIX, TEXT_PREFIX],
            _ => &[TEXT_PREFIX],
        }
    }

    /// The architecture of a `model_type`.
    fn of_model_type(model_type: &str) -> Option<Architecture> {
        Some(match model_type {
            "qwen3_5_moe" | "qwen3_5_moe_text" => Architecture::Qwen35Moe,
            "llama" | "mistral" => Architecture::Llama,
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            _ => return None,
        })
    }
}

/// Reads the configuration of a checkpoint.
///
/// # Errors
/// Another architecture, a missing key or a value out of range, each naming the key.
pub fn config(path: &Path, json: &Value) -> Result<Config, ModelError> {
    let model_type = json.get("model_type").and_then(Value::as_str);
    match model_type.and_then(Architecture::of_model_type) {
        Some(Architecture::Qwen35Moe) => qwen35moe::config(path, json),
        Some(dense) => llama::config(dense, path, json),
        None => Err(unknown(path, "model_type of config.json", model_type, MODEL_TYPES)),
    }
}

/// Gives a GGUF checkpoint the configuration and the names that the rest of the program knows. Any other checkpoint is
/// handed back as it is.
///
/// # Errors
/// Another architecture; metadata that is missing or out of range, naming the key.
pub fn adopt(checkpoint: Checkpoint) -> Result<Checkpoint, ModelError> {
    let Some(gguf) = checkpoint.gguf() else { return Ok(checkpoint) };
    let name = gguf.metadata().text(GGUF_KEY);
    let (json, tensors) = match name.unwrap_or_default() {
        qwen35moe_gguf::ARCHITECTURE => qwen35moe_gguf::translate(&checkpoint, gguf.metadata())?,
        "llama" => llama_gguf::translate(Architecture::Llama, &checkpoint, gguf.metadata())?,
        "qwen2" => llama_gguf::translate(Architecture::Qwen2, &checkpoint, gguf.metadata())?,
        "qwen3" => llama_gguf::translate(Architecture::Qwen3, &checkpoint, gguf.metadata())?,
        _ => return Err(unknown(checkpoint.root(), GGUF_KEY, name, GGUF_ARCHITECTURES)),
    };
    Ok(checkpoint.adopt(json, tensors)?)
}

fn unknown(path: &Path, key: &'static str, got: Option<&str>, known: &'static str) -> ModelError {
    let quoted = |got: &str| format!("{:?}", got.chars().take(80).collect::<String>());
    let got = got.map_or("missing".into(), quoted);
    ModelError::UnknownArchitecture { path: path.to_path_buf(), key, got, known }
}
