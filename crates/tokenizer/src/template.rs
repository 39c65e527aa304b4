//! Chat templates: Jinja programs that come with the model.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value as JinjaValue};
use serde_json::{Map, Value};

use crate::error::one_line;
use crate::files::CHAT_TEMPLATE_BYTES_MAX;
use crate::{TemplateOptions, TokenizerError, jinja, time};

/// Work a template may do for one rendering, in minijinja's units: one instruction, 64 bytes
/// produced, or 2 list items visited cost 1. A full context of 262,144 tokens (1 MB of text in
/// 1,000 messages) takes some 200,000. All of it is spent in a fraction of a second, at most about
/// 64 bytes are allocated per unit, and it bounds how deep a value can be nested, see
/// [`TEMPLATE_STACK_BYTES`].
pub const TEMPLATE_FUEL: u64 = 600_000;
/// Stack of the thread that renders, in bytes. minijinja compiles, writes and drops nested things
/// recursively, and a hostile template can nest a value about once per 1.5 units of fuel, or once
/// per 2 bytes of its source; a level takes up to 700 bytes. On an ordinary stack that would end
/// the whole process. The memory is only reserved; usual templates touch some kilobytes of it.
pub const TEMPLATE_STACK_BYTES: usize = if cfg!(target_pointer_width = "64") { 512 << 20 } else { 128 << 20 };
/// Longest time that one rendering may take; usual ones take milliseconds.
pub const TEMPLATE_TIME_MAX: Duration = Duration::from_secs(20);
/// Renderings that may still be running after [`TEMPLATE_TIME_MAX`] before new ones are refused.
const TEMPLATE_ABANDONED_MAX: usize = 2;
/// Longest text a template may write, in bytes.
pub const TEMPLATE_OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Deepest recursion of macros and nested statements (a macro call counts about ten).
pub const TEMPLATE_RECURSION_MAX: usize = 250;
/// Most named templates of one model.
pub const TEMPLATES_MAX: usize = 64;

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";

/// A model's templates and the special tokens they can name.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChatTemplates {
    /// (name, source)
    templates: Vec<(String, String)>,
    /// `bos_token`, `eos_token` and so on, as text.
    variables: Map<String, Value>,
    /// Threads that took too long and may still run.
    abandoned: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// What `raise_exception` carries, so that it can be told from an error of the template.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// What the writer reports when the output is too long.
#[derive(Debug, thiserror::Error)]
#[error("output too long")]
struct TooLong;

impl ChatTemplates {
    /// Takes templates and special tokens from a parsed `tokenizer_config.json`.
    pub(crate) fn from_config(config: &Value, path: &Path) -> Result<Self, TokenizerError> {
        let malformed = |what: String| TokenizerError::Malformed { path: path.to_owned(), what };
        let mut this = Self { variables: special_tokens(config), ..Self::default() };
        match config.get("chat_template") {
            None | Some(Value::Null) => {}
            Some(Value::String(source)) => this.add(DEFAULT, source, path)?,
            Some(Value::Array(list)) if list.len() <= TEMPLATES_MAX => {
                for entry in list {
                    let text = |key: &str| entry.get(key).and_then(Value::as_str);
                    let (Some(name), Some(source)) = (text("name"), text("template")) else {
                        let what = "an entry of chat_template lacks the texts name and template";
                        return Err(malformed(what.to_owned()));
                    };
                    this.add(name, source, path)?;
                }
            }
            Some(Value::Array(list)) => {
                let count = list.len();
                let what = format!("chat_template has {count} entries, expected {TEMPLATES_MAX}");
                return Err(malformed(what + " at most"));
            }
            Some(_) => {
                return Err(malformed("chat_template is neither a text nor a list".to_owned()));
            }
        }
        Ok(this)
    }

    /// Adds a template; one of the same name is replaced. One that says nothing is none. Line ends
    /// become LF, as Jinja reads a source.
    pub(crate) fn add(&mut self, name: &str, source: &str, path: &Path) -> Result<(), TokenizerError> {
        if source.len() as u64 > CHAT_TEMPLATE_BYTES_MAX {
            let limit = CHAT_TEMPLATE_BYTES_MAX;
            return Err(TokenizerError::TooLarge { path: path.to_owned(), limit });
        }
        if source.trim().is_empty() {
            return Ok(());
        }
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        self.templates.retain(|(known, _)| known != name);
        self.templates.push((name.to_owned(), source));
        Ok(())
    }

