//! Hostile GGUF files on the command line: one line that names the file, exit code 1, no panic.
#![allow(clippy::unwrap_used)] // A test that cannot set itself up should panic.

#[allow(dead_code, reason = "what other tests use")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Dir, fails};

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
    fails(&["inspect", dir.path().to_str().unwrap()], &["GGUF files", &name(1)]);
}
