//! Packing a checkpoint into the expert-major container.

use std::path::Path;

use experts::pack::{PackOptions, PackPlan, PackProgress, PackReport};
pub use models::pack_plan::QuantTiers;

use crate::engine::Opened;
use crate::{EngineError, gguf};

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
    let Opened { checkpoint, config, layout } = &opened;
    let mut plan = models::pack_plan::pack_plan(checkpoint, config, layout, tiers, &AUX_FILES)?;
    plan.aux_made = made_files(&opened)?;
    Ok(plan)
}

/// The small files that a GGUF file has inside.
fn made_files(opened: &Opened) -> Result<Vec<(String, Vec<u8>)>, EngineError> {
    let Some(gguf) = opened.checkpoint.gguf() else { return Ok(Vec::new()) };
    let generation = gguf::generation_config(&opened.checkpoint, gguf, &opened.config.eos_token_ids);
    let mut files = vec![("generation_config.json".to_owned(), generation)];
    match gguf::vocabulary(&opened.checkpoint, gguf) {
        Ok(vocabulary) => {
            files.push(("tokenizer.json".to_owned(), vocabulary.tokenizer_json()?));
            let config = vocabulary.tokenizer_config().to_string();
            files.push(("tokenizer_config.json".to_owned(), config.into_bytes()));
        }
        // Nothing to copy; the container can be run on ids as the file can.
        Err(EngineError::NoGgufTokenizer { .. }) => {}
        Err(other) => return Err(other),
    }
    Ok(files)
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
