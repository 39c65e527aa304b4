//! The f32 loops that attention, DeltaNet and the elementwise ops are made of, for the instruction
//! set chosen at run time.
//!
//! Within one instruction set each result has one order of summation, whatever the shape of the
//! matrix around it: element (i, j) of a product is the same bits whether it is computed alone or
//! among a thousand others. That is what makes a token's result independent of the batch it came in
//! (attention) and of the number of threads.

pub(crate) mod operands;
pub(crate) mod scalar;

use tensor::Format;

use crate::kernels::{Kernels, dispatch_f32};
use operands::check_rows;
pub(crate) use operands::{Dims, Rows, RowsMut};
pub(crate) use scalar::{sigmoid, softplus, sum_of_squares};

/// The f32 loops are a part of the kernels.
pub(crate) type F32Ops = Kernels;

impl Kernels {
    /// `c[i][j] = a[i] . b[j]`: a is `[m, k]`, b is `[n, k]`.
    pub(crate) fn dots(self, dims: Dims, a: Rows<'_>, b: Rows<'_>, mut c: RowsMut<'_>) {
        a.check(dims.m, dims.k);
        b.check(dims.n, dims.k);
        c.check(dims.m, dims.n);
        dispatch_f32!(self, dots(dims, a, b, &mut c));
    }

    /// `c += a b`: a is `[m, k]`, b is `[k, n]`; each element sums over k in ascending order.
    pub(crate) fn matmul_add(self, dims: Dims, a: Rows<'_>, b: Rows<'_>, mut c: RowsMut<'_>) {
        a.check(dims.m, dims.k);
        b.check(dims.k, dims.n);
        c.check(dims.m, dims.n);
        dispatch_f32!(self, matmul_add(dims, a, b, &mut c));
    }

    /// One step of the delta rule's second half: `state = decay * state + k d^T`, then `out =
    /// state^T q`. state is `[dk, dv]`; k and q are `[dk]`; d and out are `[dv]`.
    pub(crate) fn state_step(
        self,
        state: &mut [f32],
        decay: f32,
        k: &[f32],
        q: &[f32],
        d: &[f32],
        out: &mut [f32],
    ) {
        assert!(
            k.len() == q.len() && d.len() == out.len() && state.len() == k.len() * d.len(),
            "state [dk, dv]"
        );
        dispatch_f32!(self, state_step(state, decay, k, q, d, out));
    }

    /// `x[i] = exp(x[i] - max)`; the sum of the results.
    pub(crate) fn exp_sum(self, x: &mut [f32], max: f32) -> f32 {
        dispatch_f32!(self, exp_sum(x, max))
    }

    /// The largest element; -inf of none.
    pub(crate) fn max(self, x: &[f32]) -> f32 {
        dispatch_f32!(self, max(x))
    }

    /// `gate = silu(gate) * up`
    pub(crate) fn silu_mul(self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        dispatch_f32!(self, silu_mul(gate, up));
    }

    /// `out = a * x * sigmoid(gate)`
    pub(crate) fn scaled_sigmoid_mul(self, a: f32, x: &[f32], gate: &[f32], out: &mut [f32]) {
        assert!(x.len() == out.len() && gate.len() == out.len());
        dispatch_f32!(self, scaled_sigmoid_mul(a, x, gate, out));
    }

    /// `o = a * o * weight * silu(z)`
    pub(crate) fn scaled_mul_silu(self, a: f32, weight: &[f32], z: &[f32], o: &mut [f32]) {
        assert!(weight.len() == o.len() && z.len() == o.len());
        dispatch_f32!(self, scaled_mul_silu(a, weight, z, o));
    }

    /// `y = b * y + a * x`
    pub(crate) fn axpby(self, a: f32, x: &[f32], b: f32, y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        dispatch_f32!(self, axpby(a, x, b, y));
    }

    /// Rows of halves, little endian, to rows of `len` f32, exact. Source rows start `stride` bytes
    /// apart; there are as many as `out` holds.
    pub(crate) fn decode_f16(self, halves: &[u8], stride: usize, len: usize, out: &mut [f32]) {
        check_rows(halves.len(), stride, out.len() / len, 2 * len);
        dispatch_f32!(self, decode_f16(halves, stride, len, out));
    }

    /// The same from blocks of q8_0; `len` is a whole number of them.
    pub(crate) fn decode_q8_0(self, blocks: &[u8], stride: usize, len: usize, out: &mut [f32]) {
        let format = Format::Q8_0;
        assert_eq!(len % format.block_len(), 0);
        check_rows(blocks.len(), stride, out.len() / len, len / format.block_len() * format.block_bytes());
        dispatch_f32!(self, decode_q8_0(blocks, stride, len, out));
    }

    /// f32 to the nearest halves, little endian; finite values saturate.
    pub(crate) fn encode_f16(self, values: &[f32], out: &mut [u8]) {
        assert_eq!(out.len(), 2 * values.len());
        dispatch_f32!(self, encode_f16(values, out));
    }

    /// `out[i] = silu(sum_j weight[i][j] * inputs[j][i])`: weight is `[out, inputs]`; added from
    /// the first input on.
    pub(crate) fn conv_silu(self, weight: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
        assert!(!inputs.is_empty() && weight.len() == inputs.len() * out.len());
        assert!(inputs.iter().all(|input| input.len() == out.len()));
        dispatch_f32!(self, conv_silu(weight, inputs, out));
    }
}

#[cfg(test)]
mod tests;
