//! AVX2 + FMA (+ F16C) twins of the loops in `cpu/f32_ops.rs`.
//!
//! [`Avx2`] is a proof that the machine has the instructions: it can only be had from
//! [`Avx2::new`], so its methods are safe. Shapes have been checked by the caller in `f32_ops.rs`;
//! the pointer kernels rely on that.
//!
//! Order of summation: a dot product has one accumulator of 8 lanes and adds the last `k % 8`
//! products one by one; a matrix product adds over k in ascending order. Neither depends on which
//! tile an element falls into.

use std::arch::x86_64::*;

use tensor::blocks::{Block, BlockQ8_0, from_bytes};

use crate::f32_ops::{Dims, Rows, RowsMut};

const LANES: usize = 8;

/// Proof that AVX2, FMA and F16C are available.
#[derive(Copy, Clone)]
pub(crate) struct Avx2(());

macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {
        impl Avx2 {
            $(pub(crate) fn $name(self, $($argument: $kind),*) $(-> $result)? {
                // SAFETY: `self` proves that the machine has AVX2, FMA and F16C.
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

impl Avx2 {
    /// The proof, if the machine has the instructions.
    pub(crate) fn new() -> Option<Avx2> {
        let available = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        available.then_some(Avx2(()))
    }
}

/// Elements `at..at + 8` of `x`; those beyond its end are `pad`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_or(x: &[f32], at: usize, pad: f32) -> __m256 {
    match x[at..].first_chunk::<LANES>() {
        // SAFETY: `lanes` is 8 floats; no alignment is needed.
        Some(lanes) => unsafe { _mm256_loadu_ps(lanes.as_ptr()) },
        None => load_tail(&x[at..], pad),
    }
}

/// Fewer than 8 elements. Out of line, so that the loops stay small.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn load_tail(tail: &[f32], pad: f32) -> __m256 {
    let mut lanes = [pad; LANES];
    lanes[..tail.len()].copy_from_slice(tail);
    // SAFETY: `lanes` is 8 floats; no alignment is needed.
    unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(x: &[f32], at: usize) -> __m256 {
    load_or(x, at, 0.0)
}

/// Writes elements `at..at + 8` of `x`, as far as it goes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(x: &mut [f32], at: usize, value: __m256) {
    match x[at..].first_chunk_mut::<LANES>() {
        // SAFETY: `lanes` is 8 floats; no alignment is needed.
        Some(lanes) => unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), value) },
        None => store_tail(&mut x[at..], value),
    }
}

#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn store_tail(tail: &mut [f32], value: __m256) {
    let lanes = to_array(value);
    tail.copy_from_slice(&lanes[..tail.len()]);
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn to_array(value: __m256) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: `lanes` is 8 floats; no alignment is needed.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), value) };
    lanes
}

/// Sum of the lanes: halves, then quarters, then the last pair.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum_lanes(value: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// exp(x), within 2 units in the last place where the result is normal; NaN stays NaN, large x
/// gives inf, small x 0.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by its Taylor polynomial to r^7, whose remainder,
/// r^8 / 8! < 6e-9, is a tenth of a unit; 2^n in two factors, so that n = 128 overflows and n <
/// -126 underflows as they should.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp(x: __m256) -> __m256 {
    // Beyond these bounds the result is inf or 0. Operand order: max and min return the second
    // operand when one is NaN.
    let x = _mm256_min_ps(_mm256_set1_ps(89.0), _mm256_max_ps(_mm256_set1_ps(-104.0), x));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    // ln 2 in two parts: the first has 12 trailing zero bits, so that n times it is exact.
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2_HIGH), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2_LOW), r);
    let mut poly = _mm256_set1_ps(1.0 / 5040.0);
    for inverse_factorial in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        poly = _mm256_fmadd_ps(poly, r, _mm256_set1_ps(inverse_factorial));
    }
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let scaled = _mm256_mul_ps(poly, power_of_two(half));
    _mm256_mul_ps(scaled, power_of_two(_mm256_sub_epi32(n, half)))
}

