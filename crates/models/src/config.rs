//! A model's hyper-parameters, read from `config.json` and checked before they size anything.

use std::path::{Path, PathBuf};

use ops::{AttentionShape, DeltaNetShape, KvFormat, ValueHeadOrder};
use serde_json::Value;

use crate::{Architecture, ModelError};

/// Largest value accepted for any dimension; the largest model known has a vocabulary of 2^18.
pub(crate) const DIM_MAX: u64 = 1 << 24;
/// Most layers accepted.
pub(crate) const LAYERS_MAX: u64 = 4096;
/// Most experts a layer may have.
pub(crate) const EXPERTS_MAX: u64 = 65_536;

/// How a layer mixes tokens.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum LayerType {
    /// Softmax attention over the whole context.
    FullAttention,
    /// Gated DeltaNet: a recurrent state of fixed size.
    LinearAttention,
}

/// What a layer does after it has mixed tokens.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MlpType {
    /// Routed experts, and a shared one.
    Moe,
    /// One MLP for every token.
    Dense,
}

/// Which projections of an attention layer have biases.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionBias {
    /// Queries, keys and values.
    pub qkv: bool,
    /// Output.
    pub output: bool,
}

/// What the rotary frequencies are divided by.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeFactors {
    /// Nothing.
    #[default]
    Ones,
    /// These, `[rotary_dim / 2]`.
    Values(Vec<f32>),
    /// A tensor of the checkpoint, `rope_freqs.weight`.
    Stored,
}

/// In what form a checkpoint stores what can be stored in several: norms, decays, heads.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum WeightForm {
    /// As published: norms that multiply by `1 + w` in families that do, `A_log`, value heads grouped by key head,
    /// rotary dimensions paired by halves.
    #[default]
    HuggingFace,
    /// As converters to GGUF leave them: norms as they multiply, `-exp(A_log)`, value heads tiled, adjacent rotary
    /// dimensions paired in the llama family.
    Gguf,
}

impl WeightForm {
    /// The form named in config.json, where `pack` writes it; published files say nothing.
    pub(crate) const KEY: &'static str = "weight_form";
    /// Name of [`WeightForm::Gguf`] there.
    pub(crate) const GGUF: &'static str = "gguf";

    /// `-exp(A_log)` of a DeltaNet head.
    pub fn a_neg(self, stored: f32) -> f32 {
        match self {
            WeightForm::HuggingFace => -stored.exp(),
            WeightForm::Gguf => stored,
        }
    }

    /// Which key head a DeltaNet value head belongs to.
    pub fn value_head_order(self) -> ValueHeadOrder {
        match self {
            WeightForm::HuggingFace => ValueHeadOrder::Grouped,
            WeightForm::Gguf => ValueHeadOrder::Tiled,
        }
    }
}

/// Hyper-parameters of a text model of any architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The architecture.
    pub architecture: Architecture,
    /// Entries of the vocabulary, V.
    pub vocab_size: usize,
    /// Width of the residual stream, H.
    pub hidden_size: usize,
    /// Token mixer of each layer; its length is the number of layers, L.
    pub layer_types: Vec<LayerType>,
    /// What each layer does after it, [L].
    pub mlp_types: Vec<MlpType>,
    /// Full-attention layers.
    pub attention: AttentionShape,
    /// Whether queries and keys are normed before they are rotated.
    pub qk_norm: bool,
    /// Which projections of attention have biases.
    pub attention_bias: AttentionBias,
    /// What the rotary frequencies are divided by.
    pub rope_factors: RopeFactors,
    /// DeltaNet layers, if there are any.
    pub delta_net: Option<DeltaNetShape>,
    /// Inner width of a dense layer's MLP; 0 if no layer is dense.
    pub intermediate_size: usize,
    /// Routed experts of a MoE layer, E; 0 if no layer has any.
    pub num_experts: usize,
    /// Experts that each token uses in a MoE layer, K: the model's own number, never another.
    pub num_experts_per_tok: usize,
    /// Inner width of a routed expert, F.
    pub moe_intermediate_size: usize,
    /// Inner width of the shared expert, Fs.
    pub shared_expert_intermediate_size: usize,
    /// What is added to a stored norm weight before it multiplies: 1 in families that store it less 1.
    pub norm_offset: f32,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f32,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Longest context that the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// End tokens named in config.json.
    pub eos_token_ids: Vec<u32>,
    /// In what form the weights are stored.
    pub weight_form: WeightForm,
}

impl Config {
    /// Number of layers, L.
    pub fn num_layers(&self) -> usize {
        self.layer_types.len()
    }

    /// Number of layers with softmax attention.
    pub fn attention_layers(&self) -> usize {
        self.layer_types.iter().filter(|kind| **kind == LayerType::FullAttention).count()
    }

    /// Bytes of keys and values of one token in all layers.
    pub fn kv_bytes_per_token(&self, kv: KvFormat) -> u64 {
        let AttentionShape { kv_heads, head_dim, .. } = self.attention;
        self.attention_layers() as u64 * 2 * kv_heads as u64 * kv.head_bytes(head_dim) as u64
    }

