//! NEON twins of the loops in `cpu/f32_ops.rs`.
//!
//! [`Neon`] is a proof that the machine has the instructions: it can only be had from
//! [`Neon::new`], so its methods are safe. Shapes have been checked by the caller in `f32_ops.rs`;
//! the pointer kernels rely on that.
//!
//! Two vectors of four stand for one of eight, and the order of summation is that of the AVX2 code
//! (that the bits are the same too is not tested): a dot product has one accumulator of 8 lanes and adds the
//! last `k % 8` products one by one; a matrix product adds over k in ascending order. Neither
//! depends on which tile an element falls into.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use tensor::blocks::{Block, BlockQ8_0, from_bytes};

use super::neon_dot::{half_to_f32, halves_to_f32, load_u16x4};
use crate::f32_ops::{Dims, Rows, RowsMut};

const LANES: usize = 8;

/// Proof that NEON is available.
#[derive(Copy, Clone)]
pub(crate) struct Neon(());

macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {
        impl Neon {
            $(pub(crate) fn $name(self, $($argument: $kind),*) $(-> $result)? {
                // SAFETY: `self` proves that the machine has NEON.
                unsafe { $name($($argument),*) }
            })*
        }
    };
}

forward! {
    dots(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>);
    matmul_add(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>);
    state_step(state: &mut [f32], decay: f32, k: &[f32], q: &[f32], d: &[f32], out: &mut [f32]);
    exp_sum(x: &mut [f32], max: f32) -> f32;
    max(x: &[f32]) -> f32;
    silu_mul(gate: &mut [f32], up: &[f32]);
    scaled_sigmoid_mul(a: f32, x: &[f32], gate: &[f32], out: &mut [f32]);
    scaled_mul_silu(a: f32, weight: &[f32], z: &[f32], o: &mut [f32]);
    axpby(a: f32, x: &[f32], b: f32, y: &mut [f32]);
    conv_silu(weight: &[f32], inputs: &[&[f32]], out: &mut [f32]);
    decode_f16(halves: &[u8], stride: usize, len: usize, out: &mut [f32]);
    encode_f16(values: &[f32], out: &mut [u8]);
    decode_q8_0(blocks: &[u8], stride: usize, len: usize, out: &mut [f32]);
}

