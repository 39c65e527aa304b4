//! The tokenizer of a model: `tokenizer.json` and what belongs to it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString};
use tokenizers::{AddedToken, AddedVocabulary, DecoderWrapper, NormalizerWrapper};

use crate::companions::{Companions, END_TEXTS, end_ids};
use crate::control::Breaker;
use crate::error::{encode_error, one_line};
use crate::files::{
    CHAT_TEMPLATE_BYTES_MAX, TOKENIZER_BYTES_MAX, TOKENIZER_CONFIG_BYTES_MAX, read, read_json,
};
use crate::pieces::{Cuts, Pieces, longest_token};
use crate::template::{ChatTemplates, TEMPLATES_MAX};
use crate::{Message, TemplateOptions, TokenizerError};

/// A model's tokenizer with its chat template. Immutable: share it between threads.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens once more, in a mood to treat special ones as text.
    plain: AddedVocabulary,
    /// The texts of the special tokens.
    control: Vec<String>,
    /// Ids whose text another id has, to that id: a text has one id, an id has a text.
    same_as: HashMap<u32, u32>,
    decoding: Decoding,
    /// Where long texts can be cut.
    cuts: Cuts,
    /// Most bytes of text that one id stands for, if that is known.
    longest: Option<usize>,
    templates: ChatTemplates,
}

/// How ids become text.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoding {
    /// Characters of tokens stand for bytes.
    ByteLevel,
    /// SentencePiece: U+2581 is a space, and some tokens are bytes.
    Pieces {
        /// Whether the space that a text begins with is no part of it.
        drop_space: bool,
    },
    /// Whatever the file's decoder does.
    Other,
}

impl Decoding {
    fn of(decoder: Option<&DecoderWrapper>) -> Decoding {
        if matches!(decoder, Some(DecoderWrapper::ByteLevel(_))) {
            return Decoding::ByteLevel;
        }
        let found = serde_json::to_value(decoder).unwrap_or_default();
        let pieces = |drop_space: &bool| found == pieces_decoder(*drop_space);
        [true, false]
            .into_iter()
            .find(pieces)
            .map_or(Decoding::Other, |drop_space| Decoding::Pieces { drop_space })
    }
}

