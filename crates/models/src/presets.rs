//! Shapes of published models.
//!
//! A preset is the `config.json` of a model of the family, so that what a model needs can be said before it is
//! downloaded. `pack` makes random weights of these shapes, for measurements.

use serde_json::{Value, json};
use tensor::Format;

use crate::tiers::QuantTiers;

/// The shape of a published model. Sources: the specifications of the family's three sizes; `small` and `tiny` are our own,
/// for tests of routing and of everything else.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    hidden: u32,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    key_heads: u32,
    value_heads: u32,
    /// Of DeltaNet keys and values.
    delta_dim: u32,
    experts: u32,
    experts_per_token: u32,
    inner: u32,
    vocab: u32,
    /// Keep dense weights in q4_K even where the experts are: finer ones would not fit the memory that the model is for.
    small_dense: bool,
}

const fn preset(name: &'static str, shape: [u32; 8], small_dense: bool) -> Preset {
    let [hidden, layers, heads, value_heads, experts, experts_per_token, inner, vocab] = shape;
    Preset {
        name,
        hidden,
        layers,
        heads,
        kv_heads: 2,
        head_dim: 256,
        key_heads: 16,
        value_heads,
        delta_dim: 128,
        experts,
        experts_per_token,
        inner,
        vocab,
        small_dense,
    }
}

/// Every preset.
pub const PRESETS: [Preset; 5] = [
    preset("qwen3.5-35b-a3b", [2048, 40, 16, 32, 256, 8, 512, 248_320], false),
    preset("qwen3.5-122b-a10b", [3072, 48, 32, 64, 256, 8, 1024, 248_320], false),
    preset("qwen3.5-397b-a17b", [4096, 60, 32, 64, 512, 10, 1024, 248_320], true),
    Preset { delta_dim: 64, ..preset("small", [1024, 12, 8, 16, 512, 10, 256, 32_768], false) },
    Preset {
        kv_heads: 1,
        head_dim: 64,
        key_heads: 2,
        delta_dim: 64,
        ..preset("tiny", [256, 4, 4, 4, 32, 4, 256, 1024], false)
    },
];

impl Preset {
    /// The preset of that name.
    pub fn find(name: &str) -> Option<Preset> {
        PRESETS.into_iter().find(|preset| preset.name.eq_ignore_ascii_case(name))
    }

    /// The model's `config.json`, with `layers` layers instead of its own number if given.
    pub fn config_json(&self, layers: Option<u32>) -> Value {
        json!({
            "architectures": ["Qwen3_5MoeForConditionalGeneration"],
            "model_type": "qwen3_5_moe",
            "tie_word_embeddings": false,
            "text_config": {
                "model_type": "qwen3_5_moe_text",
                "vocab_size": self.vocab,
                "hidden_size": self.hidden,
                "num_hidden_layers": layers.unwrap_or(self.layers),
                "full_attention_interval": 4,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads,
                "head_dim": self.head_dim,
                "attention_bias": false,
                "linear_conv_kernel_dim": 4,
                "linear_key_head_dim": self.delta_dim,
                "linear_value_head_dim": self.delta_dim,
                "linear_num_key_heads": self.key_heads,
                "linear_num_value_heads": self.value_heads,
                "num_experts": self.experts,
                "num_experts_per_tok": self.experts_per_token,
                "moe_intermediate_size": self.inner,
                "shared_expert_intermediate_size": self.inner,
                "rms_norm_eps": 1e-6,
                "max_position_embeddings": 262_144,
                "rope_parameters":
                    { "rope_type": "default", "rope_theta": 10_000_000.0, "partial_rotary_factor": 0.25 },
            },
        })
    }

    /// The usual tiers for `--quant format`: as for packing, but dense weights, embedding and head in q4_K where the
    /// experts are below 4 bits or the model's dense weights would be too large.
    pub fn tiers(&self, format: Format) -> QuantTiers {
        let small = format.bits_per_weight() < Format::Q4K.bits_per_weight();
        match small || (self.small_dense && format == Format::Q4K) {
            true => QuantTiers { experts: format, dense: Format::Q4K, embedding: Format::Q4K },
            false => QuantTiers::of(format),
        }
    }
}