const LN2_HIGH: f32 = 0.693_115_23;
const LN2_LOW: f32 = (std::f64::consts::LN_2 - LN2_HIGH as f64) as f32;

/// 2^n for -126 <= n <= 127.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn power_of_two(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

/// 1 + exp(-x), the divisor of sigmoid and silu.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn one_plus_exp_neg(x: __m256) -> __m256 {
    _mm256_add_ps(_mm256_set1_ps(1.0), exp(_mm256_xor_ps(x, _mm256_set1_ps(-0.0))))
}

#[target_feature(enable = "avx2,fma")]
fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    let max = _mm256_set1_ps(max);
    let mut sums = _mm256_setzero_ps();
    for at in (0..x.len()).step_by(LANES) {
        let value = exp(_mm256_sub_ps(load(x, at), max));
        store(x, at, value);
        // Loaded again, so that lanes beyond the end count as 0.
        sums = _mm256_add_ps(sums, load(x, at));
    }
    sum_lanes(sums)
}

#[target_feature(enable = "avx2,fma")]
fn max(x: &[f32]) -> f32 {
    let mut lanes = _mm256_set1_ps(f32::NEG_INFINITY);
    for at in (0..x.len()).step_by(LANES) {
        lanes = _mm256_max_ps(lanes, load_or(x, at, f32::NEG_INFINITY));
    }
    to_array(lanes).into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[target_feature(enable = "avx2,fma")]
fn silu(x: &mut [f32]) {
    for at in (0..x.len()).step_by(LANES) {
        let value = load(x, at);
        store(x, at, _mm256_div_ps(value, one_plus_exp_neg(value)));
    }
}

#[target_feature(enable = "avx2,fma")]
fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for at in (0..gate.len()).step_by(LANES) {
        let value = load(gate, at);
        let silu = _mm256_div_ps(value, one_plus_exp_neg(value));
        store(gate, at, _mm256_mul_ps(silu, load(up, at)));
    }
}

#[target_feature(enable = "avx2,fma")]
fn scaled_sigmoid_mul(a: f32, x: &[f32], gate: &[f32], out: &mut [f32]) {
    for at in (0..out.len()).step_by(LANES) {
        let scaled = _mm256_mul_ps(_mm256_set1_ps(a), load(x, at));
        store(out, at, _mm256_div_ps(scaled, one_plus_exp_neg(load(gate, at))));
    }
}

#[target_feature(enable = "avx2,fma")]
fn scaled_mul_silu(a: f32, weight: &[f32], z: &[f32], o: &mut [f32]) {
    for at in (0..o.len()).step_by(LANES) {
        let normed = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(a), load(o, at)), load(weight, at));
        let gate = load(z, at);
        let silu = _mm256_div_ps(gate, one_plus_exp_neg(gate));
        store(o, at, _mm256_mul_ps(normed, silu));
    }
}

