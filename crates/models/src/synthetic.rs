//! The mark of a synthetic model. Every measurement on one must say so.

use checkpoint::Checkpoint;
use serde::Serialize;
use serde_json::Value;

/// Key in `config.json` that marks a synthetic model: preset, seed and skew.
pub const SYNTHETIC: &str = "flash_moe_synthetic";

/// A synthetic model's origin.
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
