//! The gated delta rule, token by token or 64 tokens at a time.
//!
//! A task is one key head with the value heads that belong to it (they share the normed keys and
//! queries and the products among them). Per value head, with state S `[dk, dv]`, decay g <= 0 and
//! step size beta:
//!
//! ```text
//! S = exp(g) S;  d = beta (v - S^T k);  S = S + k d^T;  o = S^T q
//! ```
//!
//! Chunked, with G the running sum of g in the chunk and `D[i][j] = exp(G[i] - G[j])` for j <= i:
//!
//! ```text
//! A[i][j] = beta[i] (k[i] . k[j]) D[i][j] for j < i
//! (I + A) X = beta (V - exp(G) K S)         X: the d of every token, by forward substitution
//! O = exp(G) Q S + tril(Q K^T * D) X
//! S = exp(G_last) S + K^T (exp(G_last - G) X)
//! ```
//!
//! This is the specification's form with its two solves, for U and for Wk, taken as one: a thread
//! has S at hand, so U - Wk S is solved for directly. `G[i] - G[j]` is only ever taken for j <= i,
//! so no exponential exceeds 1; and it is taken in f64, because G grows along the chunk while the
//! differences that matter are small.

use super::f32_ops::{Dims, F32Ops, Rows, RowsMut, sigmoid, softplus, sum_of_squares};
use super::pool::{Chunks, Tile, Tiles};
use super::{Context, grow_all, scratch};
use ops::{DELTA_BLOCK_TOKENS, DeltaNetShape, ValueHeadOrder};

/// Tokens that are solved for together at most.
const CHUNK: usize = DELTA_BLOCK_TOKENS;
/// Added to the sum of squares of keys and queries.
const L2_NORM_EPS: f64 = 1e-6;
/// Rows of the causal product that share one length.
const CAUSAL_ROWS: usize = 8;

/// Which form of the recurrence to compute. Both give the same result up to rounding.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Recurrent,
    Chunked,
}

/// Operands of the op, of the rows of one sequence.
pub(super) struct Inputs<'a> {
    pub(super) shape: &'a DeltaNetShape,
    pub(super) n: usize,
    /// Position of the first row: blocks of the chunked form end where positions are multiples of [`CHUNK`], so that
    /// results do not depend on how a prompt is cut there.
    pub(super) pos: usize,
    /// `[n, channels]`: all q, all k, all v.
    pub(super) qkv: &'a [f32],
    /// `[n, Nv]`
    pub(super) a: &'a [f32],
    /// `[n, Nv]`
    pub(super) b: &'a [f32],
    /// `[Nv]`: -exp(A_log).
    pub(super) a_neg: &'a [f32],
    /// `[Nv]`
    pub(super) dt_bias: &'a [f32],
}

/// Memory of the op.
pub(super) struct DeltaNetScratch {
    locals: Vec<Vec<f32>>,
}

impl DeltaNetScratch {
    pub(super) fn new(threads: usize) -> Self {
        DeltaNetScratch { locals: vec![Vec::new(); threads] }
    }
}

/// Memory of one thread, for one key head and up to `CHUNK` tokens.
struct Local<'a> {
    /// Normed queries, scaled by dk^-1/2: `[tokens, dk]`.
    q: &'a mut [f32],
    /// Normed keys: `[tokens, dk]`, and transposed: `[dk, tokens]`.
    k: &'a mut [f32],
    k_transposed: &'a mut [f32],
    /// `k[i] . k[j]` and `q[i] . k[j]`: `[tokens, tokens]`.
    kk: &'a mut [f32],
    qk: &'a mut [f32],
    /// For one value head, D, lower triangle with the diagonal: `[tokens, tokens]`.
    decays: &'a mut [f32],
    /// What each token writes (d, X): `[tokens, dv]`.
    writes: &'a mut [f32],
    /// `[tokens, dv]`
    outputs: &'a mut [f32],
    /// exp(G), exp(G_last - G) and beta: `[tokens]`.
    from_start: &'a mut [f32],
    to_end: &'a mut [f32],
    beta: &'a mut [f32],
}

impl<'a> Local<'a> {
    /// Floats of one thread.
    fn len(shape: &DeltaNetShape) -> usize {
        CHUNK * (3 * shape.key_dim + 2 * shape.value_dim + 3 * CHUNK + 3)
    }

