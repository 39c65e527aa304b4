//! iq4_nl, iq4_xs and mxfp4: a 4-bit code selects one of sixteen values.

use bytemuck::{Pod, Zeroable};

use super::{Block, HalfLe, Signed256, SignedBlock};

/// The values of iq4_nl and iq4_xs: closer to each other near zero, where most weights are.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of mxfp4 (sign, two bits of exponent, one of mantissa), doubled.
pub const MXFP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The values of 32 codes: the low nibbles, then the high ones.
fn look_up(values: &[i8; 16], nibbles: &[u8; 16]) -> [i8; 32] {
    std::array::from_fn(|i| values[usize::from(nibbles[i % 16] >> (i / 16 * 4) & 15)])
}

fn decode(d: f32, codes: [i8; 32], dst: &mut [f32]) {
    for (weight, code) in dst.iter_mut().zip(codes) {
        *weight = d * f32::from(code);
    }
}

/// iq4_nl: weight i is `d * IQ4_VALUES[code]`; the codes lie as in q4_0.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Nl {
    /// Scale; its sign is free.
    pub d: HalfLe,
    /// Two codes a byte.
    pub nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockIq4Nl>() == 18);

impl BlockIq4Nl {
    /// What the scale multiplies.
    pub fn values(&self) -> [i8; 32] {
        look_up(&IQ4_VALUES, &self.nibbles)
    }
}

impl Block for BlockIq4Nl {
    const LEN: usize = 32;

    fn decode(&self, dst: &mut [f32]) {
        decode(self.d.to_f32(), self.values(), dst);
    }
}

/// mxfp4: weight i is half of `2^(exponent - 127) * MXFP4_VALUES[code]`; the codes lie as in q4_0.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockMxfp4 {
    /// Exponent of the scale, biased by 127.
    pub exponent: u8,
    /// Two codes a byte.
    pub nibbles: [u8; 16],
}

const _: () = assert!(size_of::<BlockMxfp4>() == 17);

impl BlockMxfp4 {
    /// Half the scale, since the values are doubled: 2^(exponent - 128), subnormal for the exponents
    /// 0 and 1. An exponent of 255 is taken for a number, as ggml does.
    pub fn half_scale(&self) -> f32 {
        let exponent = u32::from(self.exponent);
        f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 })
    }

    /// What [`BlockMxfp4::half_scale`] multiplies.
    pub fn values(&self) -> [i8; 32] {
        look_up(&MXFP4_VALUES, &self.nibbles)
    }
}

impl Block for BlockMxfp4 {
    const LEN: usize = 32;

    fn decode(&self, dst: &mut [f32]) {
        decode(self.half_scale(), self.values(), dst);
    }
}

/// iq4_xs: 8 sub-blocks of 32, each with a scale of 6 bits; weight i of sub-block j is
/// `d * scale[j] * IQ4_VALUES[code]`, and its codes lie as in a block of iq4_nl.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq4Xs {
    /// Scale of the scales.
    pub d: HalfLe,
    /// Top two bits of the scales, a little-endian number of eight pairs.
    pub scales_high: [u8; 2],
    /// Low four bits of the scales, two a byte.
    pub scales_low: [u8; 4],
    /// Two codes a byte.
    pub nibbles: [u8; 128],
}

const _: () = assert!(size_of::<BlockIq4Xs>() == 136);

impl BlockIq4Xs {
    /// The scales of the sub-blocks, each -32..=31.
    pub fn unpacked_scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_high);
        std::array::from_fn(|j| {
            let low = self.scales_low[j / 2] >> (j % 2 * 4) & 15;
            (low | ((high >> (2 * j) & 3) as u8) << 4) as i8 - 32
        })
    }
}

impl SignedBlock for BlockIq4Xs {
    fn open(&self) -> Signed256 {
        let (scales, mut codes) = (self.unpacked_scales(), [0; 256]);
        let subs = codes.as_chunks_mut::<32>().0.iter_mut().zip(self.nibbles.as_chunks::<16>().0);
        for (codes, nibbles) in subs {
            *codes = look_up(&IQ4_VALUES, nibbles);
        }
        Signed256 { d: self.d.to_f32(), scales: std::array::from_fn(|j| scales[j / 2]), codes }
    }
}

impl Block for BlockIq4Xs {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}
