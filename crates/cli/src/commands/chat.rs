//! `flash-moe chat`: a conversation at a terminal, or with one turn a line of standard input.

use std::io::{self, BufRead, IsTerminal, Read};
use std::ops::ControlFlow;

use anyhow::Context;
use engine::{Conversation, Engine, EngineError, Event, FinishReason, Generation, Input, TemplateOptions};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::run::shrink_on_hangup;
use crate::args::ChatArgs;
use crate::interrupt::Interrupt;
use crate::output;
use crate::prompt::stdin_bytes_max;
use crate::shown::{Shown, take_events};
use crate::summary::{self, Sampled, Stopped};

const HELP: &str = "\
/reset          forget what was said (also /clear)
/system TEXT    start over with this system message; without a text, with none
/stats          figures of the last answer
/quit           end (also Ctrl-D)
A line that ends in \\ goes on in the next; one that begins with // is said with a single /. Ctrl-C stops an answer.";

pub(crate) fn run(args: &ChatArgs) -> anyhow::Result<()> {
    args.model.path_or_pull()?;
    let interrupt = Interrupt::install()?;
    let engine = super::open(&args.model, &args.load, Input::Chat)?;
    shrink_on_hangup(&engine)?;
    let mut input = Lines::new(stdin_bytes_max(args.load.memory))?;
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
    /// Standard input, and the longest line that is read, bytes.
    Piped(io::StdinLock<'static>, u64),
}

impl Lines {
    fn new(most: u64) -> anyhow::Result<Self> {
        match io::stdin().is_terminal() {
            true => Ok(Self::Editor(Box::new(DefaultEditor::new().context("cannot use the terminal")?))),
            false => Ok(Self::Piped(io::stdin().lock(), most)),
        }
    }

    fn is_interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// The next turn or command; `None` at the end.
    fn line(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Editor(editor) => edited(editor),
            Self::Piped(input, most) => piped(input, *most),
        }
    }
}

/// A line of standard input, of so many bytes at most.
fn piped(input: &mut io::StdinLock<'_>, most: u64) -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    let read = input.take(most + 1).read_line(&mut line);
    let read = read.context("standard input is not UTF-8 text")?;
    anyhow::ensure!(
        read as u64 <= most,
        "a line of standard input is longer than {most} bytes; say it in shorter ones"
    );
    let text = line.strip_suffix('\n').unwrap_or(&line);
    Ok((read > 0).then(|| text.strip_suffix('\r').unwrap_or(text).to_owned()))
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

struct Chat<'a> {
    args: &'a ChatArgs,
    engine: Engine,
    conversation: Conversation,
    interrupt: Interrupt,
    last: Option<Answer>,
}

/// What `/stats` tells of.
struct Answer {
    generation: Generation,
    sampled: Sampled,
    stopped: Stopped,
}

impl Chat<'_> {
    fn greet(&self) {
        let (config, ctx) = (self.engine.config(), self.engine.plan().ctx);
        let name = config.family;
        output::parts_aside(&[
            format!("{}: {name}", self.args.model),
            format!("context of {ctx} tokens"),
            "/help lists commands".into(),
        ]);
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
                Some(last) => summary::print(&last.generation, &last.sampled, Some(last.stopped)),
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
        let request = self.conversation.request(&self.engine, text, &options);
        let mut request = request.map_err(|error| self.with_advice(error))?;
        let sampled = Sampled::choose(&self.args.sampling, self.engine.defaults(), &mut request);
        request.max_tokens = self.args.max_tokens.unwrap_or(request.max_tokens);
        let mut shown = Shown::new(true);
        let interrupt = &self.interrupt;
        interrupt.listen();
        let running = self.engine.submit(request).map_err(|error| self.with_advice(error))?;
        let canceller = running.canceller();
        let (mut answering, mut asked) = (false, false);
        let generation = take_events(running, |event| {
            if interrupt.take() {
                interrupt.once_more();
                // A prompt is given up at once. An answer ends after the token under way, so that
                // nothing need be computed again; the second time, at once.
                if !answering || asked {
                    canceller.cancel();
                }
                asked = true;
            }
            answering |= matches!(event, Some(Event::Token { .. }));
            let flow = shown.on(event);
            if asked && event.is_some() { ControlFlow::Break(()) } else { flow }
        });
        interrupt.idle();
        shown.finish();
        let generation = generation?;
        shown.result()?;
        let stopped = Stopped { share: shown.prompt_share(), seconds: shown.elapsed().as_secs_f64() };
        self.summary(&generation, stopped);
        // A prompt that was given up was never said.
        if generation.finish_reason != FinishReason::Cancelled || !generation.tokens.is_empty() {
            self.conversation.answered(text, &generation);
        }
        self.last = Some(Answer { generation, sampled, stopped });
        Ok(())
    }

    /// Some figures.
    fn summary(&self, generation: &Generation, stopped: Stopped) {
        let (ctx, prompt) = (self.engine.plan().ctx, generation.prompt.len());
        let mut parts = summary::speed(generation, Some(stopped));
        if let Some(rate) = generation.stats.prefill_tokens_per_s {
            let new = generation.stats.prompt_tokens;
            parts[0] = format!("{new} new of {prompt} prompt tokens at {rate:.1}/s");
        }
        parts.push(format!("context {} of {ctx}", prompt + generation.tokens.len()));
        match generation.finish_reason {
            FinishReason::Length => parts.push("stopped by -n".into()),
            FinishReason::Cancelled => parts.push("stopped".into()),
            FinishReason::Context => {
                parts.push("the context is full: /reset, or restart with more --ctx".into())
            }
            _ => {}
        }
        output::parts_aside(&parts);
    }

    /// A conversation that has outgrown its context can go on in two ways.
    fn with_advice(&self, error: EngineError) -> anyhow::Error {
        let full = matches!(error, EngineError::PromptTooLong { .. });
        let error = super::trial(&self.args.model, &self.args.load).advise(error);
        if full { error.context("the conversation is too long; /reset starts a new one") } else { error }
    }
}
