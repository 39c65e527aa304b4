//! The vectors of the iq1, iq2 and iq3 formats: a code selects one, and so four or eight weights.
//!
//! The vectors are constants of the formats. `iq_grids.bin` holds them packed, as
//! `make_iq_grids.py` wrote it; the tables are unpacked when this is compiled. The elements of a
//! vector are the bytes of a number, the first one lowest, so that a vector is fetched in one load.

static PACKED: &[u8] = include_bytes!("iq_grids.bin");

const AT_IQ2_XS: usize = 256;
const AT_IQ2_S: usize = AT_IQ2_XS + 512;
const AT_IQ3_XXS: usize = AT_IQ2_S + 1024;
const AT_IQ3_S: usize = AT_IQ3_XXS + 256;
const AT_IQ1: usize = AT_IQ3_S + 512;
const _: () = assert!(PACKED.len() == 2 * (AT_IQ1 + 2048));

/// Magnitudes of iq2_xxs.
pub static IQ2_XXS: [u64; 256] = eights(0, IQ2_VALUES);
/// Magnitudes of iq2_xs.
pub static IQ2_XS: [u64; 512] = eights(AT_IQ2_XS, IQ2_VALUES);
/// Magnitudes of iq2_s.
pub static IQ2_S: [u64; 1024] = eights(AT_IQ2_S, IQ2_VALUES);
/// Magnitudes of iq3_xxs.
pub static IQ3_XXS: [u32; 256] = fours(AT_IQ3_XXS, [4, 12, 20, 28, 36, 44, 52, 62]);
/// Magnitudes of iq3_s.
pub static IQ3_S: [u32; 512] = fours(AT_IQ3_S, [1, 3, 5, 7, 9, 11, 13, 15]);
/// Eight times the signed values of iq1_s and iq1_m, whose shift of an eighth then is 1.
pub static IQ1: [u64; 2048] = eights(AT_IQ1, [-8_i8 as u8, 0, 8, 0]);

const IQ2_VALUES: [u8; 4] = [8, 25, 43, 0];

/// The eight sign bits that seven bits stand for: the eighth makes the number of minus signs even.
const EVEN_SIGN_BITS: [u8; 128] = {
    let mut signs = [0; 128];
    let mut bits = 0_u8;
    while bits < 128 {
        signs[bits as usize] = bits | ((bits.count_ones() % 2) << 7) as u8;
        bits += 1;
    }
    signs
};

/// As `EVEN_SIGN_BITS`, as bytes: byte i is 1 or -1.
pub static EVEN_SIGNS: [u64; 128] = {
    let mut signs = [0; 128];
    let mut bits = 0_usize;
    while bits < 128 {
        let mut i = 0;
        while i < 8 {
            let byte = if EVEN_SIGN_BITS[bits] >> i & 1 == 1 { 0xFF } else { 1 };
            signs[bits] |= byte << (8 * i);
            i += 1;
        }
        bits += 1;
    }
    signs
};

const fn packed(at: usize) -> u16 {
    u16::from_le_bytes([PACKED[2 * at], PACKED[2 * at + 1]])
}

const fn eights<const N: usize>(at: usize, values: [u8; 4]) -> [u64; N] {
    let mut grid = [0; N];
    let mut n = 0;
    while n < N {
        let mut k = 0;
        while k < 8 {
            grid[n] |= (values[(packed(at + n) >> (2 * k) & 3) as usize] as u64) << (8 * k);
            k += 1;
        }
        n += 1;
    }
    grid
}

const fn fours<const N: usize>(at: usize, values: [u8; 8]) -> [u32; N] {
    let mut grid = [0; N];
    let mut n = 0;
    while n < N {
        let mut k = 0;
        while k < 4 {
            grid[n] |= (values[(packed(at + n) >> (3 * k) & 7) as usize] as u32) << (8 * k);
            k += 1;
        }
        n += 1;
    }
    grid
}
