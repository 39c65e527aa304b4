//! What a model's weights cost a token, for measurements and forecasts: from a checkpoint's headers, or from a configuration
//! alone when there is no checkpoint yet.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use checkpoint::Extent;
use engine::door::{BUFFER_OVERHEAD_BYTES, Opened};
use experts::ExpertStore;
use models::ModelSpec;
use models::layout::{Expected, Tier, published_dense};
use models::spec::MoeSpec;
use models::tiers::QuantTiers;
use storage::FileId;
use tensor::Format;

use crate::LabError;
use crate::inspect::tier_name;

/// Pieces of files that are read together: file, offset, bytes.
pub(crate) type Record = Vec<(FileId, u64, u64)>;

/// A matrix as a kernel sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl Shape {
    /// Weights, which is multiply-adds for each token.
    pub(crate) fn weights(&self) -> f64 {
        self.rows as f64 * self.cols as f64
    }

    pub(crate) fn bytes(&self) -> f64 {
        self.format.row_bytes(self.cols).unwrap_or(0) as f64 * self.rows as f64
    }
}

/// A dense tensor.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Dense {
    pub(crate) tier: Tier,
    pub(crate) shape: Shape,
    pub(crate) bytes: u64,
    /// Part of the shared expert, which is computed while reads are under way.
    pub(crate) shared: bool,
}

impl Dense {
    fn new(expected: &Expected, format: Format, bytes: Option<u64>) -> Self {
        let cols = expected.shape.last().copied().unwrap_or(1).max(1);
        let rows = expected.shape.iter().product::<usize>() / cols;
        let shape = Shape { format, rows, cols };
        let shared = expected.name.contains(".shared_expert");
        Dense { tier: expected.tier, shape, bytes: bytes.unwrap_or(shape.bytes() as u64), shared }
    }
}

/// A model's weights in numbers.
pub(crate) struct Facts {
    pub(crate) config: ModelSpec,
    pub(crate) dense: Vec<Dense>,
    /// Dense weights in memory, bytes.
    pub(crate) dense_resident_bytes: u64,
    /// [layer with experts]: gate, up, down of one of them.
    pub(crate) experts: Vec<[Shape; 3]>,
    pub(crate) expert_count: usize,
    /// Memory of one slot, bytes.
    pub(crate) slot_bytes: u64,
}

impl Facts {
    pub(crate) fn of(opened: &Opened, block_bytes: usize) -> Result<Self, LabError> {
        let dense = opened.layout.dense.iter().filter_map(|expected| {
            let info = opened.checkpoint.tensor(&expected.name)?;
            Some(Dense::new(expected, info.format, Some(info.extent.bytes)))
        });
        let table = &opened.layout.experts;
        let with_experts = table.layers.iter().filter(|layer| !layer.extents.is_empty());
        let experts = with_experts.map(|layer| {
            layer.parts.map(|part| Shape { format: part.format, rows: part.rows, cols: part.cols })
        });
        Ok(Self {
            config: opened.config.clone(),
            dense: dense.collect(),
            dense_resident_bytes: opened.dense_bytes(),
            experts: experts.collect(),
            expert_count: opened.expert_count(),
            slot_bytes: ExpertStore::slot_bytes(table, block_bytes)? as u64,
        })
    }

    /// What a packed model of this configuration will be, before there is one.
    pub(crate) fn of_config(config: ModelSpec, tiers: &QuantTiers, block_bytes: usize) -> Self {
        let dense: Vec<Dense> = published_dense(&config)
            .iter()
            .map(|expected| {
                let cols = expected.shape.last().copied().unwrap_or(1);
                Dense::new(expected, tiers.format(expected.tier, Format::BF16, cols), None)
            })
            .collect();
        let hidden = config.hidden_size;
        let part = |rows, cols| Shape { format: tiers.experts.for_cols(cols), rows, cols };
        let parts = |moe: &MoeSpec| {
            let inner = moe.expert.inner;
            [part(inner, hidden), part(inner, hidden), part(hidden, inner)]
        };
        let experts: Vec<[Shape; 3]> = config.moe().map(parts).collect();
        let bytes = |parts: &[Shape; 3]| parts.iter().map(Shape::bytes).sum::<f64>() as u64;
        let expert_bytes = experts.iter().map(bytes).max().unwrap_or(0);
        Self {
            dense_resident_bytes: dense.iter().map(|dense| dense.bytes + BUFFER_OVERHEAD_BYTES).sum(),
            dense,
            experts,
            expert_count: config.moe().map(|moe| moe.experts).sum(),
            slot_bytes: expert_bytes.next_multiple_of(block_bytes as u64),
            config,
        }
    }

    /// Bytes of one routed expert, on average.
    pub(crate) fn expert_bytes(&self) -> f64 {
        let experts: f64 = self.experts.iter().flatten().map(Shape::bytes).sum();
        experts / self.experts.len().max(1) as f64
    }

    /// The head is the embedding table.
    fn is_head(&self, tier: Tier) -> bool {
        tier == Tier::Head || (tier == Tier::Embedding && self.config.tie_word_embeddings)
    }

    /// Matrices that every position of a prompt is multiplied with: all but embedding table and head.
    pub(crate) fn body(&self) -> impl Iterator<Item = Shape> {
        let body = self.dense.iter().filter(|dense| matches!(dense.tier, Tier::Dense | Tier::Router));
        body.map(|dense| dense.shape)
    }

    /// The matrix that only positions whose logits are wanted are multiplied with.
    pub(crate) fn head(&self) -> Option<Shape> {
        self.dense.iter().find(|dense| self.is_head(dense.tier)).map(|dense| dense.shape)
    }

    /// Dense bytes that one decoded token touches: everything but the embedding table, of which it is one row.
    pub(crate) fn dense_bytes_per_token(&self) -> f64 {
        let touched = |dense: &Dense| match dense.tier {
            Tier::Embedding if !self.is_head(dense.tier) => {
                dense.bytes as f64 / dense.shape.rows.max(1) as f64
            }
            _ => dense.bytes as f64,
        };
        self.dense.iter().map(touched).sum()
    }

    /// Expert bytes that one token computes with, wherever they come from: L · K · b.
    pub(crate) fn expert_bytes_per_token(&self) -> f64 {
        let bytes = |parts: &[Shape; 3]| parts.iter().map(Shape::bytes).sum::<f64>();
        let layers = self.experts.iter().zip(self.config.moe());
        layers.map(|(parts, moe)| bytes(parts) * moe.per_token as f64).sum()
    }

    /// Formats by tier, sorted by name.
    pub(crate) fn formats(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut formats: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for dense in &self.dense {
            formats.entry(tier_name(dense.tier).into()).or_default().insert(dense.shape.format.to_string());
        }
        let experts = formats.entry("experts".into()).or_default();
        experts.extend(self.experts.iter().flatten().map(|shape| shape.format.to_string()));
        formats
    }
}

/// The distinct expert records of a checkpoint: layers of a model that was made smaller than it claims share theirs.
pub(crate) fn distinct_records(opened: &Opened, files: &[FileId]) -> Vec<Record> {
    let mut seen: HashSet<&[Extent]> = HashSet::new();
    let all = opened.layout.experts.layers.iter().flat_map(|layer| &layer.extents);
    let distinct = all.filter(|extents| seen.insert(extents));
    let record = |extents: &Vec<Extent>| {
        extents.iter().map(|extent| (files[extent.file as usize], extent.offset, extent.bytes)).collect()
    };
    distinct.map(record).collect()
}
