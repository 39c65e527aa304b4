//! What a model is, how large its tiers are and what a token costs: headers only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use checkpoint::Checkpoint;
use engine::door::Opened;
use models::layout::Tier;
use models::synthetic::Synthetic;
use models::{Unread, UnreadKey};
use ops::KvFormat;
use serde::Serialize;
use tensor::Format;

use crate::LabError;

/// One tier's weights and bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TierSize {
    /// Number of weights.
    pub weights: u64,
    /// Bytes on disk, and in memory while loaded.
    pub bytes: u64,
    /// Bytes by format.
    pub formats: BTreeMap<String, u64>,
}

impl TierSize {
    fn add(&mut self, format: Format, weights: u64, bytes: u64) {
        self.weights += weights;
        self.bytes += bytes;
        *self.formats.entry(format.to_string()).or_default() += bytes;
    }
}

/// What [`inspect`] finds.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// `Hugging Face directory`, `packed container` or `GGUF file`.
    pub kind: String,
    /// Architecture.
    pub architecture: String,
    /// Layers, and how many of them attend.
    pub layers: usize,
    /// Layers with softmax attention.
    pub attention_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Vocabulary.
    pub vocab_size: usize,
    /// Experts of a layer.
    pub num_experts: usize,
    /// Experts that a token uses.
    pub experts_per_token: usize,
    /// Whether some layers have an expert that all tokens use.
    pub shared_expert: bool,
    /// The model's own longest context.
    pub max_position_embeddings: usize,
    /// Sizes by tier: embedding, head, dense, router, small, experts.
    pub tiers: BTreeMap<String, TierSize>,
    /// Bytes of one routed expert.
    pub bytes_per_expert: u64,
    /// Expert bytes that a token reads when nothing is cached.
    pub expert_bytes_per_token: u64,
    /// Weights that a token computes with.
    pub active_weights_per_token: u64,
    /// Key/value bytes per token of context, in f16.
    pub kv_bytes_per_token: u64,
    /// The same by number format (`--kv`).
    pub kv_bytes_per_token_by_format: BTreeMap<String, u64>,
    /// Recurrent state of a sequence, bytes.
    pub recurrent_state_bytes: u64,
    /// Parts that are recognised and left alone: tensors and bytes.
    pub ignored: BTreeMap<String, (usize, u64)>,
    /// Keys of the model's configuration that it does not depend on.
    pub unread_keys: Vec<UnreadKey>,
    /// Set for synthetic models: what was made up, and whether layers share record files.
    pub synthetic: Option<Synthetic>,
    /// What a user should know, e.g. rows that fell back to another format.
    pub notes: Vec<String>,
}

impl Inspection {
    /// The unread keys of one kind, in the order of the file's sections.
    pub fn unread(&self, why: Unread) -> Vec<&str> {
        self.unread_keys.iter().filter(|unread| unread.why == why).map(|unread| &*unread.key).collect()
    }
}

/// Looks at a model directory without loading it.
///
/// # Errors
/// Anything wrong with the files.
pub fn inspect(path: &Path) -> Result<Inspection, LabError> {
    let opened = Opened::new(path)?;
    let config = &opened.config;
    let tiers = tier_sizes(&opened);
    let experts = tiers.get("experts").cloned().unwrap_or_default();
    let expert_count = opened.expert_count().max(1) as u64;
    let per_token = config.experts_per_token() as u64;
    let dense: u64 = tiers
        .iter()
        .filter(|(name, _)| !["experts", "embedding"].contains(&name.as_str()))
        .map(|(_, size)| size.weights)
        .sum();
    let tied = if config.tie_word_embeddings { tiers["embedding"].weights } else { 0 };
    Ok(Inspection {
        kind: opened.checkpoint.kind().to_string(),
        architecture: config.family.into(),
        layers: config.num_layers(),
        attention_layers: config.attention_layers(),
        hidden_size: config.hidden_size,
        vocab_size: config.vocab_size,
        num_experts: config.experts_max(),
        experts_per_token: config.per_token_max(),
        shared_expert: config.moe().any(|moe| moe.shared.is_some()),
        max_position_embeddings: config.max_position_embeddings,
        bytes_per_expert: experts.bytes / expert_count,
        expert_bytes_per_token: experts.bytes / expert_count * per_token,
        active_weights_per_token: dense + tied + experts.weights / expert_count * per_token,
        kv_bytes_per_token: config.kv_bytes_per_token(KvFormat::default()),
        kv_bytes_per_token_by_format: KvFormat::ALL
            .iter()
            .map(|kv| (kv.to_string(), config.kv_bytes_per_token(*kv)))
            .collect(),
        recurrent_state_bytes: config.recurrent_state_bytes(),
        ignored: opened.layout.ignored.iter().map(|(name, size)| (name.to_string(), *size)).collect(),
        unread_keys: models::unread_keys(&Checkpoint::open(path)?)?,
        synthetic: Synthetic::of(&opened.checkpoint),
        notes: synthetic_notes(&opened).into_iter().chain(fallback_notes(&opened)).collect(),
        tiers,
    })
}

