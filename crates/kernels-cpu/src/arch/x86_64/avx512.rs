//! AVX-512 and GFNI: the proof, and what all dot products use.

use std::arch::x86_64::*;

use super::avx2::{Avx2, load_i8x16};

/// Proof that AVX-512 (F, BW, VL, VBMI, VNNI) and GFNI are available, beside AVX2.
#[derive(Copy, Clone)]
pub(crate) struct Avx512 {
    avx2: Avx2,
}

impl Avx512 {
    /// The proof, if the machine has the instructions.
    pub(crate) fn new() -> Option<Avx512> {
        let available = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("gfni");
        Avx2::new().filter(|_| available).map(|avx2| Avx512 { avx2 })
    }

    /// For all that gains nothing from wider vectors.
    pub(crate) fn avx2(self) -> Avx2 {
        self.avx2
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_64(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are readable there; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_i8x64(codes: &[[i8; 32]; 2]) -> __m512i {
    // SAFETY: 64 bytes are readable there; the load needs no alignment.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}

/// The same 32 bytes in both halves.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn twice(half: __m256i) -> __m512i {
    _mm512_broadcast_i64x4(half)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn join(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Looks nibbles up in sixteen values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn look_up(values: &[i8; 16], nibbles: __m512i) -> __m512i {
    _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_i8x16(values)), nibbles)
}

/// Scales 4p, 4p + 1, 4p + 2 and 4p + 3, each in a quarter of the vector. `scales` has the even ones
/// in its first and third quarter, the odd ones in the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn pick_scales(scales: __m512i, p: usize) -> __m512i {
    let (lower, upper) = ((p * 0x0404 + 0x0100) as i16, (p * 0x0404 + 0x0302) as i16);
    _mm512_shuffle_epi8(scales, join(_mm256_set1_epi16(lower), _mm256_set1_epi16(upper)))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add_halves(sums: __m512i) -> __m256i {
    _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums))
}
