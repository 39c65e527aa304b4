//! How byte-level families split text before they merge, by the name that GGUF files have for it.
//!
//! Patterns are those of the families' own `tokenizer.json` or of the Python that some have instead.

use serde_json::{Value, json};

/// How one family splits text before it merges.
pub(super) struct PreTokenizer {
    /// Names in `tokenizer.ggml.pre`.
    pub(super) names: &'static [&'static str],
    splits: Splits,
    /// Whether text is brought into Unicode's form C first.
    pub(super) nfc: bool,
    /// Whether a word that is a token is taken whole, without merging.
    pub(super) ignore_merges: bool,
    /// Whether texts begin with the beginning-of-text token if the file does not say.
    pub(super) add_bos: bool,
}

/// What a text is split by.
enum Splits {
    /// Patterns one after the other; each match of one is a word, and so is what lies between matches.
    Patterns(&'static [&'static str]),
    /// GPT-2's own pattern.
    Gpt2,
    /// Digits one by one, then GPT-2's pattern.
    DigitsGpt2,
}

impl PreTokenizer {
    /// The one that a file names.
    pub(super) fn named(name: &str) -> Option<&'static PreTokenizer> {
        PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name))
    }

    /// All names, for messages.
    pub(super) fn known() -> String {
        let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied().collect();
        known.join(", ")
    }

    const fn new(names: &'static [&'static str], splits: Splits) -> PreTokenizer {
        PreTokenizer { names, splits, nfc: false, ignore_merges: false, add_bos: false }
    }

    const fn nfc(self) -> PreTokenizer {
        PreTokenizer { nfc: true, ..self }
    }

    const fn ignore_merges(self) -> PreTokenizer {
        PreTokenizer { ignore_merges: true, ..self }
    }

    const fn add_bos(self) -> PreTokenizer {
        PreTokenizer { add_bos: true, ..self }
    }

    /// `pre_tokenizer` of tokenizer.json.
    pub(super) fn json(&self) -> Value {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex});
        match &self.splits {
            Splits::Patterns(patterns) => {
                let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
                let steps: Vec<Value> = patterns.iter().map(split).chain([bytes(false)]).collect();
                json!({"type": "Sequence", "pretokenizers": steps})
            }
            Splits::Gpt2 => bytes(true),
            Splits::DigitsGpt2 => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true},
                bytes(true),
            ]}),
        }
    }
}

/// Words with English endings as words of their own, digits one by one.
const WORDS_1_DIGIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The same with up to three digits together.
const WORDS_3_DIGITS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Words split where small letters are followed by large ones, with their endings.
const CASES: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The same without endings, digits one by one.
const CASES_1_DIGIT: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// As [`CASES`], with Chinese characters as words of their own.
const CASES_HAN: &str = concat!(
    r"[\p{Han}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Letters of alphabets with upper and lower case, as DeepSeek's first tokenizer lists them.
/// Escaped are those that editors may replace by what Unicode takes for the same.
const DEEPSEEK_LETTERS: &str = concat!(
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1F7D}",
    "ᾀ-ᾴᾶ-ᾼ\u{1FBE}ῂ-ῄῆ-ῌῐ-\u{1FD3}ῖ-\u{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ",
    "𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
);

