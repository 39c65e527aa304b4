//! Dot products with NEON, with and without the dot product instruction; the twin of
//! `dot/scalar.rs`.
//!
//! The order of work is that of AVX2 (`arch/x86_64/avx2_dot.rs`): a block is opened once, as vectors
//! of small integers, and multiplied with up to four activation rows, whose sums stay in registers.
//! Eight lanes of sums are two vectors of four here.
//!
//! `sdot` adds four products of neighbours to a lane of 32 bits, which is the order of the scalar
//! code; without it the same sums take four instructions. `smmla` (i8mm) adds eight, and would
//! change the order of the floats' sums.

use std::arch::aarch64::*;
use std::arch::asm;

use tensor::Format;

use super::neon::{
    Neon, NeonDotprod, fold, halves_to_f32, load_f32x4, load_i8x16, load_i16x8, load_u8x16, load_u16x4,
};
use crate::dot::job::{Job, for_token_tiles};

impl Neon {
    /// Computes all products of the job without `sdot`: `out` is [rows, n].
    pub(crate) fn mul_rows(self, job: &Job<'_>, out: &mut [f32]) {
        // SAFETY: `self` proves that the machine has NEON.
        unsafe { neon::mul_rows(job, out) }
    }
}

impl NeonDotprod {
    /// Computes all products of the job with `sdot`: `out` is [rows, n].
    pub(crate) fn mul_rows(self, job: &Job<'_>, out: &mut [f32]) {
        // SAFETY: `self` proves that the machine has NEON and the dot product instruction.
        unsafe { dotprod::mul_rows(job, out) }
    }
}

/// Lane l: the sum of the products of bytes 4l to 4l + 3.
#[inline]
#[target_feature(enable = "neon")]
fn fours(w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
    let high = vmull_high_s8(w, a);
    // At most 128 * 127 * 2 per pair, which 16 bits hold.
    vpaddlq_s16(vpaddq_s16(low, high))
}

/// As [`fours`], in one instruction. Its intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn fours_dotprod(w: int8x16_t, a: int8x16_t) -> int32x4_t {
    let mut sums = vdupq_n_s32(0);
    // SAFETY: computes a register from registers; the function's features include the instruction.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) w, in(vreg) a,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Lane l: the sum of the products of numbers 2l and 2l + 1.
#[inline]
#[target_feature(enable = "neon")]
fn pairs(a: int16x8_t, b: int16x8_t) -> int32x4_t {
    vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b))
}

/// `sums + scale * products`, rounded twice.
#[inline]
#[target_feature(enable = "neon")]
fn add_scaled(sums: float32x4_t, scale: f32, products: int32x4_t) -> float32x4_t {
    vaddq_f32(sums, vmulq_n_f32(vcvtq_f32_s32(products), scale))
}

// ---- floats -------------------------------------------------------------------------------------

/// Weights of one step.
const FLOAT_STEP: usize = 16;
/// Vectors of a step.
const FLOAT_VECTORS: usize = FLOAT_STEP / 4;
/// Several activation rows of f32 do not fit the first-level cache beside the weights, so a band of
/// weight rows is multiplied with a strip of their columns (1024) after the other. Each product
/// still adds its steps in order.
const STRIP_STEPS: usize = 64;
/// Weight rows of a band.
const BAND_ROWS: usize = 16;

type FloatSums = [float32x4_t; FLOAT_VECTORS];

