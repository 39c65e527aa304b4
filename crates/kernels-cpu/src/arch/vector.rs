//! Eight lanes of f32: all that the loops of `arch/generic` know about an instruction set.

use tensor::blocks::HalfLe;

/// Lanes of a vector; sums over a row run in as many.
pub(crate) const LANES: usize = 8;
/// Taps of the usual short convolution, whose weights are transposed in registers.
pub(crate) const TAPS: usize = 4;

/// The instructions on eight lanes of one instruction set. A value is the proof that the machine has
/// them, which is why the methods are safe.
///
/// A method is `#[inline(always)]` and has no target features of its own. It is fast only where it
/// is inlined into a function that has them: an entry made by `f32_kernels!`. For the same reason
/// the generic loops are `#[inline(always)]` and have no closure that handles vectors.
pub(crate) trait Vector: Copy {
    /// The lanes.
    type Lanes: Copy;

    /// `value` in each lane.
    fn splat(self, value: f32) -> Self::Lanes;
    fn read(self, from: &[f32; LANES]) -> Self::Lanes;
    fn write(self, value: Self::Lanes, to: &mut [f32; LANES]);
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn div(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn neg(self, a: Self::Lanes) -> Self::Lanes;
    /// `a * b + sum`, rounded once.
    fn mul_add(self, a: Self::Lanes, b: Self::Lanes, sum: Self::Lanes) -> Self::Lanes;
    /// `sum - a * b`, rounded once.
    fn mul_sub_from(self, a: Self::Lanes, b: Self::Lanes, sum: Self::Lanes) -> Self::Lanes;
    /// The larger of `bound` and `x`; NaN where `x` is.
    fn at_least(self, bound: Self::Lanes, x: Self::Lanes) -> Self::Lanes;
    /// The smaller of `bound` and `x`; NaN where `x` is.
    fn at_most(self, bound: Self::Lanes, x: Self::Lanes) -> Self::Lanes;
    /// The larger of two numbers. Where one is NaN, either of the two.
    fn larger_number(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// To the nearest whole number, ties to even.
    fn round(self, a: Self::Lanes) -> Self::Lanes;
    /// `x * 2^n` for whole n, -252 <= n <= 254, by two factors: so that n = 128 overflows and n <
    /// -126 underflows as they should.
    fn scale_by_power_of_two(self, x: Self::Lanes, n: Self::Lanes) -> Self::Lanes;
    /// Sum of the lanes: halves, then quarters, then the last pair.
    fn sum_of_lanes(self, value: Self::Lanes) -> f32;
    /// `half` in each lane.
    fn splat_half(self, half: HalfLe) -> Self::Lanes;
    /// Eight halves, little endian.
    fn read_halves(self, from: &[u8; 2 * LANES]) -> Self::Lanes;
    /// To the nearest halves, ties to even, little endian; finite values saturate.
    fn to_halves(self, value: Self::Lanes) -> [u8; 2 * LANES];
    fn read_codes(self, from: &[i8; LANES]) -> Self::Lanes;
    /// The columns of a matrix of [`LANES`] rows.
    fn read_transposed(self, rows: &[f32; LANES * TAPS]) -> [Self::Lanes; TAPS];
}

/// Implements the methods of [`Vector`] by functions with the target features `$features`, in which
/// the intrinsics that touch no memory are safe. The type must be a proof of the features.
macro_rules! vector_methods {
    ($features:literal: $(fn $name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($argument: $kind),*) $(-> $result)? {
                #[inline]
                #[target_feature(enable = $features)]
                fn with_features($($argument: $kind),*) $(-> $result)? $body
                // SAFETY: `self` proves that the machine has the features.
                unsafe { with_features($($argument),*) }
            }
        )*
    };
}

/// The f32 loops for `$proof`, a [`Vector`], each compiled with the target features `$features`, of
/// which it must be a proof. This is the list of what there is.
macro_rules! f32_kernels {
    ($proof:ty, $features:literal) => {
        $crate::arch::vector::f32_kernels! {
            $proof, $features:
            dots(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>);
            matmul_add(dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>);
            state_step(state: &mut [f32], decay: f32, k: &[f32], q: &[f32], d: &[f32], out: &mut [f32]);
            exp_sum(x: &mut [f32], max: f32) -> f32;
            max(x: &[f32]) -> f32;
            silu_mul(gate: &mut [f32], up: &[f32]);
            scaled_sigmoid_mul(a: f32, x: &[f32], gate: &[f32], out: &mut [f32]);
            scaled_mul_silu(a: f32, weight: &[f32], z: &[f32], o: &mut [f32]);
            axpby(a: f32, x: &[f32], b: f32, y: &mut [f32]);
            conv_silu(weight: &[f32], inputs: &[&[f32]], out: &mut [f32]);
            decode_f16(halves: &[u8], stride: usize, len: usize, out: &mut [f32]);
            encode_f16(values: &[f32], out: &mut [u8]);
            decode_q8_0(blocks: &[u8], stride: usize, len: usize, out: &mut [f32]);
        }
    };
    ($proof:ty, $features:literal:
     $($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {
        impl $proof {
            $(pub(crate) fn $name(self, $($argument: $kind),*) $(-> $result)? {
                #[target_feature(enable = $features)]
                fn entry(proof: $proof, $($argument: $kind),*) $(-> $result)? {
                    $crate::arch::generic::$name(proof, $($argument),*)
                }
                // SAFETY: `self` proves that the machine has the features.
                unsafe { entry(self, $($argument),*) }
            })*
        }
    };
}

pub(crate) use f32_kernels;
pub(crate) use vector_methods;