/// The pre-tokenisers that are known.
const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer::new(
        &["qwen35"],
        Splits::Patterns(&[concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|",
            r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )]),
    )
    .nfc(),
    PreTokenizer::new(&["qwen2", "deepseek-r1-qwen", "megrez"], Splits::Patterns(&[WORDS_1_DIGIT])).nfc(),
    PreTokenizer::new(&["hunyuan", "grok-2"], Splits::Patterns(&[WORDS_1_DIGIT])),
    PreTokenizer::new(
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "lfm2", "midm-2.0", "pixtral"],
        Splits::Patterns(&[WORDS_3_DIGITS]),
    )
    .ignore_merges()
    .add_bos(),
    PreTokenizer::new(&["glm4"], Splits::Patterns(&[WORDS_3_DIGITS])).ignore_merges(),
    PreTokenizer::new(&["chatglm-bpe", "dbrx", "smaug-bpe"], Splits::Patterns(&[WORDS_3_DIGITS])),
    PreTokenizer::new(&["tekken"], Splits::Patterns(&[CASES_1_DIGIT])).ignore_merges().add_bos(),
    PreTokenizer::new(&["gpt-4o", "llama4", "kanana2", "minimax-m2"], Splits::Patterns(&[CASES])),
    // The family has no tokenizer.json, only code that takes whole tokens first.
    PreTokenizer::new(&["kimi-k2"], Splits::Patterns(&[CASES_HAN])).ignore_merges(),
    PreTokenizer::new(
        &["deepseek-llm"],
        Splits::Patterns(&[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            r"[一-龥ࠀ-一가-퟿]+",
            r"\p{N}",
        ]),
    ),
    PreTokenizer::new(
        &["deepseek-coder"],
        Splits::Patterns(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"]),
    ),
    PreTokenizer::new(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        Splits::Patterns(&[
            r"\p{N}{1,3}",
            r"[一-龥぀-ゟ゠-ヿ]+",
            concat!(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"##,
                r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
        ]),
    ),
    PreTokenizer::new(
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        Splits::Patterns(&[concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}|",
            r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
        )]),
    ),
    PreTokenizer::new(
        &["exaone-moe"],
        Splits::Patterns(&[concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
        )]),
    ),
    PreTokenizer::new(&["command-r"], Splits::DigitsGpt2).nfc(),
    PreTokenizer::new(
        &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        Splits::DigitsGpt2,
    ),
    PreTokenizer::new(
        &["gpt-2", "phi-2", "olmo", "mpt", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4", "trillion"],
        Splits::Gpt2,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::{PreTokenizer as _, PreTokenizerWrapper};

    fn words(name: &str, text: &str) -> Vec<String> {
        let json = PreTokenizer::named(name).unwrap().json();
        let found: PreTokenizerWrapper = serde_json::from_value(json).unwrap();
        let mut text = tokenizers::PreTokenizedString::from(text);
        found.pre_tokenize(&mut text).unwrap();
        let splits = text.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        splits.into_iter().map(|(piece, _, _)| piece.replace('Ġ', " ").replace('Ċ', "\n")).collect()
    }

    #[test]
    fn each_name_is_listed_once_and_every_pattern_compiles() {
        let mut seen = std::collections::HashSet::new();
        for name in PRE_TOKENIZERS.iter().flat_map(|pre| pre.names) {
            assert!(seen.insert(name), "{name}");
            assert_eq!(words(name, "A b").concat(), "A b", "{name}");
        }
        assert!(PreTokenizer::named("viking").is_none());
    }

    #[test]
    fn families_split_as_they_do() {
        let text = "HTTPServer don't 12345 f(x)//\n\n if";
        let check = |name: &str, expected: &[&str]| assert_eq!(words(name, text), expected, "{name}");
        check("gpt-4o", &["HTTPServer", " don't", " ", "123", "45", " f", "(x", ")//\n\n", " if"]);
        check(
            "tekken",
            &["HTTPServer", " don", "'t", " ", "1", "2", "3", "4", "5", " f", "(x", ")//\n\n", " if"],
        );
        check("glm4", &["HTTPServer", " don", "'t", " ", "123", "45", " f", "(x", ")//\n\n", " if"]);
        check("deepseek-v3", &["HTTPServer", " don", "'t", " ", "123", "45", " f", "(x", ")//\n\n", " if"]);
        check("gpt-2", &["HTTPServer", " don", "'t", " 12345", " f", "(", "x", ")//", "\n\n", " if"]);
        check(
            "starcoder",
            &["HTTPServer", " don", "'t", " ", "1", "2", "3", "4", "5", " f", "(", "x", ")//", "\n\n", " if"],
        );
        check(
            "bailingmoe2",
            &["HTTPServer", " don", "'t", " ", "1", "2", "3", "4", "5", " f", "(x", ")//\n\n", " if"],
        );
        let chinese = |name: &str| words(name, "中文English混合12").len();
        assert_eq!(["kimi-k2", "deepseek-v3", "gpt-4o", "qwen2"].map(chinese), [4, 4, 2, 3]);
    }
}
