//! Ids and text: a model's own tokenizer, its chat template, and text that streams.
//!
//! * [`Tokenizer`] is made from the files of a model directory: `tokenizer.json`,
//!   `tokenizer_config.json` and `chat_template.jinja`, or from the metadata of a GGUF file
//!   ([`GgufVocabulary`]). It turns text into ids and back.
//! * [`StreamDecoder`] turns ids into text one at a time and never shows half a character.
//! * [`Tokenizer::apply_chat_template`] renders [`Message`]s with the model's template as Hugging
//!   Face transformers would; [`Tokenizer::encode_chat`] goes on to ids and keeps what users wrote
//!   from posing as control tokens.
//!
//! ```no_run
//! use std::path::Path;
//! use tokenizer::{Message, TemplateOptions, Tokenizer};
//!
//! let tokenizer = Tokenizer::from_directory(Path::new("models/qwen"))?;
//! let messages = [Message::system("Be brief."), Message::user("Why is the sky blue?")];
//! let options = TemplateOptions { add_generation_prompt: true, ..Default::default() };
//! let prompt = tokenizer.encode_chat(&messages, &options)?;
//!
//! let mut stream = tokenizer.stream_decoder(true);
//! for id in prompt {
//!     if let Some(text) = stream.push(id)? {
//!         print!("{text}"); // whole characters only
//!     }
//! }
//! if let Some(rest) = stream.flush()? {
//!     print!("{rest}"); // U+FFFD for bytes that never became a character
//! }
//! # Ok::<(), tokenizer::TokenizerError>(())
//! ```
//!
//! # Prompt injection
//!
//! A template writes control tokens such as `<|im_end|>` as text. If a user's message holds the
//! same text, the rendered prompt cannot tell the two apart: the user can end the turn and speak
//! as the system. Three functions, three answers:
//!
//! * [`Tokenizer::encode_chat`] marks control tokens (those that `tokenizer.json` calls *special*)
//!   in messages and tools before rendering, so that afterwards only the template's own become
//!   control tokens, and the users' become ordinary text. Use it for chats. Without such text
//!   its result is exactly that of the other way.
//! * [`Tokenizer::encode_plain`] takes nothing for a special token. Use it for text from outside
//!   that is no chat.
//! * [`Tokenizer::encode`] takes every special token in the text for what it says, as transformers
//!   does. Use it for prompts that the user writes for the model as they are (`--raw`).
//!
//! Added tokens that are not special, such as Qwen's `<think>` and `<tool_call>`, are tokens
//! wherever they appear: models were trained so, and they do not delimit turns.
//!
//! # Hostile files
//!
//! A template is a program from the internet. It sees only the messages, has no way to files, the
//! network or the process, and is stopped when it exceeds [`TEMPLATE_FUEL`] (work and memory),
//! [`TEMPLATE_OUTPUT_BYTES_MAX`], [`TEMPLATE_RECURSION_MAX`] or [`TEMPLATE_TIME_MAX`]. It runs on
//! a thread with a stack of [`TEMPLATE_STACK_BYTES`], so that deep nesting cannot end the process.
//! Files are read up to a limit.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod companions;
mod control;
mod error;
mod files;
mod gguf;
mod jinja;
mod message;
mod pieces;
mod stream;
mod template;
mod time;
mod tokenizer;

pub use error::TokenizerError;
pub use files::{CHAT_TEMPLATE_BYTES_MAX, TOKENIZER_BYTES_MAX, TOKENIZER_CONFIG_BYTES_MAX};
pub use gguf::GgufVocabulary;
pub use message::{Message, MessageContent, TemplateOptions};
pub use stream::StreamDecoder;
pub use template::{
    TEMPLATE_FUEL, TEMPLATE_OUTPUT_BYTES_MAX, TEMPLATE_RECURSION_MAX, TEMPLATE_STACK_BYTES,
    TEMPLATE_TIME_MAX, TEMPLATES_MAX,
};
pub use tokenizer::Tokenizer;
