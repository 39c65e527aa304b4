//! Qwen2 and Qwen2.5, dense: biases on queries, keys and values.
//!
//! Source: transformers 5.23 `models/qwen2`; llama.cpp's converter (`conversion/qwen.py`). No
//! experts, so nothing is streamed.

use serde_json::Value;

use super::decoder::{self, Traits, Window};
use crate::ModelError;
use crate::family::{Family, Ids};
use crate::gguf_keys::Keys;
use crate::section::Section;
use crate::spec::{FeedSpec, ModelSpec};

pub(super) struct Qwen2;

impl Family for Qwen2 {
    fn name(&self) -> &'static str {
        "Qwen2"
    }

    fn ids(&self) -> Ids {
        Ids { model_types: &["qwen2"], gguf: "qwen2", moe: false }
    }

    fn spec(&self, config: &Section<'_>) -> Result<ModelSpec, ModelError> {
        let traits = Traits {
            qkv_bias: true,
            fixed_bias: true,
            output_bias: false,
            window: Window::IfUsedAndListed,
            ..Traits::USUAL
        };
        let mlp = decoder::mlp(config)?;
        decoder::spec(config, &traits, |_| FeedSpec::Dense(mlp))
    }

    fn from_gguf(&self, keys: &Keys<'_>) -> Result<Value, ModelError> {
        decoder::dense_gguf_json(keys, "qwen2")
    }
}