/// The `decoder` of tokenizer.json that SentencePiece vocabularies have.
pub(crate) fn pieces_decoder(drop_space: bool) -> Value {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if drop_space {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

impl Tokenizer {
    /// Makes a tokenizer from a model's files. Without `tokenizer_config` and
    /// `chat_template_jinja` it has no chat template; with both, the `.jinja` file's template
    /// takes the place of the default one.
    ///
    /// Truncation and padding that `tokenizer.json` may ask for are switched off: nothing may
    /// silently shorten a prompt.
    ///
    /// # Errors
    /// [`TokenizerError::Io`], [`TokenizerError::TooLarge`] or [`TokenizerError::Malformed`],
    /// naming the file. A template is compiled only when it is used, so that a broken one does not
    /// keep the model from running without it.
    pub fn from_files(
        tokenizer_json: &Path,
        tokenizer_config: Option<&Path>,
        chat_template_jinja: Option<&Path>,
    ) -> Result<Self, TokenizerError> {
        let companions = Companions::read(tokenizer_config, None, None)?;
        Self::from_parts(tokenizer_json, tokenizer_config, chat_template_jinja, &companions)
    }

    fn from_parts(
        tokenizer_json: &Path,
        tokenizer_config: Option<&Path>,
        chat_template_jinja: Option<&Path>,
        companions: &Companions,
    ) -> Result<Self, TokenizerError> {
        let bytes = read(tokenizer_json, TOKENIZER_BYTES_MAX)?;
        check_syntax(&bytes).map_err(|e| malformed(tokenizer_json, &e))?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| malformed(tokenizer_json, &e))?;
        let mut templates =
            ChatTemplates::from_config(&companions.config, tokenizer_config.unwrap_or(tokenizer_json))?;
        if let Some(path) = chat_template_jinja {
            let source =
                String::from_utf8(read(path, CHAT_TEMPLATE_BYTES_MAX)?).map_err(|e| malformed(path, &e))?;
            templates.add_default(&source, path)?;
        }
        Self::new(inner, templates, companions).map_err(|e| malformed(tokenizer_json, &e))
    }

    /// Makes a tokenizer from all files of a model directory that transformers makes it from: those of
    /// [`Self::from_files`], and `special_tokens_map.json`, `added_tokens.json`, `chat_template.json`
    /// (where there is no other template) and `additional_chat_templates/NAME.jinja`.
    ///
    /// # Errors
    /// As [`Self::from_files`]; a missing `tokenizer.json` is [`TokenizerError::Io`].
    pub fn from_directory(directory: &Path) -> Result<Self, TokenizerError> {
        // A link to nothing is no absent file: reading it fails, by its name.
        let file = |name: &str| Some(directory.join(name)).filter(|path| path.symlink_metadata().is_ok());
        let (config, template) = (file("tokenizer_config.json"), file("chat_template.jinja"));
        let (map, added) = (file("special_tokens_map.json"), file("added_tokens.json"));
        let companions = Companions::read(config.as_deref(), map.as_deref(), added.as_deref())?;
        let json = directory.join("tokenizer.json");
        let mut this = Self::from_parts(&json, config.as_deref(), template.as_deref(), &companions)?;
        if let Some(path) = file("chat_template.json").filter(|_| !this.has_chat_template()) {
            let found = read_json(&path, TOKENIZER_CONFIG_BYTES_MAX)?;
            if let Some(source) = found.get("chat_template").and_then(Value::as_str) {
                this.templates.add_default(source, &path)?;
            }
        }
        this.add_named_templates(&directory.join("additional_chat_templates"))?;
        Ok(this)
    }

    fn add_named_templates(&mut self, directory: &Path) -> Result<(), TokenizerError> {
        // There is usually none.
        let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
        paths.sort();
        for path in paths.iter().take(TEMPLATES_MAX) {
            let source =
                String::from_utf8(read(path, CHAT_TEMPLATE_BYTES_MAX)?).map_err(|e| malformed(path, &e))?;
            if let Some(name) = path.file_stem().and_then(|name| name.to_str()) {
                self.templates.add(name, &source, path)?;
            }
        }
        Ok(())
    }

    /// Makes a tokenizer from the content of a `tokenizer.json` and a `tokenizer_config.json` that
    /// stem from the file at `path`.
    pub(crate) fn from_json(
        path: &Path,
        tokenizer_json: Vec<u8>,
        tokenizer_config: &Value,
    ) -> Result<Self, TokenizerError> {
        let inner = tokenizers::Tokenizer::from_bytes(tokenizer_json).map_err(|e| malformed(path, &e))?;
        let templates = ChatTemplates::from_config(tokenizer_config, path)?;
        let companions = Companions { config: tokenizer_config.clone(), ..Companions::default() };
        Self::new(inner, templates, &companions).map_err(|e| malformed(path, &e))
    }

    fn new(
        mut inner: tokenizers::Tokenizer,
        templates: ChatTemplates,
        companions: &Companions,
    ) -> Result<Self, tokenizers::Error> {
        let same_as = add_tokens(&mut inner, companions);
        inner.with_padding(None);
        inner.with_truncation(None)?;
        let mut plain = inner.get_added_vocabulary().clone();
        plain.set_encode_special_tokens(true);
        let added = inner.get_added_vocabulary().get_added_tokens_decoder();
        let control = added.values().filter(|token| token.special).map(|t| t.content.clone()).collect();
        let decoding = Decoding::of(inner.get_decoder());
        let cuts = Cuts::of(&inner);
        let longest = longest_token(&inner, &cuts);
        Ok(Self { inner, plain, control, same_as, decoding, cuts, longest, templates })
    }

    /// The ids of a text. Special tokens in the text are recognised, as rendered templates need;
    /// with `add_special_tokens` the tokenizer also adds those it puts around every text (the
    /// beginning-of-text token, where the model has one), which rendered templates already hold.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer cannot represent the text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let (mut ids, after) = if add_special_tokens { self.around()? } else { Default::default() };
        self.pieces().encode(text, self.inner.get_added_vocabulary(), &mut |piece| ids.extend(piece))?;
        ids.extend(after);
        Ok(ids)
    }

    /// The ids of a text that may have `max` of them: as [`Self::encode`], but a text that has more is
    /// refused, before it is encoded where its length alone shows it.
    ///
    /// # Errors
    /// [`TokenizerError::TooManyIds`]; as [`Self::encode`].
    pub fn encode_within(&self, text: &str, special: bool, max: usize) -> Result<Vec<u32>, TokenizerError> {
        self.check_bytes(text.len(), max)?;
        if self.fewest_ids(text.len()) <= max {
            let ids = self.encode(text, special)?;
            return if ids.len() <= max { Ok(ids) } else { Err(too_many(ids.len(), true, max)) };
        }
        Err(too_many(self.count(text, special)?, true, max))
    }

    /// Refuses a text that is far too long, without looking at it.
    fn check_bytes(&self, bytes: usize, max: usize) -> Result<(), TokenizerError> {
        let fewest = self.fewest_ids(bytes);
        match fewest > max.saturating_mul(FAR_TOO_LONG) {
            true => Err(too_many(fewest, false, max)),
            false => Ok(()),
        }
    }

    /// How many ids [`Self::encode`] would make, without keeping them.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer cannot represent the text.
    pub fn count(&self, text: &str, add_special_tokens: bool) -> Result<usize, TokenizerError> {
        let (before, after) = if add_special_tokens { self.around()? } else { Default::default() };
        let mut count = before.len() + after.len();
        self.pieces().encode(text, self.inner.get_added_vocabulary(), &mut |piece| count += piece.len())?;
        Ok(count)
    }

    /// A number of ids that no text of so many bytes has fewer of.
    pub fn fewest_ids(&self, bytes: usize) -> usize {
        self.longest.map_or(0, |longest| bytes / longest)
    }

    /// The ids that are put before and behind every text.
    fn around(&self) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let ids = |special: bool| {
            let encoding = self.inner.encode_fast("a", special);
            encoding.map(|encoding| encoding.get_ids().to_vec()).map_err(|error| encode_error("a", error))
        };
        let (mut whole, bare) = (ids(true)?, ids(false)?);
        let start = whole.windows(bare.len().max(1)).position(|ids| ids == bare).unwrap_or(0);
        let after = whole.split_off((start + bare.len()).min(whole.len()));
        whole.truncate(start);
        Ok((whole, after))
    }

    /// The ids of a text in which nothing is a special token: `<|im_end|>` becomes the ids of its
    /// characters. Added tokens that are not special are still recognised. Adds nothing.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer cannot represent the text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.pieces().encode(text, &self.plain, &mut |piece| ids.extend(piece))?;
        Ok(ids)
    }

    /// The text of ids, all at once. Ids outside the vocabulary have no text; `skip_special`
    /// leaves out special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        if self.decoding != Decoding::Other {
            let shown = ids.iter().filter(|id| !skip_special || !self.is_special(**id));
            let bytes: Vec<u8> = shown.filter_map(|id| self.token_bytes(*id)).flatten().collect();
            let drop_space = self.decoding == Decoding::Pieces { drop_space: true };
            let text = bytes.strip_prefix(b" ").filter(|_| drop_space).unwrap_or(&bytes);
            return Ok(String::from_utf8_lossy(text).into_owned());
        }
        let ids: Vec<u32> = ids.iter().map(|id| self.known_id(*id)).collect();
        self.inner
            .decode(&ids, skip_special)
            .map_err(|error| TokenizerError::Decode { count: ids.len(), what: one_line(&error.to_string()) })
    }

    /// The bytes that a token stands for inside a text, or `None` outside the vocabulary. They may
    /// be part of a character. For SentencePiece conversions the leading space is there.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let id = self.known_id(id);
        let token = self.token(id)?;
        // Added tokens are text, even DeepSeek's `ü`, whose character stands for a byte in others.
        if self.inner.get_added_vocabulary().simple_id_to_token(id).is_some() {
            return Some(token.into_bytes());
        }
        if self.decoding == Decoding::ByteLevel {
            let bytes: Option<Vec<u8>> = token.chars().map(byte_of_char).collect();
            return Some(bytes.unwrap_or_else(|| token.into_bytes()));
        }
        if let Some(byte) = byte_token(&token) {
            return Some(vec![byte]);
        }
        // U+2581 is how SentencePiece writes a space.
        Some(token.replace('\u{2581}', " ").into_bytes())
    }

    /// A token as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(self.known_id(id))
    }

    /// The id by which the vocabulary knows the text of this one.
    fn known_id(&self, id: u32) -> u32 {
        self.same_as.get(&id).copied().unwrap_or(id)
    }

    /// The ids of tokens that end a turn or a text by what they are called, whatever else the files
    /// say of them.
    pub fn end_token_ids(&self) -> Vec<u32> {
        let added = self.inner.get_added_vocabulary();
        let mut ids = end_ids(|text| {
            added
                .token_to_id(text, self.inner.get_model())
                .filter(|id| added.simple_id_to_token(*id).is_some())
        });
        ids.extend(
            self.same_as
                .iter()
                .filter(|(_, known)| ids.contains(known))
                .map(|(id, _)| *id)
                .collect::<Vec<_>>(),
        );
        ids
    }

    /// The ids that are put before every text, such as the beginning-of-text token.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn text_prefix(&self) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.around()?.0)
    }

    /// The id of a token as the vocabulary writes it, for instance `<|im_end|>`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether an id is a special token, which is no part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.get(&self.known_id(id)).is_some_and(|token| token.special)
    }

    /// How many tokens there are, added ones included. The model's `vocab_size` is often larger:
    /// it is padded.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true) + self.same_as.len()
    }

    /// Whether the model has a chat template.
    pub fn has_chat_template(&self) -> bool {
        !self.templates.is_empty()
    }

    /// Renders messages with the model's chat template, as transformers'
    /// `apply_chat_template(tokenize=False)`. Encode the result with [`Self::encode`] without
    /// adding special tokens; or use [`Self::encode_chat`], which also keeps users from writing
    /// control tokens.
    ///
    /// # Errors
    /// * [`TokenizerError::NoChatTemplate`], [`TokenizerError::UnknownTemplate`].
    /// * [`TokenizerError::Refused`] if the template does not accept the messages.
    /// * [`TokenizerError::Template`], [`TokenizerError::TemplateFuel`],
    ///   [`TokenizerError::TemplateOutput`] if the template is broken or exceeds its limits.
    pub fn apply_chat_template(
        &self,
        messages: &[Message],
        options: &TemplateOptions,
    ) -> Result<String, TokenizerError> {
        self.templates.render(messages_value(messages)?, options)
    }

    /// Renders messages with the model's chat template and encodes the result. Control tokens in
    /// the messages, tools and extra variables become ordinary text; those of the template are
    /// control tokens. See the crate's documentation on prompt injection.
    ///
    /// # Errors
    /// As [`Self::apply_chat_template`] and [`Self::encode`].
    pub fn encode_chat(
        &self,
        messages: &[Message],
        options: &TemplateOptions,
    ) -> Result<Vec<u32>, TokenizerError> {
        self.encode_chat_within(messages, options, usize::MAX)
    }

    /// As [`Self::encode_chat`], for at most `max` ids. Messages that are many times too long are not
    /// rendered.
    ///
    /// # Errors
    /// [`TokenizerError::TooManyIds`]; as [`Self::encode_chat`].
    pub fn encode_chat_within(
        &self,
        messages: &[Message],
        options: &TemplateOptions,
        max: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        // A template may leave out what was said earlier, but not nearly all of it.
        self.check_bytes(messages.iter().map(Message::text_bytes).sum(), max)?;
        let mut messages = messages_value(messages)?;
        let mut tools = options.tools.clone().unwrap_or(Value::Null);
        let mut extra = Value::Object(options.extra.clone());
        let mut breaker = Breaker::new(&self.control, &[&messages, &tools, &extra])?;
        for value in [&mut messages, &mut tools, &mut extra] {
            breaker.mark(value);
        }
        if !breaker.found() {
            // The usual case, and exactly what transformers does.
            let text = self.templates.render(messages, options)?;
            return if text.is_empty() {
                Err(TokenizerError::EmptyRendering)
            } else {
                self.encode_within(&text, false, max)
            };
        }
        let mut options = options.clone();
        options.tools = Some(tools).filter(|tools| !tools.is_null());
        if let Value::Object(extra) = extra {
            options.extra = extra;
        }
        let text = self.templates.render(messages, &options)?;
        if text.is_empty() {
            return Err(TokenizerError::EmptyRendering);
        }
        self.check_bytes(text.len(), max)?;
        let ids = self.encode_marked(&text, &breaker)?;
        if ids.len() <= max { Ok(ids) } else { Err(too_many(ids.len(), true, max)) }
    }

    /// Encodes a rendered text with marks: special tokens in it are the template's own; what lies
    /// between them is plain text once the marks are out.
    fn encode_marked(&self, text: &str, breaker: &Breaker) -> Result<Vec<u32>, TokenizerError> {
        let added = self.inner.get_added_vocabulary();
        let pieces: PreTokenizedString = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
        let mut ids = Vec::new();
        let mut between = String::new();
        for (piece, _, tokens) in pieces.get_splits(OffsetReferential::Original, OffsetType::None) {
            let special = tokens.as_ref().filter(|tokens| tokens.iter().all(|t| self.is_special(t.id)));
            let Some(tokens) = special else {
                between.push_str(piece);
                continue;
            };
            ids.extend(self.encode_plain(&breaker.unmarked(&std::mem::take(&mut between)))?);
            ids.extend(tokens.iter().map(|token| token.id));
        }
        ids.extend(self.encode_plain(&breaker.unmarked(&between))?);
        Ok(ids)
    }

    pub(crate) fn decoding(&self) -> Decoding {
        self.decoding
    }

    pub(crate) fn pieces(&self) -> Pieces<'_> {
        Pieces { inner: &self.inner, cuts: &self.cuts }
    }
}