impl Neon {
    /// The proof, if the machine has the instructions.
    pub(crate) fn new() -> Option<Neon> {
        is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

// ---- eight lanes --------------------------------------------------------------------------------

/// Lanes 0 to 3 and lanes 4 to 7.
#[derive(Copy, Clone)]
struct Eight(float32x4_t, float32x4_t);

/// Functions of eights from intrinsics of fours.
macro_rules! lanewise {
    ($($name:ident($($argument:ident),*) = $intrinsic:ident;)*) => {
        $(
            #[inline]
            #[target_feature(enable = "neon")]
            fn $name($($argument: Eight),*) -> Eight {
                Eight($intrinsic($($argument.0),*), $intrinsic($($argument.1),*))
            }
        )*
    };
}

lanewise! {
    add(a, b) = vaddq_f32;
    sub(a, b) = vsubq_f32;
    mul(a, b) = vmulq_f32;
    div(a, b) = vdivq_f32;
    larger(a, b) = vmaxq_f32;
    smaller(a, b) = vminq_f32;
    larger_number(a, b) = vmaxnmq_f32;
    neg(a) = vnegq_f32;
    round(a) = vrndnq_f32;
    sum_and_product(sum, a, b) = vfmaq_f32;
    sum_less_product(sum, a, b) = vfmsq_f32;
}

/// `a * b + sum`, rounded once.
#[inline]
#[target_feature(enable = "neon")]
fn fma(a: Eight, b: Eight, sum: Eight) -> Eight {
    sum_and_product(sum, a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn splat(value: f32) -> Eight {
    Eight(vdupq_n_f32(value), vdupq_n_f32(value))
}

/// # Safety
/// 8 floats are readable there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn read(from: *const f32) -> Eight {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe { Eight(vld1q_f32(from), vld1q_f32(from.add(4))) }
}

/// # Safety
/// 8 floats are writable there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn write(to: *mut f32, value: Eight) {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe {
        vst1q_f32(to, value.0);
        vst1q_f32(to.add(4), value.1);
    }
}

/// Elements `at..at + 8` of `x`; those beyond its end are `pad`.
#[inline]
#[target_feature(enable = "neon")]
fn load_or(x: &[f32], at: usize, pad: f32) -> Eight {
    match x[at..].first_chunk::<LANES>() {
        // SAFETY: `lanes` is 8 floats.
        Some(lanes) => unsafe { read(lanes.as_ptr()) },
        None => load_tail(&x[at..], pad),
    }
}

/// Fewer than 8 elements. Out of line, so that the loops stay small.
#[cold]
#[inline(never)]
#[target_feature(enable = "neon")]
fn load_tail(tail: &[f32], pad: f32) -> Eight {
    let mut lanes = [pad; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    // SAFETY: `lanes` is 8 floats.
    unsafe { read(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load(x: &[f32], at: usize) -> Eight {
    load_or(x, at, 0.0)
}

/// Writes elements `at..at + 8` of `x`, as far as it goes.
#[inline]
#[target_feature(enable = "neon")]
fn store(x: &mut [f32], at: usize, value: Eight) {
    match x[at..].first_chunk_mut::<LANES>() {
        // SAFETY: `lanes` is 8 floats.
        Some(lanes) => unsafe { write(lanes.as_mut_ptr(), value) },
        None => store_tail(&mut x[at..], value),
    }
}

#[cold]
#[inline(never)]
#[target_feature(enable = "neon")]
fn store_tail(tail: &mut [f32], value: Eight) {
    let lanes = to_array(value);
    tail.copy_from_slice(&lanes[..tail.len()]);
}

#[inline]
#[target_feature(enable = "neon")]
fn to_array(value: Eight) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: `lanes` is 8 floats.
    unsafe { write(lanes.as_mut_ptr(), value) };
    lanes
}

/// Sum of the lanes: halves, then quarters, then the last pair.
#[inline]
#[target_feature(enable = "neon")]
fn sum_lanes(value: Eight) -> f32 {
    let four = vaddq_f32(value.0, value.1);
    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
}

// ---- elementwise --------------------------------------------------------------------------------

/// exp(x), within 2 units in the last place where the result is normal; NaN stays NaN, large x
/// gives inf, small x 0.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by its Taylor polynomial to r^7, whose remainder,
/// r^8 / 8! < 6e-9, is a tenth of a unit; 2^n in two factors, so that n = 128 overflows and n <
/// -126 underflows as they should.
#[inline]
#[target_feature(enable = "neon")]
fn exp(x: Eight) -> Eight {
    // Beyond these bounds the result is inf or 0. Minimum and maximum keep NaN.
    let x = smaller(splat(89.0), larger(splat(-104.0), x));
    let n = round(mul(x, splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts: the first has 12 trailing zero bits, so that n times it is exact.
    let r = sum_less_product(x, n, splat(LN2_HIGH));
    let r = sum_less_product(r, n, splat(LN2_LOW));
    let mut poly = splat(1.0 / 5040.0);
    for inverse_factorial in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        poly = fma(poly, r, splat(inverse_factorial));
    }
    Eight(times_power_of_two(poly.0, n.0), times_power_of_two(poly.1, n.1))
}

const LN2_HIGH: f32 = 0.693_115_23;
const LN2_LOW: f32 = (std::f64::consts::LN_2 - LN2_HIGH as f64) as f32;

/// `x * 2^n` for whole n, -252 <= n <= 254, by two factors.
#[inline]
#[target_feature(enable = "neon")]
fn times_power_of_two(x: float32x4_t, n: float32x4_t) -> float32x4_t {
    let n = vcvtq_s32_f32(n);
    let half = vshrq_n_s32::<1>(n);
    vmulq_f32(vmulq_f32(x, power_of_two(half)), power_of_two(vsubq_s32(n, half)))
}

/// 2^n for -126 <= n <= 127.
#[inline]
#[target_feature(enable = "neon")]
fn power_of_two(n: int32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))))
}

/// 1 + exp(-x), the divisor of sigmoid and silu.
#[inline]
#[target_feature(enable = "neon")]
fn one_plus_exp_neg(x: Eight) -> Eight {
    add(splat(1.0), exp(neg(x)))
}

#[target_feature(enable = "neon")]
fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    let max = splat(max);
    let mut sums = splat(0.0);
    for at in (0..x.len()).step_by(LANES) {
        let value = exp(sub(load(x, at), max));
        store(x, at, value);
        // Loaded again, so that lanes beyond the end count as 0.
        sums = add(sums, load(x, at));
    }
    sum_lanes(sums)
}

