//! Long texts are encoded in pieces, so that memory does not grow with them: a text in the hands of
//! `tokenizers` takes some hundred times its size.
//!
//! A piece ends where encoding provably begins anew. A pre-tokeniser of patterns goes from left to
//! right, and its state is where the last match ended: what comes after an end of a match depends on
//! what comes after it alone, if no pattern looks back. The piece is read with the text that follows
//! it, so that what looks ahead sees it. An end must also be none of an added token, and what follows
//! must begin with a character of ASCII that normalising does not join to others.
//!
//! SentencePiece's vocabularies have no words. There a piece ends before a space that no token has
//! behind the character before it, so that nothing merges across. Where a text has no such place, its
//! pieces are longer, up to all of it; so are texts of tokenizers that are neither of these kinds.

use std::collections::HashSet;

use serde_json::Value;
use tokenizers::tokenizer::{OffsetReferential, OffsetType};
use tokenizers::{
    AddedVocabulary, Model as _, ModelWrapper, NormalizerWrapper, PreTokenizedString, PreTokenizer as _,
};

use crate::TokenizerError;
use crate::error::encode_error;

/// Longest added token of a tokenizer whose texts are cut, bytes.
const ADDED_BYTES_MAX: usize = 256;
/// What is read at once.
const SIZES: Sizes = Sizes { whole: 32 << 10, piece: 16 << 10, margin: 2 * ADDED_BYTES_MAX };

#[derive(Copy, Clone, Debug)]
pub(crate) struct Sizes {
    /// Texts up to this length are encoded whole, bytes.
    whole: usize,
    /// A piece, bytes.
    piece: usize,
    /// Text behind the end of a piece that is read with it, bytes.
    margin: usize,
}

/// How a tokenizer's texts can be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cuts {
    /// Between words.
    Words,
    /// Before a space, after an ASCII letter or digit that none of these is.
    Spaces {
        /// Characters that a token has before its space.
        joined: HashSet<char>,
        /// Whether a space is put before each text, in place of which that of the cut goes.
        prepended: bool,
    },
    /// Nowhere.
    Nowhere,
}

impl Cuts {
    pub(crate) fn of(inner: &tokenizers::Tokenizer) -> Cuts {
        let mut added = inner.get_added_vocabulary().get_added_tokens_decoder().values();
        if added.any(|token| token.single_word || token.content.len() > ADDED_BYTES_MAX) {
            return Cuts::Nowhere;
        }
        let json = |value: serde_json::Result<Value>| value.unwrap_or_default();
        let normalizer = json(serde_json::to_value(inner.get_normalizer()));
        let pre_tokenizer = json(serde_json::to_value(inner.get_pre_tokenizer()));
        if pre_tokenizer.is_null() {
            return Cuts::before_spaces(inner, &normalizer);
        }
        let composing = normalizer.is_null() || normalizer["type"] == "NFC";
        if composing && is_local(&pre_tokenizer) { Cuts::Words } else { Cuts::Nowhere }
    }

    fn before_spaces(inner: &tokenizers::Tokenizer, normalizer: &Value) -> Cuts {
        let steps = match &normalizer["normalizers"] {
            Value::Array(steps) => steps.as_slice(),
            _ => std::slice::from_ref(normalizer),
        };
        let is_prefix = |step: &Value| step["type"] == "Prepend" && step["prepend"] == "\u{2581}";
        let is_space = |step: &Value| {
            step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == "\u{2581}"
        };
        let prepended = match steps {
            [prefix, space] if is_prefix(prefix) && is_space(space) => true,
            [space] if is_space(space) => false,
            _ => return Cuts::Nowhere,
        };
        let added = inner.get_added_vocabulary().get_added_tokens_decoder();
        let strips =
            |token: &tokenizers::AddedToken| token.lstrip || token.rstrip || token.content.contains(' ');
        let bpe = matches!(inner.get_model(), ModelWrapper::BPE(_));
        if !bpe || added.values().any(strips) {
            return Cuts::Nowhere;
        }
        let mut joined = HashSet::new();
        for token in inner.get_vocab(false).keys() {
            let pairs = token.chars().zip(token.chars().skip(1));
            joined.extend(pairs.filter(|(_, next)| *next == '\u{2581}').map(|(before, _)| before));
        }
        Cuts::Spaces { joined, prepended }
    }
}

