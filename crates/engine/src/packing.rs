//! Packing a checkpoint into the expert-major container.

use std::path::Path;
use std::time::Duration;

use experts::pack::{PackOptions, PackPlan, PackProgress, PackReport};
pub use models::pack_plan::QuantTiers;

use storage::{AlignedBuf, BLOCK_BYTES};

use crate::engine::{Opened, open_files, open_storage};
use crate::facts::{Facts, distinct_records};
use crate::probe::{Deck, DriveProbe, Limit};
use crate::{EngineError, EngineOptions, gguf};

/// How long the reading of experts is measured.
const EXPERT_READS_LIMIT: Limit = Limit { time: Duration::from_millis(700), bytes: 4 << 30 };

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

/// How a model's experts are read.
#[derive(Copy, Clone, Debug)]
pub struct ExpertReads {
    /// Pieces of the file that an expert lies in.
    pub pieces: usize,
    /// Bytes of an expert that are read, whole blocks.
    pub bytes: u64,
    /// Experts read at once, as many as a token asks for in a layer.
    pub depth: usize,
    /// Experts read in a second.
    pub experts_per_s: f64,
}

/// Measures how fast experts of a model are read, past the page cache, in random order. `None` for a model without experts.
///
/// # Errors
/// Anything wrong with the model; the first read that failed.
pub fn expert_reads(model: &Path) -> Result<Option<ExpertReads>, EngineError> {
    let opened = Opened::new(model)?;
    let facts = Facts::of(&opened, BLOCK_BYTES)?;
    let storage = open_storage(&EngineOptions::default())?;
    let files = open_files(&opened.checkpoint, storage.as_ref())?;
    let records = distinct_records(&opened, &files);
    let Some(pieces) = records.first().map(Vec::len) else { return Ok(None) };
    let depth = facts.config.num_experts_per_tok.max(1);
    let slot_bytes = usize::try_from(facts.slot_bytes).unwrap_or(usize::MAX);
    let mut bufs = AlignedBuf::many(depth, slot_bytes)?;
    bufs.iter_mut().for_each(|buf| buf.fill(1));
    let mut deck = Deck::new(records, 1);
    let sample =
        DriveProbe { storage: storage.as_ref(), deck: &mut deck }.steady(&mut bufs, EXPERT_READS_LIMIT)?;
    let reads = sample.reads.max(1);
    let experts_per_s = reads as f64 / sample.seconds.max(1e-9);
    Ok(Some(ExpertReads { pieces, bytes: sample.bytes / reads, depth, experts_per_s }))
}
