//! `flash-moe run`: generate text from a prompt.

use std::io::{self, IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use engine::system::human_bytes;
use engine::{
    Canceller, Engine, EngineError, Event, FinishReason, Generation, Input, Message, Prompt, Request,
    Running, TemplateOptions,
};
use serde::Serialize;

use crate::args::{RunArgs, SamplingArgs, Usage};
use crate::output;

/// Longest prompt read from standard input, bytes.
const PROMPT_BYTES_MAX: u64 = 64 << 20;

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let prompt = read_prompt(args.prompt.as_deref())?;
    let engine = super::open(&args.model, &args.load, Input::Text)?;
    shrink_on_hangup(&engine)?;
    let raw = args.raw || !engine.tokenizer()?.has_chat_template();
    let mut request = engine.request(chosen_prompt(args, raw, prompt));
    set_sampling(&args.sampling, &mut request);
    if let Some(n) = args.max_tokens {
        request.max_tokens = n;
    }
    let running = engine.submit(request)?;
    stop_on_ctrl_c(running.canceller())?;
    let mut shown = Shown::new(!args.json);
    let generation = take_events(running, |event| shown.on(event));
    shown.finish();
    let generation = generation?;
    engine.flush_trace()?;
    shown.result()?;
    match args.json {
        true => print_json(&generation)?,
        false => print_summary(&generation),
    }
    match generation.finish_reason {
        FinishReason::Cancelled => anyhow::bail!("interrupted after {} tokens", generation.tokens.len()),
        _ => Ok(()),
    }
}

fn read_prompt(argument: Option<&str>) -> anyhow::Result<String> {
    match argument {
        Some(text) if text != "-" => Ok(text.to_string()),
        None if io::stdin().is_terminal() => {
            Err(Usage("there is no prompt; write one after the model, or pipe it in".into()).into())
        }
        _ => {
            let mut text = String::new();
            let read = io::stdin().take(PROMPT_BYTES_MAX).read_to_string(&mut text);
            read.context("standard input is not UTF-8 text")?;
            Ok(text)
        }
    }
}

/// Takes the events of a request to its end; a break cancels it.
pub(super) fn take_events(
    running: Running,
    mut on_event: impl FnMut(&Event) -> ControlFlow<()>,
) -> anyhow::Result<Generation> {
    let canceller = running.canceller();
    for event in running {
        match event? {
            Event::Finished(generation) => return Ok(*generation),
            event if on_event(&event).is_break() => canceller.cancel(),
            _ => {}
        }
    }
    Err(EngineError::Closed.into())
}

/// The first Ctrl-C lets the layer end and the statistics be printed; a second one ends the process.
fn stop_on_ctrl_c(canceller: Canceller) -> anyhow::Result<()> {
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
        canceller.cancel();
    })
    .context("cannot handle Ctrl-C")
}

/// SIGHUP has half of the expert slots given back to the system before the next token.
#[cfg(unix)]
pub(super) fn shrink_on_hangup(engine: &Engine) -> anyhow::Result<()> {
    signal_hook::flag::register(signal_hook::consts::SIGHUP, engine.halve_slots_flag())
        .context("cannot handle SIGHUP")?;
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn shrink_on_hangup(_engine: &Engine) -> anyhow::Result<()> {
    Ok(())
}

fn chosen_prompt(args: &RunArgs, raw: bool, prompt: String) -> Prompt {
    if raw {
        if !args.raw {
            output::note("note: this model has no chat template; completing the prompt as it is");
        }
        return Prompt::Text(prompt);
    }
    let system = args.system.iter().map(|system| Message::system(system.as_str()));
    let options = TemplateOptions { enable_thinking: args.thinking, ..TemplateOptions::default() };
    Prompt::Chat { messages: system.chain([Message::user(prompt)]).collect(), options }
}

pub(super) fn set_sampling(args: &SamplingArgs, request: &mut Request) {
    let sampling = &mut request.sampling;
    let set = |value: Option<f32>, field: &mut f32| *field = value.unwrap_or(*field);
    set(args.temp, &mut sampling.temperature);
    set(args.top_p, &mut sampling.top_p);
    set(args.min_p, &mut sampling.min_p);
    set(args.repetition_penalty, &mut sampling.repetition_penalty);
    set(args.presence_penalty, &mut sampling.presence_penalty);
    sampling.top_k = args.top_k.unwrap_or(sampling.top_k);
    sampling.seed = args.seed.or(sampling.seed);
}

/// Streams text to stdout and shows the prompt's progress until the first token.
pub(super) struct Shown {
    stream: bool,
    bar: Option<indicatif::ProgressBar>,
    written: bool,
    error: Option<io::Error>,
}

impl Shown {
    pub(super) fn new(stream: bool) -> Self {
        Self { stream, bar: None, written: false, error: None }
    }

    pub(super) fn on(&mut self, event: &Event) -> ControlFlow<()> {
        match event {
            Event::Prefill { done, total } if done < total => {
                self.bar
                    .get_or_insert_with(|| output::tokens_bar("prompt", *total as u64))
                    .set_position(*done as u64);
            }
            Event::Token { text, .. } if self.stream && !text.is_empty() => {
                self.clear_bar();
                return self.write(text);
            }
            _ => self.clear_bar(),
        }
        ControlFlow::Continue(())
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn write(&mut self, text: &str) -> ControlFlow<()> {
        let mut stdout = io::stdout().lock();
        self.written = true;
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    pub(super) fn finish(&mut self) {
        self.clear_bar();
        if self.written {
            let _ = self.write("\n");
        }
    }

    pub(super) fn result(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }
}

#[derive(Serialize)]
struct Report<'a> {
    text: &'a str,
    finish_reason: FinishReason,
    seed: u64,
    tokens: &'a [u32],
    #[serde(flatten)]
    stats: &'a engine::RunStats,
}

fn print_json(generation: &Generation) -> anyhow::Result<()> {
    let Generation { text, finish_reason, seed, tokens, stats, .. } = generation;
    let report = Report { text, finish_reason: *finish_reason, seed: *seed, tokens, stats };
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &report).map_err(io::Error::from)?;
    Ok(writeln!(stdout)?)
}

pub(super) fn print_summary(generation: &Generation) {
    let stats = &generation.stats;
    output::note("");
    output::note(&format!(
        "prompt {} tokens at {:.1}/s · first token after {:.2} s · {} tokens at {:.1}/s · seed {}",
        stats.prompt_tokens,
        stats.prefill_tokens_per_s,
        stats.time_to_first_token_s,
        stats.generated_tokens,
        stats.decode_tokens_per_s,
        generation.seed,
    ));
    let experts = match stats.experts_per_token {
        0 => "no experts".to_string(),
        k => format!(
            "experts {k} a token and layer, {:.0} % found in {} slots, {} read per token",
            100.0 * stats.hit_rate,
            stats.expert_slots,
            human_bytes(stats.expert_bytes_per_token as u64),
        ),
    };
    output::note(&format!(
        "{experts} · peak memory {} of {} · lossy: {}",
        stats.peak_resident_bytes.map_or("unknown".into(), human_bytes),
        human_bytes(stats.memory_budget_bytes),
        output::lossy(&stats.lossy),
    ));
}
