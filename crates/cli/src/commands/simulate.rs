//! `flash-moe simulate`: replay a trace against policies and budgets.

mod plot;

use std::io::{self, Write};

use anyhow::Context;
use engine::system::human_bytes;
use experts::PolicyKind;
use experts::replay::{Replayed, optimum, replay};
use experts::trace::Trace;
use serde::Serialize;

use crate::args::{SimulateArgs, Usage};
use crate::output;

/// Slots that are tried when none are named, as shares of the model's experts in percent.
const SHARES_PERCENT: [u64; 9] = [1, 2, 5, 10, 20, 30, 50, 75, 100];

/// Share of the trace that fills the slots before hits are counted: a tenth.
const WARM_UP_SHARE: usize = 10;

/// Hit rates at one number of slots.
#[derive(Serialize)]
pub(crate) struct Row {
    slots: usize,
    bytes: u64,
    /// Of the model's experts.
    share: f64,
    policies: Vec<Outcome>,
}

#[derive(Serialize)]
pub(crate) struct Outcome {
    policy: &'static str,
    hit_rate: f64,
    misses_per_token: f64,
    evictions: u64,
}

#[derive(Serialize)]
struct Report {
    fetches: usize,
    tokens: u64,
    requests: u64,
    experts: u64,
    /// Experts that one token uses, all layers together.
    experts_per_token: f64,
    /// Fetches of a prompt chunk, which ask for far more experts than a token.
    prompt_fetches: usize,
    rows: Vec<Row>,
}

pub(crate) fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    let mut trace = Trace::read(&args.trace)?;
    if trace.cut_off {
        output::note("note: the trace ends in the middle of a record, which is left out");
    }
    let prompt_fetches = trace.fetches.iter().filter(|fetch| fetch.tokens > 1).count();
    if args.decode {
        trace.fetches.retain(|fetch| fetch.tokens == 1);
    }
    if trace.fetches.is_empty() {
        anyhow::bail!(
            "{}: the trace has no fetches; generate some tokens with --trace",
            args.trace.display()
        );
    }
    let measure_from = trace.fetches.len() / WARM_UP_SHARE;
    let tokens = tokens(&trace, measure_from).max(1);
    let rows: Vec<Row> = slot_counts(args, &trace)?
        .into_iter()
        .map(|slots| row(&trace, slots, measure_from, tokens))
        .collect();
    let measured: u64 = trace.fetches[measure_from..].iter().map(|fetch| fetch.experts.len() as u64).sum();
    let report = Report {
        fetches: trace.fetches.len(),
        tokens,
        requests: trace.requests(),
        experts: trace.header.experts,
        experts_per_token: measured as f64 / tokens as f64,
        prompt_fetches,
        rows,
    };
    if let Some(path) = &args.plot {
        let title = format!("{}: hit rate by slots", args.trace.display());
        std::fs::write(path, plot::svg(&title, &report.rows))
            .with_context(|| format!("{}: cannot write the plot", path.display()))?;
    }
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut stdout, &report).map_err(io::Error::from)?;
        return Ok(writeln!(stdout)?);
    }
    print_table(&mut stdout, &report)
}

/// Turns of the layers: tokens, or prompt chunks, from a fetch on.
fn tokens(trace: &Trace, from: usize) -> u64 {
    let fetches = &trace.fetches[from..];
    let turns = fetches.windows(2).filter(|pair| pair[1].layer <= pair[0].layer).count();
    turns as u64 + u64::from(!fetches.is_empty())
}

fn slot_counts(args: &SimulateArgs, trace: &Trace) -> anyhow::Result<Vec<usize>> {
    let experts = usize::try_from(trace.header.experts).unwrap_or(usize::MAX);
    let mut counts = args.slots.clone();
    for bytes in &args.budgets {
        let slots = bytes / trace.header.slot_bytes.max(1);
        if slots == 0 {
            return Err(Usage(format!(
                "a budget of {} holds no expert of {}",
                human_bytes(*bytes),
                human_bytes(trace.header.slot_bytes)
            ))
            .into());
        }
        counts.push(usize::try_from(slots).unwrap_or(usize::MAX));
    }
    if counts.is_empty() {
        let share = |percent: &u64| (trace.header.experts.saturating_mul(*percent) / 100).max(1) as usize;
        counts = SHARES_PERCENT.iter().map(share).collect();
        counts.push(trace.header.slots as usize);
    }
    // More slots than experts change nothing, and an untrusted number must not size anything.
    let known = trace.requests().min(trace.header.experts) as usize;
    counts.iter_mut().for_each(|slots| *slots = (*slots).clamp(1, experts.min(known).max(1)));
    counts.sort_unstable();
    counts.dedup();
    Ok(counts)
}

fn row(trace: &Trace, slots: usize, measure_from: usize, tokens: u64) -> Row {
    let outcome = |policy: &'static str, replayed: Replayed| Outcome {
        policy,
        hit_rate: replayed.hit_rate(),
        misses_per_token: (replayed.requests - replayed.hits) as f64 / tokens as f64,
        evictions: replayed.evictions,
    };
    let mut policies: Vec<Outcome> = PolicyKind::ALL
        .iter()
        .map(|kind| outcome(kind.name(), replay(trace, slots, &mut *kind.new_policy(slots), measure_from)))
        .collect();
    policies.push(outcome("optimum", optimum(trace, slots, measure_from)));
    Row {
        slots,
        bytes: (slots as u64).saturating_mul(trace.header.slot_bytes),
        share: slots as f64 / trace.header.experts.max(1) as f64,
        policies,
    }
}

fn print_table(stdout: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    writeln!(
        stdout,
        "{} fetches, {} of them of prompt chunks; {:.1} experts a token of {}",
        report.fetches, report.prompt_fetches, report.experts_per_token, report.experts
    )?;
    write!(stdout, "{:>7}  {:>10}  {:>6}", "slots", "memory", "share")?;
    for outcome in report.rows.first().map_or(&[][..], |row| &row.policies) {
        write!(stdout, "  {:>9}", outcome.policy)?;
    }
    writeln!(stdout, "   (hit rates after a tenth of the trace)")?;
    for row in &report.rows {
        write!(stdout, "{:>7}  {:>10}  {:>5.1}%", row.slots, human_bytes(row.bytes), 100.0 * row.share)?;
        for outcome in &row.policies {
            write!(stdout, "  {:>8.2}%", 100.0 * outcome.hit_rate)?;
        }
        writeln!(stdout)?;
    }
    Ok(())
}
