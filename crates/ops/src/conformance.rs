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

use std::sync::Arc;

use tensor::{Format, MatrixView};

use crate::oracle::OracleBackend;
use crate::{
    AttentionShape, Backend, DeltaNetShape, ExpertRows, ExpertWeights, HostMatrix, KvFormat, RopePairing,
    ValueHeadOrder,
};

/// Allowed error of f32 arithmetic.
pub const F32_TOLERANCE: f64 = 3e-6;
/// Allowed error where activations may be rounded to 8 bits.
pub const QUANTISED_TOLERANCE: f64 = 3e-2;
/// Allowed error where keys and values are rounded to half precision: two back-ends may round a key
/// that lies between two halves to either.
pub const F16_CACHE_TOLERANCE: f64 = 3e-4;
/// Allowed ratio of the largest difference to the tolerance: five standard deviations, and some.
pub const LARGEST_TO_RMS: f64 = 8.0;

/// What a back-end computed in one case.
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
    for &format in KvFormat::ALL {
        for (shape, steps) in ATTENTION_SHAPES {
            suite.attention(format, shape, steps, shape.gated);
            // Norms and gates come together in some models and one without the other in others.
            suite.attention(format, shape, &steps[..2], !shape.gated);
        }
        suite.long_attention(format);
    }
    suite.convolution();
    DELTA_NET_SHAPES.iter().for_each(|(shape, steps)| suite.delta_net(shape, steps));
    suite.experts();
    suite.experts_together();
    suite.several_products();
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

fn tolerance_of_cache(format: KvFormat) -> f64 {
    match format {
        KvFormat::F32 => F32_TOLERANCE,
        KvFormat::F16 => F16_CACHE_TOLERANCE,
        KvFormat::Q8_0 => QUANTISED_TOLERANCE,
    }
}

/// Head layouts, and the numbers of tokens of successive calls. The longest history crosses several
/// blocks of keys.
const ATTENTION_SHAPES: &[(AttentionShape, &[usize])] = &[
    (attention_shape(4, 2, 16, 8), &[5, 1, 1, 130, 1, 7, 126, 1]),
    (attention_shape(3, 3, 20, 6), &[1, 1, 3, 70]),
    (attention_shape(8, 1, 256, 64), &[2, 1, 140, 1]),
    (attention_shape(2, 2, 8, 8), &[300, 1]),
    (plain(attention_shape(9, 3, 64, 64), RopePairing::Adjacent), &[5, 1, 140, 1]),
    (plain(attention_shape(4, 1, 20, 12), RopePairing::Halves), &[1, 33]),
];

const fn attention_shape(
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotary_dim: usize,
) -> AttentionShape {
    let pairing = RopePairing::Halves;
    AttentionShape { heads, kv_heads, head_dim, rotary_dim, rope_theta: 1e7, pairing, gated: true, eps: 1e-6 }
}

/// Without gates.
const fn plain(shape: AttentionShape, pairing: RopePairing) -> AttentionShape {
    AttentionShape { gated: false, pairing, ..shape }
}

/// Head layouts, and the numbers of tokens of successive calls.
const DELTA_NET_SHAPES: &[(DeltaNetShape, &[usize])] = &[
    (delta_net_shape((2, 4), (16, 16), 4), &[1, 5, 70, 1, 16, 64, 15, 129]),
    (delta_net_shape((1, 3), (12, 20), 3), &[40, 1, 2]),
    (delta_net_shape((2, 4), (128, 128), 4), &[3, 100, 37]),
    (delta_net_shape((3, 3), (5, 7), 2), &[33]),
    (tiled(delta_net_shape((2, 6), (12, 20), 4)), &[5, 70, 1, 16]),
    (tiled(delta_net_shape((2, 4), (128, 128), 4)), &[3, 100]),
];

const fn tiled(shape: DeltaNetShape) -> DeltaNetShape {
    DeltaNetShape { value_head_order: ValueHeadOrder::Tiled, ..shape }
}

const fn delta_net_shape(heads: (usize, usize), dims: (usize, usize), conv_kernel: usize) -> DeltaNetShape {
    let ((key_heads, value_heads), (key_dim, value_dim)) = (heads, dims);
    let value_head_order = ValueHeadOrder::Grouped;
    DeltaNetShape { key_heads, value_heads, value_head_order, key_dim, value_dim, conv_kernel, eps: 1e-6 }
}