#[target_feature(enable = "neon")]
fn max(x: &[f32]) -> f32 {
    let mut lanes = splat(f32::NEG_INFINITY);
    for at in (0..x.len()).step_by(LANES) {
        lanes = larger_number(lanes, load_or(x, at, f32::NEG_INFINITY));
    }
    to_array(lanes).into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[target_feature(enable = "neon")]
fn silu(x: &mut [f32]) {
    for at in (0..x.len()).step_by(LANES) {
        let value = load(x, at);
        store(x, at, div(value, one_plus_exp_neg(value)));
    }
}

#[target_feature(enable = "neon")]
fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for at in (0..gate.len()).step_by(LANES) {
        let value = load(gate, at);
        let silu = div(value, one_plus_exp_neg(value));
        store(gate, at, mul(silu, load(up, at)));
    }
}

#[target_feature(enable = "neon")]
fn scaled_sigmoid_mul(a: f32, x: &[f32], gate: &[f32], out: &mut [f32]) {
    for at in (0..out.len()).step_by(LANES) {
        let scaled = mul(splat(a), load(x, at));
        store(out, at, div(scaled, one_plus_exp_neg(load(gate, at))));
    }
}

#[target_feature(enable = "neon")]
fn scaled_mul_silu(a: f32, weight: &[f32], z: &[f32], o: &mut [f32]) {
    for at in (0..o.len()).step_by(LANES) {
        let normed = mul(mul(splat(a), load(o, at)), load(weight, at));
        let gate = load(z, at);
        let silu = div(gate, one_plus_exp_neg(gate));
        store(o, at, mul(normed, silu));
    }
}

#[target_feature(enable = "neon")]
fn axpby(a: f32, x: &[f32], b: f32, y: &mut [f32]) {
    let (a, b) = (splat(a), splat(b));
    for at in (0..y.len()).step_by(LANES) {
        let scaled = mul(b, load(y, at));
        store(y, at, fma(a, load(x, at), scaled));
    }
}

/// Eight halves, little endian.
#[inline]
#[target_feature(enable = "neon")]
fn halves(bytes: &[u8; 2 * LANES]) -> Eight {
    let (low, high) = (bytes[..LANES].as_chunks().0, bytes[LANES..].as_chunks().0);
    Eight(halves_to_f32(load_u16x4(&low.as_chunks().0[0])), halves_to_f32(load_u16x4(&high.as_chunks().0[0])))
}

#[target_feature(enable = "neon")]
fn decode_f16(bytes: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    for (row, out) in out.chunks_exact_mut(len).enumerate() {
        let (eights, rest) = bytes[row * stride..][..2 * len].as_chunks::<{ 2 * LANES }>();
        for (i, eight) in eights.iter().enumerate() {
            store(out, i * LANES, halves(eight));
        }
        if !rest.is_empty() {
            let mut eight = [0; 2 * LANES];
            eight[..rest.len()].copy_from_slice(rest);
            store(out, eights.len() * LANES, halves(&eight));
        }
    }
}

