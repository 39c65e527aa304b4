//! q4_K: 256 weights in 8 sub-blocks of 32, each with a scale and a minimum of 6 bits, and 4-bit
//! codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, k_scales, search};

const SUB: usize = 32;

/// Weight i of sub-block j is `d * scale[j] * code - d_min * min[j]`. The codes of sub-blocks 2j
/// and 2j + 1 are the low and the high nibbles of `nibbles[32 * j..][..32]`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Scale of the minima.
    pub d_min: HalfLe,
    /// Eight scales and eight minima; [`BlockQ4K::scales_and_mins`] takes them apart.
    pub scales: [u8; 12],
    /// Two codes a byte.
    pub nibbles: [u8; 128],
}

const _: () = assert!(size_of::<BlockQ4K>() == 144);

impl BlockQ4K {
    /// The scales and the minima of the eight sub-blocks, each 0..=63.
    pub fn scales_and_mins(&self) -> ([u8; 8], [u8; 8]) {
        k_scales::unpack(&self.scales)
    }
}

impl Block for BlockQ4K {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        let (d, d_min) = (self.d.to_f32(), self.d_min.to_f32());
        let (scales, mins) = self.scales_and_mins();
        for (j, sub) in dst.chunks_exact_mut(SUB).enumerate() {
            let scale = d * f32::from(scales[j]);
            let min = d_min * f32::from(mins[j]);
            let nibbles = &self.nibbles[j / 2 * SUB..][..SUB];
            for (weight, &byte) in sub.iter_mut().zip(nibbles) {
                let code = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
                *weight = scale * f32::from(code) - min;
            }
        }
    }
}

impl EncodeBlock for BlockQ4K {
    fn encode(src: &[f32]) -> Self {
        let found = search::affine_super_block::<SUB, 8>(src, 15.0, 63.0);
        let nibbles = std::array::from_fn(|i| {
            let (pair, within) = (i / SUB, i % SUB);
            found.codes[2 * pair][within] | found.codes[2 * pair + 1][within] << 4
        });
        let scales = k_scales::pack(&(found.scales, found.mins));
        Self { d: found.d, d_min: found.d_min, scales, nibbles }
    }
}
