//! MoE families besides Qwen3.5: packed, streamed with few slots, from each container; keys and
//! tensors that are refused. The golden tests hold their logits to those of transformers.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{Golden, gguf, logit_bits, moe, open, options};
use engine::{Engine, EngineOptions, Format, KvFormat, Verify};
use pack::QuantTiers;

/// Neither container, nor slots, threads and chunks change a bit.
#[test]
fn packed_and_streamed_logits_are_the_same_bits() {
    let directory = tempfile::tempdir().unwrap();
    let sources = [
        ("qwen3moe", moe("qwen3moe")),
        ("qwen3mixed", moe("qwen3mixed")),
        ("mixtral", moe("mixtral")),
        ("qwen3moe", gguf("qwen3moe.gguf")),
        ("mixtral", gguf("mixtral.gguf")),
    ];
    for (index, (name, source)) in sources.iter().enumerate() {
        let prompt = &Golden::read(&moe(name)).prompt[..60];
        let bits = logit_bits(&open(source, options()), prompt, 8);
        let k = open(source, options()).config().per_token_max();
        for (slots, threads) in [(k, 1), (k + 1, 2)] {
            let few = EngineOptions { slots: Some(slots), threads: Some(threads), ..options() };
            let engine = open(source, few);
            assert!(logit_bits(&engine, prompt, 8) == bits, "{}: {slots} slots", source.display());
            assert!(engine.stats().unwrap().expert_bytes_read > 0);
        }
        // Formats as they are: a tier of quantised formats would change numbers.
        let target = directory.path().join(index.to_string());
        let tiers = QuantTiers { experts: Format::BF16, dense: Format::BF16, embedding: Format::BF16 };
        common::pack(source, &target, &tiers);
        for slots in [k, 1000] {
            let packed = EngineOptions { slots: Some(slots), verify: Some(Verify::EveryLoad), ..options() };
            assert!(logit_bits(&open(&target, packed), prompt, 8) == bits, "{} packed", source.display());
        }
        assert_eq!(open(&target, options()).config(), open(source, options()).config());
    }
}

/// A tensor for each expert, or one for all.
#[test]
fn old_gguf_files_of_mixtral_give_the_same_bits() {
    let prompt = &Golden::read(&moe("mixtral")).prompt[..60];
    let bits = |name: &str| logit_bits(&open(&gguf(name), options()), prompt, 8);
    assert!(bits("mixtral-single.gguf") == bits("mixtral.gguf"));
}

/// Layers without experts have no slots.
#[test]
fn experts_are_counted_in_the_layers_that_have_them() {
    let engine = open(&moe("qwen3mixed"), options());
    assert_eq!((engine.plan().expert_count, engine.config().moe_layers()), (16, 2));
}

/// A copy of a checkpoint with another config.json.
fn edited(directory: &Path, name: &str, edit: impl FnOnce(&mut serde_json::Value)) -> std::path::PathBuf {
    let target = directory.join(name);
    let _ = fs::remove_dir_all(&target);
    fs::create_dir(&target).unwrap();
    fs::copy(moe(name).join("model.safetensors"), target.join("model.safetensors")).unwrap();
    let mut config = serde_json::from_slice(&fs::read(moe(name).join("config.json")).unwrap()).unwrap();
    edit(&mut config);
    fs::write(target.join("config.json"), config.to_string()).unwrap();
    target
}

fn open_error(path: &Path) -> String {
    match Engine::open(path, options(), &mut |_| ()) {
        Ok(_) => panic!("{} opens", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn keys_that_change_the_computation_are_honoured() {
    let directory = tempfile::tempdir().unwrap();
    let golden = Golden::read(&moe("qwen3moe"));
    let exact = EngineOptions { kv: Some(KvFormat::F32), ..options() };
    let bits = |path: &Path| logit_bits(&open(path, exact.clone()), &golden.prompt[..20], 1);
    let same = bits(&moe("qwen3moe"));
    for (key, value) in [("norm_topk_prob", false.into()), ("num_experts_per_tok", 3.into())] {
        let path = edited(directory.path(), "qwen3moe", |config| config[key] = value);
        assert!(bits(&path) != same, "{key} changes nothing");
    }
    let unused = edited(directory.path(), "qwen3moe", |config| config["sliding_window"] = 4.into());
    assert!(bits(&unused) == same, "a window that is not used");
    let used = edited(directory.path(), "qwen3moe", |config| {
        config["sliding_window"] = 4.into();
        config["use_sliding_window"] = true.into();
    });
    let error = open_error(&used);
    assert!(error.contains("`sliding_window` is 4, expected null"), "{error}");
}

#[test]
fn tensors_that_are_missing_are_named_as_the_files_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let more = edited(directory.path(), "mixtral", |config| config["num_local_experts"] = 9.into());
    let error = open_error(&more);
    assert!(error.contains("`model.layers.0.block_sparse_moe.experts.8.w1.weight`"), "{error}");
    let dense = edited(directory.path(), "qwen3moe", |config| config["mlp_only_layers"] = vec![1].into());
    let error = open_error(&dense);
    assert!(error.contains("`model.layers.1.mlp.gate_proj.weight`"), "{error}");
    let sparse = edited(directory.path(), "qwen3mixed", |config| config["mlp_only_layers"] = vec![1].into());
    let error = open_error(&sparse);
    assert!(error.contains("tensors are missing") && error.contains("model.layers.1.mlp."), "{error}");
}
