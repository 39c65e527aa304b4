//! Any text as a chat template: no panic, no abort by recursion, an end within its limits, and the same text twice.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tempfile::TempDir;
use tokenizer::{Message, TemplateOptions, Tokenizer};

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = TempDir::new().expect("a directory");
    let json = r#"{"model":{"type":"WordLevel","vocab":{"a":0,"<s>":1},"unk_token":"a"},"added_tokens":[]}"#;
    fs::write(directory.path().join("tokenizer.json"), json).expect("a file");
    fs::write(directory.path().join("tokenizer_config.json"), r#"{"bos_token":"<s>","eos_token":"</s>"}"#)
        .expect("a file");
    directory
});

fn file(name: &str) -> PathBuf {
    DIRECTORY.path().join(name)
}

fuzz_target!(|source: &str| {
    fs::write(file("chat_template.jinja"), source).expect("a file");
    let template = file("chat_template.jinja");
    let config = file("tokenizer_config.json");
    let tokenizer = Tokenizer::from_files(&file("tokenizer.json"), Some(&config), Some(&template));
    let Ok(tokenizer) = tokenizer else { return };
    let messages = [
        Message::system("You are <helpful>."),
        Message::user("2 + 2 = ? \u{e9}"),
        Message::assistant("<think>\nx\n</think>\n4"),
        Message::user(""),
    ];
    let tool = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    for tools in [None, Some(tool)] {
        let options = TemplateOptions {
            add_generation_prompt: true,
            tools,
            now_s: Some(1_700_000_000),
            ..TemplateOptions::default()
        };
        let first = tokenizer.apply_chat_template(&messages, &options);
        let second = tokenizer.apply_chat_template(&messages, &options);
        assert_eq!(first.ok(), second.ok());
        let _ = tokenizer.encode_chat(&messages, &options);
    }
});
