//! Stand-ins: small synthetic models of a large one's layers, to time the real forward pass before
//! there is a model.
//!
//! For each kind of layer there is a model of a few such layers, as many as no cache holds, with
//! the large one's shapes and formats. Its bytes are computed, so that nothing is read from a
//! drive. All rows of a matrix are one random row: products take as long as with any other, and a
//! router finds all experts alike and chooses the same K for every token, so that K experts of each
//! layer in memory are enough.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpoint::{Checkpoint, ExpertPart, ExpertTable, Extent, LayerExperts, TensorInfo};
use engine::EngineOptions;
use engine::door::{self, Opened, ResolvedOptions, Runtime};
use models::layout::{Layout, PUBLISHED_PREFIX, published_dense};
use models::spec::{RopeFactors, WeightForm};
use models::{ModelSpec, PromptPart, Step};
use ops::{PAGE_TOKENS, Phase, Rows};
use storage::{BLOCK_BYTES, GeneratedStorage, Storage};
use tensor::Format;

use crate::LabError;
use crate::facts::{Experts, Facts, Kind, Shape};
use crate::probe::random_values;

/// Layers of a kind are repeated over so much memory that no cache holds them, bytes.
pub(crate) const UNCACHED_BYTES: usize = 128 << 20;
/// Most layers of a stand-in.
const LAYERS_MAX: usize = 64;
/// Vocabulary where it is not the head that is timed.
const VOCAB: usize = 64;
/// Tokens that the context holds when a row is timed, the row itself among them: one page.
const CONTEXT_TOKENS: usize = PAGE_TOKENS;
/// Most rows of a pass that is timed. A longer chunk takes longer in proportion.
pub(crate) const ROWS_MAX: usize = 128;
/// A stand-in's whole budget: its slots and chunk are given, so that it bounds nothing.
const BUDGET_BYTES: u64 = 1 << 50;
/// Longest that one kind of pass is measured, and the least number of passes.
const PASS_TIME: Duration = Duration::from_millis(250);
const PASSES_MIN: usize = 5;

/// Seconds of a pass through one layer.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct LayerTime {
    /// All but the routed experts.
    pub(crate) dense_s: f64,
    /// K routed experts, each with every row of the pass.
    pub(crate) experts_s: f64,
}

/// A pass that is timed.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Pass {
    /// One token of each of so many sequences.
    Decode(usize),
    /// So many tokens of one prompt, at most [`ROWS_MAX`].
    Prompt(usize),
}

/// A stand-in that can be stepped.
pub(crate) struct StandIn {
    runtime: Box<dyn Runtime>,
    layers: usize,
}

impl StandIn {
    /// Layers of one kind, for so many sequences.
    ///
    /// # Errors
    /// No memory; weights that the model refuses.
    pub(crate) fn of_kind(
        facts: &Facts,
        kind: &Kind,
        streams: usize,
        options: &EngineOptions,
    ) -> Result<Self, LabError> {
        let experts = kind.experts.as_ref().map_or(0.0, Experts::bytes);
        let chosen = kind.per_token() as f64 * experts;
        let uncached = (UNCACHED_BYTES as f64 / (kind.dense_bytes() + chosen).max(1.0)).ceil();
        let layers = (uncached as usize).clamp(1, LAYERS_MAX.min(kind.count));
        let made = Made::new(config_of_kind(facts, kind, layers), kind, Format::F32)?;
        Self::new(made, streams, options)
    }

    /// One layer of a kind below the model's own head.
    ///
    /// # Errors
    /// As [`StandIn::of_kind`].
    pub(crate) fn with_head(
        facts: &Facts,
        kind: &Kind,
        streams: usize,
        options: &EngineOptions,
    ) -> Result<Self, LabError> {
        let config = ModelSpec { vocab_size: facts.config.vocab_size, ..config_of_kind(facts, kind, 1) };
        let format = facts.head().map_or(Format::F32, |head| head.format);
        Self::new(Made::new(config, kind, format)?, streams, options)
    }

