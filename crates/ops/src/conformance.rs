//! One suite for every back-end: runs each op over many shapes, on deterministic data, and compares
//! with the oracle.
//!
//! Call [`check`] from a test of the back-end. [`outcomes`] gives the raw results, for comparing
//! two configurations of one back-end bit by bit.
//!
//! An error is measured relative to the root mean square of the expected values: that of the
//! differences must be within a case's tolerance, and the largest single difference within
//! [`LARGEST_TO_RMS`] times that. Ops whose inputs are f32 must come within [`F32_TOLERANCE`] of
//! f64 arithmetic. Products with quantised weights may round activations to 8 bits, a step being
//! 1/127 of the largest of 32 or 256 values, hence [`QUANTISED_TOLERANCE`].

mod mixers;

use std::sync::Arc;

use tensor::{Format, MatrixView};

use crate::oracle::OracleBackend;
use crate::{Backend, Combine, ExpertRows, ExpertWeights, GatedNorm, HostMatrix, Mlp, Norm};
use crate::{NormProducts, OutputProduct};

/// Allowed error of f32 arithmetic.
pub const F32_TOLERANCE: f64 = 3e-6;
/// Allowed error where activations may be rounded to 8 bits.
pub const QUANTISED_TOLERANCE: f64 = 3e-2;
/// Allowed error where keys and values are rounded to half precision: two back-ends may round a key
/// that lies between two halves to either.
pub const F16_CACHE_TOLERANCE: f64 = 3e-4;
/// Allowed ratio of the largest difference to the tolerance: five standard deviations, and some.
pub const LARGEST_TO_RMS: f64 = 8.0;

/// Output of a back-end in one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Op and shape.
    pub name: String,
    /// Allowed error; see the module's documentation.
    pub tolerance: f64,
    /// Everything the op wrote, and the rest of the buffer, which it must leave alone.
    pub values: Vec<f32>,
}

/// Compares a back-end with the oracle.
///
/// # Panics
/// With the list of the cases that differ by more than is allowed.
pub fn check<B: Backend>(make: impl Fn() -> B) {
    let (expected, got) = (outcomes(&mut OracleBackend), outcomes(&mut make()));
    assert_eq!(expected.len(), got.len(), "the suite does not depend on the back-end");
    let failures: Vec<String> = expected
        .iter()
        .zip(&got)
        .filter_map(|(expected, got)| {
            let (rms, largest) = errors(&expected.values, &got.values);
            let allowed = expected.tolerance;
            // Not `rms > allowed || …`: a NaN is a failure.
            let fine = rms <= allowed && largest <= LARGEST_TO_RMS * allowed;
            (!fine).then(|| {
                let name = &expected.name;
                format!("{name}: error {rms:.2e}, largest {largest:.2e}, allowed {allowed:.0e}")
            })
        })
        .collect();
    let (failed, cases) = (failures.len(), expected.len());
    assert!(failures.is_empty(), "{failed} of {cases} cases differ\n{}", failures.join("\n"));
}

/// Root mean square and largest of the differences, relative to the root mean square of what was
/// expected.
fn errors(expected: &[f32], got: &[f32]) -> (f64, f64) {
    assert_eq!(expected.len(), got.len());
    let rms = |squares: f64| (squares / expected.len().max(1) as f64).sqrt();
    let scale = rms(expected.iter().map(|&x| f64::from(x) * f64::from(x)).sum());
    let (mut squares, mut largest) = (0.0, 0.0);
    for (&x, &y) in expected.iter().zip(got) {
        let difference = (f64::from(x) - f64::from(y)).abs();
        squares += difference * difference;
        // Not `max`, which would drop a NaN.
        largest = if difference <= largest { largest } else { difference };
    }
    if squares == 0.0 { (0.0, 0.0) } else { (rms(squares) / scale, largest / scale) }
}

/// Runs every case.
pub fn outcomes<B: Backend>(backend: &mut B) -> Vec<Outcome> {
    let mut suite = Suite { backend, outcomes: Vec::new() };
    suite.buffers();
    suite.sums();
    suite.norms();
    suite.rows_of_tables();
    suite.products();
    suite.several_products();
    suite.output_products();
    suite.attention();
    suite.delta_nets();
    suite.experts();
    suite.experts_together();
    suite.combination();
    suite.outcomes
}

