//! Small tokenizers made on the spot.

#![allow(dead_code)]

use serde_json::{Value, json};
use tokenizer::Tokenizer;

/// A word-level tokenizer with the given template configuration; enough to render with.
pub(crate) fn with_config(config: &Value) -> Tokenizer {
    load(&word_level(), Some(config), None).unwrap()
}

/// Writes the files and loads them.
pub(crate) fn load(
    tokenizer: &Value,
    config: Option<&Value>,
    jinja: Option<&str>,
) -> Result<Tokenizer, tokenizer::TokenizerError> {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("tokenizer.json", &tokenizer.to_string());
    if let Some(config) = config {
        write("tokenizer_config.json", &config.to_string());
    }
    if let Some(jinja) = jinja {
        write("chat_template.jinja", jinja);
    }
    Tokenizer::from_directory(directory.path())
}

pub(crate) fn word_level() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1, "b": 2}, "unk_token": "<unk>"},
    })
}

/// A SentencePiece conversion as Llama 2 and Mixtral have it: words with U+2581 for the space,
/// byte tokens for the rest, and a leading space that is added and dropped again.
pub(crate) fn sentence_piece() -> Value {
    let mut vocab: Vec<(String, u32)> = Vec::new();
    let mut add = |token: String| vocab.push((token, vocab.len() as u32));
    for special in ["<unk>", "<s>", "</s>"] {
        add(special.to_owned());
    }
    for byte in 0..=255 {
        add(format!("<0x{byte:02X}>"));
    }
    for token in ["\u{2581}", "a", "b", "é", "\u{2581}a", "ab", "\u{2581}ab", "\u{2581}\u{2581}"] {
        add(token.to_owned());
    }
    let vocab: serde_json::Map<String, Value> =
        vocab.into_iter().map(|(token, id)| (token, id.into())).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
               "rstrip": false, "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        // Neither may have an effect.
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
            "byte_fallback": true, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "vocab": vocab,
            "merges": ["\u{2581} a", "a b", "\u{2581} ab", "\u{2581} \u{2581}"]},
    })
}
