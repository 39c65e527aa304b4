//! q5_K: 256 weights in 8 sub-blocks of 32, each with a scale and a minimum of 6 bits, and 5-bit
//! codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, k_scales, search};

const SUB: usize = 32;

/// As [`BlockQ4K`](super::BlockQ4K), with a fifth bit of the codes: that of weight i of sub-block j
/// is bit j of byte i of `high`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Scale of the minima.
    pub d_min: HalfLe,
    /// Eight scales and eight minima; [`BlockQ5K::scales_and_mins`] takes them apart.
    pub scales: [u8; 12],
    /// The fifth bits.
    pub high: [u8; 32],
    /// Two codes' low bits a byte.
    pub nibbles: [u8; 128],
}

const _: () = assert!(size_of::<BlockQ5K>() == 176);

impl BlockQ5K {
    /// The scales and the minima of the eight sub-blocks, each 0..=63.
    pub fn scales_and_mins(&self) -> ([u8; 8], [u8; 8]) {
        k_scales::unpack(&self.scales)
    }
}

impl Block for BlockQ5K {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        let (d, d_min) = (self.d.to_f32(), self.d_min.to_f32());
        let (scales, mins) = self.scales_and_mins();
        for (j, sub) in dst.chunks_exact_mut(SUB).enumerate() {
            let scale = d * f32::from(scales[j]);
            let min = d_min * f32::from(mins[j]);
            let nibbles = &self.nibbles[j / 2 * SUB..][..SUB];
            for ((weight, &byte), &high) in sub.iter_mut().zip(nibbles).zip(&self.high) {
                let code = byte >> (j % 2 * 4) & 15 | (high >> j & 1) << 4;
                *weight = scale * f32::from(code) - min;
            }
        }
    }
}

impl EncodeBlock for BlockQ5K {
    fn encode(src: &[f32]) -> Self {
        let found = search::affine_super_block::<SUB, 8>(src, 31.0, 63.0);
        let nibbles = std::array::from_fn(|i| {
            let (pair, within) = (i / SUB, i % SUB);
            found.codes[2 * pair][within] & 15 | found.codes[2 * pair + 1][within] << 4
        });
        let high = std::array::from_fn(|i| (0..8).fold(0, |bits, j| bits | found.codes[j][i] >> 4 << j));
        let scales = k_scales::pack(&(found.scales, found.mins));
        Self { d: found.d, d_min: found.d_min, scales, high, nibbles }
    }
}