/// Deterministic numbers in [-1, 1): splitmix64 of a case's seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mantissa = ((z ^ (z >> 31)) >> 40) as f32;
        mantissa / (1 << 23) as f32 - 1.0
    }
}

/// `len` deterministic numbers in [-scale, scale).
pub fn numbers(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut numbers = Numbers(seed);
    (0..len).map(|_| scale * numbers.next()).collect()
}

/// A random matrix in `format`, its first row at an odd offset.
///
/// # Panics
/// If `cols` is no whole number of the format's blocks.
pub fn random_matrix(seed: u64, format: Format, rows: usize, cols: usize) -> HostMatrix {
    const OFFSET: usize = 3;
    let row_bytes = format.row_bytes(cols).unwrap_or_else(|error| panic!("{error}"));
    let mut bytes = vec![0; OFFSET + rows * row_bytes];
    let scale = 1.0 / (cols as f32).sqrt();
    if !format.can_encode() {
        bytes[OFFSET..]
            .iter_mut()
            .zip(numbers(seed, rows * row_bytes, 128.0))
            .for_each(|(byte, number)| *byte = (number + 128.0) as u8);
        bytes[OFFSET..]
            .chunks_exact_mut(format.block_bytes())
            .for_each(|block| make_scales_small(format, block));
        return HostMatrix { format, rows, cols, bytes: Arc::new(bytes), offset: OFFSET };
    }
    let values = numbers(seed, rows * cols, scale);
    for (row, bytes) in values.chunks_exact(cols).zip(bytes[OFFSET..].chunks_exact_mut(row_bytes)) {
        format.encode_row(row, bytes).unwrap_or_else(|error| panic!("{error}"));
    }
    HostMatrix { format, rows, cols, bytes: Arc::new(bytes), offset: OFFSET }
}

/// Gives a block of any bits scales that are finite and of the size that they have in models, for
/// formats that weights cannot be stored in.
pub fn make_scales_small(format: Format, block: &mut [u8]) {
    for &byte in scale_bytes(format) {
        // An exponent of the half-precision scale between -15 and -12.
        block[byte] = if format == Format::MXFP4 { 120 } else { block[byte] & 0x8F | 0x04 };
    }
}

/// Where a block has the bytes with the sign and the exponent of its scales.
pub fn scale_bytes(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[1, 3],
        Format::Q2K => &[81, 83],
        Format::Q3K => &[109],
        Format::Q6K => &[209],
        Format::IQ1M => &[55],
        Format::TQ1_0 => &[53],
        Format::TQ2_0 => &[65],
        Format::MXFP4 => &[0],
        _ => &[1],
    }
}

fn tolerance_of(formats: &[Format]) -> f64 {
    let quantised = formats.iter().any(|format| format.is_quantised());
    if quantised { QUANTISED_TOLERANCE } else { F32_TOLERANCE }
}

struct Suite<'a, B: Backend> {
    backend: &'a mut B,
    outcomes: Vec<Outcome>,
}

