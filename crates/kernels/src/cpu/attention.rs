//! Causal attention over the cache.
//!
//! The keys are taken in chunks of [`KEYS_PER_CHUNK`], counted from position 0. A chunk gives each
//! query row a partial softmax (largest score, sum, weighted values), and partials are merged in
//! the order of the chunks. Long prompts merge as they go, a single token computes its chunks in
//! parallel first; the arithmetic is the same, so a token's result is the same bits in a prompt and
//! in decoding.

use std::ops::Range;

use super::f32_ops::{Dims, F32Ops, Rows, RowsMut};
use super::pool::{Chunks, Tile, Tiles};
use super::{Context, grow_all, scratch};
use crate::backend::AttentionShape;

/// Keys of one partial softmax: with 256 dimensions, keys and values of a chunk are 128 KiB each.
const KEYS_PER_CHUNK: usize = 128;
/// Chunks of a single token that are computed before their partials are merged: bounds the memory
/// of a long context.
const CHUNKS_PER_WAVE: usize = 32;
/// Query rows (tokens times heads of a group) that share one pass over the keys.
const QUERY_ROWS_PER_TASK: usize = 64;

/// Operands of the op.
pub(super) struct Inputs<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) pos: usize,
    pub(super) n: usize,
    /// `[n, heads, 2, head_dim]`
    pub(super) qg: &'a [f32],
    /// `[ctx, kv_heads, head_dim]`
    pub(super) k_cache: &'a [f32],
    /// `[ctx, kv_heads, head_dim]`
    pub(super) v_cache: &'a [f32],
}

/// Memory of the op.
pub(super) struct AttentionScratch {
    locals: Vec<Vec<f32>>,
    /// Partials of a single token: `[CHUNKS_PER_WAVE, kv_heads, group * (head_dim + 2)]`.
    partials: Vec<f32>,
    /// `[kv_heads, group * (head_dim + 2)]`
    merged: Vec<f32>,
}

/// Memory of one thread for some query rows.
struct Local<'a> {
    /// `[rows, head_dim]`
    queries: &'a mut [f32],
    /// `[rows, KEYS_PER_CHUNK]`
    scores: &'a mut [f32],
    /// Partial softmax of one chunk, and of all chunks so far.
    partial: &'a mut [f32],
    merged: &'a mut [f32],
}

impl<'a> Local<'a> {
    /// Floats of one thread.
    fn len(rows: usize, head_dim: usize) -> usize {
        rows * (head_dim + KEYS_PER_CHUNK) + 2 * Partial::len(rows, head_dim)
    }

    fn of(memory: &'a mut Vec<f32>, rows: usize, head_dim: usize) -> Self {
        let memory = scratch(memory, Local::len(rows, head_dim));
        let (queries, rest) = memory.split_at_mut(rows * head_dim);
        let (scores, rest) = rest.split_at_mut(rows * KEYS_PER_CHUNK);
        let (partial, merged) = rest.split_at_mut(Partial::len(rows, head_dim));
        Local { queries, scores, partial, merged }
    }
}

impl AttentionScratch {
    pub(super) fn new(threads: usize) -> Self {
        AttentionScratch { locals: vec![Vec::new(); threads], partials: Vec::new(), merged: Vec::new() }
    }
}

/// Softmax over some keys, not yet divided by its sum, of several query rows.
struct Partial<'a> {
    /// Values weighted by exp(score - max): `[rows, head_dim]`.
    values: &'a mut [f32],
    /// `[rows]`
    max: &'a mut [f32],
    /// `[rows]`
    sum: &'a mut [f32],
}

impl<'a> Partial<'a> {
    fn len(rows: usize, head_dim: usize) -> usize {
        rows * (head_dim + 2)
    }

    fn of(memory: &'a mut [f32], rows: usize, head_dim: usize) -> Self {
        let (values, rest) = memory.split_at_mut(rows * head_dim);
        let (max, sum) = rest.split_at_mut(rows);
        Partial { values, max, sum }
    }

    /// Softmax over no keys.
    fn reset(&mut self) {
        self.values.fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
    }

    /// Adds the softmax of later keys, whose memory is `later`, to rows `rows`.
    fn merge(&mut self, ops: F32Ops, later: &[f32], rows: Range<usize>, head_dim: usize) {
        let (values, rest) = later.split_at(self.values.len());
        let (maxima, sums) = rest.split_at(self.max.len());
        for row in rows {
            let max = self.max[row].max(maxima[row]);
            // exp(-inf) = 0: the first chunk is taken as it is.
            let (old, new) = ((self.max[row] - max).exp(), (maxima[row] - max).exp());
            let dims = row * head_dim..(row + 1) * head_dim;
            ops.axpby(new, &values[dims.clone()], old, &mut self.values[dims]);
            self.sum[row] = old * self.sum[row] + new * sums[row];
            self.max[row] = max;
        }
    }

