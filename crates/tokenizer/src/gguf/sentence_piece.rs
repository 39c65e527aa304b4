//! A SentencePiece vocabulary (`tokenizer.ggml.model` = `llama`) as byte-pair merges.
//!
//! SentencePiece's BPE joins the two neighbours whose union is the piece with the highest score,
//! the leftmost where scores are the same, until none is a piece. What may be joined to what is not
//! written down; it follows from the pieces. Written down, best first, it is the list of merges of
//! a `tokenizer.json`, which tokenises alike: scores of trained vocabularies are ranks, no two the
//! same. Those that are (Llama 2's runs of spaces; pieces that somebody added) are tried longest
//! left part first, which is what leftmost-first comes to in a run; elsewhere overlapping pieces of
//! one score may come out otherwise than SentencePiece has them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{BYTE, Content, GgufVocabulary, Model, NORMAL, UNKNOWN};
use crate::TokenizerError;
use crate::tokenizer::{byte_token, pieces_decoder};

/// How SentencePiece writes a space.
const SPACE: &str = "\u{2581}";
/// Longest piece. Real ones have up to about 100 bytes.
pub(super) const PIECE_BYTES_MAX: usize = 512;

impl GgufVocabulary {
    /// The parts of `tokenizer.json` that differ from those of byte-level BPE.
    pub(super) fn sentence_piece(&self) -> Result<Content<'_>, TokenizerError> {
        self.check_scores()?;
        let byte_fallback = self.has_bytes();
        let unknown = self.unknown();
        if !byte_fallback && unknown.is_none() {
            return Err(self.malformed(
                "tokenizer.ggml.tokens has neither the 256 byte tokens <0x00> to <0xFF> nor an unknown token, \
                 so most texts have no ids",
            ));
        }
        let prefix = self.add_space_prefix.unwrap_or(true);
        let duplicates = self.duplicates();
        let included = |id: usize| self.token_type(id) != super::UNUSED && !duplicates.contains_key(&id);
        let included = (0..self.tokens.len()).map(included).collect();
        Ok(Content {
            normalizer: Some(normalizer(prefix)),
            pre_tokenizer: None,
            post_processor: self.template(true),
            decoder: pieces_decoder(prefix),
            model: Model {
                unk_token: unknown,
                fuse_unk: true,
                byte_fallback,
                ..Model::new(&self.tokens, included, self.piece_merges()?)
            },
        })
    }

    fn check_scores(&self) -> Result<(), TokenizerError> {
        let (scores, tokens) = (self.scores.len(), self.tokens.len());
        if scores != tokens {
            let what = format!("tokenizer.ggml.scores has {scores} numbers for {tokens} tokens");
            return Err(self.malformed(&what));
        }
        match self.scores.iter().position(|score| !score.is_finite()) {
            Some(id) => {
                let what = format!("tokenizer.ggml.scores: the score of token {id} is {}", self.scores[id]);
                Err(self.malformed(&what))
            }
            None => Ok(()),
        }
    }

    /// Whether every byte has a token.
    fn has_bytes(&self) -> bool {
        let mut seen = [false; 256];
        let is_byte = |id: &usize| matches!(self.token_type(*id), BYTE | NORMAL);
        for id in (0..self.tokens.len()).filter(is_byte) {
            if let Some(byte) = byte_token(&self.tokens[id]) {
                seen[usize::from(byte)] = true;
            }
        }
        seen.iter().all(|seen| *seen)
    }

    /// The token for what has none.
    fn unknown(&self) -> Option<&str> {
        let usable = |id: &usize| *id < self.tokens.len() && self.token_type(*id) != super::UNUSED;
        let named = self.special_id("unk_token").map(|id| id as usize).filter(usable);
        let typed = || (0..self.tokens.len()).find(|id| self.token_type(*id) == UNKNOWN);
        named.or_else(typed).map(|id| self.tokens[id].as_str())
    }

    /// Every way to make a piece of two, best first.
    fn piece_merges(&self) -> Result<Vec<(&str, &str)>, TokenizerError> {
        let duplicates = self.duplicates();
        let normal =
            |(id, _): &(usize, &String)| self.token_type(*id) == NORMAL && !duplicates.contains_key(id);
        let pieces: Vec<(usize, &str)> =
            self.tokens.iter().enumerate().filter(normal).map(|(id, piece)| (id, piece.as_str())).collect();
        if let Some((id, piece)) = pieces.iter().find(|(_, piece)| piece.len() > PIECE_BYTES_MAX) {
            let bytes = piece.len();
            return Err(self.malformed(&format!(
                "token {id} of tokenizer.ggml.tokens: expected at most {PIECE_BYTES_MAX} bytes, got {bytes}"
            )));
        }
        let ids: HashMap<&str, usize> = pieces.iter().map(|(id, piece)| (*piece, *id)).collect();
        let mut merges = Vec::new();
        for (id, piece) in &pieces {
            for (at, _) in piece.char_indices().skip(1) {
                let (left, right) = piece.split_at(at);
                if ids.contains_key(left) && ids.contains_key(right) {
                    merges.push((self.scores[*id], left, right));
                }
            }
        }
        // Stable, so that pieces with the same score come in the order of their ids.
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| b.1.len().cmp(&a.1.len())));
        Ok(merges.into_iter().map(|(_, left, right)| (left, right)).collect())
    }
}

fn normalizer(prefix: bool) -> Value {
    let prepend = prefix.then(|| json!({"type": "Prepend", "prepend": SPACE}));
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let steps: Vec<Value> = prepend.into_iter().chain([replace]).collect();
    json!({"type": "Sequence", "normalizers": steps})
}

