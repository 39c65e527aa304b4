//! What blocks of 256 have besides their codes, for AVX2 and AVX-512 alike.

use std::arch::x86_64::*;

use tensor::blocks::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, HalfLe};

use super::avx2::{half_to_f32, load_i8x16, load_i16x16, load_u8x16};
use crate::dot::job::Row256;

/// Scales and minima of a block of 256: weight = d * scale * code - d_min * min.
pub(super) struct Scales256 {
    d: f32,
    /// Unused where the minima are subtracted as integers.
    d_min: f32,
    /// 16-bit scales of the sixteens: the even ones in the lower half, the odd ones in the upper
    /// half.
    pub(super) scales: __m256i,
    /// 16-bit minima in the same order.
    mins: __m256i,
}

/// Adds the products of a block with activation row `act`. `FIXED_ZERO`: the minima are multiples of
/// the scales and are subtracted as integers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_products_256<const FIXED_ZERO: bool>(
    sum: &mut __m256,
    block: &Scales256,
    act: &Row256<'_>,
    b: usize,
    products: __m256i,
) {
    let mins = _mm256_madd_epi16(block.mins, load_i16x16(&act.sums[b]));
    let scale = _mm256_set1_ps(block.d * act.scales[b]);
    let term = if FIXED_ZERO {
        _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_sub_epi32(products, mins)))
    } else {
        let min_scale = _mm256_set1_ps(block.d_min * act.scales[b]);
        _mm256_sub_ps(
            _mm256_mul_ps(scale, _mm256_cvtepi32_ps(products)),
            _mm256_mul_ps(min_scale, _mm256_cvtepi32_ps(mins)),
        )
    };
    *sum = _mm256_add_ps(*sum, term);
}

/// As [`add_products_256`], of a block without minima.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_signed_products_256(
    sum: &mut __m256,
    d: f32,
    act: &Row256<'_>,
    b: usize,
    products: __m256i,
) {
    let scale = _mm256_set1_ps(d * act.scales[b]);
    *sum = _mm256_add_ps(*sum, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(products)));
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scales_q2_k(block: &BlockQ2K) -> Scales256 {
    let (both, fifteen) = (load_u8x16(&block.scales_and_mins), _mm_set1_epi8(15));
    Scales256 {
        d: half_to_f32(block.d),
        d_min: half_to_f32(block.d_min),
        scales: even_then_odd(_mm_and_si128(both, fifteen)),
        mins: even_then_odd(_mm_and_si128(_mm_srli_epi16::<4>(both), fifteen)),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scales_q3_k(block: &BlockQ3K) -> Scales256 {
    let scales = even_then_odd(sixteen_of_q3_k(&block.scales));
    // The code of zero is 4 everywhere.
    Scales256 { d: half_to_f32(block.d), d_min: 0.0, scales, mins: _mm256_slli_epi16::<2>(scales) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scales_q4_k(block: &BlockQ4K) -> Scales256 {
    scales_and_mins(block.d, block.d_min, &block.scales)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scales_q5_k(block: &BlockQ5K) -> Scales256 {
    scales_and_mins(block.d, block.d_min, &block.scales)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn scales_q6_k(block: &BlockQ6K) -> Scales256 {
    let scales = even_then_odd(load_i8x16(&block.scales));
    // The code of zero is 32 everywhere.
    Scales256 { d: half_to_f32(block.d), d_min: 0.0, scales, mins: _mm256_slli_epi16::<5>(scales) }
}

/// Sixteen scales of six bits; see `BlockQ3K::unpacked_scales`.
#[inline]
#[target_feature(enable = "avx2")]
fn sixteen_of_q3_k(bytes: &[u8; 12]) -> __m128i {
    let word = |i: usize| {
        let [a, b, c, d] = bytes.as_chunks::<4>().0[i];
        i32::from_le_bytes([a, b, c, d])
    };
    let nibbles = _mm_set_epi64x(0, i64::from(word(1)) << 32 | i64::from(word(0).cast_unsigned()));
    let low = _mm_and_si128(_mm_unpacklo_epi64(nibbles, _mm_srli_epi16::<4>(nibbles)), _mm_set1_epi8(15));
    // The shift of each word puts its pair of bits where bits 4 and 5 are.
    let pairs = _mm_srlv_epi32(_mm_set1_epi32(word(2)), _mm_setr_epi32(0, 2, 4, 6));
    let high = _mm_slli_epi16::<4>(_mm_and_si128(pairs, _mm_set1_epi8(3)));
    _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32))
}

/// Sixteen signed bytes as 16-bit numbers, those of even places first.
#[inline]
#[target_feature(enable = "avx2")]
fn even_then_odd(bytes: __m128i) -> __m256i {
    let order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    _mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, order))
}

/// The scales and the minima of q4_K and q5_K.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales_and_mins(d: HalfLe, d_min: HalfLe, bytes: &[u8; 12]) -> Scales256 {
    // Four numbers of six bits at a time, in the bytes of a word; see `BlockQ4K::scales_and_mins`.
    let word = |i: usize| {
        let [a, b, c, d] = bytes.as_chunks::<4>().0[i];
        u32::from_le_bytes([a, b, c, d])
    };
    let (scales, mins, split) = (word(0), word(1), word(2));
    let top_two = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    let eight = |low: u32, high: u32| {
        let eight = u64::from(low & 0x3F3F_3F3F) | u64::from(high) << 32;
        // A sub-block of 32 is two sixteens: both halves get the same eight.
        _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(eight.cast_signed())))
    };
    let low = |split: u32| split & 0x0F0F_0F0F;
    Scales256 {
        d: half_to_f32(d),
        d_min: half_to_f32(d_min),
        scales: eight(scales, low(split) | top_two(scales)),
        mins: eight(mins, low(split >> 4) | top_two(mins)),
    }
}