    fn new(memory: &'a mut Vec<f32>, shape: &DeltaNetShape) -> Self {
        let (dk, dv) = (CHUNK * shape.key_dim, CHUNK * shape.value_dim);
        let square = CHUNK * CHUNK;
        let mut rest = scratch(memory, Local::len(shape));
        let mut take = |len: usize| {
            let (taken, left) = std::mem::take(&mut rest).split_at_mut(len);
            rest = left;
            taken
        };
        Local {
            q: take(dk),
            k: take(dk),
            k_transposed: take(dk),
            kk: take(square),
            qk: take(square),
            decays: take(square),
            writes: take(dv),
            outputs: take(dv),
            from_start: take(CHUNK),
            to_end: take(CHUNK),
            beta: take(CHUNK),
        }
    }
}

/// `out[i] = x[i] / sqrt(sum x^2 + eps) * scale`
fn l2_norm(x: &[f32], scale: f64, out: &mut [f32]) {
    let factor = (scale / (sum_of_squares(x) + L2_NORM_EPS).sqrt()) as f32;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = factor * x;
    }
}

impl Inputs<'_> {
    /// Value heads of one key head.
    fn group(&self) -> usize {
        self.shape.value_heads / self.shape.key_heads
    }

    fn token(&self, t: usize) -> &[f32] {
        let channels = self.shape.conv_channels();
        &self.qkv[t * channels..][..channels]
    }

    /// Normed query and key of one key head.
    fn load_query_and_key(&self, t: usize, key_head: usize, q: &mut [f32], k: &mut [f32]) {
        let (dk, keys) = (self.shape.key_dim, self.shape.key_heads * self.shape.key_dim);
        let token = self.token(t);
        l2_norm(&token[key_head * dk..][..dk], 1.0 / (dk as f64).sqrt(), q);
        l2_norm(&token[keys + key_head * dk..][..dk], 1.0, k);
    }

    /// Where value head `i` of a key head puts what it computes for token `t`; `out` has the key
    /// head's columns, see [`bands`].
    fn output<'a>(&self, out: &'a mut Tile<'_, f32>, t: usize, i: usize) -> &'a mut [f32] {
        let dv = self.shape.value_dim;
        match self.shape.value_head_order {
            ValueHeadOrder::Grouped => &mut out.row(t)[i * dv..][..dv],
            ValueHeadOrder::Tiled => out.row(t * self.group() + i),
        }
    }

    fn value(&self, t: usize, head: usize) -> &[f32] {
        let (keys, dv) = (2 * self.shape.key_heads * self.shape.key_dim, self.shape.value_dim);
        &self.token(t)[keys + head * dv..][..dv]
    }

    /// g and beta of one value head.
    fn decay_and_beta(&self, t: usize, head: usize) -> (f32, f32) {
        let at = t * self.shape.value_heads + head;
        let decay = self.a_neg[head] * softplus(self.a[at] + self.dt_bias[head]);
        (decay, sigmoid(self.b[at]))
    }
}

/// The columns of each key head in `out`, `[n, Nv, dv]`. Grouped, they are one band of it; tiled,
/// one band of the same floats seen as `[n * Nv / Nk, Nk, dv]`.
fn bands<'a>(shape: &DeltaNetShape, out: &'a mut [f32]) -> Tiles<'a, f32> {
    let (dv, len) = (shape.value_dim, shape.value_len());
    match shape.value_head_order {
        ValueHeadOrder::Grouped => Tiles::bands(out, len, len / shape.key_heads),
        ValueHeadOrder::Tiled => Tiles::bands(out, shape.key_heads * dv, dv),
    }
}

