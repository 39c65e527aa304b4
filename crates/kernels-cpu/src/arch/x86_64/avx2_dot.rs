//! Dot products with AVX2, FMA and F16C; the twin of `dot/scalar.rs`.
//!
//! A block is opened once, as vectors of small integers, and multiplied with up to four activation
//! rows, whose sums stay in registers. The tile of activation rows is the outer loop and the weight
//! rows the inner one: four rows of activations are some 18 KB at 4096 columns and stay in the
//! first-level cache, while the weights, a quarter of that size per column, stream by. Opening a
//! block costs about as much as one activation row, hence the tile.

use std::arch::x86_64::*;

use tensor::Format;
use tensor::blocks::{
    Block, BlockIq4Nl, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1,
    BlockQ5K, BlockQ6K, BlockQ8_0, IQ4_VALUES, MXFP4_VALUES, from_bytes,
};

use super::avx2::{
    Avx2, bit_per_byte, fold, half_to_f32, load_f32x8, load_i8x16, load_i8x32, load_u8x16, load_u8x32,
    pick_scales, prefetch,
};
use super::avx2_signed;
use super::scales::{
    Scales256, add_products_256, scales_q2_k, scales_q3_k, scales_q4_k, scales_q5_k, scales_q6_k,
};
use crate::dot::job::{Job, Row32, Row256, for_token_tiles};
use crate::dot::quantise::{self, Sums};

impl Avx2 {
    /// Computes all products of the job: `out` is [rows, n].
    pub(crate) fn mul_rows(self, job: &Job<'_>, out: &mut [f32]) {
        // SAFETY: `self` proves that the machine has AVX2, FMA and F16C.
        unsafe { mul_rows(job, out) }
    }

    /// [`quantise::quantise_row`], compiled for AVX2.
    pub(crate) fn quantise_row(self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: Sums<'_>) {
        #[target_feature(enable = "avx2")]
        fn compiled(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: Sums<'_>) {
            quantise::quantise_row(x, codes, scales, sums);
        }
        // SAFETY: `self` proves that the machine has AVX2.
        unsafe { compiled(x, codes, scales, sums) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn mul_rows(job: &Job<'_>, out: &mut [f32]) {
    for_token_tiles!(job.acts.n(), t => tile(job, t, out));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const T: usize>(job: &Job<'_>, t: usize, out: &mut [f32]) {
    match job.format {
        Format::F32 => float_rows::<T, 4, false>(job, t, out),
        Format::F16 => float_rows::<T, 2, false>(job, t, out),
        Format::BF16 => float_rows::<T, 2, true>(job, t, out),
        Format::Q4_0 => rows_32::<T, BlockQ4_0, false>(job, t, out, |block| open_q4_0(block)),
        Format::Q4_1 => rows_32::<T, BlockQ4_1, true>(job, t, out, |block| open_q4_1(block)),
        Format::Q5_0 => rows_32::<T, BlockQ5_0, false>(job, t, out, |block| open_q5_0(block)),
        Format::Q5_1 => rows_32::<T, BlockQ5_1, true>(job, t, out, |block| open_q5_1(block)),
        Format::Q8_0 => rows_32::<T, BlockQ8_0, false>(job, t, out, |block| open_q8_0(block)),
        Format::Q2K => rows_256::<T, BlockQ2K, false>(job, t, out, |block| open_q2_k(block)),
        Format::Q3K => rows_256::<T, BlockQ3K, true>(job, t, out, |block| open_q3_k(block)),
        Format::Q4K => rows_256::<T, BlockQ4K, false>(job, t, out, |block| open_q4_k(block)),
        Format::Q5K => rows_256::<T, BlockQ5K, false>(job, t, out, |block| open_q5_k(block)),
        Format::Q6K => rows_256::<T, BlockQ6K, true>(job, t, out, |block| open_q6_k(block)),
        Format::IQ4NL => rows_32::<T, BlockIq4Nl, false>(job, t, out, |block| open_iq4_nl(block)),
        Format::MXFP4 => rows_32::<T, BlockMxfp4, false>(job, t, out, |block| open_mxfp4(block)),
        _ => avx2_signed::tile::<T>(job, t, out),
    }
}

// ---- floats -------------------------------------------------------------------------------------

/// Weights of one step: two vectors.
const FLOAT_STEP: usize = 16;
/// Several activation rows of f32 do not fit the first-level cache beside the weights, so a band of
/// weight rows is multiplied with a strip of their columns (1024) after the other. Each product
/// still adds its steps in order.
const STRIP_STEPS: usize = 64;
/// Weight rows of a band.
const BAND_ROWS: usize = 16;

/// Weights of `BYTES` each; two bytes are f16, or bf16 if `BF16`. No closure that the caller gives: it
/// would not always be inlined.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_floats<const BYTES: usize, const BF16: bool>(bytes: &[[u8; BYTES]; FLOAT_STEP]) -> [__m256; 2] {
    let bytes = bytes.as_flattened();
    if BYTES == 4 {
        let eights = bytes.as_chunks::<32>().0;
        return [_mm256_castsi256_ps(load_u8x32(&eights[0])), _mm256_castsi256_ps(load_u8x32(&eights[1]))];
    }
    let eights = bytes.as_chunks::<16>().0;
    if !BF16 {
        return [_mm256_cvtph_ps(load_u8x16(&eights[0])), _mm256_cvtph_ps(load_u8x16(&eights[1]))];
    }
    fill!([_mm256_setzero_ps(); 2], i => {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_u8x16(&eights[i]))))
    })
}

