//! q6_K: 256 weights in 16 sub-blocks of 16, each with a scale of 8 bits, and 6-bit codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, search};

const SUB: usize = 16;

/// Weight i of sub-block j is `d * scales[j] * (code - 32)`. The codes lie in two halves of 128
/// weights; within a half, weight `32 * k + l` has its low four bits in byte `l + 32 * (k % 2)` of
/// `low` (low nibble for k < 2, high for k >= 2) and its top two bits in bits `2 * k..` of byte `l`
/// of `high`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// Low four bits of the codes.
    pub low: [u8; 128],
    /// Top two bits of the codes.
    pub high: [u8; 64],
    /// Scales of the sub-blocks.
    pub scales: [i8; 16],
    /// Scale of the scales.
    pub d: HalfLe,
}

const _: () = assert!(size_of::<BlockQ6K>() == 210);

impl Block for BlockQ6K {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        let d = self.d.to_f32();
        for (i, weight) in dst.iter_mut().enumerate() {
            let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
            let low = self.low[64 * half + 32 * (k % 2) + l] >> (4 * (k / 2)) & 15;
            let high = self.high[32 * half + l] >> (2 * k) & 3;
            let code = f32::from(low | high << 4) - 32.0;
            *weight = d * f32::from(self.scales[i / SUB]) * code;
        }
    }
}

impl EncodeBlock for BlockQ6K {
    fn encode(src: &[f32]) -> Self {
        let found = search::scaled_super_block::<SUB, 16>(src, 32.0, 128.0);
        let (mut low, mut high) = ([0; 128], [0; 64]);
        for i in 0..Self::LEN {
            let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
            let code = found.codes[i / SUB][i % SUB];
            low[64 * half + 32 * (k % 2) + l] |= (code & 15) << (4 * (k / 2));
            high[32 * half + l] |= code >> 4 << (2 * k);
        }
        Self { low, high, scales: found.scales, d: found.d }
    }
}
