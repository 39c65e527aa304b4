//! `flash-moe eval`: perplexity of a text.

use std::fs;
use std::io::{self, Write};

use anyhow::Context;
use engine::EvalOptions;

use crate::args::EvalArgs;
use crate::output;

/// Window when none is asked for, tokens.
const CTX_DEFAULT: usize = 512;

pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    let path = args.text.display();
    let text =
        fs::read_to_string(&args.text).with_context(|| format!("{path}: cannot be read as UTF-8 text"))?;
    let mut load = args.load.clone();
    let ctx = *load.ctx.get_or_insert(CTX_DEFAULT);
    let mut engine = super::open(&args.model, &load)?;
    let options = EvalOptions { ctx, stride: args.stride.unwrap_or(ctx.div_ceil(2)) };
    let mut bar = None;
    let report = engine.eval(&text, &options, &mut |done, total| {
        bar.get_or_insert_with(|| output::tokens_bar("eval", total as u64)).set_position(done as u64);
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = report?;
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut stdout, &report).map_err(io::Error::from)?;
        return Ok(writeln!(stdout)?);
    }
    writeln!(
        stdout,
        "perplexity  {:.4}   ({:.4} ± {:.4} nats a token)",
        report.perplexity, report.nll_nats, report.nll_error_nats
    )?;
    writeln!(stdout, "bits/byte   {:.4}", report.bits_per_byte)?;
    writeln!(
        stdout,
        "tokens      {} scored, windows of {} moved by {}",
        report.tokens, report.ctx, report.stride
    )?;
    Ok(writeln!(stdout, "rate        {:.1} tokens/s", report.tokens_per_s)?)
}
