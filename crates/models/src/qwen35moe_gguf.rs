//! Qwen3.5-MoE in a GGUF file (`general.architecture` = `qwen35moe`).
//!
//! Source: llama.cpp's converter (`conversion/qwen.py`) and loader (`src/models/qwen35moe.cpp`). Metadata becomes the
//! config.json that [`qwen35moe::config`] reads, and tensors get Hugging Face's names, so that nothing behind this file
//! knows the difference but for [`WeightForm::Gguf`]: converters store norms as they multiply, `-exp(A_log)`, and value
//! heads tiled over key heads. Bytes stay where they are; a fused tensor becomes several names for parts of it.

use std::path::Path;

use checkpoint::gguf::{Metadata, Value};
use checkpoint::{Checkpoint, Extent, Kind, TensorInfo};
use serde_json::json;

use crate::config::{DIM_MAX, EXPERTS_MAX, LAYERS_MAX, LayerType, WeightForm};
use crate::{Config, ModelError, qwen35moe};

/// `general.architecture` of these files, and the prefix of their keys.
const ARCHITECTURE: &str = "qwen35moe";
/// Prefix that tensors of the text model get.
const PREFIX: &str = "model.";
/// What tensors of blocks behind the model's own are called: they are the multi-token prediction head's.
const MTP_PREFIX: &str = "mtp.";

