//! The files beside `tokenizer.json` that transformers builds a tokenizer from, too.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::TokenizerError;
use crate::files::{TOKENIZER_CONFIG_BYTES_MAX, read_json};

/// Key of `tokenizer_config.json` under which packing keeps ids whose text another id has.
pub(crate) const DUPLICATES: &str = "flash_moe_duplicate_tokens";
/// Lists of further special tokens.
const LISTS: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];
/// Texts of tokens that end a turn or a text in every family that has them.
pub(crate) const END_TEXTS: [&str; 19] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|endofturn|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<end_of_utterance>",
    "<|return|>",
    "<|call|>",
    "</s>",
    "<｜end▁of▁sentence｜>",
    "[EOT]",
    "<EOT>",
];
/// Ends a message only, where these two end a turn.
const MESSAGE_END: (&str, [&str; 2]) = ("<|end|>", ["<|return|>", "<|call|>"]);

/// Ids of the end-of-turn texts that a vocabulary has.
pub(crate) fn end_ids(id: impl Fn(&str) -> Option<u32>) -> Vec<u32> {
    let message_only = MESSAGE_END.1.iter().all(|text| id(text).is_some());
    let ends = END_TEXTS.iter().filter(|text| !(message_only && **text == MESSAGE_END.0));
    let mut ids: Vec<u32> = ends.filter_map(|text| id(text)).collect();
    ids.sort_unstable();
    ids
}

/// `tokenizer_config.json` with what `special_tokens_map.json` and `added_tokens.json` add to it.
#[derive(Default)]
pub(crate) struct Companions {
    pub(crate) config: Value,
    /// Text to id.
    pub(crate) added: Map<String, Value>,
}

impl Companions {
    /// Reads what is there beside the `tokenizer_config.json`. The older files count only where the
    /// newer key `added_tokens_decoder` is absent, as in transformers.
    pub(crate) fn read(
        config: Option<&Path>,
        special_tokens_map: Option<&Path>,
        added_tokens: Option<&Path>,
    ) -> Result<Self, TokenizerError> {
        let json = |path: &Path| read_json(path, TOKENIZER_CONFIG_BYTES_MAX);
        let mut this = Self { config: config.map(json).transpose()?.unwrap_or_default(), ..Self::default() };
        if this.config.get("added_tokens_decoder").is_some() {
            return Ok(this);
        }
        if let Some(Value::Object(map)) = special_tokens_map.map(json).transpose()? {
            if !this.config.is_object() {
                this.config = Value::Object(Map::new());
            }
            for (key, value) in map {
                this.config[key] = value;
            }
        }
        if let Some(Value::Object(added)) = added_tokens.map(json).transpose()? {
            this.added = added;
        }
        Ok(this)
    }

    /// The tokens to add to those of `tokenizer.json`, in transformers' order, each with the id that
    /// its file says, if any.
    pub(crate) fn tokens(&self) -> Vec<(Option<u32>, AddedToken)> {
        let mut special = Vec::new();
        for (key, value) in self.config.as_object().into_iter().flatten() {
            match value {
                Value::Array(list) if LISTS.contains(&key.as_str()) => {
                    special.extend(list.iter().filter_map(special_token));
                }
                Value::Object(named) if LISTS.contains(&key.as_str()) => {
                    special.extend(named.values().filter_map(special_token));
                }
                _ if key.ends_with("_token") => special.extend(special_token(value)),
                _ => {}
            }
        }
        let decoder = self.config.get("added_tokens_decoder").and_then(Value::as_object);
        let mut tokens: Vec<(Option<u32>, AddedToken)> = decoder
            .into_iter()
            .flatten()
            .filter_map(|(id, token)| Some((id.parse().ok(), serde_json::from_value(token.clone()).ok()?)))
            .collect();
        tokens.extend(self.added.iter().map(|(text, id)| {
            let is_special = special.iter().any(|token: &AddedToken| token.content == *text);
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            (id, AddedToken::from(text.clone(), is_special))
        }));
        tokens.sort_by_key(|(id, _)| *id);
        tokens.extend(special.into_iter().map(|token| (None, token)));
        tokens
    }

    /// Ids whose text another id has: the former to the latter.
    pub(crate) fn duplicates(&self) -> HashMap<u32, u32> {
        let listed = self.config.get(DUPLICATES).and_then(Value::as_object);
        let pair =
            |(id, other): (&String, &Value)| Some((id.parse().ok()?, u32::try_from(other.as_u64()?).ok()?));
        listed.into_iter().flatten().filter_map(pair).collect()
    }
}

/// A special token, a text or an object with `content`.
fn special_token(value: &Value) -> Option<AddedToken> {
    let mut token = match value {
        Value::String(text) => AddedToken::from(text.clone(), true),
        Value::Object(fields) => {
            let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
            AddedToken::from(fields.get("content")?.as_str()?.to_owned(), true)
                .lstrip(flag("lstrip").unwrap_or(false))
                .rstrip(flag("rstrip").unwrap_or(false))
                .single_word(flag("single_word").unwrap_or(false))
                .normalized(flag("normalized").unwrap_or(false))
        }
        _ => return None,
    };
    token.special = true;
    Some(token).filter(|token| !token.content.is_empty())
}
