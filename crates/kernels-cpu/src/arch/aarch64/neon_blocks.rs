//! Blocks with plain codes, opened with NEON: q4_0 to q8_0, q2_K to q6_K, iq4_nl and mxfp4.

use std::arch::aarch64::*;

use tensor::blocks::{
    BlockIq4Nl, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1,
    BlockQ5K, BlockQ6K, BlockQ8_0, IQ4_VALUES, MXFP4_VALUES,
};

use super::neon::{half_to_f32, load_i8x16, load_u8x16};

/// A block of 32 as integers: weight = d * code + m.
pub(super) struct Open32 {
    pub(super) d: f32,
    /// Unused where code 0 is weight 0.
    pub(super) m: f32,
    pub(super) codes: [int8x16_t; 2],
}

/// A block of 256 as integers: weight = d * scale * code, less what there is of minima.
pub(super) struct Open256 {
    pub(super) d: f32,
    pub(super) d_min: f32,
    pub(super) codes: [int8x16_t; 16],
    /// Of the sixteens, in order.
    pub(super) scales: [int32x4_t; 4],
    /// Of the even sixteens, then of the odd ones.
    pub(super) mins: [int16x8_t; 2],
}

#[inline]
#[target_feature(enable = "neon")]
fn as_signed(codes: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    [vreinterpretq_s8_u8(codes[0]), vreinterpretq_s8_u8(codes[1])]
}

/// Low nibbles, then high nibbles.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn nibbles(bytes: &[u8; 16]) -> [uint8x16_t; 2] {
    let bytes = load_u8x16(bytes);
    [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)]
}

/// All ones in byte i where bit i is set.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn bits_are_set(bits: [u8; 2]) -> uint8x16_t {
    let eights = vcombine_u8(vdup_n_u8(bits[0]), vdup_n_u8(bits[1]));
    vtstq_u8(eights, vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201)))
}

/// The values that the nibbles stand for, low nibbles first.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn look_up(values: &[i8; 16], bytes: &[u8; 16]) -> [int8x16_t; 2] {
    let (values, [low, high]) = (load_i8x16(values), nibbles(bytes));
    [vqtbl1q_s8(values, low), vqtbl1q_s8(values, high)]
}

/// Sixteen numbers of 32 bits.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn widen(numbers: int8x16_t) -> [int32x4_t; 4] {
    let (low, high) = (vmovl_s8(vget_low_s8(numbers)), vmovl_high_s8(numbers));
    [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
}

/// Sixteen numbers of 16 bits, those of even places first.
#[inline]
#[target_feature(enable = "neon")]
fn even_then_odd(numbers: int8x16_t) -> [int16x8_t; 2] {
    let pairs = vreinterpretq_s16_s8(numbers);
    [vshrq_n_s16::<8>(vshlq_n_s16::<8>(pairs)), vshrq_n_s16::<8>(pairs)]
}