    /// Adds the one template of `chat_template.jinja`, which wins over the configuration's.
    pub(crate) fn add_default(&mut self, source: &str, path: &Path) -> Result<(), TokenizerError> {
        self.add(DEFAULT, source, path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// Renders `messages` (a list of objects).
    pub(crate) fn render(
        &self,
        messages: Value,
        options: &TemplateOptions,
    ) -> Result<String, TokenizerError> {
        let (name, source) = self.choose(options)?;
        let context = self.context(messages, options);
        self.render_within(TEMPLATE_TIME_MAX, name, source, context, options.now_s)
    }

    /// Renders on a thread of its own and gives up waiting after `limit`. Fuel bounds the work of
    /// rendering, but nothing bounds that of compiling, which a hostile source can drive up to
    /// minutes. A thread cannot be stopped from outside; a few that nobody waits for are let be.
    fn render_within(
        &self,
        limit: Duration,
        name: &str,
        source: &str,
        context: Map<String, Value>,
        now_s: Option<i64>,
    ) -> Result<String, TokenizerError> {
        let failed = |what: String| TokenizerError::Template {
            template: one_line(name),
            line: 0,
            what: one_line(&what),
        };
        let too_long = || TokenizerError::TemplateTime { template: one_line(name), limit_s: limit.as_secs() };
        // A poisoned list is still a list.
        let lock = || self.abandoned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut abandoned = lock();
        abandoned.retain(|thread| !thread.is_finished());
        if abandoned.len() >= TEMPLATE_ABANDONED_MAX {
            return Err(too_long());
        }
        drop(abandoned);
        let (sender, receiver) = mpsc::sync_channel(1);
        let (name_there, source) = (name.to_owned(), source.to_owned());
        let thread = std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(TEMPLATE_STACK_BYTES)
            .spawn(move || {
                // It fails when nobody waits any more.
                let _ = sender.send(render_here(&name_there, &source, context, now_s));
            })
            .map_err(|error| failed(format!("cannot start a thread to render it: {error}")))?;
        match receiver.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                lock().push(thread);
                Err(too_long())
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(failed("the template engine panicked on it".to_owned()))
            }
        }
    }

    fn choose(&self, options: &TemplateOptions) -> Result<(&str, &str), TokenizerError> {
        let find = |wanted: &str| self.templates.iter().find(|(name, _)| name == wanted);
        let chosen = match &options.template {
            Some(wanted) => find(wanted).ok_or_else(|| self.unknown(wanted))?,
            None if self.templates.is_empty() => return Err(TokenizerError::NoChatTemplate),
            None => has_tools(options)
                .then(|| find(TOOL_USE))
                .flatten()
                .or_else(|| find(DEFAULT))
                // The only one there is must be meant.
                .or_else(|| self.templates.first().filter(|_| self.templates.len() == 1))
                .ok_or_else(|| self.unknown(DEFAULT))?,
        };
        Ok((&chosen.0, &chosen.1))
    }

    fn unknown(&self, wanted: &str) -> TokenizerError {
        let names: Vec<&str> = self.templates.iter().map(|(name, _)| name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        TokenizerError::UnknownTemplate { wanted: one_line(wanted), known: one_line(&known) }
    }

    /// Every variable that the template sees, as transformers sets them.
    fn context(&self, messages: Value, options: &TemplateOptions) -> Map<String, Value> {
        let mut context = self.variables.clone();
        context.insert("documents".into(), Value::Null);
        context.insert("tools".into(), options.tools.clone().unwrap_or(Value::Null));
        context.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        if let Some(thinking) = options.enable_thinking {
            context.insert("enable_thinking".into(), thinking.into());
        }
        context.extend(options.extra.clone());
        context.insert("messages".into(), messages);
        context
    }
}

fn has_tools(options: &TemplateOptions) -> bool {
    !matches!(options.tools, None | Some(Value::Null))
}

/// Renders on this thread's stack.
fn render_here(
    name: &str,
    source: &str,
    context: Map<String, Value>,
    now_s: Option<i64>,
) -> Result<String, TokenizerError> {
    let environment = environment(now_s);
    let failed = |error: Error| failure(name, &error);
    let source = jinja::rewrite(source);
    let template = environment.template_from_named_str(name, &source).map_err(failed)?;
    let mut out = Limited { bytes: Vec::new(), limit: TEMPLATE_OUTPUT_BYTES_MAX };
    let context = JinjaValue::from(Serde(context));
    template.render_captured_to(context, &mut out).map_err(failed)?;
    String::from_utf8(out.bytes).map_err(|_| TokenizerError::Template {
        template: one_line(name),
        line: 0,
        what: "it wrote bytes that are no text".to_owned(),
    })
}

/// The entries `*_token`, texts or objects with `content`, and `additional_special_tokens`.
fn special_tokens(config: &Value) -> Map<String, Value> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(token) => token.get("content").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let mut variables = Map::new();
    for (key, value) in config.as_object().into_iter().flatten() {
        if key.ends_with("_token") {
            if let Some(token) = text(value) {
                variables.insert(key.clone(), token.into());
            }
        } else if key == "additional_special_tokens" {
            let tokens = value.as_array().map_or(&[][..], Vec::as_slice);
            let tokens: Vec<String> = tokens.iter().filter_map(text).collect();
            variables.insert(key.clone(), tokens.into());
        }
    }
    variables
}

