//! q4_0: 32 weights, a half-precision scale and 4-bit codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, search};

/// Weight i is `d * (code - 8)`, where the codes of weights 0..16 are the low nibbles of `nibbles`
/// and those of weights 16..32 the high ones.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale; its sign is free.
    pub d: HalfLe,
    /// Two codes a byte.
    pub nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_0>() == 18);

impl Block for BlockQ4_0 {
    const LEN: usize = 32;

    fn decode(&self, dst: &mut [f32]) {
        let d = self.d.to_f32();
        let (first, second) = dst.split_at_mut(16);
        for (i, &byte) in self.nibbles.iter().enumerate() {
            first[i] = d * (f32::from(byte & 15) - 8.0);
            second[i] = d * (f32::from(byte >> 4) - 8.0);
        }
    }
}

impl EncodeBlock for BlockQ4_0 {
    fn encode(src: &[f32]) -> Self {
        let (d, codes) = search::scaled_block::<32>(src, 8.0);
        let nibbles = std::array::from_fn(|i| codes[i] | codes[i + 16] << 4);
        Self { d, nibbles }
    }
}