impl<B: Backend> Suite<'_, B> {
    /// A buffer with the seed's numbers.
    fn random(&mut self, seed: u64, len: usize, scale: f32) -> B::Buffer {
        self.buffer(&numbers(seed, len, scale))
    }

    fn buffer(&mut self, values: &[f32]) -> B::Buffer {
        let mut buffer = self.zeros(values.len());
        self.backend.write(&mut buffer, 0, values);
        buffer
    }

    fn zeros(&mut self, len: usize) -> B::Buffer {
        self.backend.buffer(len).unwrap_or_else(|error| panic!("{error}"))
    }

    fn matrix(&mut self, seed: u64, format: Format, rows: usize, cols: usize) -> B::Matrix {
        let matrix = random_matrix(seed, format, rows, cols);
        self.backend.matrix(matrix).unwrap_or_else(|error| panic!("{error}"))
    }

    fn keep(&mut self, name: String, tolerance: f64, buffer: &B::Buffer, len: usize) {
        let values = self.read(buffer, len);
        self.outcomes.push(Outcome { name, tolerance, values });
    }

    fn read(&mut self, buffer: &B::Buffer, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        self.backend.read(buffer, 0, &mut values).unwrap_or_else(|error| panic!("{error}"));
        values
    }

    fn buffers(&mut self) {
        let zeros = self.zeros(10);
        self.keep("buffer".into(), 0.0, &zeros, 10);
        let mut a = self.random(1, 10, 1.0);
        self.backend.write(&mut a, 3, &[7.0, 8.0]);
        let mut b = self.random(2, 10, 1.0);
        self.backend.copy(&a, 2, &mut b, 5, 4);
        self.keep("write".into(), 0.0, &a, 10);
        self.keep("copy".into(), 0.0, &b, 10);
        let mut tail = [0.0; 4];
        self.backend.read(&b, 5, &mut tail).unwrap_or_else(|error| panic!("{error}"));
        self.outcomes.push(Outcome { name: "read".into(), tolerance: 0.0, values: tail.to_vec() });
        self.backend.copy_within(&mut b, 5, 1, 3);
        self.keep("copy_within".into(), 0.0, &b, 10);
        self.backend.clear(&mut b, 2, 5);
        self.keep("clear".into(), 0.0, &b, 10);
    }

    fn sums(&mut self) {
        for (n, dim) in [(1, 1), (3, 7), (2, 2048), (40, 1000)] {
            let len = n * dim;
            let (y, mut x) = (self.random(4, len, 1.0), self.random(5, len + 3, 1.0));
            self.backend.add(&y, len, &mut x);
            self.keep(format!("add {n} x {dim}"), F32_TOLERANCE, &x, len + 3);
        }
    }

    fn norms(&mut self) {
        for (n, dim, scale) in [(1, 8, 1.0), (3, 20, 1e-4), (5, 2048, 3.0), (70, 128, 1e3)] {
            let (x, weight) = (self.random(6, n * dim, scale), self.random(7, dim, 1.0));
            let mut h = self.random(8, n * dim + 3, 1.0);
            let norm = Norm { weight: &weight, eps: 1e-6, dim };
            self.backend.norm_products(NormProducts { x: &x, norm, n, h: &mut h, products: [] });
            self.keep(format!("norm {n} x {dim}"), F32_TOLERANCE, &h, n * dim + 3);
        }
    }

    /// `x += w @ input + bias`, with and without a gated norm of the input.
    fn output_products(&mut self) {
        let cases = [(1, 8, 1, 1.0), (3, 20, 2, 1e-4), (5, 256, 4, 3.0), (70, 32, 1, 1e3), (19, 64, 4, 1.0)];
        for (n, dim, heads, scale) in cases {
            let (cols, hidden) = (heads * dim, 48);
            for format in [Format::F32, Format::Q8_0] {
                if cols % format.block_len() != 0 {
                    continue;
                }
                let w = self.matrix(11, format, hidden, cols);
                let (bias, weight) = (self.random(3, hidden, 1.0), self.random(7, dim, 1.0));
                // Gates far beyond where exp overflows.
                for gates in [None, Some(4.0), Some(300.0)] {
                    let z = self.random(9, n * cols, gates.unwrap_or(1.0));
                    let mut input = self.random(10, n * cols, scale);
                    let mut x = self.random(12, n * hidden + 3, 1.0);
                    let mut product = self.zeros(n * hidden);
                    let norm = Norm { weight: &weight, eps: 1e-6, dim };
                    let gated_norm = gates.map(|_| GatedNorm { z: &z, norm, rows: n * heads });
                    let bias = (heads == 4).then_some(&bias);
                    let (input, product) = (&mut input, &mut product);
                    let op = OutputProduct { gated_norm, input, w: &w, bias, n, hidden, product, x: &mut x };
                    self.backend.output_product(op);
                    let name = format!("output_product {format}, {n} x {heads} x {dim}, gates to {gates:?}");
                    self.keep(name, tolerance_of(&[format]), &x, n * hidden + 3);
                }
            }
        }
    }

    fn rows_of_tables(&mut self) {
        for &format in Format::ALL {
            let (rows, cols) = (50, 512);
            let table = self.matrix(11, format, rows, cols);
            let ids = [49, 0, 7, 7, 31];
            let mut out = self.random(12, (ids.len() + 1) * cols, 1.0);
            self.backend.get_rows(&table, &ids, &mut out, 0);
            self.keep(format!("get_rows {format}"), 0.0, &out, (ids.len() + 1) * cols);
            self.backend.get_rows(&table, &ids[..2], &mut out, 3);
            self.keep(format!("get_rows {format} from row 3"), 0.0, &out, (ids.len() + 1) * cols);
        }
    }

    fn products(&mut self) {
        for &format in Format::ALL {
            for (rows, cols, n) in [(1, 256, 1), (37, 256, 1), (700, 512, 1), (64, 768, 3), (130, 256, 17)] {
                self.product(format, rows, cols, n);
            }
        }
        for format in [Format::F32, Format::F16, Format::BF16] {
            for (rows, cols, n) in [(9, 5, 1), (33, 20, 4), (3, 1, 1)] {
                self.product(format, rows, cols, n);
            }
        }
        for format in [Format::Q4_0, Format::Q5_0, Format::Q8_0] {
            self.product(format, 33, 96, 2);
        }
    }

    fn product(&mut self, format: Format, rows: usize, cols: usize, n: usize) {
        let w = self.matrix(13, format, rows, cols);
        let (x, weight) = (self.random(14, n * cols, 2.0), self.random(7, cols, 1.0));
        let (mut h, mut out) = (self.zeros(n * cols), self.random(15, n * rows + 3, 1.0));
        let norm = Norm { weight: &weight, eps: 1e-6, dim: cols };
        let products = [(&w, &mut out)];
        self.backend.norm_products(NormProducts { x: &x, norm, n, h: &mut h, products });
        let name = format!("norm_products {format} {rows} x {cols}, {n} tokens");
        self.keep(name, tolerance_of(&[format]), &out, n * rows + 3);
    }

    fn experts(&mut self) {
        use Format::{BF16, F32, Q4_0, Q4K, Q5_0, Q6K, Q8_0};
        let formats =
            [[F32, F32, F32], [BF16, BF16, BF16], [Q8_0, Q8_0, Q8_0], [Q4K, Q4K, Q6K], [Q4_0, Q4K, Q5_0]];
        for formats in formats {
            let (hidden, inner) = (256, 512);
            let gate = random_matrix(60, formats[0], inner, hidden);
            let up = random_matrix(61, formats[1], inner, hidden);
            let down = random_matrix(62, formats[2], hidden, inner);
            self.routed_expert(formats, [gate.view(), up.view(), down.view()]);
            let [gate, up, down] = [gate, up, down]
                .map(|matrix| self.backend.matrix(matrix).unwrap_or_else(|error| panic!("{error}")));
            let gate_row = self.matrix(63, F32, 1, hidden);
            for n in [1, 2, 19] {
                let x = self.random(64, n * hidden, 3.0);
                let mut out = self.random(65, n * hidden + 3, 1.0);
                for gate_row in [Some(&gate_row), None] {
                    let (gate, up, down) = (&gate, &up, &down);
                    self.backend.mlp(Mlp { gate, up, down, gate_row, x: &x, n, out: &mut out });
                    let gated = gate_row.is_some();
                    let name = format!("mlp {formats:?}, gated {gated}, {n} tokens");
                    self.keep(name, tolerance_of(&formats), &out, n * hidden + 3);
                }
            }
        }
    }

    fn routed_expert(&mut self, formats: [Format; 3], [gate, up, down]: [MatrixView<'_>; 3]) {
        let (hidden, rows) = (gate.cols, 24);
        let rows_of: [(&[u32], &[u32]); 4] = [
            (&[0], &[0]),
            (&[5], &[23]),
            (&[3, 1, 3], &[7, 2, 0]),
            (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[9, 8, 7, 6, 5, 4, 3, 2, 1, 10]),
        ];
        for (x_rows, out_rows) in rows_of {
            let x = self.random(66, 10 * hidden, 3.0);
            let mut out = self.random(67, rows * hidden, 1.0);
            let weights = ExpertWeights { gate, up, down };
            self.backend.experts(&[ExpertRows { weights, x_rows, out_rows }], &x, &mut out);
            let name = format!("expert {formats:?}, rows {x_rows:?} to {out_rows:?}");
            let (mut named, mut others) = (Vec::new(), Vec::new());
            for (row, values) in self.read(&out, rows * hidden).chunks_exact(hidden).enumerate() {
                let into = if out_rows.contains(&(row as u32)) { &mut named } else { &mut others };
                into.extend_from_slice(values);
            }
            let tolerance = tolerance_of(&formats);
            self.outcomes.push(Outcome {
                name: format!("{name}, other rows"),
                tolerance: 0.0,
                values: others,
            });
            self.outcomes.push(Outcome { name, tolerance, values: named });
        }
    }

    /// Several experts in one call: with one row each, as in decoding, and with several.
    fn experts_together(&mut self) {
        use Format::{BF16, F32, Q4K, Q6K, Q8_0};
        let (hidden, inner) = (256, 512);
        for formats in [[F32, F32, F32], [Q8_0, BF16, Q8_0], [Q4K, Q4K, Q6K]] {
            let matrices: Vec<[HostMatrix; 3]> = (0..5)
                .map(|i| {
                    let matrix = |which: u64, rows, cols| {
                        random_matrix(80 + 3 * i + which, formats[which as usize], rows, cols)
                    };
                    [matrix(0, inner, hidden), matrix(1, inner, hidden), matrix(2, hidden, inner)]
                })
                .collect();
            let one_row: [(&[u32], &[u32]); 5] =
                [(&[0], &[4]), (&[0], &[0]), (&[0], &[2]), (&[1], &[1]), (&[0], &[3])];
            let some_rows: [(&[u32], &[u32]); 5] =
                [(&[0], &[4]), (&[1, 2], &[0, 5]), (&[1, 2], &[2, 6]), (&[], &[]), (&[2, 0, 1], &[3, 7, 8])];
            for rows in [one_row, some_rows] {
                let x = self.random(66, 3 * hidden, 3.0);
                let mut out = self.random(67, 10 * hidden, 1.0);
                let experts = matrices.iter().zip(rows).map(|([gate, up, down], (x_rows, out_rows))| {
                    let weights = ExpertWeights { gate: gate.view(), up: up.view(), down: down.view() };
                    ExpertRows { weights, x_rows, out_rows }
                });
                let experts: Vec<ExpertRows<'_>> = experts.collect();
                self.backend.experts(&experts, &x, &mut out);
                let name = format!("experts {formats:?}, rows {rows:?}");
                self.keep(name, tolerance_of(&formats), &out, 9 * hidden);
            }
        }
    }

    fn several_products(&mut self) {
        use Format::{F32, Q4K, Q6K, Q8_0};
        for formats in [[Q6K, Q6K, Q6K], [Q8_0, F32, Q8_0], [F32, Q4K, Q8_0]] {
            let sizes = [512, 3, 130];
            let matrices: [B::Matrix; 3] =
                std::array::from_fn(|i| self.matrix(90 + i as u64, formats[i], sizes[i], 256));
            for n in [1, 2, 19] {
                let (x, weight) = (self.random(93, n * 256, 3.0), self.random(7, 256, 1.0));
                let mut h = self.zeros(n * 256);
                let mut outs = sizes.map(|rows| self.random(94, n * rows + 3, 1.0));
                let [a, b, c] = &mut outs;
                let [wa, wb, wc] = &matrices;
                let norm = Norm { weight: &weight, eps: 1e-6, dim: 256 };
                let products = [(wa, a), (wb, b), (wc, c)];
                self.backend.norm_products(NormProducts { x: &x, norm, n, h: &mut h, products });
                for (i, out) in outs.iter().enumerate() {
                    let name = format!("norm_products {formats:?}, number {i}, {n} tokens");
                    self.keep(name, tolerance_of(&formats), out, n * sizes[i] + 3);
                }
            }
        }
    }

    fn combination(&mut self) {
        for (n, k_len, dim) in [(1, 1, 8), (1, 8, 2048), (19, 10, 100)] {
            let (routed, shared) = (self.random(70, n * k_len * dim, 1.0), self.random(71, n * dim, 1.0));
            let weights = numbers(72, n * k_len, 1.0);
            for shared in [Some(&shared), None] {
                let mut x = self.random(73, n * dim + 3, 1.0);
                let (weights, routed) = (&weights[..], &routed);
                self.backend.combine(Combine { weights, routed, shared, n, k_len, dim, x: &mut x });
                let name = format!("combine {n} x {k_len} x {dim}, shared {}", shared.is_some());
                self.keep(name, F32_TOLERANCE, &x, n * dim + 3);
            }
        }
    }
}