/// `BYTES` and `BF16`: see [`load_floats`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn float_rows<const T: usize, const BYTES: usize, const BF16: bool>(
    job: &Job<'_>,
    t: usize,
    out: &mut [f32],
) {
    let n = job.acts.n();
    let acts: [&[f32]; T] = std::array::from_fn(|i| job.acts.values(t + i));
    let acts = acts.map(|act| act.as_chunks::<FLOAT_STEP>());
    // A single activation row is read as often as it is long; its weights had better be read in one
    // go.
    let strip = if T == 1 { usize::MAX } else { STRIP_STEPS };
    let bands = job.weights.chunks(BAND_ROWS * job.row_bytes).zip(out.chunks_mut(BAND_ROWS * n));
    for (band, out) in bands {
        let mut sums = [[[_mm256_setzero_ps(); 2]; T]; BAND_ROWS];
        let steps = acts[0].0.len();
        let mut start = 0;
        while start < steps {
            let end = start.saturating_add(strip).min(steps);
            for (row, sums) in band.chunks_exact(job.row_bytes).zip(&mut sums) {
                let row = &row.as_chunks::<BYTES>().0.as_chunks::<FLOAT_STEP>().0[start..end];
                add_strip::<T, BYTES, BF16>(sums, row, acts.map(|(act, _)| &act[start..end]));
            }
            start = end;
        }
        for ((row, out), sums) in band.chunks_exact(job.row_bytes).zip(out.chunks_exact_mut(n)).zip(&mut sums)
        {
            let tail = row.as_chunks::<BYTES>().0.as_chunks::<FLOAT_STEP>().1;
            if !tail.is_empty() {
                // Zeros beyond the end add nothing.
                let mut step = [[0; BYTES]; FLOAT_STEP];
                step[..tail.len()].copy_from_slice(tail);
                let rest = acts.map(|(_, rest)| {
                    let mut act = [0.0; FLOAT_STEP];
                    act[..rest.len()].copy_from_slice(rest);
                    act
                });
                add_strip::<T, BYTES, BF16>(sums, &[step], rest.each_ref().map(std::slice::from_ref));
            }
            for (out, sums) in out[t..].iter_mut().zip(sums) {
                *out = fold(_mm256_add_ps(sums[0], sums[1]));
            }
        }
    }
}

