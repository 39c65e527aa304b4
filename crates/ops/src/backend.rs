//! The ops contract that models are written against.
//!
//! Activations are f32, row-major `[tokens, dim]`, in buffers that live where the back-end computes. An
//! op reads and writes whole buffers from row 0; `n` is the number of token rows in use, and a
//! [`Batch`] says which sequence each row belongs to. Ops are recorded in order. Allocation and
//! readback can fail; an error of an op in between surfaces at the next readback. A back-end may
//! therefore run ahead of the caller between two readbacks.
//!
//! Ops are as large as a GPU needs them to be, since a dependent dispatch costs about 4 microseconds
//! whatever it does. A back-end may compute one in several steps; models never split one.
//!
//! Every op has a fixed order of summation: one thread owns a row, so a result depends neither on the
//! number of threads nor on the other rows of a pass.

use std::sync::Arc;

use tensor::{Format, MatrixView};

use crate::{AttentionShape, Batch, DeltaNetShape, KvFormat, OpError};

/// Bytes of one or more dense matrices, owned by whoever loaded them (for instance an aligned
/// buffer of the storage layer).
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A dense weight matrix handed to a back-end: `rows` x `cols` weights at `offset` in `bytes`.
#[derive(Clone)]
pub struct HostMatrix {
    /// Block format of each row.
    pub format: Format,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Owner of the bytes.
    pub bytes: SharedBytes,
    /// Where the first row starts in `bytes`.
    pub offset: usize,
}

impl HostMatrix {
    /// The matrix, borrowed from its bytes.
    ///
    /// # Panics
    /// If it does not lie inside its bytes, or its columns are no whole number of blocks: a
    /// precondition of [`Backend::matrix`].
    pub fn view(&self) -> MatrixView<'_> {
        let bytes: &[u8] = (*self.bytes).as_ref();
        let len = self.format.row_bytes(self.cols).map(|row_bytes| row_bytes * self.rows);
        let view = len.and_then(|len| {
            let bytes = &bytes[self.offset..][..len];
            MatrixView::new(self.format, self.rows, self.cols, bytes)
        });
        view.unwrap_or_else(|error| panic!("a matrix that was not checked: {error}"))
    }
}

/// The three matrices of one expert, borrowed from its slot for the length of one op.
#[derive(Copy, Clone)]
pub struct ExpertWeights<'a> {
    /// `[F, H]`
    pub gate: MatrixView<'a>,
    /// `[F, H]`
    pub up: MatrixView<'a>,
    /// `[H, F]`
    pub down: MatrixView<'a>,
}

/// One routed expert, and the token rows that chose it: `out[out_rows[j]]` is what it makes of
/// `x[x_rows[j]]`.
#[derive(Copy, Clone)]
pub struct ExpertRows<'a> {
    /// Its matrices.
    pub weights: ExpertWeights<'a>,
    /// Rows of the input.
    pub x_rows: &'a [u32],
    /// As many rows of the output.
    pub out_rows: &'a [u32],
}

/// A root-mean-square norm over rows: `x[i] / sqrt(mean(x[i]^2) + eps) * weight`.
pub struct Norm<'a, B: Backend + ?Sized> {
    /// `[dim]`, as multiplied (1 + w already added).
    pub weight: &'a B::Buffer,
    /// Added to the mean of squares.
    pub eps: f32,
    /// Length of a row.
    pub dim: usize,
}

impl<B: Backend + ?Sized> Copy for Norm<'_, B> {}

impl<B: Backend + ?Sized> Clone for Norm<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

/// Operands of [`Backend::norm_products`].
pub struct NormProducts<'a, B: Backend + ?Sized, const N: usize> {
    /// `[n, dim]`
    pub x: &'a B::Buffer,
    /// Norm of the rows of `x`.
    pub norm: Norm<'a, B>,
    /// Token rows.
    pub n: usize,
    /// Takes the normed rows, `[n, dim]`.
    pub h: &'a mut B::Buffer,
    /// Matrices of `dim` columns, and where `w @ h[i]` goes, `[n, w.rows]`.
    pub products: [(&'a B::Matrix, &'a mut B::Buffer); N],
}

