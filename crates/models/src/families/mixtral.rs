//! Mixtral: the attention of Llama, routed experts in every layer, none shared.
//!
//! Source: transformers 5.23 `models/mixtral`; llama.cpp's converter (`conversion/llama.py`), whose
//! files call themselves `llama` and have the rows of queries and keys reordered as Llama's. Files
//! made before experts were stacked have a tensor for each expert and matrix.

use ops::RopePairing;
use serde_json::Value;

use super::decoder::{self, Traits};
use crate::ModelError;
use crate::family::{Family, Ids};
use crate::gguf_keys::Keys;
use crate::names::{Names, ROUTER};
use crate::section::Section;
use crate::spec::{FeedSpec, MlpSpec, ModelSpec, MoeSpec, RouterSpec};

pub(super) struct Mixtral;

/// Names in Hugging Face directories.
const NAMES: &Names = &[
    ("block_sparse_moe.gate.weight", ROUTER),
    ("block_sparse_moe.experts.*.w1.weight", "mlp.experts.*.gate_proj.weight"),
    ("block_sparse_moe.experts.*.w3.weight", "mlp.experts.*.up_proj.weight"),
    ("block_sparse_moe.experts.*.w2.weight", "mlp.experts.*.down_proj.weight"),
];

impl Family for Mixtral {
    fn name(&self) -> &'static str {
        "Mixtral"
    }

    fn ids(&self) -> Ids {
        Ids { model_types: &["mixtral"], gguf: "llama", moe: true }
    }

    fn names(&self) -> &'static Names {
        NAMES
    }

    fn spec(&self, config: &Section<'_>) -> Result<ModelSpec, ModelError> {
        let traits = Traits {
            rope_theta: 1e6,
            eps: 1e-5,
            kv_heads: Some(8),
            gguf_pairing: RopePairing::Adjacent,
            ..Traits::USUAL
        };
        config.always("norm_topk_prob", "true, as in every model of the family")?;
        let experts = config.experts("num_local_experts", u64::MAX)?;
        let moe = MoeSpec {
            experts,
            per_token: config.experts("num_experts_per_tok", experts as u64)?,
            expert: MlpSpec { inner: config.dim("intermediate_size", None)? },
            router: RouterSpec::SOFTMAX,
            shared: None,
        };
        decoder::spec(config, &traits, |_| FeedSpec::Moe(moe.clone()))
    }

    fn from_gguf(&self, keys: &Keys<'_>) -> Result<Value, ModelError> {
        // Some files have the width under the key of experts, most under that of dense layers.
        let found = keys.get("expert_feed_forward_length").is_some();
        let key = if found { "expert_feed_forward_length" } else { "feed_forward_length" };
        let width = keys.dim(key, keys.expert_width())?;
        let mut json = decoder::gguf_json(keys, "mixtral")?;
        json["intermediate_size"] = width.into();
        keys.add_experts(&mut json, "num_local_experts")?;
        if !keys.flag("expert_weights_norm", true)? {
            return Err(keys.bad("expert_weights_norm", false, "true, or nothing"));
        }
        Ok(json)
    }
}