/// Advances `state`, `[Nk, Nv / Nk, dk, dv]`, by the tokens; `out` is `[n, Nv, dv]`.
pub(super) fn run(
    context: &mut Context,
    memory: &mut DeltaNetScratch,
    inputs: &Inputs<'_>,
    form: Form,
    state: &mut [f32],
    out: &mut [f32],
) {
    let (shape, group, ops) = (inputs.shape, inputs.group(), context.ops);
    grow_all(&mut memory.locals, Local::len(shape));
    let out = &mut out[..inputs.n * shape.value_len()];
    let parts = (
        Chunks::new(&mut state[..shape.state_len()], group * shape.key_dim * shape.value_dim),
        bands(shape, out),
    );
    context.pool.run_parts_with(parts, &mut memory.locals, |key_head, (states, mut out), memory| {
        let mut local = Local::new(memory, shape);
        match form {
            Form::Recurrent => recurrent(ops, inputs, key_head, &mut local, states, &mut out),
            Form::Chunked => {
                let mut start = 0;
                while start < inputs.n {
                    let tokens = (CHUNK - (inputs.pos + start) % CHUNK).min(inputs.n - start);
                    chunk(ops, inputs, (start, tokens, key_head), &mut local, states, &mut out);
                    start += tokens;
                }
            }
        }
    });
}

/// Token by token. `states` is `[group, dk, dv]`, `out` the group's columns of all tokens.
fn recurrent(
    ops: F32Ops,
    inputs: &Inputs<'_>,
    key_head: usize,
    local: &mut Local<'_>,
    states: &mut [f32],
    out: &mut Tile<'_, f32>,
) {
    let (dk, dv) = (inputs.shape.key_dim, inputs.shape.value_dim);
    let (q, k) = (&mut local.q[..dk], &mut local.k[..dk]);
    let d = &mut local.writes[..dv];
    for t in 0..inputs.n {
        inputs.load_query_and_key(t, key_head, q, k);
        for (i, state) in states.chunks_exact_mut(dk * dv).enumerate() {
            let head = inputs.shape.value_head(key_head, i);
            let (decay, beta) = inputs.decay_and_beta(t, head);
            let decay = decay.exp();
            // The state is decayed once, in the pass that writes it; what is read before is decayed
            // here.
            d.fill(0.0);
            let read = Dims { m: 1, n: dv, k: dk };
            ops.matmul_add(read, Rows::new(k, dk), Rows::new(state, dv), RowsMut::new(d, dv));
            for (d, &v) in d.iter_mut().zip(inputs.value(t, head)) {
                *d = beta * (v - decay * *d);
            }
            ops.state_step(state, decay, k, q, d, inputs.output(out, t, i));
        }
    }
}

/// Tokens `start..start + tokens` at once, for one key head.
fn chunk(
    ops: F32Ops,
    inputs: &Inputs<'_>,
    (start, tokens, key_head): (usize, usize, usize),
    local: &mut Local<'_>,
    states: &mut [f32],
    out: &mut Tile<'_, f32>,
) {
    let (dk, dv) = (inputs.shape.key_dim, inputs.shape.value_dim);
    for i in 0..tokens {
        let row = i * dk..(i + 1) * dk;
        inputs.load_query_and_key(start + i, key_head, &mut local.q[row.clone()], &mut local.k[row.clone()]);
        for (l, &k) in local.k[row].iter().enumerate() {
            local.k_transposed[l * CHUNK + i] = k;
        }
    }
    let among = Dims { m: tokens, n: tokens, k: dk };
    let (q, k) = (Rows::new(local.q, dk), Rows::new(local.k, dk));
    ops.dots(among, k, k, RowsMut::new(local.kk, CHUNK));
    ops.dots(among, q, k, RowsMut::new(local.qk, CHUNK));
    for (i, state) in states.chunks_exact_mut(dk * dv).enumerate() {
        let head = inputs.shape.value_head(key_head, i);
        load_gates(ops, inputs, (start, tokens, head), local);
        solve_writes(ops, inputs, (start, tokens, head), local, state);
        outputs(ops, (tokens, dk, dv), local, state);
        for t in 0..tokens {
            let row = inputs.output(out, start + t, i);
            row.copy_from_slice(&local.outputs[t * dv..][..dv]);
        }
        advance(ops, (tokens, dk, dv), local, state);
    }
}