/// To the nearest halves, ties to even; the conversion that every processor with NEON has.
#[inline]
#[target_feature(enable = "neon")]
fn nearest_halves(values: float32x4_t) -> [u8; LANES] {
    let halves: uint16x4_t;
    // SAFETY: computes a register from a register.
    unsafe {
        asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) halves, in(vreg) values,
            options(pure, nomem, nostack, preserves_flags));
    }
    let mut bytes = [0; LANES];
    // SAFETY: 8 bytes; no alignment is needed.
    unsafe { vst1_u8(bytes.as_mut_ptr(), vreinterpret_u8_u16(halves)) };
    bytes
}

/// Values within what halves hold; what is not finite stays.
#[inline]
#[target_feature(enable = "neon")]
fn saturated(values: float32x4_t) -> float32x4_t {
    const LARGEST: f32 = 65504.0;
    // Minimum and maximum of a NaN are a NaN.
    let bounded = vmaxq_f32(vdupq_n_f32(-LARGEST), vminq_f32(vdupq_n_f32(LARGEST), values));
    vbslq_f32(vceqq_f32(vabsq_f32(values), vdupq_n_f32(f32::INFINITY)), values, bounded)
}

#[target_feature(enable = "neon")]
fn encode_f16(values: &[f32], out: &mut [u8]) {
    for (out, at) in out.chunks_mut(2 * LANES).zip((0..).step_by(LANES)) {
        let Eight(low, high) = load(values, at);
        let mut bytes = [0; 2 * LANES];
        bytes[..LANES].copy_from_slice(&nearest_halves(saturated(low)));
        bytes[LANES..].copy_from_slice(&nearest_halves(saturated(high)));
        out.copy_from_slice(&bytes[..out.len()]);
    }
}

#[target_feature(enable = "neon")]
fn decode_q8_0(blocks: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    let row_bytes = len / BlockQ8_0::LEN * size_of::<BlockQ8_0>();
    for (row, out) in out.chunks_exact_mut(len).enumerate() {
        let blocks = from_bytes::<BlockQ8_0>(&blocks[row * stride..][..row_bytes]);
        for (block, out) in blocks.iter().zip(out.chunks_exact_mut(BlockQ8_0::LEN)) {
            let scale = splat(half_to_f32(block.d));
            for (i, codes) in block.codes.as_chunks::<LANES>().0.iter().enumerate() {
                // SAFETY: 8 bytes; no alignment is needed.
                let codes = vmovl_s8(unsafe { vld1_s8(codes.as_ptr()) });
                let codes = Eight(
                    vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes))),
                    vcvtq_f32_s32(vmovl_s16(vget_high_s16(codes))),
                );
                store(out, i * LANES, mul(scale, codes));
            }
        }
    }
}

/// Taps of the usual kernel, which is transposed in registers.
const TAPS: usize = 4;

#[target_feature(enable = "neon")]
fn conv_silu(weight: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
    let mut done = 0;
    if let &[oldest, older, last, current] = inputs {
        done = out.len() / LANES * LANES;
        for at in (0..done).step_by(LANES) {
            let [w0, w1, w2, w3] = load_taps(&weight[at * TAPS..]);
            let mut sum = mul(w0, load(oldest, at));
            sum = fma(w1, load(older, at), sum);
            sum = fma(w2, load(last, at), sum);
            sum = fma(w3, load(current, at), sum);
            store(out, at, div(sum, one_plus_exp_neg(sum)));
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
    silu(&mut out[done..]);
}

/// The first 8 rows of [channels, 4], transposed.
#[inline]
#[target_feature(enable = "neon")]
fn load_taps(weight: &[f32]) -> [Eight; TAPS] {
    let rows = &weight[..LANES * TAPS];
    // SAFETY: 16 floats from each of the two places on are inside `rows`.
    let (low, high) = unsafe { (vld4q_f32(rows.as_ptr()), vld4q_f32(rows.as_ptr().add(16))) };
    [Eight(low.0, high.0), Eight(low.1, high.1), Eight(low.2, high.2), Eight(low.3, high.3)]
}

/// A matrix by pointer, for the tiles below.
#[derive(Copy, Clone)]
struct Source {
    data: *const f32,
    stride: usize,
}

#[derive(Copy, Clone)]
struct Target {
    data: *mut f32,
    stride: usize,
}

impl Source {
    fn of(rows: Rows<'_>) -> Source {
        Source { data: rows.data.as_ptr(), stride: rows.stride }
    }

    /// # Safety
    /// Element (row, col) lies in the matrix.
    #[inline(always)]
    unsafe fn at(self, row: usize, col: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.data.add(row * self.stride + col) }
    }
}

impl Target {
    /// # Safety
    /// Element (row, col) lies in the matrix.
    #[inline(always)]
    unsafe fn at(self, row: usize, col: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.data.add(row * self.stride + col) }
    }
}

