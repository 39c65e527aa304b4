//! Names of tensors in GGUF files, and ours for them.
//!
//! Source: llama.cpp's `gguf-py/gguf/constants.py` and its converters. Bytes stay where they are; a
//! fused tensor becomes several names for parts of it.

use checkpoint::{Checkpoint, Extent, TensorInfo};

use crate::names::{
    self, Names, POST_NORM, ROPE_FACTORS, ROUTER, ROUTER_BIAS, ROUTER_CORRECTION, TEXT_PREFIX,
};
use crate::spec::{AttentionSpec, MixerSpec, ModelSpec};

/// Prefix of tensors in blocks behind the model's own: they are the multi-token prediction head's.
const MTP_PREFIX: &str = "mtp.";

/// Tensors outside the blocks.
const GLOBAL_NAMES: &Names = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
    (ROPE_FACTORS, ROPE_FACTORS),
];
/// Tensors of every block.
const BLOCK_NAMES: &Names = &[
    ("attn_norm.weight", "input_layernorm.weight"),
    ("post_attention_norm.weight", POST_NORM),
    (FFN_NORM, POST_NORM),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
    ("ffn_gate_inp.weight", ROUTER),
    ("ffn_gate_inp.bias", ROUTER_BIAS),
    ("exp_probs_b.bias", ROUTER_CORRECTION),
    ("ffn_gate_inp_shexp.weight", SHARED_GATE),
    ("ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight"),
    ("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight"),
    ("ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight"),
    ("ffn_gate_exps.weight", "mlp.experts.gate_proj"),
    ("ffn_up_exps.weight", "mlp.experts.up_proj"),
    ("ffn_down_exps.weight", "mlp.experts.down_proj"),
    ("ffn_gate_up_exps.weight", "mlp.experts.gate_up_proj"),
    // Files made before experts were stacked.
    ("ffn_gate.*.weight", "mlp.experts.*.gate_proj.weight"),
    ("ffn_up.*.weight", "mlp.experts.*.up_proj.weight"),
    ("ffn_down.*.weight", "mlp.experts.*.down_proj.weight"),
];
/// Tensors of full-attention blocks.
const ATTENTION_NAMES: &Names = &[
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
const DELTA_NET_NAMES: &Names = &[
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
/// The norm before the MLP in files of families that name it by what follows; others name it by
/// what it follows.
const FFN_NORM: &str = "ffn_norm.weight";
/// Stored without the dimension of 1.
const SHARED_GATE: &str = "mlp.shared_expert_gate.weight";
/// Stored without the dimension of 1.
const CONV: &str = "linear_attn.conv1d.weight";

/// The tensors of a file under our names.
pub(crate) fn renamed(checkpoint: &Checkpoint, spec: &ModelSpec) -> Vec<TensorInfo> {
    let mut tensors = Vec::new();
    for info in checkpoint.tensors() {
        rename(info, spec, &mut tensors);
    }
    tensors
}

/// The name in a GGUF file of our `name`.
pub(crate) fn source_name(checkpoint: &Checkpoint, name: &str) -> Option<String> {
    if let Some(source) = names::theirs(GLOBAL_NAMES, name) {
        return Some(source);
    }
    let (block, rest) = name.strip_prefix(TEXT_PREFIX)?.strip_prefix("layers.")?.split_once('.')?;
    let tables = [BLOCK_NAMES, ATTENTION_NAMES, DELTA_NET_NAMES];
    let source = tables.iter().find_map(|table| names::theirs(table, rest))?;
    // Files have one of two names for the norm before the MLP: the first where there is a shared
    // expert.
    let shared = checkpoint.tensor(&name.replace(POST_NORM, SHARED_GATE)).is_some();
    let source = if rest == POST_NORM && !shared { FFN_NORM.to_string() } else { source };
    Some(format!("blk.{block}.{source}"))
}

/// Adds `info` to `tensors` under our name or names; an unknown one keeps its own.
fn rename(info: &TensorInfo, spec: &ModelSpec, tensors: &mut Vec<TensorInfo>) {
    let named = |name: String| TensorInfo { name, ..info.clone() };
    let block = info.name.strip_prefix("blk.").and_then(|name| name.split_once('.'));
    let block = block.and_then(|(number, rest)| Some((number.parse::<usize>().ok()?, rest)));
    let Some((number, rest)) = block else {
        let name = names::ours(GLOBAL_NAMES, &info.name).unwrap_or_else(|| info.name.clone());
        return tensors.push(named(name));
    };
    let Some(layer) = spec.layers.get(number) else {
        return tensors.push(named(format!("{MTP_PREFIX}{}", info.name)));
    };
    let base = format!("{TEXT_PREFIX}layers.{number}.");
    let fused = layer.attention().filter(|_| rest == QKV);
    if let Some(parts) = fused.and_then(|attention| split_qkv(info, attention, &base)) {
        return tensors.extend(parts);
    }
    let table = match layer.mixer {
        MixerSpec::Attention(_) => ATTENTION_NAMES,
        MixerSpec::DeltaNet(_) => DELTA_NET_NAMES,
    };
    let Some(name) = names::ours(BLOCK_NAMES, rest).or_else(|| names::ours(table, rest)) else {
        return tensors.push(info.clone());
    };
    let mut found = named(format!("{base}{name}"));
    match (name.as_str(), found.shape.as_slice()) {
        (CONV, &[channels, taps]) => found.shape = vec![channels, 1, taps],
        (SHARED_GATE, &[hidden]) => found.shape = vec![1, hidden],
        _ => {}
    }
    tensors.push(found);
}

/// The rows of q, k and v in a fused projection; `None` if it has another number of rows.
fn split_qkv(info: &TensorInfo, attention: &AttentionSpec, base: &str) -> Option<[TensorInfo; 3]> {
    let shape = &attention.shape;
    let (q, kv) = (shape.heads * shape.query_len(), shape.kv_heads * shape.head_dim);
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
