//! Vectors of magnitudes of the iq2 and iq3 formats, looked up in registers with AVX-512 VBMI.
//!
//! A magnitude has one of three values (iq2) or of eight (iq3), so a vector of eight or four of them
//! packs into two bytes, and the vectors of a format into some hundred bytes of table. `vpermi2b`
//! looks 64 numbers up in 128 of those bytes, where there would be 64 loads otherwise; two or three
//! instructions for each 64 weights then unpack what was found.

use std::arch::x86_64::*;

use tensor::blocks::iq_grids::{IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};

use super::avx512::load_64;

/// A table, in runs that one instruction looks up.
#[repr(C, align(64))]
struct Table<const RUNS: usize>([[[u8; 64]; 2]; RUNS]);

impl<const RUNS: usize> Table<RUNS> {
    const fn new(bytes: &[u8]) -> Table<RUNS> {
        assert!(bytes.len() == 128 * RUNS);
        let mut runs = [[[0; 64]; 2]; RUNS];
        let mut i = 0;
        while i < bytes.len() {
            runs[i / 128][i / 64 % 2][i % 64] = bytes[i];
            i += 1;
        }
        Table(runs)
    }
}

const IQ2_VALUES: [u8; 3] = [8, 25, 43];
const IQ3_XXS_VALUES: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const IQ3_S_VALUES: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// The packed vectors of iq3_xxs: magnitudes 0 and 1, and 2 and 3, each three bits.
static IQ3_XXS_PACKED: [Table<2>; 2] = {
    let [low, high] = pack_fours(&IQ3_XXS, &IQ3_XXS_VALUES);
    [Table::new(&low), Table::new(&high)]
};
/// The packed vectors of iq3_s, likewise.
static IQ3_S_PACKED: [Table<4>; 2] = {
    let [low, high] = pack_fours(&IQ3_S, &IQ3_S_VALUES);
    [Table::new(&low), Table::new(&high)]
};
/// The packed vectors of iq2_xxs: magnitudes 0 to 3, and 4 to 7, each two bits.
static IQ2_XXS_PACKED: [Table<2>; 2] = {
    let [low, high] = pack_eights(&IQ2_XXS);
    [Table::new(&low), Table::new(&high)]
};
/// The packed vectors of iq2_xs, two bytes each.
static IQ2_XS_PACKED: Table<8> = {
    let [low, high] = pack_eights(&IQ2_XS);
    let mut both = [0; 1024];
    let mut i = 0;
    while i < both.len() {
        both[i] = [low, high][i % 2][i / 2];
        i += 1;
    }
    Table::new(&both)
};

/// The two magnitudes that six bits stand for.
static IQ3_XXS_PAIRS: Table<1> = pairs(&IQ3_XXS_VALUES);
static IQ3_S_PAIRS: Table<1> = pairs(&IQ3_S_VALUES);

const fn number_of(value: u8, values: &[u8]) -> u8 {
    let mut number = 0;
    while values[number] != value {
        number += 1;
    }
    number as u8
}

const fn pack_fours<const N: usize>(grid: &[u32; N], values: &[u8; 8]) -> [[u8; N]; 2] {
    let mut packed = [[0; N]; 2];
    let mut i = 0;
    while i < 4 * N {
        let (n, k) = (i / 4, i % 4);
        let number = number_of((grid[n] >> (8 * k)) as u8, values);
        packed[k / 2][n] |= number << (k % 2 * 3);
        i += 1;
    }
    packed
}

const fn pack_eights<const N: usize>(grid: &[u64; N]) -> [[u8; N]; 2] {
    let mut packed = [[0; N]; 2];
    let mut i = 0;
    while i < 8 * N {
        let (n, k) = (i / 8, i % 8);
        let number = number_of((grid[n] >> (8 * k)) as u8, &IQ2_VALUES);
        packed[k / 4][n] |= number << (k % 4 * 2);
        i += 1;
    }
    packed
}

const fn pairs(values: &[u8; 8]) -> Table<1> {
    let mut pairs = [0; 128];
    let mut bits = 0;
    while bits < 64 {
        pairs[2 * bits] = values[bits % 8];
        pairs[2 * bits + 1] = values[bits / 8];
        bits += 1;
    }
    Table::new(&pairs)
}

/// Byte `i` of 256 of which each 64 are a vector.
macro_rules! places {
    ($i:ident => $place:expr) => {{
        let mut places = [0; 256];
        let mut $i = 0;
        while $i < 256 {
            places[$i] = $place as u8;
            $i += 1;
        }
        Table::new(&places)
    }};
}

/// Where the unpacked vectors of four come from: their magnitudes 0 and 1 from the byte of the
/// first table, 2 and 3 from that of the second, which is 64 bytes on.
static PLACES_OF_FOURS: Table<2> = places!(i => i / 4 + i % 4 / 2 * 64);
/// The same for vectors of eight, whose numbers are the first four bytes of each eight.
static PLACES_OF_EIGHTS: Table<2> = places!(i => i / 32 * 8 + i / 8 % 4 + i % 2 * 64);
/// The same for vectors of eight that were found as two bytes each.
static PLACES_OF_WORDS: Table<2> = places!(i => i / 8 * 2 + i % 2);

/// Looks 64 numbers below 128 up; their top bits do not count.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up_128(run: &[[u8; 64]; 2], numbers: __m512i) -> __m512i {
    _mm512_permutex2var_epi8(load_64(&run[0]), numbers, load_64(&run[1]))
}

/// Looks 64 numbers up, whose eighth bits are in a mask as well.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up_256(runs: &[[[u8; 64]; 2]; 2], numbers: __m512i, eighth_bits: __mmask64) -> __m512i {
    let found = [look_up_128(&runs[0], numbers), look_up_128(&runs[1], numbers)];
    _mm512_mask_blend_epi8(eighth_bits, found[0], found[1])
}

