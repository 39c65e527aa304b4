//! `flash-moe inspect`: what a model is and what it costs.

use std::io::{self, Write};

use engine::KvFormat;
use engine::system::human_bytes;
use lab::Unread;
use lab::inspect::{Inspection, inspect};

use crate::args::InspectArgs;
use crate::output::{result, size};

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
    let path = args.model.path()?;
    let found = inspect(&path)?;
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut stdout, &found).map_err(io::Error::from)?;
        return Ok(writeln!(stdout)?);
    }
    result(&mut stdout, &format!("{}: {}, {}", path.display(), found.architecture, found.kind))?;
    print_shape(&mut stdout, &found)?;
    print_tiers(&mut stdout, &found)?;
    print_costs(&mut stdout, &found)?;
    for (part, (tensors, bytes)) in &found.ignored {
        result(&mut stdout, &format!("left alone: {part}, {tensors} tensors, {}", human_bytes(*bytes)))?;
    }
    print_unread(&mut stdout, &found)?;
    for note in &found.notes {
        result(&mut stdout, &format!("note: {note}"))?;
    }
    Ok(())
}

/// Keys of the configuration that were not read. One that changes the computation would be an error.
fn print_unread(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    for (why, title) in [
        (Unread::NoEffect, "keys without effect on the computation"),
        (Unread::Off, "keys that switch off what this model lacks anyway"),
        (Unread::Unknown, "unknown keys, not read"),
    ] {
        let keys = found.unread(why);
        if !keys.is_empty() {
            result(out, &format!("{title}: {}", keys.join(", ")))?;
        }
    }
    Ok(())
}

fn print_shape(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    let (layers, attend) = (found.layers, found.attention_layers);
    let kinds = match layers - attend {
        0 => format!("{layers} layers"),
        recurrent => format!("{layers} layers ({attend} full attention, {recurrent} gated DeltaNet)"),
    };
    let (hidden, vocab, context) = (found.hidden_size, found.vocab_size, found.max_position_embeddings);
    result(out, &format!("{kinds}, hidden {hidden}, vocabulary {vocab}, context up to {context}"))?;
    let (used, all) = (found.experts_per_token, found.num_experts);
    let experts = match found.shared_expert {
        _ if all == 0 => "no routed experts: every token needs all weights, and nothing is streamed".into(),
        true => format!("{used} of {all} routed experts + 1 shared for each token and layer"),
        false => format!("{used} of {all} routed experts for each token and layer"),
    };
    result(out, &experts)?;
    writeln!(out)
}

fn print_tiers(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    writeln!(out, "{:26} {:>9} {:>11}  formats", "tier", "weights", "bytes")?;
    for (key, title) in TIERS {
        let Some(tier) = found.tiers.get(key).filter(|tier| tier.weights > 0) else { continue };
        let formats: Vec<&str> = tier.formats.keys().map(String::as_str).collect();
        writeln!(
            out,
            "{title:26} {:>9} {:>11}  {}",
            count(tier.weights),
            size(tier.bytes),
            formats.join(" ")
        )?;
    }
    let (weights, bytes) =
        found.tiers.values().fold((0, 0), |sum, tier| (sum.0 + tier.weights, sum.1 + tier.bytes));
    writeln!(out, "{:26} {:>9} {:>11}\n", "together", count(weights), size(bytes))
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
        writeln!(out, "a token        {weights} weights, {read} of experts read when nothing is cached")?;
    }
    let cached = human_bytes(found.kv_bytes_per_token);
    writeln!(out, "a sequence     {cached} per token of context{}", other_kv_formats(found))?;
    match found.recurrent_state_bytes {
        0 => Ok(()),
        bytes => writeln!(out, "               {} of recurrent state", human_bytes(bytes)),
    }
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
