//! Every instruction set against the scalar code, and the scalar code against float64, over formats
//! and shapes.

#![allow(clippy::unwrap_used)]

use kernels_cpu::dot::{ActivationClass, Activations, mul_rows};
use kernels_cpu::{Isa, Kernels};
use ops::conformance::{make_scales_small, scale_bytes};
use tensor::{Format, MatrixView};

const COLS: &[usize] = &[1, 7, 16, 17, 31, 32, 64, 96, 256, 288, 512, 768, 1024, 2048, 4096];
const TOKENS: &[usize] = &[1, 2, 3, 4, 5, 8, 17];
const ROWS: usize = 5;

/// Of the magnitudes that were added up. Scalar and vector float sums differ by the order and by
/// fused multiply-add.
const FLOAT_ISA_TOLERANCE: f64 = 1e-6;
/// The scalar code against float64, of the same magnitudes.
const SCALAR_TOLERANCE: f64 = 1e-6;

/// Uniform in -1..1, the same on every machine.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn row(&mut self, len: usize) -> Vec<f32> {
        // A product of two has more small values and, relative to them, larger extremes.
        (0..len).map(|_| self.next() * self.next()).collect()
    }
}

struct Case {
    format: Format,
    cols: usize,
    weights: Vec<u8>,
    /// [ROWS, cols]
    decoded: Vec<f32>,
    /// [n, cols]
    x: Vec<f32>,
    n: usize,
}

impl Case {
    fn new(format: Format, cols: usize, n: usize) -> Case {
        let mut uniform = Uniform((cols * 31 + n) as u64);
        let mut weights = vec![0; ROWS * format.row_bytes(cols).unwrap()];
        if format.can_encode() {
            format.encode_row(&uniform.row(ROWS * cols), &mut weights).unwrap();
        } else {
            weights.iter_mut().for_each(|byte| *byte = (uniform.next() * 128.0 + 128.0) as u8);
            weights.chunks_mut(format.block_bytes()).for_each(|block| make_scales_small(format, block));
        }
        Case::from_bytes(format, cols, n, weights)
    }

    fn from_bytes(format: Format, cols: usize, n: usize, weights: Vec<u8>) -> Case {
        let mut decoded = vec![0.0; ROWS * cols];
        format.decode_row(&weights, &mut decoded).unwrap();
        let x = Uniform((cols + 977 * n) as u64).row(n * cols);
        Case { format, cols, weights, decoded, x, n }
    }

    fn view(&self) -> MatrixView<'_> {
        MatrixView::new(self.format, ROWS, self.cols, &self.weights).unwrap()
    }

    /// [ROWS, n]
    fn products(&self, kernels: Kernels) -> Vec<f32> {
        let mut acts = Activations::new();
        acts.prepare(kernels, self.format, &self.x, self.n, self.cols);
        let mut out = vec![f32::NAN; ROWS * self.n];
        mul_rows(kernels, &self.view(), 0, ROWS, &acts, &mut out);
        out
    }

    /// The product of row `r` with token `t` in float64, and the sum of the magnitudes of its
    /// terms. Activations are those that the format's class sees: quantised where it quantises.
    fn reference(&self, r: usize, t: usize) -> (f64, f64) {
        let x = &self.x[t * self.cols..][..self.cols];
        let block = match Activations::class(self.format) {
            ActivationClass::F32 => 1,
            ActivationClass::Q8x32 => 32,
            _ => 256,
        };
        let mut seen: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        for values in seen.chunks_mut(block) {
            let scale = values.iter().fold(0.0_f64, |max, v| max.max(v.abs())) / 127.0;
            if block > 1 && scale > 0.0 {
                values.iter_mut().for_each(|v| *v = (*v / scale).round_ties_even() * scale);
            }
        }
        let weights = &self.decoded[r * self.cols..][..self.cols];
        let terms = weights.iter().zip(&seen).map(|(&w, x)| f64::from(w) * x);
        terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()))
    }
}

fn formats_and_cols() -> impl Iterator<Item = (Format, usize)> {
    let fits = |format: &Format, cols: usize| format.row_bytes(cols).is_ok();
    Format::ALL
        .iter()
        .flat_map(move |&format| COLS.iter().map(move |&cols| (format, cols)))
        .filter(move |(format, cols)| fits(format, *cols))
}

fn vector_sets() -> impl Iterator<Item = Kernels> {
    Kernels::all().filter(|kernels| kernels.isa() != Isa::Scalar)
}

#[test]
fn scalar_agrees_with_float64() {
    for (format, cols) in formats_and_cols() {
        let case = Case::new(format, cols, 5);
        let products = case.products(Kernels::scalar());
        for r in 0..ROWS {
            for t in 0..case.n {
                let (expected, magnitude) = case.reference(r, t);
                let error = (f64::from(products[r * case.n + t]) - expected).abs();
                // A code on the boundary of two may round the other way in float64: one step of one
                // activation.
                let steps = if format.is_quantised() { magnitude / cols as f64 / 20.0 } else { 0.0 };
                assert!(
                    error <= SCALAR_TOLERANCE * magnitude + steps,
                    "{format} cols {cols}: {error:e} off, of {magnitude:e}"
                );
            }
        }
    }
}

#[test]
fn instruction_sets_agree() {
    for kernels in vector_sets() {
        for (format, cols) in formats_and_cols() {
            for &n in TOKENS {
                let case = Case::new(format, cols, n);
                compare(&case, kernels);
            }
        }
    }
}

