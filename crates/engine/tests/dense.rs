//! Models without experts: nothing is streamed, and everything that speaks of experts says so or has nothing to say.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Golden, dense, gguf, logit_bits, open, options};
use engine::{Engine, EngineOptions, Format};
use pack::QuantTiers;

/// Slots, threads and containers are no matter.
#[test]
fn packed_logits_are_the_same_bits() {
    let directory = tempfile::tempdir().unwrap();
    for (index, source) in [dense("llama"), dense("qwen2"), gguf("llama.gguf")].into_iter().enumerate() {
        let prompt = &Golden::read(&dense("llama")).prompt[..60];
        let bits = logit_bits(&open(&source, options()), prompt, 4);
        let other = EngineOptions { slots: Some(3), threads: Some(1), chunk_tokens: Some(64), ..options() };
        assert!(logit_bits(&open(&source, other), prompt, 4) == bits, "{}", source.display());
        let target = directory.path().join(index.to_string());
        let tiers = QuantTiers::of(Format::BF16);
        common::pack(&source, &target, &tiers);
        assert!(logit_bits(&open(&target, options()), prompt, 4) == bits, "{}", source.display());
    }
}

#[test]
fn a_budget_is_planned_and_can_change() {
    let engine = open(&gguf("llama.gguf"), options());
    assert_eq!((engine.plan().slots, engine.plan().slot_bytes), (0, 0));
    assert_eq!(engine.set_memory_budget(500 << 20).unwrap(), 0);
    assert!(engine.set_memory_budget(1 << 20).is_err());
    let error = Engine::open(
        &gguf("llama.gguf"),
        EngineOptions { memory_bytes: Some(1 << 20), ..options() },
        &mut |_| (),
    );
    assert!(error.err().unwrap().to_string().contains("too small"));
}

fn config_error(directory: &Path, edit: impl FnOnce(&mut serde_json::Value)) -> String {
    let target = directory.join("edited");
    let _ = fs::remove_dir_all(&target);
    fs::create_dir(&target).unwrap();
    fs::copy(dense("llama").join("model.safetensors"), target.join("model.safetensors")).unwrap();
    let config = fs::read(dense("llama").join("config.json")).unwrap();
    let mut config = serde_json::from_slice(&config).unwrap();
    edit(&mut config);
    fs::write(target.join("config.json"), config.to_string()).unwrap();
    match Engine::open(&PathBuf::from(&target), options(), &mut |_| ()) {
        Ok(_) => panic!("opens"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_not_computed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |key: &str, value: serde_json::Value, expected: &str| {
        let error = config_error(directory.path(), |config| config[key] = value);
        assert!(error.contains(&format!("`{key}` is")) && error.contains(expected), "{error}");
    };
    refused("hidden_act", "gelu".into(), "expected silu");
    refused("mlp_bias", true.into(), "expected false");
    // One that is as long as the context is none.
    refused("sliding_window", 8.into(), "expected");
    refused("num_key_value_heads", 3.into(), "expected a divisor");
    let rope = |kind: &str| {
        serde_json::json!({
            "rope_type": kind,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 0.5,
            "original_max_position_embeddings": 64,
        })
    };
    let error = config_error(directory.path(), |config| config["rope_parameters"] = rope("yarn"));
    assert!(error.contains("`rope_type` is yarn, expected default, linear or llama3"), "{error}");
    let error = config_error(directory.path(), |config| config["rope_parameters"] = rope("llama3"));
    assert!(error.contains("`high_freq_factor` is 0.5, expected more than"), "{error}");
    let error = config_error(directory.path(), |config| config["attention_bias"] = true.into());
    assert!(error.contains("tensors are missing") && error.contains("q_proj.bias"), "{error}");
}
