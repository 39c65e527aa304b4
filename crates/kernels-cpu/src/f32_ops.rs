//! The f32 loops that attention, DeltaNet and the elementwise ops are made of, for the instruction
//! set chosen at run time.
//!
//! Within one instruction set each result has one order of summation, whatever the shape of the
//! matrix around it: element (i, j) of a product is the same bits whether it is computed alone or
//! among a thousand others. That is what makes a token's result independent of the batch it came in
//! (attention) and of the number of threads.

use tensor::Format;

use crate::dot::Isa;

#[cfg(target_arch = "aarch64")]
use super::arch::aarch64::f32_ops::Neon;
#[cfg(target_arch = "x86_64")]
use super::arch::x86_64::f32_ops::Avx2;

/// Rows of a matrix in a slice: row i starts at `i * stride`.
#[derive(Copy, Clone)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
}

/// Rows to be written.
pub(crate) struct RowsMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) stride: usize,
}

/// Shape of a product: `[m, k]` by `[k, n]`.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Dims {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(data: &'a [f32], stride: usize) -> Self {
        Rows { data, stride }
    }

    pub(crate) fn row(&self, row: usize, len: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..len]
    }

    /// Panics unless `rows` rows of `len` lie inside.
    pub(crate) fn check(&self, rows: usize, len: usize) {
        check_rows(self.data.len(), self.stride, rows, len);
    }
}

impl<'a> RowsMut<'a> {
    pub(crate) fn new(data: &'a mut [f32], stride: usize) -> Self {
        RowsMut { data, stride }
    }

    fn row(&mut self, row: usize, len: usize) -> &mut [f32] {
        &mut self.data[row * self.stride..][..len]
    }

    /// Panics unless `rows` rows of `len` lie inside, and do not overlap.
    pub(crate) fn check(&self, rows: usize, len: usize) {
        check_rows(self.data.len(), self.stride, rows, len);
        assert!(rows <= 1 || len <= self.stride, "rows of {len} at a stride of {}", self.stride);
    }
}

fn check_rows(available: usize, stride: usize, rows: usize, len: usize) {
    if rows > 0 && len > 0 {
        let end = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(len));
        assert!(
            end.is_some_and(|end| end <= available),
            "{rows} rows of {len}, stride {stride}, in {available}"
        );
    }
}

/// The loops for one instruction set.
#[derive(Copy, Clone)]
pub(crate) enum F32Ops {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

macro_rules! dispatch {
    ($self:ident, $name:ident ( $($argument:expr),* )) => {
        match $self {
            F32Ops::Scalar => scalar::$name($($argument),*),
            #[cfg(target_arch = "x86_64")]
            F32Ops::Avx2(avx2) => avx2.$name($($argument),*),
            #[cfg(target_arch = "aarch64")]
            F32Ops::Neon(neon) => neon.$name($($argument),*),
        }
    };
}

impl F32Ops {
    /// The loops for `isa`; scalar ones where the machine lacks it.
    pub(crate) fn new(isa: Isa) -> F32Ops {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => Avx2::new().map_or(F32Ops::Scalar, F32Ops::Avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDotprod => Neon::new().map_or(F32Ops::Scalar, F32Ops::Neon),
            _ => F32Ops::Scalar,
        }
    }

    /// `c[i][j] = a[i] . b[j]`: a is `[m, k]`, b is `[n, k]`.
    pub(crate) fn dots(self, dims: Dims, a: Rows<'_>, b: Rows<'_>, mut c: RowsMut<'_>) {
        a.check(dims.m, dims.k);
        b.check(dims.n, dims.k);
        c.check(dims.m, dims.n);
        dispatch!(self, dots(dims, a, b, &mut c));
    }

    /// `c += a b`: a is `[m, k]`, b is `[k, n]`; each element sums over k in ascending order.
    pub(crate) fn matmul_add(self, dims: Dims, a: Rows<'_>, b: Rows<'_>, mut c: RowsMut<'_>) {
        a.check(dims.m, dims.k);
        b.check(dims.k, dims.n);
        c.check(dims.m, dims.n);
        dispatch!(self, matmul_add(dims, a, b, &mut c));
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
        dispatch!(self, state_step(state, decay, k, q, d, out));
    }

