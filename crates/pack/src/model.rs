//! Which tensors of a model go into its container, and in which formats.

use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, TOKENIZER_FILES};
use models::ModelError;
use models::layout::Expected;
use models::tiers::{QuantTiers, requantised};

use crate::error::PackError;
use crate::plan::{DenseItem, LayerItem, PackPlan};

/// Files that travel with the weights, beside the tokenizer's.
const AUX_FILES: [&str; 4] = ["config.json", "generation_config.json", "LICENSE", "README.md"];

/// The plan that packs the model at `source` with `tiers`. `made` are the small files that the
/// source has inside (name and content): the tokenizer of a GGUF file, for one.
///
/// # Errors
/// A source that cannot be opened or is no model that is known.
pub fn plan_model(
    source: &Path,
    tiers: &QuantTiers,
    made: Vec<(String, Vec<u8>)>,
) -> Result<PackPlan, PackError> {
    let checkpoint = &models::adopt(Checkpoint::open(source)?)?;
    let spec = models::read_config(source, checkpoint.config())?;
    let layout = models::layout::layout(checkpoint, &spec)?;
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
    let has_experts = |(_, source): &(usize, &checkpoint::LayerExperts)| !source.extents.is_empty();
    Ok(PackPlan {
        dense: layout.dense.iter().map(dense_item).collect::<Result<_, ModelError>>()?,
        layers: layout.experts.layers.iter().enumerate().filter(has_experts).map(layer_item).collect(),
        aux_files: aux_files(checkpoint)?,
        aux_made: made,
        source_files: checkpoint.files().to_vec(),
        description: format!(
            "{} {} layers, {} experts; asked for: experts {}, dense {}, embedding {}",
            spec.family,
            spec.num_layers(),
            spec.experts_max(),
            tiers.experts,
            tiers.dense,
            tiers.embedding,
        ),
        config: checkpoint.config().clone(),
    })
}

/// The small files that the model has.
fn aux_files(checkpoint: &Checkpoint) -> Result<Vec<PathBuf>, PackError> {
    let mut files = Vec::new();
    for name in AUX_FILES.into_iter().chain(TOKENIZER_FILES) {
        files.extend(checkpoint.aux_file(name)?);
    }
    Ok(files)
}
