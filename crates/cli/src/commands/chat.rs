//! `flash-moe chat`: a conversation at a terminal, or with one turn a line of standard input.

use std::io::{self, BufRead, IsTerminal};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use engine::{
    Canceller, Conversation, Engine, EngineError, Event, FinishReason, Generation, Input, TemplateOptions,
};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::run::{Shown, print_summary, set_sampling, shrink_on_hangup, take_events};
use crate::args::ChatArgs;
use crate::output;

const HELP: &str = "\
/reset          forget what was said (also /clear)
/system TEXT    start over with this system message; without a text, with none
/stats          figures of the last answer
/quit           end (also Ctrl-D)
A line that ends in \\ goes on in the next; one that begins with // is said with a single /. Ctrl-C stops an answer.";

pub(crate) fn run(args: &ChatArgs) -> anyhow::Result<()> {
    let engine = super::open(&args.model, &args.load, Input::Chat)?;
    shrink_on_hangup(&engine)?;
    let interrupt = Interrupt::install()?;
    let mut input = Lines::new()?;
    let conversation = Conversation::new(args.system.as_deref());
    let mut chat = Chat { args, engine, conversation, interrupt, last: None };
    if input.is_interactive() {
        chat.greet();
    }
    while let Some(line) = input.line()? {
        match chat.line(&line) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            // At a terminal the next turn may work; a script should stop.
            Err(error) if input.is_interactive() && !is_output_error(&error) => output::error(&error),
            Err(error) => return Err(error),
        }
    }
    Ok(chat.engine.flush_trace()?)
}

fn is_output_error(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some()
}

/// Where turns come from.
enum Lines {
    Editor(Box<DefaultEditor>),
    Piped(io::Lines<io::StdinLock<'static>>),
}

impl Lines {
    fn new() -> anyhow::Result<Self> {
        match io::stdin().is_terminal() {
            true => Ok(Self::Editor(Box::new(DefaultEditor::new().context("cannot use the terminal")?))),
            false => Ok(Self::Piped(io::stdin().lock().lines())),
        }
    }

    fn is_interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// The next turn or command; `None` at the end.
    fn line(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Editor(editor) => edited(editor),
            Self::Piped(lines) => lines.next().transpose().context("standard input is not UTF-8 text"),
        }
    }
}

/// A line from the editor, with those that it goes on in.
fn edited(editor: &mut DefaultEditor) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    loop {
        match editor.readline(if text.is_empty() { "> " } else { ". " }) {
            Ok(line) => match line.strip_suffix('\\') {
                Some(begun) => {
                    text.push_str(begun);
                    text.push('\n');
                }
                None => {
                    text.push_str(&line);
                    // A line that cannot be remembered is still a line.
                    let _ = editor.add_history_entry(&text);
                    return Ok(Some(text));
                }
            },
            Err(ReadlineError::Interrupted) => {
                text.clear();
                output::aside("Ctrl-D or /quit ends the conversation");
            }
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        }
    }
}

/// What Ctrl-C does, which depends on what is going on.
#[derive(Clone)]
struct Interrupt {
    /// [`IDLE`], [`PROMPT`] or [`ANSWER`].
    phase: Arc<AtomicU8>,
    asked: Arc<AtomicBool>,
    /// Of the answer under way.
    canceller: Arc<Mutex<Option<Canceller>>>,
}

/// Nothing is computed: Ctrl-C ends the process. (In the line editor it is a key and clears the line.)
const IDLE: u8 = 0;
/// The prompt is computed: Ctrl-C stops within the layer.
const PROMPT: u8 = 1;
/// Tokens are generated: Ctrl-C stops after the one under way, so that nothing need be computed
/// again; twice, at once.
const ANSWER: u8 = 2;

impl Interrupt {
    fn install() -> anyhow::Result<Self> {
        let interrupt = Self { phase: Arc::default(), asked: Arc::default(), canceller: Arc::default() };
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            let again = handler.asked.swap(true, Ordering::Relaxed);
            match (handler.phase.load(Ordering::Relaxed), again) {
                (ANSWER, false) => {}
                (ANSWER, true) | (PROMPT, false) => match handler.lock().take() {
                    Some(canceller) => canceller.cancel(),
                    None => std::process::exit(1),
                },
                _ => std::process::exit(1),
            }
        })
        .context("cannot handle Ctrl-C")?;
        Ok(interrupt)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Canceller>> {
        self.canceller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn begin(&self, canceller: Canceller) {
        self.asked.store(false, Ordering::Relaxed);
        *self.lock() = Some(canceller);
        self.enter(PROMPT);
    }

    fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

struct Chat<'a> {
    args: &'a ChatArgs,
    engine: Engine,
    conversation: Conversation,
    interrupt: Interrupt,
    last: Option<Generation>,
}