/// Adds the products of some steps of one weight row with `T` activation rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_strip<const T: usize, const BYTES: usize, const BF16: bool>(
    total: &mut [[__m256; 2]; T],
    weights: &[[[u8; BYTES]; FLOAT_STEP]],
    acts: [&[[f32; FLOAT_STEP]]; T],
) {
    let mut sums = *total;
    for (s, weights) in weights.iter().enumerate() {
        let weights = load_floats::<BYTES, BF16>(weights);
        for (sums, act) in sums.iter_mut().zip(acts) {
            add_step(sums, weights, &act[s]);
        }
    }
    *total = sums;
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_step(sums: &mut [__m256; 2], weights: [__m256; 2], act: &[f32; FLOAT_STEP]) {
    let (halves, _) = act.as_chunks::<8>();
    sums[0] = _mm256_fmadd_ps(weights[0], load_f32x8(&halves[0]), sums[0]);
    sums[1] = _mm256_fmadd_ps(weights[1], load_f32x8(&halves[1]), sums[1]);
}

// ---- blocks of 32: weight = d * code + m --------------------------------------------------------

/// A block of 32 as integers.
struct Open32 {
    d: f32,
    /// Unused where code 0 is weight 0.
    m: f32,
    /// Unsigned where `m` is used, else signed.
    codes: __m256i,
}

/// Low nibbles, then high nibbles.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles_32(bytes: &[u8; 16]) -> __m256i {
    let low = load_u8x16(bytes);
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(low), low);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q4_0(block: &BlockQ4_0) -> Open32 {
    let codes = _mm256_sub_epi8(nibbles_32(&block.nibbles), _mm256_set1_epi8(8));
    Open32 { d: half_to_f32(block.d), m: 0.0, codes }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q4_1(block: &BlockQ4_1) -> Open32 {
    Open32 { d: half_to_f32(block.d), m: half_to_f32(block.m), codes: nibbles_32(&block.nibbles) }
}

/// All ones in byte i where bit i is clear.
#[inline]
#[target_feature(enable = "avx2")]
fn bits_are_clear(bits: [u8; 4]) -> __m256i {
    let bits = _mm256_set1_epi32(i32::from_le_bytes(bits));
    _mm256_cmpeq_epi8(bit_per_byte(bits), _mm256_setzero_si256())
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q5_0(block: &BlockQ5_0) -> Open32 {
    // Code - 16 is the nibble where the fifth bit is set, and nibble - 16, its bits under four
    // ones, where it is clear.
    let minus_16 = _mm256_and_si256(bits_are_clear(block.high), _mm256_set1_epi8(-16));
    Open32 { d: half_to_f32(block.d), m: 0.0, codes: _mm256_or_si256(nibbles_32(&block.nibbles), minus_16) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q5_1(block: &BlockQ5_1) -> Open32 {
    let plus_16 = _mm256_andnot_si256(bits_are_clear(block.high), _mm256_set1_epi8(16));
    let codes = _mm256_or_si256(nibbles_32(&block.nibbles), plus_16);
    Open32 { d: half_to_f32(block.d), m: half_to_f32(block.m), codes }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q8_0(block: &BlockQ8_0) -> Open32 {
    Open32 { d: half_to_f32(block.d), m: 0.0, codes: load_i8x32(&block.codes) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_iq4_nl(block: &BlockIq4Nl) -> Open32 {
    let values = _mm256_broadcastsi128_si256(load_i8x16(&IQ4_VALUES));
    let codes = _mm256_shuffle_epi8(values, nibbles_32(&block.nibbles));
    Open32 { d: half_to_f32(block.d), m: 0.0, codes }
}

#[inline]
#[target_feature(enable = "avx2")]
fn open_mxfp4(block: &BlockMxfp4) -> Open32 {
    let values = _mm256_broadcastsi128_si256(load_i8x16(&MXFP4_VALUES));
    Open32 { d: block.half_scale(), m: 0.0, codes: _mm256_shuffle_epi8(values, nibbles_32(&block.nibbles)) }
}

/// The sums of a weight row's products with one activation row, even and odd blocks apart.
#[derive(Copy, Clone)]
struct Sums32 {
    lanes: [__m256; 2],
    offsets: [f32; 2],
}

/// `OFFSET`: the blocks have an `m`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rows_32<const T: usize, B: Block, const OFFSET: bool>(
    job: &Job<'_>,
    t: usize,
    out: &mut [f32],
    open: impl Fn(&B) -> Open32,
) {
    let n = job.acts.n();
    let acts: [Row32<'_>; T] = std::array::from_fn(|i| job.acts.row_32(t + i));
    for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
        let (pairs, last) = from_bytes::<B>(row).as_chunks::<2>();
        let mut sums = [Sums32 { lanes: [_mm256_setzero_ps(); 2], offsets: [0.0; 2] }; T];
        for (i, pair @ [even, odd]) in pairs.iter().enumerate() {
            prefetch(pair);
            let (even, odd) = (open(even), open(odd));
            for (sums, act) in sums.iter_mut().zip(&acts) {
                add_block_32::<0, OFFSET>(sums, &even, act, 2 * i);
                add_block_32::<1, OFFSET>(sums, &odd, act, 2 * i + 1);
            }
        }
        if let [last] = last {
            let last = open(last);
            for (sums, act) in sums.iter_mut().zip(&acts) {
                add_block_32::<0, OFFSET>(sums, &last, act, 2 * pairs.len());
            }
        }
        for (out, sums) in out[t..].iter_mut().zip(sums) {
            *out = fold(_mm256_add_ps(sums.lanes[0], sums.lanes[1])) + (sums.offsets[0] + sums.offsets[1]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn add_block_32<const ODD: usize, const OFFSET: bool>(
    sums: &mut Sums32,
    block: &Open32,
    act: &Row32<'_>,
    b: usize,
) {
    let codes = load_i8x32(&act.codes[b]);
    let pairs = if OFFSET {
        sums.offsets[ODD] += block.m * act.sums[b];
        _mm256_maddubs_epi16(block.codes, codes)
    } else {
        // The multiplication takes one unsigned factor, so the weight's sign moves to the
        // activation. At most 128 * 127 * 2 per pair, which 16 bits hold.
        _mm256_maddubs_epi16(_mm256_abs_epi8(block.codes), _mm256_sign_epi8(codes, block.codes))
    };
    let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    let scale = _mm256_set1_ps(block.d * act.scales[b]);
    sums.lanes[ODD] = _mm256_add_ps(sums.lanes[ODD], _mm256_mul_ps(scale, products));
}

// ---- blocks of 256: weight = d * scale * code - d_min * min -------------------------------------

/// A block of 256 as integers.
struct Open256 {
    /// Unsigned, in order.
    codes: [__m256i; 8],
    scales: Scales256,
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q2_k(block: &BlockQ2K) -> Open256 {
    let three = _mm256_set1_epi8(3);
    let mut codes = [_mm256_setzero_si256(); 8];
    for (half, bytes) in block.codes.as_chunks::<32>().0.iter().enumerate() {
        let bytes = load_u8x32(bytes);
        codes[4 * half] = _mm256_and_si256(bytes, three);
        codes[4 * half + 1] = _mm256_and_si256(_mm256_srli_epi16::<2>(bytes), three);
        codes[4 * half + 2] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), three);
        codes[4 * half + 3] = _mm256_and_si256(_mm256_srli_epi16::<6>(bytes), three);
    }
    Open256 { codes, scales: scales_q2_k(block) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q3_k(block: &BlockQ3K) -> Open256 {
    let (three, four) = (_mm256_set1_epi8(3), _mm256_set1_epi8(4));
    let high = load_u8x32(&block.high);
    let low = block.low.as_chunks::<32>().0;
    let (first, second) = (load_u8x32(&low[0]), load_u8x32(&low[1]));
    // Shifts are of 16 bits; what crosses from the neighbouring byte is masked away.
    let join = |low: __m256i, high: __m256i| {
        _mm256_or_si256(_mm256_and_si256(low, three), _mm256_and_si256(high, four))
    };
    let codes = [
        join(first, _mm256_slli_epi16::<2>(high)),
        join(_mm256_srli_epi16::<2>(first), _mm256_slli_epi16::<1>(high)),
        join(_mm256_srli_epi16::<4>(first), high),
        join(_mm256_srli_epi16::<6>(first), _mm256_srli_epi16::<1>(high)),
        join(second, _mm256_srli_epi16::<2>(high)),
        join(_mm256_srli_epi16::<2>(second), _mm256_srli_epi16::<3>(high)),
        join(_mm256_srli_epi16::<4>(second), _mm256_srli_epi16::<4>(high)),
        join(_mm256_srli_epi16::<6>(second), _mm256_srli_epi16::<5>(high)),
    ];
    Open256 { codes, scales: scales_q3_k(block) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q4_k(block: &BlockQ4K) -> Open256 {
    let fifteen = _mm256_set1_epi8(15);
    let mut codes = [_mm256_setzero_si256(); 8];
    for (j, nibbles) in block.nibbles.as_chunks::<32>().0.iter().enumerate() {
        let nibbles = load_u8x32(nibbles);
        codes[2 * j] = _mm256_and_si256(nibbles, fifteen);
        codes[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(nibbles), fifteen);
    }
    Open256 { codes, scales: scales_q4_k(block) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q5_k(block: &BlockQ5K) -> Open256 {
    let (fifteen, sixteen) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
    let high = load_u8x32(&block.high);
    let nibbles = block.nibbles.as_chunks::<32>().0;
    // Shifts are of 16 bits; what crosses from the neighbouring byte is masked away.
    let join = |low: __m256i, high: __m256i| {
        _mm256_or_si256(_mm256_and_si256(low, fifteen), _mm256_and_si256(high, sixteen))
    };
    let [a, b, c, d] = fill!([_mm256_setzero_si256(); 4], pair => load_u8x32(&nibbles[pair]));
    let codes = [
        join(a, _mm256_slli_epi16::<4>(high)),
        join(_mm256_srli_epi16::<4>(a), _mm256_slli_epi16::<3>(high)),
        join(b, _mm256_slli_epi16::<2>(high)),
        join(_mm256_srli_epi16::<4>(b), _mm256_slli_epi16::<1>(high)),
        join(c, high),
        join(_mm256_srli_epi16::<4>(c), _mm256_srli_epi16::<1>(high)),
        join(d, _mm256_srli_epi16::<2>(high)),
        join(_mm256_srli_epi16::<4>(d), _mm256_srli_epi16::<3>(high)),
    ];
    Open256 { codes, scales: scales_q5_k(block) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_q6_k(block: &BlockQ6K) -> Open256 {
    let (fifteen, top_two) = (_mm256_set1_epi8(15), _mm256_set1_epi8(0x30));
    let (low, high) = (block.low.as_chunks::<32>().0, block.high.as_chunks::<32>().0);
    let mut codes = [_mm256_setzero_si256(); 8];
    for half in 0..2 {
        let high = load_u8x32(&high[half]);
        let (first, second) = (load_u8x32(&low[2 * half]), load_u8x32(&low[2 * half + 1]));
        let join = |low: __m256i, high: __m256i| {
            _mm256_or_si256(_mm256_and_si256(low, fifteen), _mm256_and_si256(high, top_two))
        };
        // Shifts are of 16 bits; what crosses from the neighbouring byte is masked away.
        codes[4 * half] = join(first, _mm256_slli_epi16::<4>(high));
        codes[4 * half + 1] = join(second, _mm256_slli_epi16::<2>(high));
        codes[4 * half + 2] = join(_mm256_srli_epi16::<4>(first), high);
        codes[4 * half + 3] = join(_mm256_srli_epi16::<4>(second), _mm256_srli_epi16::<2>(high));
    }
    Open256 { codes, scales: scales_q6_k(block) }
}

/// `FIXED_ZERO`: see [`add_products_256`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rows_256<const T: usize, B: Block, const FIXED_ZERO: bool>(
    job: &Job<'_>,
    t: usize,
    out: &mut [f32],
    open: impl Fn(&B) -> Open256,
) {
    let n = job.acts.n();
    let acts: [Row256<'_>; T] = std::array::from_fn(|i| job.acts.row_256(t + i));
    for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
        let mut sums = [_mm256_setzero_ps(); T];
        for (b, block) in from_bytes::<B>(row).iter().enumerate() {
            prefetch(block);
            let block = open(block);
            let products = products_256(&block, acts.map(|act| &act.codes[b]));
            for ((sum, act), products) in sums.iter_mut().zip(&acts).zip(products) {
                add_products_256::<FIXED_ZERO>(sum, &block.scales, act, b, products);
            }
        }
        for (out, sum) in out[t..].iter_mut().zip(sums) {
            *out = fold(sum);
        }
    }
}

/// Lane l: the sum over the block of `scale * code * activation` of codes 4l to 4l + 3 of each 32.
/// At most 8 * 4 * 63 * 128 * 127 in magnitude, which 32 bits hold.
#[inline]
#[target_feature(enable = "avx2")]
fn products_256<const T: usize>(block: &Open256, acts: [&[i8; 256]; T]) -> [__m256i; T] {
    let mut products = [_mm256_setzero_si256(); T];
    for (j, &codes) in block.codes.iter().enumerate() {
        let scales = pick_scales(block.scales.scales, j);
        for (product, act) in products.iter_mut().zip(acts) {
            let act = load_i8x32(&act.as_chunks::<32>().0[j]);
            let pairs = _mm256_maddubs_epi16(codes, act);
            *product = _mm256_add_epi32(*product, _mm256_madd_epi16(pairs, scales));
        }
    }
    products
}
