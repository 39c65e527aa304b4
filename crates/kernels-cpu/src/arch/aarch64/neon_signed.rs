//! Blocks of 256 whose weights are a scale times a signed integer from a table, opened with NEON:
//! iq1 to iq4 and the ternary formats.
//!
//! Magnitudes are fetched from tables of 1 to 16 KB and multiplied with signs of 1 and -1.

use std::arch::aarch64::*;

use tensor::blocks::iq_grids::{EVEN_SIGNS, IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use tensor::blocks::{
    BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs, BlockIq4Xs, BlockTq1_0,
    BlockTq2_0, IQ4_VALUES,
};

use super::neon::{half_to_f32, load_i8x16, load_u8x16};
use super::neon_blocks::{Open256, bits_are_set, look_up, pairs_of_bits, signed_256, widen};

#[inline]
#[target_feature(enable = "neon")]
fn set_64(values: [u64; 2]) -> int8x16_t {
    vreinterpretq_s8_u64(vcombine_u64(vcreate_u64(values[0]), vcreate_u64(values[1])))
}

#[inline]
#[target_feature(enable = "neon")]
fn set_32(values: [u32; 4]) -> uint32x4_t {
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    unsafe { vld1q_u32(values.as_ptr()) }
}

/// 1, or -1 where the bit is set.
#[inline]
#[target_feature(enable = "neon")]
fn signs_of_bits(bits: [u8; 2]) -> int8x16_t {
    vreinterpretq_s8_u8(vorrq_u8(bits_are_set(bits), vdupq_n_u8(1)))
}

/// Signs of eights `2 * half` and the next of the four whose signs `word` has, seven bits each, from
/// the lowest bit on.
#[inline]
#[target_feature(enable = "neon")]
fn even_signs(word: u32, half: usize) -> int8x16_t {
    set_64(fill!([0; 2], k => EVEN_SIGNS[(word >> (14 * half + 7 * k) & 127) as usize]))
}

/// Scales of eight sub-blocks of 32, two sixteens each.
#[inline]
#[target_feature(enable = "neon")]
fn scales_of_32([low, high]: [uint32x4_t; 2]) -> [int32x4_t; 4] {
    [vzip1q_u32(low, low), vzip2q_u32(low, low), vzip1q_u32(high, high), vzip2q_u32(high, high)]
        .map(|scales| vreinterpretq_s32_u32(scales))
}

/// Scales of 32 weights each, 2 * n + 1, where n is the top nibble of a word.
#[inline]
#[target_feature(enable = "neon")]
fn odd_scales_of_words(words: [u32; 8]) -> [int32x4_t; 4] {
    let odd = |words: uint32x4_t| vorrq_u32(vshlq_n_u32::<1>(vshrq_n_u32::<28>(words)), vdupq_n_u32(1));
    let [a, b, c, d, e, f, g, h] = words;
    scales_of_32([odd(set_32([a, b, c, d])), odd(set_32([e, f, g, h]))])
}

/// Twice each number, and 1.
#[inline]
#[target_feature(enable = "neon")]
fn odd(nibbles: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(vorrq_u8(vshlq_n_u8::<1>(nibbles), vdupq_n_u8(1)))
}

/// The nibbles of eight bytes, in order.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles_in_order(bytes: u64) -> uint8x16_t {
    let bytes = vcreate_u8(bytes);
    let (low, high) = (vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8::<4>(bytes));
    vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high))
}

/// Scales of sixteens: 2 * nibble + 1.
#[inline]
#[target_feature(enable = "neon")]
fn odd_scales_of_16(nibbles: &[u8; 8]) -> [int32x4_t; 4] {
    widen(odd(nibbles_in_order(u64::from_le_bytes(*nibbles))))
}

