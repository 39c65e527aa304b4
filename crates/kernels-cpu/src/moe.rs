//! Experts: two products, silu(gate) * up, a third product; and the sum of a token's experts.

use tensor::MatrixView;

use super::batch::{Batch, TOKENS_PER_BLOCK};
use super::elementwise::rows_per_task;
use super::f32_ops::{F32Ops, sigmoid};
use super::matmul::{store_transposed, weight_rows_per_task};
use super::pool::{Chunks, Tiles};
use super::{Context, grow_all, scratch};
use crate::dot::{ActivationClass, Activations, mul_rows};
use ops::{ExpertRows, ExpertWeights};

/// Memory of the experts of one call.
pub(super) struct MoeScratch {
    /// Rows of x, prepared: once for each list of rows and class of formats.
    inputs: Vec<Batch>,
    /// [inputs in use]: what they were prepared for, the class and the expert whose rows they are.
    prepared: Vec<(ActivationClass, usize)>,
    /// [expert]: which of `inputs` its gate matrix takes, and which its up matrix.
    inputs_of: Vec<[usize; 2]>,
    /// The rows of all experts, one after the other: [rows, F].
    hidden: Vec<f32>,
    /// [expert]: its rows of `hidden`, as its down matrix wants them.
    hidden_inputs: Vec<Batch>,
    /// Rows of the shared expert and the factor of each row's output.
    rows: Vec<u32>,
    scales: Vec<f32>,
    gate_row_inputs: Batch,
    blocks: Vec<Vec<f32>>,
}

impl MoeScratch {
    pub(super) fn new(threads: usize) -> Self {
        MoeScratch {
            inputs: Vec::new(),
            prepared: Vec::new(),
            inputs_of: Vec::new(),
            hidden: Vec::new(),
            hidden_inputs: Vec::new(),
            rows: Vec::new(),
            scales: Vec::new(),
            gate_row_inputs: Batch::default(),
            blocks: vec![Vec::new(); threads],
        }
    }

