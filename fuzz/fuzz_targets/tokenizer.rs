//! Any bytes as a tokenizer.json: no panic when it is read, and none when it splits and joins text.
//!
//! A line feed followed by a zero byte in the input separates tokenizer.json from tokenizer_config.json.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokenizer::Tokenizer;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a directory"));
const TEXTS: [&str; 4] =
    ["The capital of France", "a\u{301} \u{1f600}\n\n  x", "<|im_end|><s>", "0123456789"];

fn file(name: &str) -> PathBuf {
    DIRECTORY.path().join(name)
}

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.windows(2).position(|pair| pair == b"\n\0");
    let (json, config) = cut.map_or((bytes, None), |at| (&bytes[..at], Some(&bytes[at + 2..])));
    fs::write(file("tokenizer.json"), json).expect("a file");
    fs::write(file("tokenizer_config.json"), config.unwrap_or(b"{}")).expect("a file");
    let Ok(tokenizer) = Tokenizer::from_directory(DIRECTORY.path()) else { return };
    let _ = tokenizer.end_token_ids();
    let _ = tokenizer.text_prefix();
    let mut all = Vec::new();
    for text in TEXTS {
        for ids in [tokenizer.encode(text, true), tokenizer.encode_plain(text)].into_iter().flatten() {
            let _ = tokenizer.decode(&ids, false);
            all.extend(ids);
        }
    }
    all.extend([0, 1, 2, u32::MAX]);
    let mut stream = tokenizer.stream_decoder(true);
    for id in all {
        let _ = (tokenizer.token_bytes(id), tokenizer.token(id), stream.push(id));
    }
    let _ = stream.flush();
});
