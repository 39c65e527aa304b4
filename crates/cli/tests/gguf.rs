//! Hostile GGUF files on the command line: one line that names the file, exit code 1, no panic.
#![allow(clippy::unwrap_used)] // A test that cannot set itself up should panic.

#[allow(dead_code, reason = "what other tests use")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Dir, fails, flash_moe, json, ok};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf").join(name)
}

/// What is done to the bytes of a file, and what the error line must contain.
type Spoilt = (fn(&mut Vec<u8>), &'static str);

fn position(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Where the type of tensor `blk.0.attn_k.weight` is, of two dimensions; its offset comes behind it.
fn type_of_keys(bytes: &[u8]) -> usize {
    let name = b"blk.0.attn_k.weight";
    position(bytes, name) + name.len() + 4 + 2 * 8
}

const SPOILT: &[Spoilt] = &[
    (|file| file.clear(), "got an empty file"),
    (|file| put(file, 0, b"GGML"), "magic: expected GGUF, got GGML"),
    (|file| put(file, 4, &1u32.to_le_bytes()), "GGUF version 1 is not supported"),
    (|file| put(file, 4, &3u32.to_be_bytes()), "big-endian"),
    (|file| put(file, 8, &u64::MAX.to_le_bytes()), "number of tensors: expected at most"),
    (|file| put(file, 16, &(1u64 << 60).to_le_bytes()), "number of metadata entries: expected at most"),
    (|file| put(file, 24, &u64::MAX.to_le_bytes()), "key: expected a text of at most 65535 bytes"),
    (|file| file.truncate(700), "got the end of the file after"),
    (|file| file.truncate(file.len() - 100), "is cut off; expected a file of"),
    (
        |file| {
            let at = type_of_keys(file);
            put(file, at, &77u32.to_le_bytes());
        },
        "tensor blk.0.attn_k.weight: ggml type number 77 is not supported",
    ),
    (
        |file| {
            let at = type_of_keys(file) + 4;
            put(file, at, &(u64::MAX - 31).to_le_bytes());
        },
        "offset of tensor blk.0.attn_k.weight: expected one within the",
    ),
    (
        |file| {
            let at = type_of_keys(file) + 4;
            put(file, at, &[0; 8]);
        },
        "tensor blk.0.attn_k.weight overlaps",
    ),
    (
        |file| {
            let at = type_of_keys(file) - 8;
            put(file, at, &(1u64 << 62).to_le_bytes());
        },
        "tensor blk.0.attn_k.weight: impossible shape",
    ),
    (
        |file| {
            let at = position(file, b"blk.1.attn_k.weight");
            put(file, at, b"blk.0");
        },
        "tensor blk.0.attn_k.weight is listed twice",
    ),
    (
        |file| {
            let at = position(file, b"general.architecture");
            put(file, at, b"G");
        },
        "general.architecture is missing",
    ),
    (
        |file| {
            let at = position(file, b"llama.block_count");
            put(file, at, b"L");
        },
        "the metadata has no `llama.block_count`",
    ),
];

#[test]
fn broken_files_are_named() {
    let dir = Dir::new();
    let sound = fs::read(fixture("llama.gguf")).unwrap();
    for (index, (spoil, expected)) in SPOILT.iter().enumerate() {
        let path = dir.path().join(format!("broken{index}.gguf"));
        let mut bytes = sound.clone();
        spoil(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap();
        let parts = &[path, expected];
        match index % 4 {
            0 => fails(&["run", path, "Hello"], parts),
            1 => fails(&["inspect", path], parts),
            2 => fails(&["logits", path, "--tokens", "1"], parts),
            _ => fails(&["pack", path, dir.path().join("out").to_str().unwrap()], parts),
        };
    }
    // Sound, but nothing to turn text into ids with.
    let path = fixture("llama.gguf");
    fails(&["run", path.to_str().unwrap(), "Hello"], &["tokenizer.ggml.tokens"]);
}

#[test]
fn broken_splits_are_named() {
    let dir = Dir::new();
    let name = |number: u32| format!("published-{number:05}-of-00003.gguf");
    let copy = |from: u32, to: u32| fs::copy(fixture(&name(from)), dir.path().join(name(to))).unwrap();
    let first = dir.path().join(name(1));
    let first = first.to_str().unwrap();
    copy(1, 1);
    copy(3, 3);
    fails(&["inspect", first], &[&name(2), "missing", "3 files"]);
    copy(3, 2);
    copy(2, 3);
    fails(&["inspect", first], &[&name(2), "split.no: expected 1, got 2"]);
    copy(2, 2);
    fs::copy(fixture("llama.gguf"), dir.path().join(name(3))).unwrap();
    fails(&["inspect", first], &[&name(3), "does not belong to"]);
    copy(3, 3);
    common::truncate(&dir.path().join(name(3)), 100_000);
    fails(&["inspect", first], &[&name(3), "truncated"]);
    fails(&["inspect", dir.path().join(name(2)).to_str().unwrap()], &["not the first file", &name(1)]);
    // The directory stands for its only model.
    fails(&["inspect", dir.path().to_str().unwrap()], &[&name(3), "truncated"]);
}

/// A file with more numbers in its metadata, put before all other keys.
fn with_numbers(file: &[u8], numbers: &[(&str, f32)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut keys = Vec::new();
    for (key, number) in numbers {
        keys.extend([&text(key)[..], &6u32.to_le_bytes(), &number.to_le_bytes()].concat());
    }
    // A text of the length with which the tensors stay aligned.
    let (filler, kind) = (text("test.filler"), 8u32.to_le_bytes());
    let len = keys.len() + filler.len() + kind.len() + 8;
    keys.extend([&filler[..], &kind, &text(&" ".repeat(len.next_multiple_of(32) - len))].concat());
    let mut changed = [&file[..24], &keys, &file[24..]].concat();
    let count = u64::from_le_bytes(file[16..24].try_into().unwrap()) + numbers.len() as u64 + 1;
    put(&mut changed, 16, &count.to_le_bytes());
    changed
}

#[test]
fn keys_that_change_the_computation_are_honoured_or_refused() {
    let dir = Dir::new();
    let path = dir.path().join("m.gguf");
    for (name, arch) in [("mixtral", "llama"), ("qwen3moe", "qwen3moe")] {
        let file = fs::read(fixture(&format!("{name}.gguf"))).unwrap();
        let write = |key: &str, number: f32| {
            fs::write(&path, with_numbers(&file, &[(&format!("{arch}.{key}"), number)])).unwrap();
        };
        let logits =
            || json(&["logits", path.to_str().unwrap(), "--tokens", "1,2,3,4", "--json"])["logits"].clone();
        write("attention.causal", 0.0);
        fails(&["inspect", path.to_str().unwrap()], &["attention.causal` is 0.0, expected true or nothing"]);
        write("pooling_type", 3.0);
        let plain = logits();
        write("rope.scaling.factor", 4.0);
        let scaled = logits();
        assert_ne!(plain, scaled, "{name}");
        write("rope.scale_linear", 4.0);
        assert_eq!(logits(), scaled, "{name}: the older key");
        write("rope.scale_linear", 0.0);
        assert_eq!(logits(), plain, "{name}: 0 is none");
        let effects = [
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "logit_scale",
            "embedding_scale",
            "residual_scale",
            "attention.scale",
            "attention.clamp_kqv",
            "attention.max_alibi_bias",
            "rope.scaling.attn_factor",
            "rope.scaling.yarn_ext_factor",
            "leading_dense_block_count",
            "nextn_predict_layers",
            "expert_gating_func",
            "expert_weights_scale",
            "expert_shared_count",
            "use_parallel_residual",
            "ssm.state_size",
            // Nobody knows what it does.
            "a_key_of_tomorrow",
        ];
        for key in effects {
            write(key, 30.0);
            fails(&["logits", path.to_str().unwrap(), "--tokens", "1"], &[key, "30"]);
        }
        write("logit_scale", 1.0);
        assert_eq!(logits(), plain, "{name}: a factor that changes nothing");
        let found = json(&["inspect", path.to_str().unwrap(), "--json"])["unread_keys"].clone();
        let listed = |key: String, why: &str| {
            found.as_array().unwrap().contains(&serde_json::json!({ "key": key, "why": why }))
        };
        assert!(listed(format!("{arch}.logit_scale"), "off"), "{found}");
        assert!(listed("test.filler".into(), "unknown"), "{found}");
    }
    // Factors that the file has computed already, and one more.
    let file = fs::read(fixture("llama.gguf")).unwrap();
    fs::write(&path, with_numbers(&file, &[("llama.rope.scale_linear", 4.0)])).unwrap();
    fails(
        &["logits", path.to_str().unwrap(), "--tokens", "1"],
        &["llama.rope.scale_linear", "rope_freqs.weight"],
    );
}

#[test]
fn formats_for_weights_that_are_quantised_already_are_refused() {
    let dir = Dir::new();
    let (source, target) = (dir.path().join("m.gguf"), dir.path().join("packed"));
    // Their bytes are taken for blocks of q8_0, which are shorter.
    let mut file = fs::read(fixture("qwen3moe.gguf")).unwrap();
    for name in [&b"_gate_exps.weight"[..], b"_up_exps.weight"] {
        let found = file.windows(name.len()).enumerate().filter(|(_, window)| *window == name);
        for at in found.map(|(at, _)| at).collect::<Vec<_>>() {
            put(&mut file, at + name.len() + 4 + 3 * 8, &8u32.to_le_bytes());
        }
    }
    fs::write(&source, file).unwrap();
    let (source, target) = (source.to_str().unwrap(), target.to_str().unwrap());
    fails(&["pack", source, target, "--quant", "q2_K"], &["--quant", "quantised already"]);
    assert!(!Path::new(target).exists());
    fails(
        &["pack", source, target, "--quant", "q2_K", "--quant-dense", "q6_K"],
        &["quantised already (q8_0)"],
    );
    ok(&["pack", source, target, "--quant-dense", "q6_K"]);
    let formats = json(&["inspect", target, "--json"])["tiers"]["experts"]["formats"].clone();
    assert!(formats["q8_0"].is_u64(), "{formats}");
    let output = flash_moe(&["plan", source, "--quant", "q2_K"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && error.contains("--quant is for presets"), "{error}");
}
