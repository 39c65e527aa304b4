//! Packing a checkpoint into the expert-major container.

use std::path::Path;

use experts::pack::{PackOptions, PackPlan, PackProgress, PackReport};
pub use models::pack_plan::QuantTiers;

use crate::EngineError;
use crate::engine::Opened;

/// Files that travel with the weights.
const AUX_FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "README.md",
];

/// What packing `source` with `tiers` would write.
///
/// # Errors
/// Anything wrong with the source.
pub fn plan_pack(source: &Path, tiers: &QuantTiers) -> Result<PackPlan, EngineError> {
    let opened = Opened::new(source)?;
    Ok(models::pack_plan::pack_plan(&opened.checkpoint, &opened.config, &opened.layout, tiers, &AUX_FILES)?)
}

/// Packs `source` into the directory `target`; resumes what an earlier call left unfinished.
///
/// # Errors
/// Anything wrong with the source, a target that holds something else, too little room, a failed read or write.
pub fn pack(
    source: &Path,
    target: &Path,
    tiers: &QuantTiers,
    options: &PackOptions,
    progress: &dyn PackProgress,
) -> Result<PackReport, EngineError> {
    let plan = plan_pack(source, tiers)?;
    Ok(experts::pack::pack(&plan, target, options, progress)?)
}