    fn new(made: Made, streams: usize, options: &EngineOptions) -> Result<Self, LabError> {
        let Made { opened, file } = made;
        let layers = opened.config.num_layers();
        let storage: Arc<dyn Storage> = Arc::new(file.into_storage());
        let slots = opened.config.experts_per_token();
        let ctx = CONTEXT_TOKENS + ROWS_MAX;
        let options = EngineOptions {
            memory_bytes: Some(BUDGET_BYTES),
            ctx: Some(ctx),
            parallel: Some(streams),
            kv_tokens: Some(streams * ctx),
            snapshots: Some(0),
            slots: Some(slots),
            chunk_tokens: Some(ROWS_MAX),
            lookahead: Some(false),
            session_cache: None,
            trace: None,
            storage: Some(storage.clone()),
            ..options.clone()
        };
        let options = ResolvedOptions::new(&options, &opened.config)?;
        let plan = opened.plan(&options, storage.block_bytes())?;
        let runtime = door::load(&opened, &options, &plan, &storage)?;
        Ok(Self { runtime, layers })
    }

    /// One layer's share of a pass.
    ///
    /// # Errors
    /// The pass failed.
    pub(crate) fn layer_time(&mut self, pass: Pass) -> Result<LayerTime, LabError> {
        let (dense_s, experts_s) = self.best(pass, false)?;
        let layers = self.layers as f64;
        Ok(LayerTime { dense_s: dense_s / layers, experts_s: experts_s / layers })
    }

    /// What final norm and head of every row add to a pass, seconds.
    ///
    /// # Errors
    /// The pass failed.
    pub(crate) fn head_s(&mut self, pass: Pass) -> Result<f64, LabError> {
        let ((without_s, _), (with_s, _)) = (self.best(pass, false)?, self.best(pass, true)?);
        Ok((with_s - without_s).max(0.0))
    }

    /// Seconds outside and inside routed experts in the pass that was disturbed least, the first
    /// left out: what others do to the machine meanwhile is no part of a forecast.
    fn best(&mut self, pass: Pass, with_logits: bool) -> Result<(f64, f64), LabError> {
        self.run(pass, with_logits)?;
        let (began, mut passes, mut best) = (Instant::now(), 0, (f64::INFINITY, 0.0));
        while passes < PASSES_MIN || began.elapsed() < PASS_TIME {
            let before = self.runtime.phases();
            self.run(pass, with_logits)?;
            let phases = self.runtime.phases().since(&before);
            let (all, experts) = (phases.forward.as_secs_f64(), phases.experts.as_secs_f64());
            if all < best.0 + best.1 {
                best = (all - experts, experts);
            }
            passes += 1;
        }
        Ok(best)
    }

