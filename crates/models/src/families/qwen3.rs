//! Qwen3, dense: norms on queries and keys.
//!
//! Source: transformers 5.23 `models/qwen3`; llama.cpp's converter (`conversion/qwen.py`). No
//! experts, so nothing is streamed.

use serde_json::Value;

use super::decoder::{self, Traits, Window};
use crate::ModelError;
use crate::family::{Family, Ids};
use crate::gguf_keys::Keys;
use crate::section::Section;
use crate::spec::{FeedSpec, ModelSpec};

pub(super) struct Qwen3;

/// Attention of Qwen3, dense or not.
pub(super) const TRAITS: Traits = Traits { qk_norm: true, window: Window::IfUsedAndListed, ..Traits::USUAL };

impl Family for Qwen3 {
    fn name(&self) -> &'static str {
        "Qwen3"
    }

    fn ids(&self) -> Ids {
        Ids { model_types: &["qwen3"], gguf: "qwen3", moe: false }
    }

    fn spec(&self, config: &Section<'_>) -> Result<ModelSpec, ModelError> {
        let mlp = decoder::mlp(config)?;
        let traits = Traits { head_dim: Some(128), ..TRAITS };
        decoder::spec(config, &traits, |_| FeedSpec::Dense(mlp))
    }

    fn from_gguf(&self, keys: &Keys<'_>) -> Result<Value, ModelError> {
        decoder::dense_gguf_json(keys, "qwen3")
    }
}
