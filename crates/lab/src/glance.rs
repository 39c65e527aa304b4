//! A first look at a model, for lists: what it is, and whether it can be run.

use std::path::Path;

use checkpoint::gguf::Metadata;
use models::{family_of_config, family_of_metadata};
use serde_json::Value;

use crate::LabError;

/// What a first look sees. A model whose family is known may still be refused when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The architecture as its files call it.
    pub architecture: Option<String>,
    /// The family that runs it.
    pub family: Option<&'static str>,
    /// The format of most of its weights, as people call it.
    pub quant: Option<String>,
    /// Why it cannot be run; `None` where nothing speaks against it.
    pub refusal: Option<String>,
    /// Whether it is a packed container.
    pub is_packed: bool,
}

/// Looks at the model at `path`, at little more than its first bytes.
///
/// # Errors
/// There is no model, or what describes it cannot be read.
pub fn glance(path: &Path) -> Result<Glance, LabError> {
    Ok(match checkpoint::glance(path).map_err(engine::EngineError::from)? {
        checkpoint::Glance::Gguf(metadata) => of_gguf(&metadata),
        checkpoint::Glance::Directory { kind, config, formats } => {
            let packed = kind == checkpoint::Kind::Packed;
            of_directory(&config, packed, formats.into_iter().collect())
        }
        _ => Glance { architecture: None, family: None, quant: None, refusal: None, is_packed: false },
    })
}

/// What a config.json says of a model.
pub fn glance_at_config(config: &Value) -> Glance {
    of_directory(config, false, Vec::new())
}

fn of_gguf(metadata: &Metadata) -> Glance {
    let architecture = metadata.text("general.architecture").map(checkpoint::shown);
    let family = family_of_metadata(metadata);
    let number = metadata.get("general.file_type").and_then(checkpoint::gguf::Value::as_u64);
    let quant = number.and_then(|number| {
        FILE_TYPES.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned())
    });
    Glance {
        refusal: unknown(family, architecture.as_deref()),
        architecture,
        family,
        quant,
        is_packed: false,
    }
}

fn of_directory(config: &Value, is_packed: bool, formats: Vec<String>) -> Glance {
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(checkpoint::shown);
    let architecture = text("model_type");
    let family = family_of_config(config);
    let section = config.get("text_config").unwrap_or(config);
    let dtype = |section: &Value| {
        let found = ["dtype", "torch_dtype"].iter().find_map(|key| section.get(*key)?.as_str());
        found.map(|name| match name {
            "bfloat16" => "bf16".to_owned(),
            "float16" => "f16".to_owned(),
            "float32" => "f32".to_owned(),
            other => checkpoint::shown(other),
        })
    };
    let quantised = quantised(config).or_else(|| quantised(section)).filter(|_| !is_packed);
    let refusal = quantised.as_ref().map(|method| format!("safetensors quantised by {method}"));
    let plain = match is_packed {
        true => (!formats.is_empty()).then(|| formats.join(" ")),
        false => dtype(config).or_else(|| dtype(section)),
    };
    Glance {
        refusal: unknown(family, architecture.as_deref()).or(refusal),
        architecture,
        family,
        quant: quantised.or(plain),
        is_packed,
    }
}

/// How safetensors are quantised: by what their configuration says, of MLX with the number of bits.
fn quantised(config: &Value) -> Option<String> {
    if let Some(method) = config.get("quantization_config").filter(|value| value.is_object()) {
        let name = method.get("quant_method").and_then(Value::as_str).unwrap_or("unknown means");
        return Some(checkpoint::shown(name));
    }
    let bits = config.get("quantization")?.get("bits")?.as_u64()?;
    Some(format!("mlx {bits} bit"))
}

fn unknown(family: Option<&str>, architecture: Option<&str>) -> Option<String> {
    match (family, architecture) {
        (Some(_), _) => None,
        (None, Some(name)) => Some(format!("architecture {name}")),
        (None, None) => Some("it names no architecture".into()),
    }
}

/// Numbers of `general.file_type`, by llama.cpp's names.
const FILE_TYPES: [(u64, &str); 33] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4_MOE"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &str) -> Glance {
        of_directory(&serde_json::from_str(config).expect("JSON"), false, Vec::new())
    }

    #[test]
    fn known_families_can_be_run_and_others_are_named() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        let seen = glance(&fixtures.join("gguf/mixtral.gguf")).expect("a model");
        assert_eq!((seen.family, seen.refusal), (Some("Mixtral"), None));
        let seen = glance(&fixtures.join("gguf/llama.gguf")).expect("a model");
        assert_eq!((seen.architecture.as_deref(), seen.family), (Some("llama"), Some("Llama")));
        let seen = of(r#"{"model_type":"gemma3\n","dtype":"bfloat16"}"#);
        assert_eq!(seen.refusal.as_deref(), Some("architecture gemma3\\n"));
        assert_eq!(of("{}").refusal.as_deref(), Some("it names no architecture"));
    }

    #[test]
    fn formats_of_directories_are_those_of_their_configuration() {
        let seen = of(r#"{"model_type":"qwen3","torch_dtype":"bfloat16"}"#);
        assert_eq!((seen.quant.as_deref(), seen.refusal), (Some("bf16"), None));
        let seen = of(r#"{"model_type":"qwen3","quantization_config":{"quant_method":"fp8"}}"#);
        assert_eq!(seen.refusal.as_deref(), Some("safetensors quantised by fp8"));
        let seen = of(r#"{"model_type":"qwen3","quantization":{"bits":4,"group_size":64}}"#);
        assert_eq!(seen.quant.as_deref(), Some("mlx 4 bit"));
    }
}
