//! NEON, with and without the dot product instruction: the proofs, two vectors of four for eight
//! lanes, and what all dot products use.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use tensor::blocks::HalfLe;

use crate::arch::vector::{LANES, TAPS, Vector, f32_kernels, vector_methods};
use crate::f32_ops::operands::{Dims, Rows, RowsMut};

/// Proof that NEON is available.
#[derive(Copy, Clone)]
pub(crate) struct Neon(());

impl Neon {
    /// The proof, if the machine has the instructions.
    pub(crate) fn new() -> Option<Neon> {
        is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

/// Proof that the dot product instruction is available, beside NEON.
#[derive(Copy, Clone)]
pub(crate) struct NeonDotprod {
    neon: Neon,
}

impl NeonDotprod {
    /// The proof, if the machine has the instruction.
    pub(crate) fn new() -> Option<NeonDotprod> {
        let available = is_aarch64_feature_detected!("dotprod");
        Neon::new().filter(|_| available).map(|neon| NeonDotprod { neon })
    }

    /// For all that gains nothing from it.
    pub(crate) fn neon(self) -> Neon {
        self.neon
    }
}

f32_kernels! { Neon, "neon" }

/// Lanes 0 to 3 and lanes 4 to 7.
#[derive(Copy, Clone)]
pub(crate) struct Eight(float32x4_t, float32x4_t);

impl Vector for Neon {
    type Lanes = Eight;

    vector_methods! { "neon":
        fn splat(value: f32) -> Eight {
            Eight(vdupq_n_f32(value), vdupq_n_f32(value))
        }
        fn read(from: &[f32; LANES]) -> Eight {
            let (low, high) = (from.as_ptr(), from[LANES / 2..].as_ptr());
            // SAFETY: 4 floats each; no alignment is needed.
            unsafe { Eight(vld1q_f32(low), vld1q_f32(high)) }
        }
        fn write(value: Eight, to: &mut [f32; LANES]) {
            let (low, high) = to.split_at_mut(LANES / 2);
            // SAFETY: 4 floats each; no alignment is needed.
            unsafe {
                vst1q_f32(low.as_mut_ptr(), value.0);
                vst1q_f32(high.as_mut_ptr(), value.1);
            }
        }
        fn add(a: Eight, b: Eight) -> Eight {
            Eight(vaddq_f32(a.0, b.0), vaddq_f32(a.1, b.1))
        }
        fn sub(a: Eight, b: Eight) -> Eight {
            Eight(vsubq_f32(a.0, b.0), vsubq_f32(a.1, b.1))
        }
        fn mul(a: Eight, b: Eight) -> Eight {
            Eight(vmulq_f32(a.0, b.0), vmulq_f32(a.1, b.1))
        }
        fn div(a: Eight, b: Eight) -> Eight {
            Eight(vdivq_f32(a.0, b.0), vdivq_f32(a.1, b.1))
        }
        fn neg(a: Eight) -> Eight {
            Eight(vnegq_f32(a.0), vnegq_f32(a.1))
        }
        fn mul_add(a: Eight, b: Eight, sum: Eight) -> Eight {
            Eight(vfmaq_f32(sum.0, a.0, b.0), vfmaq_f32(sum.1, a.1, b.1))
        }
        fn mul_sub_from(a: Eight, b: Eight, sum: Eight) -> Eight {
            Eight(vfmsq_f32(sum.0, a.0, b.0), vfmsq_f32(sum.1, a.1, b.1))
        }
        // Maximum and minimum of a NaN are a NaN.
        fn at_least(bound: Eight, x: Eight) -> Eight {
            Eight(vmaxq_f32(bound.0, x.0), vmaxq_f32(bound.1, x.1))
        }
        fn at_most(bound: Eight, x: Eight) -> Eight {
            Eight(vminq_f32(bound.0, x.0), vminq_f32(bound.1, x.1))
        }
        fn larger_number(a: Eight, b: Eight) -> Eight {
            Eight(vmaxnmq_f32(a.0, b.0), vmaxnmq_f32(a.1, b.1))
        }
        fn round(a: Eight) -> Eight {
            Eight(vrndnq_f32(a.0), vrndnq_f32(a.1))
        }
        fn scale_by_power_of_two(x: Eight, n: Eight) -> Eight {
            Eight(times_power_of_two(x.0, n.0), times_power_of_two(x.1, n.1))
        }
        fn sum_of_lanes(value: Eight) -> f32 {
            fold(value.0, value.1)
        }
        fn splat_half(half: HalfLe) -> Eight {
            let value = vdupq_n_f32(half_to_f32(half));
            Eight(value, value)
        }
        fn read_halves(from: &[u8; 2 * LANES]) -> Eight {
            let fours = from.as_chunks::<2>().0.as_chunks::<4>().0;
            let [low, high] =
                fill!([vdupq_n_f32(0.0); 2], i => halves_to_f32(load_u16x4(&fours[i])));
            Eight(low, high)
        }
        fn to_halves(value: Eight) -> [u8; 2 * LANES] {
            let mut bytes = [0; 2 * LANES];
            bytes[..LANES].copy_from_slice(&nearest_halves(saturated(value.0)));
            bytes[LANES..].copy_from_slice(&nearest_halves(saturated(value.1)));
            bytes
        }
        fn read_codes(from: &[i8; LANES]) -> Eight {
            // SAFETY: 8 bytes; no alignment is needed.
            let codes = vmovl_s8(unsafe { vld1_s8(from.as_ptr()) });
            let (low, high) = (vget_low_s16(codes), vget_high_s16(codes));
            Eight(vcvtq_f32_s32(vmovl_s16(low)), vcvtq_f32_s32(vmovl_s16(high)))
        }
        fn read_transposed(rows: &[f32; LANES * TAPS]) -> [Eight; TAPS] {
            let (low, high) = (rows.as_ptr(), rows[LANES * TAPS / 2..].as_ptr());
            // SAFETY: 16 floats each; no alignment is needed.
            let (low, high) = unsafe { (vld4q_f32(low), vld4q_f32(high)) };
            [Eight(low.0, high.0), Eight(low.1, high.1), Eight(low.2, high.2), Eight(low.3, high.3)]
        }
    }
}

/// `x * 2^n` for whole n, -252 <= n <= 254, by two factors.
#[inline]
#[target_feature(enable = "neon")]
fn times_power_of_two(x: float32x4_t, n: float32x4_t) -> float32x4_t {
    let n = vcvtq_s32_f32(n);
    let half = vshrq_n_s32::<1>(n);
    vmulq_f32(vmulq_f32(x, power_of_two(half)), power_of_two(vsubq_s32(n, half)))
}

/// 2^n for -126 <= n <= 127.
#[inline]
#[target_feature(enable = "neon")]
fn power_of_two(n: int32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))))
}

