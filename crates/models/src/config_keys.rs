//! Keys of configurations that no reader of a family asked for. A value that changes what a model
//! computes is refused, never left out in silence; the others are listed.
//!
//! Sources: the configurations of all decoders in transformers 5.24; llama.cpp's
//! `gguf-py/gguf/constants.py`.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

/// A key of a file's configuration that no reader asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadKey {
    /// The key, with the sections that it is in.
    pub key: String,
    /// Why it could be left unread.
    pub why: Unread,
}

/// Why a key could be left unread.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unread {
    /// No value of it changes logits.
    NoEffect,
    /// It switches something off that the family does not have anyway.
    Off,
    /// No family is known to have it; transformers leaves such keys unread, too.
    Unknown,
}

/// Values of a key that change nothing for a family that does not read it.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Neutral {
    /// Nothing, false, zero.
    Off,
    /// A factor or a count: 1, or as [`Neutral::Off`].
    One,
    /// True or nothing.
    True,
    /// Below zero is how the file says that there is none.
    Negative,
    /// One of these names, or nothing.
    Names(&'static [&'static str]),
}

impl Neutral {
    pub(crate) fn allows(self, value: &Value) -> bool {
        match self {
            Neutral::Off => is_off(value),
            Neutral::One => is_off(value) || value.as_f64() == Some(1.0),
            Neutral::True => value.is_null() || value.as_bool() == Some(true),
            Neutral::Negative => is_off(value) || value.as_f64().is_some_and(|number| number < 0.0),
            Neutral::Names(names) => match value {
                Value::String(name) => name.is_empty() || names.contains(&name.as_str()),
                other => other.is_null(),
            },
        }
    }
}

impl fmt::Display for Neutral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Neutral::Off => f.write_str("0, false or nothing"),
            Neutral::One => f.write_str("1, 0 or nothing"),
            Neutral::True => f.write_str("true or nothing"),
            Neutral::Negative => f.write_str("0, a number below it or nothing"),
            Neutral::Names(names) => write!(f, "{} or nothing", names.join(", ")),
        }
    }
}

/// Nothing, false, zero, an empty text or list, or a list of such.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.iter().all(is_off),
        Value::Object(values) => values.is_empty(),
    }
}

/// How an unread key of a config.json is to be taken; the values that it may have if this one changes
/// the computation.
pub(crate) fn judge(key: &str, value: &Value) -> Result<Unread, Neutral> {
    if NO_EFFECT.contains(&key) {
        return Ok(Unread::NoEffect);
    }
    let listed = |keys: &[&str]| keys.contains(&key);
    let neutral = match key {
        _ if listed(OFF) => Neutral::Off,
        _ if listed(ONE) => Neutral::One,
        _ if listed(TRUE) => Neutral::True,
        _ => match NAMES.iter().find(|(name, _)| *name == key) {
            Some((_, names)) => Neutral::Names(names),
            None => return Ok(Unread::Unknown),
        },
    };
    if neutral.allows(value) { Ok(Unread::Off) } else { Err(neutral) }
}

/// The same for the object of rotary keys, where every key is known or refused.
pub(crate) fn judge_rope(key: &str, value: &Value) -> Result<Unread, Neutral> {
    match key {
        // Text has one position in all three dimensions; the length of the training says nothing alone.
        "mrope_section"
        | "mrope_interleaved"
        | "original_max_position_embeddings"
        | "finetuned"
        | "rope_theta"
        | "type" => Ok(Unread::NoEffect),
        _ if Neutral::One.allows(value) => Ok(Unread::Off),
        _ => Err(Neutral::One),
    }
}

