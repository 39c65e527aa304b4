//! The plain decoder that several families are, but for flags: softmax attention with rotated heads
//! in every layer, ordinary RMS norms, and gated MLPs, dense or routed.

use ops::{AttentionShape, RopePairing};
use serde_json::Value;

use crate::ModelError;
use crate::attention_keys::{self, Defaults, attention_shape, rope_factors};
use crate::gguf_keys::Keys;
use crate::gguf_names;
use crate::names::ROPE_FACTORS;
use crate::section::{LAYERS_MAX, Section};
use crate::spec::{
    AttentionBias, AttentionSpec, FeedSpec, LayerSpec, MixerSpec, MlpSpec, ModelSpec, NormSpec, WeightForm,
};

/// Key for biases of the output projection alone, where a GGUF file has or lacks just those.
const OUTPUT_BIAS: &str = "attention_output_bias";

/// When a `sliding_window` in config.json is used.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// Whenever it is there.
    Always,
    /// If `use_sliding_window` is set, in all layers.
    IfUsed,
    /// If `use_sliding_window` is set, in the layers that `layer_types` lists, if there is such a
    /// list.
    IfUsedAndListed,
}

/// The facts that no config.json states.
pub(super) struct Traits {
    /// Base of the rotary frequencies where config.json has none.
    pub(super) rope_theta: f64,
    /// Epsilon of the norms where config.json has none.
    pub(super) eps: f64,
    /// Width of a head where config.json has none; `None`: hidden size over heads.
    pub(super) head_dim: Option<u64>,
    /// Heads of keys and values where config.json has none; `None`: as many as heads.
    pub(super) kv_heads: Option<u64>,
    /// Which rotary dimensions converters to GGUF leave together.
    pub(super) gguf_pairing: RopePairing,
    /// Whether queries and keys are normed per head.
    pub(super) qk_norm: bool,
    /// `attention_bias` where config.json has none.
    pub(super) qkv_bias: bool,
    /// Whether that is so whatever `attention_bias` says.
    pub(super) fixed_bias: bool,
    /// Whether the output projection has a bias where the others have.
    pub(super) output_bias: bool,
    /// When a window is used.
    pub(super) window: Window,
    /// The window where config.json has no such key.
    pub(super) window_default: Option<u64>,
}

impl Traits {
    /// Those of most families.
    pub(super) const USUAL: Traits = Traits {
        rope_theta: 1e4,
        eps: 1e-6,
        head_dim: None,
        kv_heads: None,
        gguf_pairing: RopePairing::Halves,
        qk_norm: false,
        qkv_bias: false,
        fixed_bias: false,
        output_bias: true,
        window: Window::Always,
        window_default: None,
    };
}

/// The specification of a decoder with `traits` whose layer i ends in `feed(i)`.
pub(super) fn spec(
    text: &Section<'_>,
    traits: &Traits,
    feed: impl FnMut(usize) -> FeedSpec,
) -> Result<ModelSpec, ModelError> {
    let layers = text.layers()?;
    let eps = text.positive("rms_norm_eps", traits.eps, 1.0)? as f32;
    let weight_form = text.weight_form()?;
    let pairing = match weight_form {
        WeightForm::Gguf => traits.gguf_pairing,
        WeightForm::HuggingFace => RopePairing::Halves,
    };
    let rope_theta = traits.rope_theta;
    let Traits { head_dim, kv_heads, .. } = *traits;
    let partial_rotary_factor = 1.0;
    let defaults = Defaults { head_dim, kv_heads, rope_theta, partial_rotary_factor, pairing, gated: false };
    let shape = attention_shape(text, eps, &defaults)?;
    check_supported(text, traits, &shape)?;
    let said = text.flag("attention_bias", traits.qkv_bias)?;
    // transformers builds some families' biases without asking; a GGUF file's flag is made of its tensors.
    let fixed = traits.fixed_bias && weight_form == WeightForm::HuggingFace;
    let qkv = if fixed { traits.qkv_bias } else { said };
    let bias = AttentionBias { qkv, output: text.flag(OUTPUT_BIAS, qkv && traits.output_bias)? };
    let attention = AttentionSpec { shape, qk_norm: traits.qk_norm, bias };
    let mixer = MixerSpec::Attention(attention);
    let layer = |feed| LayerSpec { mixer: mixer.clone(), feed };
    Ok(ModelSpec {
        family: text.family(),
        vocab_size: text.dim("vocab_size", None)?,
        hidden_size: text.dim("hidden_size", None)?,
        layers: (0..layers).map(feed).map(layer).collect(),
        norm: NormSpec { eps, offset: 0.0 },
        rope_factors: rope_factors(text, &shape)?,
        tie_word_embeddings: text.flag("tie_word_embeddings", false)?,
        max_position_embeddings: text.dim("max_position_embeddings", Some(CONTEXT_DEFAULT))?,
        eos_token_ids: text.token_ids("eos_token_id")?,
        weight_form,
    })
}

