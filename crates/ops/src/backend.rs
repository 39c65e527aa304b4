//! The ops contract that models are written against.
//!
//! Activations are f32, row-major `[tokens, dim]`, in buffers that live where the back-end
//! computes. An op reads and writes whole buffers from row 0; `n` is the number of token rows in
//! use. Ops are recorded in order; the only op that hands data back to the host is
//! [`Backend::read`], which is where streaming hooks in (the router's logits). A back-end may
//! therefore run ahead of the caller between two reads.
//!
//! Every op has a fixed order of summation: one thread owns a row, so a result does not depend on
//! the number of threads.

use std::sync::Arc;

use tensor::{Format, MatrixView};

pub use crate::kv_format::{KvFormat, UnknownKvFormat};

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

/// Which two dimensions of a head a rotary embedding turns together.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum RopePairing {
    /// Dimension j with j + rotary_dim / 2, as Hugging Face and most GGUF files have it.
    #[default]
    Halves,
    /// Dimension 2 j with 2 j + 1: the llama family in GGUF files, whose converters reorder the rows of
    /// queries and keys.
    Adjacent,
}

/// Shape of a full-attention layer.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Dimensions of one head.
    pub head_dim: usize,
    /// Leading dimensions of a head that are rotated (even).
    pub rotary_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Which dimensions are rotated together.
    pub pairing: RopePairing,
    /// Whether each query head comes with a gate for its output.
    pub gated: bool,
    /// Epsilon of the query and key norms.
    pub eps: f32,
}

impl AttentionShape {
    /// Floats of one query head: the query, and its gate where there is one.
    pub fn query_len(&self) -> usize {
        self.head_dim * if self.gated { 2 } else { 1 }
    }
}

/// Which key head a value head of a Gated DeltaNet layer belongs to.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum ValueHeadOrder {
    /// Hugging Face: the value heads of a key head follow one another. Value head n belongs to key
    /// head n / (Nv / Nk).
    #[default]
    Grouped,
    /// GGUF: the key heads take turns. Value head n belongs to key head n mod Nk.
    Tiled,
}

/// Shape of a Gated DeltaNet layer (Qwen3.5-MoE section 3.2).
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct DeltaNetShape {
    /// Key heads, Nk.
    pub key_heads: usize,
    /// Value heads, Nv; a multiple of Nk.
    pub value_heads: usize,
    /// Which key head each value head belongs to.
    pub value_head_order: ValueHeadOrder,
    /// dk.
    pub key_dim: usize,
    /// dv.
    pub value_dim: usize,
    /// Taps of the causal convolution.
    pub conv_kernel: usize,
    /// Epsilon of the gated norm.
    pub eps: f32,
}

