//! q5_0: 32 weights, a half-precision scale and 5-bit codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, search};

/// Weight i is `d * (code - 16)`; the low four bits of the codes lie as in q4_0, and bit i of
/// `high` is the fifth bit of code i.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale; its sign is free.
    pub d: HalfLe,
    /// The fifth bits, a little-endian number of 32 bits.
    pub high: [u8; 4],
    /// Two codes' low bits a byte.
    pub nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ5_0>() == 22);

impl Block for BlockQ5_0 {
    const LEN: usize = 32;

    fn decode(&self, dst: &mut [f32]) {
        let d = self.d.to_f32();
        let high = u32::from_le_bytes(self.high);
        let (first, second) = dst.split_at_mut(16);
        for (i, &byte) in self.nibbles.iter().enumerate() {
            let fifth = |position: usize| ((high >> position & 1) as u8) << 4;
            first[i] = d * (f32::from(byte & 15 | fifth(i)) - 16.0);
            second[i] = d * (f32::from(byte >> 4 | fifth(i + 16)) - 16.0);
        }
    }
}

impl EncodeBlock for BlockQ5_0 {
    fn encode(src: &[f32]) -> Self {
        let (d, codes) = search::scaled_block::<32>(src, 16.0);
        let nibbles = std::array::from_fn(|i| codes[i] & 15 | codes[i + 16] << 4);
        let high = (0..32).fold(0_u32, |bits, i| bits | u32::from(codes[i] >> 4) << i);
        Self { d, high: high.to_le_bytes(), nibbles }
    }
}
