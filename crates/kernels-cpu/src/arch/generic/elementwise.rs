//! Loops that take a row element by element.

use tensor::blocks::{Block, BlockQ8_0, from_bytes};

use crate::arch::vector::{LANES, TAPS, Vector};

/// Elements `at..at + 8` of `x`; those beyond its end are `pad`.
#[inline(always)]
fn load_or<V: Vector>(v: V, x: &[f32], at: usize, pad: f32) -> V::Lanes {
    match x[at..].first_chunk() {
        Some(lanes) => v.read(lanes),
        None => v.read(&padded(&x[at..], pad)),
    }
}

/// Fewer than 8 elements. Out of line, so that the loops stay small.
#[cold]
#[inline(never)]
fn padded(tail: &[f32], pad: f32) -> [f32; LANES] {
    let mut lanes = [pad; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    lanes
}

#[inline(always)]
pub(super) fn load<V: Vector>(v: V, x: &[f32], at: usize) -> V::Lanes {
    load_or(v, x, at, 0.0)
}

/// Writes elements `at..at + 8` of `x`, as far as it goes.
#[inline(always)]
pub(super) fn store<V: Vector>(v: V, x: &mut [f32], at: usize, value: V::Lanes) {
    match x[at..].first_chunk_mut() {
        Some(lanes) => v.write(value, lanes),
        None => store_tail(&mut x[at..], &to_array(v, value)),
    }
}

#[cold]
#[inline(never)]
fn store_tail(tail: &mut [f32], lanes: &[f32; LANES]) {
    tail.copy_from_slice(&lanes[..tail.len()]);
}

#[inline(always)]
fn to_array<V: Vector>(v: V, value: V::Lanes) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    v.write(value, &mut lanes);
    lanes
}

