//! Llama, Qwen2 and Qwen3 in a GGUF file (`general.architecture` = `llama` and so on).
//!
//! Source: llama.cpp's converter (`conversion/llama.py`, `conversion/qwen.py`). Of Llama, converters reorder the rows of
//! queries and keys within each head, so that adjacent dimensions are rotated together; of the others they do not.
//! Llama 3's scaled frequencies come as a tensor of factors.

use checkpoint::gguf::Metadata;
use checkpoint::{Checkpoint, TensorInfo};

use crate::attention_config;
use crate::config::LAYERS_MAX;
use crate::gguf_keys::Keys;
use crate::gguf_names;
use crate::layout::ROPE_FACTORS;
use crate::llama::OUTPUT_BIAS;
use crate::{Architecture, ModelError};

/// The config.json and the tensors of a file.
///
/// # Errors
/// Metadata that is missing or out of range, naming the key; experts, which these files may have.
pub(crate) fn translate(
    architecture: Architecture,
    checkpoint: &Checkpoint,
    metadata: &Metadata,
) -> Result<(serde_json::Value, Vec<TensorInfo>), ModelError> {
    let prefix = match architecture {
        Architecture::Qwen2 => "qwen2",
        Architecture::Qwen3 => "qwen3",
        _ => "llama",
    };
    let keys = Keys { checkpoint, metadata, prefix, architecture };
    if let Some(experts) = keys.get("expert_count").filter(|count| count.as_u64() != Some(0)) {
        return Err(keys.bad("expert_count", experts, "0 (Mixtral is not supported yet)"));
    }
    let mut json = keys.config_json(prefix, keys.count("block_count", None, LAYERS_MAX)?)?;
    json["intermediate_size"] =
        keys.dim("feed_forward_length", keys.rows_of("blk.0.ffn_gate.weight"))?.into();
    json[OUTPUT_BIAS] = keys.has(gguf_names::OUTPUT_BIAS).into();
    json[attention_config::STORED] = checkpoint.tensor(ROPE_FACTORS).is_some().into();
    keys.adopted(json)
}
