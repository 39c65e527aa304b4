//! q4_1: 32 weights, a half-precision scale, a half-precision offset and 4-bit codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, search};

/// Weight i is `d * code + m`; the codes lie as in q4_0.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale.
    pub d: HalfLe,
    /// The weight of code 0; its sign is free.
    pub m: HalfLe,
    /// Two codes a byte.
    pub nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_1>() == 20);

impl Block for BlockQ4_1 {
    const LEN: usize = 32;

    fn decode(&self, dst: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let (first, second) = dst.split_at_mut(16);
        for (i, &byte) in self.nibbles.iter().enumerate() {
            first[i] = d * f32::from(byte & 15) + m;
            second[i] = d * f32::from(byte >> 4) + m;
        }
    }
}

impl EncodeBlock for BlockQ4_1 {
    fn encode(src: &[f32]) -> Self {
        let (d, m, codes) = search::offset_block::<32>(src, 15.0);
        let nibbles = std::array::from_fn(|i| codes[i] | codes[i + 16] << 4);
        Self { d, m, nibbles }
    }
}
