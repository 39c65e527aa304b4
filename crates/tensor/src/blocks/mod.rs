//! The blocks themselves: one `repr(C)` struct per format with its scalar codec.
//!
//! Every field is made of bytes, so a block has alignment 1 and a slice of blocks can be borrowed
//! from bytes that lie anywhere in a file. Numbers of more than one byte are little endian on every
//! machine.

mod codebook;
mod float;
mod iq1;
mod iq2;
mod iq3;
pub mod iq_grids;
mod k_scales;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod search;
mod signed;
mod ternary;

pub use codebook::{BlockIq4Nl, BlockIq4Xs, BlockMxfp4, IQ4_VALUES, MXFP4_VALUES};
pub use float::{BlockBf16, BlockF16, BlockF32};
pub use iq1::{BlockIq1M, BlockIq1S};
pub use iq2::{BlockIq2S, BlockIq2Xs, BlockIq2Xxs};
pub use iq3::{BlockIq3S, BlockIq3Xxs};
pub use q2_k::BlockQ2K;
pub use q3_k::BlockQ3K;
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5K;
pub use q6_k::BlockQ6K;
pub use q8_0::BlockQ8_0;
pub use signed::{Signed256, SignedBlock};
pub use ternary::{BlockTq1_0, BlockTq2_0};

use bytemuck::{Pod, Zeroable};
use half::f16;

/// One block: the unit that is decoded as a whole.
pub trait Block: Pod {
    /// Weights in a block.
    const LEN: usize;

    /// Writes the block's `LEN` weights to `dst`, which has that length.
    fn decode(&self, dst: &mut [f32]);
}

/// A block that weights can be stored in.
pub trait EncodeBlock: Block {
    /// The block that stands for `src`, `LEN` finite weights.
    fn encode(src: &[f32]) -> Self;
}

/// The blocks that `bytes` are made of, where they lie.
///
/// # Panics
/// If `bytes` is not a whole number of blocks; a row of a [`MatrixView`](crate::MatrixView) of the
/// format always is.
pub fn from_bytes<B: Block>(bytes: &[u8]) -> &[B] {
    bytemuck::cast_slice(bytes)
}

/// A half-precision number as it lies in a block.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct HalfLe([u8; 2]);

impl HalfLe {
    /// The half that serves `value` best as a scale: the nearest one, but neither infinite nor,
    /// unless `value` is, zero.
    pub fn scale(value: f32) -> Self {
        let limit = f16::MAX.to_f32();
        let smallest = f16::MIN_POSITIVE_SUBNORMAL.to_f32();
        let magnitude = value.abs().clamp(smallest, limit).copysign(value);
        Self(f16::from_f32(if value == 0.0 { 0.0 } else { magnitude }).to_le_bytes())
    }

    /// As [`HalfLe::scale`], but no smaller than `value` by more than the rounding of a normal
    /// half. Subnormal halves are so coarse that the nearest one may put the largest weight out of
    /// the codes' reach.
    pub fn scale_reaching(value: f32) -> Self {
        let nearest = Self::scale(value);
        let bits = nearest.to_bits();
        let reaches = nearest.to_f32().abs() >= value.abs() * (1.0 - 1.0 / 1024.0);
        let is_largest = bits & 0x7FFF == f16::MAX.to_bits();
        if reaches || is_largest { nearest } else { Self((bits + 1).to_le_bytes()) }
    }

    /// The sixteen bits, for conversions in hardware.
    pub fn to_bits(self) -> u16 {
        u16::from_le_bytes(self.0)
    }

    /// The number.
    pub fn to_f32(self) -> f32 {
        f16::from_le_bytes(self.0).to_f32()
    }
}
