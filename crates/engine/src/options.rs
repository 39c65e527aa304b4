//! What a caller may choose when a model is opened.

use std::path::PathBuf;
use std::sync::Arc;

use experts::{PolicyKind, Verify};
use kernels_cpu::Isa;
use ops::KvFormat;
use storage::{IoEngine, IoMode, Storage};

/// Choices at load time. The default is what most people want: fit into what is free, direct reads, all cores.
#[derive(Clone, Default)]
pub struct EngineOptions {
    /// Bound on the whole process, bytes; `None`: what is free now, less a reserve.
    pub memory_bytes: Option<u64>,
    /// Expert slots instead of the number that the budget gives (tests and measurements).
    pub slots: Option<usize>,
    /// Longest sequence, tokens; `None`: 4096 or the model's own limit if that is less.
    pub ctx: Option<usize>,
    /// Number format of keys and values; `None`: f16.
    pub kv: Option<KvFormat>,
    /// Longest prompt chunk, tokens; `None`: as the budget allows.
    pub chunk_tokens: Option<usize>,
    /// Compute threads; `None`: one per core that the process may use.
    pub threads: Option<usize>,
    /// Reads in flight; `None`: 8.
    pub io_threads: Option<usize>,
    /// Direct or through the page cache; `None`: direct, with a fall-back that is reported.
    pub io: Option<IoMode>,
    /// What does the reading; `None`: the pool of threads.
    pub io_engine: Option<IoEngine>,
    /// Whether checksums are verified on the first load of a record or on each; `None`: first.
    pub verify: Option<Verify>,
    /// Whether guesses of the next layer's experts are read behind all that is asked for; `None`: yes, where it pays.
    pub lookahead: Option<bool>,
    /// Which expert makes room for another; `None`: [`PolicyKind::Adaptive`].
    pub policy: Option<PolicyKind>,
    /// File to record the router's decisions in (docs/trace-format.md).
    pub trace: Option<PathBuf>,
    /// Instruction set of the kernels; `None`: the best that the processor has.
    pub isa: Option<Isa>,
    /// Storage to read from instead of the file system (fault injection in tests).
    pub storage: Option<Arc<dyn Storage>>,
}

impl EngineOptions {
    /// Number format of keys and values.
    pub fn kv(&self) -> KvFormat {
        self.kv.unwrap_or_default()
    }

    /// The lossy options that are on, as reports name them: the one place that knows which are.
    pub fn lossy(&self) -> Vec<String> {
        let kv = self.kv();
        kv.is_lossy().then(|| format!("kv {kv}")).into_iter().collect()
    }
}
