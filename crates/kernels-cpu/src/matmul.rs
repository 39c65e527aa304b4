//! Products with weight matrices.

use std::ops::Range;

use tensor::MatrixView;

use super::batch::{Batch, TOKENS_PER_BLOCK};
use super::pool::{Chunks, Tile, Tiles};
use super::{Context, elementwise::rows_per_task, grow_all, scratch};
use crate::dot::{ActivationClass, Activations, mul_rows};

/// Multiply-adds that one task should have at least: some tens of microseconds.
const PRODUCTS_PER_TASK: usize = 512 * 1024;
/// Tasks that each thread should find, so that none waits long for the last.
const TASKS_PER_THREAD: usize = 4;
/// Tasks are a multiple of this many weight rows, a cache line of results.
const ROWS_GRAIN: usize = 16;
/// Weight rows of one task at most.
const ROWS_MAX: usize = 512;
/// With several tokens, weight rows of one task at least: every task reads all activations once.
const ROWS_MIN_BATCH: usize = 32;

/// Memory of matrix products.
pub(super) struct MatmulScratch {
    /// The input, prepared for each class of formats in `classes`.
    inputs: Vec<Batch>,
    classes: Vec<ActivationClass>,
    blocks: Vec<Vec<f32>>,
}

impl MatmulScratch {
    pub(super) fn new(threads: usize) -> Self {
        MatmulScratch { inputs: Vec::new(), classes: Vec::new(), blocks: vec![Vec::new(); threads] }
    }
}

/// Weight rows of one task, of `rows` in all, for products of `cols` with `n` tokens. Which rows
/// share a task changes no result, so it may depend on the number of threads.
pub(super) fn weight_rows_per_task(context: &Context, rows: usize, cols: usize, n: usize) -> usize {
    let enough = PRODUCTS_PER_TASK / (cols * n).max(1);
    let fair = rows / (context.pool.threads() * TASKS_PER_THREAD);
    let min = if n > 1 { ROWS_MIN_BATCH } else { ROWS_GRAIN };
    (enough.min(fair) / ROWS_GRAIN * ROWS_GRAIN).clamp(min, ROWS_MAX)
}

/// For each product `out[i] = w x[i]`: x is [n, cols], out is [n, rows]. Matrices of one class of formats share one
/// preparation of the input; the products with one token are one parallel region.
pub(super) fn mul_mats<const N: usize>(
    context: &mut Context,
    memory: &mut MatmulScratch,
    mut products: [(MatrixView<'_>, &mut [f32]); N],
    x: &[f32],
    n: usize,
) {
    memory.classes.clear();
    let mut inputs_of = [0; N];
    for ((w, _), of) in products.iter().zip(&mut inputs_of) {
        let class = Activations::class(w.format);
        *of = memory.classes.iter().position(|known| *known == class).unwrap_or(memory.classes.len());
        if *of == memory.classes.len() {
            memory.classes.push(class);
            memory.inputs.resize_with(memory.inputs.len().max(*of + 1), Batch::default);
            memory.inputs[*of].prepare(context, w.format, x, n, w.cols);
        }
    }
    if n == 1 {
        mul_vecs(context, &memory.inputs, &mut products, inputs_of);
        return;
    }
    for ((w, out), of) in products.into_iter().zip(inputs_of) {
        mul_batch(context, &memory.inputs[of], &mut memory.blocks, &w, n, out);
    }
}

/// The products of several matrices with one row.
fn mul_vecs<const N: usize>(
    context: &mut Context,
    inputs: &[Batch],
    products: &mut [(MatrixView<'_>, &mut [f32]); N],
    inputs_of: [usize; N],
) {
    let kernels = context.ops;
    let products = products.each_mut().map(|(w, out)| (*w, &mut out[..w.rows]));
    let rows = products.iter().map(|(w, _)| w.rows).sum();
    let block_rows = weight_rows_per_task(context, rows, products.first().map_or(1, |(w, _)| w.cols), 1);
    let weights = products.each_ref().map(|(w, _)| *w);
    let chunks = products.map(|(_, out)| Chunks::new(out, block_rows));
    context.pool.run_parts(chunks, |_, (which, chunk, out)| {
        for (_, input) in inputs[inputs_of[which]].blocks() {
            mul_rows(kernels, &weights[which], chunk * block_rows, out.len(), input, out);
        }
    });
}

/// The product of one matrix with several rows.
fn mul_batch(
    context: &mut Context,
    inputs: &Batch,
    blocks: &mut [Vec<f32>],
    w: &MatrixView<'_>,
    n: usize,
    out: &mut [f32],
) {
    let kernels = context.ops;
    let block_rows = weight_rows_per_task(context, w.rows, w.cols, n);
    let bands = Tiles::bands(&mut out[..n * w.rows], w.rows, block_rows);
    grow_all(blocks, block_rows * TOKENS_PER_BLOCK);
    context.pool.run_parts_with(bands, blocks, |_, mut out, block| {
        for (first, inputs) in inputs.blocks() {
            let block = scratch(block, out.width() * inputs.n());
            mul_rows(kernels, w, out.first_col(), out.width(), inputs, block);
            store_transposed(block, first..first + inputs.n(), &mut out);
        }
    });
}

/// `out[tokens.start + t][r] = block[r][t]`: block is [out.width(), tokens].
pub(super) fn store_transposed(block: &[f32], tokens: Range<usize>, out: &mut Tile<'_, f32>) {
    let n = tokens.len();
    for (t, token) in tokens.enumerate() {
        for (out, products) in out.row(token).iter_mut().zip(block.chunks_exact(n)) {
            *out = products[t];
        }
    }
}

/// `out[i] = table[ids[i]]`, decoded.
pub(super) fn get_rows(context: &mut Context, table: MatrixView<'_>, ids: &[u32], out: &mut [f32]) {
    let (dim, rows) = (table.cols, rows_per_task(table.cols));
    let out = Chunks::new(&mut out[..ids.len() * dim], rows * dim);
    context.pool.run_parts(out, |task, out| {
        let ids = &ids[task * rows..];
        for (row, &id) in out.chunks_exact_mut(dim).zip(ids) {
            let decoded = table.format.decode_row(table.row(id as usize), row);
            // The view's constructor has checked the length of a row.
            decoded.unwrap_or_else(|error| panic!("row {id} of a checked matrix: {error}"));
        }
    });
}