/// Adds the tokens of the companion files, and makes end-of-turn tokens control tokens. Returns the
/// ids whose text another id has.
fn add_tokens(inner: &mut tokenizers::Tokenizer, companions: &Companions) -> HashMap<u32, u32> {
    let tokens = companions.tokens();
    let known = inner.get_added_vocabulary().get_added_tokens_decoder().values();
    let mut seen: HashSet<String> = known.map(|token| token.content.clone()).collect();
    let mut missing: Vec<AddedToken> = tokens.iter().map(|(_, token)| token.clone()).collect();
    missing.retain(|token| seen.insert(token.content.clone()));
    inner.add_tokens(&missing);
    let added = inner.get_added_vocabulary().get_added_tokens_decoder().clone();
    let ends = added.values().filter(|t| !t.special && END_TEXTS.contains(&t.content.as_str()));
    let ends: Vec<AddedToken> = ends.map(|t| AddedToken { special: true, ..t.clone() }).collect();
    // In a vocabulary alone it is text, unless nobody writes such text.
    let hidden = END_TEXTS.iter().filter(|text| text.starts_with("<|") || text.starts_with("<｜"));
    let hidden: Vec<AddedToken> = hidden
        .filter(|text| inner.token_to_id(text).is_some_and(|id| !added.contains_key(&id)))
        .map(|text| AddedToken::from(*text, true))
        .collect();
    inner.add_special_tokens(&[ends, hidden].concat());
    let mut same_as = companions.duplicates();
    for (id, token) in tokens {
        if let (Some(id), Some(known)) = (id, inner.token_to_id(&token.content))
            && id != known
            && inner.id_to_token(id).is_none()
        {
            same_as.insert(id, known);
        }
    }
    same_as.retain(|id, known| inner.id_to_token(*id).is_none() && inner.id_to_token(*known).is_some());
    same_as
}

