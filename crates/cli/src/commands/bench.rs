//! `flash-moe bench`: how fast a model runs here, and how fast it could.

use std::fs;
use std::io::{self, Write};

use anyhow::Context;
use engine::system::human_bytes;
use lab::bench::{BenchEvent, BenchOptions, BenchReport, TimeSplit, bench};

use crate::args::BenchArgs;
use crate::output;

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let text = args.text.as_ref().map(|path| {
        fs::read_to_string(path).with_context(|| format!("{}: not a readable UTF-8 text", path.display()))
    });
    let options = BenchOptions {
        prompt_tokens: args.prompt_tokens,
        decode_tokens: args.decode_tokens,
        repeats: args.repeat,
        warmup_tokens: args.warmup,
        text: text.transpose()?,
        seed: args.seed,
        parallel: args.parallel,
        arrive_tokens: args.arrive,
        turn_tokens: args.turns,
    };
    let path = args.model.path()?;
    let mut loading = output::LoadProgress::default();
    let report = bench(&path, &super::options(&args.load), &options, &mut |event| match event {
        BenchEvent::Loading(event) => loading.on(event),
        BenchEvent::Step(what) => {
            loading.finish();
            output::note(what);
        }
        _ => {}
    });
    loading.finish();
    let report = report.map_err(|error| super::trial(&args.model, &args.load).advise(error))?;
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut stdout, &report).map_err(io::Error::from)?;
        return Ok(writeln!(stdout)?);
    }
    print_about(&mut stdout, &report)?;
    print_rates(&mut stdout, &report)?;
    print_split(&mut stdout, &report)?;
    print_limits(&mut stdout, &report)?;
    print_streams(&mut stdout, &report)?;
    print_turns(&mut stdout, &report)?;
    Ok(())
}

fn print_about(out: &mut impl Write, report: &BenchReport) -> io::Result<()> {
    let formats = |tier: &str| {
        let names = report.about.formats.get(tier).into_iter().flatten().cloned().collect::<Vec<_>>();
        if names.is_empty() { "-".into() } else { names.join(" ") }
    };
    writeln!(
        out,
        "{}: {}, {}, {} layers",
        report.about.model, report.about.architecture, report.about.container, report.about.layers
    )?;
    writeln!(
        out,
        "formats    experts {} · dense {} · embedding {} · head {}",
        formats("experts"),
        formats("dense"),
        formats("embedding"),
        formats("head"),
    )?;
    writeln!(
        out,
        "experts    {} · {} slots for {}{}",
        experts(report),
        report.about.expert_slots,
        report.about.expert_count,
        if report.about.resident { " (all resident)" } else { "" },
    )?;
    if let Some(made) = &report.about.synthetic {
        writeln!(out, "weights    random, of the shape of {}; router skew {}", made.preset, made.skew)?;
    }
    if let Some(note) = &report.about.shared_records {
        writeln!(out, "records    {note}")?;
    }
    writeln!(
        out,
        "memory     budget {} · peak {} · context {} tokens, kv {}, chunk {}",
        human_bytes(report.about.memory_budget_bytes),
        report.rates.peak_resident_bytes.map_or("unknown".into(), human_bytes),
        report.about.ctx,
        report.about.kv,
        report.about.chunk_tokens,
    )?;
    writeln!(
        out,
        "machine    {} threads, {} · reads {} by {}, {} in flight · lookahead {}",
        report.about.threads,
        report.about.isa,
        report.about.io_mode,
        report.about.io_engine,
        report.about.io_threads,
        if report.about.lookahead { "on" } else { "off" },
    )?;
    if let Some(reason) = &report.about.io_fallback {
        writeln!(out, "note       {reason}")?;
    }
    writeln!(
        out,
        "tokens     {} · {} repeats after {} of warm-up · seed {}\n",
        report.about.token_source, report.about.repeats, report.about.warmup_tokens, report.about.seed
    )
}

