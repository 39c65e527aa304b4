//! Experts: two products, silu(gate) * up, a third product; and the sum of a token's experts.

use tensor::MatrixView;

use super::batch::{Batch, TOKENS_PER_BLOCK};
use super::elementwise::rows_per_task;
use super::f32_ops::{F32Ops, sigmoid};
use super::matmul::{store_transposed, weight_rows_per_task};
use super::pool::{Chunks, Tiles};
use super::{Context, grow_all, scratch};
use crate::backend::ExpertWeights;
use crate::dot::{Activations, mul_rows};

/// Memory of one expert at a time.
pub(super) struct MoeScratch {
    /// Inputs as the gate matrix wants them, and as the up matrix does if that differs.
    gate_inputs: Batch,
    up_inputs: Batch,
    /// The hidden row of each token, as the down matrix wants it.
    hidden_inputs: Batch,
    hidden: Vec<f32>,
    /// Factor of each token's output.
    scales: Vec<f32>,
    rows: Vec<u32>,
    blocks: Vec<Vec<f32>>,
}

impl MoeScratch {
    pub(super) fn new(threads: usize) -> Self {
        MoeScratch {
            gate_inputs: Batch::default(),
            up_inputs: Batch::default(),
            hidden_inputs: Batch::default(),
            hidden: Vec::new(),
            scales: Vec::new(),
            rows: Vec::new(),
            blocks: vec![Vec::new(); threads],
        }
    }

    /// The first `n` row numbers.
    fn all_rows(&mut self, n: usize) {
        self.rows.clear();
        self.rows.extend(0..n as u32);
    }
}

/// `out[out_rows[j]] = down(silu(gate x[x_rows[j]]) * (up x[x_rows[j]]))`. If two j name one output
/// row the last stands.
pub(super) fn expert(
    context: &mut Context,
    memory: &mut MoeScratch,
    weights: ExpertWeights<'_>,
    x: &[f32],
    (x_rows, out_rows): (&[u32], &[u32]),
    out: &mut [f32],
) {
    assert_eq!(x_rows.len(), out_rows.len(), "one output row for each input row");
    memory.scales.clear();
    memory.scales.resize(x_rows.len(), 1.0);
    hidden_rows(context, memory, weights, x, x_rows);
    down_rows(context, memory, weights.down, out_rows, out);
}

/// `out[i] = sigmoid(gate_row x[i]) * down(silu(gate x[i]) * (up x[i]))` for the `n` rows of x.
pub(super) fn shared_expert(
    context: &mut Context,
    memory: &mut MoeScratch,
    weights: ExpertWeights<'_>,
    gate_row: MatrixView<'_>,
    x: &[f32],
    n: usize,
    out: &mut [f32],
) {
    memory.scales.clear();
    memory.scales.resize(n, 0.0);
    memory.gate_inputs.prepare(context, gate_row.format, x, n, gate_row.cols);
    for (first, inputs) in memory.gate_inputs.blocks() {
        let scales = &mut memory.scales[first..first + inputs.n()];
        mul_rows(context.isa, &gate_row, 0, 1, inputs, scales);
    }
    memory.scales.iter_mut().for_each(|scale| *scale = sigmoid(*scale));

    memory.all_rows(n);
    let rows = std::mem::take(&mut memory.rows);
    hidden_rows(context, memory, weights, x, &rows);
    down_rows(context, memory, weights.down, &rows, out);
    memory.rows = rows;
}

