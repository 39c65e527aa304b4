//! Causal attention of one sequence over its pages.
//!
//! The keys are taken in chunks of [`KEYS_PER_CHUNK`], which is a page. A chunk gives each
//! query row a partial softmax (largest score, sum, weighted values), and partials are merged in
//! the order of the chunks. Long prompts merge as they go, a single token computes its chunks in
//! parallel first; the arithmetic is the same, so a token's result is the same bits in a prompt and
//! in decoding.
//!
//! A cache that is not in f32 is decoded on the way: by a prompt a chunk at a time, which its tokens
//! share, by a single token a panel at a time that stays in the first-level cache. The products are
//! those of f32 rows with the decoded values, to the bit.

use std::ops::Range;

use super::f32_ops::{Dims, F32Ops, Rows, RowsMut};
use super::kv_cache::CpuKvPool;
use super::pool::{Chunks, Tile, Tiles};
use super::{Context, grow_all, scratch};
use ops::{AttentionShape, KvFormat, PAGE_TOKENS};

/// Keys of one partial softmax: with 256 dimensions, keys and values of a chunk are 128 KiB each.
const KEYS_PER_CHUNK: usize = PAGE_TOKENS;
/// Keys, or values, that are decoded at a time for a single token: 16 KiB with 256 dimensions.
const KEYS_PER_PANEL: usize = 16;
/// Chunks of a single token that are computed before their partials are merged: bounds the memory
/// of a long context.
const CHUNKS_PER_WAVE: usize = 32;
/// Query rows (tokens times heads of a group) that share one pass over the keys.
const QUERY_ROWS_PER_TASK: usize = 64;

/// Operands of the op, of the rows of one sequence.
pub(super) struct Inputs<'a> {
    pub(super) shape: &'a AttentionShape,
    /// Of the sequence, by position.
    pub(super) pages: &'a [u32],
    pub(super) pos: usize,
    pub(super) n: usize,
    /// `[n, heads, 2, head_dim]`, or without the 2 where there are no gates.
    pub(super) qg: &'a [f32],
    pub(super) k_cache: &'a CpuKvPool,
    pub(super) v_cache: &'a CpuKvPool,
}