/// `8 of 256 a token and layer`, and the model's own number where another is used.
fn experts(report: &BenchReport) -> String {
    let (used, own, all) = (
        report.about.experts_per_token,
        report.about.experts_per_token_model,
        report.about.experts_per_layer,
    );
    match used == own {
        _ if all == 0 => "none".into(),
        true => format!("{used} of {all} a token and layer"),
        false => format!("{used} of {all} a token and layer, where the model's own number is {own}"),
    }
}

/// One line for each phase; the number of experts and what is lossy stand in every one.
fn print_rates(out: &mut impl Write, report: &BenchReport) -> io::Result<()> {
    writeln!(
        out,
        "{:8} {:>6} {:>10} {:>19} {:>14} {:>6} {:>10} {:>9}  {:7} lossy",
        "phase", "tokens", "tokens/s", "min .. max", "read/token", "hits", "read/s", "roofline", "experts"
    )?;
    let lossy = output::lossy(&report.about.lossy);
    let experts = format!("{}/{}", report.about.experts_per_token, report.about.experts_per_token_model);
    let range = |name: &str| {
        let spread = report.spread.get(name).copied().unwrap_or_default();
        format!("{:.2} .. {:.2}", spread.min, spread.max)
    };
    let prompt = report.about.prompt_tokens.max(1) as f64;
    writeln!(
        out,
        "{:8} {:>6} {:>10.2} {:>19} {:>14} {:>6} {:>10} {:>7.1} %  {:7} {lossy}",
        "prefill",
        report.about.prompt_tokens,
        report.rates.prefill_tokens_per_s,
        range("prefill_tokens_per_s"),
        human_bytes((report.rates.prefill_expert_bytes / prompt) as u64),
        "-",
        human_bytes(
            (report.rates.prefill_expert_bytes / report.rates.time_to_first_token_s.max(1e-9)) as u64
        ),
        100.0 * report.limits.prefill_roofline_fraction,
        experts,
    )?;
    writeln!(
        out,
        "{:8} {:>6} {:>10.2} {:>19} {:>14} {:>4.1} % {:>8} {:>7.1} %  {:7} {lossy}\n",
        "decode",
        report.about.decode_tokens,
        report.rates.decode_tokens_per_s,
        range("decode_tokens_per_s"),
        human_bytes(report.rates.expert_bytes_per_token as u64),
        100.0 * report.rates.hit_rate,
        human_bytes(report.rates.read_bytes_per_s as u64),
        100.0 * report.limits.roofline_fraction,
        experts,
    )
}

fn print_split(out: &mut impl Write, report: &BenchReport) -> io::Result<()> {
    writeln!(
        out,
        "{:20} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "ms per token", "read wait", "store", "experts", "dense", "other"
    )?;
    let mut line = |name: &str, split: &TimeSplit| {
        let ms = |seconds: f64| format!("{:.3}", 1e3 * seconds);
        writeln!(
            out,
            "{name:20} {:>10} {:>10} {:>10} {:>10} {:>10}",
            ms(split.read_wait_s),
            ms(split.fetch_s),
            ms(split.expert_compute_s),
            ms(split.dense_compute_s),
            ms(split.other_s),
        )
    };
    line("prefill", &report.rates.prefill_split)?;
    line("decode", &report.rates.split)?;
    writeln!(out, "first token after {:.3} s\n", report.rates.time_to_first_token_s)
}

/// What the drive gave; a model without experts reads nothing while it runs.
fn print_drive(out: &mut impl Write, report: &BenchReport) -> io::Result<()> {
    let rate = |bytes: f64| format!("{}/s", human_bytes(bytes as u64));
    writeln!(
        out,
        "drive      {} at {} records of {} in flight, {} while memory is read too{}",
        rate(report.limits.drive_bytes_per_s),
        report.limits.drive_depth,
        human_bytes(report.limits.drive_record_bytes),
        rate(report.limits.drive_bytes_per_s_computing),
        if report.limits.drive_offsets_repeated { ", some read twice" } else { ", none read twice" },
    )?;
    writeln!(
        out,
        "reads      {} over the whole decode ({:.0} % of the drive), {} while reading",
        rate(report.rates.read_bytes_per_s),
        100.0 * report.limits.read_rate_fraction,
        rate(report.rates.read_bytes_per_s_busy),
    )
}

