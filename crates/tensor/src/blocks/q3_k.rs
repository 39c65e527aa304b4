//! q3_K: 256 weights in 16 sub-blocks of 16, each with a scale of 6 bits, and 3-bit codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe, search};

const SUB: usize = 16;
/// The stored scale that stands for zero.
const SCALE_ZERO: i8 = 32;

/// Weight i of sub-block j is `d * scale[j] * (code - 4)`. The codes lie in two halves of 128
/// weights; weight `32 * k + l` of half h has its low two bits in bits `2 * k..` of byte `32 * h +
/// l` of `low` and its top bit in bit `4 * h + k` of byte `l` of `high`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// Top bits of the codes.
    pub high: [u8; 32],
    /// Low two bits of the codes.
    pub low: [u8; 64],
    /// Sixteen scales of six bits; [`BlockQ3K::unpacked_scales`] takes them apart.
    pub scales: [u8; 12],
    /// Scale of the scales.
    pub d: HalfLe,
}

const _: () = assert!(size_of::<BlockQ3K>() == 110);

impl BlockQ3K {
    /// The scales of the sub-blocks, each -32..=31. Their low four bits are the low nibbles of
    /// bytes 0..8 and then the high ones; the top two bits of scales j, j + 4, j + 8 and j + 12 are
    /// the four pairs of bits of byte 8 + j.
    pub fn unpacked_scales(&self) -> [i8; 16] {
        std::array::from_fn(|j| {
            let low = self.scales[j % 8] >> (j / 8 * 4) & 15;
            let high = self.scales[8 + j % 4] >> (j / 4 * 2) & 3;
            (low | high << 4) as i8 - SCALE_ZERO
        })
    }
}

fn pack_scales(scales: &[i8; 16]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (j, &scale) in scales.iter().enumerate() {
        let stored = (scale + SCALE_ZERO) as u8;
        bytes[j % 8] |= (stored & 15) << (j / 8 * 4);
        bytes[8 + j % 4] |= stored >> 4 << (j / 4 * 2);
    }
    bytes
}

impl Block for BlockQ3K {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        let (d, scales) = (self.d.to_f32(), self.unpacked_scales());
        for (i, weight) in dst.iter_mut().enumerate() {
            let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
            let low = self.low[32 * half + l] >> (2 * k) & 3;
            let high = self.high[l] >> (4 * half + k) & 1;
            let code = f32::from(low | high << 2) - 4.0;
            *weight = d * f32::from(scales[i / SUB]) * code;
        }
    }
}

impl EncodeBlock for BlockQ3K {
    fn encode(src: &[f32]) -> Self {
        let found = search::scaled_super_block::<SUB, 16>(src, 4.0, f32::from(SCALE_ZERO));
        let (mut low, mut high) = ([0; 64], [0; 32]);
        for i in 0..Self::LEN {
            let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
            let code = found.codes[i / SUB][i % SUB];
            low[32 * half + l] |= (code & 3) << (2 * k);
            high[l] |= code >> 2 << (4 * half + k);
        }
        Self { high, low, scales: pack_scales(&found.scales), d: found.d }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scale_survives() {
        for j in 0..16 {
            for scale in -32..32 {
                let mut scales = [-1; 16];
                scales[j] = scale;
                let block = BlockQ3K { scales: pack_scales(&scales), ..BlockQ3K::zeroed() };
                assert_eq!(block.unpacked_scales(), scales);
            }
        }
    }
}
