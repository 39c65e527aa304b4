//! iq1_s and iq1_m: a code selects eight values of -1, 0 and 1, which are shifted by an eighth up or
//! down. Weight = `d * (2 * scale + 1) * (value ± 1/8)`, here in eighths.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::iq_grids::IQ1;
use super::signed::codes_of_eights;
use super::{Block, HalfLe, Signed256, SignedBlock};

/// Eight values in eighths, shifted.
fn shifted(number: usize, is_down: bool) -> u64 {
    let shift = if is_down { 0xFF } else { 1 };
    u64::from_le_bytes(IQ1[number].to_le_bytes().map(|value| value.wrapping_add(shift)))
}

/// iq1_s: 8 sub-blocks of 32.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq1S {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Low eight bits of the numbers of vectors of [`IQ1`].
    pub grid_low: [u8; 32],
    /// Of each sub-block a little-endian number: the top three bits of its four vectors' numbers,
    /// three bits of scale, and in the top bit whether the shift is down.
    pub high: [[u8; 2]; 8],
}

const _: () = assert!(size_of::<BlockIq1S>() == 50);

impl SignedBlock for BlockIq1S {
    fn open(&self) -> Signed256 {
        let word = |j: usize| usize::from(u16::from_le_bytes(self.high[j]));
        let codes = codes_of_eights(|i| {
            let high = word(i / 4);
            let number = usize::from(self.grid_low[i]) | (high >> (i % 4 * 3) & 7) << 8;
            shifted(number, high >> 15 == 1)
        });
        let scales = std::array::from_fn(|j| (2 * (word(j / 2) >> 12 & 7) + 1) as i8);
        Signed256 { d: self.d.to_f32() * 0.125, scales, codes }
    }
}

impl Block for BlockIq1S {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}

/// iq1_m: 16 sub-blocks of 16.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq1M {
    /// Low eight bits of the numbers of vectors of [`IQ1`].
    pub grid_low: [u8; 32],
    /// A nibble a vector: the top three bits of its number, and whether its shift is down.
    pub grid_high: [u8; 16],
    /// Four little-endian numbers: in their low twelve bits the scales of four sub-blocks, three
    /// bits each; in their top four bits a quarter of `d`, the lowest first.
    pub scales: [[u8; 2]; 4],
}

const _: () = assert!(size_of::<BlockIq1M>() == 56);

impl BlockIq1M {
    /// The scale of the scales.
    pub fn d(&self) -> f32 {
        let quarters = self.scales.iter().enumerate();
        let bits = quarters.fold(0, |bits, (i, [_, top])| bits | u16::from(top >> 4) << (4 * i));
        f16::from_bits(bits).to_f32()
    }
}

impl SignedBlock for BlockIq1M {
    fn open(&self) -> Signed256 {
        let codes = codes_of_eights(|i| {
            let high = usize::from(self.grid_high[i / 2] >> (i % 2 * 4) & 15);
            shifted(usize::from(self.grid_low[i]) | (high & 7) << 8, high >> 3 == 1)
        });
        let word = |j: usize| u16::from_le_bytes(self.scales[j]);
        let scales = std::array::from_fn(|j| (2 * (word(j / 4) >> (j % 4 * 3) & 7) + 1) as i8);
        Signed256 { d: self.d() * 0.125, scales, codes }
    }
}

impl Block for BlockIq1M {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}
