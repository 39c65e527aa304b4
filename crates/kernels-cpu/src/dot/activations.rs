//! Activations, prepared for products with a class of weight formats.

use std::ops::{Deref, DerefMut};

use tensor::Format;

use super::job::{ActivationRows, SUMS};
use super::quantise::Sums;
use crate::kernels::Kernels;

/// How activations are prepared for a format: formats of one class share one preparation.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActivationClass {
    /// f32 as they are, for float weights.
    #[default]
    F32,
    /// 8-bit codes with an f32 scale per 32, and the sum of each 32 activations, for formats with
    /// blocks of 32.
    Q8x32,
    /// 8-bit codes with an f32 scale per 256, and the sum of each 16 codes, for K-quants.
    Q8x256,
}

impl ActivationClass {
    /// Activations that share a scale.
    fn block_len(self) -> usize {
        match self {
            ActivationClass::F32 => 1,
            ActivationClass::Q8x32 => 32,
            ActivationClass::Q8x256 => 256,
        }
    }
}

/// Bytes of a cache line on most machines; only speed depends on it.
const CACHE_LINE_BYTES: usize = 64;

/// n rows of activations prepared for products with one class of weight formats. Reuses its memory.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    class: ActivationClass,
    n: usize,
    cols: usize,
    /// [n, cols], class F32 only.
    values: CacheLines<f32>,
    /// [n, cols], quantised classes: -127..=127.
    codes: CacheLines<i8>,
    /// [n, cols / block]: an activation is `scale * code`.
    scales: Vec<f32>,
    /// [n, cols / 256], class Q8x256 only, in the order that [`ActivationRows::sums`] states.
    sums: Vec<[i16; SUMS]>,
    /// [n, cols / 32], class Q8x32 only: the sums of the activations of a block.
    block_sums: Vec<f32>,
}

/// Memory that starts at a cache line: a vector of it never straddles two lines, which costs a
/// second access.
#[derive(Clone, Debug, Default)]
struct CacheLines<T> {
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> CacheLines<T> {
    /// Sets the length; what was there is lost.
    fn reset(&mut self, len: usize) {
        let slack = CACHE_LINE_BYTES / size_of::<T>();
        if self.memory.len() < len + slack {
            self.memory.resize(len + slack, T::default());
        }
        // `align_offset` may decline to answer; then the start is where it is.
        self.start = self.memory.as_ptr().align_offset(CACHE_LINE_BYTES).min(slack);
        self.len = len;
    }
}

impl<T> Deref for CacheLines<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for CacheLines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

impl Activations {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How activations are prepared for weights of this format.
    pub fn class(format: Format) -> ActivationClass {
        match format.block_len() {
            1 => ActivationClass::F32,
            32 => ActivationClass::Q8x32,
            _ => ActivationClass::Q8x256,
        }
    }

    /// Prepares the `n` rows of `x`, [n, cols], for weights of `weight_format`.
    ///
    /// # Panics
    /// If `x` is shorter than that, or `cols` is no multiple of the format's block.
    pub fn prepare(&mut self, kernels: Kernels, weight_format: Format, x: &[f32], n: usize, cols: usize) {
        self.start(weight_format, n, cols);
        for t in 0..n {
            self.set_row(kernels, t, &x[t * cols..(t + 1) * cols]);
        }
    }

    /// Prepares the rows of `x`, [_, cols], that `rows` names, in that order.
    ///
    /// # Panics
    /// If `x` has no such row, or `cols` is no multiple of the format's block.
    pub fn prepare_rows(
        &mut self,
        kernels: Kernels,
        weight_format: Format,
        x: &[f32],
        rows: &[u32],
        cols: usize,
    ) {
        self.start(weight_format, rows.len(), cols);
        for (t, &row) in rows.iter().enumerate() {
            let row = row as usize;
            self.set_row(kernels, t, &x[row * cols..(row + 1) * cols]);
        }
    }

    /// Rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Activations in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The class that the rows were prepared for.
    pub fn prepared_for(&self) -> ActivationClass {
        self.class
    }

