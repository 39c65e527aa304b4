//! `flash-moe eval`: perplexity of a text, or how far a model is from a reference on it.

use std::fs;
use std::io::{self, Write};

use anyhow::Context;
use engine::system::human_bytes;
use engine::{EngineError, EngineOptions, Input, plan_for};
use lab::{CompareEvent, CompareOptions, CompareReport, EvalOptions, EvalReport, compare, eval};

use crate::args::EvalArgs;
use crate::model::ModelName;
use crate::{demo, output};

/// Window when none is asked for, tokens.
const CTX_DEFAULT: usize = 512;

pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    let mut args = args.clone();
    let ctx = *args.load.ctx.get_or_insert(CTX_DEFAULT);
    let text = read_text(&args)?;
    let options = EvalOptions { ctx, stride: args.stride.unwrap_or(ctx.div_ceil(2)) };
    let mut stdout = io::stdout().lock();
    match &args.against {
        Some(reference) => {
            let report = run_comparison(&args, reference, &text, options)?;
            match args.json {
                true => print_json(&mut stdout, &report),
                false => print_comparison(&mut stdout, &report),
            }
        }
        None => {
            let report = run_eval(&args, &text, &options)?;
            match args.json {
                true => print_json(&mut stdout, &report),
                false => print_eval(&mut stdout, &report),
            }
        }
    }
}

/// The text, once it is known that there is room for it and its tokens.
fn read_text(args: &EvalArgs) -> anyhow::Result<String> {
    let path = args.text.display();
    let what = || format!("{path}: cannot be read as UTF-8 text");
    let bytes = fs::metadata(&args.text).with_context(what)?.len();
    let options = EngineOptions { text_bytes: bytes, ..args.load.options() };
    if let Err(error @ EngineError::BudgetTooSmall(_)) = plan_for(&args.model.path()?, &options) {
        let error = super::trial(&args.model, &args.load).with_text(bytes).advise(error);
        return Err(error.context(format!("no room for {path} with its tokens")));
    }
    fs::read_to_string(&args.text).with_context(what)
}

/// The options that the models are opened with: the text is in memory beside them.
fn options_beside(args: &EvalArgs, text: &str) -> EngineOptions {
    EngineOptions { text_bytes: text.len() as u64, ..super::options(&args.load) }
}

fn print_json(out: &mut impl Write, report: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, report).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

fn run_eval(args: &EvalArgs, text: &str, options: &EvalOptions) -> anyhow::Result<EvalReport> {
    let options_beside = options_beside(args, text);
    let engine = super::open_with(&args.model, &args.load, options_beside, Input::Text)?;
    let mut bar = Bar::default();
    let report = eval(&engine, text, options, &mut |done, total| bar.set(done, total));
    bar.finish();
    report.map_err(|error| super::trial(&args.model, &args.load).advise(error))
}

fn run_comparison(
    args: &EvalArgs,
    reference: &ModelName,
    text: &str,
    eval: EvalOptions,
) -> anyhow::Result<CompareReport> {
    let (model, reference) = (args.model.path()?, reference.path()?);
    let spill_dir = args.spill_dir.clone().unwrap_or_else(demo::cache_dir);
    let options = CompareOptions { eval, reference_kv: args.against_kv, spill_dir };
    let (mut loading, mut bar) = (output::LoadProgress::default(), Bar::default());
    let report =
        compare(&model, &reference, text, &options_beside(args, text), &options, &mut |event| match event {
            CompareEvent::Loading(event) => {
                bar.finish();
                loading.on(event);
            }
            CompareEvent::Spilling(bytes) => output::note(&format!(
                "both models do not fit into memory at once: {} of logits wait in a temporary file in {}",
                human_bytes(bytes),
                options.spill_dir.display()
            )),
            CompareEvent::Tokens { done, total } => {
                std::mem::take(&mut loading).finish();
                bar.set(done, total);
            }
            _ => {}
        });
    loading.finish();
    bar.finish();
    report.map_err(|error| super::trial(&args.model, &args.load).advise(error))
}

/// A bar over tokens that begins with the first of them.
#[derive(Default)]
struct Bar(Option<indicatif::ProgressBar>);

impl Bar {
    fn set(&mut self, done: usize, total: usize) {
        self.0.get_or_insert_with(|| output::tokens_bar("eval", total as u64)).set_position(done as u64);
    }

    fn finish(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

fn print_eval(out: &mut impl Write, report: &EvalReport) -> anyhow::Result<()> {
    writeln!(
        out,
        "perplexity  {:.4}   ({:.4} ± {:.4} nats a token)",
        report.perplexity, report.nll_nats, report.nll_error_nats
    )?;
    writeln!(out, "bits/byte   {:.4}", report.bits_per_byte)?;
    writeln!(
        out,
        "tokens      {} scored, windows of {} moved by {}",
        report.tokens, report.ctx, report.stride
    )?;
    writeln!(out, "kv          {} · lossy: {}", report.kv, output::lossy(&report.lossy))?;
    Ok(writeln!(out, "rate        {:.1} tokens/s", report.tokens_per_s)?)
}

fn print_comparison(out: &mut impl Write, report: &CompareReport) -> anyhow::Result<()> {
    writeln!(
        out,
        "divergence  {:.3e} ± {:.1e} nats a token · median {:.2e} · 99 % below {:.2e} · most {:.2e}",
        report.kl_mean_nats,
        report.kl_error_nats,
        report.kl_median_nats,
        report.kl_p99_nats,
        report.kl_max_nats
    )?;
    writeln!(
        out,
        "same top 1  {:.3} ± {:.3} % of the tokens",
        100.0 * report.top1_agreement,
        100.0 * report.top1_agreement_error
    )?;
    writeln!(
        out,
        "perplexity  {:.4}   ({:.4} ± {:.4} nats a token)",
        report.perplexity, report.nll_nats, report.nll_error_nats
    )?;
    writeln!(
        out,
        "reference   {:.4}   ({:.4} ± {:.4} nats a token): {:+.3} %",
        report.reference_perplexity,
        report.reference_nll_nats,
        report.reference_nll_error_nats,
        100.0 * (report.perplexity / report.reference_perplexity - 1.0)
    )?;
    writeln!(
        out,
        "tokens      {} scored, windows of {} moved by {}",
        report.tokens, report.ctx, report.stride
    )?;
    let reference = if report.reference_kv == report.kv {
        String::new()
    } else {
        format!(" against {}", report.reference_kv)
    };
    writeln!(out, "kv          {}{reference} · lossy: {}", report.kv, output::lossy(&report.lossy))?;
    Ok(writeln!(out, "rate        {:.1} tokens/s by both models", report.tokens_per_s)?)
}