/// The 256 magnitudes of 64 packed vectors of four.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack_fours(packed: [__m512i; 2], Table([pairs]): &Table<1>) -> [__m512i; 4] {
    let places = PLACES_OF_FOURS.0.as_flattened();
    fill!([_mm512_setzero_si512(); 4], p => {
        let sixes = _mm512_permutex2var_epi8(packed[0], load_64(&places[p]), packed[1]);
        // Of a number of 16 bits the lowest six count.
        _mm512_permutex2var_epi16(load_64(&pairs[0]), sixes, load_64(&pairs[1]))
    })
}

/// The 256 magnitudes of 32 packed vectors of eight; `places` says where the vectors are.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack_eights(packed: [__m512i; 2], places: &Table<2>) -> [__m512i; 4] {
    let places = places.0.as_flattened();
    let shifts = _mm512_set1_epi64(0x0E0C_0A08_0604_0200);
    // Four times the same in each sixteen: of a number the lowest two bits count.
    let [a, b, c] = IQ2_VALUES;
    let values = _mm512_set1_epi32(i32::from_le_bytes([a, b, c, 0]));
    fill!([_mm512_setzero_si512(); 4], p => {
        let sixteens = _mm512_permutex2var_epi8(packed[0], load_64(&places[p]), packed[1]);
        _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(shifts, sixteens), values)
    })
}

/// The magnitudes of a block of iq3_xxs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn iq3_xxs(numbers: &[u8; 64]) -> [__m512i; 4] {
    let numbers = load_64(numbers);
    let eighth_bits = _mm512_movepi8_mask(numbers);
    let packed = fill!([numbers; 2], half => look_up_256(&IQ3_XXS_PACKED[half].0, numbers, eighth_bits));
    unpack_fours(packed, &IQ3_XXS_PAIRS)
}

/// The magnitudes of a block of iq3_s.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn iq3_s(low_bytes: &[u8; 64], ninth_bits: u64) -> [__m512i; 4] {
    let numbers = load_64(low_bytes);
    let eighth_bits = _mm512_movepi8_mask(numbers);
    let packed = fill!([numbers; 2], half => {
        let quarters = IQ3_S_PACKED[half].0.as_chunks().0;
        let found = fill!([numbers; 2], i => look_up_256(&quarters[i], numbers, eighth_bits));
        _mm512_mask_blend_epi8(ninth_bits, found[0], found[1])
    });
    unpack_fours(packed, &IQ3_S_PAIRS)
}

/// The magnitudes of a block of iq2_xxs, from its eight sub-blocks.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn iq2_xxs(subs: __m512i) -> [__m512i; 4] {
    let eighth_bits = _mm512_movepi8_mask(subs);
    let packed = fill!([subs; 2], half => look_up_256(&IQ2_XXS_PACKED[half].0, subs, eighth_bits));
    unpack_eights(packed, &PLACES_OF_EIGHTS)
}

/// The magnitudes of a block of iq2_xs, from its 32 numbers of 16 bits, of which nine count.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn iq2_xs(numbers: __m512i) -> [__m512i; 4] {
    let found = fill!([numbers; 8], run => {
        let [low, high] = &IQ2_XS_PACKED.0[run];
        _mm512_permutex2var_epi16(load_64(low), numbers, load_64(high))
    });
    // Of each number the upper bits say which of the eight is the one.
    let bit = |bit: i16| _mm512_test_epi16_mask(numbers, _mm512_set1_epi16(1 << bit));
    let (seventh, eighth, ninth) = (bit(6), bit(7), bit(8));
    let found = fill!([numbers; 4], i => _mm512_mask_blend_epi16(seventh, found[2 * i], found[2 * i + 1]));
    let found = fill!([numbers; 2], i => _mm512_mask_blend_epi16(eighth, found[2 * i], found[2 * i + 1]));
    let found = _mm512_mask_blend_epi16(ninth, found[0], found[1]);
    unpack_eights([found, found], &PLACES_OF_WORDS)
}

/// The eight sign bits that each seven bits stand for: the eighth makes their number even.
#[inline]
#[target_feature(enable = "avx,gfni")]
fn with_even_bits(sevens: __m256i) -> __m256i {
    // Byte 7 - r of the matrix says which input bits make up output bit r.
    _mm256_gf2p8affine_epi64_epi8::<0>(sevens, _mm256_set1_epi64x(0x0102_0408_1020_407F))
}

/// Bits as masks of 64.
#[inline]
#[target_feature(enable = "avx2")]
fn masks(bits: __m256i) -> [__mmask64; 4] {
    [
        _mm256_extract_epi64::<0>(bits),
        _mm256_extract_epi64::<1>(bits),
        _mm256_extract_epi64::<2>(bits),
        _mm256_extract_epi64::<3>(bits),
    ]
    .map(i64::cast_unsigned)
}

/// The signs of a block whose sub-blocks have four times seven bits each, from the lowest bit on.
#[inline]
#[target_feature(enable = "avx2,avx512vl,avx512vbmi,gfni")]
pub(super) fn even_signs(words: __m256i) -> [__mmask64; 4] {
    let shifts = _mm256_set1_epi64x(0x352E_2720_150E_0700);
    masks(with_even_bits(_mm256_multishift_epi64_epi8(shifts, words)))
}

/// The signs of a block of iq2_xs: the top seven bits of its numbers.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,gfni")]
pub(super) fn even_signs_of_top_bits(numbers: __m512i) -> [__mmask64; 4] {
    masks(with_even_bits(_mm512_cvtepi16_epi8(_mm512_srli_epi16::<9>(numbers))))
}
