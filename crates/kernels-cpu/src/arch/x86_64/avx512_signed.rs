//! AVX-512 dot products of blocks of 256 whose weights are a scale times a signed integer; as
//! `avx2_signed.rs`, bit for bit. Signs are masks here, which costs one subtraction, and where the
//! table is small enough vectors of magnitudes are looked up in registers (`avx512_grids.rs`).

use std::arch::x86_64::*;

use tensor::Format;
use tensor::blocks::iq_grids::IQ2_S;
use tensor::blocks::{
    BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs, BlockIq4Xs, IQ4_VALUES, SignedBlock,
    from_bytes,
};

use super::avx2::{fold, half_to_f32, load_u8x16, load_u8x32, prefetch};
use super::avx2_signed::{odd_scales_of_16, odd_scales_of_32, scales_iq4_xs, set_64};
use super::avx512::{add_halves, join, load_64, load_i8x64, look_up, pick_scales, twice};
use super::avx512_grids;
use super::scales::add_signed_products_256;
use crate::dot::job::{Job, Row256};

/// The products of all weight rows with activation rows `t..t + T`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,gfni")]
pub(super) fn tile<const T: usize>(job: &Job<'_>, t: usize, out: &mut [f32]) {
    match job.format {
        Format::IQ2XXS => rows::<T, BlockIq2Xxs>(job, t, out, |block| open_iq2_xxs(block)),
        Format::IQ2XS => rows::<T, BlockIq2Xs>(job, t, out, |block| open_iq2_xs(block)),
        Format::IQ2S => rows::<T, BlockIq2S>(job, t, out, |block| open_iq2_s(block)),
        Format::IQ3XXS => rows::<T, BlockIq3Xxs>(job, t, out, |block| open_iq3_xxs(block)),
        Format::IQ3S => rows::<T, BlockIq3S>(job, t, out, |block| open_iq3_s(block)),
        Format::IQ4XS => rows::<T, BlockIq4Xs>(job, t, out, |block| open_iq4_xs(block)),
        other => unreachable!("{other} does not gain from AVX-512"),
    }
}