/// Scales of 32 weights each: 2 * nibble + 1.
#[inline]
#[target_feature(enable = "neon")]
fn odd_scales_of_32(nibbles: [u8; 4]) -> [int32x4_t; 4] {
    let eight = odd(nibbles_in_order(u64::from(u32::from_le_bytes(nibbles))));
    widen(vzip1q_s8(eight, eight))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq4_xs(block: &BlockIq4Xs) -> Open256 {
    let nibbles = block.nibbles.as_chunks::<16>().0;
    let mut codes = [vdupq_n_s8(0); 16];
    for (codes, nibbles) in codes.as_chunks_mut::<2>().0.iter_mut().zip(nibbles) {
        *codes = look_up(&IQ4_VALUES, nibbles);
    }
    // Eight scales of six bits: their low nibbles in order, and eight pairs of bits.
    let low = vget_low_u8(nibbles_in_order(u64::from(u32::from_le_bytes(block.scales_low))));
    let pairs = vdupq_n_u16(u16::from_le_bytes(block.scales_high));
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    let shifts = unsafe { vld1q_s16([0, -2, -4, -6, -8, -10, -12, -14].as_ptr()) };
    let high = vmovn_u16(vandq_u16(vshlq_u16(pairs, shifts), vdupq_n_u16(3)));
    let scales = vreinterpret_s8_u8(vorr_u8(low, vshl_n_u8::<4>(high)));
    let scales = vsub_s8(scales, vdup_n_s8(32));
    let scales = vcombine_s8(vzip1_s8(scales, scales), vzip2_s8(scales, scales));
    signed_256(half_to_f32(block.d), codes, widen(scales))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq3_xxs(block: &BlockIq3Xxs) -> Open256 {
    let words = fill!([0; 8], j => u32::from_le_bytes(block.signs_and_scale[j]));
    let grid = block.grid.as_chunks::<4>().0;
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let magnitudes = set_32(fill!([0; 4], k => IQ3_XXS[usize::from(grid[i][k])]));
        vmulq_s8(vreinterpretq_s8_u32(magnitudes), even_signs(words[i / 2], i % 2))
    });
    signed_256(half_to_f32(block.d) * 0.25, codes, odd_scales_of_words(words))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq3_s(block: &BlockIq3S) -> Open256 {
    let (grid, signs) = (block.grid_low.as_chunks::<4>().0, block.signs.as_chunks::<2>().0);
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let high = usize::from(block.grid_high[i / 2]) >> (4 * (i % 2));
        let magnitudes = fill!([0; 4], k => IQ3_S[usize::from(grid[i][k]) | (high >> k & 1) << 8]);
        vmulq_s8(vreinterpretq_s8_u32(set_32(magnitudes)), signs_of_bits(signs[i]))
    });
    signed_256(half_to_f32(block.d), codes, odd_scales_of_32(block.scales))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq2_xxs(block: &BlockIq2Xxs) -> Open256 {
    let words = fill!([0; 8], j => u32::from_le_bytes(block.subs[j][1]));
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let grid = &block.subs[i / 2][0].as_chunks::<2>().0[i % 2];
        let magnitudes = set_64(fill!([0; 2], k => IQ2_XXS[usize::from(grid[k])]));
        vmulq_s8(magnitudes, even_signs(words[i / 2], i % 2))
    });
    signed_256(half_to_f32(block.d) * 0.125, codes, odd_scales_of_words(words))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq2_xs(block: &BlockIq2Xs) -> Open256 {
    let both = block.grid_and_signs.as_chunks::<2>().0;
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let both = fill!([0; 2], k => usize::from(u16::from_le_bytes(both[i][k])));
        let magnitudes = set_64(fill!([0; 2], k => IQ2_XS[both[k] & 511]));
        vmulq_s8(magnitudes, set_64(fill!([0; 2], k => EVEN_SIGNS[both[k] >> 9])))
    });
    signed_256(half_to_f32(block.d) * 0.125, codes, odd_scales_of_16(&block.scales))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq2_s(block: &BlockIq2S) -> Open256 {
    let (grid, signs) = (block.grid_low.as_chunks::<2>().0, block.signs.as_chunks::<2>().0);
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let high = usize::from(block.grid_high[i / 2]) >> (4 * (i % 2));
        let magnitudes = fill!([0; 2], k => IQ2_S[usize::from(grid[i][k]) | (high >> (2 * k) & 3) << 8]);
        vmulq_s8(set_64(magnitudes), signs_of_bits(signs[i]))
    });
    signed_256(half_to_f32(block.d) * 0.125, codes, odd_scales_of_16(&block.scales))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq1_s(block: &BlockIq1S) -> Open256 {
    let grid = block.grid_low.as_chunks::<2>().0;
    let words = fill!([0; 8], j => u32::from(u16::from_le_bytes(block.high[j])));
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let word = words[i / 2] as usize;
        let high = word >> (6 * (i % 2));
        let values = fill!([0; 2], k => IQ1[usize::from(grid[i][k]) | (high >> (3 * k) & 7) << 8]);
        let shift = if word >> 15 == 1 { -1 } else { 1 };
        vaddq_s8(set_64(values), vdupq_n_s8(shift))
    });
    // Three bits of scale under the top bit.
    let scales = odd_scales_of_words(fill!([0; 8], j => (words[j] >> 12 & 7) << 28));
    signed_256(half_to_f32(block.d) * 0.125, codes, scales)
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq1_m(block: &BlockIq1M) -> Open256 {
    const SHIFTS: [u64; 2] = [0x0101_0101_0101_0101, u64::MAX];
    let grid = block.grid_low.as_chunks::<2>().0;
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let nibbles = usize::from(block.grid_high[i]);
        let values = fill!([0; 2], k => IQ1[usize::from(grid[i][k]) | (nibbles >> (4 * k) & 7) << 8]);
        let shifts = fill!([0; 2], k => SHIFTS[nibbles >> (4 * k + 3) & 1]);
        vaddq_s8(set_64(values), set_64(shifts))
    });
    let words = fill!([0; 4], i => u16::from_le_bytes(block.scales[i]));
    let scales = fill!([0; 16], i => (2 * (words[i / 4] >> (i % 4 * 3) & 7) + 1) as i8);
    signed_256(block.d() * 0.125, codes, widen(load_i8x16(&scales)))
}