impl DeltaNetShape {
    /// Channels of the convolution: q, k and v of all heads.
    pub fn conv_channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }

    /// Values of all value heads.
    pub fn value_len(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// The value head that is number `i` of those of `key_head`.
    pub fn value_head(&self, key_head: usize, i: usize) -> usize {
        match self.value_head_order {
            ValueHeadOrder::Grouped => key_head * (self.value_heads / self.key_heads) + i,
            ValueHeadOrder::Tiled => i * self.key_heads + key_head,
        }
    }

    /// Floats of the recurrent state, `[Nk, Nv / Nk, dk, dv]`.
    pub fn state_len(&self) -> usize {
        self.value_heads * self.key_dim * self.value_dim
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

/// About twenty fused ops, tensor-resident. Shapes are preconditions: a back-end may panic when a
/// caller breaks them, since `models` has checked every shape that comes from a file before the
/// first op.
pub trait Backend {
    /// f32 values, resident where the back-end computes.
    type Buffer;
    /// A dense weight matrix, resident.
    type Matrix;
    /// Keys, or values, of one attention layer and sequence.
    type KvCache;

    /// A zeroed buffer of `len` floats.
    fn buffer(&mut self, len: usize) -> Self::Buffer;
    /// Copies `src` to `dst[at..]`.
    fn write(&mut self, dst: &mut Self::Buffer, at: usize, src: &[f32]);
    /// The explicit readback: copies `src[at..at + dst.len()]` to the host.
    fn read(&mut self, src: &Self::Buffer, at: usize, dst: &mut [f32]);
    /// Zeroes a buffer (a state at the start of a sequence).
    fn clear(&mut self, dst: &mut Self::Buffer);
    /// Copies `len` floats from `src[src_at..]` to `dst[dst_at..]`.
    fn copy(&mut self, src: &Self::Buffer, src_at: usize, dst: &mut Self::Buffer, dst_at: usize, len: usize);
    /// Takes a dense matrix.
    fn matrix(&mut self, data: HostMatrix) -> Self::Matrix;
    /// A zeroed cache of keys or of values for `ctx` tokens: `[ctx, kv_heads, head_dim]`, each head
    /// of a token in `format`.
    fn kv_cache(&mut self, format: KvFormat, shape: &AttentionShape, ctx: usize) -> Self::KvCache;
    /// A readback for tests: rows from `row` on as ops see them, `[rows, kv_heads, head_dim]`.
    fn read_kv(&mut self, src: &Self::KvCache, row: usize, dst: &mut [f32]);

    /// `out[i] = table[ids[i]]`, decoded to f32. ids are within the table.
    fn get_rows(&mut self, table: &Self::Matrix, ids: &[u32], out: &mut Self::Buffer);
    /// `out[i] = x[i] / sqrt(mean(x[i]^2) + eps) * weight` over rows of `dim`; `weight` as
    /// multiplied (1 + w already added).
    fn rms_norm(
        &mut self,
        x: &Self::Buffer,
        weight: &Self::Buffer,
        eps: f32,
        n: usize,
        dim: usize,
        out: &mut Self::Buffer,
    );
    /// `out[i] = w @ x[i]`: x is `[n, cols]`, out is `[n, rows]`.
    fn mul_mat(&mut self, w: &Self::Matrix, x: &Self::Buffer, n: usize, out: &mut Self::Buffer);
    /// Several products of the same input: for each pair, `out[i] = w @ x[i]`. The matrices have the
    /// same columns. Gives the bits of as many calls of [`Backend::mul_mat`].
    fn mul_mats<const N: usize>(
        &mut self,
        products: [(&Self::Matrix, &mut Self::Buffer); N],
        x: &Self::Buffer,
        n: usize,
    ) {
        for (w, out) in products {
            self.mul_mat(w, x, n, out);
        }
    }
    /// `out[i] += bias` over rows of `dim`.
    fn add_bias(&mut self, bias: &Self::Buffer, n: usize, dim: usize, out: &mut Self::Buffer);
    /// `x[..len] += y[..len]`.
    fn add(&mut self, y: &Self::Buffer, len: usize, x: &mut Self::Buffer);

    /// Queries, in place: `qg` is `[n, heads, 2, head_dim]` (query then gate per head) or, without
    /// gates, `[n, heads, head_dim]`; the query is normed and rotated. Keys: `k` is `[n, kv_heads,
    /// head_dim]`, normed, rotated, and written with `v` to rows `pos .. pos + n` of the caches, in
    /// their format. `norms` are the weights for queries and for keys, `[head_dim]` each; without
    /// them nothing is normed. Each rotary frequency is divided by its one of `rope_factors`,
    /// `[rotary_dim / 2]`.
    #[allow(clippy::too_many_arguments)]
    fn qk_norm_rope_store(
        &mut self,
        shape: &AttentionShape,
        pos: usize,
        n: usize,
        norms: Option<[&Self::Buffer; 2]>,
        rope_factors: Option<&Self::Buffer>,
        qg: &mut Self::Buffer,
        k: &mut Self::Buffer,
        v: &Self::Buffer,
        k_cache: &mut Self::KvCache,
        v_cache: &mut Self::KvCache,
    );
    /// Causal attention of rows `pos .. pos + n` over the caches, in f32 whatever their format, times
    /// sigmoid(gate) where there are gates: out is `[n, heads, head_dim]`.
    #[allow(clippy::too_many_arguments)]
    fn gated_attention(
        &mut self,
        shape: &AttentionShape,
        pos: usize,
        n: usize,
        qg: &Self::Buffer,
        k_cache: &Self::KvCache,
        v_cache: &Self::KvCache,
        out: &mut Self::Buffer,
    );

    /// Causal depthwise convolution and silu over `u` `[n, channels]`; `weight` is `[channels,
    /// kernel]` (last tap = current token); `state` is `[kernel - 1, channels]`, the previous
    /// inputs, oldest first, and is advanced. `out` is `[n, channels]`.
    fn conv1d_silu(
        &mut self,
        shape: &DeltaNetShape,
        n: usize,
        weight: &Self::Buffer,
        u: &Self::Buffer,
        state: &mut Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// The gated delta rule. `qkv` `[n, channels]` is the convolution's output (all q, all k, all
    /// v); q and k are L2-normed (eps 1e-6 inside the sum) and q scaled by dk^-1/2 here. `b`, `a`
    /// are `[n, Nv]`; beta = sigmoid(b), g = `a_neg` * softplus(a + dt_bias), with `a_neg` =
    /// -exp(A_log), both `[Nv]`. `state` is `[Nk, Nv / Nk, dk, dv]`, so grouped by key head whatever
    /// the order of the value heads, and advanced. `out` is `[n, Nv, dv]`, before the gated norm. Recurrent for few tokens, chunked (64) for many.
    #[allow(clippy::too_many_arguments)]
    fn gated_delta_net(
        &mut self,
        shape: &DeltaNetShape,
        n: usize,
        qkv: &Self::Buffer,
        a: &Self::Buffer,
        b: &Self::Buffer,
        a_neg: &Self::Buffer,
        dt_bias: &Self::Buffer,
        state: &mut Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// `o[r] = o[r] / sqrt(mean(o[r]^2) + eps) * weight * silu(z[r])` over `rows` rows of `dim`, in
    /// place.
    fn gated_rms_norm(
        &mut self,
        z: &Self::Buffer,
        weight: &Self::Buffer,
        eps: f32,
        rows: usize,
        dim: usize,
        o: &mut Self::Buffer,
    );

    /// A resident shared expert, or a dense layer's MLP: for each of `n` rows,
    /// `out[i] = sigmoid(gate_row @ x[i]) * down(silu(gate x[i]) * (up x[i]))`, without the first factor
    /// if there is no `gate_row`; x and out are `[n, H]`.
    #[allow(clippy::too_many_arguments)]
    fn shared_expert(
        &mut self,
        gate: &Self::Matrix,
        up: &Self::Matrix,
        down: &Self::Matrix,
        gate_row: Option<&Self::Matrix>,
        x: &Self::Buffer,
        n: usize,
        out: &mut Self::Buffer,
    );
    /// Some of a layer's routed experts, each on the token rows that chose it: for each expert and each
    /// of its rows j, `out[out_rows[j]] = down(silu(gate x[x_rows[j]]) * (up x[x_rows[j]]))`; x and out
    /// are `[_, H]`. The experts have the same shape; no output row is named twice. A row's bits do not
    /// depend on which experts share a call.
    fn experts(&mut self, experts: &[ExpertRows<'_>], x: &Self::Buffer, out: &mut Self::Buffer);
    /// `x[i] += shared[i] + sum_k weights[i * k_len + k] * routed[i * k_len + k]`, k in router
    /// order. x, shared are `[n, H]`, routed is `[n, k_len, H]`.
    #[allow(clippy::too_many_arguments)]
    fn moe_combine(
        &mut self,
        weights: &[f32],
        routed: &Self::Buffer,
        shared: &Self::Buffer,
        n: usize,
        k_len: usize,
        dim: usize,
        x: &mut Self::Buffer,
    );
}
