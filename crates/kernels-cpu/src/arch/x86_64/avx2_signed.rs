//! AVX2 dot products of the blocks of 256 whose weights are a scale times a signed integer: iq1 to
//! iq4 and the ternary formats.
//!
//! The multiplication takes one unsigned factor, so a weight's sign moves to the activation. Most of
//! these formats store magnitudes and signs apart anyway: vectors of magnitudes are fetched from
//! tables of 1 to 16 KB, which the first-level cache holds, and signs made from bits.

use std::arch::x86_64::*;

use tensor::Format;
use tensor::blocks::iq_grids::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use tensor::blocks::{
    BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs, BlockIq4Xs, BlockTq1_0,
    BlockTq2_0, IQ4_VALUES, SignedBlock, from_bytes,
};

use super::avx2::{
    bits_are_set, fold, half_to_f32, load_i8x16, load_i8x32, load_u8x16, load_u8x32, pick_scales, prefetch,
};
use super::scales::add_signed_products_256;
use crate::dot::job::{Job, Row256};

/// The products of all weight rows with activation rows `t..t + T`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tile<const T: usize>(job: &Job<'_>, t: usize, out: &mut [f32]) {
    match job.format {
        Format::IQ1S => rows::<T, BlockIq1S>(job, t, out, |block| open_iq1_s(block)),
        Format::IQ1M => rows::<T, BlockIq1M>(job, t, out, |block| open_iq1_m(block)),
        Format::IQ2XXS => rows::<T, BlockIq2Xxs>(job, t, out, |block| open_iq2_xxs(block)),
        Format::IQ2XS => rows::<T, BlockIq2Xs>(job, t, out, |block| open_iq2_xs(block)),
        Format::IQ2S => rows::<T, BlockIq2S>(job, t, out, |block| open_iq2_s(block)),
        Format::IQ3XXS => rows::<T, BlockIq3Xxs>(job, t, out, |block| open_iq3_xxs(block)),
        Format::IQ3S => rows::<T, BlockIq3S>(job, t, out, |block| open_iq3_s(block)),
        Format::IQ4XS => rows::<T, BlockIq4Xs>(job, t, out, |block| open_iq4_xs(block)),
        Format::TQ1_0 => rows::<T, BlockTq1_0>(job, t, out, |block| open_tq1_0(block)),
        Format::TQ2_0 => rows::<T, BlockTq2_0>(job, t, out, |block| open_tq2_0(block)),
        other => unreachable!("{other} has no AVX2 dot product; add it here or in avx2_dot.rs"),
    }
}

