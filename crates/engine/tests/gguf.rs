//! GGUF files: packed, streamed, looked at; and what is said about those that are no model of ours.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Golden, fixture, gguf, logit_bits, open, options};
use engine::EngineOptions;
use pack::QuantTiers;
use tensor::Format;

const SPLIT: &str = "published-00001-of-00003.gguf";

/// A copy in which bytes of the header are replaced by as many others.
fn edited(directory: &Path, name: &str, from: &[u8], to: &[u8]) -> PathBuf {
    let mut bytes = fs::read(gguf(name)).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A key as the file has it: its length, then its text.
fn key(name: &str) -> Vec<u8> {
    [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat()
}

fn open_error(path: &Path) -> String {
    match engine::Engine::open(path, options(), &mut |_| ()) {
        Ok(_) => panic!("{} opens", path.display()),
        Err(error) => error.to_string(),
    }
}

/// Neither the container nor the number of slots changes a bit: experts are read from the file's own extents.
#[test]
fn packed_and_streamed_logits_are_the_same_bits() {
    let directory = tempfile::tempdir().unwrap();
    for (name, golden) in [("oddheads.gguf", "oddheads"), (SPLIT, "published")] {
        let golden = Golden::read(&fixture(golden));
        let source = gguf(name);
        let bits = logit_bits(&open(&source, options()), &golden.prompt[..40], 8);
        let few = EngineOptions { slots: Some(5), ..options() };
        assert!(logit_bits(&open(&source, few), &golden.prompt[..40], 8) == bits, "{name}: few slots");
        // Formats as they are: a tier of quantised formats would change numbers.
        let form = open(&source, options()).config().weight_form;
        let kept = if name == SPLIT { Format::BF16 } else { Format::F16 };
        let tiers = QuantTiers { experts: kept, dense: kept, embedding: kept };
        let target = directory.path().join(golden_name(name));
        common::pack(&source, &target, &tiers);
        let packed = open(&target, options());
        assert_eq!(packed.config().weight_form, form);
        assert!(logit_bits(&packed, &golden.prompt[..40], 8) == bits, "{name}: packed");
        let generation = fs::read_to_string(target.join("generation_config.json")).unwrap();
        assert!(generation.contains("\"temperature\":0.6,\"top_k\":20,\"top_p\":0.95"), "{generation}");
    }
}

fn golden_name(name: &str) -> &str {
    name.split(['-', '.']).next().unwrap()
}

#[test]
fn what_the_metadata_lacks_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let check = |from: &[u8], to: &[u8], expected: &str| {
        let error = open_error(&edited(directory.path(), "oddheads.gguf", from, to));
        assert!(error.contains(expected), "{error}\nlacks {expected}");
        assert!(error.starts_with(&directory.path().display().to_string()), "{error}");
    };
    let missing = |name: &str| {
        let wrong = key(&name.replace("qwen35moe.", "qwen35mox."));
        check(&key(name), &wrong, &format!("the metadata has no `{name}`, which Qwen3.5-MoE needs"));
    };
    for name in [
        "block_count",
        "embedding_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
        "expert_count",
        "expert_used_count",
        "ssm.conv_kernel",
        "ssm.state_size",
        "ssm.group_count",
        "ssm.time_step_rank",
        "ssm.inner_size",
    ] {
        missing(&format!("qwen35moe.{name}"));
    }
    let value = |name: &str, value: u32| {
        let kind = 4u32.to_le_bytes();
        [&key(&format!("qwen35moe.{name}"))[..], &kind, &value.to_le_bytes()].concat()
    };
    let bad = |name: &str, from: u32, to: u32, expected: &str| {
        check(&value(name, from), &value(name, to), &format!("metadata: `qwen35moe.{name}` is {expected}"));
    };
    bad("block_count", 4, 0, "0, expected a whole number from 1 to 4096");
    bad("embedding_length", 96, u32::MAX, "4294967295, expected a whole number from 1");
    bad("attention.head_count_kv", 3, 4, "4, expected a divisor of num_attention_heads = 6");
    bad("attention.value_length", 20, 19, "19, expected 20, as keys");
    bad("expert_used_count", 3, 13, "13, expected a whole number from 1 to 12");
    bad("ssm.inner_size", 80, 81, "81, expected a multiple of ssm.time_step_rank = 8");
    let heads =
        "metadata: `qwen35moe.ssm.time_step_rank` is 8, expected a multiple of linear_num_key_heads = 3";
    check(&value("ssm.group_count", 2), &value("ssm.group_count", 3), heads);
    bad("rope.dimension_count", 10, 22, "22, expected an even number of at most");
    check(
        b"qwen35moe",
        b"qwen35mox",
        "general.architecture is \"qwen35mox\", which is not supported; this version runs GGUF files of qwen35moe, qwen3moe, llama, qwen2, qwen3",
    );
    check(
        &key("general.architecture"),
        &key("general.architecturx"),
        "general.architecture is missing, which is not supported; this version runs GGUF files of",
    );
    let shape = "tensor `blk.0.ffn_gate_exps.weight` has shape [12, 20, 96], expected [12, 21, 96]";
    check(&value("expert_feed_forward_length", 20), &value("expert_feed_forward_length", 21), shape);
    check(&key("blk.1.ssm_a"), &key("blk.1.ssm_x"), "1 tensors are missing, the first is `blk.1.ssm_a`");
    check(&key("blk.0.ssm_a"), &key("blk.9.ssm_a"), "1 tensors are missing, the first is `blk.0.ssm_a`");
    let missing = "1 tensors are missing, the first is `blk.2.ffn_up_exps.weight`";
    check(&key("blk.2.ffn_up_exps.weight"), &key("blk.2.ffn_up_expz.weight"), missing);
    check(&key("token_embd.weight"), &key("token_embx.weight"), "`token_embd.weight`");
}

/// The same for the families without experts.
#[test]
fn what_the_metadata_of_dense_models_lacks_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for (name, prefix, family) in [("llama.gguf", "llama", "Llama"), ("qwen3.gguf", "qwen3", "Qwen3")] {
        let check = |from: &[u8], to: &[u8], expected: &str| {
            let error = open_error(&edited(directory.path(), name, from, to));
            assert!(error.contains(expected), "{error}\nlacks {expected}");
            assert!(error.starts_with(&directory.path().display().to_string()), "{error}");
            assert!(error.contains("download"), "{error}");
        };
        for missing in
            ["block_count", "embedding_length", "attention.head_count", "attention.layer_norm_rms_epsilon"]
        {
            let (from, to) = (format!("{prefix}.{missing}"), format!("{}x.{missing}", &prefix[1..]));
            let expected = format!("the metadata has no `{from}`, which {family} needs");
            check(&key(&from), &key(&to), &expected);
        }
        // Found by the tensors, where it is not said.
        let width = format!("{prefix}.feed_forward_length");
        let found = edited(
            directory.path(),
            name,
            &key(&width),
            &key(&width.replacen(prefix, &format!("{}x", &prefix[1..]), 1)),
        );
        open(&found, options());
        let entry = |kind: u32, value: [u8; 4]| {
            [&key(&format!("{prefix}.block_count"))[..], &kind.to_le_bytes(), &value].concat()
        };
        let blocks = entry(4, 2u32.to_le_bytes());
        let bad = |kind: u32, value: [u8; 4], shown: &str| {
            let expected =
                format!("`{prefix}.block_count` is {shown}, expected a whole number from 1 to 4096");
            check(&blocks, &entry(kind, value), &expected);
        };
        bad(6, 2.0f32.to_le_bytes(), "2.0");
        bad(4, [0; 4], "0");
        bad(5, (-1i32).to_le_bytes(), "-1");
        bad(4, u32::MAX.to_le_bytes(), "4294967295");
        check(&blocks, &entry(4, 3u32.to_le_bytes()), "tensors are missing, the first is `blk.2.");
        check(&key("token_embd.weight"), &key("token_embx.weight"), "`token_embd.weight`");
        check(&key("output_norm.weight"), &key("output_norx.weight"), "`output_norm.weight`");
        check(&key("blk.1.ffn_up.weight"), &key("blk.1.ffn_uq.weight"), "`blk.1.ffn_up.weight`");
    }
}

/// Keys that files may lack, with their defaults.
#[test]
fn what_has_a_default_may_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let golden = Golden::read(&fixture("oddheads"));
    let bits = logit_bits(&open(&gguf("oddheads.gguf"), options()), &golden.prompt[..20], 1);
    for name in [
        "attention.recurrent_layers",
        "full_attention_interval",
        "rope.freq_base",
        "expert_feed_forward_length",
        "expert_shared_feed_forward_length",
        "attention.value_length",
    ] {
        let (from, to) = (key(&format!("qwen35moe.{name}")), key(&format!("qwen35mox.{name}")));
        let engine = open(&edited(directory.path(), "oddheads.gguf", &from, &to), options());
        assert!(logit_bits(&engine, &golden.prompt[..20], 1) == bits, "{name}");
    }
}

#[test]
fn a_file_without_a_vocabulary_says_so() {
    let engine = open(&gguf("oddheads.gguf"), options());
    let error = engine.submit(engine.request("text")).err().unwrap().to_string();
    assert!(error.contains("the file has no tokenizer (`tokenizer.ggml.tokens`)"), "{error}");
}
