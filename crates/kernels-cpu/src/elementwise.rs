//! Sums of buffers.

use super::Context;
use super::pool::Chunks;

/// Floats of one task of a cheap op: enough work to be worth the hand-over to another thread.
pub(super) const ELEMENTS_PER_TASK: usize = 16 * 1024;

/// Rows of `dim` that make up one task of a cheap op.
pub(super) fn rows_per_task(dim: usize) -> usize {
    (ELEMENTS_PER_TASK / dim.max(1)).max(1)
}

fn add_slices(y: &[f32], x: &mut [f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `x += y`, of equal lengths.
pub(super) fn add(context: &mut Context, y: &[f32], x: &mut [f32]) {
    context.pool.run_parts(Chunks::new(x, ELEMENTS_PER_TASK), |task, x| {
        add_slices(&y[task * ELEMENTS_PER_TASK..][..x.len()], x);
    });
}

/// `out[i] += bias` over `n` rows of `dim`.
pub(super) fn add_bias(context: &mut Context, bias: &[f32], n: usize, dim: usize, out: &mut [f32]) {
    let rows = Chunks::new(&mut out[..n * dim], rows_per_task(dim) * dim);
    context.pool.run_parts(rows, |_, rows| {
        for row in rows.chunks_exact_mut(dim) {
            add_slices(&bias[..dim], row);
        }
    });
}
