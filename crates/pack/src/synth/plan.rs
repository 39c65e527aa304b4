//! What to synthesise: the input of [`super::synth`], made by `models`, which knows the architecture.

use std::fmt;
use std::sync::Arc;

use tensor::Format;

use super::rng::Rng;

/// A whole model of random weights.
#[derive(Clone, Debug)]
pub struct SynthPlan {
    /// Content of `config.json`.
    pub config: serde_json::Value,
    /// The model, formats and seed, for people; becomes part of the manifest.
    pub description: String,
    /// Every random choice follows from this.
    pub seed: u64,
    /// Dense tensors, in the order in which they will lie in `dense.bin`.
    pub dense: Vec<SynthTensor>,
    /// Layers that have routed experts, by rising number. All have records of the same length where
    /// they share files.
    pub layers: Vec<SynthLayer>,
    /// Weights encoded per pool; see [`super`].
    pub pool_weights: usize,
}

/// A dense tensor.
#[derive(Clone, Debug)]
pub struct SynthTensor {
    /// Hugging Face name.
    pub name: String,
    /// Logical shape in weights; the last dimension is a row.
    pub shape: Vec<usize>,
    /// Format in the container.
    pub format: Format,
    /// Where its weights come from.
    pub fill: Fill,
}

/// The routed experts of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct SynthLayer {
    /// Number of the layer in the model.
    pub layer: u32,
    /// How many experts.
    pub experts: usize,
    /// Gate, up, down.
    pub parts: [SynthPart; 3],
}

/// One of an expert's matrices.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct SynthPart {
    /// Format in the container.
    pub format: Format,
    /// Number of rows.
    pub rows: usize,
    /// Weights per row.
    pub cols: usize,
    /// Standard deviation of a weight.
    pub std: f32,
}

/// Writes row number `u64` of a tensor; the generator is that row's own.
pub type RowFn = dyn Fn(u64, &mut Rng, &mut [f32]) + Send + Sync;

/// Where a dense tensor's weights come from.
#[derive(Clone)]
pub enum Fill {
    /// Gaussian weights out of a pool, band by band; the bands' rows add up to the tensor's.
    Pool(Vec<Band>),
    /// Each row is computed and encoded: for small tensors whose values matter.
    Rows(Arc<RowFn>),
}

impl fmt::Debug for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fill::Pool(bands) => f.debug_tuple("Pool").field(bands).finish(),
            Fill::Rows(_) => f.write_str("Rows"),
        }
    }
}

/// Rows of a tensor whose weights have one distribution.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Band {
    /// How many rows.
    pub rows: u64,
    /// Mean of a weight.
    pub mean: f32,
    /// Standard deviation of a weight.
    pub std: f32,
}

/// How to write. The default is right for a model that fits on the disk.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SynthOptions {
    /// Most bytes of disk that the container may take. Where the model is larger, several layers
    /// share record files.
    pub disk_bytes: Option<u64>,
    /// Threads; 0 means some more than there are cores, so that the drive is kept busy.
    pub threads: usize,
    /// The command that an interrupted container names for beginning again.
    pub command: Option<String>,
    /// Pretend that the disk has this many bytes free (tests).
    #[doc(hidden)]
    pub free_bytes: Option<u64>,
}

/// What [`super::synth`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SynthReport {
    /// Size of the container.
    pub bytes: u64,
    /// Bytes of the dense weights.
    pub dense_bytes: u64,
    /// Bytes of all expert records that the model has, each layer counted.
    pub expert_bytes: u64,
    /// Layers with experts.
    pub layers: usize,
    /// Files that hold their records.
    pub record_files: usize,
    /// Whether writes went past the page cache.
    pub direct: bool,
}