/// A block of 256: weight = d * scale * magnitude, with the sign of `signs`.
struct Open {
    d: f32,
    magnitudes: [__m256i; 8],
    /// Any number of the sign that the weight has.
    signs: [__m256i; 8],
    /// 16-bit scales of the sixteens: the even ones in the lower half, the odd ones in the upper
    /// half.
    scales: __m256i,
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn set_64([a, b, c, d]: [u64; 4]) -> __m256i {
    _mm256_setr_epi64x(a.cast_signed(), b.cast_signed(), c.cast_signed(), d.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn set_32(v: [u32; 8]) -> __m256i {
    let [a, b, c, d, e, f, g, h] = v.map(u32::cast_signed);
    _mm256_setr_epi32(a, b, c, d, e, f, g, h)
}

/// A sign for each of 32 bits, which are in all lanes of 32.
#[inline]
#[target_feature(enable = "avx2")]
fn signs_of_bits(bits: __m256i) -> __m256i {
    // 0 becomes 1, and all ones stay.
    _mm256_or_si256(bits_are_set(bits), _mm256_set1_epi8(1))
}

/// A sign for each bit of a block.
#[inline]
#[target_feature(enable = "avx2")]
fn signs_of_bytes(bytes: &[u8; 32]) -> [__m256i; 8] {
    let fours = bytes.as_chunks::<4>().0;
    fill!([_mm256_setzero_si256(); 8], j => {
        signs_of_bits(_mm256_set1_epi32(i32::from_le_bytes(fours[j])))
    })
}

/// Signs of 32 eights, each in the lower seven bits of a byte: the eighth sign makes the number of
/// minus signs even. The top bits do not count.
#[inline]
#[target_feature(enable = "avx2")]
fn even_signs(sevens: __m256i) -> [__m256i; 8] {
    const ODD: i8 = i8::MIN;
    // 0x80 for the numbers with an odd number of bits.
    let parities = load_i8x16(&[0, ODD, ODD, 0, ODD, 0, 0, ODD, ODD, 0, 0, ODD, 0, ODD, ODD, 0]);
    let parities = _mm256_broadcastsi128_si256(parities);
    let sevens = _mm256_and_si256(sevens, _mm256_set1_epi8(127));
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(sevens), _mm256_set1_epi8(15));
    let parity = _mm256_xor_si256(_mm256_shuffle_epi8(parities, sevens), _mm256_shuffle_epi8(parities, high));
    let eights = _mm256_or_si256(sevens, parity);
    fill!([_mm256_setzero_si256(); 8], j => {
        signs_of_bits(_mm256_permutevar8x32_epi32(eights, _mm256_set1_epi32(j as i32)))
    })
}

/// [`even_signs`] of eight numbers whose lower 28 bits are four sevens, from the lowest on.
#[inline]
#[target_feature(enable = "avx2")]
fn even_signs_of_words(words: __m256i) -> [__m256i; 8] {
    let byte = |k: i32| _mm256_set1_epi32(0xFF << (8 * k));
    // Seven bits move to the byte of their number; what is above them in it does not count.
    let low = _mm256_blendv_epi8(_mm256_slli_epi32::<1>(words), words, byte(0));
    let high = _mm256_blendv_epi8(_mm256_slli_epi32::<3>(words), _mm256_slli_epi32::<2>(words), byte(2));
    even_signs(_mm256_blend_epi16::<0b1010_1010>(low, high))
}

/// Scales of 32 weights each: 2 * nibble + 1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn odd_scales_of_32(nibbles: u32) -> __m256i {
    let low = u64::from(nibbles & 0x0F0F_0F0F);
    let high = u64::from(nibbles >> 4 & 0x0F0F_0F0F);
    let pairs =
        _mm_unpacklo_epi8(_mm_cvtsi64_si128(low.cast_signed()), _mm_cvtsi64_si128(high.cast_signed()));
    let odd = _mm_add_epi8(_mm_add_epi8(pairs, pairs), _mm_set1_epi8(1));
    _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(odd))
}

/// Scales of sixteens: 2 * nibble + 1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn odd_scales_of_16(nibbles: &[u8; 8]) -> __m256i {
    // Low nibbles are the even sixteens.
    let bytes = u64::from_le_bytes(*nibbles);
    let low = bytes & 0x0F0F_0F0F_0F0F_0F0F;
    let high = bytes >> 4 & 0x0F0F_0F0F_0F0F_0F0F;
    let both = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
    _mm256_cvtepi8_epi16(_mm_add_epi8(_mm_add_epi8(both, both), _mm_set1_epi8(1)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn with_signed_codes(d: f32, codes: [__m256i; 8], scales: __m256i) -> Open {
    let magnitudes = fill!([_mm256_setzero_si256(); 8], j => _mm256_abs_epi8(codes[j]));
    Open { d, magnitudes, signs: codes, scales }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_iq4_xs(block: &BlockIq4Xs) -> Open {
    let values = _mm256_broadcastsi128_si256(load_i8x16(&IQ4_VALUES));
    let fifteen = _mm256_set1_epi8(15);
    let nibbles = block.nibbles.as_chunks::<16>().0;
    let codes = fill!([_mm256_setzero_si256(); 8], j => {
        let low = load_u8x16(&nibbles[j]);
        let both = _mm256_set_m128i(_mm_srli_epi16::<4>(low), low);
        _mm256_shuffle_epi8(values, _mm256_and_si256(both, fifteen))
    });
    with_signed_codes(half_to_f32(block.d), codes, scales_iq4_xs(block))
}

/// Eight scales of six bits, twice.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scales_iq4_xs(block: &BlockIq4Xs) -> __m256i {
    // Scales 2j and 2j + 1 are the nibbles of byte j, their top bits pairs j of sixteen bits.
    let low = i32::from_le_bytes(block.scales_low);
    let low = _mm_and_si128(
        _mm_unpacklo_epi8(_mm_cvtsi32_si128(low), _mm_cvtsi32_si128(low >> 4)),
        _mm_set1_epi8(15),
    );
    let high = _mm256_set1_epi32(i32::from(u16::from_le_bytes(block.scales_high)));
    let high = _mm256_and_si256(
        _mm256_srlv_epi32(high, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14)),
        _mm256_set1_epi32(3),
    );
    let high = _mm_packs_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high));
    let scales = _mm_or_si128(_mm_cvtepu8_epi16(low), _mm_slli_epi16::<4>(high));
    _mm256_broadcastsi128_si256(_mm_sub_epi16(scales, _mm_set1_epi16(32)))
}