    /// Bytes of the DeltaNet states and convolution tails of one sequence, f32.
    pub fn recurrent_state_bytes(&self) -> u64 {
        let recurrent = self
            .delta_net
            .as_ref()
            .map_or(0, |delta| delta.state_len() + (delta.conv_kernel - 1) * delta.conv_channels());
        4 * (self.num_layers() - self.attention_layers()) as u64 * recurrent as u64
    }

    /// Bytes of one sequence's state for `ctx` tokens.
    pub fn state_bytes(&self, kv: KvFormat, ctx: usize) -> u64 {
        ctx as u64 * self.kv_bytes_per_token(kv) + self.recurrent_state_bytes()
    }

    /// Whether a sequence's state can go back to an earlier position: recurrent state cannot.
    pub fn can_rewind(&self) -> bool {
        self.attention_layers() == self.num_layers()
    }

    /// Number of layers with routed experts.
    pub fn moe_layers(&self) -> usize {
        self.mlp_types.iter().filter(|kind| **kind == MlpType::Moe).count()
    }
}

/// Reads typed values out of one section of a config.json and turns what is wrong into [`ModelError`]s.
pub(crate) struct Section<'a> {
    path: PathBuf,
    architecture: &'static str,
    values: &'a Value,
}

impl<'a> Section<'a> {
    pub(crate) fn new(path: &Path, architecture: &'static str, values: &'a Value) -> Self {
        Self { path: path.to_path_buf(), architecture, values }
    }

    /// The same section of the file, narrowed to the object under `key`; `None` if absent or null.
    pub(crate) fn section(&self, key: &str) -> Option<Section<'a>> {
        let values = self.values.get(key).filter(|value| value.is_object())?;
        Some(Section { path: self.path.clone(), architecture: self.architecture, values })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn bad(&self, key: &str, got: impl ToString, expected: impl Into<String>) -> ModelError {
        let mut got = got.to_string();
        if got.chars().count() > 80 {
            got = got.chars().take(77).chain("...".chars()).collect();
        }
        ModelError::BadValue { path: self.path.clone(), key: key.into(), got, expected: expected.into() }
    }

    fn missing(&self, key: &str) -> ModelError {
        ModelError::MissingKey { path: self.path.clone(), key: key.into(), architecture: self.architecture }
    }

    /// A whole number from 1 to `max`; `default` when absent, an error when there is none.
    pub(crate) fn count(&self, key: &str, default: Option<u64>, max: u64) -> Result<usize, ModelError> {
        let value = match (self.get(key), default) {
            (None, Some(default)) => return Ok(default as usize),
            (None, None) => return Err(self.missing(key)),
            (Some(value), _) => value,
        };
        let number = value.as_u64().filter(|number| (1..=max).contains(number));
        number
            .map(|number| number as usize)
            .ok_or_else(|| self.bad(key, value, format!("a whole number from 1 to {max}")))
    }

    pub(crate) fn dim(&self, key: &str, default: Option<u64>) -> Result<usize, ModelError> {
        self.count(key, default, DIM_MAX)
    }

    /// A finite number above 0 and not above `max`, or `default`.
    pub(crate) fn positive(&self, key: &str, default: f64, max: f64) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|number| *number > 0.0 && *number <= max);
        number.ok_or_else(|| self.bad(key, value, format!("a number above 0, at most {max}")))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.bad(key, value, "true or false"))
    }

    pub(crate) fn weight_form(&self) -> Result<WeightForm, ModelError> {
        match self.get(WeightForm::KEY) {
            None => Ok(WeightForm::HuggingFace),
            Some(form) if form.as_str() == Some(WeightForm::GGUF) => Ok(WeightForm::Gguf),
            Some(form) => Err(self.bad(WeightForm::KEY, form, "gguf, or nothing")),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    pub(crate) fn layers(&self) -> Result<usize, ModelError> {
        self.count("num_hidden_layers", None, LAYERS_MAX)
    }

    pub(crate) fn experts(&self, key: &str, max: u64) -> Result<usize, ModelError> {
        self.count(key, None, max.min(EXPERTS_MAX))
    }

    /// `layer_types` if present (its length must be `layers`), otherwise full attention every `full_attention_interval`.
    pub(crate) fn layer_types(&self, layers: usize) -> Result<Vec<LayerType>, ModelError> {
        let Some(list) = self.get("layer_types") else {
            let interval = self.count("full_attention_interval", Some(4), LAYERS_MAX)?;
            let kind = |i: usize| match (i + 1) % interval {
                0 => LayerType::FullAttention,
                _ => LayerType::LinearAttention,
            };
            return Ok((0..layers).map(kind).collect());
        };
        let expected = format!("a list of {layers} names, each linear_attention or full_attention");
        let names = list.as_array().filter(|names| names.len() == layers);
        let names = names.ok_or_else(|| self.bad("layer_types", list, &*expected))?;
        let parse = |name: &Value| match name.as_str() {
            Some("full_attention") => Ok(LayerType::FullAttention),
            Some("linear_attention") => Ok(LayerType::LinearAttention),
            _ => Err(self.bad("layer_types", name, &*expected)),
        };
        names.iter().map(parse).collect()
    }

    /// One id or a list of ids.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.bad(key, value, "a token id or a list of them"))
        };
        match value.as_array() {
            Some(list) => list.iter().map(id).collect(),
            None => Ok(vec![id(value)?]),
        }
    }
}