/// The dialect of transformers' environment; see `utils/chat_template_utils.py` there.
fn environment(now_s: Option<i64>) -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    // The default delimiters are always valid.
    env.set_syntax(syntax.unwrap_or_default());
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(jinja::write_value);
    env.set_unknown_method_callback(jinja::method);
    env.set_fuel(Some(TEMPLATE_FUEL));
    env.set_recursion_limit(TEMPLATE_RECURSION_MAX);
    jinja::install(&mut env);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", move |format: &str| {
        time::strftime(format, now_s.unwrap_or_else(local_now_s))
    });
    env
}

fn raise_exception(message: &JinjaValue) -> Result<JinjaValue, Error> {
    let message = message.to_string();
    let error = Error::new(ErrorKind::InvalidOperation, "raise_exception");
    Err(error.with_source(Raised(message)))
}

/// Seconds since 1970 of the clock on the wall, as Python's `datetime.now()` tells it.
fn local_now_s() -> i64 {
    let now = jiff::Timestamp::now();
    let offset = jiff::tz::TimeZone::system().to_offset(now);
    now.as_second().saturating_add(offset.seconds().into())
}

/// Says in this crate's words what went wrong in a template.
fn failure(name: &str, error: &Error) -> TokenizerError {
    let template = one_line(name);
    let line = error.line().unwrap_or(0);
    let mut what = error.kind().to_string();
    if let Some(detail) = error.detail() {
        what = format!("{what}: {detail}");
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return TokenizerError::Refused { message: one_line(message) };
        }
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<TooLong>()) {
            let limit = TEMPLATE_OUTPUT_BYTES_MAX;
            return TokenizerError::TemplateOutput { template, limit };
        }
        what = format!("{what}: {cause}");
        source = cause.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return TokenizerError::TemplateFuel { template, line, fuel: TEMPLATE_FUEL };
    }
    TokenizerError::Template { template, line, what: one_line(&what) }
}

/// Collects output up to a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::Error::other(TooLong));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// minijinja folds the constants of this chain again and again while it compiles.
    #[test]
    fn slow_templates_are_given_up() {
        let templates = ChatTemplates::default();
        let slow = format!("{{{{ {}1 }}}}", "'a'+".repeat(16_000));
        let render =
            |source: &str| templates.render_within(Duration::from_millis(20), "t", source, Map::new(), None);
        for _ in 0..TEMPLATE_ABANDONED_MAX {
            assert!(matches!(render(&slow), Err(TokenizerError::TemplateTime { .. })));
        }
        assert!(matches!(render("quick"), Err(TokenizerError::TemplateTime { .. })));
    }

    #[test]
    fn special_tokens_are_texts_or_objects() {
        let config = serde_json::json!({
            "bos_token": "<s>", "eos_token": {"content": "</s>", "special": true},
            "pad_token": null, "add_bos_token": true,
            "additional_special_tokens": ["<a>", {"content": "<b>"}],
        });
        let expected = serde_json::json!({
            "bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<a>", "<b>"],
        });
        assert_eq!(Value::from(special_tokens(&config)), expected);
    }
}