/// Whether a pre-tokeniser goes from left to right and never looks back.
fn is_local(step: &Value) -> bool {
    match step["type"].as_str() {
        Some("Sequence") => step["pretokenizers"].as_array().is_some_and(|steps| steps.iter().all(is_local)),
        Some("ByteLevel") => step["add_prefix_space"] == false,
        Some("Digits") => true,
        Some("Split") => {
            let forward = step["pattern"]["Regex"].as_str().is_none_or(looks_forward);
            forward && step["behavior"] == "Isolated" && step["invert"] == false
        }
        _ => false,
    }
}

/// Whether a pattern knows nothing of what is before the place where it is tried, and stops at some class of
/// characters.
fn looks_forward(pattern: &str) -> bool {
    let (mut depth, mut escaped) = (0usize, false);
    for c in pattern.chars() {
        match c {
            c if escaped => {
                if depth == 0 && "bBAGK".contains(c) {
                    return false;
                }
                escaped = false;
            }
            '\\' => escaped = true,
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '^' | '.' if depth == 0 => return false,
            _ => {}
        }
    }
    !pattern.contains("(?<")
}

/// A tokenizer, and where its texts can be cut.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Pieces<'a> {
    pub(crate) inner: &'a tokenizers::Tokenizer,
    pub(crate) cuts: &'a Cuts,
}

impl Pieces<'_> {
    /// The ids of a text without those that are put around every text, to `sink` as they come.
    pub(crate) fn encode(
        self,
        text: &str,
        added: &AddedVocabulary,
        sink: &mut dyn FnMut(&[u32]),
    ) -> Result<(), TokenizerError> {
        self.encode_sized(text, added, SIZES, sink)
    }

    fn encode_sized(
        self,
        text: &str,
        added: &AddedVocabulary,
        Sizes { whole, piece, margin }: Sizes,
        sink: &mut dyn FnMut(&[u32]),
    ) -> Result<(), TokenizerError> {
        let whole = text.len() <= whole;
        let mut rest = text;
        let mut room = piece;
        while !rest.is_empty() {
            let last = whole || rest.len() <= room.saturating_add(margin);
            let end = if last { rest.len() } else { char_boundary(rest, room + margin) };
            let cut = match self.cuts {
                _ if last => self.words(&rest[..end], None, added, sink)?,
                Cuts::Words => self.words(&rest[..end], Some(end.saturating_sub(margin)), added, sink)?,
                Cuts::Spaces { joined, prepended } => {
                    let cut = space_cut(&rest[..end], margin, joined, added);
                    if let Some(cut) = cut {
                        self.words(&rest[..cut], None, added, sink)?;
                    }
                    // The space that is put before a text is that of the cut.
                    cut.map(|cut| cut + usize::from(*prepended))
                }
                Cuts::Nowhere => None,
            };
            match cut {
                Some(cut) => {
                    rest = &rest[cut..];
                    room = piece;
                }
                // A run without an end: more of it is read.
                None => room = room.saturating_mul(2),
            }
        }
        Ok(())
    }

    /// Encodes the words of a text, up to the last one that ends within `limit` where the text can be
    /// cut; all of them without a limit. Returns where it ended; `None`, with nothing encoded, if
    /// there is no place to cut.
    fn words(
        self,
        text: &str,
        limit: Option<usize>,
        added: &AddedVocabulary,
        sink: &mut dyn FnMut(&[u32]),
    ) -> Result<Option<usize>, TokenizerError> {
        let failed = |error| encode_error(text, error);
        let inner = self.inner;
        let mut pieces: PreTokenizedString = added.extract_and_normalize(inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let mut count = splits.len();
        if let Some(limit) = limit {
            // One word more must lie between the cut and the end of what is read.
            let ends = (1..splits.len().saturating_sub(2)).rev().find(|&next| {
                let (before, after) = (&splits[next - 1], &splits[next]);
                let at = after.1.0;
                before.2.is_none()
                    && after.2.is_none()
                    && before.1.1 == at
                    && at <= limit
                    && begins_anew(text, at)
            });
            match ends {
                Some(next) => count = next,
                None => return Ok(None),
            }
        }
        let end = if count == splits.len() { text.len() } else { splits[count].1.0 };
        let model = inner.get_model();
        let mut ids = Vec::new();
        for (word, _, tokens) in &splits[..count] {
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => ids.extend(model.tokenize(word).map_err(failed)?.iter().map(|token| token.id)),
            }
        }
        sink(&ids);
        Ok(Some(end))
    }
}

/// The character that byte-level BPE writes for a byte: the inverse of [`byte_of_char`].
pub(crate) fn char_of_byte(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or_default()
}

