//! Root-mean-square norms over rows.

use super::Context;
use super::elementwise::rows_per_task;
use super::f32_ops::sum_of_squares;
use super::pool::Chunks;

/// `1 / sqrt(mean(x^2) + eps)`, in f64 up to the last rounding.
pub(super) fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    (1.0 / (sum_of_squares(x) / x.len() as f64 + f64::from(eps)).sqrt()) as f32
}

/// `out[i] = x[i] / rms(x[i]) * weight` over `n` rows of `dim`.
pub(super) fn rms_norm(
    context: &mut Context,
    (x, weight): (&[f32], &[f32]),
    eps: f32,
    n: usize,
    dim: usize,
    out: &mut [f32],
) {
    let (weight, task_len) = (&weight[..dim], rows_per_task(dim) * dim);
    let x = &x[..n * dim];
    context.pool.run_parts(Chunks::new(&mut out[..n * dim], task_len), |task, out| {
        let x = &x[task * task_len..][..out.len()];
        for (x, out) in x.chunks_exact(dim).zip(out.chunks_exact_mut(dim)) {
            let scale = inverse_rms(x, eps);
            for ((out, &x), &weight) in out.iter_mut().zip(x).zip(weight) {
                *out = scale * x * weight;
            }
        }
    });
}

/// `o[r] = o[r] / rms(o[r]) * weight * silu(z[r])` over `rows` rows of `dim`.
pub(super) fn gated_rms_norm(
    context: &mut Context,
    (z, weight): (&[f32], &[f32]),
    eps: f32,
    rows: usize,
    dim: usize,
    o: &mut [f32],
) {
    let (weight, task_len) = (&weight[..dim], rows_per_task(dim) * dim);
    let (z, ops) = (&z[..rows * dim], context.ops);
    context.pool.run_parts(Chunks::new(&mut o[..rows * dim], task_len), |task, o| {
        let z = &z[task * task_len..][..o.len()];
        for (z, o) in z.chunks_exact(dim).zip(o.chunks_exact_mut(dim)) {
            ops.scaled_mul_silu(inverse_rms(o, eps), weight, z, o);
        }
    });
}