// ---- blocks of 32 -------------------------------------------------------------------------------

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q4_0(block: &BlockQ4_0) -> Open32 {
    let [low, high] = as_signed(nibbles(&block.nibbles));
    let eight = vdupq_n_s8(8);
    Open32 { d: half_to_f32(block.d), m: 0.0, codes: [vsubq_s8(low, eight), vsubq_s8(high, eight)] }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q4_1(block: &BlockQ4_1) -> Open32 {
    let codes = as_signed(nibbles(&block.nibbles));
    Open32 { d: half_to_f32(block.d), m: half_to_f32(block.m), codes }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q5_0(block: &BlockQ5_0) -> Open32 {
    let ([low, high], bits) = (nibbles(&block.nibbles), block.high.as_chunks::<2>().0);
    // Code - 16 is the nibble where the fifth bit is set, and nibble - 16, its bits under four
    // ones, where it is clear.
    let minus_16 = vdupq_n_u8(0xF0);
    let codes = [
        vorrq_u8(low, vbicq_u8(minus_16, bits_are_set(bits[0]))),
        vorrq_u8(high, vbicq_u8(minus_16, bits_are_set(bits[1]))),
    ];
    Open32 { d: half_to_f32(block.d), m: 0.0, codes: as_signed(codes) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q5_1(block: &BlockQ5_1) -> Open32 {
    let ([low, high], bits) = (nibbles(&block.nibbles), block.high.as_chunks::<2>().0);
    let plus_16 = vdupq_n_u8(16);
    let codes = [
        vorrq_u8(low, vandq_u8(plus_16, bits_are_set(bits[0]))),
        vorrq_u8(high, vandq_u8(plus_16, bits_are_set(bits[1]))),
    ];
    Open32 { d: half_to_f32(block.d), m: half_to_f32(block.m), codes: as_signed(codes) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q8_0(block: &BlockQ8_0) -> Open32 {
    let codes = block.codes.as_chunks::<16>().0;
    Open32 { d: half_to_f32(block.d), m: 0.0, codes: [load_i8x16(&codes[0]), load_i8x16(&codes[1])] }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_iq4_nl(block: &BlockIq4Nl) -> Open32 {
    Open32 { d: half_to_f32(block.d), m: 0.0, codes: look_up(&IQ4_VALUES, &block.nibbles) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_mxfp4(block: &BlockMxfp4) -> Open32 {
    Open32 { d: block.half_scale(), m: 0.0, codes: look_up(&MXFP4_VALUES, &block.nibbles) }
}

// ---- blocks of 256 ------------------------------------------------------------------------------

/// What has no minima.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn signed_256(d: f32, codes: [int8x16_t; 16], scales: [int32x4_t; 4]) -> Open256 {
    Open256 { d, d_min: 0.0, codes, scales, mins: [vdupq_n_s16(0); 2] }
}

/// Two bits of each byte, as they lie in q2_K, q3_K and tq2_0: code 32k + l of a half (128 codes)
/// is pair k of byte l.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn pairs_of_bits(bytes: &[u8; 64]) -> [uint8x16_t; 16] {
    let bytes = bytes.as_chunks::<16>().0;
    let three = vdupq_n_u8(3);
    let mut codes = [vdupq_n_u8(0); 16];
    for half in 0..2 {
        for l in 0..2 {
            let bytes = load_u8x16(&bytes[2 * half + l]);
            let at = 8 * half + l;
            codes[at] = vandq_u8(bytes, three);
            codes[at + 2] = vandq_u8(vshrq_n_u8::<2>(bytes), three);
            codes[at + 4] = vandq_u8(vshrq_n_u8::<4>(bytes), three);
            codes[at + 6] = vshrq_n_u8::<6>(bytes);
        }
    }
    codes
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q2_k(block: &BlockQ2K) -> Open256 {
    let codes = pairs_of_bits(&block.codes);
    let both = load_u8x16(&block.scales_and_mins);
    Open256 {
        d: half_to_f32(block.d),
        d_min: half_to_f32(block.d_min),
        codes: fill!([vdupq_n_s8(0); 16], i => vreinterpretq_s8_u8(codes[i])),
        scales: widen(vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)))),
        mins: even_then_odd(vreinterpretq_s8_u8(vshrq_n_u8::<4>(both))),
    }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q3_k(block: &BlockQ3K) -> Open256 {
    let low = pairs_of_bits(&block.low);
    let high = block.high.as_chunks::<16>().0;
    let high = [load_u8x16(&high[0]), load_u8x16(&high[1])];
    let four = vdupq_n_u8(4);
    // Group i / 2 of 32 has bit i / 2.
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let is_set = vtstq_u8(high[i % 2], vdupq_n_u8(1 << (i / 2)));
        vreinterpretq_s8_u8(vorrq_u8(low[i], vandq_u8(is_set, four)))
    });
    let scales = scales_q3_k(&block.scales);
    let [even, odd] = even_then_odd(scales);
    Open256 {
        d: half_to_f32(block.d),
        d_min: 0.0,
        codes,
        scales: widen(scales),
        // The code of zero is 4 everywhere.
        mins: [vshlq_n_s16::<2>(even), vshlq_n_s16::<2>(odd)],
    }
}

/// Sixteen scales of six bits; see `BlockQ3K::unpacked_scales`.
#[inline]
#[target_feature(enable = "neon")]
fn scales_q3_k(bytes: &[u8; 12]) -> int8x16_t {
    let [a, b, c, d, e, f, g, h, pairs @ ..] = *bytes;
    let bytes = vcreate_u8(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    let low = vcombine_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8::<4>(bytes));
    // The shift of each word puts its pair of bits where bits 4 and 5 are.
    let pairs = u32::from_le_bytes(pairs);
    let words = [pairs << 4, pairs << 2, pairs, pairs >> 2];
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    let pairs = vreinterpretq_u8_u32(unsafe { vld1q_u32(words.as_ptr()) });
    let scales = vorrq_u8(low, vandq_u8(pairs, vdupq_n_u8(0x30)));
    vsubq_s8(vreinterpretq_s8_u8(scales), vdupq_n_s8(32))
}

/// Nibbles as they lie in q4_K and q5_K: the low ones of 32 bytes, then the high ones.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles_of_32(bytes: &[u8; 128]) -> [uint8x16_t; 16] {
    let bytes = bytes.as_chunks::<16>().0;
    let mut codes = [vdupq_n_u8(0); 16];
    for j in 0..4 {
        for l in 0..2 {
            let [low, high] = nibbles(&bytes[2 * j + l]);
            codes[4 * j + l] = low;
            codes[4 * j + 2 + l] = high;
        }
    }
    codes
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q4_k(block: &BlockQ4K) -> Open256 {
    let codes = nibbles_of_32(&block.nibbles);
    let (scales, mins) = scales_and_mins(&block.scales);
    Open256 {
        d: half_to_f32(block.d),
        d_min: half_to_f32(block.d_min),
        codes: fill!([vdupq_n_s8(0); 16], i => vreinterpretq_s8_u8(codes[i])),
        scales,
        mins,
    }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q5_k(block: &BlockQ5K) -> Open256 {
    let low = nibbles_of_32(&block.nibbles);
    let high = block.high.as_chunks::<16>().0;
    let high = [load_u8x16(&high[0]), load_u8x16(&high[1])];
    let sixteen = vdupq_n_u8(16);
    // Group i / 2 of 32 has bit i / 2.
    let codes = fill!([vdupq_n_s8(0); 16], i => {
        let is_set = vtstq_u8(high[i % 2], vdupq_n_u8(1 << (i / 2)));
        vreinterpretq_s8_u8(vorrq_u8(low[i], vandq_u8(is_set, sixteen)))
    });
    let (scales, mins) = scales_and_mins(&block.scales);
    Open256 { d: half_to_f32(block.d), d_min: half_to_f32(block.d_min), codes, scales, mins }
}

/// The scales and the minima of q4_K and q5_K; a sub-block of 32 is two sixteens.
#[inline]
#[target_feature(enable = "neon")]
fn scales_and_mins(bytes: &[u8; 12]) -> ([int32x4_t; 4], [int16x8_t; 2]) {
    // Four numbers of six bits at a time, in the bytes of a word; see `BlockQ4K::scales_and_mins`.
    let word = |i: usize| {
        let [a, b, c, d] = bytes.as_chunks::<4>().0[i];
        u32::from_le_bytes([a, b, c, d])
    };
    let (scales, mins, split) = (word(0), word(1), word(2));
    let top_two = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    let eight = |low: u32, high: u32| vcreate_u8(u64::from(low & 0x3F3F_3F3F) | u64::from(high) << 32);
    let low = |split: u32| split & 0x0F0F_0F0F;
    let scales = eight(scales, low(split) | top_two(scales));
    let scales = vcombine_u8(vzip1_u8(scales, scales), vzip2_u8(scales, scales));
    let mins = eight(mins, low(split >> 4) | top_two(mins));
    (widen(vreinterpretq_s8_u8(scales)), [vreinterpretq_s16_u16(vmovl_u8(mins)); 2])
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn open_q6_k(block: &BlockQ6K) -> Open256 {
    let (low, high) = (block.low.as_chunks::<16>().0, block.high.as_chunks::<16>().0);
    let top_two = vdupq_n_u8(0x30);
    let join =
        |low: uint8x16_t, high: uint8x16_t| vreinterpretq_s8_u8(vorrq_u8(low, vandq_u8(high, top_two)));
    let mut codes = [vdupq_n_s8(0); 16];
    for half in 0..2 {
        for l in 0..2 {
            let [first, third] = nibbles(&low[4 * half + l]);
            let [second, fourth] = nibbles(&low[4 * half + 2 + l]);
            let high = load_u8x16(&high[2 * half + l]);
            let at = 8 * half + l;
            codes[at] = join(first, vshlq_n_u8::<4>(high));
            codes[at + 2] = join(second, vshlq_n_u8::<2>(high));
            codes[at + 4] = join(third, high);
            codes[at + 6] = join(fourth, vshrq_n_u8::<2>(high));
        }
    }
    let scales = load_i8x16(&block.scales);
    let [even, odd] = even_then_odd(scales);
    Open256 {
        d: half_to_f32(block.d),
        d_min: 0.0,
        codes,
        scales: widen(scales),
        // The code of zero is 32 everywhere.
        mins: [vshlq_n_s16::<5>(even), vshlq_n_s16::<5>(odd)],
    }
}