    /// `x[i] = exp(x[i] - max)`; the sum of the results.
    pub(crate) fn exp_sum(self, x: &mut [f32], max: f32) -> f32 {
        dispatch!(self, exp_sum(x, max))
    }

    /// The largest element; -inf of none.
    pub(crate) fn max(self, x: &[f32]) -> f32 {
        dispatch!(self, max(x))
    }

    /// `gate = silu(gate) * up`
    pub(crate) fn silu_mul(self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        dispatch!(self, silu_mul(gate, up));
    }

    /// `out = a * x * sigmoid(gate)`
    pub(crate) fn scaled_sigmoid_mul(self, a: f32, x: &[f32], gate: &[f32], out: &mut [f32]) {
        assert!(x.len() == out.len() && gate.len() == out.len());
        dispatch!(self, scaled_sigmoid_mul(a, x, gate, out));
    }

    /// `o = a * o * weight * silu(z)`
    pub(crate) fn scaled_mul_silu(self, a: f32, weight: &[f32], z: &[f32], o: &mut [f32]) {
        assert!(weight.len() == o.len() && z.len() == o.len());
        dispatch!(self, scaled_mul_silu(a, weight, z, o));
    }

    /// `y = b * y + a * x`
    pub(crate) fn axpby(self, a: f32, x: &[f32], b: f32, y: &mut [f32]) {
        assert_eq!(x.len(), y.len());
        dispatch!(self, axpby(a, x, b, y));
    }

    /// Rows of halves, little endian, to rows of `len` f32, exact. Source rows start `stride` bytes
    /// apart; there are as many as `out` holds.
    pub(crate) fn decode_f16(self, halves: &[u8], stride: usize, len: usize, out: &mut [f32]) {
        check_rows(halves.len(), stride, out.len() / len, 2 * len);
        dispatch!(self, decode_f16(halves, stride, len, out));
    }

    /// The same from blocks of q8_0; `len` is a whole number of them.
    pub(crate) fn decode_q8_0(self, blocks: &[u8], stride: usize, len: usize, out: &mut [f32]) {
        let format = Format::Q8_0;
        assert_eq!(len % format.block_len(), 0);
        check_rows(blocks.len(), stride, out.len() / len, len / format.block_len() * format.block_bytes());
        dispatch!(self, decode_q8_0(blocks, stride, len, out));
    }

    /// f32 to the nearest halves, little endian; finite values saturate.
    pub(crate) fn encode_f16(self, values: &[f32], out: &mut [u8]) {
        assert_eq!(out.len(), 2 * values.len());
        dispatch!(self, encode_f16(values, out));
    }

    /// `out[i] = silu(sum_j weight[i][j] * inputs[j][i])`: weight is `[out, inputs]`; added from
    /// the first input on.
    pub(crate) fn conv_silu(self, weight: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
        assert!(!inputs.is_empty() && weight.len() == inputs.len() * out.len());
        assert!(inputs.iter().all(|input| input.len() == out.len()));
        dispatch!(self, conv_silu(weight, inputs, out));
    }
}

/// Sum of squares in f64, eight lanes: a norm's error must not grow with the row.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0_f64; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    let tail: f64 = rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    sums.iter().sum::<f64>() + tail
}

/// `1 / (1 + exp(-x))`, without overflow trouble: exp(-x) = inf gives 0.
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `ln(1 + exp(x))`, accurate for large |x|.
pub(crate) fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Plain loops that the compiler may vectorise for the baseline instruction set.
mod scalar {
    use tensor::Format;

    use super::{Dims, Rows, RowsMut, sigmoid};

    const LANES: usize = 8;