impl Chat<'_> {
    fn greet(&self) {
        let (config, ctx) = (self.engine.config(), self.engine.plan().ctx);
        let name = config.family;
        output::aside(&format!(
            "{}: {name}, context of {ctx} tokens. /help lists commands.",
            self.args.model
        ));
    }

    /// A turn or a command.
    fn line(&mut self, line: &str) -> anyhow::Result<ControlFlow<()>> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            if !line.is_empty() {
                self.turn(line)?;
            }
            return Ok(ControlFlow::Continue(()));
        };
        if command.starts_with('/') {
            self.turn(command)?;
            return Ok(ControlFlow::Continue(()));
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match name {
            "quit" | "exit" => return Ok(ControlFlow::Break(())),
            "help" => output::note(HELP),
            "reset" | "clear" => self.start_over(self.args.system.clone()),
            "system" => self.start_over(Some(rest.trim().to_string()).filter(|text| !text.is_empty())),
            "stats" => match &self.last {
                Some(last) => print_summary(last),
                None => output::note("nothing was answered yet"),
            },
            _ => output::note(&format!("there is no command /{name}; /help lists them")),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn start_over(&mut self, system: Option<String>) {
        self.conversation = Conversation::new(system.as_deref());
        match system {
            Some(system) => output::aside(&format!("a new conversation; system: {system}")),
            None => output::aside("a new conversation"),
        }
    }

    fn turn(&mut self, text: &str) -> anyhow::Result<()> {
        let options = TemplateOptions { enable_thinking: self.args.thinking, ..TemplateOptions::default() };
        let request = self.conversation.request(&self.engine, text, &options).map_err(with_advice);
        let mut request = request?;
        set_sampling(&self.args.sampling, &mut request);
        request.max_tokens = self.args.max_tokens.unwrap_or(request.max_tokens);
        let mut shown = Shown::new(true);
        let interrupt = self.interrupt.clone();
        let running = self.engine.submit(request).map_err(with_advice)?;
        interrupt.begin(running.canceller());
        let generation = take_events(running, |event| {
            if let Event::Token { .. } = event {
                interrupt.enter(ANSWER);
            }
            let flow = shown.on(event);
            if interrupt.asked() { ControlFlow::Break(()) } else { flow }
        });
        interrupt.enter(IDLE);
        shown.finish();
        let generation = generation?;
        shown.result()?;
        self.summary(&generation);
        // A prompt that was given up was never said.
        if generation.finish_reason != FinishReason::Cancelled || !generation.tokens.is_empty() {
            self.conversation.answered(text, &generation);
        }
        self.last = Some(generation);
        Ok(())
    }

    /// One line of figures.
    fn summary(&self, generation: &Generation) {
        let (stats, ctx, prompt) = (&generation.stats, self.engine.plan().ctx, generation.prompt.len());
        let used = prompt + generation.tokens.len();
        let mut line = format!(
            "{} new of {prompt} prompt tokens at {:.1}/s · {} tokens at {:.1}/s · context {used} of {ctx}",
            stats.prompt_tokens,
            stats.prefill_tokens_per_s,
            stats.generated_tokens,
            stats.decode_tokens_per_s,
        );
        match generation.finish_reason {
            FinishReason::Length => line.push_str(" · stopped by -n"),
            FinishReason::Cancelled => line.push_str(" · stopped"),
            FinishReason::Context => {
                line.push_str(" · the context is full: /reset, or restart with more --ctx")
            }
            _ => {}
        }
        output::aside(&line);
    }
}

/// A conversation that has outgrown its context can go on in two ways.
fn with_advice(error: EngineError) -> anyhow::Error {
    let full = matches!(error, EngineError::PromptTooLong { .. });
    let error = anyhow::Error::from(error);
    if full { error.context("the conversation is too long; /reset starts a new one") } else { error }
}
