//! Metadata of a GGUF file: its tokenizer, its end tokens, its sampling defaults.

use checkpoint::Checkpoint;
use checkpoint::gguf::{Gguf, Metadata, Value};
use sampling::SamplingParams;
use serde_json::json;
use tokenizer::GgufVocabulary;

use crate::EngineError;

/// Bytes of the tokenizer.json that the vocabulary would make, for a GGUF header of one byte:
/// tokens and merges are nearly all of both, and JSON adds quotes, commas and ids. Measured 1.6 to
/// 2 times.
const TOKENIZER_JSON_FACTOR: u64 = 2;
/// Keys of sampling defaults, and what generation_config.json calls them.
const SAMPLING_KEYS: [(&str, &str); 5] = [
    ("general.sampling.temp", "temperature"),
    ("general.sampling.top_k", "top_k"),
    ("general.sampling.top_p", "top_p"),
    ("general.sampling.min_p", "min_p"),
    ("general.sampling.penalty_repeat", "repetition_penalty"),
];
/// Keys of special tokens, and what tokenizer_config.json calls them.
const TOKEN_KEYS: [(&str, &str); 4] = [
    ("tokenizer.ggml.bos_token_id", "bos_token"),
    ("tokenizer.ggml.eos_token_id", "eos_token"),
    ("tokenizer.ggml.unknown_token_id", "unk_token"),
    ("tokenizer.ggml.padding_token_id", "pad_token"),
];
/// Key of the default chat template, and with a dot and a name of another.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Estimated size of the model's tokenizer.json, bytes.
pub(crate) fn tokenizer_json_bytes(gguf: &Gguf) -> u64 {
    TOKENIZER_JSON_FACTOR.saturating_mul(gguf.header_bytes())
}

/// The vocabulary in the file's metadata.
pub(crate) fn vocabulary(checkpoint: &Checkpoint, gguf: &Gguf) -> Result<GgufVocabulary, EngineError> {
    let metadata = gguf.metadata();
    let path = checkpoint.root();
    let tokens = metadata.array("tokenizer.ggml.tokens").filter(|tokens| tokens.is_text());
    let tokens = tokens.ok_or_else(|| EngineError::NoGgufTokenizer { path: path.into() })?;
    let texts = |array: &checkpoint::gguf::Array| -> Vec<String> {
        (0..array.len())
            .map(|index| String::from_utf8_lossy(array.text_bytes(index).unwrap_or_default()).into_owned())
            .collect()
    };
    let id = |(key, name): (&str, &str)| {
        let id = metadata.get(key).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())?;
        Some((name.to_owned(), id))
    };
    let flag = |key: &str| metadata.get(key).and_then(Value::as_bool);
    let text = |key: &str| metadata.text(key).unwrap_or_default().to_owned();
    Ok(GgufVocabulary {
        path: path.to_path_buf(),
        model: text("tokenizer.ggml.model"),
        pre: text("tokenizer.ggml.pre"),
        tokens: texts(tokens),
        token_types: metadata
            .array("tokenizer.ggml.token_type")
            .map(|types| types.values().filter_map(|value| value.as_i64()).collect())
            .unwrap_or_default(),
        merges: metadata.array("tokenizer.ggml.merges").map(texts).unwrap_or_default(),
        scores: metadata.array("tokenizer.ggml.scores").map(numbers).unwrap_or_default(),
        special: TOKEN_KEYS.into_iter().filter_map(id).collect(),
        add_space_prefix: flag("tokenizer.ggml.add_space_prefix"),
        add_bos: flag("tokenizer.ggml.add_bos_token"),
        add_eos: flag("tokenizer.ggml.add_eos_token"),
        chat_templates: chat_templates(metadata),
    })
}

/// Numbers of any kind; what is none is not a number.
fn numbers(array: &checkpoint::gguf::Array) -> Vec<f32> {
    let number = |value: Value| value.as_f64().or_else(|| value.as_i64().map(|number| number as f64));
    array.values().map(|value| number(value).map_or(f32::NAN, |number| number as f32)).collect()
}

fn chat_templates(metadata: &Metadata) -> Vec<(String, String)> {
    let template = |(key, value): (&str, &Value)| {
        let name = match key.strip_prefix(CHAT_TEMPLATE)? {
            "" => "default",
            rest => rest.strip_prefix('.')?,
        };
        Some((name.to_owned(), value.as_str()?.to_owned()))
    };
    metadata.iter().filter_map(template).collect()
}

