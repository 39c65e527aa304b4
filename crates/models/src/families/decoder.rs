//! The plain decoder that several families are, but for flags: softmax attention with rotated heads
//! in every layer, ordinary RMS norms, and gated MLPs, dense or routed.

use ops::RopePairing;
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
    /// Which rotary dimensions converters to GGUF leave together.
    pub(super) gguf_pairing: RopePairing,
    /// Whether queries and keys are normed per head.
    pub(super) qk_norm: bool,
    /// `attention_bias` where config.json has none.
    pub(super) qkv_bias: bool,
    /// Whether the output projection has a bias where the others have.
    pub(super) output_bias: bool,
    /// When a window is used.
    pub(super) window: Window,
}

/// The specification of a decoder with `traits` whose layer i ends in `feed(i)`.
pub(super) fn spec(
    text: &Section<'_>,
    traits: &Traits,
    feed: impl FnMut(usize) -> FeedSpec,
) -> Result<ModelSpec, ModelError> {
    check_supported(text, traits)?;
    let layers = text.layers()?;
    let eps = text.positive("rms_norm_eps", 1e-6, 1.0)? as f32;
    let weight_form = text.weight_form()?;
    let pairing = match weight_form {
        WeightForm::Gguf => traits.gguf_pairing,
        WeightForm::HuggingFace => RopePairing::Halves,
    };
    let rope_theta = traits.rope_theta;
    let defaults = Defaults { head_dim: None, rope_theta, partial_rotary_factor: 1.0, pairing, gated: false };
    let shape = attention_shape(text, eps, &defaults)?;
    let qkv = text.flag("attention_bias", traits.qkv_bias)?;
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
        max_position_embeddings: text.dim("max_position_embeddings", Some(2048))?,
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
    if let Some(window) = keys.get("attention.sliding_window").and_then(|window| window.as_u64()) {
        json["sliding_window"] = window.into();
        json["use_sliding_window"] = (window > 0).into();
    }
    Ok(json)
}

/// Refuses keys that ask for a computation that is not done.
fn check_supported(text: &Section<'_>, traits: &Traits) -> Result<(), ModelError> {
    if let Some(act) = text.text("hidden_act").filter(|act| *act != "silu") {
        return Err(text.bad("hidden_act", act, "silu"));
    }
    if text.flag("mlp_bias", false)? {
        return Err(text.bad("mlp_bias", true, "false (biases in the MLP are not supported yet)"));
    }
    let listed = text.get("layer_types").and_then(Value::as_array);
    let other = listed.and_then(|types| types.iter().find(|kind| kind.as_str() != Some("full_attention")));
    if let Some(kind) = other {
        return Err(text.bad("layer_types", kind, "full_attention only"));
    }
    let used = match traits.window {
        Window::Always => true,
        Window::IfUsed => text.flag("use_sliding_window", false)?,
        Window::IfUsedAndListed => text.flag("use_sliding_window", false)? && listed.is_none(),
    };
    match text.get("sliding_window").filter(|window| window.as_u64() != Some(0)) {
        Some(window) if used => {
            Err(text.bad("sliding_window", window, "null (sliding windows are not supported yet)"))
        }
        _ => Ok(()),
    }
}
