//! Text that streams is the text that `decode` gives at once, and never half a character.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::prelude::*;
use tokenizer::Tokenizer;

static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer");
    Tokenizer::from_directory(&directory).unwrap()
});
static SENTENCE_PIECE: LazyLock<Tokenizer> =
    LazyLock::new(|| support::load(&support::sentence_piece(), None, None).unwrap());

/// The same by a decoder that is not known: one step more, which changes nothing.
static OTHER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut json = support::sentence_piece();
    let steps = json["decoder"]["decoders"].as_array_mut().unwrap();
    steps.insert(2, serde_json::json!({"type": "Fuse"}));
    support::load(&json, None, None).unwrap()
});

/// The pieces that come out, the flushed rest last.
fn pieces(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Vec<String> {
    let mut stream = tokenizer.stream_decoder(skip_special);
    let mut out: Vec<String> = Vec::new();
    for &id in ids {
        out.extend(stream.push(id).unwrap());
    }
    out.extend(stream.flush().unwrap());
    assert!(out.iter().all(|piece| !piece.is_empty()));
    out
}

proptest! {
    #[test]
    fn byte_level_random_ids(
        ids in prop::collection::vec(prop_oneof![0u32..3020, 0u32..256], 0..60), skip: bool,
    ) {
        let whole = BYTE_LEVEL.decode(&ids, skip).unwrap();
        prop_assert_eq!(pieces(&BYTE_LEVEL, &ids, skip).concat(), whole);
    }

    /// Every byte its own token: the hardest way to spell a text.
    #[test]
    fn byte_level_text_in_single_bytes(text in "[\\PC\n]{0,30}") {
        prop_assume!(!text.contains('\u{fffd}'));
        let ids: Vec<u32> = text.bytes().map(single_byte).collect();
        let pieces = pieces(&BYTE_LEVEL, &ids, false);
        prop_assert_eq!(pieces.concat(), text.as_str());
        prop_assert_eq!(pieces.len(), text.chars().count());
    }

    #[test]
    fn sentence_piece_texts(text in "[ab é€🙂]{0,20}", special in 0usize..20) {
        let mut ids = SENTENCE_PIECE.encode(&text, true).unwrap();
        // A special token in the middle must not eat the space that follows it.
        ids.insert(special.min(ids.len()), 2);
        let whole = SENTENCE_PIECE.decode(&ids, true).unwrap();
        for tokenizer in [&*SENTENCE_PIECE, &*OTHER] {
            let pieces = pieces(tokenizer, &ids, true);
            prop_assert!(!pieces.concat().contains(char::REPLACEMENT_CHARACTER));
            prop_assert_eq!(pieces.concat(), whole.as_str());
        }
    }

    /// Words and valid characters in bytes, in any order.
    #[test]
    fn sentence_piece_valid_ids(
        runs in prop::collection::vec(prop_oneof![
            (259u32..267).prop_map(|id| vec![id]),
            any::<char>().prop_map(|c| c.to_string().bytes().map(|b| 3 + u32::from(b)).collect()),
        ], 0..20),
    ) {
        let ids = runs.concat();
        let whole = SENTENCE_PIECE.decode(&ids, false).unwrap();
        prop_assert_eq!(pieces(&SENTENCE_PIECE, &ids, false).concat(), whole.as_str());
        prop_assert_eq!(pieces(&OTHER, &ids, false).concat(), whole);
    }

    #[test]
    fn sentence_piece_random_ids(ids in prop::collection::vec(0u32..280, 0..80), skip: bool) {
        let out = pieces(&SENTENCE_PIECE, &ids, skip).concat();
        prop_assert_eq!(out, SENTENCE_PIECE.decode(&ids, skip).unwrap());
    }

    /// Whatever comes, it does not fail, and every valid character is there.
    #[test]
    fn other_random_ids(ids in prop::collection::vec(0u32..280, 0..80), skip: bool) {
        let out = pieces(&OTHER, &ids, skip).concat();
        let words = |text: &str| text.chars().filter(|c| "é".contains(*c)).count();
        prop_assert!(words(&out) >= words(&OTHER.decode(&ids, skip).unwrap()));
    }
}

/// The id of the token that is this one byte.
fn single_byte(byte: u8) -> u32 {
    (0..300).find(|&id| BYTE_LEVEL.token_bytes(id) == Some(vec![byte])).unwrap()
}

#[test]
fn an_emoji_appears_when_it_is_whole() {
    let mut stream = BYTE_LEVEL.stream_decoder(false);
    let out: Vec<Option<String>> =
        "🙂é".bytes().map(|byte| stream.push(single_byte(byte)).unwrap()).collect();
    let shown = |text: &str| Some(text.to_owned());
    assert_eq!(out, [None, None, None, shown("🙂"), None, shown("é")]);
    assert_eq!(stream.flush().unwrap(), None);
}

#[test]
fn what_never_becomes_a_character_is_replaced() {
    let mut stream = BYTE_LEVEL.stream_decoder(false);
    assert_eq!(stream.push(single_byte(0xf0)).unwrap(), None);
    assert_eq!(stream.push(single_byte(0x9f)).unwrap(), None);
    assert_eq!(stream.push(single_byte(b'a')).unwrap().as_deref(), Some("\u{fffd}a"));
    assert_eq!(stream.push(single_byte(0xe2)).unwrap(), None);
    assert_eq!(stream.push(u32::MAX).unwrap(), None);
    assert_eq!(stream.flush().unwrap().as_deref(), Some("\u{fffd}"));
    assert_eq!(stream.flush().unwrap(), None);
}

#[test]
fn a_text_that_goes_on_keeps_its_first_space() {
    [&*SENTENCE_PIECE, &*OTHER].into_iter().for_each(check_first_space);
    let mut bytes = BYTE_LEVEL.stream_decoder(true).after(&[single_byte(b'a')]);
    assert_eq!(bytes.push(single_byte(b' ')).unwrap().as_deref(), Some(" "));
}

fn check_first_space(tokenizer: &Tokenizer) {
    let stream = |context: &[u32], ids: &[u32]| {
        let mut stream = tokenizer.stream_decoder(true).after(context);
        let mut out: String = ids.iter().filter_map(|id| stream.push(*id).unwrap()).collect();
        out.extend(stream.flush().unwrap());
        out
    };
    let ids = SENTENCE_PIECE.encode("ab a é🙂", false).unwrap();
    assert_eq!(stream(&[], &ids), "ab a é🙂");
    assert_eq!(stream(&ids, &ids), " ab a é🙂");
    // Nothing but special tokens is the beginning of a text.
    assert_eq!(stream(&[1], &ids), "ab a é🙂");
    let long = SENTENCE_PIECE.encode(&"ab ".repeat(100), true).unwrap();
    assert_eq!(stream(&long, &ids), " ab a é🙂");
    // A character may begin in the prompt; what it gave is out already, and the rest is none.
    let euro: Vec<u32> = "€".bytes().map(|byte| 3 + u32::from(byte)).collect();
    assert!(stream(&euro[..1], &[&euro[1..], &ids[..]].concat()).ends_with("ab a é🙂"));
}

#[test]
fn literal_replacement_characters_are_whole() {
    // Many in a row, for each is three bytes that look like nothing until they are all there.
    let text = "\u{fffd}".repeat(40);
    let ids = SENTENCE_PIECE.encode(&text, false).unwrap();
    assert_eq!(pieces(&SENTENCE_PIECE, &ids, false).concat(), text);
}

#[test]
fn endless_broken_bytes_come_out_in_bounded_pieces() {
    let ids = [3 + 0xff; 1000];
    assert_eq!(pieces(&SENTENCE_PIECE, &ids, false), ["\u{fffd}"; 1000]);
    let pieces = pieces(&OTHER, &ids, false);
    assert!(pieces.len() > 30);
    assert_eq!(pieces.concat(), "\u{fffd}".repeat(1000));
}

#[test]
fn truncation_and_padding_of_the_file_are_off() {
    let text = "ab ".repeat(100);
    let ids = SENTENCE_PIECE.encode(&text, true).unwrap();
    assert_eq!((ids[0], ids.len() > 90), (1, true));
    assert_eq!(SENTENCE_PIECE.decode(&ids, true).unwrap(), text);
    assert_eq!(SENTENCE_PIECE.encode("a", false).unwrap().len(), 1);
}
