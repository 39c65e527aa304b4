//! Text from ids that come one at a time, in whole characters.

use std::ops::Deref;

use crate::tokenizer::Decoding;
use crate::{Tokenizer, TokenizerError};

/// Most ids that are held back while they end in an incomplete character. A character is at most
/// 4 bytes, so at most 4 ids of single bytes; beyond this the bytes are not going to become one.
const PENDING_MAX: usize = 16;

/// Turns ids into text as they come, and holds back bytes until they are a whole character.
///
/// For byte-level tokenizers (Qwen, GPT, Llama 3, DeepSeek, GLM) and SentencePiece's (Llama 2,
/// Mixtral) everything pushed and flushed, put together, is exactly [`Tokenizer::decode`] of all
/// ids, and at most 3 bytes are held back. Of tokenizers with another decoder, the text of some ids
/// is held back where it may change; for invalid bytes it may differ.
///
/// A U+FFFD that comes out stands for bytes that are no UTF-8, never for part of a character that
/// the next ids complete.
///
/// It borrows its tokenizer ([`Tokenizer::stream_decoder`]) or shares it, as an `Arc`.
#[derive(Clone, Debug)]
pub struct StreamDecoder<T> {
    tokenizer: T,
    skip_special: bool,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Bytes {
        /// The beginning of a character.
        held: Vec<u8>,
        /// Whether the text has not begun and a space at its beginning is to be dropped.
        drop_space: bool,
    },
    /// Ids whose text was given out, which the next ones need as context (a leading space is
    /// dropped only at the very beginning), then ids held back.
    Window { ids: Vec<u32>, given: usize },
}

impl Tokenizer {
    /// A decoder for ids that come one at a time.
    pub fn stream_decoder(&self, skip_special: bool) -> StreamDecoder<&Self> {
        StreamDecoder::new(self, skip_special)
    }
}

impl<T: Deref<Target = Tokenizer>> StreamDecoder<T> {
    /// At the beginning of a text. With `skip_special`, special tokens have no text.
    pub fn new(tokenizer: T, skip_special: bool) -> Self {
        let state = State::new(&tokenizer);
        Self { tokenizer, skip_special, state }
    }

    /// Lets the text go on where that of `ids` ends: the space that a SentencePiece text begins
    /// with is then part of the text that comes. Without it, the first space is dropped, as
    /// [`Tokenizer::decode`] drops it.
    #[must_use]
    pub fn after(mut self, ids: &[u32]) -> Self {
        let text = ids.iter().copied().filter(|id| !self.skip_special || !self.tokenizer.is_special(*id));
        match &mut self.state {
            State::Bytes { drop_space, .. } => *drop_space &= text.count() == 0,
            State::Window { ids: context, given } => {
                let text: Vec<u32> = text.collect();
                *context = text[text.len().saturating_sub(PENDING_MAX)..].to_vec();
                *given = context.len();
            }
        }
        self
    }

    /// Takes the next id; returns the characters that are now complete, if any. An id outside the
    /// vocabulary has no text.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] if the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, TokenizerError> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(None);
        }
        let text = match &mut self.state {
            State::Bytes { held, drop_space } => {
                let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
                // The text begins with the first byte.
                let dropped = usize::from(*drop_space && bytes.first() == Some(&b' '));
                *drop_space &= bytes.is_empty();
                held.extend(&bytes[dropped..]);
                take_characters(held)
            }
            State::Window { ids, given } => {
                ids.push(id);
                let must = ids.len() - *given >= PENDING_MAX;
                take_window(&self.tokenizer, ids, given, must)?
            }
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Ends the text: returns what was held back, with U+FFFD for an incomplete character. The
    /// decoder is then as new.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] if the tokenizer's decoder fails.
    pub fn flush(&mut self) -> Result<Option<String>, TokenizerError> {
        let text = match &mut self.state {
            State::Bytes { held, .. } => String::from_utf8_lossy(held).into_owned(),
            State::Window { ids, given } => take_window(&self.tokenizer, ids, given, true)?,
        };
        self.state = State::new(&self.tokenizer);
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

impl State {
    fn new(tokenizer: &Tokenizer) -> State {
        let bytes = |drop_space| State::Bytes { held: Vec::new(), drop_space };
        match tokenizer.decoding() {
            Decoding::ByteLevel => bytes(false),
            Decoding::Pieces { drop_space } => bytes(drop_space),
            Decoding::Other => State::Window { ids: Vec::new(), given: 0 },
        }
    }
}

/// Takes everything from `held` but an incomplete character at its end. Invalid bytes become
/// U+FFFD in the way `String::from_utf8_lossy` does it.
fn take_characters(held: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(held.len());
    let mut rest = 0;
    for chunk in held.utf8_chunks() {
        text.push_str(chunk.valid());
        rest += chunk.valid().len();
        let invalid = chunk.invalid();
        // Only the end of the bytes can be an incomplete character rather than a wrong one.
        let at_end = rest + invalid.len() == held.len();
        if at_end && is_incomplete(invalid) {
            break;
        }
        if !invalid.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        rest += invalid.len();
    }
    held.drain(..rest);
    text
}

/// Whether further bytes could make this a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && std::str::from_utf8(bytes).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
}

/// The text that the ids from `given` on add to the ones before, unless it ends in U+FFFD, which
/// may be an incomplete character, and `must` is not set.
fn take_window(
    tokenizer: &Tokenizer,
    ids: &mut Vec<u32>,
    given: &mut usize,
    must: bool,
) -> Result<String, TokenizerError> {
    let all = tokenizer.decode(ids, false)?;
    if all.ends_with(char::REPLACEMENT_CHARACTER) && !must {
        return Ok(String::new());
    }
    let before = tokenizer.decode(&ids[..*given], false)?;
    let text = match all.strip_prefix(before.as_str()) {
        Some(text) => text.to_owned(),
        // New bytes made the run they continue invalid; its text is out already.
        None => tokenizer.decode(&ids[*given..], false)?,
    };
    // Ids without text (the dropped space of the beginning) stay, for they are context, too.
    if !text.is_empty() {
        ids.drain(..*given);
        *given = ids.len();
    } else if must {
        *given = ids.len();
        ids.drain(..ids.len().saturating_sub(PENDING_MAX));
        *given = ids.len();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes bytes in pieces and compares with the conversion of all of them.
    fn check(bytes: &[u8], pieces: &[usize]) {
        let (mut held, mut out, mut rest) = (Vec::new(), String::new(), bytes);
        for &piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at(piece.clamp(1, 8).min(rest.len()));
            held.extend_from_slice(now);
            out.push_str(&take_characters(&mut held));
            assert!(held.len() <= 3, "{held:?}");
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        out.push_str(&String::from_utf8_lossy(&held));
        assert_eq!(out, String::from_utf8_lossy(bytes));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            bytes in prop::collection::vec(prop_oneof![
                any::<u8>(), Just(0xf0), Just(0x9f), Just(0x98), Just(0xe2), Just(0xed), Just(0xa0)
            ], 0..40),
            pieces in prop::collection::vec(1usize..5, 1..10),
        ) {
            check(&bytes, &pieces);
        }

        #[test]
        fn valid_text_never_shows_a_replacement(text in "\\PC{0,20}") {
            prop_assume!(!text.contains(char::REPLACEMENT_CHARACTER));
            let mut held = Vec::new();
            for byte in text.bytes() {
                held.push(byte);
                let shown = take_characters(&mut held);
                prop_assert!(!shown.contains(char::REPLACEMENT_CHARACTER));
            }
            prop_assert!(held.is_empty());
        }
    }
}
