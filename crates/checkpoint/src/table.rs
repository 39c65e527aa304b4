//! Where tensors and experts lie: the vocabulary that every container shares.
//!
//! Nothing here reads a byte. An [`Extent`] names a contiguous piece of one of the checkpoint's
//! files; a [`TensorInfo`] is a dense tensor in one extent; an [`ExpertTable`] says for every layer
//! and expert which extents to read and where the three matrices start in them. Hugging Face
//! directories give two or three extents an expert, the packed container gives one.

use tensor::Format;

/// A contiguous piece of one file of a checkpoint.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Index in [`crate::Checkpoint::files`].
    pub file: u32,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A dense tensor: name, element format, logical shape in weights and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Hugging Face name, e.g. `model.layers.0.mlp.gate.weight`.
    pub name: String,
    /// Element or block format of the bytes.
    pub format: Format,
    /// Logical shape in weights, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Where the bytes are.
    pub extent: Extent,
    /// XXH3-64 (seed 0) of the extent's bytes where the container stores one (packed), else `None`.
    pub checksum: Option<u64>,
}

impl TensorInfo {
    /// Number of weights, or `None` when the product overflows.
    pub fn weight_count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))
    }
}

/// One of an expert's three matrices and where it starts in the expert's bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ExpertPart {
    /// Format of the matrix's rows.
    pub format: Format,
    /// Number of rows (outputs).
    pub rows: usize,
    /// Weights per row (inputs).
    pub cols: usize,
    /// Which of the expert's extents the matrix lies in.
    pub extent: usize,
    /// First byte of the matrix, from the start of that extent.
    pub offset: u64,
}

/// Where the experts of one layer lie, whatever the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerExperts {
    /// Gate, up, down.
    pub parts: [ExpertPart; 3],
    /// `[expert][extent]`. Every expert of a layer has the same number of extents, of the same
    /// lengths, so one `parts` describes them all.
    pub extents: Vec<Vec<Extent>>,
    /// `[expert]`: XXH3-64 (seed 0) of the expert's extents, one after the other, where the
    /// container stores it.
    pub checksums: Option<Vec<u64>>,
}

/// The routed experts of a whole model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpertTable {
    /// Index = layer.
    pub layers: Vec<LayerExperts>,
}

impl LayerExperts {
    /// A layer that has no routed experts.
    pub fn none() -> LayerExperts {
        let part = ExpertPart { format: Format::F32, rows: 0, cols: 0, extent: 0, offset: 0 };
        LayerExperts { parts: [part; 3], extents: Vec::new(), checksums: None }
    }
}