/// Scales of 32 weights each, in the top four bits of eight numbers: 2 * n + 1.
#[inline]
#[target_feature(enable = "avx2")]
fn odd_scales_of_words(words: __m256i) -> __m256i {
    let scales = _mm256_or_si256(_mm256_srli_epi32::<27>(words), _mm256_set1_epi32(1));
    let scales = _mm_packs_epi32(_mm256_castsi256_si128(scales), _mm256_extracti128_si256::<1>(scales));
    _mm256_broadcastsi128_si256(scales)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_iq3_xxs(block: &BlockIq3Xxs) -> Open {
    let words = load_u8x32(&block.signs_and_scale.as_flattened().as_chunks().0[0]);
    let grid = block.grid.as_chunks::<8>().0;
    Open {
        d: half_to_f32(block.d) * 0.25,
        magnitudes: fill!([_mm256_setzero_si256(); 8], j => {
            set_32(fill!([0; 8], k => IQ3_XXS[usize::from(grid[j][k])]))
        }),
        signs: even_signs_of_words(words),
        scales: odd_scales_of_words(words),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_iq3_s(block: &BlockIq3S) -> Open {
    let grid = block.grid_low.as_chunks::<8>().0;
    let magnitudes = fill!([_mm256_setzero_si256(); 8], j => {
        let high = usize::from(block.grid_high[j]);
        set_32(fill!([0; 8], k => IQ3_S[usize::from(grid[j][k]) | (high >> k & 1) << 8]))
    });
    Open {
        d: half_to_f32(block.d),
        magnitudes,
        signs: signs_of_bytes(&block.signs),
        scales: odd_scales_of_32(u32::from_le_bytes(block.scales)),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_iq2_xxs(block: &BlockIq2Xxs) -> Open {
    let words = set_32(fill!([0; 8], j => u32::from_le_bytes(block.subs[j][1])));
    Open {
        d: half_to_f32(block.d) * 0.125,
        magnitudes: fill!([_mm256_setzero_si256(); 8], j => {
            set_64(fill!([0; 4], k => IQ2_XXS[usize::from(block.subs[j][0][k])]))
        }),
        signs: even_signs_of_words(words),
        scales: odd_scales_of_words(words),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_iq2_xs(block: &BlockIq2Xs) -> Open {
    let both = block.grid_and_signs.as_chunks::<4>().0;
    let halves = block.grid_and_signs.as_flattened().as_chunks::<32>().0;
    let tops = fill!([_mm256_setzero_si256(); 2], i => _mm256_srli_epi16::<9>(load_u8x32(&halves[i])));
    // Packing takes the vectors' halves in turn.
    let sevens = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(tops[0], tops[1]));
    Open {
        d: half_to_f32(block.d) * 0.125,
        magnitudes: fill!([_mm256_setzero_si256(); 8], j => {
            set_64(fill!([0; 4], k => IQ2_XS[usize::from(u16::from_le_bytes(both[j][k])) & 511]))
        }),
        signs: even_signs(sevens),
        scales: odd_scales_of_16(&block.scales),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_iq2_s(block: &BlockIq2S) -> Open {
    let grid = block.grid_low.as_chunks::<4>().0;
    let magnitudes = fill!([_mm256_setzero_si256(); 8], j => {
        let high = usize::from(block.grid_high[j]);
        set_64(fill!([0; 4], k => IQ2_S[usize::from(grid[j][k]) | (high >> (2 * k) & 3) << 8]))
    });
    Open {
        d: half_to_f32(block.d) * 0.125,
        magnitudes,
        signs: signs_of_bytes(&block.signs),
        scales: odd_scales_of_16(&block.scales),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_iq1_s(block: &BlockIq1S) -> Open {
    let grid = block.grid_low.as_chunks::<4>().0;
    let words = fill!([0; 8], j => u32::from(u16::from_le_bytes(block.high[j])));
    let codes = fill!([_mm256_setzero_si256(); 8], j => {
        let high = words[j] as usize;
        let values = fill!([0; 4], k => IQ1[usize::from(grid[j][k]) | (high >> (3 * k) & 7) << 8]);
        let shift = if words[j] >> 15 == 1 { -1 } else { 1 };
        _mm256_add_epi8(set_64(values), _mm256_set1_epi8(shift))
    });
    let scales = set_32(fill!([0; 8], j => 2 * (words[j] >> 12 & 7) + 1));
    let scales = _mm_packs_epi32(_mm256_castsi256_si128(scales), _mm256_extracti128_si256::<1>(scales));
    with_signed_codes(half_to_f32(block.d) * 0.125, codes, _mm256_broadcastsi128_si256(scales))
}

#[inline]
#[target_feature(enable = "avx2")]
fn open_iq1_m(block: &BlockIq1M) -> Open {
    const SHIFTS: [u64; 2] = [0x0101_0101_0101_0101, u64::MAX];
    let (low, high) = (block.grid_low.as_chunks::<4>().0, block.grid_high.as_chunks::<2>().0);
    let codes = fill!([_mm256_setzero_si256(); 8], j => {
        let nibbles = usize::from(u16::from_le_bytes(high[j]));
        let values = fill!([0; 4], k => IQ1[usize::from(low[j][k]) | (nibbles >> (4 * k) & 7) << 8]);
        let shifts = fill!([0; 4], k => SHIFTS[nibbles >> (4 * k + 3) & 1]);
        _mm256_add_epi8(set_64(values), set_64(shifts))
    });
    with_signed_codes(block.d() * 0.125, codes, scales_iq1_m(&block.scales))
}

/// Sixteen scales of three bits, four in each number of sixteen, from the lowest on: 2 * n + 1.
#[inline]
#[target_feature(enable = "avx2")]
fn scales_iq1_m(scales: &[[u8; 2]; 4]) -> __m256i {
    let numbers = fill!([0; 4], i => u64::from(u16::from_le_bytes(scales[i])) << (16 * i));
    let numbers = _mm256_set1_epi64x(numbers.iter().fold(0, |all, number| all | number).cast_signed());
    let twice = _mm256_setr_epi64x(
        0x0302_0302_0100_0100,
        0x0706_0706_0504_0504,
        0x0302_0302_0100_0100,
        0x0706_0706_0504_0504,
    );
    // A multiplication moves a scale to the top; the lower half has the even ones.
    let (even, odd) = (0x0080_2000_0080_2000, 0x0010_0400_0010_0400);
    let moves = _mm256_setr_epi64x(even, even, odd, odd);
    let at_top = _mm256_mullo_epi16(_mm256_shuffle_epi8(numbers, twice), moves);
    _mm256_or_si256(_mm256_srli_epi16::<12>(at_top), _mm256_set1_epi16(1))
}

/// The first digits after the point of fractions of 256 in base 3, less 1.
#[inline]
#[target_feature(enable = "avx2")]
fn first_digits(fractions: __m256i) -> __m256i {
    // -1 where a fraction reaches one third, and two.
    let reaches = |limit: u8| {
        let limit = _mm256_set1_epi8(limit.cast_signed());
        _mm256_cmpeq_epi8(_mm256_max_epu8(fractions, limit), fractions)
    };
    _mm256_sub_epi8(_mm256_sub_epi8(_mm256_set1_epi8(-1), reaches(86)), reaches(171))
}

/// Moves the point by one digit.
#[inline]
#[target_feature(enable = "avx2")]
fn times_3(fractions: __m256i) -> __m256i {
    _mm256_add_epi8(_mm256_add_epi8(fractions, fractions), fractions)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_tq1_0(block: &BlockTq1_0) -> Open {
    let (first, second) = block.fives.split_at(32);
    let mut codes = [_mm256_setzero_si256(); 8];
    let mut fractions = load_u8x32(&first.as_chunks().0[0]);
    for codes in &mut codes[..5] {
        *codes = first_digits(fractions);
        fractions = times_3(fractions);
    }
    // Sixteens: digits 0 and 1 of the other fives side by side, then 2 and 3, then 4 and the fours.
    let sixteen = _mm256_broadcastsi128_si256(load_u8x16(&second.as_chunks().0[0]));
    let mut fractions = _mm256_blend_epi32::<0b1111_0000>(sixteen, times_3(sixteen));
    codes[5] = first_digits(fractions);
    fractions = times_3(times_3(fractions));
    codes[6] = first_digits(fractions);
    fractions = times_3(times_3(fractions));
    let fours = _mm256_set1_epi32(i32::from_le_bytes(block.fours));
    let fours = _mm256_blend_epi32::<0b1010_1010>(fours, times_3(fours));
    let fours = _mm256_blend_epi32::<0b1100_1100>(fours, times_3(times_3(fours)));
    codes[7] = first_digits(_mm256_blend_epi32::<0b1111_0000>(fractions, fours));
    with_signed_codes(half_to_f32(block.d), codes, _mm256_set1_epi16(1))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn open_tq2_0(block: &BlockTq2_0) -> Open {
    let (three, one) = (_mm256_set1_epi8(3), _mm256_set1_epi8(1));
    let code = |bytes: __m256i| _mm256_sub_epi8(_mm256_and_si256(bytes, three), one);
    let mut codes = [_mm256_setzero_si256(); 8];
    for (half, bytes) in block.codes.as_chunks::<32>().0.iter().enumerate() {
        let bytes = load_u8x32(bytes);
        codes[4 * half] = code(bytes);
        codes[4 * half + 1] = code(_mm256_srli_epi16::<2>(bytes));
        codes[4 * half + 2] = code(_mm256_srli_epi16::<4>(bytes));
        codes[4 * half + 3] = code(_mm256_srli_epi16::<6>(bytes));
    }
    with_signed_codes(half_to_f32(block.d), codes, _mm256_set1_epi16(1))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn rows<const T: usize, B: SignedBlock>(job: &Job<'_>, t: usize, out: &mut [f32], open: impl Fn(&B) -> Open) {
    let n = job.acts.n();
    let acts: [Row256<'_>; T] = std::array::from_fn(|i| job.acts.row_256(t + i));
    for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
        let mut sums = [_mm256_setzero_ps(); T];
        for (b, block) in from_bytes::<B>(row).iter().enumerate() {
            prefetch(block);
            let block = open(block);
            let products = products(&block, acts.map(|act| &act.codes[b]));
            for ((sum, act), products) in sums.iter_mut().zip(&acts).zip(products) {
                add_signed_products_256(sum, block.d, act, b, products);
            }
        }
        for (out, sum) in out[t..].iter_mut().zip(sums) {
            *out = fold(sum);
        }
    }
}

/// Lane l: the sum over the block of `scale * code * activation` of codes 4l to 4l + 3 of each 32.
/// At most 8 * 4 * 32 * 127 * 127 in magnitude, which 32 bits hold; a pair is at most 2 * 127 * 127,
/// which 16 bits hold.
#[inline]
#[target_feature(enable = "avx2")]
fn products<const T: usize>(block: &Open, acts: [&[i8; 256]; T]) -> [__m256i; T] {
    let mut products = [_mm256_setzero_si256(); T];
    for j in 0..8 {
        let scales = pick_scales(block.scales, j);
        for (product, act) in products.iter_mut().zip(acts) {
            let signed = _mm256_sign_epi8(load_i8x32(&act.as_chunks::<32>().0[j]), block.signs[j]);
            let pairs = _mm256_maddubs_epi16(block.magnitudes[j], signed);
            *product = _mm256_add_epi32(*product, _mm256_madd_epi16(pairs, scales));
        }
    }
    products
}