/// Keys that change no logits of any family: training, generation, bookkeeping, other modalities.
const NO_EFFECT: &[&str] = &[
    // Bookkeeping.
    "model_type",
    "architectures",
    "auto_map",
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "transformers_version",
    "unsloth_version",
    "unsloth_fixed",
    "torch_dtype",
    "dtype",
    "mamba_ssm_dtype",
    "tokenizer_class",
    "flash_moe_synthetic",
    // Sizes that the tensors tell, and blocks that are left alone.
    "num_nextn_predict_layers",
    "num_mtp_layers",
    "mtp_num_hidden_layers",
    "mtp_num_layers",
    "mtp_use_dedicated_embeddings",
    "mtp_layer_types",
    "mtp_mlp_layer_types",
    "mtp_loss_scaling_factor",
    // How it is computed, not which result.
    "use_cache",
    "return_dict",
    "use_return_dict",
    "output_hidden_states",
    "output_attentions",
    "output_router_logits",
    "is_decoder",
    "num_logits_to_keep",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_attn_implementation_autoset",
    "_flash_attn_2_enabled",
    "use_flash_attn",
    "deterministic_flash_attn",
    "use_mem_eff_path",
    "chunk_size_feed_forward",
    "torchscript",
    "use_bfloat16",
    "pretraining_tp",
    "model_parallel_size",
    "tf_legacy_loss",
    "fp16",
    "bf16",
    "fp32",
    "cache_implementation",
    // Training.
    "initializer_range",
    "embedding_initializer_range",
    "initializer_cutoff_factor",
    "attention_dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "embedding_dropout",
    "embd_pdrop",
    "resid_pdrop",
    "attn_pdrop",
    "residual_dropout",
    "mlp_dropout",
    "dropout",
    "classifier_dropout",
    "router_aux_loss_coef",
    "aux_loss_coef",
    "aux_loss_alpha",
    "seq_aux",
    "ep_size",
    "z_loss_coefficient",
    "router_z_loss_coef",
    "router_jitter_noise",
    "input_jitter_noise",
    "gradient_checkpointing",
    "no_bias",
    // The norm's epsilon is rms_norm_eps in every family that is run; this one is of LayerNorms.
    "layer_norm_eps",
    "layer_norm_epsilon",
    // The length is known otherwise, or says nothing alone.
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "original_max_position_embeddings",
    // Windows are refused where they are used.
    "sliding_window",
    "max_window_layers",
    // Classes and tasks.
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "finetuning_task",
    "task_specific_params",
    "prefix",
    // Tokens.
    "bos_token_id",
    "pad_token_id",
    "eos_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
    "unk_token_id",
    "eod_token_id",
    "im_start_id",
    "im_end_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    // Pictures and sound, which are left alone.
    "vision_config",
    "audio_config",
    "image_token_id",
    "video_token_id",
    "audio_token_id",
    "image_token_index",
    "video_token_index",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
    "audio_start_token_id",
    "audio_end_token_id",
    "language_model_only",
    // Defaults of sampling, which generation_config.json has.
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "diversity_penalty",
    "num_beams",
    "num_beam_groups",
    "num_return_sequences",
    "early_stopping",
    "max_length",
    "min_length",
    "max_new_tokens",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "output_scores",
    "return_dict_in_generate",
    "remove_invalid_values",
    // Whether the routers renormalise says each family with experts.
    "norm_topk_prob",
];

