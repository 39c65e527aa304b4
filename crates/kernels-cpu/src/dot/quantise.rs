//! Activations to 8-bit codes.

use super::job::{SUM_LEN, SUMS};

/// Where the sums of a row go; which, says how long its blocks are.
pub(crate) enum Sums<'a> {
    /// Blocks of 32: one sum of activations each.
    Blocks(&'a mut [f32]),
    /// Blocks of 256: sixteen sums of codes each.
    Sixteens(&'a mut [[i16; SUMS]]),
}

/// Quantises one row. Every instruction set compiles this very function, so the codes are the same
/// on all of them.
#[inline(always)]
pub(crate) fn quantise_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: Sums<'_>) {
    let sums = match sums {
        Sums::Sixteens(sums) => sums,
        Sums::Blocks(sums) => {
            let blocks = x.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<32>().0);
            for (((x, codes), scale), sum) in blocks.zip(scales).zip(sums) {
                *scale = quantise_block(x, codes);
                *sum = *scale * codes.iter().map(|&code| i32::from(code)).sum::<i32>() as f32;
            }
            return;
        }
    };
    let blocks = x.as_chunks::<256>().0.iter().zip(codes.as_chunks_mut::<256>().0);
    for (((x, codes), scale), sums) in blocks.zip(scales).zip(sums) {
        *scale = quantise_block(x, codes);
        for (i, codes) in codes.as_chunks::<SUM_LEN>().0.iter().enumerate() {
            sums[i / 2 + i % 2 * (SUMS / 2)] = codes.iter().map(|&code| i16::from(code)).sum();
        }
    }
}

/// Adding this leaves the nearest integer, ties to even, in the low bits of a small float.
const ROUNDER: f32 = 12_582_912.0;

/// Writes the codes and returns the scale. A NaN or an infinity in the block makes every product of
/// it NaN or infinite.
#[inline(always)]
fn quantise_block<const N: usize>(x: &[f32; N], codes: &mut [i8; N]) -> f32 {
    // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN on top;
    // a maximum of integers can be taken in any order, so it is done in vectors.
    let peak_bits = x.iter().fold(0, |max: u32, v| max.max(v.to_bits() & 0x7FFF_FFFF));
    let peak = f32::from_bits(peak_bits);
    let inverse = 127.0 / peak;
    if inverse == f32::INFINITY {
        // Zeros, or too small for their inverse: nothing that a product would show.
        codes.fill(0);
        return 0.0;
    }
    for (code, v) in codes.iter_mut().zip(x) {
        *code = (v * inverse + ROUNDER).to_bits() as i8;
    }
    peak / 127.0
}