    /// Some of the rows.
    fn rows(&mut self, rows: Range<usize>, head_dim: usize) -> Partial<'_> {
        Partial {
            values: &mut self.values[rows.start * head_dim..rows.end * head_dim],
            max: &mut self.max[rows.clone()],
            sum: &mut self.sum[rows],
        }
    }
}

impl Inputs<'_> {
    /// Query heads that share a key/value head.
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    fn cache_stride(&self) -> usize {
        self.shape.kv_heads * self.shape.head_dim
    }

    /// Query and gate of one head of one token.
    fn query_and_gate(&self, token: usize, head: usize) -> (&[f32], &[f32]) {
        let dim = self.shape.head_dim;
        self.qg[(token * self.shape.heads + head) * 2 * dim..][..2 * dim].split_at(dim)
    }

    /// Queries of the group's heads for each token, scaled by head_dim^-1/2: [tokens, group,
    /// head_dim].
    fn load_queries(&self, tokens: Range<usize>, kv_head: usize, queries: &mut [f32]) {
        let scale = (1.0 / (self.shape.head_dim as f64).sqrt()) as f32;
        let heads = kv_head * self.group()..(kv_head + 1) * self.group();
        let rows = tokens.flat_map(|token| heads.clone().map(move |head| (token, head)));
        for ((token, head), row) in rows.zip(queries.chunks_exact_mut(self.shape.head_dim)) {
            let (query, _) = self.query_and_gate(token, head);
            for (x, &q) in row.iter_mut().zip(query) {
                *x = scale * q;
            }
        }
    }

    /// Keys of chunk `chunk` that the query at position `pos` sees.
    fn visible(&self, chunk: usize, pos: usize) -> usize {
        (pos + 1).saturating_sub(chunk * KEYS_PER_CHUNK).min(KEYS_PER_CHUNK)
    }

    /// Partial softmax of query rows over the first `keys` keys of a chunk.
    fn attend(
        &self,
        ops: F32Ops,
        (chunk, kv_head, keys): (usize, usize, usize),
        queries: &[f32],
        scores: &mut [f32],
        out: Partial<'_>,
    ) {
        let (dim, rows, stride) = (self.shape.head_dim, out.max.len(), self.cache_stride());
        let start = chunk * KEYS_PER_CHUNK * stride + kv_head * dim;
        let scored = Dims { m: rows, n: keys, k: dim };
        let cached = Rows::new(&self.k_cache[start..], stride);
        ops.dots(scored, Rows::new(queries, dim), cached, RowsMut::new(scores, KEYS_PER_CHUNK));
        for (row, scores) in scores.chunks_mut(KEYS_PER_CHUNK).take(rows).enumerate() {
            let scores = &mut scores[..keys];
            out.max[row] = ops.max(scores);
            out.sum[row] = ops.exp_sum(scores, out.max[row]);
        }
        out.values.fill(0.0);
        let weighted = Dims { m: rows, n: dim, k: keys };
        let cached = Rows::new(&self.v_cache[start..], stride);
        ops.matmul_add(weighted, Rows::new(scores, KEYS_PER_CHUNK), cached, RowsMut::new(out.values, dim));
    }

    /// `out = values / sum * sigmoid(gate)` for one token and one key/value head; `out` is [group,
    /// head_dim].
    fn finish(&self, ops: F32Ops, token: usize, kv_head: usize, rows: (&[f32], &[f32]), out: &mut [f32]) {
        let (dim, (values, sums)) = (self.shape.head_dim, rows);
        let heads = values.chunks_exact(dim).zip(sums).zip(out.chunks_exact_mut(dim));
        for (head, ((values, sum), out)) in heads.enumerate() {
            let (_, gate) = self.query_and_gate(token, kv_head * self.group() + head);
            ops.scaled_sigmoid_mul(1.0 / sum, values, gate, out);
        }
    }
}

/// Attention of rows `pos..pos + n`, times sigmoid(gate): `out` is `[n, heads, head_dim]`.
pub(super) fn gated_attention(
    context: &mut Context,
    memory: &mut AttentionScratch,
    inputs: &Inputs<'_>,
    out: &mut [f32],
) {
    let out = &mut out[..inputs.n * inputs.shape.heads * inputs.shape.head_dim];
    match inputs.n {
        1 => one_token(context, memory, inputs, out),
        _ => many_tokens(context, memory, inputs, out),
    }
}

