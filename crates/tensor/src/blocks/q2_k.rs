//! q2_K: 256 weights in 16 sub-blocks of 16, each with a scale and a minimum of 4 bits, and 2-bit
//! codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, search};

const SUB: usize = 16;

/// Weight i of sub-block j is `d * scale[j] * code - d_min * min[j]`. The codes lie in two halves of
/// 128 weights; weight `32 * k + l` of half h has bits `2 * k..` of byte `32 * h + l` of `codes`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// Scale (low nibble) and minimum (high nibble) of each sub-block.
    pub scales_and_mins: [u8; 16],
    /// Four codes a byte.
    pub codes: [u8; 64],
    /// Scale of the scales.
    pub d: HalfLe,
    /// Scale of the minima.
    pub d_min: HalfLe,
}

const _: () = assert!(size_of::<BlockQ2K>() == 84);

impl Block for BlockQ2K {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        let (d, d_min) = (self.d.to_f32(), self.d_min.to_f32());
        for (j, sub) in dst.chunks_exact_mut(SUB).enumerate() {
            let scale = d * f32::from(self.scales_and_mins[j] & 15);
            let min = d_min * f32::from(self.scales_and_mins[j] >> 4);
            let codes = &self.codes[j / 8 * 32 + j % 2 * SUB..][..SUB];
            for (weight, &byte) in sub.iter_mut().zip(codes) {
                *weight = scale * f32::from(byte >> (j / 2 % 4 * 2) & 3) - min;
            }
        }
    }
}

impl EncodeBlock for BlockQ2K {
    fn encode(src: &[f32]) -> Self {
        let found = search::affine_super_block::<SUB, 16>(src, 3.0, 15.0);
        let mut codes = [0; 64];
        for i in 0..Self::LEN {
            let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
            codes[32 * half + l] |= found.codes[i / SUB][i % SUB] << (2 * k);
        }
        let scales_and_mins = std::array::from_fn(|j| found.scales[j] | found.mins[j] << 4);
        Self { scales_and_mins, codes, d: found.d, d_min: found.d_min }
    }
}
