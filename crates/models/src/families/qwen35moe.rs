//! Qwen3.5-MoE, the text model (`qwen3_5_moe`, `qwen3_5_moe_text`).
//!
//! Source: transformers 5.23 `models/qwen3_5_moe`; llama.cpp's converter (`conversion/qwen.py`) and
//! loader (`src/models/qwen35moe.cpp`). Two directory layouts exist: the published one (text model
//! nested under `text_config`, prefix `model.language_model.`, experts fused per layer) and the
//! flat text-only one (prefix `model.`, one tensor per expert and matrix). Converters to GGUF store
//! norms as they multiply, `-exp(A_log)`, and value heads tiled over key heads
//! ([`WeightForm::Gguf`]).

use ops::{DeltaNetShape, RopePairing};
use serde_json::Value;

use crate::ModelError;
use crate::attention_keys::{Defaults, attention_shape, rope_factors};
use crate::family::{Family, Ids};
use crate::gguf_keys::Keys;
use crate::section::{LAYERS_MAX, Part, Section};
use crate::spec::{
    AttentionBias, AttentionSpec, FeedSpec, LayerSpec, MixerSpec, MlpSpec, ModelSpec, MoeSpec, NormSpec,
    RouterSpec, SharedSpec, WeightForm,
};

pub(super) struct Qwen35Moe;

/// Heads where config.json does not say.
const ATTENTION: Defaults = Defaults {
    head_dim: Some(256),
    kv_heads: Some(2),
    rope_theta: 1e7,
    partial_rotary_factor: 0.25,
    pairing: RopePairing::Halves,
    gated: true,
};

impl Family for Qwen35Moe {
    fn name(&self) -> &'static str {
        "Qwen3.5-MoE"
    }

    fn ids(&self) -> Ids {
        Ids { model_types: &["qwen3_5_moe", "qwen3_5_moe_text"], gguf: "qwen35moe", moe: true }
    }

    fn spec(&self, root: &Section<'_>) -> Result<ModelSpec, ModelError> {
        let text = root.section("text_config", Part::Model)?;
        let text = text.as_ref().unwrap_or(root);
        check_supported(text)?;
        let layers = text.layers()?;
        let moe = moe(text)?;
        let eps = text.positive("rms_norm_eps", 1e-6, 1.0)? as f32;
        let weight_form = text.weight_form()?;
        let shape = attention_shape(text, eps, &ATTENTION)?;
        let bias = text.flag("attention_bias", false)?;
        let bias = AttentionBias { qkv: bias, output: bias };
        let attention = AttentionSpec { shape, qk_norm: true, bias };
        let delta_net = delta_net_shape(text, eps)?;
        let layer = |recurrent| LayerSpec {
            mixer: match recurrent {
                true => MixerSpec::DeltaNet(delta_net),
                false => MixerSpec::Attention(attention),
            },
            feed: FeedSpec::Moe(moe.clone()),
        };
        let offset = match weight_form {
            WeightForm::HuggingFace => 1.0,
            WeightForm::Gguf => 0.0,
        };
        Ok(ModelSpec {
            family: text.family(),
            vocab_size: text.dim("vocab_size", None)?,
            hidden_size: text.dim("hidden_size", None)?,
            layers: recurrent_layers(text, layers)?.into_iter().map(layer).collect(),
            norm: NormSpec { eps, offset },
            rope_factors: rope_factors(text, &shape)?,
            // The published files carry the flag at the top level, text-only ones in the same
            // (only) section.
            tie_word_embeddings: text
                .flag("tie_word_embeddings", root.flag("tie_word_embeddings", false)?)?,
            max_position_embeddings: text.dim("max_position_embeddings", Some(32_768))?,
            eos_token_ids: text.token_ids("eos_token_id")?,
            weight_form,
        })
    }

    fn from_gguf(&self, keys: &Keys<'_>) -> Result<Value, ModelError> {
        // Text has one position in all three dimensions; the tensors of the shared expert say that it is there.
        keys.pass_over(&["rope.dimension_sections", "expert_shared_count", "full_attention_interval"]);
        let blocks = keys.count("block_count", None, LAYERS_MAX)?;
        let layers = gguf_layers(keys, blocks)?;
        let mut json = keys.config_json("qwen3_5_moe_text", layers)?;
        keys.add_experts(&mut json, "num_experts")?;
        let mut set = |key: &str, value: u64| json[key] = value.into();
        set("linear_num_key_heads", keys.dim("ssm.group_count", None)?);
        set("linear_num_value_heads", keys.dim("ssm.time_step_rank", None)?);
        set("linear_key_head_dim", keys.dim("ssm.state_size", None)?);
        set("linear_value_head_dim", value_dim(keys)?);
        set("linear_conv_kernel_dim", keys.dim("ssm.conv_kernel", None)?);
        set("moe_intermediate_size", keys.dim("expert_feed_forward_length", keys.expert_width())?);
        let shared = keys.rows_of("blk.0.ffn_gate_shexp.weight");
        set("shared_expert_intermediate_size", keys.dim("expert_shared_feed_forward_length", shared)?);
        json["layer_types"] = gguf_layer_types(keys, layers)?.into();
        Ok(json)
    }
}

