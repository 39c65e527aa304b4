//! What can be wrong with tokenizer files, templates and messages.

use std::path::PathBuf;

/// An error of this crate. Every message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any real one.
    #[error(
        "{} is larger than {limit} bytes, the limit for such a file; it is damaged or not what \
         its name says, fetch it again", path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A file does not say what it should.
    #[error("{}: {what}; fetch the file again from the model's page", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A kind of tokenizer in a GGUF file that is not read yet.
    #[error(
        "{}: `{key}` is {got:?}, which is not supported; expected one of {known}; use the model's \
         Hugging Face files instead", path.display()
    )]
    UnsupportedGguf {
        /// The file.
        path: PathBuf,
        /// The metadata's key.
        key: String,
        /// Its value.
        got: String,
        /// What is supported.
        known: String,
    },
    /// Text could not be turned into ids.
    #[error("the tokenizer cannot encode {bytes} bytes of text: {what}")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// What the tokenizer said.
        what: String,
    },
    /// The text has more ids than there is room for.
    #[error("the text has {}{count} tokens, and there is room for {max}", if *exact { "" } else { "at least " })]
    TooManyIds {
        /// Ids of the text, or a number that it has at least.
        count: usize,
        /// Whether they were counted.
        exact: bool,
        /// How many there is room for.
        max: usize,
    },
    /// Ids could not be turned into text.
    #[error("the tokenizer cannot decode {count} ids: {what}")]
    Decode {
        /// How many ids.
        count: usize,
        /// What the tokenizer said.
        what: String,
    },
    /// The model has no chat template.
    #[error(
        "the model has no chat template (neither chat_template.jinja nor chat_template in \
         tokenizer_config.json); give the prompt as it is, without a template"
    )]
    NoChatTemplate,
    /// No template of the given name.
    #[error("the model has no chat template named {wanted:?}; it has {known}")]
    UnknownTemplate {
        /// The name asked for.
        wanted: String,
        /// The names there are.
        known: String,
    },
    /// The template does not compile or failed.
    #[error("chat template {template:?}, line {line}: {what}")]
    Template {
        /// The template's name.
        template: String,
        /// Line in the template, from 1; 0 if unknown.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// The template wrote nothing, so there is no prompt.
    #[error(
        "the model's chat template makes an empty prompt of these messages; give the prompt as it is, \
         without the template"
    )]
    EmptyRendering,
    /// The template itself refused the messages with `raise_exception`.
    #[error("the model's chat template refuses these messages: {message}")]
    Refused {
        /// The template's words.
        message: String,
    },
    /// The template did more work than allowed.
    #[error(
        "chat template {template:?}, line {line}: it used up its {fuel} units of work; it loops or \
         the conversation is far too long, shorten it or give the prompt without the template"
    )]
    TemplateFuel {
        /// The template's name.
        template: String,
        /// Line in the template, from 1; 0 if unknown.
        line: usize,
        /// The limit, [`crate::TEMPLATE_FUEL`].
        fuel: u64,
    },
    /// The template took too long.
    #[error(
        "chat template {template:?} is not done after {limit_s} s; it is broken or hostile, get \
         the model elsewhere or give the prompt without the template"
    )]
    TemplateTime {
        /// The template's name.
        template: String,
        /// The limit, [`crate::TEMPLATE_TIME_MAX`].
        limit_s: u64,
    },
    /// The template wrote more than allowed.
    #[error(
        "chat template {template:?} writes more than {limit} bytes; shorten the conversation or \
         give the prompt without the template"
    )]
    TemplateOutput {
        /// The template's name.
        template: String,
        /// The limit, [`crate::TEMPLATE_OUTPUT_BYTES_MAX`].
        limit: usize,
    },
    /// The messages or options cannot be given to a template.
    #[error("the messages cannot be given to the chat template: {what}")]
    Messages {
        /// What is wrong.
        what: String,
    },
}

/// What a tokenizer said to a text.
pub(crate) fn encode_error(text: &str, error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Encode { bytes: text.len(), what: one_line(&error.to_string()) }
}
/// Text from a file or a library in the one line and the length that a message has room for.
pub(crate) fn one_line(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    let mut line = String::new();
    for (count, word) in text.split_whitespace().enumerate() {
        if count > 0 {
            line.push(' ');
        }
        line.push_str(word);
        if let Some((end, _)) = line.char_indices().nth(CHARS_MAX) {
            line.truncate(end);
            line.push_str("...");
            break;
        }
    }
    line.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn lines_are_joined_and_cut() {
        assert_eq!(one_line(" a\n  b.\r\n"), "a b");
        assert_eq!(one_line(&"é".repeat(1000)).chars().count(), 400);
    }
}
