//! A tokenizer out of the metadata of a GGUF file.
//!
//! The vocabulary becomes the `tokenizer.json` and `tokenizer_config.json` that the model would have
//! had, so that there is one way to make a tokenizer, and packing can write the files. What GGUF does
//! not say (pattern, normaliser) follows from the name of the pre-tokeniser, see [`pre_tokenizers`];
//! [`sentence_piece`] has the other kind of vocabulary.

mod pre_tokenizers;
mod sentence_piece;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::companions::{DUPLICATES, END_TEXTS, end_ids};
use crate::error::one_line;
use crate::{Tokenizer, TokenizerError};
use pre_tokenizers::PreTokenizer;

/// What a GGUF file says about its tokenizer, as it is in the metadata. The prefix of the keys is
/// `tokenizer.ggml.`.
#[derive(Clone, Debug, Default)]
pub struct GgufVocabulary {
    /// The file, for messages.
    pub path: PathBuf,
    /// `model`: `gpt2` is byte-level BPE, `llama` is SentencePiece's BPE.
    pub model: String,
    /// `pre`: name of the pre-tokeniser; of no meaning in SentencePiece vocabularies.
    pub pre: String,
    /// `tokens`, by id.
    pub tokens: Vec<String>,
    /// `token_type`, by id; empty if the file has none.
    pub token_types: Vec<i64>,
    /// `merges`, best first, each two tokens with a space in between. SentencePiece vocabularies have none.
    pub merges: Vec<String>,
    /// `scores`, by id, of SentencePiece vocabularies.
    pub scores: Vec<f32>,
    /// `bos_token_id` and so on: name without `_id`, and id.
    pub special: Vec<(String, u32)>,
    /// `add_space_prefix`: whether a SentencePiece vocabulary puts a space before a text.
    pub add_space_prefix: Option<bool>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.chat_template` under the name `default`, and named ones.
    pub chat_templates: Vec<(String, String)>,
}

/// `tokenizer.ggml.model` of byte-level BPE.
const BYTE_LEVEL_BPE: &str = "gpt2";
/// `tokenizer.ggml.model` of SentencePiece's BPE.
const SENTENCE_PIECE: &str = "llama";
/// Values of `token_type`.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
const BYTE: i64 = 6;
/// Ids that SentencePiece vocabularies have where the file names none.
const SENTENCE_PIECE_IDS: [(&str, u32); 3] = [("unk_token", 0), ("bos_token", 1), ("eos_token", 2)];

impl Tokenizer {
    /// Makes a tokenizer from the metadata of a GGUF file.
    ///
    /// # Errors
    /// [`TokenizerError::UnsupportedGguf`] for a kind of tokenizer that is not read yet;
    /// [`TokenizerError::Malformed`] for one that contradicts itself.
    pub fn from_gguf(vocabulary: &GgufVocabulary) -> Result<Self, TokenizerError> {
        Self::from_json(&vocabulary.path, vocabulary.tokenizer_json()?, &vocabulary.tokenizer_config())
    }
}

impl GgufVocabulary {
    /// The bytes of a `tokenizer.json` that tokenises as this vocabulary does.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`].
    pub fn tokenizer_json(&self) -> Result<Vec<u8>, TokenizerError> {
        let content = match self.model.as_str() {
            BYTE_LEVEL_BPE => {
                let pre = PreTokenizer::named(&self.pre)
                    .ok_or_else(|| self.unsupported("pre", &self.pre, PreTokenizer::known()))?;
                self.check()?;
                self.byte_level_bpe(pre)?
            }
            SENTENCE_PIECE => {
                self.check()?;
                self.sentence_piece()?
            }
            other => {
                let known = format!("{BYTE_LEVEL_BPE}, {SENTENCE_PIECE}");
                return Err(self.unsupported("model", other, known));
            }
        };
        let file = File { version: "1.0", truncation: (), padding: (), added_tokens: self.added(), content };
        serde_json::to_vec(&file).map_err(|error| self.malformed(&error.to_string()))
    }

    fn byte_level_bpe(&self, pre: &PreTokenizer) -> Result<Content<'_>, TokenizerError> {
        if self.merges.is_empty() {
            return Err(self.malformed("tokenizer.ggml.merges is missing or empty"));
        }
        let included = self.in_vocabulary();
        let texts = self.tokens.iter().zip(&included).filter(|(_, included)| **included);
        let texts: HashSet<&str> = texts.map(|(token, _)| token.as_str()).collect();
        let mut merges = Vec::with_capacity(self.merges.len());
        let mut joined = String::new();
        for merge in &self.merges {
            let (left, right) = self.pair(merge)?;
            joined.clear();
            joined.extend([left, right]);
            // A merge that no token comes of merges nothing.
            if [left, right, &joined].iter().all(|text| texts.contains(text)) {
                merges.push((left, right));
            }
        }
        Ok(Content {
            normalizer: pre.nfc.then(|| json!({"type": "NFC"})),
            pre_tokenizer: Some(pre.json()),
            post_processor: self.template(pre.add_bos).or_else(|| Some(byte_level(false))),
            decoder: byte_level(true),
            model: Model { ignore_merges: pre.ignore_merges, ..Model::new(&self.tokens, included, merges) },
        })
    }

    /// The `tokenizer_config.json`: special tokens by name, and the chat templates.
    pub fn tokenizer_config(&self) -> Value {
        let mut config = Map::new();
        for (name, id) in &self.special {
            if let Some(token) = self.tokens.get(*id as usize) {
                config.insert(name.clone(), token.clone().into());
            }
        }
        match self.chat_templates.as_slice() {
            [] => {}
            [(name, source)] if name == "default" => {
                config.insert("chat_template".to_owned(), source.clone().into());
            }
            templates => {
                let entry = |(name, source): &(String, String)| json!({"name": name, "template": source});
                config.insert("chat_template".to_owned(), templates.iter().map(entry).collect());
            }
        }
        let duplicates = self.duplicates();
        if !duplicates.is_empty() {
            let pairs = duplicates.iter().map(|(id, known)| (id.to_string(), (*known).into()));
            config.insert(DUPLICATES.to_owned(), Value::Object(pairs.collect()));
        }
        Value::Object(config)
    }

    /// Ids whose text another id has, to that id: a control token's, else the first. Files of some
    /// families list a token twice; a text then has one id, and both ids have the text.
    fn duplicates(&self) -> std::collections::BTreeMap<usize, usize> {
        let rank = |id: usize| match self.token_type(id) {
            CONTROL => 0,
            USER_DEFINED => 1,
            _ => 2,
        };
        let used = || (0..self.tokens.len()).filter(|id| self.token_type(*id) != UNUSED);
        let mut best: HashMap<&str, usize> = HashMap::with_capacity(self.tokens.len());
        for id in used() {
            let known = best.entry(self.tokens[id].as_str()).or_insert(id);
            if rank(id) < rank(*known) {
                *known = id;
            }
        }
        let other = |id: usize| best.get(self.tokens[id].as_str()).map(|known| (id, *known));
        used().filter_map(other).filter(|(id, known)| id != known).collect()
    }

    /// Tokens that end a turn or a text by what they are called, whatever type the file gives them.
    /// Files name one or two end tokens; models use more.
    pub fn end_token_ids(&self) -> Vec<u32> {
        let mut found: HashMap<&str, Vec<u32>> = HashMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if END_TEXTS.contains(&token.as_str()) && self.token_type(id) == CONTROL {
                found.entry(token).or_default().push(id as u32);
            }
        }
        let first = end_ids(|text| found.get(text).map(|ids| ids[0]));
        let mut ids: Vec<u32> = found.into_values().filter(|ids| first.contains(&ids[0])).flatten().collect();
        ids.sort_unstable();
        ids
    }

    fn unsupported(&self, key: &str, got: &str, known: String) -> TokenizerError {
        TokenizerError::UnsupportedGguf {
            path: self.path.clone(),
            key: format!("tokenizer.ggml.{key}"),
            got: one_line(got),
            known,
        }
    }

    fn malformed(&self, what: &str) -> TokenizerError {
        TokenizerError::Malformed { path: self.path.clone(), what: one_line(what) }
    }

    fn token_type(&self, id: usize) -> i64 {
        let said = self.token_types.get(id).copied().unwrap_or(NORMAL);
        let is_end = |token: &String| END_TEXTS.contains(&token.as_str()) && !self.is_merged(token);
        match said {
            CONTROL => CONTROL,
            _ if self.tokens.get(id).is_some_and(is_end) => CONTROL,
            other => other,
        }
    }

    /// Whether a token comes of merging, and so of ordinary text (`</s>` is HTML in some).
    fn is_merged(&self, token: &str) -> bool {
        let is_it = |merge: &String| {
            merge.len() == token.len() + 1
                && merge
                    .split_once(' ')
                    .and_then(|(left, right)| token.strip_prefix(left).map(|t| t == right))
                    == Some(true)
        };
        self.merges.iter().any(is_it)
    }

    fn is_added(&self, id: usize) -> bool {
        matches!(self.token_type(id), CONTROL | USER_DEFINED)
    }

    /// Lengths that agree.
    fn check(&self) -> Result<(), TokenizerError> {
        if self.tokens.is_empty() {
            return Err(self.malformed("tokenizer.ggml.tokens is missing or empty"));
        }
        let (tokens, types) = (self.tokens.len(), self.token_types.len());
        if types != 0 && types != tokens {
            return Err(
                self.malformed(&format!("tokenizer.ggml.token_type has {types} entries for {tokens} tokens"))
            );
        }
        Ok(())
    }

    /// The id of a token that has a name, such as `bos_token`.
    fn special_id(&self, name: &str) -> Option<u32> {
        let named = self.special.iter().find(|(known, _)| known == name).map(|(_, id)| *id);
        // Very old files name none; they are all of the one kind.
        let usual = || SENTENCE_PIECE_IDS.iter().find(|(known, _)| *known == name).map(|(_, id)| *id);
        named.or_else(|| usual().filter(|_| self.model == SENTENCE_PIECE))
    }

    fn added<'a>(&'a self) -> Vec<AddedToken<'a>> {
        let token = |(id, content): (usize, &'a String)| AddedToken {
            id,
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: self.token_type(id) == CONTROL,
        };
        let duplicates = self.duplicates();
        let wanted = |(id, _): &(usize, &String)| self.is_added(*id) && !duplicates.contains_key(id);
        self.tokens.iter().enumerate().filter(wanted).map(token).collect()
    }

    /// Which tokens belong to the model's vocabulary. Tokens that were added behind it stay out, as in
    /// the file that the model came from; elsewhere they must be in, for only so do they get their id.
    fn in_vocabulary(&self) -> Vec<bool> {
        let len = self.tokens.len();
        let duplicates = self.duplicates();
        let unused = |id: usize| self.token_type(id) == UNUSED || duplicates.contains_key(&id);
        let end = (0..len).rev().find(|id| !self.is_added(*id) && !unused(*id)).map_or(0, |id| id + 1);
        let added_end = (end..len).find(|id| unused(*id)).unwrap_or(len);
        let behind = !(0..end).any(unused) && (added_end..len).all(unused);
        (0..len).map(|id| !unused(id) && (id < end || !behind)).collect()
    }

    fn pair<'a>(&self, merge: &'a str) -> Result<(&'a str, &'a str), TokenizerError> {
        merge.split_once(' ').filter(|(_, right)| !right.contains(' ')).ok_or_else(|| {
            self.malformed(&format!("merge {merge:?} of tokenizer.ggml.merges is not two tokens"))
        })
    }

    /// What is put around every text, if anything is.
    fn template(&self, add_bos: bool) -> Option<Value> {
        let wanted = |flag: Option<bool>, default: bool, name: &str| {
            let id = self.special_id(name)?;
            let token = self.tokens.get(id as usize)?;
            flag.unwrap_or(default).then_some((token.as_str(), id))
        };
        let bos = wanted(self.add_bos, add_bos, "bos_token");
        let eos = wanted(self.add_eos, false, "eos_token");
        if bos.is_none() && eos.is_none() {
            return None;
        }
        let special =
            |(token, _): (&str, u32), kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
        let text = |name: &str, kind: u32| {
            let before = bos.map(|token| special(token, kind));
            let after = eos.map(|token| special(token, kind));
            let middle = json!({"Sequence": {"id": name, "type_id": kind}});
            before.into_iter().chain([middle]).chain(after).collect::<Vec<_>>()
        };
        let mut tokens = Map::new();
        for (token, id) in bos.into_iter().chain(eos) {
            tokens.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
        }
        let pair: Vec<Value> = text("A", 0).into_iter().chain(text("B", 1)).collect();
        Some(
            json!({"type": "TemplateProcessing", "single": text("A", 0), "pair": pair, "special_tokens": tokens}),
        )
    }
}