/// Keys of config.json and what they are called in the metadata, without the architecture's prefix.
const KEYS: &[(&str, &str)] = &[
    ("hidden_size", "embedding_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rope_theta", "rope.freq_base"),
    ("partial_rotary_factor", "rope.dimension_count"),
    ("linear_num_key_heads", "ssm.group_count"),
    ("linear_num_value_heads", "ssm.time_step_rank"),
    ("linear_key_head_dim", "ssm.state_size"),
    ("linear_value_head_dim", "ssm.inner_size"),
    ("linear_conv_kernel_dim", "ssm.conv_kernel"),
    ("num_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("num_hidden_layers", "block_count"),
    ("max_position_embeddings", "context_length"),
];

/// Tensors outside the blocks.
const GLOBAL_NAMES: &[(&str, &str)] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];
/// Tensors of every block.
const BLOCK_NAMES: &[(&str, &str)] = &[
    ("attn_norm.weight", "input_layernorm.weight"),
    ("post_attention_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_gate_inp.weight", "mlp.gate.weight"),
    ("ffn_gate_inp_shexp.weight", SHARED_GATE),
    ("ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight"),
    ("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight"),
    ("ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight"),
    ("ffn_gate_exps.weight", "mlp.experts.gate_proj"),
    ("ffn_up_exps.weight", "mlp.experts.up_proj"),
    ("ffn_down_exps.weight", "mlp.experts.down_proj"),
    ("ffn_gate_up_exps.weight", "mlp.experts.gate_up_proj"),
];
/// Tensors of full-attention blocks.
const ATTENTION_NAMES: &[(&str, &str)] = &[
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    (QUERY_BIAS, "self_attn.q_proj.bias"),
    ("attn_k.bias", "self_attn.k_proj.bias"),
    ("attn_v.bias", "self_attn.v_proj.bias"),
    ("attn_output.bias", "self_attn.o_proj.bias"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
];
/// Tensors of DeltaNet blocks.
const DELTA_NET_NAMES: &[(&str, &str)] = &[
    (QKV, "linear_attn.in_proj_qkv.weight"),
    ("attn_gate.weight", "linear_attn.in_proj_z.weight"),
    ("ssm_alpha.weight", "linear_attn.in_proj_a.weight"),
    ("ssm_beta.weight", "linear_attn.in_proj_b.weight"),
    ("ssm_conv1d.weight", CONV),
    ("ssm_a", "linear_attn.A_log"),
    ("ssm_dt.bias", "linear_attn.dt_bias"),
    ("ssm_norm.weight", "linear_attn.norm.weight"),
    ("ssm_out.weight", "linear_attn.out_proj.weight"),
];
/// q, k and v in one: always in DeltaNet blocks, in newer files also in full-attention ones.
const QKV: &str = "attn_qkv.weight";
const QUERY_BIAS: &str = "attn_q.bias";
/// Stored without the dimension of 1.
const SHARED_GATE: &str = "mlp.shared_expert_gate.weight";
/// Stored without the dimension of 1.
const CONV: &str = "linear_attn.conv1d.weight";

/// Gives a GGUF checkpoint the configuration and the names that the rest of the program knows. Any other checkpoint is
/// handed back as it is.
///
/// # Errors
/// Another architecture; metadata that is missing or out of range, naming the key.
pub fn adopt(checkpoint: Checkpoint) -> Result<Checkpoint, ModelError> {
    let Some(gguf) = checkpoint.gguf() else { return Ok(checkpoint) };
    let keys = Keys { checkpoint: &checkpoint, metadata: gguf.metadata() };
    let json = keys.config_json()?;
    let config =
        qwen35moe::config(checkpoint.root(), &json).map_err(|error| keys.in_terms_of_metadata(error))?;
    let mut tensors = Vec::new();
    for info in checkpoint.tensors() {
        rename(info, &config, &mut tensors);
    }
    Ok(checkpoint.adopt(json, tensors)?)
}

/// What a tensor is called where the checkpoint's user can look for it.
pub(crate) fn shown_name(checkpoint: &Checkpoint, name: &str) -> String {
    let source = (checkpoint.kind() == Kind::Gguf).then(|| source_name(name)).flatten();
    source.unwrap_or_else(|| name.to_string())
}

/// The name in a GGUF file of what is called `name` here.
fn source_name(name: &str) -> Option<String> {
    let find = |names: &[(&'static str, &str)], wanted: &str| {
        names.iter().find(|(_, ours)| *ours == wanted).map(|(theirs, _)| *theirs)
    };
    if let Some(source) = find(GLOBAL_NAMES, name) {
        return Some(source.to_string());
    }
    let (block, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let tables = [BLOCK_NAMES, ATTENTION_NAMES, DELTA_NET_NAMES];
    let source = tables.iter().find_map(|names| find(names, rest))?;
    Some(format!("blk.{block}.{source}"))
}

/// Adds `info` to `tensors` under the name or names that it has here; an unknown one keeps its own.
fn rename(info: &TensorInfo, config: &Config, tensors: &mut Vec<TensorInfo>) {
    let named = |name: String| TensorInfo { name, ..info.clone() };
    let find = |names: &[(&str, &'static str)], wanted: &str| {
        names.iter().find(|(theirs, _)| *theirs == wanted).map(|(_, ours)| *ours)
    };
    let block = info.name.strip_prefix("blk.").and_then(|name| name.split_once('.'));
    let block = block.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest)));
    let Some((number, rest)) = block else {
        let name = find(GLOBAL_NAMES, &info.name).unwrap_or(&info.name).to_string();
        return tensors.push(named(name));
    };
    let Some(kind) = config.layer_types.get(number) else {
        return tensors.push(named(format!("{MTP_PREFIX}{}", info.name)));
    };
    let base = format!("{PREFIX}layers.{number}.");
    let fused = *kind == LayerType::FullAttention && rest == QKV;
    if let Some(parts) = fused.then(|| split_qkv(info, config, &base)).flatten() {
        return tensors.extend(parts);
    }
    let names = match kind {
        LayerType::FullAttention => ATTENTION_NAMES,
        LayerType::LinearAttention => DELTA_NET_NAMES,
    };
    let Some(name) = find(BLOCK_NAMES, rest).or_else(|| find(names, rest)) else {
        return tensors.push(info.clone());
    };
    let mut found = named(format!("{base}{name}"));
    match (name, found.shape.as_slice()) {
        (CONV, &[channels, taps]) => found.shape = vec![channels, 1, taps],
        (SHARED_GATE, &[hidden]) => found.shape = vec![1, hidden],
        _ => {}
    }
    tensors.push(found);
}

/// The rows of q, k and v in a fused projection; `None` if it has another number of rows.
fn split_qkv(info: &TensorInfo, config: &Config, base: &str) -> Option<[TensorInfo; 3]> {
    let attention = &config.attention;
    let (q, kv) = (attention.heads * 2 * attention.head_dim, attention.kv_heads * attention.head_dim);
    let &[rows, cols] = info.shape.as_slice() else { return None };
    if rows != q + 2 * kv || rows == 0 {
        return None;
    }
    let row_bytes = info.extent.bytes / rows as u64;
    let part = |name: &str, first: usize, rows: usize| TensorInfo {
        name: format!("{base}self_attn.{name}.weight"),
        shape: vec![rows, cols],
        extent: Extent {
            offset: info.extent.offset + first as u64 * row_bytes,
            bytes: rows as u64 * row_bytes,
            ..info.extent
        },
        ..info.clone()
    };
    Some([part("q_proj", 0, q), part("k_proj", q, kv), part("v_proj", q + kv, kv)])
}

/// The metadata of one file, read with errors that name its keys.
struct Keys<'a> {
    checkpoint: &'a Checkpoint,
    metadata: &'a Metadata,
}