/// `hidden[j] = silu(gate x[rows[j]]) * (up x[rows[j]])`
fn hidden_rows(
    context: &mut Context,
    memory: &mut MoeScratch,
    weights: ExpertWeights<'_>,
    x: &[f32],
    rows: &[u32],
) {
    let ExpertWeights { gate, up, .. } = weights;
    let (isa, ops, n) = (context.isa, context.ops, rows.len());
    memory.gate_inputs.prepare_rows(context, gate.format, x, rows, gate.cols);
    let up_inputs = if Activations::class(up.format) == Activations::class(gate.format) {
        &memory.gate_inputs
    } else {
        memory.up_inputs.prepare_rows(context, up.format, x, rows, up.cols);
        &memory.up_inputs
    };
    let gate_inputs = &memory.gate_inputs;
    let hidden = scratch(&mut memory.hidden, n * gate.rows);
    let block_rows = weight_rows_per_task(context, gate.rows, 2 * gate.cols, n);
    let bands = Tiles::bands(hidden, gate.rows, block_rows);
    grow_all(&mut memory.blocks, 2 * block_rows * TOKENS_PER_BLOCK);
    context.pool.run_parts_with(bands, &mut memory.blocks, |_, mut hidden, block| {
        let (first, width) = (hidden.first_col(), hidden.width());
        for ((token, gate_inputs), (_, up_inputs)) in gate_inputs.blocks().zip(up_inputs.blocks()) {
            let len = width * gate_inputs.n();
            let (gated, upper) = scratch(block, 2 * len).split_at_mut(len);
            mul_rows(isa, &gate, first, width, gate_inputs, gated);
            mul_rows(isa, &up, first, width, up_inputs, upper);
            ops.silu_mul(gated, upper);
            store_transposed(gated, token..token + gate_inputs.n(), &mut hidden);
        }
    });
}

/// `out[rows[j]] = scales[j] * (down hidden[j])`
fn down_rows(
    context: &mut Context,
    memory: &mut MoeScratch,
    down: MatrixView<'_>,
    rows: &[u32],
    out: &mut [f32],
) {
    let (isa, n) = (context.isa, rows.len());
    memory.hidden_inputs.prepare(context, down.format, &memory.hidden, n, down.cols);
    let (inputs, scales) = (&memory.hidden_inputs, &memory.scales[..n]);
    let out_len = out.len() / down.rows * down.rows;
    let block_rows = weight_rows_per_task(context, down.rows, down.cols, n);
    let bands = Tiles::bands(&mut out[..out_len], down.rows, block_rows);
    grow_all(&mut memory.blocks, block_rows * TOKENS_PER_BLOCK);
    context.pool.run_parts_with(bands, &mut memory.blocks, |_, mut out, block| {
        for (first, inputs) in inputs.blocks() {
            let n = inputs.n();
            let block = scratch(block, out.width() * n);
            mul_rows(isa, &down, out.first_col(), out.width(), inputs, block);
            for (j, (&row, &scale)) in rows[first..].iter().zip(&scales[first..]).take(n).enumerate() {
                for (out, products) in out.row(row as usize).iter_mut().zip(block.chunks_exact(n)) {
                    *out = scale * products[j];
                }
            }
        }
    });
}

/// What the experts of each token gave.
pub(super) struct Outputs<'a> {
    /// `[n, k_len]`
    pub(super) weights: &'a [f32],
    /// `[n, k_len, dim]`
    pub(super) routed: &'a [f32],
    /// `[n, dim]`
    pub(super) shared: &'a [f32],
    pub(super) k_len: usize,
    pub(super) dim: usize,
}

/// `x[i] += shared[i] + sum_k weights[i][k] * routed[i][k]`, k in router order.
pub(super) fn moe_combine(context: &mut Context, outputs: &Outputs<'_>, n: usize, x: &mut [f32]) {
    let (dim, k_len, ops) = (outputs.dim, outputs.k_len, context.ops);
    let rows_len = rows_per_task(dim * (k_len + 1)) * dim;
    context.pool.run_parts(Chunks::new(&mut x[..n * dim], rows_len), |task, x| {
        for (i, x) in x.chunks_exact_mut(dim).enumerate() {
            let token = task * (rows_len / dim) + i;
            add_experts(outputs, token, ops, x);
        }
    });
}

fn add_experts(outputs: &Outputs<'_>, token: usize, ops: F32Ops, x: &mut [f32]) {
    let (dim, k_len) = (outputs.dim, outputs.k_len);
    ops.axpby(1.0, &outputs.shared[token * dim..][..dim], 1.0, x);
    for choice in token * k_len..(token + 1) * k_len {
        ops.axpby(outputs.weights[choice], &outputs.routed[choice * dim..][..dim], 1.0, x);
    }
}
