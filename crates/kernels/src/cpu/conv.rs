//! The causal depthwise convolution in front of DeltaNet.

use super::Context;
use super::pool::{Tile, Tiles};
use crate::backend::DeltaNetShape;

/// Channels of one task; its taps are gathered on the stack.
const CHANNELS_PER_TASK: usize = 256;
/// Taps that the stack copy has room for; a longer kernel is gathered tap by tap.
const TAPS_MAX: usize = 8;

/// `out[t] = silu(sum_j weight[:, j] * u[t - (kernel - 1) + j])`, inputs before the first token from `state`, which then
/// holds the last `kernel - 1` inputs. Taps are added from the oldest to the current one.
pub(super) fn conv1d_silu(
    context: &mut Context,
    shape: &DeltaNetShape,
    n: usize,
    (weight, u): (&[f32], &[f32]),
    state: &mut [f32],
    out: &mut [f32],
) {
    let (channels, kernel) = (shape.conv_channels(), shape.conv_kernel);
    assert!((1..=TAPS_MAX).contains(&kernel), "a kernel of {kernel} taps, at most {TAPS_MAX}");
    let (weight, u) = (&weight[..channels * kernel], &u[..n * channels]);
    let ops = context.ops;
    let parts = (
        Tiles::bands(&mut out[..n * channels], channels, CHANNELS_PER_TASK),
        Tiles::bands(&mut state[..(kernel - 1) * channels], channels, CHANNELS_PER_TASK),
    );
    context.pool.run_parts(parts, |_, (mut out, mut state)| {
        let (first, width) = (out.first_col(), out.width());
        let mut taps = [[0.0; CHANNELS_PER_TASK]; TAPS_MAX];
        for (channel, weights) in weight[first * kernel..][..width * kernel].chunks_exact(kernel).enumerate()
        {
            for (tap, &weight) in taps.iter_mut().zip(weights) {
                tap[channel] = weight;
            }
        }
        let input = |t: usize| &u[t * channels + first..][..width];
        for t in 0..n {
            let out = out.row(t);
            out.fill(0.0);
            for (j, tap) in taps[..kernel].iter().enumerate() {
                // Input t + j counted from the oldest row of the state.
                match (t + j).checked_sub(kernel - 1) {
                    Some(t) => ops.mul_add(&tap[..width], input(t), out),
                    None => ops.mul_add(&tap[..width], state.row(t + j), out),
                }
            }
            ops.silu(out);
        }
        advance(&mut state, kernel - 1, n, input);
    });
}

/// Shifts the state by `n` inputs: row i becomes input n + i, counted from the state's oldest row.
fn advance<'a>(state: &mut Tile<'_, f32>, rows: usize, n: usize, input: impl Fn(usize) -> &'a [f32]) {
    for row in 0..rows {
        match (n + row).checked_sub(rows) {
            Some(t) => state.row(row).copy_from_slice(input(t)),
            None => state.copy_row(n + row, row),
        }
    }
}
