//! Llama, and dense models of the same build: SmolLM2, Mistral.
//!
//! Source: transformers 5.23 `models/llama`, `models/mistral`; llama.cpp's converter
//! (`conversion/llama.py`), which reorders the rows of queries and keys within each head, so that
//! adjacent dimensions are rotated together, and stores Llama 3's scaled frequencies as a tensor of
//! factors. No experts, so nothing is streamed.

use ops::RopePairing;
use serde_json::Value;

use super::decoder::{self, Traits};
use crate::ModelError;
use crate::family::{Family, Ids};
use crate::gguf_keys::Keys;
use crate::section::Section;
use crate::spec::{FeedSpec, ModelSpec};

pub(super) struct Llama;

impl Family for Llama {
    fn name(&self) -> &'static str {
        "Llama"
    }

    fn ids(&self) -> Ids {
        Ids { model_types: &["llama", "mistral"], gguf: "llama", moe: false }
    }

    fn spec(&self, config: &Section<'_>) -> Result<ModelSpec, ModelError> {
        let mistral = config.text("model_type")? == Some("mistral");
        let kv_heads = mistral.then_some(8);
        let traits = Traits {
            gguf_pairing: RopePairing::Adjacent,
            kv_heads,
            window_default: mistral.then_some(4096),
            ..Traits::USUAL
        };
        let mlp = decoder::mlp(config)?;
        decoder::spec(config, &traits, |_| FeedSpec::Dense(mlp))
    }

    fn from_gguf(&self, keys: &Keys<'_>) -> Result<Value, ModelError> {
        decoder::dense_gguf_json(keys, "llama")
    }
}
