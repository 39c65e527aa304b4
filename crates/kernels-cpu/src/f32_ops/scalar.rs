//! Plain loops that the compiler may vectorise for the baseline instruction set.

use tensor::Format;

use super::operands::{Dims, Rows, RowsMut};

const LANES: usize = 8;

/// Rows by the codec of their format; the lengths have been checked.
fn decode_rows(format: Format, bytes: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    let row_bytes = len / format.block_len() * format.block_bytes();
    for (row, out) in out.chunks_exact_mut(len).enumerate() {
        let decoded = format.decode_row(&bytes[row * stride..][..row_bytes], out);
        decoded.unwrap_or_else(|error| panic!("{error}"));
    }
}

pub(crate) fn decode_f16(halves: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    decode_rows(Format::F16, halves, stride, len, out);
}

pub(crate) fn decode_q8_0(blocks: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    decode_rows(Format::Q8_0, blocks, stride, len, out);
}

pub(crate) fn encode_f16(values: &[f32], out: &mut [u8]) {
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

pub(crate) fn dots(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>) {
    for i in 0..dims.m {
        let a = a.row(i, dims.k);
        for (j, c) in c.row(i, dims.n).iter_mut().enumerate() {
            *c = dot(a, b.row(j, dims.k));
        }
    }
}

pub(crate) fn matmul_add(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>) {
    for i in 0..dims.m {
        let c = c.row(i, dims.n);
        for (l, &a) in a.row(i, dims.k).iter().enumerate() {
            for (c, &b) in c.iter_mut().zip(b.row(l, dims.n)) {
                *c += a * b;
            }
        }
    }
}

pub(crate) fn state_step(state: &mut [f32], decay: f32, k: &[f32], q: &[f32], d: &[f32], out: &mut [f32]) {
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

pub(crate) fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for (at, x) in x.iter_mut().enumerate() {
        *x = (*x - max).exp();
        sums[at % LANES] += *x;
    }
    sums.iter().sum()
}

pub(crate) fn max(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x))
}

fn silu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x *= sigmoid(*x));
}

pub(crate) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, &up) in gate.iter_mut().zip(up) {
        *gate = *gate * sigmoid(*gate) * up;
    }
}

pub(crate) fn scaled_sigmoid_mul(a: f32, x: &[f32], gate: &[f32], out: &mut [f32]) {
    for ((out, &x), &gate) in out.iter_mut().zip(x).zip(gate) {
        *out = a * x * sigmoid(gate);
    }
}

pub(crate) fn scaled_mul_silu(a: f32, weight: &[f32], z: &[f32], o: &mut [f32]) {
    for ((o, &weight), &z) in o.iter_mut().zip(weight).zip(z) {
        *o = a * *o * weight * (z * sigmoid(z));
    }
}

pub(crate) fn axpby(a: f32, x: &[f32], b: f32, y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = b * *y + a * x;
    }
}

pub(crate) fn conv_silu(weight: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
    for (i, (out, weights)) in out.iter_mut().zip(weight.chunks_exact(inputs.len())).enumerate() {
        *out = weights.iter().zip(inputs).map(|(w, input)| w * input[i]).sum();
    }
    silu(out);
}

/// Sum of squares in f64, eight lanes: a norm's error must not grow with the row.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
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
