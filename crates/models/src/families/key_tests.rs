//! Keys of config.json by family: those that a value is honoured of, those that are refused, those that
//! are listed.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{read_config, read_with_unread};
use crate::ModelSpec;
use crate::config_keys::Unread;
use std::path::Path;

const ALL: [&str; 8] =
    ["llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "mixtral", "qwen3_5_moe_text", "qwen3_5_moe"];

/// A configuration that names everything, nested as published ones where `model_type` has it so.
fn config(model_type: &str, key: &str, value: Value) -> Value {
    let mut json = json!({
        "model_type": model_type, "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 4, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": false, "max_position_embeddings": 512,
        "rope_parameters": { "rope_type": "default", "rope_theta": 1e4 },
    });
    if model_type == "mixtral" || model_type.starts_with("qwen3_") {
        let key = if model_type == "mixtral" { "num_local_experts" } else { "num_experts" };
        json[key] = 8.into();
        json["num_experts_per_tok"] = 2.into();
        json["moe_intermediate_size"] = 20.into();
    }
    if model_type == "mixtral" {
        json.as_object_mut().unwrap().remove("moe_intermediate_size");
    }
    match key.split_once('.') {
        Some((section, key)) => json[section][key] = value,
        None if key.is_empty() => {}
        None => json[key] = value,
    }
    match model_type {
        "qwen3_5_moe" => json!({ "model_type": model_type, "text_config": json }),
        _ => json,
    }
}

fn read(model_type: &str, key: &str, value: Value) -> Result<ModelSpec, String> {
    let json = config(model_type, key, value);
    read_config(Path::new("model"), &json).map_err(|error| error.to_string())
}

#[test]
fn values_of_other_computations_are_refused_by_every_family() {
    for (key, value) in [
        ("attention_multiplier", json!(0.5)),
        ("embedding_multiplier", json!(12)),
        ("residual_multiplier", json!(0.22)),
        ("logits_scaling", json!(8.0)),
        ("logit_scale", json!(0.0625)),
        ("final_logit_softcapping", json!(30.0)),
        ("attn_logit_softcapping", json!(50.0)),
        ("query_pre_attn_scalar", json!(256)),
        ("hidden_act", json!("gelu")),
        ("hidden_act", json!(["gelu"])),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
        ("use_qk_norm", json!("yes")),
        ("attn_temperature_tuning", json!(true)),
        ("no_rope_layers", json!([1, 0, 1, 1])),
        ("attention_chunk_size", json!(8192)),
        ("kv_lora_rank", json!(512)),
        ("routed_scaling_factor", json!(2.5)),
        ("scoring_func", json!("sigmoid")),
        ("n_group", json!(8)),
        ("first_k_dense_replace", json!(1)),
        ("n_routed_experts", json!(64)),
        ("n_shared_experts", json!(1)),
        ("is_encoder_decoder", json!(true)),
        ("use_bidirectional_attention", json!(true)),
        ("is_causal", json!(false)),
        ("clip_qkv", json!(8.0)),
        ("mlp_bias", json!(true)),
        ("quantization_config", json!({ "quant_method": "fp8" })),
        ("rope_scaling", json!({ "rope_type": "yarn", "factor": 4.0 })),
        ("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 })),
        ("rope_scaling", json!("linear")),
        ("rope_parameters.attention_factor", json!(1.2)),
        ("rope_parameters.factor", json!(8.0)),
        ("rope_parameters.rope_type", json!(7)),
        ("rope_parameters.full_attention", json!({ "rope_theta": 1e6 })),
        ("layer_types", json!(vec!["sliding_attention"; 4])),
    ] {
        for model_type in ALL {
            let error =
                read(model_type, key, value.clone()).expect_err(&format!("{model_type}: {key} {value}"));
            let named = key.rsplit('.').next().unwrap();
            let named = if named == "rope_scaling" && value.is_object() { "rope_type" } else { named };
            assert!(error.contains(named) && error.contains("expected"), "{model_type}: {error}");
        }
    }
}

#[test]
fn flags_that_a_family_always_has_are_refused_when_they_are_off() {
    for (model_type, key) in [
        ("mixtral", "norm_topk_prob"),
        ("qwen3_5_moe", "norm_topk_prob"),
        ("qwen3_5_moe_text", "attn_output_gate"),
        ("qwen3", "use_qk_norm"),
        ("qwen3_moe", "use_qk_norm"),
    ] {
        read(model_type, key, true.into()).unwrap();
        let error = read(model_type, key, false.into()).unwrap_err();
        assert!(error.contains(&format!("`{key}` is false, expected true")), "{error}");
    }
    for model_type in ["llama", "mistral", "qwen2", "mixtral"] {
        read(model_type, "use_qk_norm", true.into()).unwrap_err();
        read(model_type, "use_qk_norm", false.into()).unwrap();
    }
}

/// What is honoured makes another specification.
#[test]
fn honoured_keys_change_the_specification() {
    for (key, value, families) in [
        ("rms_norm_eps", json!(1e-3), &ALL[..]),
        ("num_key_value_heads", json!(1), &ALL),
        ("head_dim", json!(16), &ALL),
        ("rope_parameters.rope_theta", json!(5e5), &ALL),
        ("rope_scaling", json!({ "rope_type": "linear", "factor": 2.0 }), &ALL),
        ("rope_scaling", json!({ "rope_theta": 7e5 }), &ALL),
        ("tie_word_embeddings", json!(true), &ALL),
        ("attention_bias", json!(true), &["llama", "qwen3", "qwen3_moe", "qwen3_5_moe"]),
        ("intermediate_size", json!(50), &["llama", "mistral", "qwen2", "qwen3", "mixtral"]),
        ("norm_topk_prob", json!(true), &["qwen3_moe"]),
        ("decoder_sparse_step", json!(2), &["qwen3_moe"]),
        ("mlp_only_layers", json!([1]), &["qwen3_moe"]),
        ("num_experts_per_tok", json!(3), &["qwen3_moe", "mixtral", "qwen3_5_moe"]),
        ("shared_expert_intermediate_size", json!(24), &["qwen3_5_moe"]),
        ("full_attention_interval", json!(2), &["qwen3_5_moe", "qwen3_5_moe_text"]),
        ("rope_parameters.partial_rotary_factor", json!(0.5), &["qwen3_5_moe", "qwen3_5_moe_text"]),
    ] {
        for model_type in families {
            let plain = read(model_type, "", Value::Null).unwrap();
            let found = read(model_type, key, value.clone()).unwrap();
            assert_ne!(format!("{plain:?}"), format!("{found:?}"), "{model_type}: {key}");
        }
    }
}

#[test]
fn other_keys_change_nothing_and_are_listed() {
    use Unread::{NoEffect, Off, Unknown};
    for (key, value, why) in [
        ("initializer_range", json!(0.02), NoEffect),
        ("use_cache", json!(true), NoEffect),
        ("num_nextn_predict_layers", json!(1), NoEffect),
        ("transformers_version", json!("5.24.0"), NoEffect),
        ("logit_scale", json!(1.0), Off),
        ("final_logit_softcapping", Value::Null, Off),
        ("clip_qkv", json!(null), Off),
        ("quantization_config", json!({}), Off),
        ("rope_parameters.attention_factor", json!(1.0), Off),
        ("rope_parameters.mrope_section", json!([11, 11, 10]), NoEffect),
        ("my_own_note", json!({ "a": 3 }), Unknown),
    ] {
        for model_type in ALL {
            let plain = read(model_type, "", Value::Null).unwrap();
            let json = config(model_type, key, value.clone());
            let (found, unread) = read_with_unread(Path::new("model"), &json).unwrap();
            assert_eq!(format!("{plain:?}"), format!("{found:?}"), "{model_type}: {key}");
            let prefix = if model_type == "qwen3_5_moe" { "text_config." } else { "" };
            let listed = unread.iter().find(|unread| unread.key == format!("{prefix}{key}"));
            assert_eq!(listed.map(|unread| unread.why), Some(why), "{model_type}: {key}");
        }
    }
}

#[test]
fn absent_keys_mean_what_they_mean_to_transformers() {
    let without = |model_type: &str, key: &str| {
        let mut json = config(model_type, "", Value::Null);
        json.as_object_mut().unwrap().remove(key);
        read_config(Path::new("model"), &json).unwrap()
    };
    for (model_type, eps, kv_heads, head_dim) in [
        ("llama", 1e-6, 4, 8),
        ("qwen2", 1e-6, 4, 8),
        ("qwen3", 1e-6, 4, 128),
        ("qwen3_moe", 1e-6, 4, 8),
        ("qwen3_5_moe_text", 1e-6, 2, 256),
        ("mixtral", 1e-5, 4, 8),
    ] {
        assert_eq!(without(model_type, "rms_norm_eps").norm.eps, eps, "{model_type}");
        let shape = |spec: &ModelSpec| spec.attention().next().unwrap().shape;
        assert_eq!(shape(&without(model_type, "head_dim")).head_dim, head_dim, "{model_type}");
        if model_type != "mixtral" {
            assert_eq!(shape(&without(model_type, "num_key_value_heads")).kv_heads, kv_heads, "{model_type}");
        }
    }
    // Eight, which four heads are no multiple of.
    for model_type in ["mistral", "mixtral"] {
        let mut json = config(model_type, "", Value::Null);
        json.as_object_mut().unwrap().remove("num_key_value_heads");
        let error = read_config(Path::new("model"), &json).unwrap_err().to_string();
        assert!(error.contains("`num_key_value_heads` is 8"), "{error}");
    }
    for key in ["factor", "low_freq_factor", "high_freq_factor"] {
        let mut rope =
            json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0 });
        rope.as_object_mut().unwrap().remove(key);
        let error = read("llama", "rope_scaling", rope).unwrap_err();
        assert!(error.contains(&format!("no `rope_scaling.{key}`")), "{error}");
    }
    // Biases of Qwen2 are there whatever the flag says.
    let biased = read("qwen2", "attention_bias", false.into()).unwrap();
    assert!(biased.attention().all(|attention| attention.bias.qkv && !attention.bias.output));
}