pub(crate) fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Embedding => "embedding",
        Tier::Head => "head",
        Tier::Dense => "dense",
        Tier::Router => "router",
        Tier::Small => "small",
    }
}

fn tier_sizes(opened: &Opened) -> BTreeMap<String, TierSize> {
    let mut tiers: BTreeMap<String, TierSize> = BTreeMap::new();
    for expected in &opened.layout.dense {
        let Some(info) = opened.checkpoint.tensor(&expected.name) else { continue };
        let weights = info.shape.iter().map(|dim| *dim as u64).product();
        tiers.entry(tier_name(expected.tier).into()).or_default().add(
            info.format,
            weights,
            info.extent.bytes,
        );
    }
    let experts = tiers.entry("experts".into()).or_default();
    for layer in &opened.layout.experts.layers {
        for part in &layer.parts {
            let bytes = part.format.row_bytes(part.cols).unwrap_or(0) * part.rows;
            let count = layer.extents.len() as u64;
            experts.add(part.format, (part.rows * part.cols) as u64 * count, bytes as u64 * count);
        }
    }
    tiers
}

/// A synthetic model says nothing about text, and one with shared records less about disks of its
/// size.
fn synthetic_notes(opened: &Opened) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(found) = Synthetic::of(&opened.checkpoint) {
        let Synthetic { preset, seed, skew, .. } = &found;
        notes.push(format!("synthetic {preset}: random weights of seed {seed}, skew {skew}"));
    }
    let sharing = opened.checkpoint.packed().map_or(1.0, |packed| packed.sharing_factor());
    if sharing > 1.0 {
        notes.push(format!("layers share record files: {sharing:.1} experts for each record on the disk"));
    }
    notes
}

/// Rows that are no multiple of a 256-wide block are kept in a 32-wide format; say which, so that
/// nobody wonders.
fn fallback_notes(opened: &Opened) -> Vec<String> {
    const SUPER_BLOCK_LEN: usize = 256;
    let asked = opened.checkpoint.manifest().map_or("", |manifest| manifest.description.as_str());
    if !asked.contains("_K") {
        return Vec::new(); // No format with such blocks was asked for.
    }
    let mut rows: BTreeSet<(String, Format, usize)> = BTreeSet::new();
    for layer in opened.layout.experts.layers.iter().filter(|layer| !layer.extents.is_empty()) {
        for (part, name) in layer.parts.iter().zip(["gate_proj", "up_proj", "down_proj"]) {
            rows.insert((format!("experts' {name}"), part.format, part.cols));
        }
    }
    for expected in opened.layout.dense.iter().filter(|expected| expected.shape.len() == 2) {
        let Some(info) = opened.checkpoint.tensor(&expected.name) else { continue };
        let cols = info.shape.last().copied().unwrap_or(1);
        rows.insert((format!("{} matrices", tier_name(expected.tier)), info.format, cols));
    }
    let fell_back =
        |(_, format, cols): &(String, Format, usize)| format.block_len() == 32 && cols % SUPER_BLOCK_LEN != 0;
    let note = |(name, format, cols): (String, Format, usize)| {
        format!(
            "{name} with rows of {cols} are {format}: {cols} is no multiple of the {SUPER_BLOCK_LEN} weights of a K block"
        )
    };
    rows.into_iter().filter(fell_back).map(note).collect()
}
