//! The metadata of GGUF files as the config.json that the model would have had.
//!
//! Source: llama.cpp's `gguf-py/gguf/constants.py` and its converters. Keys that all architectures
//! have are here; the others are in the files of their families.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use checkpoint::gguf::{Metadata, Value};
use checkpoint::{Checkpoint, TensorInfo};
use serde_json::json;

use crate::ModelError;
use crate::config_keys::{Neutral, Unread, UnreadKey};
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

/// The metadata of one file, read with errors that name its keys. It notes which were asked for.
pub(crate) struct Keys<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    metadata: &'a Metadata,
    /// `general.architecture`, the prefix of its keys.
    prefix: &'static str,
    /// Name of the family, for messages.
    family: &'static str,
    /// Keys that were asked for, without the prefix.
    asked: RefCell<BTreeSet<String>>,
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
        Self { checkpoint, metadata, prefix, family, asked: RefCell::default() }
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

    /// The value of a key, which counts as read from here on.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.asked.borrow_mut().insert(key.into());
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
        if json["vocab_size"].is_null() {
            let (path, first) = (self.path().to_path_buf(), "token_embd.weight".to_string());
            return Err(ModelError::MissingTensors { path, count: 1, first });
        }
        Ok(json)
    }

    /// Adds the number of experts, under `key`, and of those that a token uses.
    ///
    /// # Errors
    /// Bad numbers.
    pub(crate) fn add_experts(&self, json: &mut serde_json::Value, key: &str) -> Result<(), ModelError> {
        let experts = self.count("expert_count", None, EXPERTS_MAX)?;
        json[key] = experts.into();
        json["num_experts_per_tok"] = self.count("expert_used_count", None, experts)?.into();
        Ok(())
    }

    /// Counts keys as read: others decide, or the family does the same whatever they say.
    pub(crate) fn pass_over(&self, keys: &[&str]) {
        self.asked.borrow_mut().extend(keys.iter().map(|key| key.to_string()));
    }

    /// The keys that nothing has asked for. Those of the file itself and of its vocabulary are others'.
    ///
    /// # Errors
    /// A key of the architecture whose value changes the computation, as far as anybody can know:
    /// llama.cpp's converters store no others.
    pub(crate) fn unread(&self) -> Result<Vec<UnreadKey>, ModelError> {
        let asked = self.asked.borrow();
        let mut unread = Vec::new();
        for (full, value) in self.metadata.iter() {
            let key = full.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('.'));
            let why = match key {
                Some(key) if asked.contains(key) => continue,
                Some(key) => match judge(key, value) {
                    Ok(why) => why,
                    Err(neutral) => {
                        let family = self.family;
                        let expected = format!("{neutral} for a {family} that can be computed here");
                        return Err(self.bad(key, value, expected));
                    }
                },
                None if OTHERS.iter().any(|prefix| full.starts_with(prefix)) => continue,
                None => Unread::Unknown,
            };
            unread.push(UnreadKey { key: full.into(), why });
        }
        Ok(unread)
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
        let found = ["rope.scale_linear", "rope.scaling.factor"].into_iter().filter(factor).last();
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

/// How an unread key is to be taken, without the architecture's prefix; the values that it may have if this
/// one changes the computation.
fn judge(key: &str, value: &Value) -> Result<Unread, Neutral> {
    if NO_EFFECT.contains(&key) {
        return Ok(Unread::NoEffect);
    }
    let neutral = NEUTRAL.iter().find(|(name, _)| *name == key).map_or(Neutral::Off, |(_, neutral)| *neutral);
    if neutral.allows(&json_of(value)) { Ok(Unread::Off) } else { Err(neutral) }
}

fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Array(array) => array.values().map(|value| json_of(&value)).collect(),
        Value::Bool(flag) => (*flag).into(),
        Value::Unsigned(number) => (*number).into(),
        Value::Signed(number) => (*number).into(),
        // What is no number in JSON is no neutral one either.
        other => other.as_f64().and_then(serde_json::Number::from_f64).map_or(true.into(), Into::into),
    }
}

/// Keys of the file itself and of its vocabulary, which other readers are for.
const OTHERS: &[&str] = &["general.", "tokenizer.", "split.", "quantize."];
/// Keys that change no logits: sizes that tensors tell, the training's history, other uses of the same weights.
const NO_EFFECT: &[&str] = &[
    "vocab_size",
    "feed_forward_length",
    "expert_feed_forward_length",
    "tensor_data_layout",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    // Of the kind of scaling that is refused.
    "rope.scaling.yarn_log_multiplier",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    // Of windows, which are refused.
    "attention.sliding_window_pattern",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "rope.dimension_count_swa",
    "rope.freq_base_swa",
    // What an embedding model does with the last layer's rows.
    "pooling_type",
    "decoder_start_token_id",
    // The vision part's.
    "n_deepstack_layers",
];
/// What other values than 0 of keys change nothing.
const NEUTRAL: &[(&str, Neutral)] = &[
    ("logit_scale", Neutral::One),
    ("embedding_scale", Neutral::One),
    ("residual_scale", Neutral::One),
    ("attention.output_scale", Neutral::One),
    ("attention.causal", Neutral::True),
    ("rope.scaling.attn_factor", Neutral::One),
    ("rope.scaling.alpha", Neutral::One),
    ("rope.scaling.yarn_attn_factor", Neutral::One),
    ("rope.scaling.yarn_ext_factor", Neutral::Negative),
    ("expert_gating_func", Neutral::One),
    ("expert_weights_scale", Neutral::One),
    ("expert_weights_norm", Neutral::True),
    ("expert_group_count", Neutral::One),
    ("expert_group_used_count", Neutral::One),
    ("expert_group_scale", Neutral::One),
    ("moe_every_n_layers", Neutral::One),
    ("interleave_moe_layer_step", Neutral::One),
];
/// Factors of the rotary frequencies, which the file has computed.
const STORED_FACTORS: &str = "rope_freqs.weight";
/// Rotary base of files that name none; llama.cpp's default.
const ROPE_FREQ_BASE_DEFAULT: f64 = 10_000.0;
/// Longest context of files that name none; Hugging Face's default for the family.
const CONTEXT_DEFAULT: u64 = 32_768;
/// Tokens that end a text or a turn.
const EOS_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
