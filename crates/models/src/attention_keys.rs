//! Heads and rotary embedding in a config.json, which all families name alike.

use std::f64::consts::PI;

use ops::{AttentionShape, RopePairing};

use crate::ModelError;
use crate::section::{Part, Section};
use crate::spec::RopeFactors;

/// Values assumed for keys that are absent, and facts that no config.json states.
pub(crate) struct Defaults {
    /// `None`: hidden size over heads.
    pub(crate) head_dim: Option<u64>,
    /// `None`: as many as heads.
    pub(crate) kv_heads: Option<u64>,
    pub(crate) rope_theta: f64,
    pub(crate) partial_rotary_factor: f64,
    pub(crate) pairing: RopePairing,
    pub(crate) gated: bool,
}

/// Heads and the rotated part of them.
pub(crate) fn attention_shape(
    text: &Section<'_>,
    eps: f32,
    defaults: &Defaults,
) -> Result<AttentionShape, ModelError> {
    let heads = text.dim("num_attention_heads", None)?;
    let kv_heads = text.dim("num_key_value_heads", Some(defaults.kv_heads.unwrap_or(heads as u64)))?;
    if heads % kv_heads != 0 {
        return Err(text.bad(
            "num_key_value_heads",
            kv_heads,
            format!("a divisor of num_attention_heads = {heads}"),
        ));
    }
    let by_width = (text.dim("hidden_size", None)? / heads) as u64;
    let head_dim = text.dim("head_dim", Some(defaults.head_dim.unwrap_or(by_width)))?;
    let rope = rope_section(text)?;
    let theta = text.positive("rope_theta", defaults.rope_theta, 1e15)?;
    let theta = rope.as_ref().map_or(Ok(theta), |rope| rope.positive("rope_theta", theta, 1e15))?;
    let key = "partial_rotary_factor";
    let factor = text.positive(key, defaults.partial_rotary_factor, 1.0)?;
    let factor = rope.as_ref().map_or(Ok(factor), |rope| rope.positive(key, factor, 1.0))?;
    let rotary_dim = (head_dim as f64 * factor) as usize;
    if rotary_dim == 0 || !rotary_dim.is_multiple_of(2) {
        return Err(text.bad(key, factor, "one that rotates an even number of dimensions"));
    }
    let Defaults { pairing, gated, .. } = *defaults;
    let rope_theta = theta as f32;
    Ok(AttentionShape { heads, kv_heads, head_dim, rotary_dim, rope_theta, pairing, gated, eps })
}

/// Newer files gather the rotary keys in one object, older ones have them at the top of the section.
/// Where there are both objects, transformers takes the older one.
fn rope_section<'a>(text: &Section<'a>) -> Result<Option<Section<'a>>, ModelError> {
    let older =
        text.get("rope_scaling").filter(|object| object.as_object().is_none_or(|keys| !keys.is_empty()));
    match older {
        Some(_) => {
            text.pass_over("rope_parameters");
            text.section("rope_scaling", Part::Rope)
        }
        None => text.section("rope_parameters", Part::Rope),
    }
}

/// Divisors of the frequencies, for contexts that are longer than those of the training.
pub(crate) fn rope_factors(text: &Section<'_>, shape: &AttentionShape) -> Result<RopeFactors, ModelError> {
    let stored = text.flag(STORED, false)?;
    let usual = if stored { RopeFactors::Stored } else { RopeFactors::Ones };
    let Some(rope) = rope_section(text)? else { return Ok(usual) };
    let pairs = shape.rotary_dim / 2;
    let kind = match rope.text("rope_type")? {
        Some(kind) => kind,
        None => rope.text("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => Ok(usual),
        other if stored => Err(text.bad("rope_type", other, "default, for the factors are stored")),
        "linear" => Ok(RopeFactors::Values(vec![rope.needed("factor", 1e6)? as f32; pairs])),
        "llama3" => {
            let smooth = Llama3::read(&rope, text)?;
            let frequency =
                |j: usize| f64::from(shape.rope_theta).powf(-2.0 * j as f64 / shape.rotary_dim as f64);
            Ok(RopeFactors::Values((0..pairs).map(|j| smooth.factor(frequency(j))).collect()))
        }
        other => Err(text.bad(
            "rope_type",
            other,
            "default, linear or llama3 (other scaled rotary embeddings are not supported yet)",
        )),
    }
}

/// Set where the factors are a tensor of the checkpoint, as in GGUF files.
pub(crate) const STORED: &str = "rope_freqs";

/// Llama 3.1's scaling: low frequencies by `factor`, high ones not at all, those between smoothly.
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    fn read(rope: &Section<'_>, text: &Section<'_>) -> Result<Self, ModelError> {
        let longest = text.positive("max_position_embeddings", 8192.0, 1e9)?;
        let original = text.positive("original_max_position_embeddings", longest, 1e9)?;
        let smooth = Self {
            factor: rope.needed("factor", 1e6)?,
            low: rope.needed("low_freq_factor", 1e6)?,
            high: rope.needed("high_freq_factor", 1e6)?,
            original: rope.positive("original_max_position_embeddings", original, 1e9)?,
        };
        match smooth.high > smooth.low {
            true => Ok(smooth),
            false => Err(rope.bad("high_freq_factor", smooth.high, "more than low_freq_factor")),
        }
    }

    fn factor(&self, frequency: f64) -> f32 {
        let turns = self.original * frequency / (2.0 * PI);
        let part = ((turns - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - part) / self.factor + part)) as f32
    }
}
