//! What `pack` writes: every tensor of the text model in the format its tier asks for.

use checkpoint::Checkpoint;
use experts::pack::{DenseItem, LayerItem, PackPlan};
use tensor::Format;

use crate::layout::{Expected, Layout, Tier};
use crate::{Config, ModelError};

/// Formats asked for, by tier. A row that is no multiple of a format's block gets [`Format::for_cols`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct QuantTiers {
    /// Routed experts.
    pub experts: Format,
    /// Projections of attention and DeltaNet, and the shared expert.
    pub dense: Format,
    /// Embedding table and head.
    pub embedding: Format,
}

impl QuantTiers {
    /// The usual tiers for `--quant format`: experts in that format; what every token reads, and so errs on every token,
    /// one step finer where there is one.
    pub fn of(format: Format) -> Self {
        let finer = match format {
            Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::Q4K | Format::Q5K => {
                Format::Q6K
            }
            Format::Q2K | Format::Q3K => Format::Q4K,
            other => other,
        };
        Self { experts: format, dense: finer, embedding: finer }
    }

    /// Format of a dense tensor of `tier` stored as `source`, with rows of `cols`.
    pub fn format(&self, tier: Tier, source: Format, cols: usize) -> Format {
        let asked = match tier {
            Tier::Embedding | Tier::Head => self.embedding,
            Tier::Dense => self.dense,
            Tier::Router => return source,
            Tier::Small => return Format::F32,
        };
        requantised(source, asked).for_cols(cols)
    }
}

/// Re-encoding a block format in another only loses: what is quantised already stays as it is.
fn requantised(source: Format, asked: Format) -> Format {
    match source.is_quantised() {
        true => source,
        false => asked,
    }
}

/// The plan that packs `checkpoint` with `tiers`.
///
/// # Errors
/// A tensor that the layout promised is absent.
pub fn pack_plan(
    checkpoint: &Checkpoint,
    config: &Config,
    layout: &Layout,
    tiers: &QuantTiers,
    aux_names: &[&str],
) -> Result<PackPlan, ModelError> {
    let dense_item = |expected: &Expected| {
        let info = checkpoint.tensor(&expected.name).ok_or_else(|| ModelError::MissingTensors {
            path: checkpoint.root().to_path_buf(),
            count: 1,
            first: expected.name.clone(),
        })?;
        let cols = info.shape.last().copied().unwrap_or(1);
        Ok(DenseItem {
            name: info.name.clone(),
            shape: info.shape.clone(),
            source: info.extent,
            source_format: info.format,
            format: tiers.format(expected.tier, info.format, cols),
        })
    };
    let layer_item = |(layer, source): (usize, &checkpoint::LayerExperts)| LayerItem {
        layer: layer as u32,
        source: source.clone(),
        formats: source.parts.map(|part| requantised(part.format, tiers.experts).for_cols(part.cols)),
    };
    Ok(PackPlan {
        dense: layout.dense.iter().map(dense_item).collect::<Result<_, ModelError>>()?,
        layers: layout.experts.layers.iter().enumerate().map(layer_item).collect(),
        aux_files: aux_names.iter().filter_map(|name| checkpoint.aux_file(name)).collect(),
        aux_made: Vec::new(),
        source_files: checkpoint.files().to_vec(),
        description: format!(
            "{} {} layers, {} experts; asked for: experts {}, dense {}, embedding {}",
            config.architecture.name(),
            config.num_layers(),
            config.num_experts,
            tiers.experts,
            tiers.dense,
            tiers.embedding,
        ),
        config: checkpoint.config().clone(),
    })
}