/// The first keys, or values, of a chunk for one key/value head.
#[derive(Copy, Clone)]
enum Cached<'a> {
    /// As f32, in the cache or decoded before.
    Ready(Rows<'a>),
    /// To be decoded, from this row of the cache on.
    Encoded { cache: &'a CpuKvPool, row: usize, kv_head: usize },
}

impl<'a> Cached<'a> {
    fn of(cache: &'a CpuKvPool, page: u32, kv_head: usize) -> Self {
        let row = page as usize * KEYS_PER_CHUNK;
        match cache.rows(row, kv_head) {
            Some(rows) => Cached::Ready(rows),
            None => Cached::Encoded { cache, row, kv_head },
        }
    }

    /// The first `count` rows decoded into `memory`, if that is needed.
    fn ready(self, ops: F32Ops, count: usize, memory: &'a mut [f32]) -> Self {
        let Cached::Encoded { cache, row, kv_head } = self else { return self };
        let stride = cache.decoded_stride();
        cache.decode(ops, row, kv_head, &mut memory[..count * stride]);
        Cached::Ready(Rows::new(memory, stride))
    }

    /// Calls `f` with the first `count` rows, some at a time; `panel` holds [`KEYS_PER_PANEL`].
    fn for_panels(
        self,
        ops: F32Ops,
        count: usize,
        panel: &mut [f32],
        mut f: impl FnMut(Range<usize>, Rows<'_>),
    ) {
        match self {
            Cached::Ready(rows) => f(0..count, rows),
            Cached::Encoded { cache, row, kv_head } => {
                let stride = cache.decoded_stride();
                for first in (0..count).step_by(KEYS_PER_PANEL) {
                    let keys = first..count.min(first + KEYS_PER_PANEL);
                    cache.decode(ops, row + first, kv_head, &mut panel[..keys.len() * stride]);
                    f(keys, Rows::new(panel, stride));
                }
            }
        }
    }
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
    /// Decoded keys and values: `[2, keys, decoded stride]`.
    decoded: &'a mut [f32],
}

impl<'a> Local<'a> {
    /// Floats of one thread.
    fn len(rows: usize, head_dim: usize, decoded: usize) -> usize {
        rows * (head_dim + KEYS_PER_CHUNK) + 2 * Partial::len(rows, head_dim) + decoded
    }

    fn of(memory: &'a mut Vec<f32>, rows: usize, head_dim: usize, decoded: usize) -> Self {
        let memory = scratch(memory, Local::len(rows, head_dim, decoded));
        let (queries, rest) = memory.split_at_mut(rows * head_dim);
        let (scores, rest) = rest.split_at_mut(rows * KEYS_PER_CHUNK);
        let (partial, rest) = rest.split_at_mut(Partial::len(rows, head_dim));
        let (merged, decoded) = rest.split_at_mut(Partial::len(rows, head_dim));
        Local { queries, scores, partial, merged, decoded }
    }
}

impl AttentionScratch {
    pub(super) fn new(threads: usize) -> Self {
        AttentionScratch { locals: vec![Vec::new(); threads], partials: Vec::new(), merged: Vec::new() }
    }
}

/// Bytes of scratch that attention takes at most, whatever the context.
pub(super) fn scratch_bytes(shape: &AttentionShape, kv: KvFormat, threads: usize) -> usize {
    let (group, dim) = (shape.heads / shape.kv_heads, shape.head_dim);
    let decoded = match kv {
        KvFormat::F32 => 0,
        _ => 2 * KEYS_PER_CHUNK * kv.head_len(dim),
    };
    let rows = (QUERY_ROWS_PER_TASK / group).max(1) * group;
    let partials = (CHUNKS_PER_WAVE + 1) * shape.kv_heads * Partial::len(group, dim);
    size_of::<f32>() * (threads * Local::len(rows, dim, decoded) + partials)
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

    /// Floats that `keys` keys take when they are decoded.
    fn decoded_len(&self, keys: usize) -> usize {
        match self.k_cache.rows(0, 0) {
            Some(_) => 0,
            None => keys * self.k_cache.decoded_stride(),
        }
    }

    /// Query and gate of one head of one token; the gate is empty where there is none.
    fn query_and_gate(&self, token: usize, head: usize) -> (&[f32], &[f32]) {
        let len = self.shape.query_len();
        self.qg[(token * self.shape.heads + head) * len..][..len].split_at(self.shape.head_dim)
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

    /// Partial softmax of query rows over the first `keys` keys of a chunk. `panel` holds as many as
    /// are decoded at a time.
    fn attend(
        &self,
        ops: F32Ops,
        (cached_keys, cached_values, keys): (Cached<'_>, Cached<'_>, usize),
        queries: &[f32],
        scores: &mut [f32],
        panel: &mut [f32],
        out: Partial<'_>,
    ) {
        let (dim, rows) = (self.shape.head_dim, out.max.len());
        cached_keys.for_panels(ops, keys, panel, |keys, cached| {
            let scored = Dims { m: rows, n: keys.len(), k: dim };
            let scores = RowsMut::new(&mut scores[keys.start..], KEYS_PER_CHUNK);
            ops.dots(scored, Rows::new(queries, dim), cached, scores);
        });
        for (row, scores) in scores.chunks_mut(KEYS_PER_CHUNK).take(rows).enumerate() {
            let scores = &mut scores[..keys];
            out.max[row] = ops.max(scores);
            out.sum[row] = ops.exp_sum(scores, out.max[row]);
        }
        out.values.fill(0.0);
        cached_values.for_panels(ops, keys, panel, |keys, cached| {
            let weighted = Dims { m: rows, n: dim, k: keys.len() };
            let weights = Rows::new(&scores[keys.start..], KEYS_PER_CHUNK);
            ops.matmul_add(weighted, weights, cached, RowsMut::new(out.values, dim));
        });
    }

    /// `out = values / sum`, times sigmoid(gate) where there is one, for one token and one key/value
    /// head; `out` is [group, head_dim].
    fn finish(&self, ops: F32Ops, token: usize, kv_head: usize, rows: (&[f32], &[f32]), out: &mut [f32]) {
        let (dim, (values, sums)) = (self.shape.head_dim, rows);
        let heads = values.chunks_exact(dim).zip(sums).zip(out.chunks_exact_mut(dim));
        for (head, ((values, sum), out)) in heads.enumerate() {
            let (_, gate) = self.query_and_gate(token, kv_head * self.group() + head);
            match gate.is_empty() {
                true => out.iter_mut().zip(values).for_each(|(out, value)| *out = value / sum),
                false => ops.scaled_sigmoid_mul(1.0 / sum, values, gate, out),
            }
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
    let panel = inputs.decoded_len(KEYS_PER_PANEL);
    grow_all(locals, Local::len(group, dim, panel));
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
            let Local { queries, scores, decoded, .. } = Local::of(local, group, dim, panel);
            inputs.load_queries(0..1, kv_head, queries);
            let cached = |cache| Cached::of(cache, inputs.pages[chunk], kv_head);
            let cached = (cached(inputs.k_cache), cached(inputs.v_cache), inputs.visible(chunk, inputs.pos));
            inputs.attend(ops, cached, queries, scores, decoded, Partial::of(partial, group, dim));
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
    let decoded = 2 * inputs.decoded_len(KEYS_PER_CHUNK);
    grow_all(&mut memory.locals, Local::len(tokens * group, dim, decoded));
    context.pool.run_parts_with(tiles, &mut memory.locals, |_, mut out, local| {
        block_of_tokens(ops, inputs, local, &mut out);
    });
}

fn block_of_tokens(ops: F32Ops, inputs: &Inputs<'_>, local: &mut Vec<f32>, out: &mut Tile<'_, f32>) {
    let (group, dim) = (inputs.group(), inputs.shape.head_dim);
    let (first, tokens, kv_head) = (out.first_row(), out.rows(), out.first_col() / (group * dim));
    let (rows, chunk_len) = (tokens * group, inputs.decoded_len(KEYS_PER_CHUNK));
    let Local { queries, scores, partial, merged, decoded } = Local::of(local, rows, dim, 2 * chunk_len);
    inputs.load_queries(first..first + tokens, kv_head, queries);
    let mut merged = Partial::of(merged, rows, dim);
    merged.reset();
    let last_pos = inputs.pos + first + tokens - 1;
    let chunks = (last_pos + 1).div_ceil(KEYS_PER_CHUNK);
    for (chunk, &page) in inputs.pages[..chunks].iter().enumerate() {
        let (keys, values) = decoded.split_at_mut(chunk_len);
        let seen = inputs.visible(chunk, last_pos);
        let keys = Cached::of(inputs.k_cache, page, kv_head).ready(ops, seen, keys);
        let values = Cached::of(inputs.v_cache, page, kv_head).ready(ops, seen, values);
        let mut token = 0;
        while token < tokens {
            let seen = inputs.visible(chunk, inputs.pos + first + token);
            // Tokens that see the whole chunk share a pass; on the diagonal each token sees one key
            // more.
            let end = if seen == KEYS_PER_CHUNK { tokens } else { token + 1 };
            let range = token * group..end * group;
            token = end;
            if seen == 0 {
                continue;
            }
            let mut all = Partial::of(partial, rows, dim);
            let queries = &queries[range.start * dim..];
            let out = all.rows(range.clone(), dim);
            inputs.attend(ops, (keys, values, seen), queries, scores, &mut [], out);
            merged.merge(ops, partial, range, dim);
        }
    }
    for token in 0..tokens {
        let rows = token * group..(token + 1) * group;
        let values = &merged.values[rows.start * dim..rows.end * dim];
        inputs.finish(ops, first + token, kv_head, (values, &merged.sum[rows]), out.row(token));
    }
}

#[cfg(test)]
mod tests;
