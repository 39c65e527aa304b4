//! Random weights of a published model's shape that behave like a model.
//!
//! [`synth_plan`] says which random weights make a model of a preset that behaves: activations and
//! logits stay finite through all layers, and the routers spread.
//!
//! # Skew
//! With skew 0 routers have no favourites and no memory: they see little else than the token's own
//! random embedding, and the experts of one token say nothing about those of the next. That is the
//! worst case for a cache. Real routers are kinder in two ways, which `skew` imitates:
//! * *popularity*: every embedding has a component along the vector of ones, which survives in the
//!   residual stream, and each router row has a fixed random weight on it: the same experts are a
//!   little better for every token;
//! * *context*: the first layer's DeltaNet writes a moving average of the last tokens into the
//!   residual stream (keys, queries and gates nearly constant, a small write strength), so that
//!   consecutive tokens look alike to all routers.
//!
//! `docs/experiments/2026-11-synth-skew.md` has the hit rates that come of it.

use std::path::Path;
use std::sync::Arc;

use models::ModelSpec;
use models::layout::{Expected, Tier, published_dense};
use models::presets::Preset;
use models::spec::LayerSpec;
use models::synthetic::SYNTHETIC;
use models::tiers::QuantTiers;
use serde_json::{Value, json};
use tensor::Format;

use super::error::SynthError;
use super::plan::{Band, Fill, SynthLayer, SynthPart, SynthPlan, SynthTensor};
use super::rng::Rng;

/// What the random weights of a model are made from.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct SynthChoice {
    /// The shape.
    pub preset: Preset,
    /// Formats.
    pub tiers: QuantTiers,
    /// Seed of all random choices.
    pub seed: u64,
    /// How unlike the worst case the routers are: 0 uniform, 1 as published models of the family, at most
    /// [`SKEW_MAX`].
    pub skew: f32,
    /// Layers instead of the preset's own number.
    pub layers: Option<u32>,
}

/// Largest skew: beyond it routers use the same few experts for everything.
pub const SKEW_MAX: f32 = 4.0;

/// The random weights that make a model of a preset.
///
/// # Errors
/// A number of layers that no model can have.
pub fn plan_synth(choice: &SynthChoice) -> Result<SynthPlan, SynthError> {
    let json = choice.preset.config_json(choice.layers);
    let spec = models::read_config(Path::new(choice.preset.name), &json)?;
    Ok(synth_plan(choice, json, &spec))
}

/// The plan for a synthetic model of specification `spec`, which was read from `json`.
fn synth_plan(choice: &SynthChoice, json: Value, spec: &ModelSpec) -> SynthPlan {
    let weights = Weights { spec, skew: choice.skew };
    let dense = published_dense(spec);
    let dense: Vec<SynthTensor> =
        dense.into_iter().map(|expected| tensor(&expected, choice, &weights)).collect();
    let part = |rows, cols, gain: f32| SynthPart {
        format: choice.tiers.experts.for_cols(cols),
        rows,
        cols,
        std: gain / (cols as f32).sqrt(),
    };
    let layer = |(index, layer): (usize, &LayerSpec)| {
        let moe = layer.moe()?;
        let (hidden, inner) = (spec.hidden_size, moe.expert.inner);
        let parts = [part(inner, hidden, 1.0), part(inner, hidden, 1.0), part(hidden, inner, OUTPUT_GAIN)];
        Some(SynthLayer { layer: index as u32, experts: moe.experts, parts })
    };
    let layers: Vec<SynthLayer> = spec.layers.iter().enumerate().filter_map(layer).collect();
    let all: usize = dense.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let mut json = json;
    json[SYNTHETIC] = json!({ "preset": choice.preset.name, "seed": choice.seed, "skew": choice.skew });
    SynthPlan {
        config: json,
        description: format!(
            "{} {} layers, {} experts, {}; synthetic {}: random weights of seed {}, skew {}",
            spec.family,
            spec.num_layers(),
            spec.experts_max(),
            formats(&choice.tiers),
            choice.preset.name,
            choice.seed,
            choice.skew,
        ),
        seed: choice.seed,
        dense,
        layers,
        pool_weights: (all / POOL_SHARE).clamp(POOL_WEIGHTS_MIN, POOL_WEIGHTS_MAX),
    }
}

