//! iq3_xxs and iq3_s: a code selects the magnitudes of four weights, signs are stored apart.

use bytemuck::{Pod, Zeroable};

use super::iq_grids::{EVEN_SIGNS, IQ3_S, IQ3_XXS};
use super::signed::{codes_of_eights, signs_of_bits, with_signs};
use super::{Block, HalfLe, Signed256, SignedBlock};

/// iq3_xxs: 8 sub-blocks of 32, weight = `d / 4 * (2 * scale + 1) * ±magnitude`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq3Xxs {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Numbers of vectors of [`IQ3_XXS`], one for four weights.
    pub grid: [u8; 64],
    /// Of each sub-block a little-endian number: seven bits of signs for each eight weights, and the
    /// scale in the top four bits.
    pub signs_and_scale: [[u8; 4]; 8],
}

const _: () = assert!(size_of::<BlockIq3Xxs>() == 98);

impl SignedBlock for BlockIq3Xxs {
    fn open(&self) -> Signed256 {
        let word = |j: usize| u32::from_le_bytes(self.signs_and_scale[j]);
        let codes = codes_of_eights(|i| {
            let [low, high] = [2 * i, 2 * i + 1].map(|at| IQ3_XXS[usize::from(self.grid[at])]);
            let signs = EVEN_SIGNS[(word(i / 4) >> (i % 4 * 7) & 127) as usize];
            with_signs(u64::from(low) | u64::from(high) << 32, signs)
        });
        let scales = std::array::from_fn(|j| (2 * (word(j / 2) >> 28) + 1) as i8);
        Signed256 { d: self.d.to_f32() * 0.25, scales, codes }
    }
}

impl Block for BlockIq3Xxs {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}

/// iq3_s: 8 sub-blocks of 32, weight = `d * (2 * scale + 1) * ±magnitude`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq3S {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Low eight bits of the numbers of vectors of [`IQ3_S`], one for four weights.
    pub grid_low: [u8; 64],
    /// Their ninth bits, eight a byte.
    pub grid_high: [u8; 8],
    /// A sign bit a weight.
    pub signs: [u8; 32],
    /// Scales, two a byte.
    pub scales: [u8; 4],
}

const _: () = assert!(size_of::<BlockIq3S>() == 110);

impl SignedBlock for BlockIq3S {
    fn open(&self) -> Signed256 {
        let vector = |at: usize| {
            let ninth = usize::from(self.grid_high[at / 8] >> (at % 8) & 1) << 8;
            u64::from(IQ3_S[usize::from(self.grid_low[at]) | ninth])
        };
        let codes = codes_of_eights(|i| {
            with_signs(vector(2 * i) | vector(2 * i + 1) << 32, signs_of_bits(self.signs[i]))
        });
        let scale = |j: usize| self.scales[j / 2] >> (j % 2 * 4) & 15;
        let scales = std::array::from_fn(|j| (2 * scale(j / 2) + 1) as i8);
        Signed256 { d: self.d.to_f32(), scales, codes }
    }
}

impl Block for BlockIq3S {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}