    /// One pass at the end of a page that nobody has written: zeros take as long to attend to.
    fn run(&mut self, pass: Pass, with_logits: bool) -> Result<(), LabError> {
        let rows = |first: usize, len: usize, pages| Rows {
            first: first as u32,
            len: len as u32,
            pos: CONTEXT_TOKENS as u32 - 1,
            phase: Phase::Decode,
            chunked: false,
            state: first as u32,
            keep: None,
            pages,
        };
        let (n, sequences): (usize, Vec<Rows>) = match pass {
            Pass::Decode(n) => (n, (0..n).map(|row| rows(row, 1, (row as u32, 1))).collect()),
            Pass::Prompt(n) => {
                let prompt = Rows { phase: Phase::Prefill, chunked: n > 1, ..rows(0, n, (0, 2)) };
                (n, vec![prompt])
            }
        };
        let tokens: Vec<u32> = (0..n as u32).map(|row| row % VOCAB as u32).collect();
        let pages: Vec<u32> = (0..n.max(2) as u32).collect();
        let wanted: Vec<u32> = if with_logits { (0..n as u32).collect() } else { Vec::new() };
        let step = match pass {
            Pass::Decode(_) => {
                Step { tokens: &tokens, rows: &sequences, pages: &pages, prompt: None, wanted: &wanted }
            }
            Pass::Prompt(_) => {
                let prompt = PromptPart { tokens: &tokens, rows: &sequences, layers: 0..self.layers };
                Step { tokens: &[], rows: &[], pages: &pages, prompt: Some(prompt), wanted: &wanted }
            }
        };
        let failures = self.runtime.forward(&step, &|| false, &mut |_, _| ())?;
        match failures.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// The large model's configuration with nothing but layers of one kind, and a small vocabulary that
/// is its own head.
fn config_of_kind(facts: &Facts, kind: &Kind, layers: usize) -> ModelSpec {
    ModelSpec {
        layers: vec![kind.spec.clone(); layers],
        vocab_size: VOCAB,
        tie_word_embeddings: true,
        rope_factors: RopeFactors::Ones,
        // A GGUF file has decays as they are used: random ones would be growth, without bound.
        weight_form: WeightForm::HuggingFace,
        ..facts.config.clone()
    }
}

/// A model that lies nowhere, and its bytes.
struct Made {
    opened: Opened,
    file: File,
}

impl Made {
    fn new(config: ModelSpec, kind: &Kind, head: Format) -> Result<Self, LabError> {
        let mut file = File::default();
        let dense = published_dense(&config);
        // The tensors of every layer come in the order of the kind's.
        let mut formats = kind.dense.iter().map(|dense| dense.shape.format).cycle();
        let tensors = dense.iter().map(|expected| {
            let of_layer = expected.layer.and_then(|_| formats.next());
            let format = of_layer.unwrap_or(if expected.shape.len() == 2 { head } else { Format::F32 });
            let cols = expected.shape.last().copied().unwrap_or(1).max(1);
            let rows = expected.shape.iter().product::<usize>() / cols;
            let extent = file.add(Shape { format, rows, cols });
            TensorInfo {
                name: expected.name.clone(),
                format,
                shape: expected.shape.clone(),
                extent,
                checksum: None,
            }
        });
        let tensors = tensors.collect();
        let experts = match (&kind.experts, kind.spec.moe()) {
            (Some(experts), Some(moe)) => vec![file.experts(experts, moe.experts); config.num_layers()],
            _ => Vec::new(),
        };
        let layout = Layout {
            prefix: PUBLISHED_PREFIX,
            dense,
            experts: ExpertTable { layers: experts },
            ignored: Default::default(),
        };
        let checkpoint = Checkpoint::of_tensors(Path::new("stand-in"), tensors)?;
        Ok(Self { opened: Opened { checkpoint, config, layout }, file })
    }
}

/// A file of matrices under way: where each begins and what its rows are.
#[derive(Default)]
struct File {
    matrices: Vec<(u64, Arc<[u8]>)>,
    bytes: u64,
}

impl File {
    /// Appends a matrix in an extent that begins on a block.
    fn add(&mut self, shape: Shape) -> Extent {
        let (offset, bytes) = (self.bytes.next_multiple_of(BLOCK_BYTES as u64), shape.bytes() as u64);
        self.matrices.push((offset, random_row(shape)));
        self.bytes = offset + bytes;
        Extent { file: 0, offset, bytes }
    }

    /// Experts that all have the same bytes.
    fn experts(&mut self, experts: &Experts, count: usize) -> LayerExperts {
        let extents = experts.extents.iter().enumerate().map(|(index, bytes)| {
            let offset = self.bytes.next_multiple_of(BLOCK_BYTES as u64);
            let mut inside: Vec<_> = experts.parts.iter().filter(|part| part.extent == index).collect();
            inside.sort_by_key(|part| part.offset);
            for ExpertPart { format, rows, cols, offset: start, .. } in inside {
                let shape = Shape { format: *format, rows: *rows, cols: *cols };
                self.matrices.push((offset + start, random_row(shape)));
            }
            self.bytes = offset + bytes;
            Extent { file: 0, offset, bytes: *bytes }
        });
        let extents: Vec<Extent> = extents.collect();
        LayerExperts { parts: experts.parts, extents: vec![extents; count], checksums: None }
    }

    fn into_storage(self) -> GeneratedStorage {
        let Self { matrices, bytes } = self;
        GeneratedStorage::new(bytes.next_multiple_of(BLOCK_BYTES as u64), move |offset, buf| {
            fill(&matrices, offset, buf);
        })
    }
}

/// The file's bytes from `offset` on.
fn fill(matrices: &[(u64, Arc<[u8]>)], offset: u64, buf: &mut [u8]) {
    let end = offset + buf.len() as u64;
    let mut index = matrices.partition_point(|(start, _)| *start <= offset).saturating_sub(1);
    let mut at = offset;
    while at < end {
        let Some((start, row)) = matrices.get(index) else { break };
        let stop = matrices.get(index + 1).map_or(end, |(next, _)| (*next).min(end));
        let target = &mut buf[(at - offset) as usize..(stop - offset) as usize];
        if !row.is_empty() && at >= *start {
            let first = ((at - start) % row.len() as u64) as usize;
            let (head, rest) = target.split_at_mut(target.len().min(row.len() - first));
            head.copy_from_slice(&row[first..first + head.len()]);
            rest.chunks_mut(row.len()).for_each(|chunk| chunk.copy_from_slice(&row[..chunk.len()]));
        }
        (at, index) = (stop.max(at), index + 1);
    }
}

/// The bytes of one random row, small enough that a product of any width stays in range.
fn random_row(shape: Shape) -> Arc<[u8]> {
    let scale = 1.0 / (shape.cols.max(1) as f32).sqrt();
    let values: Vec<f32> = random_values(shape.cols).iter().map(|value| scale * value).collect();
    let mut row = vec![0; shape.format.row_bytes(shape.cols).unwrap_or(0)];
    // Formats that nothing is written in have rows of zeros, which take as long.
    let _ = shape.format.encode_row(&values, &mut row);
    row.into()
}

#[cfg(test)]
mod tests {
    use models::presets::Preset;

    use super::*;

    #[test]
    fn generated_bytes_do_not_depend_on_where_a_read_begins() {
        let row: Arc<[u8]> = (1u8..=10).collect();
        let other: Arc<[u8]> = (101u8..=103).collect();
        let matrices = [(0, row), (25, other)];
        let mut whole = [0; 40];
        fill(&matrices, 0, &mut whole);
        assert_eq!(whole[..12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2]);
        assert_eq!(whole[23..30], [4, 5, 101, 102, 103, 101, 102]);
        for begin in 0..40 {
            let mut part = [0; 40];
            fill(&matrices, begin as u64, &mut part[begin..]);
            assert_eq!(part[begin..], whole[begin..], "from {begin}");
        }
    }

    /// Every kind of layer of a model is stepped with everything in memory, by as many rows as
    /// asked for.
    #[test]
    fn stand_ins_step_with_the_experts_that_they_have() {
        let preset = Preset::find("tiny").expect("a preset");
        let config = models::read_config(Path::new("tiny"), &preset.config_json(None)).expect("a config");
        let options = EngineOptions { threads: Some(1), ..EngineOptions::default() };
        for format in [Format::Q4K, Format::BF16] {
            let facts = Facts::of_config(config.clone(), &preset.tiers(format), BLOCK_BYTES);
            for kind in facts.kinds() {
                let mut stand_in = StandIn::of_kind(&facts, &kind, 3, &options).expect("a stand-in");
                assert_eq!(stand_in.layers, kind.count, "a tiny model fits into a cache as it is");
                for pass in [Pass::Decode(1), Pass::Decode(3), Pass::Prompt(1), Pass::Prompt(100)] {
                    let time = stand_in.layer_time(pass).expect("a pass");
                    assert!(time.dense_s > 0.0 && time.experts_s > 0.0, "{time:?}");
                }
                let stats = stand_in.runtime.store_stats();
                let slots = (kind.count * kind.per_token()) as u64;
                assert_eq!(
                    stats.misses, slots,
                    "each expert is read once: the router always chooses the same"
                );
            }
            let kinds = facts.kinds();
            let mut head = StandIn::with_head(&facts, &kinds[0], 2, &options).expect("a stand-in");
            assert!(head.head_s(Pass::Decode(2)).is_ok_and(|seconds| seconds.is_finite()));
        }
    }
}