fn print_limits(out: &mut impl Write, report: &BenchReport) -> io::Result<()> {
    let rate = |bytes: f64| format!("{}/s", human_bytes(bytes as u64));
    if report.about.experts_per_layer > 0 {
        print_drive(out, report)?;
    }
    writeln!(
        out,
        "memory     {} by {} threads over {}",
        rate(report.limits.memory_bytes_per_s),
        report.about.threads,
        human_bytes(report.limits.memory_probe_bytes),
    )?;
    for (format, rate) in &report.limits.kernel_products_per_s {
        writeln!(out, "kernel     {format}: {:.1} G multiply-adds/s at best", rate / 1e9)?;
    }
    writeln!(
        out,
        "a token    {:.2} ms; the drive needs {:.2} ms for its {}, the memory {:.2} ms for {} (dense {})",
        1e3 * report.rates.token_time_s,
        1e3 * report.limits.disk_time_s,
        human_bytes(report.rates.expert_bytes_per_token as u64),
        1e3 * report.limits.memory_time_s,
        human_bytes(
            (report.limits.dense_bytes_per_token + report.limits.expert_bytes_touched_per_token) as u64
        ),
        human_bytes(report.limits.dense_bytes_per_token as u64),
    )?;
    if report.limits.drive_bytes_per_s_computing > 0.0 {
        let limits = &report.limits;
        writeln!(
            out,
            "           both at once, the drive as fast as it is beside the memory: {:.2} ms, {:.1} % of the token",
            1e3 * limits.both_time_s,
            100.0 * limits.both_fraction,
        )?;
    }
    writeln!(
        out,
        "a prompt   {:.2} s; the drive needs {:.2} s for its {}, the arithmetic {:.2} s",
        report.rates.time_to_first_token_s,
        report.limits.prefill_disk_time_s,
        human_bytes(report.rates.prefill_expert_bytes as u64),
        report.limits.prefill_arithmetic_time_s,
    )
}

/// Several streams together.
fn print_streams(out: &mut impl Write, report: &BenchReport) -> io::Result<()> {
    let Some(streams) = &report.streams else { return Ok(()) };
    writeln!(
        out,
        "\nstreams    {} together: {:.2} tokens/s, {:.2} .. {:.2} each · {} read a token · {:.1} % hits · at most {:.3} s \
         between two tokens of one",
        report.about.parallel,
        streams.total_tokens_per_s,
        streams.stream_tokens_per_s_min,
        streams.stream_tokens_per_s_max,
        human_bytes(streams.streams_expert_bytes_per_token as u64),
        100.0 * streams.streams_hit_rate,
        streams.stream_wait_max_s,
    )?;
    let Some(arrival) = &streams.arrival else { return Ok(()) };
    writeln!(
        out,
        "arrival    a prompt of {} tokens: first token after {:.2} s; meanwhile at most {:.3} s between two tokens of a \
         stream (bound on a pass: {:.3} s)",
        arrival.prompt_tokens,
        arrival.time_to_first_token_s,
        arrival.stream_wait_max_s,
        arrival.pass_time_max_s,
    )
}

fn print_turns(out: &mut impl Write, report: &BenchReport) -> io::Result<()> {
    let Some(turns) = &report.turns else { return Ok(()) };
    writeln!(
        out,
        "turns      first token after {:.3} s for {} tokens; in the second turn after {:.3} s ({:.1} %) for {}, {} reused",
        turns.first_time_to_first_token_s,
        turns.first_prompt_tokens,
        turns.second_time_to_first_token_s,
        100.0 * turns.second_over_first,
        turns.second_prompt_tokens,
        turns.second_reused_tokens,
    )?;
    let Some(restarted) = &turns.restarted else { return Ok(()) };
    writeln!(
        out,
        "           after a restart {:.3} s ({:.1} %), {} reused",
        restarted.time_to_first_token_s,
        100.0 * restarted.over_first,
        restarted.reused_tokens,
    )
}