/// A text whose length alone shows that it has so many times the ids that there is room for is not
/// looked at.
const FAR_TOO_LONG: usize = 16;

fn too_many(count: usize, exact: bool, max: usize) -> TokenizerError {
    TokenizerError::TooManyIds { count, exact, max }
}

fn malformed(path: &Path, error: &dyn std::fmt::Display) -> TokenizerError {
    TokenizerError::Malformed { path: path.to_owned(), what: one_line(&error.to_string()) }
}

/// Parses the file once for its syntax. `tokenizers` panics on a syntax error inside `decoder`
/// and reports others as a shape that did not match; this names line and column.
fn check_syntax(bytes: &[u8]) -> Result<(), serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct File {
        /// Read as a value, for skipping it would let numbers and escapes pass that reading does
        /// not.
        #[serde(default)]
        #[expect(dead_code)]
        decoder: Value,
    }
    serde_json::from_slice::<File>(bytes).map(|_| ())
}

/// The messages as JSON, with reasoning under each of the names that templates use for it, as
/// transformers fills them.
fn messages_value(messages: &[Message]) -> Result<Value, TokenizerError> {
    const NAMES: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let mut value = serde_json::to_value(messages)
        .map_err(|error| TokenizerError::Messages { what: one_line(&error.to_string()) })?;
    for message in value.as_array_mut().into_iter().flatten() {
        let Some(fields) = message.as_object_mut() else { continue };
        let reasoning = NAMES.iter().filter_map(|&name| fields.get(name)).find(|v| !v.is_null());
        if let Some(reasoning) = reasoning.cloned() {
            fields.entry("thinking").or_insert_with(|| reasoning.clone());
            fields.insert("reasoning_content".to_owned(), reasoning);
        }
    }
    Ok(value)
}

/// The byte that byte-level BPE writes as this character: printable Latin-1 characters are
/// themselves, the other 68 bytes are U+0100 and following in their order.
fn byte_of_char(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The byte of a token `<0xAB>`.
pub(crate) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_characters_match_one_to_one() {
        let mut seen = [false; 256];
        let mut next = 0x100;
        for byte in 0..=255u8 {
            let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable { u32::from(byte) } else { next };
            next += u32::from(!printable);
            let back = char::from_u32(code).and_then(byte_of_char).unwrap();
            assert_eq!(u32::from(crate::pieces::char_of_byte(byte)), code);
            assert_eq!(back, byte);
            seen[back as usize] = true;
        }
        assert!(seen.iter().all(|s| *s));
        assert_eq!(byte_of_char('\u{144}'), None);
        assert_eq!(byte_of_char(' '), None);
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xA>"), None);
    }
}
