//! What tensors are called in GGUF files, and what they are called here.
//!
//! Source: llama.cpp's `gguf-py/gguf/constants.py` and its converters. Bytes stay where they are; a fused tensor becomes
//! several names for parts of it.

use checkpoint::{Checkpoint, Extent, Kind, TensorInfo};

use crate::Config;
use crate::config::LayerType;
use crate::layout::{ROPE_FACTORS, TEXT_PREFIX};

/// What tensors of blocks behind the model's own are called: they are the multi-token prediction head's.
const MTP_PREFIX: &str = "mtp.";

/// Tensors outside the blocks.
const GLOBAL_NAMES: &[(&str, &str)] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
    (ROPE_FACTORS, ROPE_FACTORS),
];
/// Tensors of every block.
const BLOCK_NAMES: &[(&str, &str)] = &[
    ("attn_norm.weight", "input_layernorm.weight"),
    ("post_attention_norm.weight", POST_NORM),
    ("ffn_norm.weight", POST_NORM),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
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
    (OUTPUT_BIAS, "self_attn.o_proj.bias"),
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
/// Biases of queries, of which keys and values then have some too.
pub(crate) const QUERY_BIAS: &str = "attn_q.bias";
/// Biases of the output projection.
pub(crate) const OUTPUT_BIAS: &str = "attn_output.bias";
/// The norm before the MLP, which files call by what it comes behind or by what it comes before.
const POST_NORM: &str = "post_attention_layernorm.weight";
/// Stored without the dimension of 1.
const SHARED_GATE: &str = "mlp.shared_expert_gate.weight";
/// Stored without the dimension of 1.
const CONV: &str = "linear_attn.conv1d.weight";

/// The tensors of a file under the names that they have here.
pub(crate) fn renamed(checkpoint: &Checkpoint, config: &Config) -> Vec<TensorInfo> {
    let mut tensors = Vec::new();
    for info in checkpoint.tensors() {
        rename(info, config, &mut tensors);
    }
    tensors
}

/// What a tensor is called where the checkpoint's user can look for it.
pub(crate) fn shown_name(checkpoint: &Checkpoint, name: &str) -> String {
    let source = (checkpoint.kind() == Kind::Gguf).then(|| source_name(name)).flatten();
    let Some(source) = source else { return name.to_string() };
    // Two names are for one norm; which, the family decides.
    let dense =
        name.ends_with(POST_NORM) && checkpoint.tensor(&name.replace(POST_NORM, "mlp.gate.weight")).is_none();
    if dense { source.replace("post_attention_norm", "ffn_norm") } else { source }
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
    let base = format!("{TEXT_PREFIX}layers.{number}.");
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
    let (q, kv) = (attention.heads * attention.query_len(), attention.kv_heads * attention.head_dim);
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
