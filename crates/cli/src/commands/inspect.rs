//! `flash-moe inspect`: what a model is and what it costs.

use std::io::{self, Write};

use engine::KvFormat;
use engine::system::human_bytes;
use lab::inspect::{Inspection, inspect};

use crate::args::InspectArgs;
use crate::output::size;

/// Tiers in the order in which people think of them.
const TIERS: [(&str, &str); 6] = [
    ("experts", "routed experts (streamed)"),
    ("dense", "attention, DeltaNet, MLP"),
    ("embedding", "embedding table"),
    ("head", "output head"),
    ("router", "routers and gates"),
    ("small", "norms and other vectors"),
];

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let path = super::model_path(&args.model)?;
    let found = inspect(&path)?;
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut stdout, &found).map_err(io::Error::from)?;
        return Ok(writeln!(stdout)?);
    }
    writeln!(stdout, "{}: {}, {}", path.display(), found.architecture, found.kind)?;
    print_shape(&mut stdout, &found)?;
    print_tiers(&mut stdout, &found)?;
    print_costs(&mut stdout, &found)?;
    for (part, (tensors, bytes)) in &found.ignored {
        writeln!(stdout, "left alone: {part}, {tensors} tensors, {}", human_bytes(*bytes))?;
    }
    for note in &found.notes {
        writeln!(stdout, "note: {note}")?;
    }
    Ok(())
}

fn print_shape(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    writeln!(
        out,
        "{} layers ({} full attention, {} gated DeltaNet), hidden {}, vocabulary {}, context up to {}",
        found.layers,
        found.attention_layers,
        found.layers - found.attention_layers,
        found.hidden_size,
        found.vocab_size,
        found.max_position_embeddings,
    )?;
    let (used, all) = (found.experts_per_token, found.num_experts);
    if all == 0 {
        return writeln!(out, "no routed experts: every token needs all weights, and nothing is streamed\n");
    }
    writeln!(out, "{used} of {all} routed experts + 1 shared for each token and layer\n")
}

fn print_tiers(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    writeln!(out, "{:36} {:>12} {:>12}  formats", "tier", "weights", "bytes")?;
    for (key, title) in TIERS {
        let Some(tier) = found.tiers.get(key).filter(|tier| tier.weights > 0) else { continue };
        let formats: Vec<&str> = tier.formats.keys().map(String::as_str).collect();
        writeln!(
            out,
            "{title:36} {:>12} {:>12}  {}",
            count(tier.weights),
            size(tier.bytes),
            formats.join(" ")
        )?;
    }
    let (weights, bytes) =
        found.tiers.values().fold((0, 0), |sum, tier| (sum.0 + tier.weights, sum.1 + tier.bytes));
    writeln!(out, "{:36} {:>12} {:>12}\n", "together", count(weights), size(bytes))
}

fn print_costs(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    let resident: u64 =
        found.tiers.iter().filter(|(name, _)| *name != "experts").map(|(_, tier)| tier.bytes).sum();
    writeln!(out, "resident       {} of weights that every token needs", human_bytes(resident))?;
    let weights = count(found.active_weights_per_token);
    if found.num_experts == 0 {
        writeln!(out, "a token        {weights} weights")?;
    } else {
        writeln!(out, "an expert      {}", human_bytes(found.bytes_per_expert))?;
        let read = human_bytes(found.expert_bytes_per_token);
        writeln!(out, "a token        {weights} weights; {read} of experts read when nothing is cached")?;
    }
    writeln!(
        out,
        "a sequence     {} per token of context{}, {} of recurrent state",
        human_bytes(found.kv_bytes_per_token),
        other_kv_formats(found),
        human_bytes(found.recurrent_state_bytes)
    )
}

/// ` in f16 (q8_0 5.31 KiB, f32 …)`.
fn other_kv_formats(found: &Inspection) -> String {
    let usual = KvFormat::default().to_string();
    let others = found.kv_bytes_per_token_by_format.iter().filter(|(name, _)| **name != usual);
    let others: Vec<_> = others.map(|(name, bytes)| format!("{name} {}", human_bytes(*bytes))).collect();
    format!(" in {usual} ({})", others.join(", "))
}

/// `17.0 B`, `21.3 M`: weights as people count them.
fn count(weights: u64) -> String {
    match weights {
        0..1_000_000 => format!("{:.1} k", weights as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", weights as f64 / 1e6),
        _ => format!("{:.2} B", weights as f64 / 1e9),
    }
}
