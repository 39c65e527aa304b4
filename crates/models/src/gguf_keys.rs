//! The metadata of GGUF files as the config.json that the model would have had.
//!
//! Source: llama.cpp's `gguf-py/gguf/constants.py` and its converters. Keys that all architectures
//! have are here; the others are in the files of their families.

use std::path::Path;

use checkpoint::gguf::{Metadata, Value};
use checkpoint::{Checkpoint, TensorInfo};
use serde_json::json;

use crate::ModelError;
use crate::gguf_names::QUERY_BIAS;
use crate::section::{DIM_MAX, EXPERTS_MAX};
use crate::spec::WeightForm;

/// Keys of config.json and what they are called in the metadata, without the architecture's prefix.
const KEYS: &[(&str, &str)] = &[
    ("hidden_size", "embedding_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rope_theta", "rope.freq_base"),
    ("partial_rotary_factor", "rope.dimension_count"),
    ("linear_num_key_heads", "ssm.group_count"),
    ("linear_num_value_heads", "ssm.time_step_rank"),
    ("linear_key_head_dim", "ssm.state_size"),
    ("linear_value_head_dim", "ssm.inner_size"),
    ("linear_conv_kernel_dim", "ssm.conv_kernel"),
    ("num_experts", "expert_count"),
    ("num_local_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ("intermediate_size", "feed_forward_length"),
    ("norm_topk_prob", "expert_weights_norm"),
    ("sliding_window", "attention.sliding_window"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("num_hidden_layers", "block_count"),
    ("max_position_embeddings", "context_length"),
];

/// The metadata of one file, read with errors that name its keys.
pub(crate) struct Keys<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    metadata: &'a Metadata,
    /// `general.architecture`, the prefix of its keys.
    prefix: &'static str,
    /// Name of the family, for messages.
    family: &'static str,
}

/// Whether a file of architecture `prefix` says that its model has experts.
pub(crate) fn has_experts(metadata: &Metadata, prefix: &str) -> bool {
    metadata.get(&format!("{prefix}.expert_count")).is_some_and(|count| count.as_u64() != Some(0))
}

impl<'a> Keys<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        metadata: &'a Metadata,
        prefix: &'static str,
        family: &'static str,
    ) -> Self {
        Self { checkpoint, metadata, prefix, family }
    }

    /// Whether the file says that its model has experts.
    pub(crate) fn has_experts(&self) -> bool {
        has_experts(self.metadata, self.prefix)
    }

    pub(crate) fn path(&self) -> &Path {
        self.checkpoint.root()
    }

    pub(crate) fn bad(&self, key: &str, got: impl ToString, expected: impl Into<String>) -> ModelError {
        ModelError::BadMetadata {
            path: self.path().to_path_buf(),
            key: format!("{}.{key}", self.prefix),
            got: got.to_string().chars().take(80).collect(),
            expected: expected.into(),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(&format!("{}.{key}", self.prefix))
    }

    pub(crate) fn missing(&self, key: &str) -> ModelError {
        ModelError::MissingMetadata {
            path: self.path().to_path_buf(),
            key: format!("{}.{key}", self.prefix),
            architecture: self.family,
        }
    }

    /// A whole number from 1 to `max`, or a list of one number per block that are all the same (or
    /// 0, in blocks that have no such thing).
    pub(crate) fn count(&self, key: &str, default: Option<u64>, max: u64) -> Result<u64, ModelError> {
        let Some(value) = self.get(key) else { return default.ok_or_else(|| self.missing(key)) };
        let expected = || format!("a whole number from 1 to {max}, the same for all blocks");
        let within = |number: &u64| (1..=max).contains(number);
        let Some(list) = value.as_array() else {
            return value.as_u64().filter(within).ok_or_else(|| self.bad(key, value, expected()));
        };
        let mut found = None;
        for value in list.values() {
            match value.as_u64() {
                Some(0) => {}
                Some(number) if found.is_none_or(|found| found == number) => found = Some(number),
                _ => return Err(self.bad(key, value, expected())),
            }
        }
        found.filter(within).ok_or_else(|| self.bad(key, value, expected()))
    }

    pub(crate) fn dim(&self, key: &str, default: Option<u64>) -> Result<u64, ModelError> {
        self.count(key, default, DIM_MAX)
    }

    pub(crate) fn number(&self, key: &str, default: Option<f64>) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return default.ok_or_else(|| self.missing(key)) };
        let number = value.as_f64().filter(|number| number.is_finite() && *number > 0.0);
        number.ok_or_else(|| self.bad(key, value, "a number above 0"))
    }

    /// The configuration that every architecture has. `layers` is the number of blocks of the model
    /// itself.
    pub(crate) fn config_json(&self, model_type: &str, layers: u64) -> Result<serde_json::Value, ModelError> {
        let heads = self.dim("attention.head_count", None)?;
        let hidden = self.dim("embedding_length", None)?;
        let head_dim = self.dim("attention.key_length", Some(hidden / heads))?;
        let value_length = self.dim("attention.value_length", Some(head_dim))?;
        if value_length != head_dim {
            return Err(self.bad("attention.value_length", value_length, format!("{head_dim}, as keys")));
        }
        let mut json = json!({
            "model_type": model_type,
            "vocab_size": self.rows_of("token_embd.weight"),
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": self.dim("attention.head_count_kv", Some(heads))?,
            "head_dim": head_dim,
            "attention_bias": self.has(QUERY_BIAS),
            "rope_parameters": self.rope(head_dim)?,
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon", None)?,
            "tie_word_embeddings": self.checkpoint.tensor("output.weight").is_none(),
            "max_position_embeddings": self.dim("context_length", Some(CONTEXT_DEFAULT))?,
            "eos_token_id": self.eos_token_ids()?,
        });
        json[WeightForm::KEY] = WeightForm::GGUF.into();
        self.refuse(COMPUTATION_KEYS)?;
        if json["vocab_size"].is_null() {
            let (path, first) = (self.path().to_path_buf(), "token_embd.weight".to_string());
            return Err(ModelError::MissingTensors { path, count: 1, first });
        }
        Ok(json)
    }

    /// Adds the number of experts, under `key`, and of those that a token uses.
    ///
    /// # Errors
    /// Bad numbers, and routers of another kind than softmax over all experts.
    pub(crate) fn add_experts(&self, json: &mut serde_json::Value, key: &str) -> Result<(), ModelError> {
        let experts = self.count("expert_count", None, EXPERTS_MAX)?;
        json[key] = experts.into();
        json["num_experts_per_tok"] = self.count("expert_used_count", None, experts)?.into();
        self.refuse(ROUTER_KEYS)
    }

    /// Refuses keys that change the computation in a way that is not built. Zeros, and the number that
    /// changes nothing, are how files say that there is no such thing.
    fn refuse(&self, keys: &[(&str, f64)]) -> Result<(), ModelError> {
        let number = |value: &Value| {
            let flag = value.as_bool().map(|flag| f64::from(u8::from(flag)));
            value.as_f64().or_else(|| value.as_u64().map(|n| n as f64)).or(flag)
        };
        let changes = |value: &&Value, neutral: f64| number(value).is_none_or(|n| n != 0.0 && n != neutral);
        for (key, neutral) in keys {
            if let Some(value) = self.get(key).filter(|value| changes(value, *neutral)) {
                return Err(self.bad(key, value, format!("{neutral}, 0 or nothing")));
            }
        }
        Ok(())
    }

    /// Inner width of an expert by the tensors, where the metadata has none.
    pub(crate) fn expert_width(&self) -> Option<u64> {
        let down = |tensor: &&TensorInfo| {
            tensor.name.ends_with(".ffn_down_exps.weight") || tensor.name.ends_with(".ffn_down.0.weight")
        };
        let down = self.checkpoint.tensors().find(down)?;
        down.shape.last().map(|width| *width as u64)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.bad(key, value, "true or false"))
    }

    /// Whether any block has this tensor.
    pub(crate) fn has(&self, suffix: &str) -> bool {
        self.rows_of_any(suffix).is_some()
    }

    /// `rope_parameters` of config.json.
    fn rope(&self, head_dim: u64) -> Result<serde_json::Value, ModelError> {
        let mut rope = json!({
            "rope_type": "default",
            "rope_theta": self.number("rope.freq_base", Some(ROPE_FREQ_BASE_DEFAULT))?,
            "partial_rotary_factor": self.rotary_factor(head_dim)?,
        });
        if let Some(key) = self.linear_scaling()? {
            if self.checkpoint.tensor(STORED_FACTORS).is_some() {
                let (value, expected) =
                    (self.number(key, None)?, format!("no factor beside those of {STORED_FACTORS}"));
                return Err(self.bad(key, value, expected));
            }
            rope["rope_type"] = "linear".into();
            rope["factor"] = self.number(key, None)?.into();
        }
        Ok(rope)
    }

    /// The key of the factor by which positions are divided. Files without a type mean linear scaling if
    /// they have a factor, which older ones call otherwise; 0 is how some say that there is none.
    fn linear_scaling(&self) -> Result<Option<&'static str>, ModelError> {
        let factor = |key: &&str| self.get(key).is_some_and(|value| value.as_f64() != Some(0.0));
        let found = ["rope.scaling.factor", "rope.scale_linear"].into_iter().find(factor);
        let Some(kind) = self.get("rope.scaling.type") else { return Ok(found) };
        match kind.as_str() {
            Some("none") => Ok(None),
            Some("linear") => Ok(Some(found.unwrap_or("rope.scaling.factor"))),
            _ => {
                let expected = "none or linear (other scaled rotary embeddings are not supported yet)";
                Err(self.bad("rope.scaling.type", kind, expected))
            }
        }
    }

    /// The part of a head that is rotated, such that times `head_dim` it is `rope.dimension_count`
    /// and not a bit less.
    pub(crate) fn rotary_factor(&self, head_dim: u64) -> Result<f64, ModelError> {
        let key = "rope.dimension_count";
        let rotated = self.dim(key, Some(head_dim))?;
        if rotated > head_dim || rotated % 2 != 0 {
            let expected = format!("an even number of at most attention.key_length = {head_dim}");
            return Err(self.bad(key, rotated, expected));
        }
        let factor = rotated as f64 / head_dim as f64;
        let exact = (head_dim as f64 * factor) as u64 == rotated;
        Ok(if exact { factor } else { factor.next_up() })
    }

    pub(crate) fn rows_of(&self, name: &str) -> Option<u64> {
        self.checkpoint.tensor(name).and_then(|tensor| tensor.shape.first()).map(|rows| *rows as u64)
    }

    /// Rows of this tensor in the first block (by name) that has it.
    pub(crate) fn rows_of_any(&self, suffix: &str) -> Option<u64> {
        let named = |tensor: &&TensorInfo| {
            tensor
                .name
                .strip_suffix(suffix)
                .is_some_and(|block| block.starts_with("blk.") && block.ends_with('.'))
        };
        let found = self.checkpoint.tensors().find(named)?;
        found.shape.first().map(|rows| *rows as u64)
    }

    fn eos_token_ids(&self) -> Result<Vec<u64>, ModelError> {
        let mut ids = Vec::new();
        for key in EOS_KEYS {
            let Some(value) = self.metadata.get(key) else { continue };
            let id = value.as_u64().filter(|id| *id <= u64::from(u32::MAX));
            let id = id.ok_or_else(|| ModelError::BadMetadata {
                path: self.path().to_path_buf(),
                key: key.to_string(),
                got: value.to_string().chars().take(80).collect(),
                expected: "a token id".into(),
            })?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// An error about the configuration that was made of the metadata, as one about the metadata.
    pub(crate) fn in_terms_of_metadata(&self, error: ModelError) -> ModelError {
        match error {
            ModelError::BadValue { key, got, expected, .. } => {
                let source = KEYS.iter().find(|(ours, _)| *ours == key);
                match source {
                    Some((_, theirs)) => self.bad(theirs, got, expected),
                    None => self.bad(&key, got, expected),
                }
            }
            other => other,
        }
    }
}

/// Numbers that change what every layer computes, with the value that changes nothing.
const COMPUTATION_KEYS: &[(&str, f64)] = &[
    ("attn_logit_softcapping", 0.0),
    ("router_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("attention.scale", 0.0),
    ("attention.output_scale", 1.0),
    ("attention.temperature_length", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("use_parallel_residual", 0.0),
    ("rope.scaling.attn_factor", 1.0),
];
/// Factors of the rotary frequencies, which the file has computed.
const STORED_FACTORS: &str = "rope_freqs.weight";
/// Keys of routers, with the value besides 0 that those have which are computed.
const ROUTER_KEYS: &[(&str, f64)] =
    &[("expert_gating_func", 1.0), ("expert_weights_scale", 1.0), ("expert_group_count", 1.0)];
/// Rotary base of files that name none; llama.cpp's default.
const ROPE_FREQ_BASE_DEFAULT: f64 = 10_000.0;
/// Longest context of files that name none; Hugging Face's default for the family.
const CONTEXT_DEFAULT: u64 = 32_768;
/// Tokens that end a text or a turn.
const EOS_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
