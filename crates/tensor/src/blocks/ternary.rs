//! tq1_0 and tq2_0: one scale for 256 weights of -1, 0 or 1 times it.

use bytemuck::{Pod, Zeroable};

use super::{Block, HalfLe, Signed256, SignedBlock};

/// tq1_0: five weights a byte. The byte is a fraction of 256 in base 3, rounded up, and digit n is
/// its n-th digit after the point. Digit n of byte l of `fives[..32]` is weight `32 * n + l`; then
/// `fives[32..]` has the next 80 weights in the same way, and `fours` the last sixteen, four a byte.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockTq1_0 {
    /// Five weights a byte.
    pub fives: [u8; 48],
    /// Four weights a byte.
    pub fours: [u8; 4],
    /// Scale.
    pub d: HalfLe,
}

const _: () = assert!(size_of::<BlockTq1_0>() == 54);

/// Digit n, less 1.
fn digit(byte: u8, n: usize) -> i8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    ((u16::from(byte.wrapping_mul(POWERS[n])) * 3) >> 8) as i8 - 1
}

impl SignedBlock for BlockTq1_0 {
    fn open(&self) -> Signed256 {
        let code = |i: usize| match i {
            0..160 => digit(self.fives[i % 32], i / 32),
            160..240 => digit(self.fives[32 + (i - 160) % 16], (i - 160) / 16),
            _ => digit(self.fours[(i - 240) % 4], (i - 240) / 4),
        };
        Signed256 { d: self.d.to_f32(), scales: [1; 16], codes: std::array::from_fn(code) }
    }
}

impl Block for BlockTq1_0 {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}

/// tq2_0: four weights a byte, which lie as in q2_K; weight = `d * (code - 1)`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockTq2_0 {
    /// Four codes a byte.
    pub codes: [u8; 64],
    /// Scale.
    pub d: HalfLe,
}

const _: () = assert!(size_of::<BlockTq2_0>() == 66);

impl SignedBlock for BlockTq2_0 {
    fn open(&self) -> Signed256 {
        let code = |i: usize| (self.codes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3) as i8 - 1;
        Signed256 { d: self.d.to_f32(), scales: [1; 16], codes: std::array::from_fn(code) }
    }
}

impl Block for BlockTq2_0 {
    const LEN: usize = 256;

    fn decode(&self, dst: &mut [f32]) {
        self.open().decode(dst);
    }
}
