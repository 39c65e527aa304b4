//! Synthetic models: the shapes of published ones with random weights, for measurements.

use std::path::Path;

use checkpoint::Checkpoint;
use experts::pack::PackProgress;
use experts::synth::{SynthOptions, SynthPlan, SynthReport};
pub use models::presets::{PRESETS, Preset, SKEW_MAX, SynthChoice};
use models::presets::{SYNTHETIC, synth_plan};
use serde::Serialize;
use serde_json::Value;

use crate::EngineError;

/// What marks a model as synthetic. Every measurement on one must say so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Synthetic {
    /// Preset.
    pub preset: String,
    /// Seed of the weights.
    pub seed: u64,
    /// Skew of the routers; 0 is uniform, the worst case.
    pub skew: f64,
    /// Experts of the model for each record on the disk: 1, or more where layers share record files.
    pub sharing_factor: f64,
}

impl Synthetic {
    /// The mark of a checkpoint; `None` for a real one.
    pub fn of(checkpoint: &Checkpoint) -> Option<Synthetic> {
        let mark = checkpoint.config().get(SYNTHETIC)?;
        Some(Synthetic {
            preset: mark.get("preset").and_then(Value::as_str).unwrap_or_default().into(),
            seed: mark.get("seed").and_then(Value::as_u64).unwrap_or_default(),
            skew: mark.get("skew").and_then(Value::as_f64).unwrap_or_default(),
            sharing_factor: checkpoint.packed().map_or(1.0, |packed| packed.sharing_factor()),
        })
    }
}

/// The random weights that make a model of a preset.
///
/// # Errors
/// A number of layers that no model can have.
pub fn plan_synth(choice: &SynthChoice) -> Result<SynthPlan, EngineError> {
    let json = choice.preset.config_json(choice.layers);
    let config = models::read_config(Path::new(choice.preset.name), &json)?;
    Ok(synth_plan(choice, json, &config))
}

/// Writes a synthetic model into the directory `target`.
///
/// # Errors
/// A target that holds something else, too little room, a failed write.
pub fn synth(
    choice: &SynthChoice,
    target: &Path,
    options: &SynthOptions,
    progress: &dyn PackProgress,
) -> Result<SynthReport, EngineError> {
    Ok(experts::synth::synth(&plan_synth(choice)?, target, options, progress)?)
}

/// What a synthetic model takes on the disk and in memory, without writing it.
///
/// # Errors
/// As [`synth`] for the choice and the limit on the disk.
pub fn synth_sizes(choice: &SynthChoice, options: &SynthOptions) -> Result<SynthReport, EngineError> {
    Ok(experts::synth::sizes(&plan_synth(choice)?, options)?)
}