impl Keys<'_> {
    fn path(&self) -> &Path {
        self.checkpoint.root()
    }

    /// The config.json that this model would have.
    fn config_json(&self) -> Result<serde_json::Value, ModelError> {
        self.check_architecture()?;
        let blocks = self.count("block_count", None, LAYERS_MAX)?;
        let heads = self.dim("attention.head_count", None)?;
        let hidden = self.dim("embedding_length", None)?;
        let head_dim = self.dim("attention.key_length", Some(hidden / heads))?;
        let value_length = self.dim("attention.value_length", Some(head_dim))?;
        if value_length != head_dim {
            return Err(self.bad("attention.value_length", value_length, format!("{head_dim}, as keys")));
        }
        let layers = self.layers(blocks)?;
        let experts = self.count("expert_count", None, EXPERTS_MAX)?;
        let mut json = json!({
            "model_type": "qwen3_5_moe_text",
            "vocab_size": self.rows_of("token_embd.weight"),
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "layer_types": self.layer_types(layers)?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.dim("attention.head_count_kv", Some(heads))?,
            "head_dim": head_dim,
            "attention_bias": self.checkpoint.tensors().any(|tensor| tensor.name.ends_with(QUERY_BIAS)),
            "rope_parameters": {
                "rope_type": self.rope_type()?,
                "rope_theta": self.number("rope.freq_base", Some(ROPE_FREQ_BASE_DEFAULT))?,
                "partial_rotary_factor": self.rotary_factor(head_dim)?,
            },
            "linear_num_key_heads": self.dim("ssm.group_count", None)?,
            "linear_num_value_heads": self.dim("ssm.time_step_rank", None)?,
            "linear_key_head_dim": self.dim("ssm.state_size", None)?,
            "linear_value_head_dim": self.value_dim()?,
            "linear_conv_kernel_dim": self.dim("ssm.conv_kernel", None)?,
            "num_experts": experts,
            "num_experts_per_tok": self.count("expert_used_count", None, experts)?,
            "moe_intermediate_size": self.dim("expert_feed_forward_length", self.expert_width())?,
            "shared_expert_intermediate_size": self.dim(
                "expert_shared_feed_forward_length",
                self.rows_of("blk.0.ffn_gate_shexp.weight"),
            )?,
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon", None)?,
            "tie_word_embeddings": self.checkpoint.tensor("output.weight").is_none(),
            "max_position_embeddings": self.dim("context_length", Some(CONTEXT_DEFAULT))?,
            "eos_token_id": self.eos_token_ids()?,
        });
        json[WeightForm::KEY] = WeightForm::GGUF.into();
        if json["vocab_size"].is_null() {
            let (path, first) = (self.path().to_path_buf(), "token_embd.weight".to_string());
            return Err(ModelError::MissingTensors { path, count: 1, first });
        }
        Ok(json)
    }

    fn check_architecture(&self) -> Result<(), ModelError> {
        match self.metadata.text("general.architecture") {
            Some(ARCHITECTURE) => Ok(()),
            other => Err(ModelError::UnknownArchitecture {
                path: self.path().to_path_buf(),
                got: other.unwrap_or("(none)").chars().take(80).collect(),
                known: "GGUF files of qwen35moe",
            }),
        }
    }

    fn bad(&self, key: &str, got: impl ToString, expected: impl Into<String>) -> ModelError {
        ModelError::BadMetadata {
            path: self.path().to_path_buf(),
            key: format!("{ARCHITECTURE}.{key}"),
            got: got.to_string().chars().take(80).collect(),
            expected: expected.into(),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(&format!("{ARCHITECTURE}.{key}"))
    }

    fn missing(&self, key: &str) -> ModelError {
        ModelError::MissingMetadata {
            path: self.path().to_path_buf(),
            key: format!("{ARCHITECTURE}.{key}"),
            architecture: qwen35moe::NAME,
        }
    }

    /// A whole number from 1 to `max`, or a list of one number per block that are all the same (or 0, in blocks that
    /// have no such thing).
    fn count(&self, key: &str, default: Option<u64>, max: u64) -> Result<u64, ModelError> {
        let Some(value) = self.get(key) else { return default.ok_or_else(|| self.missing(key)) };
        let expected = || format!("a whole number from 1 to {max}, the same for all blocks");
        let within = |number: &u64| (1..=max).contains(number);
        let Some(list) = value.as_array() else {
            return value.as_u64().filter(within).ok_or_else(|| self.bad(key, value, expected()));
        };
        let mut found = None;
        for value in list.values() {
            match value.as_u64() {
                Some(0) => {}
                Some(number) if found.is_none_or(|found| found == number) => found = Some(number),
                _ => return Err(self.bad(key, value, expected())),
            }
        }
        found.filter(within).ok_or_else(|| self.bad(key, value, expected()))
    }

    fn dim(&self, key: &str, default: Option<u64>) -> Result<u64, ModelError> {
        self.count(key, default, DIM_MAX)
    }

    fn number(&self, key: &str, default: Option<f64>) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return default.ok_or_else(|| self.missing(key)) };
        let number = value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        number.ok_or_else(|| self.bad(key, value, "a number above 0"))
    }

    /// Blocks of the model itself: those of the multi-token prediction head come behind them.
    fn layers(&self, blocks: u64) -> Result<u64, ModelError> {
        let key = "nextn_predict_layers";
        let Some(value) = self.get(key) else { return Ok(blocks) };
        let layers = value.as_u64().and_then(|heads| blocks.checked_sub(heads)).filter(|layers| *layers > 0);
        layers.ok_or_else(|| self.bad(key, value, format!("a whole number below block_count = {blocks}")))
    }

    fn layer_types(&self, layers: u64) -> Result<Vec<&'static str>, ModelError> {
        let name = |recurrent: bool| if recurrent { "linear_attention" } else { "full_attention" };
        let key = "attention.recurrent_layers";
        let Some(value) = self.get(key) else {
            let interval = self.count("full_attention_interval", Some(4), LAYERS_MAX)?;
            return Ok((1..=layers).map(|layer| name(layer % interval != 0)).collect());
        };
        let bad = || self.bad(key, value, format!("true or false for each of {layers} blocks"));
        if let Some(all) = value.as_bool() {
            return Ok((0..layers).map(|_| name(all)).collect());
        }
        let list = value.as_array().ok_or_else(bad)?;
        let types = list.values().take(layers as usize).map(|flag| flag.as_bool().map(name));
        let types = types.collect::<Option<Vec<_>>>().filter(|types| types.len() as u64 == layers);
        types.ok_or_else(bad)
    }

    /// Dimensions of a value head: converters store those of all heads together.
    fn value_dim(&self) -> Result<u64, ModelError> {
        let heads = self.dim("ssm.time_step_rank", None)?;
        let inner = self.dim("ssm.inner_size", None)?;
        match inner % heads {
            0 => Ok(inner / heads),
            _ => {
                Err(self.bad("ssm.inner_size", inner, format!("a multiple of ssm.time_step_rank = {heads}")))
            }
        }
    }

    fn rope_type(&self) -> Result<&'static str, ModelError> {
        match self.get("rope.scaling.type") {
            None => Ok("default"),
            Some(value) if value.as_str() == Some("none") => Ok("default"),
            Some(value) => {
                let expected = "none (scaled rotary embeddings are not supported yet)";
                Err(self.bad("rope.scaling.type", value, expected))
            }
        }
    }

    /// The part of a head that is rotated, such that times `head_dim` it is `rope.dimension_count` and not a bit less.
    fn rotary_factor(&self, head_dim: u64) -> Result<f64, ModelError> {
        let key = "rope.dimension_count";
        let rotated = self.dim(key, Some(head_dim))?;
        if rotated > head_dim || rotated % 2 != 0 {
            let expected = format!("an even number of at most attention.key_length = {head_dim}");
            return Err(self.bad(key, rotated, expected));
        }
        let factor = rotated as f64 / head_dim as f64;
        let exact = (head_dim as f64 * factor) as u64 == rotated;
        Ok(if exact { factor } else { factor.next_up() })
    }

    fn rows_of(&self, name: &str) -> Option<u64> {
        self.checkpoint.tensor(name).and_then(|tensor| tensor.shape.first()).map(|rows| *rows as u64)
    }

    /// Inner width of an expert, where the metadata has none.
    fn expert_width(&self) -> Option<u64> {
        let down = self.checkpoint.tensor("blk.0.ffn_down_exps.weight")?;
        down.shape.last().map(|width| *width as u64)
    }

    fn eos_token_ids(&self) -> Result<Vec<u64>, ModelError> {
        let mut ids = Vec::new();
        for key in EOS_KEYS {
            let Some(value) = self.metadata.get(key) else { continue };
            let id = value.as_u64().filter(|id| *id <= u64::from(u32::MAX));
            let id = id.ok_or_else(|| ModelError::BadMetadata {
                path: self.path().to_path_buf(),
                key: key.to_string(),
                got: value.to_string().chars().take(80).collect(),
                expected: "a token id".into(),
            })?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// An error about the configuration that was made of the metadata, as one about the metadata.
    fn in_terms_of_metadata(&self, error: ModelError) -> ModelError {
        match error {
            ModelError::BadValue { key, got, expected, .. } => {
                let source = KEYS.iter().find(|(ours, _)| *ours == key);
                match source {
                    Some((_, theirs)) => self.bad(theirs, got, expected),
                    None => self.bad(&key, got, expected),
                }
            }
            other => other,
        }
    }
}

/// Rotary base of files that name none; llama.cpp's default.
const ROPE_FREQ_BASE_DEFAULT: f64 = 10_000.0;
/// Longest context of files that name none; Hugging Face's default for the family.
const CONTEXT_DEFAULT: u64 = 32_768;
/// Tokens that end a text or a turn.
const EOS_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        assert_eq!(source_name("model.layers.7.linear_attn.A_log").unwrap(), "blk.7.ssm_a");
        assert_eq!(source_name("model.norm.weight").unwrap(), "output_norm.weight");
        assert_eq!(source_name("model.layers.x"), None);
    }
}
