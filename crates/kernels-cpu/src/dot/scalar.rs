//! Dot products in portable Rust: the fallback, and what every other instruction set is compared
//! with.
//!
//! Sums run in eight lanes, as the vector code has them: lane l of a group of 32 codes takes codes
//! 4l to 4l + 3.

use tensor::Format;
use tensor::blocks::{
    Block, BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs, BlockIq4Nl,
    BlockIq4Xs, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1,
    BlockQ5K, BlockQ6K, BlockQ8_0, BlockTq1_0, BlockTq2_0, SignedBlock, from_bytes,
};

use super::job::{Job, Row32, Row256, for_token_tiles};

const LANES: usize = 8;

/// Computes all products of the job: `out` is [rows, n].
pub(crate) fn mul_rows(job: &Job<'_>, out: &mut [f32]) {
    let n = job.acts.n();
    for_token_tiles!(n, t => tile(job, t, out));
}

fn tile<const T: usize>(job: &Job<'_>, t: usize, out: &mut [f32]) {
    match job.format {
        Format::F32 | Format::F16 | Format::BF16 => float_rows::<T>(job, t, out),
        Format::Q4_0 => rows_32::<T, BlockQ4_0>(job, t, out, open_q4_0),
        Format::Q4_1 => rows_32::<T, BlockQ4_1>(job, t, out, open_q4_1),
        Format::Q5_0 => rows_32::<T, BlockQ5_0>(job, t, out, open_q5_0),
        Format::Q5_1 => rows_32::<T, BlockQ5_1>(job, t, out, open_q5_1),
        Format::Q8_0 => rows_32::<T, BlockQ8_0>(job, t, out, open_q8_0),
        Format::Q2K => rows_256::<T, BlockQ2K>(job, t, out, open_q2_k),
        Format::Q3K => rows_256::<T, BlockQ3K>(job, t, out, open_q3_k),
        Format::Q4K => rows_256::<T, BlockQ4K>(job, t, out, open_q4_k),
        Format::Q5K => rows_256::<T, BlockQ5K>(job, t, out, open_q5_k),
        Format::Q6K => rows_256::<T, BlockQ6K>(job, t, out, open_q6_k),
        Format::IQ4NL => rows_32::<T, BlockIq4Nl>(job, t, out, open_iq4_nl),
        Format::MXFP4 => rows_32::<T, BlockMxfp4>(job, t, out, open_mxfp4),
        Format::IQ1S => rows_256::<T, BlockIq1S>(job, t, out, open_signed),
        Format::IQ1M => rows_256::<T, BlockIq1M>(job, t, out, open_signed),
        Format::IQ2XXS => rows_256::<T, BlockIq2Xxs>(job, t, out, open_signed),
        Format::IQ2XS => rows_256::<T, BlockIq2Xs>(job, t, out, open_signed),
        Format::IQ2S => rows_256::<T, BlockIq2S>(job, t, out, open_signed),
        Format::IQ3XXS => rows_256::<T, BlockIq3Xxs>(job, t, out, open_signed),
        Format::IQ3S => rows_256::<T, BlockIq3S>(job, t, out, open_signed),
        Format::IQ4XS => rows_256::<T, BlockIq4Xs>(job, t, out, open_signed),
        Format::TQ1_0 => rows_256::<T, BlockTq1_0>(job, t, out, open_signed),
        Format::TQ2_0 => rows_256::<T, BlockTq2_0>(job, t, out, open_signed),
        other => unreachable!("{other} has no scalar dot product; add it here with its block"),
    }
}