/// Operands of [`Backend::attention`].
pub struct Attention<'a, B: Backend + ?Sized> {
    /// Heads, and how they are rotated.
    pub shape: &'a AttentionShape,
    /// The rows, and the pages of their sequences.
    pub batch: &'a Batch<'a>,
    /// Added to the rows of `qg`, `k` and `v` first.
    pub biases: Option<[&'a B::Buffer; 3]>,
    /// Weights of the norms of queries and of keys, `[head_dim]` each; without them nothing is normed.
    pub norms: Option<[&'a B::Buffer; 2]>,
    /// Divides each rotary frequency: `[rotary_dim / 2]`.
    pub rope_factors: Option<&'a B::Buffer>,
    /// Query and gate of each head, `[n, heads, 2, head_dim]`, or without gates `[n, heads, head_dim]`. Spent.
    pub qg: &'a mut B::Buffer,
    /// `[n, kv_heads, head_dim]`. Spent.
    pub k: &'a mut B::Buffer,
    /// `[n, kv_heads, head_dim]`. Spent.
    pub v: &'a mut B::Buffer,
    /// Pool of keys, which takes the new ones.
    pub keys: &'a mut B::KvPool,
    /// Pool of values, which takes the new ones.
    pub values: &'a mut B::KvPool,
    /// `[n, heads, head_dim]`
    pub out: &'a mut B::Buffer,
}

/// Operands of [`Backend::delta_net`].
pub struct DeltaNet<'a, B: Backend + ?Sized> {
    /// Heads and channels.
    pub shape: &'a DeltaNetShape,
    /// The rows, and the slots of their sequences.
    pub batch: &'a Batch<'a>,
    /// Inputs of the convolution, `[n, channels]`: all q, all k, all v.
    pub u: &'a B::Buffer,
    /// `[channels, kernel]`, the last tap is the current token's.
    pub conv: &'a B::Buffer,
    /// Step sizes before the sigmoid, `[n, Nv]`.
    pub b: &'a B::Buffer,
    /// Decays before the softplus, `[n, Nv]`.
    pub a: &'a B::Buffer,
    /// -exp(A_log), `[Nv]`.
    pub a_neg: &'a B::Buffer,
    /// `[Nv]`
    pub dt_bias: &'a B::Buffer,
    /// Pool of the convolution's last inputs, oldest first: `[slots, kernel - 1, channels]`. Advanced.
    pub conv_states: &'a mut B::Buffer,
    /// Pool of states, `[slots, Nk, Nv / Nk, dk, dv]`: grouped by key head whatever the order of the
    /// value heads. Advanced.
    pub states: &'a mut B::Buffer,
    /// Takes the convolution's outputs, `[n, channels]`.
    pub qkv: &'a mut B::Buffer,
    /// `[n, Nv, dv]`, before the gated norm.
    pub out: &'a mut B::Buffer,
}

/// The norm of a DeltaNet layer's output: `o / rms(o) * weight * silu(z)` over rows of `dim`.
pub struct GatedNorm<'a, B: Backend + ?Sized> {
    /// `[rows, dim]`
    pub z: &'a B::Buffer,
    /// Norm of each row of `dim`; there may be several to a token.
    pub norm: Norm<'a, B>,
    /// Rows of `dim`.
    pub rows: usize,
}

/// Operands of [`Backend::output_product`].
pub struct OutputProduct<'a, B: Backend + ?Sized> {
    /// Applied to `input` first.
    pub gated_norm: Option<GatedNorm<'a, B>>,
    /// `[n, w.cols]`. Spent.
    pub input: &'a mut B::Buffer,
    /// Output projection of a mixer, `[H, w.cols]`.
    pub w: &'a B::Matrix,
    /// `[H]`
    pub bias: Option<&'a B::Buffer>,
    /// Token rows.
    pub n: usize,
    /// H.
    pub hidden: usize,
    /// Takes the product, `[n, H]`.
    pub product: &'a mut B::Buffer,
    /// The residual stream, `[n, H]`, to which the product is added.
    pub x: &'a mut B::Buffer,
}

