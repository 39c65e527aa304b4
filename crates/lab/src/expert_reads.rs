//! How fast the experts of a model are read, to show what packing gained.

use std::path::Path;
use std::time::Duration;

use engine::EngineOptions;
use engine::door::{Opened, ResolvedOptions, open_files, open_storage};
use storage::{AlignedBuf, BLOCK_BYTES};

use crate::LabError;
use crate::facts::{Facts, distinct_records};
use crate::probe::{Deck, DriveProbe, Limit};

/// How long the reading of experts is measured.
const EXPERT_READS_LIMIT: Limit = Limit { time: Duration::from_millis(700), bytes: 4 << 30 };

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

/// Measures how fast experts of a model are read, past the page cache, in random order. `None` for
/// a model without experts.
///
/// # Errors
/// Anything wrong with the model; the first read that failed.
pub fn expert_reads(model: &Path) -> Result<Option<ExpertReads>, LabError> {
    let opened = Opened::new(model)?;
    let facts = Facts::of(&opened, BLOCK_BYTES)?;
    let storage = open_storage(&ResolvedOptions::new(&EngineOptions::default(), &opened.config)?)?;
    let files = open_files(&opened.checkpoint, storage.as_ref())?;
    let records = distinct_records(&opened, &files);
    let Some(pieces) = records.first().map(Vec::len) else { return Ok(None) };
    let depth = facts.config.per_token_max().max(1);
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
