//! How a synthetic model's routers use their experts: `synth_reuse DIR PRESET SKEW [TOKENS] [SEED] [LAYERS]` writes the
//! model into DIR, which must not exist, feeds it random tokens one by one, removes it, and prints entropy, reuse from
//! token to token, and the hit rate of a least-recently-used cache by the share of experts that it holds.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/common/routing.rs"]
mod routing;

use std::path::Path;

use engine::Format;
use engine::synth::Preset;
use pack::NoProgress;
use pack::synth::{SynthChoice, SynthOptions, plan_synth, synth};

/// Tokens that warm the cache up.
const WARM_UP_TOKENS: usize = 64;
/// Shares of the experts that fit, percent.
const RESIDENT_PERCENT: [f64; 11] = [2.0, 3.0, 6.0, 9.0, 12.5, 18.0, 25.0, 36.0, 54.0, 73.0, 100.0];
/// Enough for the dense weights and a few layers' experts: routing does not depend on what experts compute alike.
const DISK_BYTES: u64 = 4_500_000_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |index: usize, usual: u64| args.get(index).map_or(usual, |text| text.parse().unwrap());
    let (dir, preset) = (Path::new(&args[1]), Preset::find(&args[2]).unwrap());
    let (tokens, seed) = (number(4, 400) as usize, number(5, 1));
    let layers = args.get(6).map(|text| text.parse().unwrap());
    let tiers = preset.tiers(Format::Q3K);
    let choice = SynthChoice { preset, tiers, seed, skew: args[3].parse().unwrap(), layers };
    let mut options = SynthOptions::default();
    options.disk_bytes = Some(DISK_BYTES);
    synth(&plan_synth(&choice).unwrap(), dir, &options, &NoProgress).unwrap();
    let vocab = preset.config_json(None)["text_config"]["vocab_size"].as_u64().unwrap() as usize;
    let found = routing::record(dir, &routing::random_tokens(seed, tokens, vocab));
    std::fs::remove_dir_all(dir).unwrap();
    let (entropy, repeated) = (found.entropy(), found.repeated());
    println!("{} skew {}: entropy {entropy:.3}, repeated {repeated:.3}", preset.name, choice.skew);
    for percent in RESIDENT_PERCENT {
        let slots = (percent / 100.0 * (found.layers * found.experts) as f64).round() as usize;
        println!("{percent:5.1} % resident  {:5.1} % hit", 100.0 * found.lru(slots, WARM_UP_TOKENS));
    }
}
