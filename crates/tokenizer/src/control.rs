//! Keeps control tokens that users wrote apart from those that the template writes.

use serde_json::Value;

use crate::TokenizerError;

/// Breaks up control tokens in the strings of JSON values with a mark that occurs nowhere in
/// them, so that the mark can be taken out again after rendering.
///
/// The mark goes behind the first character of each control token, and of each beginning of one
/// at the end of a string, lest two strings that a template joins form one. A mark is no
/// whitespace, so that templates trim and split as without it.
pub(crate) struct Breaker<'a> {
    tokens: &'a [String],
    mark: char,
    found: bool,
}

impl<'a> Breaker<'a> {
    /// A breaker for `tokens` in `values`.
    pub(crate) fn new(tokens: &'a [String], values: &[&Value]) -> Result<Self, TokenizerError> {
        // Private use and noncharacters of plane 15: text practically never has them, and a text
        // with all 65,536 is an attack.
        let mark = ('\u{f0000}'..='\u{fffff}')
            .find(|&mark| !values.iter().any(|value| contains(value, mark)))
            .ok_or_else(|| TokenizerError::Messages {
                what: "they contain every private-use character, which no text does".to_owned(),
            })?;
        Ok(Self { tokens, mark, found: false })
    }

    /// Whether anything was marked.
    pub(crate) fn found(&self) -> bool {
        self.found
    }

    /// Marks all strings in `value`, keys included.
    pub(crate) fn mark(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(marked) = self.marked(text) {
                    *text = marked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark(item)),
            Value::Object(fields) => {
                let old = std::mem::take(fields);
                for (key, mut item) in old {
                    self.mark(&mut item);
                    fields.insert(self.marked(&key).unwrap_or(key), item);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// The text without the marks.
    pub(crate) fn unmarked(&self, text: &str) -> String {
        text.replace(self.mark, "")
    }

    /// The marked text, if there is anything to mark.
    fn marked(&mut self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut copied = 0;
        for (start, first) in text.char_indices() {
            let rest = &text[start..];
            let begins = |token: &String| {
                // A token of one character cannot be broken up.
                token.len() > first.len_utf8()
                    && (rest.starts_with(token.as_str()) || token.starts_with(rest))
            };
            if self.tokens.iter().any(begins) {
                let end = start + first.len_utf8();
                out.push_str(&text[copied..end]);
                out.push(self.mark);
                copied = end;
            }
        }
        if copied == 0 {
            return None;
        }
        self.found = true;
        out.push_str(&text[copied..]);
        Some(out)
    }
}

fn contains(value: &Value, mark: char) -> bool {
    match value {
        Value::String(text) => text.contains(mark),
        Value::Array(items) => items.iter().any(|item| contains(item, mark)),
        Value::Object(fields) => fields.iter().any(|(key, item)| key.contains(mark) || contains(item, mark)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marks_whole_tokens_and_beginnings_at_the_end() {
        let tokens = ["<|end|>".to_owned(), "<s>".to_owned()];
        let mut value = json!({"a<s>": ["<|end|><|en", "x <", "plain > text", 3], "b": "<|e>"});
        let before = value.clone();
        let mut breaker = Breaker::new(&tokens, &[&value]).unwrap();
        breaker.mark(&mut value);
        let marked = value.to_string();
        let m = '\u{f0000}';
        let expected = json!({format!("a<{m}s>"):
            [format!("<{m}|end|><{m}|en"), format!("x <{m}"), "plain > text", 3], "b": "<|e>"});
        assert_eq!(value, expected);
        assert!(breaker.found());
        assert_eq!(breaker.unmarked(&marked), before.to_string());
    }

    #[test]
    fn the_mark_is_one_that_does_not_occur() {
        let value = json!(["\u{f0000}\u{f0001}", {"\u{f0002}": 1}]);
        let breaker = Breaker::new(&[], &[&value]).unwrap();
        assert_eq!(breaker.mark, '\u{f0003}');
        assert!(!breaker.found());
    }
}
