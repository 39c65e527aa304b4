//! Dot products with AVX-512; as `avx2_dot.rs`, in vectors of twice the width.
//!
//! The results are those of the AVX2 code, bit for bit. A vector holds the codes of two groups of 32
//! (two blocks, where blocks are of 32), whose sums stay apart in its two halves: the lower half is
//! what AVX2 has for the even group, the upper half for the odd one.
//!
//! What is won is instructions. GFNI's affine transform takes any bits of a byte to any others, so
//! one instruction shifts and masks, and by different amounts in the two halves; VNNI multiplies and
//! adds in one. Float formats gain nothing on the machine that this was written on and stay with
//! AVX2.

use std::arch::x86_64::*;

use tensor::Format;
use tensor::blocks::{
    Block, BlockIq4Nl, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1,
    BlockQ5K, BlockQ6K, BlockQ8_0, HalfLe, IQ4_VALUES, MXFP4_VALUES, from_bytes,
};

use super::avx2::{fold, half_to_f32, load_i8x32, load_u8x16, load_u8x32, prefetch};
use super::avx512::{Avx512, add_halves, join, load_64, load_i8x64, look_up, pick_scales, twice};
use super::avx512_signed;
use super::scales::{
    Scales256, add_products_256, scales_q2_k, scales_q3_k, scales_q4_k, scales_q5_k, scales_q6_k,
};
use crate::dot::job::{Job, Row32, Row256, for_token_tiles};

/// Whether this module multiplies weights of this format, faster than AVX2 does.
fn gains(format: Format) -> bool {
    use Format::{IQ2S, IQ2XS, IQ2XXS, IQ3S, IQ3XXS, IQ4NL, IQ4XS, MXFP4};
    use Format::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let blocks_of_32 = matches!(format, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4NL | MXFP4);
    let blocks_of_256 = matches!(format, Q2K | Q3K | Q4K | Q5K | Q6K);
    let signed = matches!(format, IQ2XXS | IQ2XS | IQ2S | IQ3XXS | IQ3S | IQ4XS);
    blocks_of_32 || blocks_of_256 || signed
}