    fn start(&mut self, weight_format: Format, n: usize, cols: usize) {
        let class = Self::class(weight_format);
        let block_len = class.block_len();
        assert!(cols.is_multiple_of(block_len), "{weight_format} weights have no rows of {cols}");
        (self.class, self.n, self.cols) = (class, n, cols);
        match class {
            ActivationClass::F32 => self.values.reset(n * cols),
            ActivationClass::Q8x32 | ActivationClass::Q8x256 => {
                self.codes.reset(n * cols);
                self.scales.resize(n * cols / block_len, 0.0);
            }
        }
        match class {
            ActivationClass::F32 => {}
            ActivationClass::Q8x32 => self.block_sums.resize(n * cols / block_len, 0.0),
            ActivationClass::Q8x256 => self.sums.resize(n * cols / block_len, [0; SUMS]),
        }
    }

    fn set_row(&mut self, kernels: Kernels, t: usize, x: &[f32]) {
        let cols = self.cols;
        if self.class == ActivationClass::F32 {
            self.values[t * cols..(t + 1) * cols].copy_from_slice(x);
            return;
        }
        let blocks = cols / self.class.block_len();
        let codes = &mut self.codes[t * cols..(t + 1) * cols];
        let scales = &mut self.scales[t * blocks..(t + 1) * blocks];
        let sums = match self.class {
            ActivationClass::Q8x256 => Sums::Sixteens(&mut self.sums[t * blocks..(t + 1) * blocks]),
            _ => Sums::Blocks(&mut self.block_sums[t * blocks..(t + 1) * blocks]),
        };
        kernels.quantise_row(x, codes, scales, sums);
    }

    /// The rows as kernels take them.
    pub(crate) fn rows(&self) -> ActivationRows<'_> {
        ActivationRows {
            n: self.n,
            cols: self.cols,
            values: &self.values,
            codes: &self.codes,
            scales: &self.scales,
            block_sums: &self.block_sums,
            sums: &self.sums,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::SUM_LEN;
    use super::*;

    fn sample(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.7).sin() * (1.0 + (i % 37) as f32)).collect()
    }

    #[test]
    fn codes_are_within_half_a_step() {
        let x = sample(512);
        for (format, block) in [(Format::Q8_0, 32), (Format::Q6K, 256)] {
            let mut acts = Activations::new();
            acts.prepare(Kernels::scalar(), format, &x, 1, 512);
            for (i, &v) in x.iter().enumerate() {
                let scale = acts.scales[i / block];
                let code = f32::from(acts.codes[i]);
                assert!((v - scale * code).abs() <= 0.5001 * scale, "{format} {i}: {v}, {code} x {scale}");
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_codes() {
        let mut acts = Activations::new();
        acts.prepare(Kernels::best(), Format::Q4K, &sample(512), 1, 512);
        for block in 0..2 {
            for i in 0..SUMS {
                let codes = &acts.codes[256 * block + SUM_LEN * i..][..SUM_LEN];
                let sum: i16 = codes.iter().map(|&code| i16::from(code)).sum();
                assert_eq!(acts.sums[block][i / 2 + i % 2 * 8], sum);
            }
        }
    }

    #[test]
    fn every_instruction_set_makes_the_same_codes() {
        let mut x = sample(1024);
        x[300] = 1e-39;
        x[600..900].fill(0.0);
        for format in [Format::Q8_0, Format::Q6K] {
            let mut scalar = Activations::new();
            scalar.prepare(Kernels::scalar(), format, &x, 2, 512);
            for kernels in Kernels::all() {
                let mut other = Activations::new();
                other.prepare_rows(kernels, format, &x, &[0, 1], 512);
                assert_eq!(scalar.codes[..], other.codes[..]);
                assert_eq!(scalar.scales, other.scales);
                assert_eq!(scalar.sums, other.sums);
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_visible() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for kernels in Kernels::all() {
                let mut x = sample(256);
                x[77] = bad;
                let mut acts = Activations::new();
                acts.prepare(kernels, Format::Q4K, &x, 1, 256);
                assert!(!acts.scales[0].is_finite(), "{bad}");
            }
        }
    }

    #[test]
    fn tiny_rows_are_zeros() {
        for peak in [0.0, 1e-45, 1e-38, 3e-37, 1e-30] {
            let mut acts = Activations::new();
            acts.prepare(Kernels::best(), Format::Q8_0, &[peak; 32], 1, 32);
            let decoded = acts.scales[0] * f32::from(acts.codes[0]);
            assert!((decoded - peak).abs() <= 1e-36_f32.max(0.01 * peak), "{peak} became {decoded}");
        }
    }
}
