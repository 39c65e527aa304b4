//! Plain floats, as blocks of one.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use super::{Block, EncodeBlock};

/// An IEEE single.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct BlockF32([u8; 4]);

/// An IEEE half.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct BlockF16([u8; 2]);

/// A bfloat16.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct BlockBf16([u8; 2]);

impl Block for BlockF32 {
    const LEN: usize = 1;

    fn decode(&self, dst: &mut [f32]) {
        dst[0] = f32::from_le_bytes(self.0);
    }
}

impl EncodeBlock for BlockF32 {
    fn encode(src: &[f32]) -> Self {
        Self(src[0].to_le_bytes())
    }
}

impl Block for BlockF16 {
    const LEN: usize = 1;

    fn decode(&self, dst: &mut [f32]) {
        dst[0] = f16::from_le_bytes(self.0).to_f32();
    }
}

impl EncodeBlock for BlockF16 {
    fn encode(src: &[f32]) -> Self {
        // Finite weights stay finite, as in the quantised formats; infinities and NaNs stay what
        // they are.
        let limit = f16::MAX.to_f32();
        let value = if src[0].is_finite() { src[0].clamp(-limit, limit) } else { src[0] };
        Self(f16::from_f32(value).to_le_bytes())
    }
}

impl Block for BlockBf16 {
    const LEN: usize = 1;

    fn decode(&self, dst: &mut [f32]) {
        dst[0] = bf16::from_le_bytes(self.0).to_f32();
    }
}

impl EncodeBlock for BlockBf16 {
    fn encode(src: &[f32]) -> Self {
        let limit = bf16::MAX.to_f32();
        let value = if src[0].is_finite() { src[0].clamp(-limit, limit) } else { src[0] };
        Self(bf16::from_f32(value).to_le_bytes())
    }
}
