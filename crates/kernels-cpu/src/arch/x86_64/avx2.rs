//! AVX2 with FMA and F16C: the proof, eight lanes in one vector, and what all dot products use.

use std::arch::x86_64::*;

use tensor::blocks::HalfLe;

use crate::arch::vector::{LANES, TAPS, Vector, f32_kernels, vector_methods};
use crate::f32_ops::operands::{Dims, Rows, RowsMut};

/// Proof that AVX2, FMA and F16C are available.
#[derive(Copy, Clone)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if the machine has the instructions.
    pub(crate) fn new() -> Option<Avx2> {
        let available = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        available.then_some(Avx2(()))
    }
}

f32_kernels! { Avx2, "avx2,fma,f16c" }

impl Vector for Avx2 {
    type Lanes = __m256;

    vector_methods! { "avx2,fma,f16c":
        fn splat(value: f32) -> __m256 {
            _mm256_set1_ps(value)
        }
        fn read(from: &[f32; LANES]) -> __m256 {
            // SAFETY: 8 floats; no alignment is needed.
            unsafe { _mm256_loadu_ps(from.as_ptr()) }
        }
        fn write(value: __m256, to: &mut [f32; LANES]) {
            // SAFETY: 8 floats; no alignment is needed.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
        }
        fn add(a: __m256, b: __m256) -> __m256 {
            _mm256_add_ps(a, b)
        }
        fn sub(a: __m256, b: __m256) -> __m256 {
            _mm256_sub_ps(a, b)
        }
        fn mul(a: __m256, b: __m256) -> __m256 {
            _mm256_mul_ps(a, b)
        }
        fn div(a: __m256, b: __m256) -> __m256 {
            _mm256_div_ps(a, b)
        }
        fn neg(a: __m256) -> __m256 {
            _mm256_xor_ps(a, _mm256_set1_ps(-0.0))
        }
        fn mul_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
            _mm256_fmadd_ps(a, b, sum)
        }
        fn mul_sub_from(a: __m256, b: __m256, sum: __m256) -> __m256 {
            _mm256_fnmadd_ps(a, b, sum)
        }
        // Operand order of these two: max and min return the second operand when one is NaN.
        fn at_least(bound: __m256, x: __m256) -> __m256 {
            _mm256_max_ps(bound, x)
        }
        fn at_most(bound: __m256, x: __m256) -> __m256 {
            _mm256_min_ps(bound, x)
        }
        fn larger_number(a: __m256, b: __m256) -> __m256 {
            _mm256_max_ps(a, b)
        }
        fn round(a: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        fn scale_by_power_of_two(x: __m256, n: __m256) -> __m256 {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let scaled = _mm256_mul_ps(x, power_of_two(half));
            _mm256_mul_ps(scaled, power_of_two(_mm256_sub_epi32(n, half)))
        }
        fn sum_of_lanes(value: __m256) -> f32 {
            fold(value)
        }
        fn splat_half(half: HalfLe) -> __m256 {
            _mm256_cvtph_ps(_mm_set1_epi16(half.to_bits().cast_signed()))
        }
        fn read_halves(from: &[u8; 2 * LANES]) -> __m256 {
            _mm256_cvtph_ps(load_u8x16(from))
        }
        fn to_halves(value: __m256) -> [u8; 2 * LANES] {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(saturated(value));
            let mut bytes = [0; 2 * LANES];
            // SAFETY: 16 bytes; no alignment is needed.
            unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), halves) };
            bytes
        }
        fn read_codes(from: &[i8; LANES]) -> __m256 {
            // SAFETY: 8 bytes; no alignment is needed.
            let codes = unsafe { _mm_loadl_epi64(from.as_ptr().cast()) };
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))
        }
        fn read_transposed(rows: &[f32; LANES * TAPS]) -> [__m256; TAPS] {
            transposed(rows)
        }
    }
}

/// 2^n for -126 <= n <= 127.
#[inline]
#[target_feature(enable = "avx2")]
fn power_of_two(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

/// Values within what halves hold; what is not finite stays.
#[inline]
#[target_feature(enable = "avx2")]
fn saturated(values: __m256) -> __m256 {
    const LARGEST: f32 = 65504.0;
    // Operand order: max and min return the second operand when one is NaN.
    let bounded = _mm256_min_ps(_mm256_set1_ps(LARGEST), values);
    let bounded = _mm256_max_ps(_mm256_set1_ps(-LARGEST), bounded);
    let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), values);
    let infinite = _mm256_cmp_ps::<_CMP_EQ_OQ>(magnitude, _mm256_set1_ps(f32::INFINITY));
    _mm256_blendv_ps(bounded, values, infinite)
}

/// The columns of [8, 4].
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: &[f32; LANES * TAPS]) -> [__m256; TAPS] {
    let pairs = rows.as_chunks::<LANES>().0;
    let rows = fill!([_mm256_setzero_ps(); TAPS], i => load_f32x8(&pairs[i]));
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

// ---- what the dot products are made of -----------------------------------------------------------

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_u8x32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are readable there; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x32(codes: &[i8; 32]) -> __m256i {
    // SAFETY: 32 bytes are readable there; the load needs no alignment.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i16x16(values: &[i16; 16]) -> __m256i {
    // SAFETY: 32 bytes are readable there; the load needs no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_u8x16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i8x16(values: &[i8; 16]) -> __m128i {
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_f32x8(values: &[f32; 8]) -> __m256 {
    // SAFETY: 32 bytes are readable there; the load needs no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn half_to_f32(half: HalfLe) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half.to_bits()))))
}

/// How far ahead weights are asked for. Rows lie one after the other, but the processor's own prefetching stops
/// at every page.
const PREFETCH_BYTES: usize = 2048;

/// Asks for the bytes that lie [`PREFETCH_BYTES`] after a block, as many as the block has. They need not exist.
#[inline(always)]
pub(super) fn prefetch<B>(block: &B) {
    let ahead = std::ptr::from_ref(block).cast::<i8>().wrapping_add(PREFETCH_BYTES);
    for line in (0..size_of::<B>()).step_by(64) {
        // SAFETY: a prefetch reads nothing; any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line)) };
    }
}

/// The sum of the lanes: halves first, then even and odd pairs.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn fold(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Bit i in byte i, at its place in its byte of the four that each 32-bit lane of `bits` has.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn bit_per_byte(bits: __m256i) -> __m256i {
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    _mm256_and_si256(_mm256_shuffle_epi8(bits, spread), bit_places())
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn bit_places() -> __m256i {
    _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed())
}

/// All ones in byte i where bit i is set, of the four bytes that each 32-bit lane has.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn bits_are_set(bits: __m256i) -> __m256i {
    _mm256_cmpeq_epi8(bit_per_byte(bits), bit_places())
}

/// Scale 2j in all of the lower half, scale 2j + 1 in all of the upper one.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pick_scales(scales: __m256i, j: usize) -> __m256i {
    _mm256_shuffle_epi8(scales, _mm256_set1_epi16((j * 0x0202 + 0x0100) as i16))
}