fn formats(tiers: &QuantTiers) -> String {
    format!("experts {}, dense {}, embedding {}", tiers.experts, tiers.dense, tiers.embedding)
}

fn tensor(expected: &Expected, choice: &SynthChoice, weights: &Weights<'_>) -> SynthTensor {
    let cols = expected.shape.last().copied().unwrap_or(1);
    // Routers as checkpoints have them; small tensors are f32 in any case.
    let format = choice.tiers.format(expected.tier, Format::BF16, cols);
    SynthTensor {
        name: expected.name.clone(),
        shape: expected.shape.clone(),
        format,
        fill: weights.fill(expected),
    }
}

/// How each tensor is filled.
struct Weights<'a> {
    spec: &'a ModelSpec,
    skew: f32,
}

impl Weights<'_> {
    fn fill(&self, expected: &Expected) -> Fill {
        let name = expected.name.as_str();
        let (rows, cols) = (expected.shape[0] as u64, expected.shape[1..].iter().product::<usize>());
        let std = 1.0 / (cols.max(1) as f32).sqrt();
        let pool = |mean, std| Fill::Pool(vec![Band { rows, mean, std }]);
        match expected.tier {
            Tier::Embedding => pool(self.common(), 1.0),
            Tier::Head => pool(0.0, std),
            Tier::Router if name.ends_with("mlp.gate.weight") => self.router(std),
            Tier::Router if name.ends_with("in_proj_b.weight") => {
                self.constant_rows(std, self.write_strength(name))
            }
            Tier::Router => normal_rows(0.0, std),
            Tier::Small => small(name),
            Tier::Dense if name.ends_with("in_proj_qkv.weight") => self.keys_and_values(name, std),
            Tier::Dense if name.ends_with("in_proj_z.weight") => {
                pool(self.along_ones(CONTEXT_GATE * self.context(name), 0.0), std)
            }
            Tier::Dense if name.ends_with(".out_proj.weight") => pool(0.0, std * self.mixer_gain(name)),
            Tier::Dense if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") => {
                pool(0.0, std * OUTPUT_GAIN)
            }
            Tier::Dense => pool(0.0, std),
        }
    }

    /// Component of an embedding along each axis that all tokens have in common.
    fn common(&self) -> f32 {
        if self.skew > 0.0 { COMMON } else { 0.0 }
    }

    /// How much of the context machinery is on in the layer of this tensor, 0 to 2: it is in the first.
    fn context(&self, name: &str) -> f32 {
        if name.contains(FIRST_LAYER) { self.skew.min(2.0) } else { 0.0 }
    }

    /// Mean of a row's weights that adds `offset` to its product with a normed hidden state, where
    /// the residual stream has `others` (root mean square) besides the embedding.
    fn along_ones(&self, offset: f32, others: f32) -> f32 {
        let norm = (1.0 + COMMON * COMMON + others * others).sqrt();
        match self.skew > 0.0 {
            true => offset * norm / (COMMON * self.spec.hidden_size as f32),
            false => 0.0,
        }
    }

    /// Rows of noise with the same offset.
    fn constant_rows(&self, std: f32, offset: f32) -> Fill {
        normal_rows(self.along_ones(offset, 0.0), std)
    }

    /// Before the sigmoid: a strong negative value makes the state a long average.
    fn write_strength(&self, name: &str) -> f32 {
        WRITE_STRENGTH * self.context(name)
    }

    /// Rows of noise, each with an offset of its own: the expert's popularity.
    fn router(&self, std: f32) -> Fill {
        let unit = self.along_ones(POPULARITY * self.skew, CONTEXT_RMS * self.skew);
        rows(move |_, rng, row| {
            let offset = unit * rng.normal();
            row.iter_mut().for_each(|weight| *weight = offset + std * rng.normal());
        })
    }

    /// Queries and keys with a common part, so that consecutive tokens read and write in one place;
    /// values small, where the activation function is nearly linear and adds no constant.
    fn keys_and_values(&self, name: &str, std: f32) -> Fill {
        let Some(shape) = self.spec.delta_net().next() else { return normal_rows(0.0, std) };
        let keys = 2 * shape.key_heads * shape.key_dim;
        let mean = self.along_ones(CONTEXT_KEYS * self.context(name), 0.0);
        Fill::Pool(vec![
            Band { rows: keys as u64, mean, std },
            Band { rows: shape.value_len() as u64, mean: 0.0, std: std * VALUE_GAIN },
        ])
    }

    /// Gain of a DeltaNet layer's output: the first one carries the context.
    fn mixer_gain(&self, name: &str) -> f32 {
        match name.contains(FIRST_LAYER) {
            true => OUTPUT_GAIN + self.skew * CONTEXT_GAIN,
            false => OUTPUT_GAIN,
        }
    }
}