#[cfg(test)]
mod tests {
    use super::super::{CONTROL, USER_DEFINED};
    use super::*;
    use crate::Tokenizer;

    /// Pieces with scores behind `<unk>`, `<s>`, `</s>` and the bytes.
    fn vocabulary(pieces: &[(&str, f32)]) -> GgufVocabulary {
        let mut found = GgufVocabulary { path: "m.gguf".into(), model: "llama".into(), ..Default::default() };
        let mut add = |token: String, kind: i64, score: f32| {
            found.tokens.push(token);
            found.token_types.push(kind);
            found.scores.push(score);
        };
        for (token, kind) in [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)] {
            add(token.to_owned(), kind, 0.0);
        }
        for byte in 0..=255u8 {
            add(format!("<0x{byte:02X}>"), BYTE, 0.0);
        }
        for (piece, score) in pieces {
            add((*piece).to_owned(), NORMAL, *score);
        }
        found
    }

    const PIECES: &[(&str, f32)] = &[
        ("\u{2581}a", -1.0),
        ("bc", -2.0),
        ("ab", -3.0),
        ("abc", -4.0),
        ("\u{2581}\u{2581}", -5.0),
        ("\u{2581}", -6.0),
        ("a", -7.0),
        ("b", -8.0),
        ("c", -9.0),
    ];

    #[track_caller]
    fn check(vocabulary: &GgufVocabulary, text: &str, expected: &[&str]) {
        let tokenizer = Tokenizer::from_gguf(vocabulary).unwrap();
        let ids = tokenizer.encode(text, false).unwrap();
        let tokens: Vec<String> =
            ids.iter().map(|id| tokenizer.token(*id).unwrap().replace('\u{2581}', "_")).collect();
        assert_eq!(tokens, expected, "{text:?}");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{text:?}");
    }

    #[test]
    fn the_best_pair_goes_first() {
        let found = vocabulary(PIECES);
        check(&found, "abc", &["_a", "bc"]);
        check(&found, "babc", &["_", "b", "abc"]);
        check(&found, "b ab", &["_", "b", "_a", "b"]);
        check(&found, "  b", &["__", "_", "b"]);
        check(&found, "", &[]);
    }

    #[test]
    fn what_is_no_piece_becomes_bytes() {
        let found = vocabulary(PIECES);
        check(&found, "aé\n", &["_a", "<0xC3>", "<0xA9>", "<0x0A>"]);
        // Spelled out, it is text.
        check(&found, "<0x0A>", &["_", "<0x3C>", "<0x30>", "<0x78>", "<0x30>", "<0x41>", "<0x3E>"]);
        let mut without = found;
        without.token_types[3] = super::super::UNUSED;
        let tokenizer = Tokenizer::from_gguf(&without).unwrap();
        assert_eq!(tokenizer.token(tokenizer.encode("aé", false).unwrap()[1]).unwrap(), "<unk>");
    }

    #[test]
    fn a_space_comes_first_unless_the_file_says_no() {
        let mut found = vocabulary(PIECES);
        let tokenizer = Tokenizer::from_gguf(&found).unwrap();
        // After a special token, too.
        let ids = tokenizer.encode("a</s>a", true).unwrap();
        assert_eq!(ids, [1, 259, 2, 259]);
        assert_eq!(tokenizer.encode_plain("</s>").unwrap()[0], 264);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a a");
        found.add_space_prefix = Some(false);
        check(&found, "a", &["a"]);
        check(&found, " a a", &["_a", "_a"]);
    }

    #[test]
    fn beginning_and_end_are_added_as_the_file_says() {
        let mut found = vocabulary(PIECES);
        let ids = |found: &GgufVocabulary| Tokenizer::from_gguf(found).unwrap().encode("a", true).unwrap();
        assert_eq!(ids(&found), [1, 259]);
        found.add_eos = Some(true);
        assert_eq!(ids(&found), [1, 259, 2]);
        found.special = vec![("bos_token".into(), 2), ("eos_token".into(), 1)];
        assert_eq!(ids(&found), [2, 259, 1]);
        (found.add_bos, found.add_eos) = (Some(false), Some(false));
        assert_eq!(ids(&found), [259]);
    }

    #[test]
    fn tokens_of_users_are_taken_whole() {
        let mut found = vocabulary(PIECES);
        found.tokens.push("  b".into());
        found.token_types.push(USER_DEFINED);
        found.scores.push(0.0);
        let tokenizer = Tokenizer::from_gguf(&found).unwrap();
        assert_eq!(tokenizer.encode("a  bc", false).unwrap(), [259, 268, 264, 267]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |change: &dyn Fn(&mut GgufVocabulary), expected: &str| {
            let mut found = vocabulary(PIECES);
            change(&mut found);
            let error = Tokenizer::from_gguf(&found).unwrap_err().to_string();
            assert!(error.starts_with("m.gguf: ") && error.contains(expected), "{error}");
        };
        check(&|v| v.scores.truncate(7), "scores has 7 numbers for 268 tokens");
        check(&|v| v.scores[260] = f32::NAN, "the score of token 260 is NaN");
        check(
            &|v| v.tokens[260] = "x".repeat(513),
            "token 260 of tokenizer.ggml.tokens: expected at most 512",
        );
        let lost = |v: &mut GgufVocabulary| v.token_types[..9].fill(super::super::UNUSED);
        check(&lost, "neither the 256 byte tokens <0x00> to <0xFF> nor an unknown token");
    }
}
