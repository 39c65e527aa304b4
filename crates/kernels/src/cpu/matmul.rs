//! Products with weight matrices.

use tensor::MatrixView;

use super::pool::{Chunks, Tile, Tiles};
use super::{Context, elementwise::rows_per_task, grow_all, scratch};
use crate::dot::{Activations, mul_rows};

/// Multiply-adds that one task should have at least: some tens of microseconds.
const PRODUCTS_PER_TASK: usize = 512 * 1024;
/// Tasks are a multiple of this many weight rows, a cache line of results.
const ROWS_GRAIN: usize = 16;
/// Weight rows of one task at most, which bounds the scratch of a task at this many floats a token.
const ROWS_MAX: usize = 512;
/// With several tokens: weight rows of one task at most, so that weights and results of a task stay in the nearer caches.
const ROWS_MAX_BATCH: usize = 32;

/// Memory of matrix products.
pub(super) struct MatmulScratch {
    activations: Activations,
    blocks: Vec<Vec<f32>>,
}

impl MatmulScratch {
    pub(super) fn new(threads: usize) -> Self {
        MatmulScratch { activations: Activations::new(), blocks: vec![Vec::new(); threads] }
    }
}

/// Weight rows of one task for products of `cols` with `n` tokens. Which rows share a task changes no result.
pub(super) fn weight_rows_per_task(cols: usize, n: usize) -> usize {
    let rows = PRODUCTS_PER_TASK / (cols * n).max(1);
    let max = if n > 1 { ROWS_MAX_BATCH } else { ROWS_MAX };
    (rows / ROWS_GRAIN * ROWS_GRAIN).clamp(ROWS_GRAIN, max)
}

/// `out[i] = w x[i]`: x is [n, cols], out is [n, rows].
pub(super) fn mul_mat(
    context: &mut Context,
    memory: &mut MatmulScratch,
    w: MatrixView<'_>,
    x: &[f32],
    n: usize,
    out: &mut [f32],
) {
    memory.activations.prepare(context.isa, w.format, x, n, w.cols);
    let (isa, activations) = (context.isa, &memory.activations);
    let (out, block_rows) = (&mut out[..n * w.rows], weight_rows_per_task(w.cols, n));
    if n == 1 {
        context.pool.run_parts(Chunks::new(out, block_rows), |task, out| {
            mul_rows(isa, &w, task * block_rows, out.len(), activations, out);
        });
        return;
    }
    let bands = Tiles::bands(out, w.rows, block_rows);
    grow_all(&mut memory.blocks, block_rows * n);
    context.pool.run_parts_with(bands, &mut memory.blocks, |_, mut out, block| {
        let block = scratch(block, out.width() * n);
        mul_rows(isa, &w, out.first_col(), out.width(), activations, block);
        store_transposed(block, n, &mut out);
    });
}

/// `out[t][r] = block[r][t]`: block is [out.width(), n].
pub(super) fn store_transposed(block: &[f32], n: usize, out: &mut Tile<'_, f32>) {
    for t in 0..n {
        for (out, products) in out.row(t).iter_mut().zip(block.chunks_exact(n)) {
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