/// Refuses keys that ask for a computation that is not done.
fn check_supported(text: &Section<'_>) -> Result<(), ModelError> {
    text.silu()?;
    for flag in ["attn_output_gate", "norm_topk_prob", "use_qk_norm"] {
        text.always(flag, "true, as in every model of the family")?;
    }
    Ok(())
}

fn moe(text: &Section<'_>) -> Result<MoeSpec, ModelError> {
    let experts = text.experts("num_experts", u64::MAX)?;
    let shared = text.dim("shared_expert_intermediate_size", Some(512))?;
    Ok(MoeSpec {
        experts,
        per_token: text.experts("num_experts_per_tok", experts as u64)?,
        expert: MlpSpec { inner: text.dim("moe_intermediate_size", None)? },
        router: RouterSpec::SOFTMAX,
        shared: Some(SharedSpec { inner: shared, gate: true }),
    })
}

/// For each layer whether it is recurrent: by `layer_types` if present (its length must be
/// `layers`), otherwise every layer but each `full_attention_interval`th.
fn recurrent_layers(text: &Section<'_>, layers: usize) -> Result<Vec<bool>, ModelError> {
    text.pass_over("full_attention_interval");
    let Some(list) = text.get("layer_types") else {
        let interval = text.count("full_attention_interval", Some(4), LAYERS_MAX)?;
        return Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect());
    };
    let expected = format!("a list of {layers} names, each linear_attention or full_attention");
    let names = list.as_array().filter(|names| names.len() == layers);
    let names = names.ok_or_else(|| text.bad("layer_types", list, &*expected))?;
    let parse = |name: &Value| match name.as_str() {
        Some("full_attention") => Ok(false),
        Some("linear_attention") => Ok(true),
        _ => Err(text.bad("layer_types", name, &*expected)),
    };
    names.iter().map(parse).collect()
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

/// Blocks of the model itself: those of the multi-token prediction head come behind them.
fn gguf_layers(keys: &Keys<'_>, blocks: u64) -> Result<u64, ModelError> {
    let key = "nextn_predict_layers";
    let Some(value) = keys.get(key) else { return Ok(blocks) };
    let layers = value.as_u64().and_then(|heads| blocks.checked_sub(heads)).filter(|layers| *layers > 0);
    layers.ok_or_else(|| keys.bad(key, value, format!("a whole number below block_count = {blocks}")))
}

fn gguf_layer_types(keys: &Keys<'_>, layers: u64) -> Result<Vec<&'static str>, ModelError> {
    let name = |recurrent: bool| if recurrent { "linear_attention" } else { "full_attention" };
    let key = "attention.recurrent_layers";
    let Some(value) = keys.get(key) else {
        let interval = keys.count("full_attention_interval", Some(4), LAYERS_MAX)?;
        return Ok((1..=layers).map(|layer| name(layer % interval != 0)).collect());
    };
    let bad = || keys.bad(key, value, format!("true or false for each of {layers} blocks"));
    if let Some(all) = value.as_bool() {
        return Ok((0..layers).map(|_| name(all)).collect());
    }
    let list = value.as_array().ok_or_else(bad)?;
    let types = list.values().take(layers as usize).map(|flag| flag.as_bool().map(name));
    let types = types.collect::<Option<Vec<_>>>().filter(|types| types.len() as u64 == layers);
    types.ok_or_else(bad)
}

/// Dimensions of a value head: converters store those of all heads together.
fn value_dim(keys: &Keys<'_>) -> Result<u64, ModelError> {
    let heads = keys.dim("ssm.time_step_rank", None)?;
    let inner = keys.dim("ssm.inner_size", None)?;
    match inner % heads {
        0 => Ok(inner / heads),
        _ => Err(keys.bad("ssm.inner_size", inner, format!("a multiple of ssm.time_step_rank = {heads}"))),
    }
}
