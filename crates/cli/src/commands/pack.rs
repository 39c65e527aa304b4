//! `flash-moe pack`: convert a checkpoint into the container, or verify one.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use engine::Format;
use engine::system::human_bytes;
use lab::ExpertReads;
use pack::{PackOptions, PackPlan, QuantTiers};

use crate::args::{PackArgs, Usage};
use crate::output::{self, PackBar};

/// Smaller models are not worth the time to measure what packing gained.
const MEASURED_FROM_BYTES: u64 = 1 << 30;

pub(crate) fn run(args: &PackArgs) -> anyhow::Result<()> {
    let Some(target) = &args.target else {
        return match args.verify {
            true => verify(&args.source.path()?, args.json),
            false => {
                Err(Usage("there is no target; write the directory to pack into after the source".into())
                    .into())
            }
        };
    };
    let tiers = args.quant.over(QuantTiers::of(args.quant.experts()));
    let mut options = PackOptions::default();
    options.threads = args.threads.unwrap_or(options.threads);
    options.verify = args.verify;
    // An unfinished container names the command that resumes it: this one, word for word.
    options.command = Some(shell_words(std::env::args()));
    let started = Instant::now();
    let source = args.source.path()?;
    let plan = pack::plan_model(&source, &tiers, engine::files_inside(&source)?)?;
    refuse_requantising(args, &plan)?;
    let report = pack::pack(&plan, target, &options, &PackBar::new("packing"))?;
    let seconds = started.elapsed().as_secs_f64();
    let mut stdout = io::stdout().lock();
    if args.json {
        let object = serde_json::json!({
            "bytes_in": report.bytes_in, "bytes_out": report.bytes_out, "seconds": seconds,
            "units": report.units, "units_resumed": report.units_resumed, "already_complete": report.already_complete,
            "verified_bytes": report.verified_bytes,
        });
        return Ok(writeln!(stdout, "{object}")?);
    }
    if report.already_complete {
        output::note(&format!("{}: packed already, nothing to do", target.display()));
        return Ok(());
    }
    output::note(&format!(
        "packed {} into {} in {seconds:.1} s{}",
        human_bytes(report.bytes_in),
        human_bytes(report.bytes_out),
        if args.verify { ", every checksum verified" } else { "" },
    ));
    if report.bytes_out >= MEASURED_FROM_BYTES {
        print_gain(&source, target)?;
    }
    output::note(&format!("run it:  flash-moe run {} \"…\"", target.display()));
    Ok(())
}

/// Refuses formats for weights that are quantised already: packing keeps those as they are, so that the
/// option would do nothing.
fn refuse_requantising(args: &PackArgs, plan: &PackPlan) -> anyhow::Result<()> {
    let experts = plan.layers.iter().flat_map(|layer| layer.source.parts.iter().map(|part| part.format));
    let experts: BTreeSet<&str> = experts.filter(|format| format.is_quantised()).map(Format::name).collect();
    let dense = plan.dense.iter().map(|item| item.source_format);
    let dense: BTreeSet<&str> = dense.filter(|format| format.is_quantised()).map(Format::name).collect();
    for option in args.quant.given() {
        // A model without experts takes `--quant` for all of its weights.
        let of_experts = option == "--quant" && !plan.layers.is_empty();
        let kept = if of_experts { &experts } else { &dense };
        let asked = if option == "--quant" { args.quant.experts().name() } else { "" };
        if kept.iter().any(|format| *format != asked) {
            let formats = kept.iter().copied().collect::<Vec<_>>().join(" and ");
            anyhow::bail!(
                "{}: {option} cannot change weights that are quantised already ({formats}), for quantising twice loses \
                 twice; leave it out to keep them, or pack the bf16 or f16 checkpoint",
                args.source
            );
        }
    }
    Ok(())
}

/// What packing gained for streaming: experts a second from the source and from the container,
/// measured one after the other.
fn print_gain(source: &Path, target: &Path) -> anyhow::Result<()> {
    let (Some(before), Some(after)) = (lab::expert_reads(source)?, lab::expert_reads(target)?) else {
        return Ok(());
    };
    let line = |reads: &ExpertReads| {
        let pieces = if reads.pieces == 1 { "1 piece".into() } else { format!("{} pieces", reads.pieces) };
        format!("{} in {pieces}, {:.0} a second", human_bytes(reads.bytes), reads.experts_per_s)
    };
    output::note(&format!(
        "an expert: {} from the source; {} packed: {:.2} times as many (measured here, {} at once)",
        line(&before),
        line(&after),
        after.experts_per_s / before.experts_per_s.max(1e-9),
        after.depth,
    ));
    Ok(())
}

/// Words as a shell takes them back.
fn shell_words(words: impl Iterator<Item = String>) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=+,:@%".contains(c))
    };
    let quote = |word: String| if plain(&word) { word } else { format!("'{}'", word.replace('\'', r"'\''")) };
    words.map(quote).collect::<Vec<_>>().join(" ")
}

fn verify(container: &Path, json: bool) -> anyhow::Result<()> {
    let report = pack::verify(container, &PackBar::new("verifying"))?;
    for bad in &report.bad {
        output::note(&format!("damaged: {bad}"));
    }
    if let Some(first) = report.bad.first() {
        let count = report.bad.len();
        anyhow::bail!(
            "{count} damaged pieces, the first is {first}; pack the model again or copy the file again"
        );
    }
    if json {
        let object = serde_json::json!({ "verified": true, "bytes": report.bytes, "pieces": report.checked });
        return Ok(writeln!(io::stdout().lock(), "{object}")?);
    }
    output::note(&format!(
        "{}: {} verified, nothing is damaged",
        container.display(),
        human_bytes(report.bytes)
    ));
    Ok(())
}