    /// Rows by the codec of their format; the lengths have been checked.
    fn decode_rows(format: Format, bytes: &[u8], stride: usize, len: usize, out: &mut [f32]) {
        let row_bytes = len / format.block_len() * format.block_bytes();
        for (row, out) in out.chunks_exact_mut(len).enumerate() {
            let decoded = format.decode_row(&bytes[row * stride..][..row_bytes], out);
            decoded.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    pub(super) fn decode_f16(halves: &[u8], stride: usize, len: usize, out: &mut [f32]) {
        decode_rows(Format::F16, halves, stride, len, out);
    }

    pub(super) fn decode_q8_0(blocks: &[u8], stride: usize, len: usize, out: &mut [f32]) {
        decode_rows(Format::Q8_0, blocks, stride, len, out);
    }

    pub(super) fn encode_f16(values: &[f32], out: &mut [u8]) {
        Format::F16.encode_row(values, out).unwrap_or_else(|error| panic!("{error}"));
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0.0_f32; LANES];
        let (a_chunks, a_rest) = a.as_chunks::<LANES>();
        let (b_chunks, b_rest) = b.as_chunks::<LANES>();
        for (a, b) in a_chunks.iter().zip(b_chunks) {
            for lane in 0..LANES {
                sums[lane] += a[lane] * b[lane];
            }
        }
        let tail: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
        ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)) + tail
    }

    pub(super) fn dots(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>) {
        for i in 0..dims.m {
            let a = a.row(i, dims.k);
            for (j, c) in c.row(i, dims.n).iter_mut().enumerate() {
                *c = dot(a, b.row(j, dims.k));
            }
        }
    }

    pub(super) fn matmul_add(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>) {
        for i in 0..dims.m {
            let c = c.row(i, dims.n);
            for (l, &a) in a.row(i, dims.k).iter().enumerate() {
                for (c, &b) in c.iter_mut().zip(b.row(l, dims.n)) {
                    *c += a * b;
                }
            }
        }
    }

    pub(super) fn state_step(
        state: &mut [f32],
        decay: f32,
        k: &[f32],
        q: &[f32],
        d: &[f32],
        out: &mut [f32],
    ) {
        out.fill(0.0);
        if d.is_empty() {
            return;
        }
        for ((row, &k), &q) in state.chunks_exact_mut(d.len()).zip(k).zip(q) {
            for ((s, &d), out) in row.iter_mut().zip(d).zip(out.iter_mut()) {
                *s = decay * *s + k * d;
                *out += q * *s;
            }
        }
    }

    pub(super) fn exp_sum(x: &mut [f32], max: f32) -> f32 {
        let mut sums = [0.0_f32; LANES];
        for (at, x) in x.iter_mut().enumerate() {
            *x = (*x - max).exp();
            sums[at % LANES] += *x;
        }
        sums.iter().sum()
    }

    pub(super) fn max(x: &[f32]) -> f32 {
        x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x))
    }

    fn silu(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x *= sigmoid(*x));
    }

    pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
        for (gate, &up) in gate.iter_mut().zip(up) {
            *gate = *gate * sigmoid(*gate) * up;
        }
    }

    pub(super) fn scaled_sigmoid_mul(a: f32, x: &[f32], gate: &[f32], out: &mut [f32]) {
        for ((out, &x), &gate) in out.iter_mut().zip(x).zip(gate) {
            *out = a * x * sigmoid(gate);
        }
    }

    pub(super) fn scaled_mul_silu(a: f32, weight: &[f32], z: &[f32], o: &mut [f32]) {
        for ((o, &weight), &z) in o.iter_mut().zip(weight).zip(z) {
            *o = a * *o * weight * (z * sigmoid(z));
        }
    }

    pub(super) fn axpby(a: f32, x: &[f32], b: f32, y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = b * *y + a * x;
        }
    }

    pub(super) fn conv_silu(weight: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
        for (i, (out, weights)) in out.iter_mut().zip(weight.chunks_exact(inputs.len())).enumerate() {
            *out = weights.iter().zip(inputs).map(|(w, input)| w * input[i]).sum();
        }
        silu(out);
    }
}

#[cfg(test)]
mod tests;