/// Whether normalising and added tokens know nothing across this place.
fn begins_anew(text: &str, at: usize) -> bool {
    let after = text.as_bytes().get(at..).unwrap_or_default();
    match after {
        [b' ', next, ..] => next.is_ascii_alphanumeric(),
        [next, ..] => next.is_ascii_alphanumeric(),
        [] => false,
    }
}

/// The last space of a text before which it can be cut.
fn space_cut(text: &str, margin: usize, joined: &HashSet<char>, added: &AddedVocabulary) -> Option<usize> {
    let tokens = added.get_added_tokens_decoder();
    let apart = |at: usize| {
        let (before, after) = (&text[..at], &text[at + 1..]);
        let letter =
            before.chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() && !joined.contains(&c));
        letter
            && after.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !tokens
                .values()
                .any(|token| before.ends_with(&*token.content) || after.starts_with(&*token.content))
    };
    let limit = text.len().saturating_sub(margin);
    text[..char_boundary(text, limit)].rmatch_indices(' ').map(|(at, _)| at).find(|at| apart(*at))
}

/// The last boundary of characters up to a place.
fn char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The bytes that a token stands for, at most: no text has fewer tokens than its length divided by
/// this. `None` where a normaliser may drop text.
pub(crate) fn longest_token(inner: &tokenizers::Tokenizer, cuts: &Cuts) -> Option<usize> {
    // Neither may what the vocabulary lacks become nothing, or one token for much of it.
    let ModelWrapper::BPE(bpe) = inner.get_model() else { return None };
    let byte = |byte: u8| inner.token_to_id(&char_of_byte(byte).to_string()).is_some();
    let complete = match cuts {
        Cuts::Words => (0..=255).all(byte),
        Cuts::Spaces { .. } => bpe.byte_fallback,
        Cuts::Nowhere => false,
    };
    if !complete {
        return None;
    }
    // Composing makes three bytes of nine, at most.
    let shrinks = match inner.get_normalizer() {
        None => 1,
        Some(NormalizerWrapper::NFC(_)) => 3,
        Some(other) => match serde_json::to_value(other).ok()?["normalizers"].as_array() {
            // A space becomes three bytes, and back.
            Some(steps)
                if steps.iter().all(|step| step["type"] == "Prepend" || step["type"] == "Replace") =>
            {
                1
            }
            _ => return None,
        },
    };
    let added = inner.get_added_vocabulary().get_added_tokens_decoder();
    if added.values().any(|token| token.lstrip || token.rstrip) {
        return None;
    }
    let longest = inner.get_vocab(true).keys().map(String::len).max()?;
    Some(longest.max(1) * shrinks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GgufVocabulary, Tokenizer};
    use proptest::prelude::*;
    use std::path::Path;

    /// A vocabulary of all bytes, some merges, and added tokens.
    fn byte_level(pre: &str) -> Tokenizer {
        let mut tokens: Vec<String> = (0..=255).map(|byte| char_of_byte(byte).to_string()).collect();
        let merges = [
            "t h",
            "th e",
            "Ġ the",
            "Ġ a",
            "a b",
            "ab c",
            "Ċ Ċ",
            "Ġ Ġ",
            "ĠĠ ĠĠ",
            "1 2",
            "å Ľ",
            "e ,",
            "Ġ (",
            "c Ġ",
        ];
        tokens.extend(merges.map(|merge| merge.replace(' ', "")));
        let mut token_types = vec![1; tokens.len()];
        for (token, kind) in [("<|im_end|>", 3), ("<tool call>", 4), ("ünd", 4), ("   ", 4)] {
            tokens.push(token.to_owned());
            token_types.push(kind);
        }
        let vocabulary = GgufVocabulary {
            model: "gpt2".into(),
            pre: pre.into(),
            tokens,
            token_types,
            merges: merges.map(str::to_owned).into(),
            ..GgufVocabulary::default()
        };
        Tokenizer::from_gguf(&vocabulary).unwrap()
    }

    fn sentence_piece(add_space_prefix: bool) -> Tokenizer {
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        let mut token_types = vec![2, 3, 3];
        token_types.resize(tokens.len(), 6);
        let words = [
            "\u{2581}",
            "a",
            "b",
            "c",
            "t",
            "h",
            "e",
            "\u{2581}a",
            "ab",
            "\u{2581}ab",
            "th",
            "the",
            "\u{2581}the",
            "\u{2581}\u{2581}",
            "c\u{2581}",
            "<tok>x",
        ];
        tokens.extend(words.map(str::to_owned));
        token_types.resize(tokens.len(), 1);
        *token_types.last_mut().unwrap() = 4;
        let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
        let vocabulary = GgufVocabulary {
            model: "llama".into(),
            tokens,
            token_types,
            scores,
            add_space_prefix: Some(add_space_prefix),
            ..GgufVocabulary::default()
        };
        Tokenizer::from_gguf(&vocabulary).unwrap()
    }

    fn check(tokenizer: &Tokenizer, text: &str) {
        let Pieces { inner, cuts } = tokenizer.pieces();
        let expected = inner.encode_fast(text, false).unwrap().get_ids().to_vec();
        for piece in [1, 40, 200] {
            let (mut ids, mut calls) = (Vec::<u32>::new(), 0);
            let sizes = Sizes { whole: 0, piece, margin: 64 };
            let mut sink = |piece: &[u32]| {
                ids.extend(piece);
                calls += 1;
            };
            tokenizer.pieces().encode_sized(text, inner.get_added_vocabulary(), sizes, &mut sink).unwrap();
            assert_eq!(ids, expected, "{piece} {text:?}");
        }
        if cuts != &Cuts::Nowhere {
            assert!(tokenizer.fewest_ids(text.len()) <= expected.len(), "{text:?}");
        }
    }

    const NAMES: [&str; 19] = [
        "qwen35",
        "qwen2",
        "hunyuan",
        "llama-bpe",
        "glm4",
        "dbrx",
        "tekken",
        "gpt-4o",
        "kimi-k2",
        "deepseek-llm",
        "deepseek-coder",
        "deepseek-v3",
        "bailingmoe2",
        "exaone-moe",
        "command-r",
        "smollm",
        "starcoder",
        "gpt-2",
        "olmo",
    ];

    #[test]
    fn every_kind_of_text_is_cut_where_it_can_be() {
        for name in NAMES {
            assert_eq!(byte_level(name).pieces().cuts, &Cuts::Words, "{name}");
            assert!(byte_level(name).fewest_ids(usize::MAX) > 0, "{name}");
        }
        for prepended in [true, false] {
            let found = sentence_piece(prepended);
            let is = matches!(found.pieces().cuts, Cuts::Spaces { joined, prepended: p } if *p == prepended && joined.contains(&'c'));
            assert!(is, "{:?}", found.pieces().cuts);
        }
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer");
        assert_eq!(Tokenizer::from_directory(&fixtures).unwrap().pieces().cuts, &Cuts::Words);
    }

    /// A long text takes pieces, and their number grows with it.
    #[test]
    fn long_texts_are_read_in_pieces() {
        for tokenizer in [byte_level("qwen2"), sentence_piece(true), byte_level("deepseek-llm")] {
            let text = "the abc (12) and, then\n\n  more of it. ".repeat(4000);
            let (mut ids, mut most) = (Vec::<u32>::new(), 0);
            let added = tokenizer.pieces().inner.get_added_vocabulary();
            let mut sink = |piece: &[u32]| {
                ids.extend(piece);
                most = most.max(piece.len());
            };
            tokenizer.pieces().encode(&text, added, &mut sink).unwrap();
            assert!(most < 40_000, "{most}");
            assert_eq!(ids, tokenizer.pieces().inner.encode_fast(text.as_str(), false).unwrap().get_ids());
            assert_eq!(tokenizer.count(&text, false).unwrap(), ids.len());
            let run = "x".repeat(70_000);
            assert_eq!(tokenizer.encode(&run, false).unwrap().len(), tokenizer.count(&run, false).unwrap());
        }
    }

    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => "[a-e]{1,6}",
            3 => Just(" ".to_owned()),
            2 => "[ \\t\\n\\r]{1,9}",
            1 => "[0-9]{1,5}",
            2 => Just("the".to_owned()),
            1 => "[.,;:!?()'/]{1,4}",
            1 => "'(s|t|re|ll)",
            1 => "[一-三ぁ-う가-나]{1,5}",
            1 => "[e\u{301}\u{308}\u{1100}\u{1161}\u{11a8}は\u{3099}]{1,5}",
            1 => Just("<|im_end|>".to_owned()),
            1 => Just("<tool call>".to_owned()),
            1 => Just("<tok>x".to_owned()),
            1 => Just("ünd".to_owned()),
            1 => Just("</s>".to_owned()),
            1 => "\\PC{1,4}",
        ];
        prop::collection::vec(part, 0..150).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn pieces_are_the_whole(text in texts()) {
            for name in NAMES {
                check(&byte_level(name), &text);
            }
            check(&sentence_piece(true), &text);
            check(&sentence_piece(false), &text);
            let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer");
            check(&Tokenizer::from_directory(&fixtures).unwrap(), &text);
        }
    }
}