/// Operands of [`Backend::mlp`].
pub struct Mlp<'a, B: Backend + ?Sized> {
    /// `[F, H]`
    pub gate: &'a B::Matrix,
    /// `[F, H]`
    pub up: &'a B::Matrix,
    /// `[H, F]`
    pub down: &'a B::Matrix,
    /// `[1, H]`: each row's output is multiplied by the sigmoid of its product with the row.
    pub gate_row: Option<&'a B::Matrix>,
    /// `[n, H]`
    pub x: &'a B::Buffer,
    /// Token rows.
    pub n: usize,
    /// `[n, H]`
    pub out: &'a mut B::Buffer,
}

/// Operands of [`Backend::combine`].
pub struct Combine<'a, B: Backend + ?Sized> {
    /// `[n, k_len]`, in router order.
    pub weights: &'a [f32],
    /// Outputs of the routed experts, `[n, k_len, dim]`.
    pub routed: &'a B::Buffer,
    /// Output of the shared expert, `[n, dim]`.
    pub shared: Option<&'a B::Buffer>,
    /// Token rows.
    pub n: usize,
    /// Experts of a token.
    pub k_len: usize,
    /// H.
    pub dim: usize,
    /// The residual stream, `[n, dim]`.
    pub x: &'a mut B::Buffer,
}

/// Something that a back-end holds memory for.
#[derive(Copy, Clone, Debug)]
pub enum Need<'a> {
    /// A buffer of this many floats.
    Buffer(usize),
    /// A dense matrix of this many bytes.
    Matrix(u64),
    /// A pool of keys or of values.
    KvPool {
        /// Number format.
        format: KvFormat,
        /// Heads.
        shape: &'a AttentionShape,
        /// Pages.
        pages: usize,
    },
    /// Memory that ops keep for themselves between calls.
    Attention {
        /// Heads.
        shape: &'a AttentionShape,
        /// Number format of the pools.
        format: KvFormat,
    },
    /// As `Attention`, of a gated MLP or the experts of a layer.
    Mlp {
        /// H.
        hidden: usize,
        /// F.
        inner: usize,
        /// Token rows.
        rows: usize,
    },
}

/// Memory by where it lies, bytes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Of the process.
    pub host_bytes: u64,
    /// Of a device with memory of its own.
    pub device_bytes: u64,
}

impl std::ops::AddAssign for Footprint {
    fn add_assign(&mut self, other: Footprint) {
        self.host_bytes += other.host_bytes;
        self.device_bytes += other.device_bytes;
    }
}

/// Fused ops, tensor-resident. Shapes are preconditions: a back-end may panic when a caller breaks
/// them, since `models` has checked every shape that comes from a file before the first op.
pub trait Backend {
    /// f32 values, resident where the back-end computes.
    type Buffer;
    /// A dense weight matrix, resident.
    type Matrix;
    /// Keys, or values, of one attention layer and all sequences.
    type KvPool;

    /// What a need takes.
    fn footprint(&self, need: &Need<'_>) -> Footprint;

    /// A zeroed buffer of `len` floats.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    fn buffer(&mut self, len: usize) -> Result<Self::Buffer, OpError>;
    /// Takes a dense matrix.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    fn matrix(&mut self, data: HostMatrix) -> Result<Self::Matrix, OpError>;
    /// A pool of keys or of values: `[pages, PAGE_TOKENS, kv_heads, head_dim]`, each head of a token in `format`.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    fn kv_pool(
        &mut self,
        format: KvFormat,
        shape: &AttentionShape,
        pages: usize,
    ) -> Result<Self::KvPool, OpError>;