/// Norms, biases, decays: values of the size that they have in trained models.
fn small(name: &str) -> Fill {
    if name.ends_with("A_log") {
        return rows(|_, rng, row| row.iter_mut().for_each(|x| *x = (0.01 + 15.99 * rng.uniform()).ln()));
    }
    if name.ends_with("dt_bias") {
        // The inverse of softplus for steps from 0.001 to 0.1, evenly in their logarithm.
        let inverse = |step: f32| step + (-(-step).exp_m1()).ln();
        return rows(move |_, rng, row| {
            row.iter_mut().for_each(|x| *x = inverse(1e-3 * 100f32.powf(rng.uniform())));
        });
    }
    if name.ends_with("conv1d.weight") {
        return normal_rows(0.0, 0.5);
    }
    // Only this norm is stored as what is multiplied; the others are stored less 1.
    normal_rows(if name.ends_with("attn.norm.weight") { 1.0 } else { 0.0 }, 0.05)
}

fn normal_rows(mean: f32, std: f32) -> Fill {
    rows(move |_, rng, row| row.iter_mut().for_each(|weight| *weight = mean + std * rng.normal()))
}

fn rows(make: impl Fn(u64, &mut Rng, &mut [f32]) + Send + Sync + 'static) -> Fill {
    Fill::Rows(Arc::new(make))
}

/// Part of the names of the layer that carries the context.
const FIRST_LAYER: &str = ".layers.0.";
/// Gain of matrices that write to the residual stream: small, so that a token's own embedding stays
/// the larger part through 60 layers.
const OUTPUT_GAIN: f32 = 0.25;
/// Gain of DeltaNet values: small, so that their activation function is nearly linear and adds no constant.
const VALUE_GAIN: f32 = 0.15;
/// What all embeddings have in common along each axis, where there is skew; against 1 for what is a
/// token's own.
const COMMON: f32 = 0.1;
/// Standard deviation of the experts' popularity at skew 1, in router logits (whose own is 1).
const POPULARITY: f32 = 0.2;
/// Offsets at skew 1 in the layer that carries the context: of its output gate, its queries and
/// keys, and its write strength before the sigmoid.
const CONTEXT_GATE: f32 = 5.5;
const CONTEXT_KEYS: f32 = 2.8;
const WRITE_STRENGTH: f32 = -2.1;
/// Added gain of that layer's output at skew 1, and what comes of it in the residual stream (root
/// mean square).
const CONTEXT_GAIN: f32 = 0.8;
const CONTEXT_RMS: f32 = 6.0;
/// Weights of a pool: a part of the model's, within bounds.
const POOL_SHARE: usize = 64;
const POOL_WEIGHTS_MIN: usize = 1 << 18;
const POOL_WEIGHTS_MAX: usize = 1 << 20;
