//! Llama, and dense models that differ from it in a flag: Mistral, Qwen2 (biases), Qwen3 (norms on queries and keys).
//!
//! Source: transformers 5.23 `models/llama`, `models/qwen2`, `models/qwen3`. No experts, so nothing is streamed: these
//! models run wholly in memory.

use std::path::Path;

use ops::RopePairing;
use serde_json::Value;

use crate::attention_config::{Defaults, attention_shape, rope_factors};
use crate::config::{AttentionBias, Config, LayerType, MlpType, Section, WeightForm};
use crate::{Architecture, ModelError};

/// Key for biases of the output projection alone, where a GGUF file has or lacks just those.
pub(crate) const OUTPUT_BIAS: &str = "attention_output_bias";

/// Reads the configuration of a checkpoint.
///
/// # Errors
/// A missing key or a value out of range, each naming the key.
pub fn config(architecture: Architecture, path: &Path, json: &Value) -> Result<Config, ModelError> {
    let text = &Section::new(path, architecture.name(), json);
    check_supported(text)?;
    let layers = text.layers()?;
    let eps = text.positive("rms_norm_eps", 1e-6, 1.0)? as f32;
    let weight_form = text.weight_form()?;
    let pairing = match (architecture, weight_form) {
        (Architecture::Llama, WeightForm::Gguf) => RopePairing::Adjacent,
        _ => RopePairing::Halves,
    };
    let defaults =
        Defaults { head_dim: None, rope_theta: 1e4, partial_rotary_factor: 1.0, pairing, gated: false };
    let attention = attention_shape(text, eps, &defaults)?;
    let is_qwen2 = architecture == Architecture::Qwen2;
    let qkv = text.flag("attention_bias", is_qwen2)?;
    Ok(Config {
        architecture,
        vocab_size: text.dim("vocab_size", None)?,
        hidden_size: text.dim("hidden_size", None)?,
        layer_types: vec![LayerType::FullAttention; layers],
        mlp_types: vec![MlpType::Dense; layers],
        rope_factors: rope_factors(text, &attention)?,
        attention,
        qk_norm: architecture == Architecture::Qwen3,
        attention_bias: AttentionBias { qkv, output: text.flag(OUTPUT_BIAS, qkv && !is_qwen2)? },
        delta_net: None,
        intermediate_size: text.dim("intermediate_size", None)?,
        num_experts: 0,
        num_experts_per_tok: 0,
        moe_intermediate_size: 0,
        shared_expert_intermediate_size: 0,
        norm_offset: 0.0,
        rms_norm_eps: eps,
        tie_word_embeddings: text.flag("tie_word_embeddings", false)?,
        max_position_embeddings: text.dim("max_position_embeddings", Some(2048))?,
        eos_token_ids: text.token_ids("eos_token_id")?,
        weight_form,
    })
}

/// Refuses what members of these families may have and this version does not compute.
fn check_supported(text: &Section<'_>) -> Result<(), ModelError> {
    if let Some(act) = text.text("hidden_act").filter(|act| *act != "silu") {
        return Err(text.bad("hidden_act", act, "silu"));
    }
    if text.flag("mlp_bias", false)? {
        return Err(text.bad("mlp_bias", true, "false (biases in the MLP are not supported yet)"));
    }
    let listed = text.get("layer_types").and_then(Value::as_array);
    let sliding = listed.and_then(|types| types.iter().find(|kind| kind.as_str() != Some("full_attention")));
    if let Some(kind) = sliding {
        return Err(text.bad("layer_types", kind, "full_attention only"));
    }
    let window = text.get("sliding_window").filter(|window| window.as_u64() != Some(0));
    match window {
        // Files of Qwen name a window that they do not use; where the layers are listed, the list says it all.
        Some(window) if listed.is_none() && text.flag("use_sliding_window", true)? => {
            Err(text.bad("sliding_window", window, "null (sliding windows are not supported yet)"))
        }
        _ => Ok(()),
    }
}