/// Keys of computations that only other families have, and which are off where they say nothing.
const OFF: &[&str] = &[
    // Weights in formats that are not read.
    "quantization",
    "quantization_config",
    "compression_config",
    "pruned_heads",
    // Other kinds of models.
    "is_encoder_decoder",
    "add_cross_attention",
    "cross_attention_hidden_size",
    "cross_attention_layers",
    "cross_layer_interval",
    "tie_encoder_decoder",
    "prefix_lm",
    "use_bidirectional_attention",
    "type_vocab_size",
    "num_codebooks",
    "alibi",
    "parallel_attn",
    "use_parallel_residual",
    "new_decoder_architecture",
    "multi_query",
    // Logits and scores.
    "final_logit_softcapping",
    "logits_soft_cap",
    "attn_logit_softcapping",
    "router_logit_softcapping",
    "moe_router_logit_softcapping",
    "query_pre_attn_scalar",
    "mup_enabled",
    "scale_depth",
    "dim_model_base",
    "lm_head_bias",
    "mlp_multipliers",
    "ssm_multipliers",
    // Biases and norms.
    "mlp_bias",
    "use_bias",
    "bias",
    "qkv_bias",
    "use_qkv_bias",
    "add_bias_linear",
    "add_qkv_bias",
    "attention_out_bias",
    "norm_bias",
    "use_qk_norm",
    "qk_norm",
    "qk_layernorm",
    "qk_layer_norms",
    "qk_norm_type",
    "use_post_norm",
    "use_sandwich_norm",
    "norm_after",
    "apply_residual_connection_post_layernorm",
    // Attention.
    "clip_qkv",
    "use_sliding_window",
    "rotary_dim",
    "rope_interleave",
    "rope_interleaved",
    "use_mrope",
    "mrope_section",
    "no_rope_layers",
    "no_rope_layer_interval",
    "nope_layer_interval",
    "layer_rope_theta",
    "rope_local_base_freq",
    "swa_rope_theta",
    "use_dynamic_ntk",
    "use_logn_attn",
    "attention_chunk_size",
    "attention_window_size",
    "local_attention",
    "sliding_window_size",
    "sliding_window_pattern",
    "attn_temperature_tuning",
    "floor_scale",
    "attn_output_gate",
    "use_attention_gate",
    "gated_attention",
    "attention_sinks",
    "learnable_sink_init",
    "num_kv_shared_layers",
    "attention_k_eq_v",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "v_head_dim",
    "index_topk",
    "index_n_heads",
    "index_head_dim",
    "indexer_types",
    "num_attention_heads_per_layer",
    "global_attn_every_n_layers",
    "layers_block_type",
    "block_types",
    "attn_layer_indices",
    "full_attn_idxs",
    "full_attention_interval",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
    "linear_allow_neg_eigval",
    "mamba_d_state",
    "mamba_d_conv",
    "mamba_expand",
    "mamba_n_heads",
    "mamba_d_head",
    "conv_L_cache",
    // Feeds.
    "use_double_wide_mlp",
    "swiglu_alpha",
    "swiglu_limit",
    "swiglu_limits",
    "activation_sparsity_pattern",
    "hidden_size_per_layer_input",
    "vocab_size_per_layer_input",
    "altup_num_inputs",
    "laurel_rank",
    "hc_mult",
    "loop_num_passes",
    "n_recurrent_loops",
    // Experts.
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_experts_per_tok",
    "moe_topk",
    "moe_k",
    "top_k_experts",
    "moe_intermediate_size",
    "n_shared_experts",
    "num_shared_experts",
    "moe_num_shared_experts",
    "shared_expert_intermediate_size",
    "shared_intermediate_size",
    "first_k_dense_replace",
    "num_dense_layers",
    "moe_layer_start_index",
    "moe_layers",
    "mlp_only_layers",
    "mlp_layer_types",
    "enable_moe_block",
    "is_moe",
    "use_expert_bias",
    "moe_apply_router_weight_on_input",
    "expert_layer_offset",
    "layer_types",
];

/// Factors and counts of computations that only other families have.
const ONE: &[&str] = &[
    "logit_scale",
    "logits_scaling",
    "logits_mup_width_multiplier",
    "lm_head_multiplier",
    "output_multiplier",
    "embedding_multiplier",
    "embedding_scale",
    "scale_emb",
    "residual_multiplier",
    "residual_scale",
    "attention_multiplier",
    "attention_in_multiplier",
    "attention_out_multiplier",
    "attention_value_scale",
    "attn_scale",
    "key_multiplier",
    "qk_scale_factor",
    "rotary_pct",
    "rope_ratio",
    "routed_scaling_factor",
    "moe_routed_scaling_factor",
    "router_scaling_factor",
    "moe_router_scaling_factor",
    "route_scale",
    "n_group",
    "topk_group",
    "decoder_sparse_step",
    "moe_layer_freq",
    "moe_layer_interval",
    "interleave_moe_layer_step",
    "expert_layer_period",
];

/// What every family that is run does.
const TRUE: &[&str] = &["is_causal", "is_decoder_only", "use_rope"];

/// Choices by name, with those that every family that is run makes.
const NAMES: &[(&str, &[&str])] = &[
    ("hidden_act", &["silu", "swish"]),
    ("hidden_activation", &["silu", "swish"]),
    ("activation_function", &["silu", "swish"]),
    ("activation", &["silu", "swish"]),
    ("scoring_func", &["softmax"]),
    ("expert_selection_fn", &["softmax"]),
    ("topk_method", &["greedy"]),
    ("position_embedding_type", &["rope", "rotary"]),
];