struct Suite<'a, B: Backend> {
    backend: &'a mut B,
    outcomes: Vec<Outcome>,
}

impl<B: Backend> Suite<'_, B> {
    /// A buffer with the seed's numbers.
    fn random(&mut self, seed: u64, len: usize, scale: f32) -> B::Buffer {
        let mut buffer = self.backend.buffer(len);
        self.backend.write(&mut buffer, 0, &numbers(seed, len, scale));
        buffer
    }

    fn keep(&mut self, name: String, tolerance: f64, buffer: &B::Buffer, len: usize) {
        let values = self.read(buffer, len);
        self.outcomes.push(Outcome { name, tolerance, values });
    }

    fn read(&mut self, buffer: &B::Buffer, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        self.backend.read(buffer, 0, &mut values);
        values
    }

    fn buffers(&mut self) {
        let zeros = self.backend.buffer(10);
        self.keep("buffer".into(), 0.0, &zeros, 10);
        let mut a = self.random(1, 10, 1.0);
        self.backend.write(&mut a, 3, &[7.0, 8.0]);
        let mut b = self.random(2, 10, 1.0);
        self.backend.copy(&a, 2, &mut b, 5, 4);
        self.keep("write".into(), 0.0, &a, 10);
        self.keep("copy".into(), 0.0, &b, 10);
        let mut tail = [0.0; 4];
        self.backend.read(&b, 5, &mut tail);
        self.outcomes.push(Outcome { name: "read".into(), tolerance: 0.0, values: tail.to_vec() });
        self.backend.clear(&mut b);
        self.keep("clear".into(), 0.0, &b, 10);
    }

    fn sums(&mut self) {
        for (n, dim) in [(1, 1), (3, 7), (2, 2048), (40, 1000)] {
            let len = n * dim;
            let (bias, y) = (self.random(3, dim, 1.0), self.random(4, len, 1.0));
            let mut x = self.random(5, len + 3, 1.0);
            self.backend.add_bias(&bias, n, dim, &mut x);
            self.keep(format!("add_bias {n} x {dim}"), F32_TOLERANCE, &x, len + 3);
            self.backend.add(&y, len, &mut x);
            self.keep(format!("add {n} x {dim}"), F32_TOLERANCE, &x, len + 3);
        }
    }

    fn norms(&mut self) {
        for (n, dim, scale) in [(1, 8, 1.0), (3, 20, 1e-4), (5, 2048, 3.0), (70, 128, 1e3)] {
            let (x, weight) = (self.random(6, n * dim, scale), self.random(7, dim, 1.0));
            let mut out = self.random(8, n * dim + 3, 1.0);
            self.backend.rms_norm(&x, &weight, 1e-6, n, dim, &mut out);
            self.keep(format!("rms_norm {n} x {dim}"), F32_TOLERANCE, &out, n * dim + 3);
            // Gates far beyond where exp overflows.
            for gate_scale in [4.0, 300.0] {
                let (z, mut o) = (self.random(9, n * dim, gate_scale), self.random(10, n * dim, scale));
                self.backend.gated_rms_norm(&z, &weight, 1e-6, n, dim, &mut o);
                let name = format!("gated_rms_norm {n} x {dim}, gates to {gate_scale}");
                self.keep(name, F32_TOLERANCE, &o, n * dim);
            }
        }
    }

    fn rows_of_tables(&mut self) {
        for &format in Format::ALL {
            let (rows, cols) = (50, 512);
            let table = self.backend.matrix(random_matrix(11, format, rows, cols));
            let ids = [49, 0, 7, 7, 31];
            let mut out = self.random(12, (ids.len() + 1) * cols, 1.0);
            self.backend.get_rows(&table, &ids, &mut out);
            self.keep(format!("get_rows {format}"), 0.0, &out, (ids.len() + 1) * cols);
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
        let w = self.backend.matrix(random_matrix(13, format, rows, cols));
        let x = self.random(14, n * cols, 2.0);
        let mut out = self.random(15, n * rows + 3, 1.0);
        self.backend.mul_mat(&w, &x, n, &mut out);
        let name = format!("mul_mat {format} {rows} x {cols}, {n} tokens");
        self.keep(name, tolerance_of(&[format]), &out, n * rows + 3);
    }

    /// Queries and keys are `normed`, or their rotary frequencies have factors.
    fn attention(&mut self, format: KvFormat, shape: &AttentionShape, steps: &[usize], normed: bool) {
        let (heads, dim, tolerance) = (shape.heads, shape.head_dim, tolerance_of_cache(format));
        let (row, query_len) = (shape.kv_heads * dim, shape.query_len());
        let ctx = steps.iter().sum::<usize>() + 2;
        let (q_norm, k_norm) = (self.random(16, dim, 2.0), self.random(17, dim, 2.0));
        let factors: Vec<f32> =
            numbers(19, shape.rotary_dim / 2, 2.0).into_iter().map(|log| log.exp()).collect();
        let mut rope_factors = self.backend.buffer(factors.len());
        self.backend.write(&mut rope_factors, 0, &factors);
        let [mut k_cache, mut v_cache] = [0; 2].map(|_| self.backend.kv_cache(format, shape, ctx));
        let mut pos = 0;
        for (step, &n) in steps.iter().enumerate() {
            let seed = 1000 + 10 * step as u64;
            let mut qg = self.random(seed, n * heads * query_len, 3.0);
            let (mut k, v) = (self.random(seed + 1, n * row, 3.0), self.random(seed + 2, n * row, 1.0));
            let mut out = self.random(seed + 3, n * heads * dim + 3, 1.0);
            self.backend.qk_norm_rope_store(
                shape,
                pos,
                n,
                normed.then_some([&q_norm, &k_norm]),
                (!normed).then_some(&rope_factors),
                &mut qg,
                &mut k,
                &v,
                &mut k_cache,
                &mut v_cache,
            );
            self.backend.gated_attention(shape, pos, n, &qg, &k_cache, &v_cache, &mut out);
            let name = format!("{heads} heads of {dim}, normed {normed}, {n} tokens at {pos}");
            self.keep(format!("queries, {name}"), F32_TOLERANCE, &qg, n * heads * query_len);
            self.keep(format!("attention {format}, {name}"), tolerance, &out, n * heads * dim + 3);
            pos += n;
        }
        // Rows before that of the next token, and some that nothing was written to.
        for (what, tolerance, cache) in [("key", tolerance, &k_cache), ("value", 0.0, &v_cache)] {
            let mut values = vec![1.0; ctx * row];
            self.backend.read_kv(cache, 0, &mut values);
            let name = format!("{what} cache {format}, {heads} heads of {dim}");
            self.outcomes.push(Outcome { name, tolerance, values });
        }
    }

    /// A few tokens far along in a cache.
    fn long_attention(&mut self, format: KvFormat) {
        let (shape, pos) = (attention_shape(4, 2, 8, 8), 9000);
        let (ctx, row) = (pos + 3, shape.kv_heads * shape.head_dim);
        let [mut k_cache, mut v_cache] = [0; 2].map(|_| self.backend.kv_cache(format, &shape, ctx));
        let norm = self.random(79, shape.head_dim, 2.0);
        let (mut keys, values) = (self.random(80, ctx * row, 3.0), self.random(81, ctx * row, 1.0));
        let mut qg = self.random(84, 2 * ctx * shape.heads * shape.head_dim, 1.0);
        let (norms, caches) = (Some([&norm, &norm]), (&mut k_cache, &mut v_cache));
        self.backend
            .qk_norm_rope_store(&shape, 0, ctx, norms, None, &mut qg, &mut keys, &values, caches.0, caches.1);
        for n in [1, 3] {
            let len = n * shape.heads * shape.head_dim;
            let (qg, mut out) = (self.random(82, 2 * len, 3.0), self.random(83, len, 1.0));
            self.backend.gated_attention(&shape, pos, n, &qg, &k_cache, &v_cache, &mut out);
            let name = format!("attention {format}, {n} tokens at {pos}");
            self.keep(name, tolerance_of_cache(format), &out, len);
        }
    }

    fn convolution(&mut self) {
        for (shape, _) in DELTA_NET_SHAPES {
            let (channels, kernel) = (shape.conv_channels(), shape.conv_kernel);
            let weight = self.random(20, channels * kernel, 1.0);
            let state_len = (kernel - 1) * channels;
            let mut state = self.random(21, state_len, 1.0);
            for (step, n) in [1, 1, 2, 3, 50, 1, 4].into_iter().enumerate() {
                let u = self.random(22 + step as u64, n * channels, 2.0);
                let mut out = self.random(40, n * channels + 3, 1.0);
                self.backend.conv1d_silu(shape, n, &weight, &u, &mut state, &mut out);
                let name = format!("conv1d_silu {channels} channels, {kernel} taps, {n} tokens");
                self.keep(name.clone(), F32_TOLERANCE, &out, n * channels + 3);
                self.keep(format!("{name}, state"), 0.0, &state, state_len);
            }
        }
    }

    fn delta_net(&mut self, shape: &DeltaNetShape, steps: &[usize]) {
        let heads = shape.value_heads;
        let a_neg: Vec<f32> = numbers(50, heads, 1.5).into_iter().map(|a_log| -a_log.exp()).collect();
        let mut a_neg_buffer = self.backend.buffer(heads);
        self.backend.write(&mut a_neg_buffer, 0, &a_neg);
        let dt_bias = self.random(51, heads, 1.0);
        // From slow decay and small steps to saturated ones.
        for scale in [1.0, 8.0] {
            let mut state = self.random(52, shape.state_len(), 0.5);
            for (step, &n) in steps.iter().enumerate() {
                let seed = 2000 + 10 * step as u64;
                let qkv = self.random(seed, n * shape.conv_channels(), 1.0);
                let (a, b) =
                    (self.random(seed + 1, n * heads, scale), self.random(seed + 2, n * heads, scale));
                let len = n * shape.value_len() + 3;
                let mut out = self.random(seed + 3, len, 1.0);
                self.backend.gated_delta_net(
                    shape,
                    n,
                    &qkv,
                    &a,
                    &b,
                    &a_neg_buffer,
                    &dt_bias,
                    &mut state,
                    &mut out,
                );
                let (dk, dv) = (shape.key_dim, shape.value_dim);
                let order = shape.value_head_order;
                let name =
                    format!("gated_delta_net {heads} {order:?} x {dk} x {dv}, {n} tokens, gates to {scale}");
                self.keep(name.clone(), F32_TOLERANCE, &out, len);
                self.keep(format!("{name}, state"), F32_TOLERANCE, &state, shape.state_len());
            }
        }
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
            let [gate, up, down] = [gate, up, down].map(|matrix| self.backend.matrix(matrix));
            let gate_row = self.backend.matrix(random_matrix(63, F32, 1, hidden));
            for n in [1, 2, 19] {
                let x = self.random(64, n * hidden, 3.0);
                let mut out = self.random(65, n * hidden + 3, 1.0);
                for gate_row in [Some(&gate_row), None] {
                    self.backend.shared_expert(&gate, &up, &down, gate_row, &x, n, &mut out);
                    let gated = gate_row.is_some();
                    let name = format!("shared_expert {formats:?}, gated {gated}, {n} tokens");
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
            let matrices: [HostMatrix; 3] =
                std::array::from_fn(|i| random_matrix(90 + i as u64, formats[i], sizes[i], 256));
            let matrices = matrices.map(|matrix| self.backend.matrix(matrix));
            for n in [1, 2, 19] {
                let x = self.random(93, n * 256, 3.0);
                let mut outs = sizes.map(|rows| self.random(94, n * rows + 3, 1.0));
                let [a, b, c] = &mut outs;
                let [wa, wb, wc] = &matrices;
                self.backend.mul_mats([(wa, a), (wb, b), (wc, c)], &x, n);
                for (i, out) in outs.iter().enumerate() {
                    let name = format!("mul_mats {formats:?}, number {i}, {n} tokens");
                    self.keep(name, tolerance_of(&formats), out, n * sizes[i] + 3);
                }
            }
        }
    }

    fn combination(&mut self) {
        for (n, k_len, dim) in [(1, 1, 8), (1, 8, 2048), (19, 10, 100)] {
            let (routed, shared) = (self.random(70, n * k_len * dim, 1.0), self.random(71, n * dim, 1.0));
            let weights = numbers(72, n * k_len, 1.0);
            let mut x = self.random(73, n * dim + 3, 1.0);
            self.backend.moe_combine(&weights, &routed, &shared, n, k_len, dim, &mut x);
            self.keep(format!("moe_combine {n} x {k_len} x {dim}"), F32_TOLERANCE, &x, n * dim + 3);
        }
    }
}