/// The MLP of dense layers.
pub(super) fn mlp(text: &Section<'_>) -> Result<MlpSpec, ModelError> {
    Ok(MlpSpec { inner: text.dim("intermediate_size", None)? })
}

/// The config.json of a GGUF file without experts.
pub(super) fn dense_gguf_json(keys: &Keys<'_>, model_type: &str) -> Result<Value, ModelError> {
    if let Some(experts) = keys.get("expert_count").filter(|_| keys.has_experts()) {
        return Err(keys.bad("expert_count", experts, "0"));
    }
    let mut json = gguf_json(keys, model_type)?;
    json["intermediate_size"] =
        keys.dim("feed_forward_length", keys.rows_of("blk.0.ffn_gate.weight"))?.into();
    Ok(json)
}

/// The config.json of a GGUF file, but for the widths of its MLPs and for its experts.
pub(super) fn gguf_json(keys: &Keys<'_>, model_type: &str) -> Result<Value, ModelError> {
    let mut json = keys.config_json(model_type, keys.count("block_count", None, LAYERS_MAX)?)?;
    json[OUTPUT_BIAS] = keys.has(gguf_names::OUTPUT_BIAS).into();
    json[attention_keys::STORED] = keys.checkpoint.tensor(ROPE_FACTORS).is_some().into();
    if let Some(value) = keys.get("attention.sliding_window") {
        let window = value.as_u64();
        let window = window.ok_or_else(|| keys.bad("attention.sliding_window", value, "a whole number"))?;
        json["sliding_window"] = window.into();
        json["use_sliding_window"] = (window > 0).into();
        json["max_window_layers"] = 0.into();
    }
    Ok(json)
}

/// Refuses keys that ask for a computation that is not done.
fn check_supported(text: &Section<'_>, traits: &Traits, shape: &AttentionShape) -> Result<(), ModelError> {
    text.silu()?;
    if text.flag("mlp_bias", false)? {
        return Err(text.bad("mlp_bias", true, "false (biases in the MLP are not supported yet)"));
    }
    // Converters to GGUF store how many dimensions are rotated; transformers rotates all.
    if text.weight_form()? == WeightForm::HuggingFace && shape.rotary_dim != shape.head_dim {
        let got = shape.rotary_dim as f64 / shape.head_dim as f64;
        return Err(text.bad("partial_rotary_factor", got, "1 (transformers rotates whole heads, too)"));
    }
    if traits.qk_norm {
        text.always("use_qk_norm", "true, as in every model of the family")?;
    }
    check_windows(text, traits)
}

/// Refuses windows that are shorter than the longest context.
fn check_windows(text: &Section<'_>, traits: &Traits) -> Result<(), ModelError> {
    let layers = text.layers()?;
    let listed = match text.get("layer_types") {
        None => None,
        Some(list) => {
            let names = list.as_array().filter(|names| names.len() == layers);
            let full = |kind: &&Value| kind.as_str() == Some("full_attention");
            match names.map(|names| names.iter().find(|kind| !full(kind))) {
                None => return Err(text.bad("layer_types", list, format!("full_attention {layers} times"))),
                Some(Some(kind)) => return Err(text.bad("layer_types", kind, "full_attention only")),
                Some(None) => names,
            }
        }
    };
    // In layers from this one on, where there is no list.
    let from = text.get("max_window_layers").and_then(Value::as_u64).unwrap_or(WINDOW_FROM_DEFAULT);
    let flag = text.flag("use_sliding_window", false)?;
    let used = match traits.window {
        Window::Always => true,
        Window::IfUsed => flag,
        Window::IfUsedAndListed => flag && listed.is_none() && from < layers as u64,
    };
    let context = text.dim("max_position_embeddings", Some(CONTEXT_DEFAULT))? as u64;
    let window = match text.get("sliding_window") {
        None if !text.has("sliding_window") => traits.window_default.map(Value::from),
        window => window.cloned(),
    };
    // A window as long as the longest context never ends before it.
    let harmless = |window: &Value| window.as_u64().is_some_and(|window| window == 0 || window >= context);
    match window.filter(|window| used && !harmless(window)) {
        Some(window) => {
            Err(text.bad("sliding_window", window, "null (sliding windows are not supported yet)"))
        }
        None => Ok(()),
    }
}

/// First layer with a window where config.json names none; transformers' default.
const WINDOW_FROM_DEFAULT: u64 = 28;
/// Longest context where config.json has none.
const CONTEXT_DEFAULT: u64 = 2048;
