//! Qwen3-MoE: the attention of Qwen3, routed experts in most layers, none shared.
//!
//! Source: transformers 5.23 `models/qwen3_moe`; llama.cpp's converter (`conversion/qwen.py`). A
//! layer has experts where `decoder_sparse_step` divides its number (counted from 1) and
//! `mlp_only_layers` does not list it (counted from 0); the others are dense. GGUF files say
//! neither; there the tensors of a block tell.

use serde_json::Value;

use super::decoder::{self, Traits, Window};
use super::qwen3;
use crate::ModelError;
use crate::family::{Family, Ids};
use crate::gguf_keys::Keys;
use crate::section::{LAYERS_MAX, Section};
use crate::spec::{FeedSpec, MlpSpec, ModelSpec, MoeSpec, RouterSpec};

pub(super) struct Qwen3Moe;

impl Family for Qwen3Moe {
    fn name(&self) -> &'static str {
        "Qwen3-MoE"
    }

    fn ids(&self) -> Ids {
        Ids { model_types: &["qwen3_moe"], gguf: "qwen3moe", moe: true }
    }

    fn spec(&self, config: &Section<'_>) -> Result<ModelSpec, ModelError> {
        let layers = config.layers()?;
        let step = config.count("decoder_sparse_step", Some(1), LAYERS_MAX)?;
        let dense_only = config.indices("mlp_only_layers", layers)?;
        let is_moe = |layer: usize| (layer + 1).is_multiple_of(step) && !dense_only.contains(&layer);
        let moe = moe(config)?;
        config.pass_over("intermediate_size");
        // Its width is needed, and said, only where there are such layers.
        let mlp = if (0..layers).all(is_moe) { None } else { Some(decoder::mlp(config)?) };
        let traits = Traits { kv_heads: Some(4), window: Window::IfUsed, ..qwen3::TRAITS };
        decoder::spec(config, &traits, |layer| match mlp {
            Some(mlp) if !is_moe(layer) => FeedSpec::Dense(mlp),
            _ => FeedSpec::Moe(moe.clone()),
        })
    }

    fn from_gguf(&self, keys: &Keys<'_>) -> Result<Value, ModelError> {
        let mut json = decoder::gguf_json(keys, "qwen3_moe")?;
        keys.add_experts(&mut json, "num_experts")?;
        json["moe_intermediate_size"] = keys.dim("expert_feed_forward_length", keys.expert_width())?.into();
        if let Some(rows) = keys.rows_of_any("ffn_gate.weight") {
            json["intermediate_size"] = rows.into();
        }
        json["norm_topk_prob"] = keys.flag("expert_weights_norm", true)?.into();
        let blocks = keys.count("block_count", None, LAYERS_MAX)?;
        let is_dense = |block: &u64| keys.rows_of(&format!("blk.{block}.ffn_gate.weight")).is_some();
        json["mlp_only_layers"] = (0..blocks).filter(is_dense).collect::<Vec<_>>().into();
        Ok(json)
    }
}

fn moe(config: &Section<'_>) -> Result<MoeSpec, ModelError> {
    // Published files have the first name, those that transformers 5 saves the second.
    let key = if config.get("num_experts").is_some() { "num_experts" } else { "num_local_experts" };
    let experts = config.experts(key, u64::MAX)?;
    let renormalise = config.flag("norm_topk_prob", false)?;
    Ok(MoeSpec {
        experts,
        per_token: config.experts("num_experts_per_tok", experts as u64)?,
        expert: MlpSpec { inner: config.dim("moe_intermediate_size", None)? },
        router: RouterSpec { renormalise, ..RouterSpec::SOFTMAX },
        shared: None,
    })
}
