//! `flash-moe run`: generate text from a prompt.

use std::io::{self, Write};
use std::ops::ControlFlow;

use engine::{Engine, FinishReason, Generation, Input, Message, Prompt, TemplateOptions};
use serde::Serialize;

use crate::args::RunArgs;
use crate::interrupt::{Interrupt, Interrupted};
use crate::shown::{Shown, take_events};
use crate::summary::{self, Sampled, Stopped};
use crate::{output, prompt};

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let prompt = prompt::read(args.prompt.as_deref(), args.raw, args.load.memory)?;
    args.model.path_or_pull()?;
    let interrupt = Interrupt::install()?;
    let engine = super::open(&args.model, &args.load, Input::Text)?;
    shrink_on_hangup(&engine)?;
    let raw = args.raw || !engine.tokenizer()?.has_chat_template();
    let mut request = engine.request(chosen_prompt(args, raw, prompt));
    let sampled = Sampled::choose(&args.sampling, engine.defaults(), &mut request);
    if let Some(n) = args.max_tokens {
        request.max_tokens = n;
    }
    let mut shown = Shown::new(!args.json);
    interrupt.listen();
    let running =
        engine.submit(request).map_err(|error| super::trial(&args.model, &args.load).advise(error))?;
    let generation = take_events(running, |event| match interrupt.take() {
        true => ControlFlow::Break(()),
        false => shown.on(event),
    });
    interrupt.idle();
    shown.finish();
    let generation = generation?;
    engine.flush_trace()?;
    shown.result()?;
    let stopped = Stopped { share: shown.prompt_share(), seconds: shown.elapsed().as_secs_f64() };
    match args.json {
        true => print_json(&generation, &sampled)?,
        false => summary::print(&generation, &sampled, Some(stopped)),
    }
    match generation.finish_reason {
        FinishReason::Cancelled => Err(Interrupted::Request { tokens: generation.tokens.len() }.into()),
        _ => Ok(()),
    }
}

/// SIGHUP has half of the expert slots given back to the system before the next token.
#[cfg(unix)]
pub(super) fn shrink_on_hangup(engine: &Engine) -> anyhow::Result<()> {
    use anyhow::Context;
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

#[derive(Serialize)]
struct Report<'a> {
    text: &'a str,
    finish_reason: FinishReason,
    /// `None` where nothing was left to chance.
    seed: Option<u64>,
    sampling: &'a Sampled,
    tokens: &'a [u32],
    #[serde(flatten)]
    stats: &'a engine::RunStats,
}

fn print_json(generation: &Generation, sampling: &Sampled) -> anyhow::Result<()> {
    let Generation { text, finish_reason, seed, tokens, stats, .. } = generation;
    let seed = sampling.is_random().then_some(*seed);
    let report = Report { text, finish_reason: *finish_reason, seed, sampling, tokens, stats };
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &report).map_err(io::Error::from)?;
    Ok(writeln!(stdout)?)
}