#[target_feature(enable = "neon")]
fn dots(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>) {
    let (a, b) = (Source::of(a), Source::of(b));
    let c = Target { data: c.data.as_mut_ptr(), stride: c.stride };
    let mut i = 0;
    while i < dims.m {
        let tall = dims.m - i >= 4;
        let mut j = 0;
        while j < dims.n {
            // SAFETY: the tile lies inside [m, n] by the conditions; the matrices have been checked
            // against `dims`.
            unsafe {
                match (tall, dims.n - j) {
                    (true, 2..) => dots_tile::<4, 2>(dims.k, (i, j), a, b, c),
                    (true, _) => dots_tile::<4, 1>(dims.k, (i, j), a, b, c),
                    (false, 4..) => dots_tile::<1, 4>(dims.k, (i, j), a, b, c),
                    (false, _) => dots_tile::<1, 1>(dims.k, (i, j), a, b, c),
                }
            }
            j += match (tall, dims.n - j) {
                (true, 2..) => 2,
                (false, 4..) => 4,
                _ => 1,
            };
        }
        i += if tall { 4 } else { 1 };
    }
}

/// `c[i..i + R][j..j + C]` of `c = a b^T`.
///
/// # Safety
/// a has rows i..i + R and b rows j..j + C of k elements; c has the tile.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn dots_tile<const R: usize, const C: usize>(
    k: usize,
    (i, j): (usize, usize),
    a: Source,
    b: Source,
    c: Target,
) {
    let mut sums = [[splat(0.0); C]; R];
    let whole = k / LANES * LANES;
    for l in (0..whole).step_by(LANES) {
        let mut right = [splat(0.0); C];
        for (col, right) in right.iter_mut().enumerate() {
            // SAFETY: l + 8 <= k.
            *right = unsafe { read(b.at(j + col, l)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: l + 8 <= k.
            let left = unsafe { read(a.at(i + row, l)) };
            for (sum, &right) in sums.iter_mut().zip(&right) {
                *sum = fma(left, right, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (col, &sum) in sums.iter().enumerate() {
            let mut sum = sum_lanes(sum);
            for l in whole..k {
                // SAFETY: l < k.
                let (left, right) = unsafe { (*a.at(i + row, l), *b.at(j + col, l)) };
                sum = left.mul_add(right, sum);
            }
            // SAFETY: inside the tile.
            unsafe { *c.at(i + row, j + col) = sum };
        }
    }
}

/// Rows of `b` that are copied into a panel at a time.
const PANEL_ROWS: usize = 128;
/// Columns of a panel: two eights.
const PANEL_COLS: usize = 2 * LANES;
/// From this many rows of `a` on, copying a panel pays: rows of `b` lie a power of two apart as a
/// rule, so that a column of them falls into a few sets of the first-level cache.
const PANEL_USES_MIN: usize = 12;
/// Rows of `b` taken at a time by few rows of `a`: long contiguous reads, so that the prefetcher
/// keeps up.
const STREAMED_ROWS: usize = 8;

/// Sums are carried in `c` from one block of k to the next, which changes no bit: they are f32 in
/// registers too.
#[target_feature(enable = "neon")]
fn matmul_add(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>) {
    let (a, b) = (Source::of(a), Source::of(b));
    let c = Target { data: c.data.as_mut_ptr(), stride: c.stride };
    let packed = dims.m >= PANEL_USES_MIN;
    let block = match dims.m {
        0..4 => dims.k.max(1),
        _ if packed => PANEL_ROWS,
        _ => STREAMED_ROWS,
    };
    for l in (0..dims.k).step_by(block) {
        let dims = Dims { k: block.min(dims.k - l), ..dims };
        // SAFETY: l < k; the matrices have been checked against the whole `dims`.
        unsafe {
            let a = Source { data: a.at(0, l), ..a };
            let b = Source { data: b.at(l, 0), ..b };
            if packed { matmul_packed(dims, a, b, c) } else { matmul_columns(dims, 0, a, b, c) }
        }
    }
}

/// # Safety
/// The operands have the shape `dims`, with k <= PANEL_ROWS.
#[target_feature(enable = "neon")]
unsafe fn matmul_packed(dims: Dims, a: Source, b: Source, c: Target) {
    let mut panel = [0.0_f32; PANEL_ROWS * PANEL_COLS];
    let whole = dims.n / PANEL_COLS * PANEL_COLS;
    for j in (0..whole).step_by(PANEL_COLS) {
        for (l, row) in panel.chunks_exact_mut(PANEL_COLS).take(dims.k).enumerate() {
            // SAFETY: l < k and 16 columns from j on are inside n; `row` is 16 floats.
            unsafe { std::ptr::copy_nonoverlapping(b.at(l, j), row.as_mut_ptr(), PANEL_COLS) };
        }
        let panel = Source { data: panel.as_ptr(), stride: PANEL_COLS };
        // SAFETY: the panel stands for columns j..j + 16 of b, and c is moved there.
        unsafe {
            let c = Target { data: c.at(0, j), ..c };
            matmul_columns(Dims { n: PANEL_COLS, ..dims }, 0, a, panel, c);
        }
    }
    // SAFETY: the columns that are left are inside n.
    unsafe { matmul_columns(dims, whole, a, b, c) };
}

/// Columns `first..n`.
///
/// # Safety
/// The operands have the shape `dims`, and `first <= n`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn matmul_columns(dims: Dims, first: usize, a: Source, b: Source, c: Target) {
    let tall = dims.m / 4 * 4;
    let mut j = first;
    while tall > 0 && dims.n - j >= LANES {
        let wide = dims.n - j >= 2 * LANES;
        for i in (0..tall).step_by(4) {
            // SAFETY: i + 4 <= m and the columns are inside n.
            unsafe {
                match wide {
                    true => matmul_tile::<4, 2>(dims.k, (i, j), a, b, c),
                    false => matmul_tile::<4, 1>(dims.k, (i, j), a, b, c),
                }
            }
        }
        j += if wide { 2 * LANES } else { LANES };
    }
    let whole = first + (dims.n - first) / LANES * LANES;
    for i in tall..dims.m {
        let mut j = first;
        while j < whole {
            // SAFETY: i < m and the columns are inside n.
            unsafe {
                match whole - j {
                    64.. => matmul_tile::<1, 8>(dims.k, (i, j), a, b, c),
                    16.. => matmul_tile::<1, 2>(dims.k, (i, j), a, b, c),
                    _ => matmul_tile::<1, 1>(dims.k, (i, j), a, b, c),
                }
            }
            j += match whole - j {
                64.. => 64,
                16.. => 16,
                _ => 8,
            };
        }
    }
    for i in 0..dims.m {
        for j in whole..dims.n {
            // SAFETY: i < m, j < n.
            unsafe { matmul_one(dims.k, (i, j), a, b, c) };
        }
    }
}

/// `c[i..i + R][j..j + 8 V] += a b`.
///
/// # Safety
/// a has rows i..i + R of k elements, b k rows with columns j..j + 8 V, and c has the tile.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn matmul_tile<const R: usize, const V: usize>(
    k: usize,
    (i, j): (usize, usize),
    a: Source,
    b: Source,
    c: Target,
) {
    let mut sums = [[splat(0.0); V]; R];
    for (row, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            // SAFETY: inside the tile.
            *sum = unsafe { read(c.at(i + row, j + v * LANES)) };
        }
    }
    for l in 0..k {
        let mut right = [splat(0.0); V];
        for (v, right) in right.iter_mut().enumerate() {
            // SAFETY: l < k, columns inside b.
            *right = unsafe { read(b.at(l, j + v * LANES)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: l < k.
            let left = unsafe { splat(*a.at(i + row, l)) };
            for (sum, &right) in sums.iter_mut().zip(&right) {
                *sum = fma(left, right, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: inside the tile.
            unsafe { write(c.at(i + row, j + v * LANES), sum) };
        }
    }
}

/// `c[i][j] += a[i] b[..][j]`.
///
/// # Safety
/// a has row i of k elements, b k rows with column j, and c has (i, j).
#[inline]
#[target_feature(enable = "neon")]
unsafe fn matmul_one(k: usize, (i, j): (usize, usize), a: Source, b: Source, c: Target) {
    // SAFETY: the caller's promise.
    let mut sum = unsafe { *c.at(i, j) };
    for l in 0..k {
        // SAFETY: l < k.
        let (left, right) = unsafe { (*a.at(i, l), *b.at(l, j)) };
        sum = left.mul_add(right, sum);
    }
    // SAFETY: the caller's promise.
    unsafe { *c.at(i, j) = sum };
}

#[target_feature(enable = "neon")]
fn state_step(state: &mut [f32], decay: f32, k: &[f32], q: &[f32], d: &[f32], out: &mut [f32]) {
    let width = d.len();
    let state = Target { data: state.as_mut_ptr(), stride: width };
    let mut j = 0;
    while width - j >= LANES {
        // SAFETY: the caller has checked that the state is [k.len(), d.len()]; the columns are
        // inside the width.
        unsafe {
            match width - j {
                32.. => state_columns::<4>(state, j, decay, (k, q), d, out),
                _ => state_columns::<1>(state, j, decay, (k, q), d, out),
            }
        }
        j += if width - j >= 32 { 32 } else { 8 };
    }
    for j in j..width {
        let mut sum = 0.0_f32;
        for (i, (&k, &q)) in k.iter().zip(q).enumerate() {
            // SAFETY: i < dk, j < dv.
            let s = unsafe { &mut *state.at(i, j) };
            *s = k.mul_add(d[j], decay * *s);
            sum = q.mul_add(*s, sum);
        }
        out[j] = sum;
    }
}

/// [`state_step`] for columns `j..j + 8 V`.
///
/// # Safety
/// The state has k.len() rows with those columns.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn state_columns<const V: usize>(
    state: Target,
    j: usize,
    decay: f32,
    (k, q): (&[f32], &[f32]),
    d: &[f32],
    out: &mut [f32],
) {
    let decay = splat(decay);
    let mut sums = [splat(0.0); V];
    let mut written = [splat(0.0); V];
    for (v, written) in written.iter_mut().enumerate() {
        *written = load(d, j + v * LANES);
    }
    for (i, (&k, &q)) in k.iter().zip(q).enumerate() {
        let (k, q) = (splat(k), splat(q));
        for (v, (sum, &written)) in sums.iter_mut().zip(&written).enumerate() {
            // SAFETY: i < dk, columns inside the state.
            let s = unsafe { state.at(i, j + v * LANES) };
            // SAFETY: 8 floats of row i.
            let old = unsafe { read(s) };
            let new = fma(k, written, mul(decay, old));
            // SAFETY: as above.
            unsafe { write(s, new) };
            *sum = fma(q, new, *sum);
        }
    }
    for (v, &sum) in sums.iter().enumerate() {
        store(out, j + v * LANES, sum);
    }
}
