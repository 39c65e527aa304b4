//! Qwen3.5-MoE in a GGUF file (`general.architecture` = `qwen35moe`).
//!
//! Source: llama.cpp's converter (`conversion/qwen.py`) and loader (`src/models/qwen35moe.cpp`). Metadata becomes the
//! config.json that [`crate::qwen35moe::config`] reads, and tensors get Hugging Face's names, so that nothing behind this
//! file knows the difference but for [`crate::config::WeightForm::Gguf`]: converters store norms as they multiply,
//! `-exp(A_log)`, and value heads tiled over key heads.

use checkpoint::gguf::Metadata;
use checkpoint::{Checkpoint, TensorInfo};

use crate::config::{EXPERTS_MAX, LAYERS_MAX};
use crate::gguf_keys::Keys;
use crate::{Architecture, ModelError};

/// `general.architecture` of these files, and the prefix of their keys.
pub(crate) const ARCHITECTURE: &str = "qwen35moe";

/// The config.json and the tensors of a file.
///
/// # Errors
/// Metadata that is missing or out of range, naming the key.
pub(crate) fn translate(
    checkpoint: &Checkpoint,
    metadata: &Metadata,
) -> Result<(serde_json::Value, Vec<TensorInfo>), ModelError> {
    let keys = Keys { checkpoint, metadata, prefix: ARCHITECTURE, architecture: Architecture::Qwen35Moe };
    let keys = &keys;
    let blocks = keys.count("block_count", None, LAYERS_MAX)?;
    let layers = layers(keys, blocks)?;
    let mut json = keys.config_json("qwen3_5_moe_text", layers)?;
    let mut set = |key: &str, value: u64| json[key] = value.into();
    let experts = keys.count("expert_count", None, EXPERTS_MAX)?;
    set("linear_num_key_heads", keys.dim("ssm.group_count", None)?);
    set("linear_num_value_heads", keys.dim("ssm.time_step_rank", None)?);
    set("linear_key_head_dim", keys.dim("ssm.state_size", None)?);
    set("linear_value_head_dim", value_dim(keys)?);
    set("linear_conv_kernel_dim", keys.dim("ssm.conv_kernel", None)?);
    set("num_experts", experts);
    set("num_experts_per_tok", keys.count("expert_used_count", None, experts)?);
    set("moe_intermediate_size", keys.dim("expert_feed_forward_length", expert_width(keys))?);
    let shared = keys.rows_of("blk.0.ffn_gate_shexp.weight");
    set("shared_expert_intermediate_size", keys.dim("expert_shared_feed_forward_length", shared)?);
    json["layer_types"] = layer_types(keys, layers)?.into();
    keys.adopted(json)
}

/// Blocks of the model itself: those of the multi-token prediction head come behind them.
fn layers(keys: &Keys<'_>, blocks: u64) -> Result<u64, ModelError> {
    let key = "nextn_predict_layers";
    let Some(value) = keys.get(key) else { return Ok(blocks) };
    let layers = value.as_u64().and_then(|heads| blocks.checked_sub(heads)).filter(|layers| *layers > 0);
    layers.ok_or_else(|| keys.bad(key, value, format!("a whole number below block_count = {blocks}")))
}

fn layer_types(keys: &Keys<'_>, layers: u64) -> Result<Vec<&'static str>, ModelError> {
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

/// Inner width of an expert, where the metadata has none.
fn expert_width(keys: &Keys<'_>) -> Option<u64> {
    let down = keys.checkpoint.tensor("blk.0.ffn_down_exps.weight")?;
    down.shape.last().map(|width| *width as u64)
}
