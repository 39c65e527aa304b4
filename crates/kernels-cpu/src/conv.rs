//! The causal depthwise convolution in front of DeltaNet.

use super::Context;
use super::pool::Tiles;
use ops::DeltaNetShape;

/// Channels and tokens of one task.
const CHANNELS_PER_TASK: usize = 2048;
const TOKENS_PER_TASK: usize = 8;
/// Longest kernel.
const TAPS_MAX: usize = 16;

/// `out[t] = silu(sum_j weight[:, j] * u[t - (kernel - 1) + j])`, inputs before the first token
/// from `state`, which then holds the last `kernel - 1` inputs. Taps are added from the oldest to
/// the current one.
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
    let past = (kernel - 1) * channels;
    let (weight, u, state) = (&weight[..channels * kernel], &u[..n * channels], &mut state[..past]);
    // Row `row` of the inputs, counted from the oldest in the state.
    let input = |row: usize| match (row * channels).checked_sub(past) {
        Some(start) => &u[start..][..channels],
        None => &state[row * channels..][..channels],
    };
    let ops = context.ops;
    let tiles = Tiles::new(&mut out[..n * channels], channels, TOKENS_PER_TASK, CHANNELS_PER_TASK);
    context.pool.run_parts(tiles, |_, mut tile| {
        let (first, width) = (tile.first_col(), tile.width());
        let weight = &weight[first * kernel..][..width * kernel];
        for i in 0..tile.rows() {
            let t = tile.first_row() + i;
            let mut inputs = [&[][..]; TAPS_MAX];
            for (tap, taken) in inputs[..kernel].iter_mut().enumerate() {
                *taken = &input(t + tap)[first..][..width];
            }
            ops.conv_silu(weight, &inputs[..kernel], tile.row(i));
        }
    });
    match (n * channels).checked_sub(past) {
        Some(start) => state.copy_from_slice(&u[start..]),
        None => {
            state.copy_within(n * channels.., 0);
            state[past - n * channels..].copy_from_slice(u);
        }
    }
}
