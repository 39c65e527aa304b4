//! What a model's weights cost a token, for measurements and forecasts: from a checkpoint's
//! headers, or from a configuration alone when there is no checkpoint yet.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use checkpoint::{ExpertPart, Extent, LayerExperts};
use engine::door::{BUFFER_OVERHEAD_BYTES, Opened};
use experts::ExpertStore;
use models::ModelSpec;
use models::layout::{Expected, Role, Tier, published_dense};
use models::spec::{LayerSpec, MoeSpec};
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
    pub(crate) role: Role,
    pub(crate) layer: Option<usize>,
    pub(crate) shape: Shape,
    pub(crate) bytes: u64,
}

impl Dense {
    fn new(expected: &Expected, format: Format, bytes: Option<u64>) -> Self {
        let cols = expected.shape.last().copied().unwrap_or(1).max(1);
        let rows = expected.shape.iter().product::<usize>() / cols;
        let shape = Shape { format, rows, cols };
        let bytes = bytes.unwrap_or(shape.bytes() as u64);
        Dense { tier: expected.tier, role: expected.role, layer: expected.layer, shape, bytes }
    }
}

/// The routed experts of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Experts {
    /// Gate, up, down, and where each lies in an expert's extents.
    pub(crate) parts: [ExpertPart; 3],
    /// Bytes of an expert's extents.
    pub(crate) extents: Vec<u64>,
}

impl Experts {
    /// None of a layer without experts.
    fn of(layer: &LayerExperts) -> Option<Self> {
        let first = layer.extents.first()?;
        Some(Self { parts: layer.parts, extents: first.iter().map(|extent| extent.bytes).collect() })
    }

    /// Parts one after the other in one extent.
    fn packed(shapes: [Shape; 3]) -> Self {
        let mut bytes = 0;
        let parts = shapes.map(|Shape { format, rows, cols }| {
            let offset = bytes;
            bytes += Shape { format, rows, cols }.bytes() as u64;
            ExpertPart { format, rows, cols, extent: 0, offset }
        });
        Self { parts, extents: vec![bytes] }
    }

    pub(crate) fn shapes(&self) -> [Shape; 3] {
        self.parts.map(|part| Shape { format: part.format, rows: part.rows, cols: part.cols })
    }

    pub(crate) fn bytes(&self) -> f64 {
        self.shapes().iter().map(Shape::bytes).sum()
    }
}

/// Layers that are alike in everything that takes time: mixer, feed, shapes and formats.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) spec: LayerSpec,
    /// How many there are.
    pub(crate) count: usize,
    /// Dense tensors of one, in model order.
    pub(crate) dense: Vec<Dense>,
    pub(crate) experts: Option<Experts>,
}

impl Kind {
    fn is_like(&self, spec: &LayerSpec, dense: &[Dense], experts: &Option<Experts>) -> bool {
        let key = |dense: &Dense| (dense.tier, dense.role, dense.shape);
        self.spec == *spec && self.experts == *experts && self.dense.iter().map(key).eq(dense.iter().map(key))
    }

    /// Experts that a token uses in one layer, K.
    pub(crate) fn per_token(&self) -> usize {
        self.spec.moe().map_or(0, |moe| moe.per_token)
    }

    /// Experts of one layer that any of `rows` tokens choose, where each is as likely as any other.
    pub(crate) fn distinct_experts(&self, rows: usize) -> f64 {
        self.spec.moe().map_or(0.0, |moe| distinct(moe.per_token, moe.experts, rows))
    }

    /// Bytes of one layer's dense tensors.
    pub(crate) fn dense_bytes(&self) -> f64 {
        self.dense.iter().map(|dense| dense.shape.bytes()).sum()
    }

    /// Of those, the shared expert's.
    pub(crate) fn shared_bytes(&self) -> f64 {
        let shared = self.dense.iter().filter(|dense| dense.role == Role::SharedExpert);
        shared.map(|dense| dense.shape.bytes()).sum()
    }
}

/// Experts out of `all` that any of `rows` tokens choose, each `k` of them, all as likely.
pub(crate) fn distinct(k: usize, all: usize, rows: usize) -> f64 {
    let (k, all) = (k as f64, all as f64);
    match rows {
        0 => 0.0,
        1 => k,
        _ => all * (1.0 - (1.0 - k / all.max(1.0)).powf(rows as f64)),
    }
}

