//! `inspect`: sizes of a model, from headers only.
#![allow(clippy::unwrap_used)]

mod common;

use common::{fixture, gguf, moe};
use engine::Format;
use engine::synth::Preset;
use lab::inspect::inspect;
use pack::NoProgress;
use pack::synth::{SynthChoice, SynthOptions, plan_synth, sizes, synth};

#[test]
fn a_file_can_be_looked_at() {
    let found = inspect(&gguf("published-00001-of-00003.gguf")).unwrap();
    assert_eq!((found.kind.as_str(), found.layers, found.attention_layers), ("GGUF file", 6, 2));
    let (tensors, _) = found.ignored["multi-token prediction head"];
    assert!(tensors > 10, "{tensors}");
    assert_eq!(found.tiers["experts"].formats.keys().collect::<Vec<_>>(), ["bf16"]);
    let source = inspect(&fixture("published")).unwrap();
    assert_eq!(found.tiers["experts"].weights, source.tiers["experts"].weights);
    assert_eq!(found.tiers["dense"].weights, source.tiers["dense"].weights);
}

/// Layers without experts cost none.
#[test]
fn a_model_with_dense_layers_is_counted_by_its_layers() {
    let found = inspect(&moe("qwen3mixed")).unwrap();
    assert_eq!((found.architecture.as_str(), found.layers, found.attention_layers), ("Qwen3-MoE", 6, 6));
    assert_eq!((found.num_experts, found.experts_per_token), (8, 3));
    let expert = 3 * 20 * 32 * 2;
    assert_eq!((found.bytes_per_expert, found.expert_bytes_per_token), (expert, 2 * 3 * expert));
    assert_eq!(found.tiers["experts"].bytes, 2 * 8 * expert);
    assert_eq!(found.recurrent_state_bytes, 0);
    let found = inspect(&gguf("mixtral.gguf")).unwrap();
    assert_eq!((found.architecture.as_str(), found.num_experts), ("Mixtral", 8));
}

#[test]
fn a_synthetic_model_whose_layers_share_files_says_so() {
    let preset = Preset::find("tiny").unwrap();
    let choice = SynthChoice { preset, tiers: preset.tiers(Format::Q4K), seed: 7, skew: 0.0, layers: None };
    let plan = plan_synth(&choice).unwrap();
    let sizes = sizes(&plan, &SynthOptions::default()).unwrap();
    let mut options = SynthOptions::default();
    options.disk_bytes = Some(sizes.bytes - sizes.expert_bytes / 3);
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("model");
    synth(&plan, &target, &options, &NoProgress).unwrap();
    let found = inspect(&target).unwrap();
    assert!(found.notes.iter().any(|note| note.contains("share record files")), "{:?}", found.notes);
    assert_eq!(found.synthetic.unwrap().preset, "tiny");
}
