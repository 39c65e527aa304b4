//! `flash-moe synth`: a model of the true shapes with random weights, for measurements.

use std::io::{self, Write};
use std::time::Instant;

use engine::synth::{PRESETS, Preset};
use engine::system::human_bytes;
use pack::synth::{SKEW_MAX, SynthChoice, SynthOptions, plan_synth};

use crate::args::{SynthArgs, Usage};
use crate::output::{self, PackBar};

pub(crate) fn run(args: &SynthArgs) -> anyhow::Result<()> {
    let choice = choice(args)?;
    let mut options = SynthOptions::default();
    options.disk_bytes = args.disk;
    options.threads = args.threads.unwrap_or(0);
    options.command = Some(std::env::args().collect::<Vec<_>>().join(" "));
    let started = Instant::now();
    let report = pack::synth::synth(&plan_synth(&choice)?, &args.target, &options, &PackBar::new("writing"))?;
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        let object = serde_json::json!({
            "preset": choice.preset.name, "seed": choice.seed, "skew": choice.skew,
            "bytes": report.bytes, "dense_bytes": report.dense_bytes, "expert_bytes": report.expert_bytes,
            "layers": report.layers, "record_files": report.record_files,
            "sharing_factor": report.layers as f64 / report.record_files as f64,
            "seconds": seconds, "bytes_per_s": report.bytes as f64 / seconds, "direct": report.direct,
        });
        return Ok(writeln!(io::stdout().lock(), "{object}")?);
    }
    output::note(&format!(
        "wrote {} in {seconds:.1} s ({}/s): {} of dense weights, {} of experts in {} record files for {} layers",
        human_bytes(report.bytes),
        human_bytes((report.bytes as f64 / seconds) as u64),
        human_bytes(report.dense_bytes),
        human_bytes(report.expert_bytes),
        report.record_files,
        report.layers,
    ));
    output::note(&format!("try it:  flash-moe logits {} --tokens 1,2,3", args.target.display()));
    Ok(())
}

fn choice(args: &SynthArgs) -> Result<SynthChoice, Usage> {
    let preset = Preset::find(&args.preset).ok_or_else(|| {
        let known: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
        Usage(format!("unknown preset `{}`; known presets: {}", args.preset, known.join(" ")))
    })?;
    if !(0.0..=SKEW_MAX).contains(&args.skew) {
        return Err(Usage(format!("--skew {} is not from 0 to {SKEW_MAX}", args.skew)));
    }
    let tiers = args.quant.over(preset.tiers(args.quant.experts()));
    let layers = args.layers.map(|layers| u32::try_from(layers).unwrap_or(u32::MAX));
    Ok(SynthChoice { preset, tiers, seed: args.seed, skew: args.skew, layers })
}