    /// Copies `src` to `dst[at..]`.
    fn write(&mut self, dst: &mut Self::Buffer, at: usize, src: &[f32]);
    /// The explicit readback: lends `src[at..at + len]` to `reader` on the host. A CPU lends its own memory,
    /// a device what it mapped or copied.
    ///
    /// # Errors
    /// The first error of the ops recorded since the last readback; `reader` is not called then.
    fn read_with<T>(
        &mut self,
        src: &Self::Buffer,
        at: usize,
        len: usize,
        reader: impl FnOnce(&[f32]) -> T,
    ) -> Result<T, OpError>;
    /// Copies `src[at..at + dst.len()]` to the host.
    ///
    /// # Errors
    /// As [`Backend::read_with`].
    fn read(&mut self, src: &Self::Buffer, at: usize, dst: &mut [f32]) -> Result<(), OpError> {
        self.read_with(src, at, dst.len(), |values| dst.copy_from_slice(values))
    }
    /// Zeroes `dst[at..at + len]`.
    fn clear(&mut self, dst: &mut Self::Buffer, at: usize, len: usize);
    /// Copies `len` floats from `src[src_at..]` to `dst[dst_at..]`.
    fn copy(&mut self, src: &Self::Buffer, src_at: usize, dst: &mut Self::Buffer, dst_at: usize, len: usize);
    /// Copies `len` floats within a buffer; the two places do not overlap.
    fn copy_within(&mut self, buffer: &mut Self::Buffer, from: usize, to: usize, len: usize);
    /// Copies the first `tokens` tokens of page `from` to page `to`.
    fn copy_page(&mut self, pool: &mut Self::KvPool, from: usize, to: usize, tokens: usize);
    /// Appends a page as it is stored to `out`: `[PAGE_TOKENS, kv_heads]` heads in the pool's format.
    ///
    /// # Errors
    /// As [`Backend::read`].
    fn read_page(&mut self, pool: &Self::KvPool, page: usize, out: &mut Vec<u8>) -> Result<(), OpError>;
    /// Sets a page to bytes that [`Backend::read_page`] gave: as many as it gave.
    fn write_page(&mut self, pool: &mut Self::KvPool, page: usize, bytes: &[u8]);

    /// `out[i] = table[ids[i]]`, decoded to f32, from row `at` of `out` on. ids are within the table.
    fn get_rows(&mut self, table: &Self::Matrix, ids: &[u32], out: &mut Self::Buffer, at: usize);
    /// Norms rows, then multiplies them with several matrices. Gives the bits of as many products of one
    /// matrix each.
    fn norm_products<const N: usize>(&mut self, op: NormProducts<'_, Self, N>);
    /// Biases; norm and rotation of queries and keys; keys and values into the pools, in their format;
    /// causal attention of each row over its sequence's positions up to its own, in f32 whatever the
    /// pools' format, times sigmoid(gate) where there are gates.
    fn attention(&mut self, op: Attention<'_, Self>);
    /// Causal depthwise convolution and silu, then the gated delta rule: q and k are L2-normed (eps 1e-6
    /// inside the sum) and q scaled by dk^-1/2; beta = sigmoid(b), g = `a_neg` * softplus(a + dt_bias).
    fn delta_net(&mut self, op: DeltaNet<'_, Self>);
    /// `x += w @ input + bias`, after the gated norm of `input` where there is one.
    fn output_product(&mut self, op: OutputProduct<'_, Self>);
    /// A resident shared expert, or a dense layer's MLP: for each row
    /// `out[i] = sigmoid(gate_row @ x[i]) * down(silu(gate x[i]) * (up x[i]))`, without the first factor if there is
    /// no `gate_row`.
    fn mlp(&mut self, op: Mlp<'_, Self>);
    /// `x[..len] += y[..len]`.
    fn add(&mut self, y: &Self::Buffer, len: usize, x: &mut Self::Buffer);
    /// Some of a layer's routed experts, each on the token rows that chose it: for each expert and each
    /// of its rows j, `out[out_rows[j]] = down(silu(gate x[x_rows[j]]) * (up x[x_rows[j]]))`; x and out
    /// are `[_, H]`. The experts have the same shape; no output row is named twice. A row's bits do not
    /// depend on which experts share a call. A layer's experts come in several calls, as they land, hence
    /// the weighted sum is an op of its own; a back-end may leave the down products to it.
    fn experts(&mut self, experts: &[ExpertRows<'_>], x: &Self::Buffer, out: &mut Self::Buffer);
    /// `x[i] += shared[i] + sum_k weights[i * k_len + k] * routed[i * k_len + k]`, k in router order.
    fn combine(&mut self, op: Combine<'_, Self>);
}