/// To the nearest halves, ties to even; the conversion that every processor with NEON has.
#[inline]
#[target_feature(enable = "neon")]
fn nearest_halves(values: float32x4_t) -> [u8; LANES] {
    let halves: uint16x4_t;
    // SAFETY: computes a register from a register.
    unsafe {
        asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) halves, in(vreg) values,
            options(pure, nomem, nostack, preserves_flags));
    }
    let mut bytes = [0; LANES];
    // SAFETY: 8 bytes; no alignment is needed.
    unsafe { vst1_u8(bytes.as_mut_ptr(), vreinterpret_u8_u16(halves)) };
    bytes
}

/// Values within what halves hold; what is not finite stays.
#[inline]
#[target_feature(enable = "neon")]
fn saturated(values: float32x4_t) -> float32x4_t {
    const LARGEST: f32 = 65504.0;
    // Minimum and maximum of a NaN are a NaN.
    let bounded = vmaxq_f32(vdupq_n_f32(-LARGEST), vminq_f32(vdupq_n_f32(LARGEST), values));
    vbslq_f32(vceqq_f32(vabsq_f32(values), vdupq_n_f32(f32::INFINITY)), values, bounded)
}

// ---- what the dot products are made of -----------------------------------------------------------

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_u8x16(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i8x16(values: &[i8; 16]) -> int8x16_t {
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    unsafe { vld1q_s8(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_u16x4(values: &[[u8; 2]; 4]) -> uint16x4_t {
    // SAFETY: 8 bytes are readable there; the load needs no alignment.
    vreinterpret_u16_u8(unsafe { vld1_u8(values.as_flattened().as_ptr()) })
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i16x8(values: &[i16; 8]) -> int16x8_t {
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    unsafe { vld1q_s16(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_f32x4(values: &[f32; 4]) -> float32x4_t {
    // SAFETY: 16 bytes are readable there; the load needs no alignment.
    unsafe { vld1q_f32(values.as_ptr()) }
}

/// The conversion that every processor with NEON has; its intrinsic is newer than the compiler that
/// the workspace asks for.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn half_to_f32(half: HalfLe) -> f32 {
    let value: f32;
    // SAFETY: computes a register from a register.
    unsafe {
        asm!("fcvt {0:s}, {1:h}", out(vreg) value, in(vreg) half.to_bits(),
            options(pure, nomem, nostack, preserves_flags));
    }
    value
}

/// As [`half_to_f32`], four at a time.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn halves_to_f32(halves: uint16x4_t) -> float32x4_t {
    let values: float32x4_t;
    // SAFETY: computes a register from a register.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) values, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    values
}

/// The sum of eight lanes: halves first, then even and odd pairs.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn fold(low: float32x4_t, high: float32x4_t) -> f32 {
    let four = vaddq_f32(low, high);
    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
}
