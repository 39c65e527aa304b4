//! q5_1: 32 weights, a half-precision scale, a half-precision offset and 5-bit codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, search};

/// Weight i is `d * code + m`; the codes lie as in q5_0.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale.
    pub d: HalfLe,
    /// The weight of code 0; its sign is free.
    pub m: HalfLe,
    /// The fifth bits, a little-endian number of 32 bits.
    pub high: [u8; 4],
    /// Two codes' low bits a byte.
    pub nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ5_1>() == 24);

impl Block for BlockQ5_1 {
    const LEN: usize = 32;

    fn decode(&self, dst: &mut [f32]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let high = u32::from_le_bytes(self.high);
        let (first, second) = dst.split_at_mut(16);
        for (i, &byte) in self.nibbles.iter().enumerate() {
            let fifth = |position: usize| ((high >> position & 1) as u8) << 4;
            first[i] = d * f32::from(byte & 15 | fifth(i)) + m;
            second[i] = d * f32::from(byte >> 4 | fifth(i + 16)) + m;
        }
    }
}

impl EncodeBlock for BlockQ5_1 {
    fn encode(src: &[f32]) -> Self {
        let (d, m, codes) = search::offset_block::<32>(src, 31.0);
        let nibbles = std::array::from_fn(|i| codes[i] & 15 | codes[i + 16] << 4);
        let high = (0..32).fold(0_u32, |bits, i| bits | u32::from(codes[i] >> 4) << i);
        Self { d, m, high: high.to_le_bytes(), nibbles }
    }
}
