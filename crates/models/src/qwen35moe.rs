//! Qwen3.5-MoE, the text model (`qwen3_5_moe`, `qwen3_5_moe_text`).
//!
//! Source: transformers 5.23 `models/qwen3_5_moe`. This file knows the configuration keys and the tensor names and
//! shapes; the arithmetic is in [`crate::layers`]. Two directory layouts exist: the published one (text model nested
//! under `text_config`, prefix `model.language_model.`, experts fused per layer) and the flat text-only one (prefix
//! `model.`, one tensor per expert and matrix); each part is recognised by the tensors that are there. GGUF files get the
//! flat layout's names in [`crate::qwen35moe_gguf`] first.

use std::path::Path;

use ops::{DeltaNetShape, RopePairing};
use serde_json::Value;

use crate::attention_config::{Defaults, attention_shape, rope_factors};
use crate::config::{AttentionBias, Config, MlpType, Section, WeightForm};
use crate::{Architecture, ModelError};

/// Heads where config.json does not say.
const ATTENTION: Defaults = Defaults {
    head_dim: Some(256),
    rope_theta: 1e7,
    partial_rotary_factor: 0.25,
    pairing: RopePairing::Halves,
    gated: true,
};

/// Reads the configuration of a checkpoint.
///
/// # Errors
/// A missing key or a value out of range, each naming the key.
pub fn config(path: &Path, json: &Value) -> Result<Config, ModelError> {
    let root = Section::new(path, Architecture::Qwen35Moe.name(), json);
    let text = root.section("text_config");
    let text = text.as_ref().unwrap_or(&root);
    let layers = text.layers()?;
    let num_experts = text.experts("num_experts", u64::MAX)?;
    let eps = text.positive("rms_norm_eps", 1e-6, 1.0)? as f32;
    let weight_form = text.weight_form()?;
    let attention = attention_shape(text, eps, &ATTENTION)?;
    let bias = text.flag("attention_bias", false)?;
    Ok(Config {
        architecture: Architecture::Qwen35Moe,
        vocab_size: text.dim("vocab_size", None)?,
        hidden_size: text.dim("hidden_size", None)?,
        layer_types: text.layer_types(layers)?,
        mlp_types: vec![MlpType::Moe; layers],
        rope_factors: rope_factors(text, &attention)?,
        attention,
        qk_norm: true,
        attention_bias: AttentionBias { qkv: bias, output: bias },
        delta_net: Some(delta_net_shape(text, eps)?),
        intermediate_size: 0,
        num_experts,
        num_experts_per_tok: text.experts("num_experts_per_tok", num_experts as u64)?,
        moe_intermediate_size: text.dim("moe_intermediate_size", None)?,
        shared_expert_intermediate_size: text.dim("shared_expert_intermediate_size", Some(512))?,
        norm_offset: match weight_form {
            WeightForm::HuggingFace => 1.0,
            WeightForm::Gguf => 0.0,
        },
        rms_norm_eps: eps,
        // The published files carry the flag at the top level, text-only ones in the same (only) section.
        tie_word_embeddings: text.flag("tie_word_embeddings", root.flag("tie_word_embeddings", false)?)?,
        max_position_embeddings: text.dim("max_position_embeddings", Some(32_768))?,
        eos_token_ids: text.token_ids("eos_token_id")?,
        weight_form,
    })
}

fn delta_net_shape(text: &Section<'_>, eps: f32) -> Result<DeltaNetShape, ModelError> {
    let key_heads = text.dim("linear_num_key_heads", Some(16))?;
    let value_heads = text.dim("linear_num_value_heads", Some(32))?;
    if value_heads % key_heads != 0 {
        let expected = format!("a multiple of linear_num_key_heads = {key_heads}");
        return Err(text.bad("linear_num_value_heads", value_heads, expected));
    }
    Ok(DeltaNetShape {
        key_heads,
        value_heads,
        value_head_order: text.weight_form()?.value_head_order(),
        key_dim: text.dim("linear_key_head_dim", Some(128))?,
        value_dim: text.dim("linear_value_head_dim", Some(128))?,
        conv_kernel: text.count("linear_conv_kernel_dim", Some(4), 64)?,
        eps,
    })
}