/// The step between bytes and the characters that stand for them, as post-processor or decoder.
fn byte_level(decoder: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": decoder, "trim_offsets": decoder, "use_regex": decoder})
}

/// `tokenizer.json`.
#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedToken<'a>>,
    #[serde(flatten)]
    content: Content<'a>,
}

/// What differs from kind to kind.
#[derive(Serialize)]
struct Content<'a> {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Value,
    model: Model<'a>,
}

#[derive(Serialize)]
struct AddedToken<'a> {
    id: usize,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct Model<'a> {
    r#type: &'static str,
    dropout: (),
    unk_token: Option<&'a str>,
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocabulary<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

impl<'a> Model<'a> {
    fn new(tokens: &'a [String], included: Vec<bool>, merges: Vec<(&'a str, &'a str)>) -> Model<'a> {
        Model {
            r#type: "BPE",
            dropout: (),
            unk_token: None,
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab: Vocabulary { tokens, included },
            merges,
        }
    }
}

/// Token to id, without making a map of hundreds of thousands of entries first.
struct Vocabulary<'a> {
    tokens: &'a [String],
    included: Vec<bool>,
}

impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tokens = self.tokens.iter().zip(&self.included).enumerate();
        serializer
            .collect_map(tokens.filter(|(_, (_, included))| **included).map(|(id, (token, _))| (token, id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(types: &[i64]) -> GgufVocabulary {
        let tokens = ["a", "b", "ab", "<x>", "<y>", "[PAD5]"];
        GgufVocabulary {
            path: "m.gguf".into(),
            model: "gpt2".into(),
            pre: "qwen2".into(),
            tokens: tokens.map(str::to_owned).into(),
            token_types: types.into(),
            merges: vec!["a b".into()],
            ..GgufVocabulary::default()
        }
    }

    #[test]
    fn ids_are_those_of_the_file() {
        // Added tokens behind the vocabulary, among it, and with a hole before them.
        for types in [[1, 1, 1, 3, 4, 5], [3, 1, 1, 4, 1, 1], [1, 1, 1, 5, 3, 4], [1, 1, 1, 4, 5, 3]] {
            let vocabulary = vocabulary(&types);
            let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
            for (id, token) in vocabulary.tokens.iter().enumerate() {
                let expected = (types[id] != UNUSED).then_some(id as u32);
                assert_eq!(tokenizer.token_to_id(token), expected, "{types:?} {token}");
                assert_eq!(tokenizer.is_special(id as u32), types[id] == CONTROL, "{types:?} {token}");
            }
        }
    }

    /// A character that stands for a byte in other tokens, as DeepSeek's first vocabularies have them.
    #[test]
    fn an_added_token_is_text() {
        let mut vocabulary = vocabulary(&[1, 1, 1, 3, 4, 5]);
        vocabulary.tokens[4] = "ü".into();
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        assert_eq!(tokenizer.encode("abüb", false).unwrap(), [2, 4, 1]);
        assert_eq!(tokenizer.decode(&[2, 4, 1, 3], false).unwrap(), "abüb<x>");
        assert_eq!(tokenizer.decode(&[2, 4, 1, 3, 99], true).unwrap(), "abüb");
    }

    #[test]
    fn a_beginning_of_text_is_added_where_it_belongs() {
        let mut vocabulary = vocabulary(&[1, 1, 1, 3, 3, 5]);
        vocabulary.special = vec![("bos_token".into(), 3), ("eos_token".into(), 4)];
        let ids = |vocabulary: &GgufVocabulary| {
            let tokenizer = Tokenizer::from_gguf(vocabulary).unwrap();
            (tokenizer.encode("ab", true).unwrap(), tokenizer.encode("ab", false).unwrap())
        };
        assert_eq!(ids(&vocabulary), (vec![2], vec![2]));
        vocabulary.add_bos = Some(true);
        assert_eq!(ids(&vocabulary), (vec![3, 2], vec![2]));
        vocabulary.add_eos = Some(true);
        assert_eq!(ids(&vocabulary), (vec![3, 2, 4], vec![2]));
        vocabulary.pre = "llama-bpe".into();
        vocabulary.add_bos = None;
        vocabulary.add_eos = None;
        assert_eq!(ids(&vocabulary), (vec![3, 2], vec![2]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |change: &dyn Fn(&mut GgufVocabulary), expected: &str| {
            let mut vocabulary = vocabulary(&[1, 1, 1, 3, 4, 5]);
            change(&mut vocabulary);
            let error = Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string();
            assert!(error.starts_with("m.gguf: ") && error.contains(expected), "{error}");
        };
        check(&|v| v.model = "t5".into(), "`tokenizer.ggml.model` is \"t5\"");
        check(&|v| v.pre = "viking".into(), "`tokenizer.ggml.pre` is \"viking\"");
        check(&|v| v.tokens.clear(), "tokens is missing or empty");
        check(&|v| v.token_types.truncate(2), "token_type has 2 entries for 6 tokens");
        check(&|v| v.merges.clear(), "merges is missing or empty");
        check(&|v| v.merges[0] = "ab".into(), "merge \"ab\"");
        check(&|v| v.merges[0] = "a b ab".into(), "merge \"a b ab\"");
    }

    #[test]
    fn end_tokens_are_known_by_name() {
        let mut vocabulary = vocabulary(&[1, 1, 1, 3, 4, 5]);
        vocabulary.tokens[0] = "</s>".into();
        vocabulary.tokens[3] = "<|im_end|>".into();
        vocabulary.tokens[4] = "<|endoftext|>".into();
        assert_eq!(vocabulary.end_token_ids(), [0, 3, 4]);
        // Ordinary text that looks like one.
        vocabulary.merges.push("</ s>".into());
        assert_eq!(vocabulary.end_token_ids(), [3, 4]);
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        assert_eq!(tokenizer.encode("<|endoftext|>b", false).unwrap(), [4, 1]);
        assert!(tokenizer.is_special(4));
    }

    #[test]
    fn a_token_may_be_listed_twice() {
        for (types, known) in [([1, 1, 1, 1, 3, 5], 1), ([1, 1, 1, 3, 3, 5], 3), ([1, 1, 1, 4, 3, 5], 3)] {
            let mut vocabulary = vocabulary(&types);
            vocabulary.tokens[3] = "b".into();
            let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
            assert_eq!(tokenizer.decode(&[1, 3], false).unwrap(), "bb", "{types:?}");
            assert_eq!(tokenizer.encode("b", false).unwrap(), [known], "{types:?}");
            assert_eq!(tokenizer.encode("<y>", false).unwrap(), [4], "{types:?}");
        }
    }

    #[test]
    fn a_merge_that_makes_no_token_is_skipped() {
        let mut vocabulary = vocabulary(&[1, 1, 1, 3, 4, 5]);
        vocabulary.merges.splice(0..0, ["a x".into(), "b a".into()]);
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        assert_eq!(tokenizer.encode("bab", false).unwrap(), [1, 2]);
    }
}