/// A task is a chunk of keys for one key/value head; the partials of a wave of chunks are merged
/// after it.
fn one_token(context: &mut Context, memory: &mut AttentionScratch, inputs: &Inputs<'_>, out: &mut [f32]) {
    let (group, dim, ops) = (inputs.group(), inputs.shape.head_dim, context.ops);
    let (kv_heads, partial_len) = (inputs.shape.kv_heads, Partial::len(group, dim));
    let chunks = (inputs.pos + 1).div_ceil(KEYS_PER_CHUNK);
    let AttentionScratch { locals, partials, merged } = memory;
    grow_all(locals, Local::len(group, dim));
    let partials = scratch(partials, CHUNKS_PER_WAVE * kv_heads * partial_len);
    let merged = scratch(merged, kv_heads * partial_len);
    for merged in merged.chunks_exact_mut(partial_len) {
        Partial::of(merged, group, dim).reset();
    }
    for first_chunk in (0..chunks).step_by(CHUNKS_PER_WAVE) {
        let wave = CHUNKS_PER_WAVE.min(chunks - first_chunk);
        let tasks = Chunks::new(&mut partials[..wave * kv_heads * partial_len], partial_len);
        context.pool.run_parts_with(tasks, locals, |task, partial, local| {
            let (chunk, kv_head) = (first_chunk + task / kv_heads, task % kv_heads);
            let Local { queries, scores, .. } = Local::of(local, group, dim);
            inputs.load_queries(0..1, kv_head, queries);
            let keys = inputs.visible(chunk, inputs.pos);
            inputs.attend(ops, (chunk, kv_head, keys), queries, scores, Partial::of(partial, group, dim));
        });
        let partials = &partials[..wave * kv_heads * partial_len];
        context.pool.run_parts(Chunks::new(merged, partial_len), |kv_head, merged| {
            let mut merged = Partial::of(merged, group, dim);
            for partial in partials.chunks_exact(partial_len).skip(kv_head).step_by(kv_heads) {
                merged.merge(ops, partial, 0..group, dim);
            }
        });
    }
    let heads = merged.chunks_exact_mut(partial_len).zip(out.chunks_exact_mut(group * dim));
    for (kv_head, (merged, out)) in heads.enumerate() {
        let merged = Partial::of(merged, group, dim);
        inputs.finish(ops, 0, kv_head, (merged.values, merged.sum), out);
    }
}

/// A task is a block of tokens for one key/value head.
fn many_tokens(context: &mut Context, memory: &mut AttentionScratch, inputs: &Inputs<'_>, out: &mut [f32]) {
    let (group, dim, ops) = (inputs.group(), inputs.shape.head_dim, context.ops);
    let tokens = (QUERY_ROWS_PER_TASK / group).max(1);
    let tiles = Tiles::new(out, inputs.shape.heads * dim, tokens, group * dim);
    grow_all(&mut memory.locals, Local::len(tokens * group, dim));
    context.pool.run_parts_with(tiles, &mut memory.locals, |_, mut out, local| {
        block_of_tokens(ops, inputs, local, &mut out);
    });
}

fn block_of_tokens(ops: F32Ops, inputs: &Inputs<'_>, local: &mut Vec<f32>, out: &mut Tile<'_, f32>) {
    let (group, dim) = (inputs.group(), inputs.shape.head_dim);
    let (first, tokens, kv_head) = (out.first_row(), out.rows(), out.first_col() / (group * dim));
    let rows = tokens * group;
    let Local { queries, scores, partial, merged } = Local::of(local, rows, dim);
    inputs.load_queries(first..first + tokens, kv_head, queries);
    let mut merged = Partial::of(merged, rows, dim);
    merged.reset();
    let last_pos = inputs.pos + first + tokens - 1;
    for chunk in 0..(last_pos + 1).div_ceil(KEYS_PER_CHUNK) {
        let mut token = 0;
        while token < tokens {
            let keys = inputs.visible(chunk, inputs.pos + first + token);
            // Tokens that see the whole chunk share a pass; on the diagonal each token sees one key
            // more.
            let end = if keys == KEYS_PER_CHUNK { tokens } else { token + 1 };
            let range = token * group..end * group;
            token = end;
            if keys == 0 {
                continue;
            }
            let mut all = Partial::of(partial, rows, dim);
            let queries = &queries[range.start * dim..];
            inputs.attend(ops, (chunk, kv_head, keys), queries, scores, all.rows(range.clone(), dim));
            merged.merge(ops, partial, range, dim);
        }
    }
    for token in 0..tokens {
        let rows = token * group..(token + 1) * group;
        let values = &merged.values[rows.start * dim..rows.end * dim];
        inputs.finish(ops, first + token, kv_head, (values, &merged.sum[rows]), out.row(token));
    }
}
