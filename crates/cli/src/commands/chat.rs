//! `flash-moe chat`: a conversation at a terminal, or with one turn a line of standard input.

use std::io::{self, BufRead, IsTerminal};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::Context;
use engine::{
    Conversation, Engine, EngineError, Event, FinishReason, Generation, Request, Session, TemplateOptions,
};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::run::{Shown, print_summary, set_sampling, shrink_on_hangup};
use crate::args::ChatArgs;
use crate::output;

const HELP: &str = "\
/reset          forget what was said (also /clear)
/system TEXT    start over with this system message; without a text, with none
/stats          figures of the last answer
/quit           end (also Ctrl-D)
A line that ends in \\ goes on in the next; one that begins with // is said with a single /. Ctrl-C stops an answer.";

pub(crate) fn run(args: &ChatArgs) -> anyhow::Result<()> {
    let mut engine = super::open(&args.model, &args.load)?;
    anyhow::ensure!(
        engine.tokenizer()?.has_chat_template(),
        "{}: this model has no chat template, so it knows no turns; complete text with `run --raw`",
        args.model
    );
    shrink_on_hangup(&engine)?;
    let interrupt = Interrupt::install(&engine)?;
    let session = engine.session()?;
    let mut input = Input::new()?;
    let conversation = Conversation::new(args.system.as_deref());
    let mut chat = Chat { args, engine, session, conversation, interrupt, last: None };
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
enum Input {
    Editor(Box<DefaultEditor>),
    Lines(io::Lines<io::StdinLock<'static>>),
}

impl Input {
    fn new() -> anyhow::Result<Self> {
        match io::stdin().is_terminal() {
            true => Ok(Self::Editor(Box::new(DefaultEditor::new().context("cannot use the terminal")?))),
            false => Ok(Self::Lines(io::stdin().lock().lines())),
        }
    }

    fn is_interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// The next turn or command; `None` at the end.
    fn line(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Editor(editor) => edited(editor),
            Self::Lines(lines) => lines.next().transpose().context("standard input is not UTF-8 text"),
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
    cancel: Arc<AtomicBool>,
}

/// Nothing is computed: Ctrl-C ends the process. (In the line editor it is a key and clears the line.)
const IDLE: u8 = 0;
/// The prompt is computed: Ctrl-C stops within the layer.
const PROMPT: u8 = 1;
/// Tokens are generated: Ctrl-C stops after the one under way, so that nothing need be computed
/// again; twice, at once.
const ANSWER: u8 = 2;

impl Interrupt {
    fn install(engine: &Engine) -> anyhow::Result<Self> {
        let interrupt = Self { phase: Arc::default(), asked: Arc::default(), cancel: engine.cancel_flag() };
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            let again = handler.asked.swap(true, Ordering::Relaxed);
            match (handler.phase.load(Ordering::Relaxed), again) {
                (ANSWER, false) => {}
                (ANSWER, true) | (PROMPT, false) => {
                    if handler.cancel.swap(true, Ordering::Relaxed) {
                        std::process::exit(1);
                    }
                }
                _ => std::process::exit(1),
            }
        })
        .context("cannot handle Ctrl-C")?;
        Ok(interrupt)
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn begin(&self) {
        self.asked.store(false, Ordering::Relaxed);
        self.cancel.store(false, Ordering::Relaxed);
        self.enter(PROMPT);
    }

    fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

struct Chat<'a> {
    args: &'a ChatArgs,
    engine: Engine,
    session: Session,
    conversation: Conversation,
    interrupt: Interrupt,
    last: Option<Generation>,
}

impl Chat<'_> {
    fn greet(&self) {
        let (config, ctx) = (self.engine.config(), self.session.ctx());
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
        let prompt = self.conversation.prompt(self.engine.tokenizer()?, text, &options)?;
        let mut request = Request::new(prompt, &self.engine);
        set_sampling(&self.args.sampling, &mut request);
        request.max_tokens = self.args.max_tokens.unwrap_or(request.max_tokens);
        let mut shown = Shown::new(true);
        let interrupt = self.interrupt.clone();
        interrupt.begin();
        let generation = self.engine.generate(&mut self.session, &request, &mut |event| {
            if let Event::Token { .. } = event {
                interrupt.enter(ANSWER);
            }
            let flow = shown.on(event);
            if interrupt.asked() { ControlFlow::Break(()) } else { flow }
        });
        interrupt.enter(IDLE);
        shown.finish();
        let generation = generation.map_err(with_advice)?;
        shown.result()?;
        self.summary(&generation, request.prompt.len());
        // A prompt that was given up was never said.
        if generation.finish_reason != FinishReason::Cancelled || !generation.tokens.is_empty() {
            self.conversation.answered(text, request.prompt, &generation);
        }
        self.last = Some(generation);
        Ok(())
    }

    /// One line of figures.
    fn summary(&self, generation: &Generation, prompt: usize) {
        let (stats, ctx) = (&generation.stats, self.session.ctx());
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