/// The vector order of a sum of eight lanes.
fn fold(lanes: [f32; LANES]) -> f32 {
    let four: [f32; 4] = std::array::from_fn(|i| lanes[i] + lanes[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

// ---- floats -------------------------------------------------------------------------------------

/// Weights decoded at a time; a multiple of two vectors.
const FLOAT_STEP: usize = 256;

fn float_rows<const T: usize>(job: &Job<'_>, t: usize, out: &mut [f32]) {
    let (n, format) = (job.acts.n(), job.format);
    let acts: [&[f32]; T] = std::array::from_fn(|i| job.acts.values(t + i));
    let mut decoded = [0.0; FLOAT_STEP];
    for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
        let mut sums = [[0.0; 2 * LANES]; T];
        for (step, bytes) in row.chunks(FLOAT_STEP * format.block_bytes()).enumerate() {
            let weights = &mut decoded[..bytes.len() / format.block_bytes()];
            let result = format.decode_row(bytes, weights);
            debug_assert!(result.is_ok(), "a float format has blocks of one");
            for (act, sums) in acts.iter().zip(&mut sums) {
                let act = &act[step * FLOAT_STEP..][..weights.len()];
                for (i, (weight, act)) in weights.iter().zip(act).enumerate() {
                    sums[i % (2 * LANES)] += weight * act;
                }
            }
        }
        for (out, sums) in out[t..].iter_mut().zip(sums) {
            *out = fold(std::array::from_fn(|lane| sums[lane] + sums[lane + LANES]));
        }
    }
}

// ---- blocks of 32: weight = d * code + m --------------------------------------------------------

/// A block of 32 as integers.
struct Open32 {
    d: f32,
    /// `None` where code 0 is weight 0.
    m: Option<f32>,
    codes: [i8; 32],
}

fn nibble(nibbles: &[u8; 16], i: usize) -> i8 {
    (nibbles[i % 16] >> (i / 16 * 4) & 15) as i8
}

fn fifth_bit(high: [u8; 4], i: usize) -> i8 {
    ((u32::from_le_bytes(high) >> i & 1) as i8) << 4
}

fn open_q4_0(block: &BlockQ4_0) -> Open32 {
    let codes = std::array::from_fn(|i| nibble(&block.nibbles, i) - 8);
    Open32 { d: block.d.to_f32(), m: None, codes }
}

fn open_q4_1(block: &BlockQ4_1) -> Open32 {
    let codes = std::array::from_fn(|i| nibble(&block.nibbles, i));
    Open32 { d: block.d.to_f32(), m: Some(block.m.to_f32()), codes }
}

fn open_q5_0(block: &BlockQ5_0) -> Open32 {
    let codes = std::array::from_fn(|i| (nibble(&block.nibbles, i) | fifth_bit(block.high, i)) - 16);
    Open32 { d: block.d.to_f32(), m: None, codes }
}

fn open_q5_1(block: &BlockQ5_1) -> Open32 {
    let codes = std::array::from_fn(|i| nibble(&block.nibbles, i) | fifth_bit(block.high, i));
    Open32 { d: block.d.to_f32(), m: Some(block.m.to_f32()), codes }
}

fn open_q8_0(block: &BlockQ8_0) -> Open32 {
    Open32 { d: block.d.to_f32(), m: None, codes: block.codes }
}

fn open_iq4_nl(block: &BlockIq4Nl) -> Open32 {
    Open32 { d: block.d.to_f32(), m: None, codes: block.values() }
}

fn open_mxfp4(block: &BlockMxfp4) -> Open32 {
    Open32 { d: block.half_scale(), m: None, codes: block.values() }
}

fn rows_32<const T: usize, B: Block>(job: &Job<'_>, t: usize, out: &mut [f32], open: impl Fn(&B) -> Open32) {
    let n = job.acts.n();
    let acts: [Row32<'_>; T] = std::array::from_fn(|i| job.acts.row_32(t + i));
    for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
        // Even and odd blocks apart, so that in vectors one addition need not wait for the one
        // before. The offsets have sums of their own.
        let mut sums = [[[0.0; LANES]; 2]; T];
        let mut offsets = [[0.0; 2]; T];
        for (b, block) in from_bytes::<B>(row).iter().enumerate() {
            let Open32 { d, m, codes } = open(block);
            for ((act, sums), offsets) in acts.iter().zip(&mut sums).zip(&mut offsets) {
                if let Some(m) = m {
                    offsets[b % 2] += m * act.sums[b];
                }
                let scale = d * act.scales[b];
                for (lane, sum) in sums[b % 2].iter_mut().enumerate() {
                    let four = 4 * lane..4 * lane + 4;
                    let products = codes[four.clone()].iter().zip(&act.codes[b][four]);
                    let product: i32 = products.map(|(&w, &a)| i32::from(w) * i32::from(a)).sum();
                    *sum += scale * product as f32;
                }
            }
        }
        for ((out, sums), offsets) in out[t..].iter_mut().zip(sums).zip(offsets) {
            *out = fold(std::array::from_fn(|lane| sums[0][lane] + sums[1][lane]));
            *out += offsets[0] + offsets[1];
        }
    }
}

// ---- blocks of 256: weight = d * scale * code - d_min * min -------------------------------------

/// A block of 256 as integers, scales and minima per 16 weights.
struct Open256 {
    d: f32,
    /// `None` where the minima are exact multiples of the scales (a code with a fixed zero): they
    /// are then subtracted as integers, and `d` multiplies the difference.
    d_min: Option<f32>,
    codes: [i8; 256],
    scales: [i16; 16],
    mins: [i16; 16],
}

/// What is a scale times a signed integer has no minima.
fn open_signed<B: SignedBlock>(block: &B) -> Open256 {
    let opened = block.open();
    Open256 {
        d: opened.d,
        d_min: None,
        codes: opened.codes,
        scales: opened.scales.map(i16::from),
        mins: [0; 16],
    }
}

fn open_q2_k(block: &BlockQ2K) -> Open256 {
    Open256 {
        d: block.d.to_f32(),
        d_min: Some(block.d_min.to_f32()),
        codes: std::array::from_fn(|i| block.codes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3)
            .map(u8::cast_signed),
        scales: block.scales_and_mins.map(|both| i16::from(both & 15)),
        mins: block.scales_and_mins.map(|both| i16::from(both >> 4)),
    }
}

fn open_q3_k(block: &BlockQ3K) -> Open256 {
    let code = |i: usize| {
        let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
        let low = block.low[32 * half + l] >> (2 * k) & 3;
        low | (block.high[l] >> (4 * half + k) & 1) << 2
    };
    let scales = block.unpacked_scales();
    Open256 {
        d: block.d.to_f32(),
        d_min: None,
        codes: std::array::from_fn(code).map(u8::cast_signed),
        scales: scales.map(i16::from),
        mins: scales.map(|scale| 4 * i16::from(scale)),
    }
}

fn open_q4_k(block: &BlockQ4K) -> Open256 {
    let (scales, mins) = block.scales_and_mins();
    Open256 {
        d: block.d.to_f32(),
        d_min: Some(block.d_min.to_f32()),
        codes: std::array::from_fn(|i| block.nibbles[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15)
            .map(u8::cast_signed),
        scales: std::array::from_fn(|i| i16::from(scales[i / 2])),
        mins: std::array::from_fn(|i| i16::from(mins[i / 2])),
    }
}

fn open_q5_k(block: &BlockQ5K) -> Open256 {
    let (scales, mins) = block.scales_and_mins();
    let code = |i: usize| {
        let low = block.nibbles[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
        low | (block.high[i % 32] >> (i / 32) & 1) << 4
    };
    Open256 {
        d: block.d.to_f32(),
        d_min: Some(block.d_min.to_f32()),
        codes: std::array::from_fn(code).map(u8::cast_signed),
        scales: std::array::from_fn(|i| i16::from(scales[i / 2])),
        mins: std::array::from_fn(|i| i16::from(mins[i / 2])),
    }
}

fn open_q6_k(block: &BlockQ6K) -> Open256 {
    let code = |i: usize| {
        let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
        let low = block.low[64 * half + 32 * (k % 2) + l] >> (4 * (k / 2)) & 15;
        low | (block.high[32 * half + l] >> (2 * k) & 3) << 4
    };
    Open256 {
        d: block.d.to_f32(),
        d_min: None,
        codes: std::array::from_fn(code).map(u8::cast_signed),
        scales: std::array::from_fn(|i| i16::from(block.scales[i])),
        mins: std::array::from_fn(|i| 32 * i16::from(block.scales[i])),
    }
}

fn rows_256<const T: usize, B: Block>(
    job: &Job<'_>,
    t: usize,
    out: &mut [f32],
    open: impl Fn(&B) -> Open256,
) {
    let n = job.acts.n();
    let acts: [Row256<'_>; T] = std::array::from_fn(|i| job.acts.row_256(t + i));
    for (row, out) in job.weight_rows().zip(out.chunks_exact_mut(n)) {
        let mut sums = [[0.0; LANES]; T];
        for (b, block) in from_bytes::<B>(row).iter().enumerate() {
            let block = open(block);
            for (act, sums) in acts.iter().zip(&mut sums) {
                add_block_256(&block, act, b, sums);
            }
        }
        for (out, sums) in out[t..].iter_mut().zip(sums) {
            *out = fold(sums);
        }
    }
}

fn add_block_256(block: &Open256, act: &Row256<'_>, b: usize, sums: &mut [f32; LANES]) {
    let mut products = [0_i32; LANES];
    for (group, (codes, acts)) in block.codes.chunks(32).zip(act.codes[b].chunks(32)).enumerate() {
        for (lane, product) in products.iter_mut().enumerate() {
            let four = 4 * lane..4 * lane + 4;
            let pairs = codes[four.clone()].iter().zip(&acts[four]);
            let sum: i32 = pairs.map(|(&w, &a)| i32::from(w) * i32::from(a)).sum();
            *product += i32::from(block.scales[2 * group + lane / 4]) * sum;
        }
    }
    // The activations keep the sums of even sixteens first, then those of odd ones; a lane takes
    // two neighbours.
    let sixteen = |i: usize| 2 * (i % 8) + i / 8;
    let min = |i: usize| i32::from(block.mins[sixteen(i)]) * i32::from(act.sums[b][i]);
    let scale = block.d * act.scales[b];
    for (lane, sum) in sums.iter_mut().enumerate() {
        let min = min(2 * lane) + min(2 * lane + 1);
        *sum += match block.d_min {
            None => scale * (products[lane] - min) as f32,
            Some(d_min) => scale * products[lane] as f32 - d_min * act.scales[b] * min as f32,
        };
    }
}