#[target_feature(enable = "avx2,fma")]
fn axpby(a: f32, x: &[f32], b: f32, y: &mut [f32]) {
    let (a, b) = (_mm256_set1_ps(a), _mm256_set1_ps(b));
    for at in (0..y.len()).step_by(LANES) {
        let scaled = _mm256_mul_ps(b, load(y, at));
        store(y, at, _mm256_fmadd_ps(a, load(x, at), scaled));
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn decode_f16(halves: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    for (row, out) in out.chunks_exact_mut(len).enumerate() {
        let (halves, rest) = halves[row * stride..][..2 * len].as_chunks::<{ 2 * LANES }>();
        let (lanes, tail) = out.as_chunks_mut::<LANES>();
        for (halves, lanes) in halves.iter().zip(lanes) {
            // SAFETY: 16 bytes and 8 floats; no alignment is needed.
            unsafe {
                let halves = _mm_loadu_si128(halves.as_ptr().cast());
                _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_cvtph_ps(halves));
            }
        }
        if !tail.is_empty() {
            let mut bytes = [0; 2 * LANES];
            bytes[..rest.len()].copy_from_slice(rest);
            // SAFETY: 16 bytes; no alignment is needed.
            let halves = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
            store_tail(tail, _mm256_cvtph_ps(halves));
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn encode_f16(values: &[f32], out: &mut [u8]) {
    const LARGEST: f32 = 65504.0;
    let infinity = _mm256_set1_ps(f32::INFINITY);
    for (out, at) in out.chunks_mut(2 * LANES).zip((0..).step_by(LANES)) {
        let values = load(values, at);
        // Operand order: max and min return the second operand when one is NaN.
        let bounded = _mm256_min_ps(_mm256_set1_ps(LARGEST), values);
        let bounded = _mm256_max_ps(_mm256_set1_ps(-LARGEST), bounded);
        let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), values);
        let infinite = _mm256_cmp_ps::<_CMP_EQ_OQ>(magnitude, infinity);
        let values = _mm256_blendv_ps(bounded, values, infinite);
        let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
        let mut bytes = [0; 2 * LANES];
        // SAFETY: 16 bytes; no alignment is needed.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), halves) };
        out.copy_from_slice(&bytes[..out.len()]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn decode_q8_0(blocks: &[u8], stride: usize, len: usize, out: &mut [f32]) {
    let row_bytes = len / BlockQ8_0::LEN * size_of::<BlockQ8_0>();
    for (row, out) in out.chunks_exact_mut(len).enumerate() {
        let blocks = from_bytes::<BlockQ8_0>(&blocks[row * stride..][..row_bytes]);
        let (lanes, _) = out.as_chunks_mut::<LANES>();
        for (block, lanes) in blocks.iter().zip(lanes.as_chunks_mut::<4>().0) {
            let scale = _mm256_cvtph_ps(_mm_set1_epi16(block.d.to_bits().cast_signed()));
            for (codes, lanes) in block.codes.as_chunks::<LANES>().0.iter().zip(lanes) {
                // SAFETY: 8 bytes and 8 floats; no alignment is needed.
                unsafe {
                    let codes = _mm_loadl_epi64(codes.as_ptr().cast());
                    let codes = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
                    _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_mul_ps(scale, codes));
                }
            }
        }
    }
}

/// Taps of the usual kernel, which is transposed in registers.
const TAPS: usize = 4;

#[target_feature(enable = "avx2,fma")]
fn conv_silu(weight: &[f32], inputs: &[&[f32]], out: &mut [f32]) {
    let mut done = 0;
    if let &[oldest, older, last, current] = inputs {
        done = out.len() / LANES * LANES;
        for at in (0..done).step_by(LANES) {
            let [w0, w1, w2, w3] = load_taps(&weight[at * TAPS..]);
            let mut sum = _mm256_mul_ps(w0, load(oldest, at));
            sum = _mm256_fmadd_ps(w1, load(older, at), sum);
            sum = _mm256_fmadd_ps(w2, load(last, at), sum);
            sum = _mm256_fmadd_ps(w3, load(current, at), sum);
            store(out, at, _mm256_div_ps(sum, one_plus_exp_neg(sum)));
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
#[target_feature(enable = "avx2,fma")]
fn load_taps(weight: &[f32]) -> [__m256; TAPS] {
    let rows = [0, 8, 16, 24].map(|at| load(weight, at));
    // Rows 0 1 | 2 3 | 4 5 | 6 7; after this, 0 4 | 1 5, 2 6 | 3 7: a row of each half in either
    // half of a vector.
    let even = _mm256_permute2f128_ps::<0x20>(rows[0], rows[2]);
    let odd = _mm256_permute2f128_ps::<0x31>(rows[0], rows[2]);
    let next_even = _mm256_permute2f128_ps::<0x20>(rows[1], rows[3]);
    let next_odd = _mm256_permute2f128_ps::<0x31>(rows[1], rows[3]);
    // The 4 x 4 transposition within each half.
    let low = _mm256_unpacklo_ps(even, next_even);
    let high = _mm256_unpackhi_ps(even, next_even);
    let next_low = _mm256_unpacklo_ps(odd, next_odd);
    let next_high = _mm256_unpackhi_ps(odd, next_odd);
    [
        _mm256_unpacklo_ps(low, next_low),
        _mm256_unpackhi_ps(low, next_low),
        _mm256_unpacklo_ps(high, next_high),
        _mm256_unpackhi_ps(high, next_high),
    ]
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

#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
unsafe fn dots_tile<const R: usize, const C: usize>(
    k: usize,
    (i, j): (usize, usize),
    a: Source,
    b: Source,
    c: Target,
) {
    let mut sums = [[_mm256_setzero_ps(); C]; R];
    let whole = k / LANES * LANES;
    for l in (0..whole).step_by(LANES) {
        let mut right = [_mm256_setzero_ps(); C];
        for (col, right) in right.iter_mut().enumerate() {
            // SAFETY: l + 8 <= k.
            *right = unsafe { _mm256_loadu_ps(b.at(j + col, l)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: l + 8 <= k.
            let left = unsafe { _mm256_loadu_ps(a.at(i + row, l)) };
            for (sum, &right) in sums.iter_mut().zip(&right) {
                *sum = _mm256_fmadd_ps(left, right, *sum);
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
/// Columns of a panel: two vectors.
const PANEL_COLS: usize = 2 * LANES;
/// From this many rows of `a` on, copying a panel pays: rows of `b` lie a power of two apart as a
/// rule, so that a column of them falls into a few sets of the first-level cache.
const PANEL_USES_MIN: usize = 12;
/// Rows of `b` taken at a time by few rows of `a`: long contiguous reads, so that the prefetcher
/// keeps up.
const STREAMED_ROWS: usize = 8;

/// Sums are carried in `c` from one block of k to the next, which changes no bit: they are f32 in
/// registers too.
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
unsafe fn matmul_tile<const R: usize, const V: usize>(
    k: usize,
    (i, j): (usize, usize),
    a: Source,
    b: Source,
    c: Target,
) {
    let mut sums = [[_mm256_setzero_ps(); V]; R];
    for (row, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            // SAFETY: inside the tile.
            *sum = unsafe { _mm256_loadu_ps(c.at(i + row, j + v * LANES)) };
        }
    }
    for l in 0..k {
        let mut right = [_mm256_setzero_ps(); V];
        for (v, right) in right.iter_mut().enumerate() {
            // SAFETY: l < k, columns inside b.
            *right = unsafe { _mm256_loadu_ps(b.at(l, j + v * LANES)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: l < k.
            let left = unsafe { _mm256_set1_ps(*a.at(i + row, l)) };
            for (sum, &right) in sums.iter_mut().zip(&right) {
                *sum = _mm256_fmadd_ps(left, right, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: inside the tile.
            unsafe { _mm256_storeu_ps(c.at(i + row, j + v * LANES), sum) };
        }
    }
}

/// `c[i][j] += a[i] b[..][j]`.
///
/// # Safety
/// a has row i of k elements, b k rows with column j, and c has (i, j).
#[inline]
#[target_feature(enable = "avx2,fma")]
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

#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
unsafe fn state_columns<const V: usize>(
    state: Target,
    j: usize,
    decay: f32,
    (k, q): (&[f32], &[f32]),
    d: &[f32],
    out: &mut [f32],
) {
    let decay = _mm256_set1_ps(decay);
    let mut sums = [_mm256_setzero_ps(); V];
    let mut write = [_mm256_setzero_ps(); V];
    for (v, write) in write.iter_mut().enumerate() {
        *write = load(d, j + v * LANES);
    }
    for (i, (&k, &q)) in k.iter().zip(q).enumerate() {
        let (k, q) = (_mm256_set1_ps(k), _mm256_set1_ps(q));
        for (v, (sum, &write)) in sums.iter_mut().zip(&write).enumerate() {
            // SAFETY: i < dk, columns inside the state.
            let s = unsafe { state.at(i, j + v * LANES) };
            // SAFETY: 8 floats of row i.
            let old = unsafe { _mm256_loadu_ps(s) };
            let new = _mm256_fmadd_ps(k, write, _mm256_mul_ps(decay, old));
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(s, new) };
            *sum = _mm256_fmadd_ps(q, new, *sum);
        }
    }
    for (v, &sum) in sums.iter().enumerate() {
        store(out, j + v * LANES, sum);
    }
}