#[target_feature(enable = "neon")]
fn float_tile<const T: usize>(job: &Job<'_>, t: usize, out: &mut [f32]) {
    match job.format {
        Format::F32 => float_rows::<T, 4>(job, t, out, |bytes| load_f32(bytes)),
        Format::F16 => float_rows::<T, 2>(job, t, out, |bytes| load_f16(bytes)),
        _ => float_rows::<T, 2>(job, t, out, |bytes| load_bf16(bytes)),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_f32(bytes: &[[u8; 4]; FLOAT_STEP]) -> FloatSums {
    let fours = bytes.as_flattened().as_chunks::<16>().0;
    fill!([vdupq_n_f32(0.0); FLOAT_VECTORS], i => vreinterpretq_f32_u8(load_u8x16(&fours[i])))
}

#[inline]
#[target_feature(enable = "neon")]
fn load_f16(bytes: &[[u8; 2]; FLOAT_STEP]) -> FloatSums {
    let fours = bytes.as_chunks::<4>().0;
    fill!([vdupq_n_f32(0.0); FLOAT_VECTORS], i => halves_to_f32(load_u16x4(&fours[i])))
}

#[inline]
#[target_feature(enable = "neon")]
fn load_bf16(bytes: &[[u8; 2]; FLOAT_STEP]) -> FloatSums {
    let fours = bytes.as_chunks::<4>().0;
    fill!([vdupq_n_f32(0.0); FLOAT_VECTORS], i => {
        vreinterpretq_f32_u32(vshll_n_u16::<16>(load_u16x4(&fours[i])))
    })
}

/// `BYTES` is the size of a weight, `load` makes vectors of 16 weights.
#[inline]
#[target_feature(enable = "neon")]
fn float_rows<const T: usize, const BYTES: usize>(
    job: &Job<'_>,
    t: usize,
    out: &mut [f32],
    load: impl Fn(&[[u8; BYTES]; FLOAT_STEP]) -> FloatSums,
) {
    let n = job.acts.n();
    let acts: [&[f32]; T] = std::array::from_fn(|i| job.acts.values(t + i));
    let acts = acts.map(|act| act.as_chunks::<FLOAT_STEP>());
    // A single activation row is read as often as it is long; its weights had better be read in one
    // go.
    let strip = if T == 1 { usize::MAX } else { STRIP_STEPS };
    let bands = job.weights.chunks(BAND_ROWS * job.row_bytes).zip(out.chunks_mut(BAND_ROWS * n));
    for (band, out) in bands {
        let mut sums = [[[vdupq_n_f32(0.0); FLOAT_VECTORS]; T]; BAND_ROWS];
        let steps = acts[0].0.len();
        let mut start = 0;
        while start < steps {
            let end = start.saturating_add(strip).min(steps);
            for (row, sums) in band.chunks_exact(job.row_bytes).zip(&mut sums) {
                let row = &row.as_chunks::<BYTES>().0.as_chunks::<FLOAT_STEP>().0[start..end];
                add_strip(sums, row, acts.map(|(act, _)| &act[start..end]), &load);
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
                add_strip(sums, &[step], rest.each_ref().map(std::slice::from_ref), &load);
            }
            for (out, sums) in out[t..].iter_mut().zip(sums) {
                *out = fold(vaddq_f32(sums[0], sums[2]), vaddq_f32(sums[1], sums[3]));
            }
        }
    }
}

/// Adds the products of some steps of one weight row with `T` activation rows.
#[inline]
#[target_feature(enable = "neon")]
fn add_strip<const T: usize, const BYTES: usize>(
    total: &mut [FloatSums; T],
    weights: &[[[u8; BYTES]; FLOAT_STEP]],
    acts: [&[[f32; FLOAT_STEP]]; T],
    load: impl Fn(&[[u8; BYTES]; FLOAT_STEP]) -> FloatSums,
) {
    let mut sums = *total;
    for (s, weights) in weights.iter().enumerate() {
        let weights = load(weights);
        for (sums, act) in sums.iter_mut().zip(acts) {
            let act = act[s].as_chunks::<4>().0;
            for ((sum, weights), act) in sums.iter_mut().zip(weights).zip(act) {
                *sum = vfmaq_f32(*sum, weights, load_f32x4(act));
            }
        }
    }
    *total = sums;
}

// ---- blocks -------------------------------------------------------------------------------------

/// Weights of a block of 256 are d * scale * code, …
const NO_MINS: u8 = 0;
/// … less d * min: a fixed zero. It is subtracted in the lanes that the scalar code has it in; codes
/// with the zero subtracted would have the same sum in other lanes, and another rounding.
const FIXED_ZERO: u8 = 1;
/// … less d_min * min.
const SCALED_MINS: u8 = 2;

/// The sums of a weight row's products with one activation row, even and odd blocks apart.
#[derive(Copy, Clone)]
struct Sums32 {
    lanes: [[float32x4_t; 2]; 2],
    offsets: [f32; 2],
}

/// The loops over blocks, compiled for `$features`, with `$fours` to multiply. A macro, because a
/// function is inlined only into functions with its features, and a generic one has but one set.
macro_rules! loops {
    ($features:literal, $fours:ident) => {
        use std::arch::aarch64::*;

        use tensor::Format;
        use tensor::blocks::*;

        use super::super::{neon_blocks::*, neon_signed::*};
        use super::{
            FIXED_ZERO, NO_MINS, SCALED_MINS, Sums32, add_scaled, float_tile, fold, for_token_tiles, load_i8x16, load_i16x8,
            pairs, $fours,
        };
        use crate::dot::job::{Job, Row32, Row256};

        #[target_feature(enable = $features)]
        pub(super) fn mul_rows(job: &Job<'_>, out: &mut [f32]) {
            for_token_tiles!(job.acts.n(), t => tile(job, t, out));
        }

        #[target_feature(enable = $features)]
        fn tile<const T: usize>(job: &Job<'_>, t: usize, out: &mut [f32]) {
            match job.format {
                Format::F32 | Format::F16 | Format::BF16 => float_tile::<T>(job, t, out),
                Format::Q4_0 => rows_32::<T, BlockQ4_0, false>(job, t, out, |block| open_q4_0(block)),
                Format::Q4_1 => rows_32::<T, BlockQ4_1, true>(job, t, out, |block| open_q4_1(block)),
                Format::Q5_0 => rows_32::<T, BlockQ5_0, false>(job, t, out, |block| open_q5_0(block)),
                Format::Q5_1 => rows_32::<T, BlockQ5_1, true>(job, t, out, |block| open_q5_1(block)),
                Format::Q8_0 => rows_32::<T, BlockQ8_0, false>(job, t, out, |block| open_q8_0(block)),
                Format::IQ4NL => rows_32::<T, BlockIq4Nl, false>(job, t, out, |block| open_iq4_nl(block)),
                Format::MXFP4 => rows_32::<T, BlockMxfp4, false>(job, t, out, |block| open_mxfp4(block)),
                Format::Q2K => rows_256::<T, BlockQ2K, SCALED_MINS>(job, t, out, |block| open_q2_k(block)),
                Format::Q3K => rows_256::<T, BlockQ3K, FIXED_ZERO>(job, t, out, |block| open_q3_k(block)),
                Format::Q4K => rows_256::<T, BlockQ4K, SCALED_MINS>(job, t, out, |block| open_q4_k(block)),
                Format::Q5K => rows_256::<T, BlockQ5K, SCALED_MINS>(job, t, out, |block| open_q5_k(block)),
                Format::Q6K => rows_256::<T, BlockQ6K, FIXED_ZERO>(job, t, out, |block| open_q6_k(block)),
                Format::IQ1S => rows_256::<T, BlockIq1S, NO_MINS>(job, t, out, |block| open_iq1_s(block)),
                Format::IQ1M => rows_256::<T, BlockIq1M, NO_MINS>(job, t, out, |block| open_iq1_m(block)),
                Format::IQ2XXS => rows_256::<T, BlockIq2Xxs, NO_MINS>(job, t, out, |block| open_iq2_xxs(block)),
                Format::IQ2XS => rows_256::<T, BlockIq2Xs, NO_MINS>(job, t, out, |block| open_iq2_xs(block)),
                Format::IQ2S => rows_256::<T, BlockIq2S, NO_MINS>(job, t, out, |block| open_iq2_s(block)),
                Format::IQ3XXS => rows_256::<T, BlockIq3Xxs, NO_MINS>(job, t, out, |block| open_iq3_xxs(block)),
                Format::IQ3S => rows_256::<T, BlockIq3S, NO_MINS>(job, t, out, |block| open_iq3_s(block)),
                Format::IQ4XS => rows_256::<T, BlockIq4Xs, NO_MINS>(job, t, out, |block| open_iq4_xs(block)),
                Format::TQ1_0 => rows_256::<T, BlockTq1_0, NO_MINS>(job, t, out, |block| open_tq1_0(block)),
                Format::TQ2_0 => rows_256::<T, BlockTq2_0, NO_MINS>(job, t, out, |block| open_tq2_0(block)),
                other => unreachable!("{other} has no NEON dot product; add it here with its block"),
            }
        }

        /// `OFFSET`: the blocks have an `m`.
        #[inline]
        #[target_feature(enable = $features)]
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
                let mut sums = [Sums32 { lanes: [[vdupq_n_f32(0.0); 2]; 2], offsets: [0.0; 2] }; T];
                for (i, [even, odd]) in pairs.iter().enumerate() {
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
                for (out, Sums32 { lanes: [even, odd], offsets }) in out[t..].iter_mut().zip(sums) {
                    *out = fold(vaddq_f32(even[0], odd[0]), vaddq_f32(even[1], odd[1]));
                    *out += offsets[0] + offsets[1];
                }
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn add_block_32<const ODD: usize, const OFFSET: bool>(
            sums: &mut Sums32,
            block: &Open32,
            act: &Row32<'_>,
            b: usize,
        ) {
            if OFFSET {
                sums.offsets[ODD] += block.m * act.sums[b];
            }
            let scale = block.d * act.scales[b];
            let codes = act.codes[b].as_chunks::<16>().0;
            for ((lanes, &block), act) in sums.lanes[ODD].iter_mut().zip(&block.codes).zip(codes) {
                *lanes = add_scaled(*lanes, scale, $fours(block, load_i8x16(act)));
            }
        }

        /// `MINS`: which minima the blocks have.
        #[inline]
        #[target_feature(enable = $features)]
        fn rows_256<const T: usize, B: Block, const MINS: u8>(
            job: &Job<'_>,
            t: usize,
            out: &mut [f32],
            open: impl Fn(&B) -> Open256,
        ) {
            let n = job.acts.n();
            let acts: [Row256<'_>; T] = std::array::from_fn(|i| job.acts.row_256(t + i));
            for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
                let mut sums = [[vdupq_n_f32(0.0); 2]; T];
                for (b, block) in from_bytes::<B>(row).iter().enumerate() {
                    let block = open(block);
                    let products = products_256(&block, acts.map(|act| &act.codes[b]));
                    for ((sums, act), products) in sums.iter_mut().zip(&acts).zip(products) {
                        add_products_256::<MINS>(sums, &block, act, b, products);
                    }
                }
                for (out, sums) in out[t..].iter_mut().zip(sums) {
                    *out = fold(sums[0], sums[1]);
                }
            }
        }

        /// Lane l: the sum over the block of `scale * code * activation` of codes 4l to 4l + 3 of
        /// each 32. At most 8 * 4 * 127 * 127 * 127 in magnitude, which 32 bits hold.
        #[inline]
        #[target_feature(enable = $features)]
        fn products_256<const T: usize>(block: &Open256, acts: [&[i8; 256]; T]) -> [[int32x4_t; 2]; T] {
            let mut products = [[vdupq_n_s32(0); 2]; T];
            let quarters = block.codes.as_chunks::<4>().0.iter().zip(block.scales);
            for (quarter, (codes, scales)) in quarters.enumerate() {
                for ([low, high], act) in products.iter_mut().zip(acts) {
                    let act = &act.as_chunks::<16>().0.as_chunks::<4>().0[quarter];
                    *low = vmlaq_laneq_s32::<0>(*low, $fours(codes[0], load_i8x16(&act[0])), scales);
                    *high = vmlaq_laneq_s32::<1>(*high, $fours(codes[1], load_i8x16(&act[1])), scales);
                    *low = vmlaq_laneq_s32::<2>(*low, $fours(codes[2], load_i8x16(&act[2])), scales);
                    *high = vmlaq_laneq_s32::<3>(*high, $fours(codes[3], load_i8x16(&act[3])), scales);
                }
            }
            products
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn add_products_256<const MINS: u8>(
            sums: &mut [float32x4_t; 2],
            block: &Open256,
            act: &Row256<'_>,
            b: usize,
            products: [int32x4_t; 2],
        ) {
            let (scale, min_scale) = (block.d * act.scales[b], block.d_min * act.scales[b]);
            // The even sixteens first, then the odd ones, in the minima as in the activations' sums.
            let halves = block.mins.iter().zip(act.sums[b].as_chunks::<8>().0);
            for ((sum, products), (&mins, act)) in sums.iter_mut().zip(products).zip(halves) {
                if MINS == NO_MINS {
                    *sum = add_scaled(*sum, scale, products);
                    continue;
                }
                let mins = pairs(mins, load_i16x8(act));
                if MINS == FIXED_ZERO {
                    *sum = add_scaled(*sum, scale, vsubq_s32(products, mins));
                    continue;
                }
                let products = vmulq_n_f32(vcvtq_f32_s32(products), scale);
                let mins = vmulq_n_f32(vcvtq_f32_s32(mins), min_scale);
                *sum = vaddq_f32(*sum, vsubq_f32(products, mins));
            }
        }
    };
}

mod neon {
    loops!("neon", fours);
}

mod dotprod {
    loops!("neon,dotprod", fours_dotprod);
}