/// The generation_config.json that the model would have: how to sample, and every end token.
pub(crate) fn generation_config(checkpoint: &Checkpoint, gguf: &Gguf, eos_token_ids: &[u32]) -> Vec<u8> {
    let mut eos = eos_token_ids.to_vec();
    // A file without a tokenizer can still be run on ids.
    let ends = vocabulary(checkpoint, gguf).map(|vocabulary| vocabulary.end_token_ids()).unwrap_or_default();
    eos.extend(ends.into_iter().filter(|id| !eos_token_ids.contains(id)));
    let mut config = json!({ "eos_token_id": eos });
    if SAMPLING_KEYS.iter().any(|(key, _)| gguf.metadata().get(key).is_some()) {
        // Converters write the keys that differ from what llama.cpp does by itself.
        let usual = SamplingParams::usual();
        let [temperature, top_p, min_p] =
            [usual.temperature, usual.top_p, usual.min_p].map(|number| short(number.into()));
        config["do_sample"] = true.into();
        config["temperature"] = temperature;
        config["top_k"] = usual.top_k.into();
        config["top_p"] = top_p;
        config["min_p"] = min_p;
    }
    for (key, name) in SAMPLING_KEYS {
        let value = gguf.metadata().get(key);
        let value =
            value.and_then(|value| value.as_f64().map(short).or_else(|| value.as_u64().map(|n| json!(n))));
        if let Some(value) = value {
            config[name] = value;
        }
    }
    config.to_string().into_bytes()
}

