//! A first look at a model, for lists of many: the first bytes of a GGUF file, or the configuration of
//! a directory. What is seen is not checked as [`Checkpoint::open`](crate::Checkpoint::open) checks it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::gguf::{self, Metadata};
use crate::{CheckpointError, Kind, Manifest, detect, manifest, read};

/// What a first look sees.
#[derive(Debug)]
#[non_exhaustive]
pub enum Glance {
    /// A GGUF file: the entries at the beginning of its metadata.
    Gguf(Metadata),
    /// A directory.
    Directory {
        /// Packed or as published.
        kind: Kind,
        /// `config.json`.
        config: serde_json::Value,
        /// Of a packed container the formats of its experts, or without experts those of its matrices.
        formats: BTreeSet<String>,
    },
}

/// Looks at the model at `path`.
///
/// # Errors
/// There is no model, or what describes it cannot be read.
pub fn glance(path: &Path) -> Result<Glance, CheckpointError> {
    let kind = detect(path)?;
    if kind == Kind::Gguf {
        return gguf::first_entries(path).map(Glance::Gguf);
    }
    let config = read::read_config(&path.join(manifest::CONFIG))?;
    let formats = match kind {
        Kind::Packed => formats(&Manifest::read(path)?),
        _ => BTreeSet::new(),
    };
    Ok(Glance::Directory { kind, config, formats })
}

fn formats(manifest: &Manifest) -> BTreeSet<String> {
    let parts = manifest.layers.iter().flat_map(|layer| layer.parts.iter());
    let experts: BTreeSet<String> = parts.map(|part| part.format.clone()).collect();
    if !experts.is_empty() {
        return experts;
    }
    let matrices = manifest.dense.iter().filter(|entry| entry.shape.len() > 1);
    matrices.map(|entry| entry.format.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
    }

    #[test]
    fn a_first_look_sees_what_a_file_and_a_directory_call_themselves() {
        let Ok(Glance::Gguf(metadata)) = glance(&fixture("gguf/qwen3.gguf")) else { panic!("a GGUF file") };
        assert_eq!(metadata.text("general.architecture"), Some("qwen3"));
        let Ok(Glance::Directory { kind, config, .. }) = glance(&fixture("qwen35moe/published")) else {
            panic!("a directory")
        };
        assert_eq!(kind, Kind::HfDirectory);
        assert!(config.get("model_type").is_some());
    }

    #[test]
    fn a_file_that_ends_early_shows_the_entries_before_its_end_and_others_are_refused() {
        let dir = std::env::temp_dir().join(format!("glance-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let bytes = std::fs::read(fixture("gguf/qwen3.gguf")).expect("a fixture");
        let path = dir.join("cut.gguf");
        let seen = |len: usize| {
            std::fs::write(&path, &bytes[..len]).expect("written");
            glance(&path)
        };
        for len in [0, 3, 4, 23] {
            assert!(seen(len).is_err(), "{len}");
        }
        for len in [24, 25, 100, 200, bytes.len().min(3000)] {
            assert!(matches!(seen(len), Ok(Glance::Gguf(_))), "{len}");
        }
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