fn compare(case: &Case, kernels: Kernels) {
    let isa = kernels.isa();
    let (format, cols, n) = (case.format, case.cols, case.n);
    let (scalar, vector) = (case.products(Kernels::scalar()), case.products(kernels));
    for (i, (a, b)) in scalar.iter().zip(&vector).enumerate() {
        if format.is_quantised() {
            assert_eq!(a.to_bits(), b.to_bits(), "{isa} {format} cols {cols} n {n} [{i}]: {b}, not {a}");
            continue;
        }
        let (_, magnitude) = case.reference(i / n, i % n);
        let error = f64::from(a - b).abs();
        assert!(error <= FLOAT_ISA_TOLERANCE * magnitude, "{isa} {format} cols {cols} n {n}: {b}, not {a}");
    }
}

/// Blocks of any bits: every code, scale and minimum that a file may hold, with scales that stay
/// finite.
#[test]
fn instruction_sets_agree_on_any_bits() {
    for kernels in vector_sets() {
        for &format in Format::ALL.iter().filter(|format| format.is_quantised()) {
            let cols = 1024;
            let mut uniform = Uniform(format.block_bytes() as u64);
            let mut weights = vec![0_u8; ROWS * format.row_bytes(cols).unwrap()];
            weights.iter_mut().for_each(|byte| *byte = (uniform.next() * 128.0 + 128.0) as u8);
            for block in weights.chunks_mut(format.block_bytes()) {
                for &byte in scale_bytes(format) {
                    // Clearing one bit of the exponent leaves out infinities and NaNs.
                    block[byte] &= 0xBF;
                }
            }
            compare(&Case::from_bytes(format, cols, 6, weights), kernels);
        }
    }
}

/// AVX2 and NEON add floats in the same order and round alike: the numbers are those of either.
#[test]
fn floats_have_the_same_bits_on_all_processors() {
    for kernels in vector_sets() {
        let fingerprint = |format| {
            let products =
                [100, 1024, 4096].map(|cols| Case::new(format, cols, 5).products(kernels)).concat();
            // FNV-1a
            products
                .iter()
                .flat_map(|product| product.to_bits().to_le_bytes())
                .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
                })
        };
        let fingerprints = [Format::F32, Format::F16, Format::BF16].map(fingerprint);
        assert_eq!(
            fingerprints,
            [8_391_732_568_966_061_590, 4_275_003_088_665_376_237, 17_095_104_425_100_251_274],
            "{kernels:?}"
        );
    }
}

/// The promise that makes streaming, threads and prefill invisible in the result.
#[test]
fn a_product_depends_on_its_two_rows_only() {
    for kernels in Kernels::all() {
        for (format, cols) in [(Format::F32, 100), (Format::F16, 256), (Format::BF16, 72)]
            .into_iter()
            .chain(Format::ALL.iter().filter(|f| f.is_quantised()).map(|&f| (f, 512)))
        {
            let case = Case::new(format, cols, 17);
            let together = case.products(kernels);
            let row_bytes = format.row_bytes(cols).unwrap();
            for shift in 0..4 {
                // The same row at another address, alone, with one token that was picked from the
                // middle.
                let (r, t) = (shift + 1, 5 * shift + 1);
                let mut moved = vec![0xA5; row_bytes + shift];
                moved[shift..].copy_from_slice(case.view().row(r));
                let view = MatrixView::new(format, 1, cols, &moved[shift..]).unwrap();
                let mut acts = Activations::new();
                acts.prepare_rows(kernels, format, &case.x, &[t as u32], cols);
                let mut alone = [f32::NAN];
                mul_rows(kernels, &view, 0, 1, &acts, &mut alone);
                let expected = together[r * case.n + t];
                assert_eq!(alone[0].to_bits(), expected.to_bits(), "{kernels:?} {format} row {r} token {t}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_reaches_the_result() {
    for kernels in Kernels::all() {
        for &format in Format::ALL {
            let mut case = Case::new(format, 512, 3);
            case.x[512 + 100] = f32::NAN;
            let products = case.products(kernels);
            for (i, product) in products.iter().enumerate() {
                assert_eq!(product.is_nan(), i % 3 == 1, "{kernels:?} {format} [{i}]: {product}");
            }
        }
    }
}

#[test]
fn empty_shapes() {
    for kernels in Kernels::all() {
        let mut acts = Activations::new();
        acts.prepare(kernels, Format::Q4K, &[], 0, 512);
        assert_eq!((acts.n(), acts.cols()), (0, 512));
        let weights = vec![0; 288];
        let view = MatrixView::new(Format::Q4K, 1, 512, &weights).unwrap();
        mul_rows(kernels, &view, 0, 1, &acts, &mut []);
        mul_rows(kernels, &view, 1, 0, &acts, &mut []);

        acts.prepare(kernels, Format::F32, &[], 2, 0);
        let nothing = MatrixView::new(Format::F32, 1, 0, &[]).unwrap();
        let mut out = [f32::NAN; 2];
        mul_rows(kernels, &nothing, 0, 1, &acts, &mut out);
        assert_eq!(out, [0.0, 0.0]);
    }
}

#[test]
#[should_panic(expected = "activations for q4_K")]
fn refuses_activations_of_another_class() {
    let mut acts = Activations::new();
    acts.prepare(Kernels::scalar(), Format::Q8_0, &[1.0; 256], 1, 256);
    let weights = [0; 144];
    let view = MatrixView::new(Format::Q4K, 1, 256, &weights).unwrap();
    mul_rows(Kernels::scalar(), &view, 0, 1, &acts, &mut [0.0]);
}