/// A number that was rounded to f32, in its shortest form: 0.6 and not 0.6000000238418579.
fn short(number: f64) -> serde_json::Value {
    json!((number as f32).to_string().parse::<f64>().unwrap_or(number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
    }

    #[test]
    fn numbers_are_as_they_were_written() {
        assert_eq!(short(f64::from(0.6f32)).to_string(), "0.6");
    }

    /// llama.cpp's own vocabulary files (`models/ggml-vocab-NAME.gguf` of a checkout, whose
    /// directory `FLASH_MOE_GGUF_VOCABULARIES` names) come with texts and ids. llama.cpp does not
    /// compose characters where transformers does (form C, in the Qwen families); such texts are
    /// left out.
    #[test]
    #[ignore = "needs files of llama.cpp"]
    fn vocabularies_of_llama_cpp() {
        let root = PathBuf::from(std::env::var_os("FLASH_MOE_GGUF_VOCABULARIES").unwrap());
        for name in [
            "qwen35",
            "qwen2",
            "llama-bpe",
            "gpt-2",
            "llama-spm",
            "phi-3",
            "command-r",
            "deepseek-coder",
            "deepseek-llm",
            "mpt",
            "refact",
            "starcoder",
        ] {
            let read = |extension: &str| {
                let path = root.join(format!("ggml-vocab-{name}.gguf{extension}"));
                String::from_utf8(std::fs::read(path).unwrap()).unwrap()
            };
            let checkpoint = Checkpoint::open(&root.join(format!("ggml-vocab-{name}.gguf"))).unwrap();
            let vocabulary = vocabulary(&checkpoint, checkpoint.gguf().unwrap()).unwrap();
            let tokenizer = tokenizer::Tokenizer::from_gguf(&vocabulary).unwrap();
            let ids = read(".out");
            let texts = read(".inp");
            let mut texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
            // The part behind the last separator is no text.
            texts.pop();
            assert_eq!(texts.len(), ids.lines().count(), "{name}");
            let mut composed = 0;
            for (text, ids) in texts.iter().zip(ids.lines()) {
                let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
                let found = tokenizer.encode(text, false).unwrap();
                if tokenizer.decode(&found, false).unwrap() == *text {
                    assert_eq!(found, expected, "{name}: {text:?}");
                } else {
                    composed += 1;
                }
            }
            assert!(composed <= 3, "{name}: {composed} texts were changed");
        }
    }

    /// A SentencePiece vocabulary against SentencePiece itself; and the tokenizer.json that packing
    /// writes.
    #[test]
    fn a_sentence_piece_vocabulary_gives_its_own_ids() {
        let checkpoint = Checkpoint::open(&fixture("gguf/sentencepiece.gguf")).unwrap();
        let vocabulary = vocabulary(&checkpoint, checkpoint.gguf().unwrap()).unwrap();
        let found = tokenizer::Tokenizer::from_gguf(&vocabulary).unwrap();
        let json = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(fixture("tokenizer").join(name)).unwrap()).unwrap()
        };
        let (cases, mixed) = (json("cases.json"), json("mixed.json"));
        let cases = cases["texts"].as_array().unwrap().iter().map(|case| case["text"].as_str().unwrap());
        let mixed = mixed.as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap());
        let expected: [Vec<Vec<u32>>; 2] = serde_json::from_value(json("sentencepiece.json")).unwrap();
        let texts: Vec<&str> = cases.chain(mixed).collect();
        let expected = expected.concat();
        assert!(texts.len() == expected.len() && texts.len() > 300);
        for (text, expected) in texts.iter().zip(&expected) {
            assert_eq!(&found.encode_plain(text).unwrap(), expected, "{text:?}");
            let shown = text.replace('\u{2581}', " ");
            assert_eq!(found.decode(expected, false).unwrap(), shown, "{text:?}");
            let mut stream = found.stream_decoder(false);
            let mut out: String = expected.iter().filter_map(|id| stream.push(*id).unwrap()).collect();
            out.extend(stream.flush().unwrap());
            // U+FFFD at the end of what is there waits for what comes.
            assert_eq!(out, shown, "{text:?}");
        }
        let bos = found.token_to_id("<s>").unwrap();
        assert_eq!(found.encode("a", true).unwrap()[0], bos);
        let messages = [tokenizer::Message::user("Why <|im_end|>?")];
        let chat = found.encode_chat(&messages, &tokenizer::TemplateOptions::default()).unwrap();
        let end = found.token_to_id("<|im_end|>").unwrap();
        assert_eq!(chat.iter().filter(|id| **id == end).count(), 1);
        assert_eq!(vocabulary.end_token_ids(), [2, end]);
    }

    /// The tokenizer that llama.cpp's converter put into a GGUF file against the one that it was
    /// made of.
    #[test]
    fn the_vocabulary_of_a_file_is_that_of_its_source() {
        let checkpoint = Checkpoint::open(&fixture("gguf/tokenizer.gguf")).unwrap();
        let vocabulary = vocabulary(&checkpoint, checkpoint.gguf().unwrap()).unwrap();
        let found = tokenizer::Tokenizer::from_gguf(&vocabulary).unwrap();
        let source = tokenizer::Tokenizer::from_directory(&fixture("tokenizer")).unwrap();
        assert_eq!(found.vocab_size(), source.vocab_size());
        for id in 0..source.vocab_size() as u32 + 1 {
            assert_eq!(found.token(id), source.token(id), "{id}");
            assert_eq!(found.is_special(id), source.is_special(id), "{id}");
        }
        let cases = std::fs::read(fixture("tokenizer/cases.json")).unwrap();
        let cases: serde_json::Value = serde_json::from_slice(&cases).unwrap();
        let texts = cases["texts"].as_array().unwrap();
        assert!(texts.len() > 10);
        for case in texts {
            let text = case["text"].as_str().unwrap();
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(found.encode(text, false).unwrap(), expected, "{text:?}");
            assert_eq!(found.encode(text, true).unwrap(), source.encode(text, true).unwrap(), "{text:?}");
            assert_eq!(found.encode_plain(text).unwrap(), source.encode_plain(text).unwrap(), "{text:?}");
            assert_eq!(found.decode(&expected, false).unwrap(), source.decode(&expected, false).unwrap());
            assert_eq!(found.decode(&expected, true).unwrap(), source.decode(&expected, true).unwrap());
        }
        let mixed = std::fs::read(fixture("tokenizer/mixed.json")).unwrap();
        let mixed: Vec<(String, Vec<u32>)> = serde_json::from_slice(&mixed).unwrap();
        for (text, expected) in &mixed {
            assert_eq!(&found.encode(text, false).unwrap(), expected, "{text:?}");
        }
        let messages = [tokenizer::Message::system("Be brief."), tokenizer::Message::user("Why <|im_end|>?")];
        let options = tokenizer::TemplateOptions { add_generation_prompt: true, ..Default::default() };
        let chat = |tokenizer: &tokenizer::Tokenizer| tokenizer.encode_chat(&messages, &options).unwrap();
        assert_eq!(chat(&found), chat(&source));
        assert_eq!(vocabulary.end_token_ids(), [3000, 3002]);
    }
}