    /// Prepares what the gate and up matrices of all experts take. In decoding all experts take the same row.
    fn prepare_inputs(&mut self, context: &mut Context, experts: &[ExpertRows<'_>], x: &[f32]) {
        self.prepared.clear();
        self.inputs_of.clear();
        for (index, expert) in experts.iter().enumerate() {
            let ExpertWeights { gate, up, .. } = expert.weights;
            let batches = [gate, up].map(|matrix| {
                let class = Activations::class(matrix.format);
                let same = |(other_class, other): &(ActivationClass, usize)| {
                    *other_class == class && experts[*other].x_rows == expert.x_rows
                };
                self.prepared.iter().position(same).unwrap_or_else(|| {
                    let batch = nth(&mut self.inputs, self.prepared.len());
                    batch.prepare_rows(context, matrix.format, x, expert.x_rows, matrix.cols);
                    self.prepared.push((class, index));
                    self.prepared.len() - 1
                })
            });
            self.inputs_of.push(batches);
        }
    }
}

/// Batch number `index` of memory that only ever grows, one by one.
fn nth(batches: &mut Vec<Batch>, index: usize) -> &mut Batch {
    if index == batches.len() {
        batches.push(Batch::default());
    }
    &mut batches[index]
}

/// For each expert, `out[out_rows[j]] = down(silu(gate x[x_rows[j]]) * (up x[x_rows[j]]))`. If an output row is named twice
/// the last stands.
pub(super) fn experts(
    context: &mut Context,
    memory: &mut MoeScratch,
    experts: &[ExpertRows<'_>],
    x: &[f32],
    out: &mut [f32],
) {
    if experts.is_empty() {
        return;
    }
    hidden_rows(context, memory, experts, x);
    down_rows(context, memory, experts, None, out);
}

/// `out[i] = sigmoid(gate_row x[i]) * down(silu(gate x[i]) * (up x[i]))` for the `n` rows of x; without
/// the first factor if there is no `gate_row`.
pub(super) fn shared_expert(
    context: &mut Context,
    memory: &mut MoeScratch,
    weights: ExpertWeights<'_>,
    gate_row: Option<MatrixView<'_>>,
    x: &[f32],
    n: usize,
    out: &mut [f32],
) {
    let mut scales = std::mem::take(&mut memory.scales);
    scales.clear();
    scales.resize(n, 1.0);
    if let Some(gate_row) = gate_row {
        memory.gate_row_inputs.prepare(context, gate_row.format, x, n, gate_row.cols);
        for (first, inputs) in memory.gate_row_inputs.blocks() {
            mul_rows(context.ops, &gate_row, 0, 1, inputs, &mut scales[first..first + inputs.n()]);
        }
        scales.iter_mut().for_each(|scale| *scale = sigmoid(*scale));
    }

    let mut rows = std::mem::take(&mut memory.rows);
    rows.clear();
    rows.extend(0..n as u32);
    let expert = [ExpertRows { weights, x_rows: &rows, out_rows: &rows }];
    hidden_rows(context, memory, &expert, x);
    down_rows(context, memory, &expert, Some(&scales), out);
    (memory.rows, memory.scales) = (rows, scales);
}

/// `hidden[j] = silu(gate x[x_rows[j]]) * (up x[x_rows[j]])`, expert after expert. One task has some rows of the gate and
/// up matrices of every expert: a layer's experts are one parallel region, however small they are.
fn hidden_rows(context: &mut Context, memory: &mut MoeScratch, experts: &[ExpertRows<'_>], x: &[f32]) {
    memory.prepare_inputs(context, experts, x);
    let MoeScratch { inputs, inputs_of, hidden, blocks, .. } = memory;
    let (ops, gate) = (context.ops, experts[0].weights.gate);
    let n = experts.iter().map(|expert| expert.x_rows.len()).sum::<usize>();
    let width = band_width(context, experts, gate.rows, 2 * gate.cols);
    let bands = Tiles::bands(scratch(hidden, n * gate.rows), gate.rows, width);
    grow_all(blocks, 2 * width * TOKENS_PER_BLOCK);
    context.pool.run_parts_with(bands, blocks, |_, mut hidden, block| {
        let (first, width, mut first_row) = (hidden.first_col(), hidden.width(), 0);
        for (expert, of) in experts.iter().zip(inputs_of.iter()) {
            let [gate_inputs, up_inputs] = of.map(|batch| &inputs[batch]);
            for ((token, gate_inputs), (_, up_inputs)) in gate_inputs.blocks().zip(up_inputs.blocks()) {
                let len = width * gate_inputs.n();
                let (gated, upper) = scratch(block, 2 * len).split_at_mut(len);
                mul_rows(ops, &expert.weights.gate, first, width, gate_inputs, gated);
                mul_rows(ops, &expert.weights.up, first, width, up_inputs, upper);
                ops.silu_mul(gated, upper);
                let rows = first_row + token..first_row + token + gate_inputs.n();
                store_transposed(gated, rows, &mut hidden);
            }
            first_row += expert.x_rows.len();
        }
    });
}

/// `out[out_rows[j]] = scales[j] * (down hidden[j])`, expert after expert; without scales the factor is 1.
fn down_rows(
    context: &mut Context,
    memory: &mut MoeScratch,
    experts: &[ExpertRows<'_>],
    scales: Option<&[f32]>,
    out: &mut [f32],
) {
    let (ops, down) = (context.ops, experts[0].weights.down);
    let mut first_row = 0;
    for (index, expert) in experts.iter().enumerate() {
        let (down, n) = (expert.weights.down, expert.out_rows.len());
        let hidden = &memory.hidden[first_row * down.cols..];
        nth(&mut memory.hidden_inputs, index).prepare(context, down.format, hidden, n, down.cols);
        first_row += n;
    }
    let inputs = &memory.hidden_inputs;
    let width = band_width(context, experts, down.rows, down.cols);
    let out_len = out.len() / down.rows * down.rows;
    let bands = Tiles::bands(&mut out[..out_len], down.rows, width);
    grow_all(&mut memory.blocks, width * TOKENS_PER_BLOCK);
    context.pool.run_parts_with(bands, &mut memory.blocks, |_, mut out, block| {
        for (expert, inputs) in experts.iter().zip(inputs) {
            for (first, inputs) in inputs.blocks() {
                let n = inputs.n();
                let block = scratch(block, out.width() * n);
                mul_rows(ops, &expert.weights.down, out.first_col(), out.width(), inputs, block);
                for (j, &row) in expert.out_rows[first..first + n].iter().enumerate() {
                    let scale = scales.map_or(1.0, |scales| scales[first + j]);
                    for (out, products) in out.row(row as usize).iter_mut().zip(block.chunks_exact(n)) {
                        *out = scale * products[j];
                    }
                }
            }
        }
    });
}

/// Weight rows of one task, of the `rows` that each expert's matrix has.
fn band_width(context: &Context, experts: &[ExpertRows<'_>], rows: usize, cols: usize) -> usize {
    let most = experts.iter().map(|expert| expert.x_rows.len()).max().unwrap_or(1);
    for ExpertRows { weights: ExpertWeights { gate, up, down }, x_rows, out_rows } in experts {
        assert_eq!(x_rows.len(), out_rows.len(), "one output row for each input row");
        let shape = experts[0].weights.gate;
        assert!(
            (gate.rows, up.rows, down.cols, gate.cols, up.cols)
                == (shape.rows, shape.rows, shape.rows, shape.cols, shape.cols)
                && down.rows == experts[0].weights.down.rows,
            "experts of one shape"
        );
    }
    weight_rows_per_task(context, rows, cols * experts.len(), most)
}

/// What the experts of each token gave.
pub(super) struct Outputs<'a> {
    /// `[n, k_len]`
    pub(super) weights: &'a [f32],
    /// `[n, k_len, dim]`
    pub(super) routed: &'a [f32],
    /// `[n, dim]`
    pub(super) shared: Option<&'a [f32]>,
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
    if let Some(shared) = outputs.shared {
        ops.axpby(1.0, &shared[token * dim..][..dim], 1.0, x);
    }
    for choice in token * k_len..(token + 1) * k_len {
        ops.axpby(outputs.weights[choice], &outputs.routed[choice * dim..][..dim], 1.0, x);
    }
}