/// A model's weights in numbers.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) config: ModelSpec,
    pub(crate) dense: Vec<Dense>,
    /// Dense weights in memory, bytes.
    pub(crate) dense_resident_bytes: u64,
    /// [layer]; `None` where it has no routed experts.
    pub(crate) experts: Vec<Option<Experts>>,
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
        let layers = 0..opened.config.num_layers();
        Ok(Self {
            config: opened.config.clone(),
            dense: dense.collect(),
            dense_resident_bytes: opened.dense_bytes(),
            experts: layers.map(|layer| table.layers.get(layer).and_then(Experts::of)).collect(),
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
        let packed = |moe: &MoeSpec| {
            let inner = moe.expert.inner;
            Experts::packed([part(inner, hidden), part(inner, hidden), part(hidden, inner)])
        };
        let experts: Vec<_> = config.layers.iter().map(|layer| layer.moe().map(packed)).collect();
        let largest = experts.iter().flatten().map(|experts| experts.bytes() as u64).max().unwrap_or(0);
        Self {
            dense_resident_bytes: dense.iter().map(|dense| dense.bytes + BUFFER_OVERHEAD_BYTES).sum(),
            dense,
            experts,
            expert_count: config.moe().map(|moe| moe.experts).sum(),
            slot_bytes: largest.next_multiple_of(block_bytes as u64),
            config,
        }
    }

    /// The kinds of layers, in the order of their first.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = Vec::new();
        for (layer, experts) in self.experts.iter().enumerate() {
            let dense = self.dense.iter().filter(|dense| dense.layer == Some(layer));
            let dense: Vec<Dense> = dense.copied().collect();
            let spec = &self.config.layers[layer];
            match kinds.iter_mut().find(|kind| kind.is_like(spec, &dense, experts)) {
                Some(kind) => kind.count += 1,
                None => {
                    let (spec, experts) = (spec.clone(), experts.clone());
                    kinds.push(Kind { spec, count: 1, dense, experts });
                }
            }
        }
        kinds
    }

    /// The matrices of one routed expert of each layer that has any.
    pub(crate) fn expert_shapes(&self) -> impl Iterator<Item = [Shape; 3]> {
        self.experts.iter().flatten().map(Experts::shapes)
    }

    /// Bytes of one routed expert, on average.
    pub(crate) fn expert_bytes(&self) -> f64 {
        let layers = self.experts.iter().flatten();
        layers.map(Experts::bytes).sum::<f64>() / self.config.moe_layers().max(1) as f64
    }

    /// The head is the embedding table.
    fn is_head(&self, tier: Tier) -> bool {
        tier == Tier::Head || (tier == Tier::Embedding && self.config.tie_word_embeddings)
    }

    /// Matrices that every position of a prompt is multiplied with: all but embedding table and
    /// head.
    pub(crate) fn body(&self) -> impl Iterator<Item = Shape> {
        let body = self.dense.iter().filter(|dense| matches!(dense.tier, Tier::Dense | Tier::Router));
        body.map(|dense| dense.shape)
    }

    /// The matrix that only positions whose logits are wanted are multiplied with.
    pub(crate) fn head(&self) -> Option<Shape> {
        self.dense.iter().find(|dense| self.is_head(dense.tier)).map(|dense| dense.shape)
    }

    /// Dense bytes that one decoded token touches: everything but the embedding table, of which it
    /// is one row.
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
        let layers = self.experts.iter().flatten().zip(self.config.moe());
        layers.map(|(experts, moe)| experts.bytes() * moe.per_token as f64).sum()
    }

    /// The same for so many tokens together, each expert counted once where all are as likely.
    pub(crate) fn expert_bytes_per_pass(&self, rows: usize) -> f64 {
        let layers = self.experts.iter().flatten().zip(self.config.moe());
        layers.map(|(experts, moe)| experts.bytes() * distinct(moe.per_token, moe.experts, rows)).sum()
    }

    /// Formats by tier, sorted by name.
    pub(crate) fn formats(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut formats: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for dense in &self.dense {
            formats.entry(tier_name(dense.tier).into()).or_default().insert(dense.shape.format.to_string());
        }
        let experts = formats.entry("experts".into()).or_default();
        experts.extend(self.expert_shapes().flatten().map(|shape| shape.format.to_string()));
        formats
    }
}

/// The distinct expert records of a checkpoint: layers of a model that was made smaller than it
/// claims share theirs.
pub(crate) fn distinct_records(opened: &Opened, files: &[FileId]) -> Vec<Record> {
    let mut seen: HashSet<&[Extent]> = HashSet::new();
    let all = opened.layout.experts.layers.iter().flat_map(|layer| &layer.extents);
    let distinct = all.filter(|extents| seen.insert(extents));
    let record = |extents: &Vec<Extent>| {
        extents.iter().map(|extent| (files[extent.file as usize], extent.offset, extent.bytes)).collect()
    };
    distinct.map(record).collect()
}

#[cfg(test)]
mod tests {
    use models::presets::Preset;
    use models::spec::{FeedSpec, MlpSpec};

    use super::*;

    fn facts(config: impl FnOnce(&mut ModelSpec)) -> Facts {
        let preset = Preset::find("tiny").expect("a preset");
        let mut read =
            models::read_config(std::path::Path::new("tiny"), &preset.config_json(None)).expect("a config");
        config(&mut read);
        Facts::of_config(read, &preset.tiers(Format::Q4K), storage::BLOCK_BYTES)
    }

    #[test]
    fn layers_of_one_kind_are_counted_together() {
        let kinds = facts(|_| ()).kinds();
        let counts: Vec<_> = kinds.iter().map(|kind| (kind.spec.attention().is_some(), kind.count)).collect();
        assert_eq!(counts, [(false, 3), (true, 1)], "three DeltaNet layers, then attention");
        assert!(kinds.iter().all(|kind| kind.experts.is_some() && kind.shared_bytes() > 0.0));
    }

    /// As in families whose first layers have no experts.
    #[test]
    fn layers_without_experts_read_none() {
        let all = facts(|_| ());
        let some = facts(|config| {
            config.layers[0].feed = FeedSpec::Dense(MlpSpec { inner: 512 });
        });
        assert_eq!(4 * some.expert_count, 3 * all.expert_count);
        assert_eq!(4.0 * some.expert_bytes_per_token(), 3.0 * all.expert_bytes_per_token());
        assert_eq!(some.expert_bytes(), all.expert_bytes());
        let kinds = some.kinds();
        assert_eq!(kinds.iter().map(|kind| kind.count).collect::<Vec<_>>(), [1, 2, 1]);
        assert!(kinds[0].experts.is_none() && kinds[0].shared_bytes() == 0.0);
    }
}
