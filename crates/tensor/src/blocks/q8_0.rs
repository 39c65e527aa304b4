//! q8_0: 32 weights, a half-precision scale and signed 8-bit codes.

use bytemuck::{Pod, Zeroable};

use super::{Block, EncodeBlock, HalfLe};

/// Weight i is `d * codes[i]`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale.
    pub d: HalfLe,
    /// Codes, -127..=127 when written by us, -128 allowed.
    pub codes: [i8; 32],
}

const _: () = assert!(size_of::<BlockQ8_0>() == 34);

impl Block for BlockQ8_0 {
    const LEN: usize = 32;

    fn decode(&self, dst: &mut [f32]) {
        let d = self.d.to_f32();
        for (weight, &code) in dst.iter_mut().zip(&self.codes) {
            *weight = d * f32::from(code);
        }
    }
}

impl EncodeBlock for BlockQ8_0 {
    fn encode(src: &[f32]) -> Self {
        let largest = src.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        let d = HalfLe::scale_reaching(largest / 127.0);
        // Codes are taken against the rounded scale, which halves the error of very small rows.
        let scale = d.to_f32();
        let mut codes = [0_i8; 32];
        if scale > 0.0 {
            for (code, &value) in codes.iter_mut().zip(src) {
                // `as` saturates, and the clamp keeps -128 out.
                *code = (value / scale).round().clamp(-127.0, 127.0) as i8;
            }
        }
        Self { d, codes }
    }
}