impl Avx512 {
    /// Computes all products of the job: `out` is [rows, n].
    pub(crate) fn mul_rows(self, job: &Job<'_>, out: &mut [f32]) {
        if !gains(job.format) {
            return self.avx2().mul_rows(job, out);
        }
        // SAFETY: `self` proves that the machine has all the features.
        unsafe { mul_rows(job, out) }
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,gfni")]
fn mul_rows(job: &Job<'_>, out: &mut [f32]) {
    for_token_tiles!(job.acts.n(), t => tile(job, t, out));
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,gfni")]
fn tile<const T: usize>(job: &Job<'_>, t: usize, out: &mut [f32]) {
    match job.format {
        Format::Q4_0 => rows_32::<T, BlockQ4_0, false>(job, t, out, |even, odd| open_q4_0(even, odd)),
        Format::Q4_1 => rows_32::<T, BlockQ4_1, true>(job, t, out, |even, odd| open_q4_1(even, odd)),
        Format::Q5_0 => rows_32::<T, BlockQ5_0, false>(job, t, out, |even, odd| open_q5_0(even, odd)),
        Format::Q5_1 => rows_32::<T, BlockQ5_1, true>(job, t, out, |even, odd| open_q5_1(even, odd)),
        Format::IQ4NL => rows_32::<T, BlockIq4Nl, false>(job, t, out, |even, odd| open_iq4_nl(even, odd)),
        Format::MXFP4 => rows_32::<T, BlockMxfp4, false>(job, t, out, |even, odd| open_mxfp4(even, odd)),
        Format::Q8_0 => rows_32::<T, BlockQ8_0, false>(job, t, out, |even, odd| open_q8_0(even, odd)),
        Format::Q2K => rows_256::<T, BlockQ2K, false>(job, t, out, |block| open_q2_k(block)),
        Format::Q3K => rows_256::<T, BlockQ3K, true>(job, t, out, |block| open_q3_k(block)),
        Format::Q4K => rows_256::<T, BlockQ4K, false>(job, t, out, |block| open_q4_k(block)),
        Format::Q5K => rows_256::<T, BlockQ5K, false>(job, t, out, |block| open_q5_k(block)),
        Format::Q6K => rows_256::<T, BlockQ6K, true>(job, t, out, |block| open_q6_k(block)),
        _ => avx512_signed::tile::<T>(job, t, out),
    }
}

// ---- vectors ------------------------------------------------------------------------------------

/// A transform of bytes: `count` bits from bit `from` on move to bit `to` and the bits after it; the
/// others become zero.
const fn bits(from: u32, count: u32, to: u32) -> i64 {
    let mut matrix = 0_u64;
    let mut i = 0;
    while i < count {
        // Byte 7 - r of the matrix says which input bits make up output bit r.
        matrix |= 1 << (from + i) << (8 * (7 - (to + i)));
        i += 1;
    }
    matrix.cast_signed()
}

/// Applies one transform to the lower half and one to the upper half.
#[inline]
#[target_feature(enable = "avx512f,gfni")]
fn move_bits(bytes: __m512i, [lower, upper]: [i64; 2]) -> __m512i {
    let matrices = _mm512_setr_epi64(lower, lower, lower, lower, upper, upper, upper, upper);
    _mm512_gf2p8affine_epi64_epi8::<0>(bytes, matrices)
}

// ---- blocks of 32: weight = d * code + m --------------------------------------------------------

/// Two blocks of 32 as integers, one in each half.
struct Open32 {
    d: __m512,
    /// Unused where code 0 is weight 0.
    m: [f32; 2],
    /// Unsigned where `m` is used, else magnitudes.
    codes: __m512i,
    /// The codes that are negative.
    negative: __mmask64,
}

/// The first number in the lower half, the second in the upper half.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(pair: __m128) -> __m512 {
    let pick = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    _mm512_permutexvar_ps(pick, _mm512_castps128_ps512(pair))
}

#[inline]
#[target_feature(enable = "avx512f,f16c")]
fn scales_of(even: HalfLe, odd: HalfLe) -> __m512 {
    let bits = i32::from(even.to_bits()) | i32::from(odd.to_bits()) << 16;
    halves(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn open_signed(d: __m512, codes: __m512i) -> Open32 {
    Open32 { d, m: [0.0; 2], codes: _mm512_abs_epi8(codes), negative: _mm512_movepi8_mask(codes) }
}

/// Of each block the low nibbles, then the high nibbles.
#[inline]
#[target_feature(enable = "avx512f,gfni")]
fn nibbles_32(even: &[u8; 16], odd: &[u8; 16]) -> __m512i {
    let even = _mm256_broadcastsi128_si256(load_u8x16(even));
    let odd = _mm256_broadcastsi128_si256(load_u8x16(odd));
    let (low, high) = (const { bits(0, 4, 0) }, const { bits(4, 4, 0) });
    let matrices = _mm512_setr_epi64(low, low, high, high, low, low, high, high);
    _mm512_gf2p8affine_epi64_epi8::<0>(join(even, odd), matrices)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,f16c,gfni")]
fn open_q4_0(even: &BlockQ4_0, odd: &BlockQ4_0) -> Open32 {
    let codes = nibbles_32(&even.nibbles, &odd.nibbles);
    open_signed(scales_of(even.d, odd.d), _mm512_sub_epi8(codes, _mm512_set1_epi8(8)))
}

#[inline]
#[target_feature(enable = "avx512f,f16c,gfni")]
fn open_q4_1(even: &BlockQ4_1, odd: &BlockQ4_1) -> Open32 {
    Open32 {
        d: scales_of(even.d, odd.d),
        m: [half_to_f32(even.m), half_to_f32(odd.m)],
        codes: nibbles_32(&even.nibbles, &odd.nibbles),
        negative: 0,
    }
}

/// Fifth bits, one for each byte.
fn fifth_bits(even: [u8; 4], odd: [u8; 4]) -> __mmask64 {
    u64::from(u32::from_le_bytes(even)) | u64::from(u32::from_le_bytes(odd)) << 32
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,f16c,gfni")]
fn open_q5_0(even: &BlockQ5_0, odd: &BlockQ5_0) -> Open32 {
    let nibbles = nibbles_32(&even.nibbles, &odd.nibbles);
    // Code - 16 is the nibble where the fifth bit is set.
    let is_clear = !fifth_bits(even.high, odd.high);
    let codes = _mm512_mask_sub_epi8(nibbles, is_clear, nibbles, _mm512_set1_epi8(16));
    open_signed(scales_of(even.d, odd.d), codes)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,f16c,gfni")]
fn open_q5_1(even: &BlockQ5_1, odd: &BlockQ5_1) -> Open32 {
    let nibbles = nibbles_32(&even.nibbles, &odd.nibbles);
    let is_set = fifth_bits(even.high, odd.high);
    Open32 {
        d: scales_of(even.d, odd.d),
        m: [half_to_f32(even.m), half_to_f32(odd.m)],
        codes: _mm512_mask_add_epi8(nibbles, is_set, nibbles, _mm512_set1_epi8(16)),
        negative: 0,
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,f16c,gfni")]
fn open_iq4_nl(even: &BlockIq4Nl, odd: &BlockIq4Nl) -> Open32 {
    let nibbles = nibbles_32(&even.nibbles, &odd.nibbles);
    open_signed(scales_of(even.d, odd.d), look_up(&IQ4_VALUES, nibbles))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,gfni")]
fn open_mxfp4(even: &BlockMxfp4, odd: &BlockMxfp4) -> Open32 {
    let d = halves(_mm_setr_ps(even.half_scale(), odd.half_scale(), 0.0, 0.0));
    open_signed(d, look_up(&MXFP4_VALUES, nibbles_32(&even.nibbles, &odd.nibbles)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,f16c")]
fn open_q8_0(even: &BlockQ8_0, odd: &BlockQ8_0) -> Open32 {
    open_signed(scales_of(even.d, odd.d), join(load_i8x32(&even.codes), load_i8x32(&odd.codes)))
}

/// The sums of a weight row's products with one activation row, even and odd blocks apart.
#[derive(Copy, Clone)]
struct Sums32 {
    lanes: __m512,
    offsets: [f32; 2],
}

/// `OFFSET`: the blocks have an `m`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,gfni")]
fn rows_32<const T: usize, B: Block, const OFFSET: bool>(
    job: &Job<'_>,
    t: usize,
    out: &mut [f32],
    open: impl Fn(&B, &B) -> Open32,
) {
    let n = job.acts.n();
    let acts: [Row32<'_>; T] = std::array::from_fn(|i| job.acts.row_32(t + i));
    for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
        let (pairs, last) = from_bytes::<B>(row).as_chunks::<2>();
        let mut sums = [Sums32 { lanes: _mm512_setzero_ps(), offsets: [0.0; 2] }; T];
        for (i, pair @ [even, odd]) in pairs.iter().enumerate() {
            prefetch(pair);
            let blocks = open(even, odd);
            for (sums, act) in sums.iter_mut().zip(&acts) {
                let two = 2 * i..2 * i + 2;
                add_blocks_32::<OFFSET>(
                    sums,
                    &blocks,
                    &act.codes[two.clone()].as_chunks().0[0],
                    act.scales[two.clone()].as_chunks().0[0],
                    act.sums[two].as_chunks().0[0],
                );
            }
        }
        if let [last] = last {
            // Beside a block of zeros, which adds nothing.
            let blocks = open(last, &B::zeroed());
            for (sums, act) in sums.iter_mut().zip(&acts) {
                let b = 2 * pairs.len();
                let (codes, scales) = ([act.codes[b], [0; 32]], [act.scales[b], 0.0]);
                add_blocks_32::<OFFSET>(sums, &blocks, &codes, scales, [act.sums[b], 0.0]);
            }
        }
        for (out, sums) in out[t..].iter_mut().zip(sums) {
            let lower = _mm512_castps512_ps256(sums.lanes);
            let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sums.lanes)));
            *out = fold(_mm256_add_ps(lower, upper)) + (sums.offsets[0] + sums.offsets[1]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_blocks_32<const OFFSET: bool>(
    sums: &mut Sums32,
    blocks: &Open32,
    codes: &[[i8; 32]; 2],
    scales: [f32; 2],
    act_sums: [f32; 2],
) {
    let (zero, mut codes) = (_mm512_setzero_si512(), load_i8x64(codes));
    if OFFSET {
        sums.offsets[0] += blocks.m[0] * act_sums[0];
        sums.offsets[1] += blocks.m[1] * act_sums[1];
    } else {
        // The multiplication takes one unsigned factor, so the weight's sign moves to the
        // activation.
        codes = _mm512_mask_sub_epi8(codes, blocks.negative, zero, codes);
    }
    let products = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero, blocks.codes, codes));
    let scale = _mm512_mul_ps(blocks.d, halves(_mm_setr_ps(scales[0], scales[1], 0.0, 0.0)));
    sums.lanes = _mm512_add_ps(sums.lanes, _mm512_mul_ps(scale, products));
}

// ---- blocks of 256: weight = d * scale * code - d_min * min -------------------------------------

/// A block of 256 as integers.
struct Open256 {
    /// Unsigned, in order.
    codes: [__m512i; 4],
    scales: Scales256,
}

#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,gfni")]
fn open_q2_k(block: &BlockQ2K) -> Open256 {
    let bytes = block.codes.as_chunks::<32>().0;
    let (first, second) = (twice(load_u8x32(&bytes[0])), twice(load_u8x32(&bytes[1])));
    let (low, high) = (const { [bits(0, 2, 0), bits(2, 2, 0)] }, const { [bits(4, 2, 0), bits(6, 2, 0)] });
    let codes =
        [move_bits(first, low), move_bits(first, high), move_bits(second, low), move_bits(second, high)];
    Open256 { codes, scales: scales_q2_k(block) }
}

#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,gfni")]
fn open_q3_k(block: &BlockQ3K) -> Open256 {
    let bytes = block.low.as_chunks::<32>().0;
    let (first, second) = (twice(load_u8x32(&bytes[0])), twice(load_u8x32(&bytes[1])));
    let high = twice(load_u8x32(&block.high));
    let (k_01, k_23) = (const { [bits(0, 2, 0), bits(2, 2, 0)] }, const { [bits(4, 2, 0), bits(6, 2, 0)] });
    let third_bits = const {
        [
            [bits(0, 1, 2), bits(1, 1, 2)],
            [bits(2, 1, 2), bits(3, 1, 2)],
            [bits(4, 1, 2), bits(5, 1, 2)],
            [bits(6, 1, 2), bits(7, 1, 2)],
        ]
    };
    let low = [(first, k_01), (first, k_23), (second, k_01), (second, k_23)];
    let codes = fill!([_mm512_setzero_si512(); 4], p => {
        _mm512_or_si512(move_bits(low[p].0, low[p].1), move_bits(high, third_bits[p]))
    });
    Open256 { codes, scales: scales_q3_k(block) }
}

const NIBBLES: [i64; 2] = [bits(0, 4, 0), bits(4, 4, 0)];

#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,gfni")]
fn open_q4_k(block: &BlockQ4K) -> Open256 {
    let bytes = block.nibbles.as_chunks::<32>().0;
    let codes = fill!([_mm512_setzero_si512(); 4], p => move_bits(twice(load_u8x32(&bytes[p])), NIBBLES));
    Open256 { codes, scales: scales_q4_k(block) }
}

#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,gfni")]
fn open_q5_k(block: &BlockQ5K) -> Open256 {
    let bytes = block.nibbles.as_chunks::<32>().0;
    let high = twice(load_u8x32(&block.high));
    let fifth_bits = const {
        [
            [bits(0, 1, 4), bits(1, 1, 4)],
            [bits(2, 1, 4), bits(3, 1, 4)],
            [bits(4, 1, 4), bits(5, 1, 4)],
            [bits(6, 1, 4), bits(7, 1, 4)],
        ]
    };
    let codes = fill!([_mm512_setzero_si512(); 4], p => {
        let low = move_bits(twice(load_u8x32(&bytes[p])), NIBBLES);
        _mm512_or_si512(low, move_bits(high, fifth_bits[p]))
    });
    Open256 { codes, scales: scales_q5_k(block) }
}

#[inline]
#[target_feature(enable = "avx2,f16c,avx512f,gfni")]
fn open_q6_k(block: &BlockQ6K) -> Open256 {
    let (low, high) = (block.low.as_chunks::<64>().0, block.high.as_chunks::<32>().0);
    let (top_01, top_23) =
        (const { [bits(0, 2, 4), bits(2, 2, 4)] }, const { [bits(4, 2, 4), bits(6, 2, 4)] });
    let low_nibble = const { [bits(0, 4, 0); 2] };
    let high_nibble = const { [bits(4, 4, 0); 2] };
    let mut codes = [_mm512_setzero_si512(); 4];
    for half in 0..2 {
        let (low, high) = (load_64(&low[half]), twice(load_u8x32(&high[half])));
        codes[2 * half] = _mm512_or_si512(move_bits(low, low_nibble), move_bits(high, top_01));
        codes[2 * half + 1] = _mm512_or_si512(move_bits(low, high_nibble), move_bits(high, top_23));
    }
    Open256 { codes, scales: scales_q6_k(block) }
}

/// `FIXED_ZERO`: see [`add_products_256`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,gfni")]
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
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn products_256<const T: usize>(block: &Open256, acts: [&[i8; 256]; T]) -> [__m256i; T] {
    let mut products = [_mm512_setzero_si512(); T];
    let all_scales = twice(block.scales.scales);
    for (p, &codes) in block.codes.iter().enumerate() {
        let scales = pick_scales(all_scales, p);
        for (product, act) in products.iter_mut().zip(acts) {
            let act = load_i8x64(&act.as_chunks().0.as_chunks().0[p]);
            *product = _mm512_dpwssd_epi32(*product, _mm512_maddubs_epi16(codes, act), scales);
        }
    }
    fill!([_mm256_setzero_si256(); T], i => add_halves(products[i]))
}
