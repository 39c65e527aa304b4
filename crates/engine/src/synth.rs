//! Synthetic models: the shapes of published ones with random weights, for measurements.

pub use models::presets::{PRESETS, Preset};
pub use models::synthetic::Synthetic;
