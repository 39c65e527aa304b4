//! A tokenizer is made of all the files that transformers makes it of.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::{Value, json};
use tokenizer::{Message, TemplateOptions, Tokenizer};

/// The project's own tokenizer, without the added tokens but the first.
fn directory(files: &[(&str, Value)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer/tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(source).unwrap()).unwrap();
    json["added_tokens"].as_array_mut().unwrap().truncate(1);
    std::fs::write(directory.path().join("tokenizer.json"), json.to_string()).unwrap();
    for (name, content) in files {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

fn open(files: &[(&str, Value)]) -> Tokenizer {
    Tokenizer::from_directory(directory(files).path()).unwrap()
}

#[test]
fn tokens_of_every_file_are_added() {
    let bare = open(&[]);
    let (next, text) = (bare.vocab_size() as u32, "<|im_end|>");
    assert!(bare.encode(text, false).unwrap().len() > 1);
    let token = |special: bool| {
        json!({"content": text, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": special})
    };
    let config = |key: &str, value: Value| [("tokenizer_config.json", json!({key: value}))];
    let decoder = |special| config("added_tokens_decoder", json!({next.to_string(): token(special)}));
    for files in [
        &decoder(true)[..],
        // What ends a turn is special whatever the file says.
        &decoder(false),
        &config("eos_token", json!(text)),
        &config("eos_token", token(true)),
        &config("image_token", json!(text)),
        &config("extra_special_tokens", json!([text])),
        &config("extra_special_tokens", json!({"a_token": text})),
        &config("additional_special_tokens", json!([token(true)])),
        &[("special_tokens_map.json", json!({"eos_token": token(true)}))],
        &[("special_tokens_map.json", json!({"additional_special_tokens": [text]}))],
        &[("added_tokens.json", json!({text: next}))],
    ] {
        let tokenizer = open(files);
        assert_eq!(tokenizer.encode(&format!("a{text}"), false).unwrap()[1..], [next], "{files:?}");
        assert!(tokenizer.is_special(next), "{files:?}");
        assert!(tokenizer.end_token_ids().contains(&next), "{files:?}");
        assert!(tokenizer.encode_plain(text).unwrap().len() > 1, "{files:?}");
    }
}

#[test]
fn templates_of_every_file_are_found() {
    let rendered = |files: &[(&str, Value)], name: Option<&str>| {
        let options = TemplateOptions { template: name.map(str::to_owned), ..Default::default() };
        open(files).apply_chat_template(&[Message::user("hi")], &options).unwrap()
    };
    let config = ("tokenizer_config.json", json!({"chat_template": "config"}));
    let processor = ("chat_template.json", json!({"chat_template": "processor"}));
    assert_eq!(rendered(std::slice::from_ref(&processor), None), "processor");
    assert_eq!(rendered(&[processor.clone(), config.clone()], None), "config");
    let jinja = ("chat_template.jinja", json!("file"));
    assert_eq!(rendered(&[processor, config.clone(), jinja], None), "file");
    let empty = ("chat_template.jinja", json!(""));
    assert_eq!(rendered(&[config.clone(), empty], None), "config");
    let named = ("additional_chat_templates/rag.jinja", json!("named"));
    assert_eq!(rendered(&[config, named], Some("rag")), "named");
}
