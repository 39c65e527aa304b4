//! What blocks of 256 weights have in common whose weights are a scale times a signed integer.

use super::Block;

/// Weights that share a scale.
const SUB: usize = 16;

/// A block as integers: weight i is `d * scales[i / 16] * codes[i]`.
#[derive(Copy, Clone, Debug)]
pub struct Signed256 {
    /// Scale of the scales.
    pub d: f32,
    /// Scales of the sixteens, -32..=31.
    pub scales: [i8; 16],
    /// -127..=127.
    pub codes: [i8; 256],
}

impl Signed256 {
    /// Writes the weights to `dst`. Both products are exact in the formats that use this, or are
    /// taken in ggml's order.
    pub(super) fn decode(&self, dst: &mut [f32]) {
        let subs = dst.chunks_exact_mut(SUB).zip(self.codes.as_chunks::<SUB>().0).zip(self.scales);
        for ((weights, codes), scale) in subs {
            let scale = self.d * f32::from(scale);
            for (weight, &code) in weights.iter_mut().zip(codes) {
                *weight = scale * f32::from(code);
            }
        }
    }
}

/// A block whose weights are a scale times a signed integer.
pub trait SignedBlock: Block {
    /// Takes the block apart.
    fn open(&self) -> Signed256;
}

/// Calls `eight(i)` for each eight codes, which come as the bytes of a number.
pub(super) fn codes_of_eights(eight: impl Fn(usize) -> u64) -> [i8; 256] {
    let mut codes = [0; 256];
    for (i, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *codes = eight(i).to_le_bytes().map(u8::cast_signed);
    }
    codes
}

/// Turns the sign of byte i where byte i of `signs` is -1; the other bytes of `signs` are 1.
pub(super) fn with_signs(magnitudes: u64, signs: u64) -> u64 {
    let (magnitudes, signs) = (magnitudes.to_le_bytes(), signs.to_le_bytes());
    u64::from_le_bytes(std::array::from_fn(|i| magnitudes[i].wrapping_mul(signs[i])))
}

/// The signs that eight bits stand for: byte i is -1 where bit i is set, else 1.
pub(super) fn signs_of_bits(bits: u8) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| if bits >> i & 1 == 1 { 0xFF } else { 1 }))
}
