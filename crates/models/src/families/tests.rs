//! Each family's specification, by its configuration; the registry.
#![allow(clippy::unwrap_used)]

use ops::{RopePairing, ValueHeadOrder};
use serde_json::json;

use super::*;
use crate::spec::{FeedSpec, MixerSpec, RouterSpec, Score, SharedSpec, WeightForm};

/// What every family needs, and `more`.
fn config(model_type: &str, more: Value) -> Value {
    let mut json = json!({
        "model_type": model_type, "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "rms_norm_eps": 1e-5,
    });
    for (key, value) in more.as_object().unwrap() {
        json[key] = value.clone();
    }
    json
}

fn experts(more: Value) -> Value {
    let mut json = json!({ "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 20 });
    for (key, value) in more.as_object().unwrap() {
        json[key] = value.clone();
    }
    json
}

fn spec(model_type: &str, more: Value) -> ModelSpec {
    read_config(Path::new("model"), &config(model_type, more)).unwrap()
}

/// The error of a configuration; it must name the key and what would do.
fn refused(model_type: &str, more: Value, key: &str, expected: &str) {
    let error = read_config(Path::new("model"), &config(model_type, more)).unwrap_err().to_string();
    assert!(error.contains(&format!("`{key}` is ")) && error.contains(expected), "{error}");
}

#[test]
fn names_in_files_are_of_one_family_each() {
    let mut seen = Vec::new();
    for family in FAMILIES {
        let ids = family.ids();
        assert!(!family.name().is_empty() && !ids.model_types.is_empty());
        for model_type in ids.model_types {
            assert_eq!(of_model_type(Some(model_type)).unwrap().name(), family.name());
        }
        assert!(!seen.contains(&(ids.gguf, ids.moe)), "{} twice", ids.gguf);
        seen.push((ids.gguf, ids.moe));
    }
}

#[test]
fn an_unknown_family_lists_the_known_ones() {
    let error = read_config(Path::new("model"), &json!({ "model_type": "gpt2" })).unwrap_err().to_string();
    for known in ["\"gpt2\"", "qwen3_5_moe", "qwen3_moe", "mixtral", "llama", "mistral", "qwen2", "qwen3"] {
        assert!(error.contains(known), "{error}");
    }
    let error = read_config(Path::new("model"), &json!({})).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    assert_eq!(known_gguf(), "GGUF files of qwen35moe, qwen3moe, llama, qwen2, qwen3");
}

#[test]
fn qwen35moe_mixes_recurrent_and_attending_layers() {
    let (linear, full) = ("linear_attention", "full_attention");
    let keys = json!({ "layer_types": [linear, linear, full, linear], "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 12, "head_dim": 16 });
    let found = spec("qwen3_5_moe_text", experts(keys.clone()));
    assert_eq!((found.num_layers(), found.attention_layers(), found.moe_layers()), (4, 1, 4));
    let recurrent = |layer: &crate::spec::LayerSpec| matches!(layer.mixer, MixerSpec::DeltaNet(_));
    assert_eq!(found.layers.iter().map(recurrent).collect::<Vec<_>>(), [true, true, false, true]);
    let attention = found.attention().next().unwrap();
    assert!(attention.shape.gated && attention.qk_norm && !attention.bias.qkv);
    assert_eq!((attention.shape.head_dim, attention.shape.rotary_dim), (16, 4));
    let moe = found.moe().next().unwrap();
    assert_eq!((moe.experts, moe.per_token, moe.expert.inner), (8, 2, 20));
    assert_eq!((moe.router, moe.shared), (RouterSpec::SOFTMAX, Some(SharedSpec { inner: 12, gate: true })));
    assert_eq!((found.norm.offset, found.experts_per_token()), (1.0, 8));
    // 4 value heads of 16 x 8, and 3 columns of 2 * 2 * 16 + 4 * 8 channels, in three layers.
    assert_eq!(found.recurrent_state_bytes(), 4 * 3 * (4 * 16 * 8 + 3 * 96));
    assert_eq!(found.kv_bytes_per_token(ops::KvFormat::F16), 2 * 2 * 16 * 2);

    let mut gguf = experts(keys);
    gguf["weight_form"] = "gguf".into();
    let found = spec("qwen3_5_moe_text", gguf);
    assert_eq!((found.norm.offset, found.weight_form), (0.0, WeightForm::Gguf));
    assert_eq!(found.delta_net().next().unwrap().value_head_order, ValueHeadOrder::Tiled);
}

#[test]
fn qwen35moe_derives_layers_from_the_interval_and_reads_the_nested_section() {
    let text = config("qwen3_5_moe_text", experts(json!({ "full_attention_interval": 2 })));
    let json = json!({ "model_type": "qwen3_5_moe", "tie_word_embeddings": true, "text_config": text });
    let found = read_config(Path::new("model"), &json).unwrap();
    assert_eq!((found.attention_layers(), found.tie_word_embeddings), (2, true));
    refused(
        "qwen3_5_moe",
        experts(json!({ "layer_types": ["full_attention"] })),
        "layer_types",
        "a list of 4 names",
    );
    refused("qwen3_5_moe", experts(json!({ "num_experts_per_tok": 9 })), "num_experts_per_tok", "1 to 8");
    refused("qwen3_5_moe", experts(json!({ "hidden_act": "gelu" })), "hidden_act", "silu");
    refused("qwen3_5_moe", experts(json!({ "attn_output_gate": false })), "attn_output_gate", "true");
}

/// For each layer whether it has experts.
fn moe_layers(spec: &ModelSpec) -> Vec<bool> {
    spec.layers.iter().map(|layer| layer.moe().is_some()).collect()
}

#[test]
fn qwen3moe_has_experts_where_step_and_list_say() {
    let found = spec("qwen3_moe", experts(json!({})));
    assert_eq!(moe_layers(&found), [true; 4]);
    let moe = found.moe().next().unwrap();
    assert!(!moe.router.renormalise && moe.shared.is_none() && moe.router.score == Score::Softmax);
    assert!(
        found.attention().all(|attention| attention.qk_norm && !attention.bias.qkv && !attention.bias.output)
    );

    let found = spec("qwen3_moe", experts(json!({ "decoder_sparse_step": 2, "norm_topk_prob": true })));
    assert_eq!(moe_layers(&found), [false, true, false, true]);
    assert!(found.moe().all(|moe| moe.router.renormalise));
    assert_eq!((found.moe_layers(), found.experts_per_token(), found.inner_max()), (2, 4, 48));
    let found = spec("qwen3_moe", experts(json!({ "decoder_sparse_step": 2, "mlp_only_layers": [3] })));
    assert_eq!(moe_layers(&found), [false, true, false, false]);
    let FeedSpec::Dense(mlp) = &found.layers[3].feed else { panic!("layer 3 has experts") };
    assert_eq!(mlp.inner, 48);
    // As transformers 5 saves it.
    let mut saved = experts(json!({ "num_local_experts": 16 }));
    saved.as_object_mut().unwrap().remove("num_experts");
    assert_eq!(spec("qwen3_moe", saved).experts_max(), 16);

    refused("qwen3_moe", experts(json!({ "mlp_only_layers": [4] })), "mlp_only_layers", "numbers below 4");
    refused("qwen3_moe", experts(json!({ "mlp_only_layers": 1 })), "mlp_only_layers", "a list of numbers");
    refused("qwen3_moe", experts(json!({ "decoder_sparse_step": 0 })), "decoder_sparse_step", "from 1");
    refused("qwen3_moe", experts(json!({ "norm_topk_prob": 1 })), "norm_topk_prob", "true or false");
}

#[test]
fn mixtral_is_llama_with_experts() {
    let keys = json!({ "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": null });
    let found = spec("mixtral", keys.clone());
    assert_eq!(moe_layers(&found), [true; 4]);
    let (moe, attention) = (found.moe().next().unwrap(), found.attention().next().unwrap());
    assert_eq!((moe.expert.inner, moe.router, moe.shared), (48, RouterSpec::SOFTMAX, None));
    assert_eq!((attention.shape.head_dim, attention.shape.rope_theta), (8, 1e6));
    assert_eq!((attention.shape.pairing, attention.qk_norm), (RopePairing::Halves, false));
    let mut gguf = keys.clone();
    gguf["weight_form"] = "gguf".into();
    assert_eq!(spec("mixtral", gguf).attention().next().unwrap().shape.pairing, RopePairing::Adjacent);
    let mut window = keys;
    window["sliding_window"] = 2047.into();
    refused("mixtral", window, "sliding_window", "null");
}

#[test]
fn dense_families_differ_by_their_flags() {
    for (model_type, qk_norm, qkv, output, adjacent) in [
        ("llama", false, false, false, true),
        ("mistral", false, false, false, true),
        ("qwen2", false, true, false, false),
        ("qwen3", true, false, false, false),
    ] {
        let found = spec(model_type, json!({}));
        assert_eq!((found.moe_layers(), found.experts_max(), found.per_token_max()), (0, 0, 0));
        assert!(found.can_rewind());
        let attention = found.attention().next().unwrap();
        let flags = (attention.qk_norm, attention.bias.qkv, attention.bias.output);
        assert_eq!(flags, (qk_norm, qkv, output), "{model_type}");
        let gguf = spec(model_type, json!({ "weight_form": "gguf" }));
        let pairing = gguf.attention().next().unwrap().shape.pairing;
        assert_eq!(pairing == RopePairing::Adjacent, adjacent, "{model_type}");
    }
    assert!(spec("llama", json!({ "attention_bias": true })).attention().all(|a| a.bias.output));
    assert!(spec("qwen2", json!({})).attention().all(|a| !a.bias.output));
}

#[test]
fn windows_are_refused_where_they_would_be_used() {
    let window = json!({ "sliding_window": 16 });
    refused("llama", window.clone(), "sliding_window", "null");
    refused("mistral", window.clone(), "sliding_window", "null");
    let used = json!({ "sliding_window": 16, "use_sliding_window": true, "max_window_layers": 3 });
    for model_type in ["qwen2", "qwen3"] {
        spec(model_type, window.clone());
        refused(model_type, used.clone(), "sliding_window", "null");
        let listed = json!({ "sliding_window": 16, "use_sliding_window": true,
            "layer_types": ["full_attention", "full_attention", "full_attention", "full_attention"] });
        spec(model_type, listed);
        // The first layers have none; transformers counts 28 of them where nothing says so.
        spec(model_type, json!({ "sliding_window": 16, "use_sliding_window": true, "max_window_layers": 4 }));
        spec(model_type, json!({ "sliding_window": 16, "use_sliding_window": true }));
        refused(
            model_type,
            json!({ "layer_types": ["full_attention"] }),
            "layer_types",
            "full_attention 4 times",
        );
        let sliding = json!({ "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention"] });
        refused(model_type, sliding, "layer_types", "full_attention only");
    }
    // As long as the longest context, and what Mistral has where nothing is said.
    spec("mistral", json!({ "sliding_window": 2048 }));
    spec("mistral", json!({ "max_position_embeddings": 8192, "sliding_window": null }));
    refused("mistral", json!({ "max_position_embeddings": 8192 }), "sliding_window", "null");
    spec("llama", json!({ "max_position_embeddings": 8192 }));
    spec("qwen3_moe", experts(window));
    refused("qwen3_moe", experts(used), "sliding_window", "null");
}

#[test]
fn keys_of_other_computations_are_refused_by_every_decoder() {
    for model_type in ["llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "mixtral"] {
        let with = |key: &str, value: Value| {
            let mut json = experts(json!({ "num_local_experts": 8 }));
            json[key] = value;
            json
        };
        refused(model_type, with("hidden_act", "gelu".into()), "hidden_act", "silu");
        refused(model_type, with("mlp_bias", true.into()), "mlp_bias", "false");
        let yarn = json!({ "rope_type": "yarn", "factor": 4.0 });
        refused(model_type, with("rope_scaling", yarn), "rope_type", "default, linear or llama3");
        refused(model_type, with("num_key_value_heads", 3.into()), "num_key_value_heads", "a divisor");
    }
}

#[test]
fn mixtral_names_are_translated_and_shown_as_they_are_in_the_files() {
    let family = of_model_type(Some("mixtral")).unwrap();
    for (theirs, ours) in [
        ("model.layers.7.block_sparse_moe.gate.weight", "model.layers.7.mlp.gate.weight"),
        (
            "model.layers.0.block_sparse_moe.experts.5.w1.weight",
            "model.layers.0.mlp.experts.5.gate_proj.weight",
        ),
        (
            "model.layers.0.block_sparse_moe.experts.5.w3.weight",
            "model.layers.0.mlp.experts.5.up_proj.weight",
        ),
        (
            "model.layers.0.block_sparse_moe.experts.5.w2.weight",
            "model.layers.0.mlp.experts.5.down_proj.weight",
        ),
    ] {
        assert_eq!(our_name(family, theirs), ours);
        assert_eq!(their_name(family, ours).as_deref(), Some(theirs));
    }
    for same in ["lm_head.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"] {
        assert_eq!(our_name(family, same), same);
        assert_eq!(their_name(family, same), None);
    }
}