/// A block of 256: weight = d * scale * magnitude, less than zero where the mask has a bit.
struct Open {
    d: f32,
    magnitudes: [__m512i; 4],
    negative: [__mmask64; 4],
    /// 16-bit scales of the sixteens: the even ones in the lower half, the odd ones in the upper
    /// half.
    scales: __m256i,
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,f16c")]
fn open_iq4_xs(block: &BlockIq4Xs) -> Open {
    let fifteen = _mm512_set1_epi8(15);
    let nibbles = block.nibbles.as_chunks::<16>().0;
    let codes = fill!([_mm512_setzero_si512(); 4], p => {
        let (even, odd) = (load_u8x16(&nibbles[2 * p]), load_u8x16(&nibbles[2 * p + 1]));
        let even = _mm256_set_m128i(_mm_srli_epi16::<4>(even), even);
        let odd = _mm256_set_m128i(_mm_srli_epi16::<4>(odd), odd);
        look_up(&IQ4_VALUES, _mm512_and_si512(join(even, odd), fifteen))
    });
    Open {
        d: half_to_f32(block.d),
        magnitudes: fill!([_mm512_setzero_si512(); 4], p => _mm512_abs_epi8(codes[p])),
        negative: fill!([0; 4], p => _mm512_movepi8_mask(codes[p])),
        scales: scales_iq4_xs(block),
    }
}

/// Scales of 32 weights each, of 16 bits in two halves: 2 * n + 1.
#[inline]
#[target_feature(enable = "avx2")]
fn odd_scales(n: __m128i) -> __m256i {
    _mm256_broadcastsi128_si256(_mm_add_epi16(_mm_add_epi16(n, n), _mm_set1_epi16(1)))
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,f16c,gfni")]
fn open_iq3_xxs(block: &BlockIq3Xxs) -> Open {
    let words = load_u8x32(&block.signs_and_scale.as_flattened().as_chunks().0[0]);
    Open {
        d: half_to_f32(block.d) * 0.25,
        magnitudes: avx512_grids::iq3_xxs(&block.grid),
        negative: avx512_grids::even_signs(words),
        scales: odd_scales(_mm256_cvtepi32_epi16(_mm256_srli_epi32::<28>(words))),
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,f16c,gfni")]
fn open_iq3_s(block: &BlockIq3S) -> Open {
    Open {
        d: half_to_f32(block.d),
        magnitudes: avx512_grids::iq3_s(&block.grid_low, u64::from_le_bytes(block.grid_high)),
        negative: fill!([0; 4], p => u64::from_le_bytes(block.signs.as_chunks().0[p])),
        scales: odd_scales_of_32(u32::from_le_bytes(block.scales)),
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,f16c,gfni")]
fn open_iq2_xxs(block: &BlockIq2Xxs) -> Open {
    let subs = load_64(&block.subs.as_flattened().as_flattened().as_chunks().0[0]);
    let words = _mm512_cvtepi64_epi32(_mm512_srli_epi64::<32>(subs));
    Open {
        d: half_to_f32(block.d) * 0.125,
        magnitudes: avx512_grids::iq2_xxs(subs),
        negative: avx512_grids::even_signs(words),
        scales: odd_scales(_mm512_cvtepi64_epi16(_mm512_srli_epi64::<60>(subs))),
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,f16c,gfni")]
fn open_iq2_xs(block: &BlockIq2Xs) -> Open {
    let numbers = load_64(&block.grid_and_signs.as_flattened().as_chunks().0[0]);
    Open {
        d: half_to_f32(block.d) * 0.125,
        magnitudes: avx512_grids::iq2_xs(numbers),
        negative: avx512_grids::even_signs_of_top_bits(numbers),
        scales: odd_scales_of_16(&block.scales),
    }
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,f16c")]
fn open_iq2_s(block: &BlockIq2S) -> Open {
    let grid = block.grid_low.as_chunks::<4>().0;
    let magnitudes = fill!([_mm256_setzero_si256(); 8], j => {
        let high = usize::from(block.grid_high[j]);
        set_64(fill!([0; 4], k => IQ2_S[usize::from(grid[j][k]) | (high >> (2 * k) & 3) << 8]))
    });
    Open {
        d: half_to_f32(block.d) * 0.125,
        magnitudes: fill!([_mm512_setzero_si512(); 4], p => join(magnitudes[2 * p], magnitudes[2 * p + 1])),
        negative: fill!([0; 4], p => u64::from_le_bytes(block.signs.as_chunks().0[p])),
        scales: odd_scales_of_16(&block.scales),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni,gfni")]
fn rows<const T: usize, B: SignedBlock>(job: &Job<'_>, t: usize, out: &mut [f32], open: impl Fn(&B) -> Open) {
    let n = job.acts.n();
    let acts: [Row256<'_>; T] = std::array::from_fn(|i| job.acts.row_256(t + i));
    for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
        let mut sums = [_mm256_setzero_ps(); T];
        for (b, block) in from_bytes::<B>(row).iter().enumerate() {
            prefetch(block);
            let block = open(block);
            let products = products(&block, acts.map(|act| &act.codes[b]));
            for ((sum, act), products) in sums.iter_mut().zip(&acts).zip(products) {
                add_signed_products_256(sum, block.d, act, b, products);
            }
        }
        for (out, sum) in out[t..].iter_mut().zip(sums) {
            *out = fold(sum);
        }
    }
}

/// Lane l: the sum over the block of `scale * code * activation` of codes 4l to 4l + 3 of each 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn products<const T: usize>(block: &Open, acts: [&[i8; 256]; T]) -> [__m256i; T] {
    let zero = _mm512_setzero_si512();
    let mut products = [zero; T];
    let all_scales = twice(block.scales);
    for p in 0..4 {
        let scales = pick_scales(all_scales, p);
        for (product, act) in products.iter_mut().zip(acts) {
            let act = load_i8x64(&act.as_chunks().0.as_chunks().0[p]);
            let signed = _mm512_mask_sub_epi8(act, block.negative[p], zero, act);
            let pairs = _mm512_maddubs_epi16(block.magnitudes[p], signed);
            *product = _mm512_dpwssd_epi32(*product, pairs, scales);
        }
    }
    fill!([_mm256_setzero_si256(); T], i => add_halves(products[i]))
}