/// Decays among the tokens of a chunk, and their step sizes.
fn load_gates(
    ops: F32Ops,
    inputs: &Inputs<'_>,
    (start, tokens, head): (usize, usize, usize),
    local: &mut Local<'_>,
) {
    let (mut sum, mut sums) = (0.0_f64, [0.0_f64; CHUNK]);
    for (t, running) in sums[..tokens].iter_mut().enumerate() {
        let (decay, beta) = inputs.decay_and_beta(start + t, head);
        sum += f64::from(decay);
        (*running, local.beta[t]) = (sum, beta);
    }
    for i in 0..tokens {
        (local.from_start[i], local.to_end[i]) = (sums[i] as f32, (sum - sums[i]) as f32);
        let row = &mut local.decays[i * CHUNK..][..i + 1];
        for (decay, sum) in row.iter_mut().zip(sums) {
            *decay = (sums[i] - sum) as f32;
        }
        ops.exp_sum(row, 0.0);
    }
    ops.exp_sum(&mut local.from_start[..tokens], 0.0);
    ops.exp_sum(&mut local.to_end[..tokens], 0.0);
}

/// `writes` = X of the module's documentation.
fn solve_writes(
    ops: F32Ops,
    inputs: &Inputs<'_>,
    (start, tokens, head): (usize, usize, usize),
    local: &mut Local<'_>,
    state: &[f32],
) {
    let (dk, dv) = (inputs.shape.key_dim, inputs.shape.value_dim);
    local.writes[..tokens * dv].fill(0.0);
    let read = Dims { m: tokens, n: dv, k: dk };
    let writes = RowsMut::new(local.writes, dv);
    ops.matmul_add(read, Rows::new(local.k, dk), Rows::new(state, dv), writes);
    let mut row_of_a = [0.0; CHUNK];
    for i in 0..tokens {
        let (before, rest) = local.writes.split_at_mut(i * dv);
        let (row, beta) = (&mut rest[..dv], local.beta[i]);
        ops.axpby(beta, inputs.value(start + i, head), -beta * local.from_start[i], row);
        let (kk, decays) = (&local.kk[i * CHUNK..], &local.decays[i * CHUNK..]);
        for ((a, kk), decay) in row_of_a[..i].iter_mut().zip(kk).zip(decays) {
            *a = -beta * kk * decay;
        }
        let solved = Dims { m: 1, n: dv, k: i };
        ops.matmul_add(solved, Rows::new(&row_of_a, CHUNK), Rows::new(before, dv), RowsMut::new(row, dv));
    }
}

/// `outputs` = O of the module's documentation. Spends `decays`.
fn outputs(ops: F32Ops, (tokens, dk, dv): (usize, usize, usize), local: &mut Local<'_>, state: &[f32]) {
    local.outputs[..tokens * dv].fill(0.0);
    let read = Dims { m: tokens, n: dv, k: dk };
    let all = RowsMut::new(local.outputs, dv);
    ops.matmul_add(read, Rows::new(local.q, dk), Rows::new(state, dv), all);
    for i in 0..tokens {
        let decay = local.from_start[i];
        local.outputs[i * dv..][..dv].iter_mut().for_each(|o| *o *= decay);
        let (seen, unseen) = local.decays[i * CHUNK..][..CHUNK].split_at_mut(i + 1);
        for (weight, qk) in seen.iter_mut().zip(&local.qk[i * CHUNK..]) {
            *weight *= qk;
        }
        unseen.fill(0.0);
    }
    // Rows of a block stop at the block's last token: most of the upper triangle is never touched.
    for first in (0..tokens).step_by(CAUSAL_ROWS) {
        let rows = CAUSAL_ROWS.min(tokens - first);
        let causal = Dims { m: rows, n: dv, k: first + rows };
        let weights = Rows::new(&local.decays[first * CHUNK..], CHUNK);
        let block = RowsMut::new(&mut local.outputs[first * dv..], dv);
        ops.matmul_add(causal, weights, Rows::new(local.writes, dv), block);
    }
}

/// The state after the chunk. Spends `writes`.
fn advance(ops: F32Ops, (tokens, dk, dv): (usize, usize, usize), local: &mut Local<'_>, state: &mut [f32]) {
    for (row, left) in local.writes.chunks_exact_mut(dv).zip(&local.to_end[..tokens]) {
        row.iter_mut().for_each(|x| *x *= left);
    }
    let decay = local.from_start[tokens - 1];
    state.iter_mut().for_each(|s| *s *= decay);
    let outer = Dims { m: dk, n: dv, k: tokens };
    let writes = Rows::new(local.writes, dv);
    ops.matmul_add(outer, Rows::new(local.k_transposed, CHUNK), writes, RowsMut::new(state, dv));
}

#[cfg(test)]
mod tests;
