//! iq2_xxs, iq2_xs and iq2_s: a code selects the magnitudes of eight weights, signs are stored apart.
//! Weight = `d / 8 * (2 * scale + 1) * ±magnitude` in all of them.

use bytemuck::{Pod, Zeroable};

use super::iq_grids::{EVEN_SIGNS, IQ2_S, IQ2_XS, IQ2_XXS};
use super::signed::{codes_of_eights, signs_of_bits, with_signs};
use super::{Block, HalfLe, Signed256, SignedBlock};

/// Scales of sixteens, stored as two a byte.
fn odd_scales(stored: &[u8; 8]) -> [i8; 16] {
    std::array::from_fn(|j| (2 * (stored[j / 2] >> (j % 2 * 4) & 15) + 1) as i8)
}

/// iq2_xxs: 8 sub-blocks of 32.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq2Xxs {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Of each sub-block four numbers of vectors of [`IQ2_XXS`], then a little-endian number: seven
    /// bits of signs for each vector, and the scale in the top four bits.
    pub subs: [[[u8; 4]; 2]; 8],
}

const _: () = assert!(size_of::<BlockIq2Xxs>() == 66);

impl SignedBlock for BlockIq2Xxs {
    fn open(&self) -> Signed256 {
        let word = |j: usize| u32::from_le_bytes(self.subs[j][1]);
        let codes = codes_of_eights(|i| {
            let signs = EVEN_SIGNS[(word(i / 4) >> (i % 4 * 7) & 127) as usize];
            with_signs(IQ2_XXS[usize::from(self.subs[i / 4][0][i % 4])], signs)
        });
        let scales = std::array::from_fn(|j| (2 * (word(j / 2) >> 28) + 1) as i8);
        Signed256 { d: self.d.to_f32() * 0.125, scales, codes }
    }
}

impl Block for BlockIq2Xxs {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}

/// iq2_xs: 16 sub-blocks of 16.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq2Xs {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Little-endian numbers: nine bits for a vector of [`IQ2_XS`], seven bits of its signs.
    pub grid_and_signs: [[u8; 2]; 32],
    /// Scales, two a byte.
    pub scales: [u8; 8],
}

const _: () = assert!(size_of::<BlockIq2Xs>() == 74);

impl SignedBlock for BlockIq2Xs {
    fn open(&self) -> Signed256 {
        let codes = codes_of_eights(|i| {
            let both = usize::from(u16::from_le_bytes(self.grid_and_signs[i]));
            with_signs(IQ2_XS[both & 511], EVEN_SIGNS[both >> 9])
        });
        Signed256 { d: self.d.to_f32() * 0.125, scales: odd_scales(&self.scales), codes }
    }
}

impl Block for BlockIq2Xs {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}

/// iq2_s: 16 sub-blocks of 16.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq2S {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Low eight bits of the numbers of vectors of [`IQ2_S`].
    pub grid_low: [u8; 32],
    /// A sign bit a weight.
    pub signs: [u8; 32],
    /// Top two bits of the numbers, four a byte.
    pub grid_high: [u8; 8],
    /// Scales, two a byte.
    pub scales: [u8; 8],
}

const _: () = assert!(size_of::<BlockIq2S>() == 82);

impl SignedBlock for BlockIq2S {
    fn open(&self) -> Signed256 {
        let codes = codes_of_eights(|i| {
            let high = usize::from(self.grid_high[i / 4] >> (i % 4 * 2) & 3) << 8;
            with_signs(IQ2_S[usize::from(self.grid_low[i]) | high], signs_of_bits(self.signs[i]))
        });
        Signed256 { d: self.d.to_f32() * 0.125, scales: odd_scales(&self.scales), codes }
    }
}

impl Block for BlockIq2S {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}