/// exp(x), within 2 units in the last place where the result is normal; NaN stays NaN, large x
/// gives inf, small x 0.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by its Taylor polynomial to r^7, whose remainder,
/// r^8 / 8! < 6e-9, is a tenth of a unit.
#[inline(always)]
fn exp<V: Vector>(v: V, x: V::Lanes) -> V::Lanes {
    // Beyond these bounds the result is inf or 0.
    let x = v.at_most(v.splat(89.0), v.at_least(v.splat(-104.0), x));
    let n = v.round(v.mul(x, v.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: the first has 12 trailing zero bits, so that n times it is exact.
    let r = v.mul_sub_from(n, v.splat(LN2_HIGH), x);
    let r = v.mul_sub_from(n, v.splat(LN2_LOW), r);
    let mut poly = v.splat(1.0 / 5040.0);
    for inverse_factorial in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        poly = v.mul_add(poly, r, v.splat(inverse_factorial));
    }
    v.scale_by_power_of_two(poly, n)
}

const LN2_HIGH: f32 = 0.693_115_23;
const LN2_LOW: f32 = (std::f64::consts::LN_2 - LN2_HIGH as f64) as f32;

/// 1 + exp(-x), the divisor of sigmoid and silu.
#[inline(always)]
fn one_plus_exp_neg<V: Vector>(v: V, x: V::Lanes) -> V::Lanes {
    v.add(v.splat(1.0), exp(v, v.neg(x)))
}

#[inline(always)]
fn silu_of<V: Vector>(v: V, x: V::Lanes) -> V::Lanes {
    v.div(x, one_plus_exp_neg(v, x))
}

#[inline(always)]
pub(crate) fn exp_sum<V: Vector>(v: V, x: &mut [f32], max: f32) -> f32 {
    let max = v.splat(max);
    let mut sums = v.splat(0.0);
    for at in (0..x.len()).step_by(LANES) {
        let value = exp(v, v.sub(load(v, x, at), max));
        store(v, x, at, value);
        // Loaded again, so that lanes beyond the end count as 0.
        sums = v.add(sums, load(v, x, at));
    }
    v.sum_of_lanes(sums)
}

#[inline(always)]
pub(crate) fn max<V: Vector>(v: V, x: &[f32]) -> f32 {
    let mut lanes = v.splat(f32::NEG_INFINITY);
    for at in (0..x.len()).step_by(LANES) {
        lanes = v.larger_number(lanes, load_or(v, x, at, f32::NEG_INFINITY));
    }
    to_array(v, lanes).into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
fn silu<V: Vector>(v: V, x: &mut [f32]) {
    for at in (0..x.len()).step_by(LANES) {
        store(v, x, at, silu_of(v, load(v, x, at)));
    }
}

#[inline(always)]
pub(crate) fn silu_mul<V: Vector>(v: V, gate: &mut [f32], up: &[f32]) {
    for at in (0..gate.len()).step_by(LANES) {
        let silu = silu_of(v, load(v, gate, at));
        store(v, gate, at, v.mul(silu, load(v, up, at)));
    }
}

#[inline(always)]
pub(crate) fn scaled_sigmoid_mul<V: Vector>(v: V, a: f32, x: &[f32], gate: &[f32], out: &mut [f32]) {
    for at in (0..out.len()).step_by(LANES) {
        let scaled = v.mul(v.splat(a), load(v, x, at));
        store(v, out, at, v.div(scaled, one_plus_exp_neg(v, load(v, gate, at))));
    }
}

#[inline(always)]
pub(crate) fn scaled_mul_silu<V: Vector>(v: V, a: f32, weight: &[f32], z: &[f32], o: &mut [f32]) {
    for at in (0..o.len()).step_by(LANES) {
        let normed = v.mul(v.mul(v.splat(a), load(v, o, at)), load(v, weight, at));
        store(v, o, at, v.mul(normed, silu_of(v, load(v, z, at))));
    }
}

#[inline(always)]
pub(crate) fn axpby<V: Vector>(v: V, a: f32, x: &[f32], b: f32, y: &mut [f32]) {
    let (a, b) = (v.splat(a), v.splat(b));
    for at in (0..y.len()).step_by(LANES) {
        let scaled = v.mul(b, load(v, y, at));
        store(v, y, at, v.mul_add(a, load(v, x, at), scaled));
    }
}

#[inline(always)]
pub(crate) fn decode_f16<V: Vector>(v: V, halves: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    for (row, out) in out.chunks_exact_mut(len).enumerate() {
        let (halves, rest) = halves[row * stride..][..2 * len].as_chunks::<{ 2 * LANES }>();
        let (lanes, tail) = out.as_chunks_mut::<LANES>();
        for (halves, lanes) in halves.iter().zip(lanes) {
            v.write(v.read_halves(halves), lanes);
        }
        if !tail.is_empty() {
            let mut bytes = [0; 2 * LANES];
            bytes[..rest.len()].copy_from_slice(rest);
            store_tail(tail, &to_array(v, v.read_halves(&bytes)));
        }
    }
}

#[inline(always)]
pub(crate) fn encode_f16<V: Vector>(v: V, values: &[f32], out: &mut [u8]) {
    for (out, at) in out.chunks_mut(2 * LANES).zip((0..).step_by(LANES)) {
        let bytes = v.to_halves(load(v, values, at));
        out.copy_from_slice(&bytes[..out.len()]);
    }
}

#[inline(always)]
pub(crate) fn decode_q8_0<V: Vector>(v: V, blocks: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    let row_bytes = len / BlockQ8_0::LEN * size_of::<BlockQ8_0>();
    for (row, out) in out.chunks_exact_mut(len).enumerate() {
        let blocks = from_bytes::<BlockQ8_0>(&blocks[row * stride..][..row_bytes]);
        let (lanes, _) = out.as_chunks_mut::<LANES>();
        for (block, lanes) in blocks.iter().zip(lanes.as_chunks_mut::<4>().0) {
            let scale = v.splat_half(block.d);
            for (codes, lanes) in block.codes.as_chunks::<LANES>().0.iter().zip(lanes) {
                v.write(v.mul(scale, v.read_codes(codes)), lanes);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn conv_silu<V: Vector>(v: V, weight: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
    let mut done = 0;
    if let &[oldest, older, last, current] = inputs {
        done = out.len() / LANES * LANES;
        let weights = weight.as_chunks::<{ LANES * TAPS }>().0.iter();
        let before = oldest.as_chunks().0.iter().zip(older.as_chunks().0).zip(last.as_chunks().0);
        let now = current.as_chunks().0.iter().zip(out.as_chunks_mut().0);
        for ((weights, ((oldest, older), last)), (current, out)) in weights.zip(before).zip(now) {
            let [w0, w1, w2, w3] = v.read_transposed(weights);
            let mut sum = v.mul(w0, v.read(oldest));
            sum = v.mul_add(w1, v.read(older), sum);
            sum = v.mul_add(w2, v.read(last), sum);
            sum = v.mul_add(w3, v.read(current), sum);
            v.write(silu_of(v, sum), out);
        }
    }
    let taps = inputs.len();
    for (i, out) in out.iter_mut().enumerate().skip(done) {
        let mut sum = weight[i * taps] * inputs[0][i];
        for (tap, input) in inputs.iter().enumerate().skip(1) {
            sum = weight[i * taps + tap].mul_add(input[i], sum);
        }
        *out = sum;
    }
    silu(v, &mut out[done..]);
}
