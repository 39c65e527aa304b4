//! Vocabularies of hostile GGUF files: an error or a tokenizer that works, never a panic.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tokenizer::{GgufVocabulary, Tokenizer};

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab\u{2581}é ]{0,4}",
        (0u8..=255).prop_map(|byte| format!("<0x{byte:02X}>")),
        prop_oneof![Just("<s>"), Just("</s>"), Just("<unk>"), Just("\0"), Just("\u{fffd}"), Just("Ġa")]
            .prop_map(str::to_owned),
    ]
}

/// Tokens with their types and scores.
fn tokens() -> impl Strategy<Value = Vec<(String, i64, f32)>> {
    let kind = prop_oneof![4 => Just(1i64), 1 => -1i64..9];
    let score = prop_oneof![8 => -9i8..9, 1 => Just(i8::MIN)];
    let score = score.prop_map(|score| if score == i8::MIN { f32::NAN } else { f32::from(score) });
    prop::collection::vec((token(), kind, score), 0..24)
}

fn vocabulary() -> impl Strategy<Value = GgufVocabulary> {
    let model = prop_oneof![4 => Just("llama"), 3 => Just("gpt2"), 1 => Just("t5")];
    let pre = prop_oneof![Just("qwen2"), Just("gpt-2"), Just("deepseek-llm"), Just("default")];
    let merge = prop_oneof!["[ab] [ab]", "[ab ]{0,5}"];
    let flags = (any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<bool>>(), any::<bool>());
    let special = prop::collection::vec((0usize..3, 0u32..30), 0..4);
    (model, pre, tokens(), prop::collection::vec(merge, 0..6), special, flags).prop_map(
        |(model, pre, tokens, merges, special, (add_bos, add_eos, add_space_prefix, bytes))| {
            let names = ["bos_token", "eos_token", "unk_token"];
            let mut found = GgufVocabulary {
                path: "m.gguf".into(),
                model: model.into(),
                pre: pre.into(),
                merges,
                special: special.into_iter().map(|(name, id)| (names[name].to_owned(), id)).collect(),
                add_bos,
                add_eos,
                add_space_prefix,
                ..GgufVocabulary::default()
            };
            let all_bytes = (0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), 6, 0.0));
            for (token, kind, score) in tokens.into_iter().chain(all_bytes.filter(|_| bytes)) {
                if found.tokens.contains(&token) {
                    continue;
                }
                found.tokens.push(token);
                found.token_types.push(kind);
                found.scores.push(score);
            }
            found
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_vocabulary(vocabulary in vocabulary(), text in "[ab é\u{2581}🙂\n]{0,12}|<s>a</s>|<0x41>") {
        match Tokenizer::from_gguf(&vocabulary) {
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.starts_with("m.gguf: ") && !error.contains('\n'), "{}", error);
            }
            Ok(tokenizer) => {
                for ids in [tokenizer.encode(&text, true), tokenizer.encode_plain(&text)] {
                    // A vocabulary may lack what the text needs.
                    let Ok(ids) = ids else { continue };
                    prop_assert!(ids.iter().all(|id| (*id as usize) < vocabulary.tokens.len()));
                    let whole = tokenizer.decode(&ids, true).unwrap();
                    let mut stream = tokenizer.stream_decoder(true);
                    let mut out: String = ids.iter().filter_map(|id| stream.push(*id).unwrap()).collect();
                    out.extend(stream.flush().unwrap());
                    prop_assert_eq!(&out, &whole);
                }
            }
        }
    }
}