/// The first digits after the point of fractions of 256 in base 3, less 1.
#[inline]
#[target_feature(enable = "neon")]
fn first_digits(fractions: uint8x16_t) -> int8x16_t {
    // All ones, which is -1, where a fraction reaches one third, and two.
    let (third, thirds) = (vcgeq_u8(fractions, vdupq_n_u8(86)), vcgeq_u8(fractions, vdupq_n_u8(171)));
    vreinterpretq_s8_u8(vsubq_u8(vsubq_u8(vdupq_n_u8(u8::MAX), third), thirds))
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_tq1_0(block: &BlockTq1_0) -> Open256 {
    let mut codes = [vdupq_n_s8(0); 16];
    let fives = block.fives.as_chunks::<16>().0;
    // Digit n of the first two sixteens of bytes, then of the third.
    for (at, bytes, step) in [(0, &fives[0], 2), (1, &fives[1], 2), (10, &fives[2], 1)] {
        let mut fractions = load_u8x16(bytes);
        for n in 0..5 {
            codes[at + n * step] = first_digits(fractions);
            // The next digit moves before the point, and is dropped.
            fractions = vmulq_u8(fractions, vdupq_n_u8(3));
        }
    }
    let fours = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(block.fours)));
    let powers = load_u8x16(&[1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27]);
    codes[15] = first_digits(vmulq_u8(fours, powers));
    signed_256(half_to_f32(block.d), codes, [vdupq_n_s32(1); 4])
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_tq2_0(block: &BlockTq2_0) -> Open256 {
    let (codes, one) = (pairs_of_bits(&block.codes), vdupq_n_s8(1));
    let codes = fill!([vdupq_n_s8(0); 16], i => vsubq_s8(vreinterpretq_s8_u8(codes[i]), one));
    signed_256(half_to_f32(block.d), codes, [vdupq_n_s32(1); 4])
}
