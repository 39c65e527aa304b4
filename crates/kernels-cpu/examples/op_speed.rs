//! Time of each op at the shapes of Qwen3.5-35B-A3B, for one token and for a prompt:
//! `cargo run --release -p kernels-cpu --example op_speed [THREADS] [CONTEXT] [OPS]`
//!
//! OPS is a part of the names of the families to measure, e.g. `attention`. Attention is measured with a
//! cache of each format, at the beginning of an empty cache and at CONTEXT.
//!
//! Times are the best of a fifth of a second; with one thread, on Linux, the mean time on the core
//! if that is less, so that other work on the machine does not matter. Rates are multiply-adds per
//! second, and bytes of weights, caches or state per second.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use kernels_cpu::{CpuBackend, CpuBuffer, CpuMatrix, CpuOptions};
use ops::conformance::{numbers, random_matrix};
use ops::{
    Attention, AttentionShape, Backend, Batch, Combine, DeltaNet, DeltaNetShape, ExpertRows, ExpertWeights,
    GatedNorm, KvFormat, Mlp, Norm, NormProducts, OutputProduct, PAGE_TOKENS, Phase, RopePairing, Rows,
    ValueHeadOrder,
};
use tensor::Format;

const HIDDEN: usize = 2048;
const INNER: usize = 512;
const EXPERTS_PER_TOKEN: usize = 8;
const PROMPT: usize = 512;
const ATTENTION: AttentionShape = AttentionShape {
    heads: 16,
    kv_heads: 2,
    head_dim: 256,
    rotary_dim: 64,
    rope_theta: 1e7,
    pairing: RopePairing::Halves,
    gated: true,
    eps: 1e-6,
};
const DELTA_NET: DeltaNetShape = DeltaNetShape {
    key_heads: 16,
    value_heads: 32,
    value_head_order: ValueHeadOrder::Grouped,
    key_dim: 128,
    value_dim: 128,
    conv_kernel: 4,
    eps: 1e-6,
};

/// Ops that are measured together.
type Family = Box<dyn Fn(&mut Speed)>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (threads, context) = (number(0, 2), number(1, 4096));
    let wanted = |family: &str| arguments.get(2).is_none_or(|part| family.contains(part.as_str()));
    let backend = CpuBackend::new(CpuOptions { threads, isa: None }).unwrap();
    println!("{} threads, {:?}, positions from {context}", backend.threads(), backend.isa());
    let mut speed = Speed { backend };
    for n in [1, PROMPT] {
        println!("\nn = {n}");
        let families: [(&str, Family); 5] = [
            ("products", Box::new(move |speed| speed.products(n))),
            ("norms", Box::new(move |speed| speed.norms(n))),
            ("attention", Box::new(move |speed| speed.attention(n, context))),
            ("delta_net", Box::new(move |speed| speed.delta_net(n))),
            ("experts", Box::new(move |speed| speed.experts(n))),
        ];
        families.into_iter().filter(|(name, _)| wanted(name)).for_each(|(_, measure)| measure(&mut speed));
    }
}

/// Time that this thread has had a core, where the system tells.
fn cpu_seconds() -> Option<f64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = statistics.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds * 1e-9)
}

/// The rows of one sequence.
fn rows(n: usize, pos: usize, pages: usize) -> Rows {
    let phase = if n == 1 { Phase::Decode } else { Phase::Prefill };
    let (len, pos) = (n as u32, pos as u32);
    Rows { first: 0, len, pos, phase, chunked: n >= 16, state: 0, keep: None, pages: (0, pages as u32) }
}

struct Speed {
    backend: CpuBackend,
}

impl Speed {
    fn random(&mut self, len: usize) -> CpuBuffer {
        let mut buffer = self.backend.buffer(len).expect("memory");
        buffer.as_mut_slice().copy_from_slice(&numbers(1, len, 1.0));
        buffer
    }

    fn matrix(&mut self, format: Format, rows: usize, cols: usize) -> CpuMatrix {
        self.backend.matrix(random_matrix(2, format, rows, cols)).expect("memory")
    }

    /// Prints the best time of the op (others may be using the machine); `products` multiply-adds
    /// and `bytes` are what one call works on.
    fn time(&mut self, name: &str, (products, bytes): (usize, usize), mut op: impl FnMut(&mut CpuBackend)) {
        const SECONDS: f64 = 0.2;
        op(&mut self.backend);
        let (start, cpu_start, mut times) = (Instant::now(), cpu_seconds(), Vec::new());
        while times.len() < 3 || start.elapsed().as_secs_f64() < SECONDS {
            let start = Instant::now();
            op(&mut self.backend);
            times.push(start.elapsed().as_secs_f64());
        }
        let mut seconds = times.iter().copied().fold(f64::INFINITY, f64::min);
        if let (1, Some(start), Some(end)) = (self.backend.threads(), cpu_start, cpu_seconds()) {
            seconds = seconds.min((end - start) / times.len() as f64);
        }
        let (giga_products, giga_bytes) = (products as f64 / seconds / 1e9, bytes as f64 / seconds / 1e9);
        println!("{name:32} {:10.1} us {giga_products:8.1} GMAC/s {giga_bytes:7.1} GB/s", seconds * 1e6);
    }

    fn products(&mut self, n: usize) {
        let (x, weight, mut h) = (self.random(n * HIDDEN), self.random(HIDDEN), self.random(n * HIDDEN));
        for (format, rows) in [
            (Format::Q8_0, 8192),
            (Format::Q4K, 8192),
            (Format::Q6K, 8192),
            (Format::Q4_0, 8192),
            (Format::BF16, 8192),
            (Format::F32, 256),
        ] {
            let w = self.matrix(format, rows, HIDDEN);
            let mut out = self.random(n * rows);
            let work = (n * rows * HIDDEN, w.view().bytes.len());
            let name = format!("norm_products {format} {rows} x {HIDDEN}");
            self.time(&name, work, |backend| {
                let norm = Norm { weight: &weight, eps: 1e-6, dim: HIDDEN };
                let products = [(&w, &mut out)];
                backend.norm_products(NormProducts { x: &x, norm, n, h: &mut h, products });
            });
        }
        let table = self.matrix(Format::Q6K, 1000, HIDDEN);
        let (ids, mut out): (Vec<u32>, _) = ((0..n as u32).collect(), self.random(n * HIDDEN));
        self.time("get_rows q6_K", (0, n * HIDDEN * 4), |backend| {
            backend.get_rows(&table, &ids, &mut out, 0)
        });
    }

    fn norms(&mut self, n: usize) {
        let (x, weight, mut out) = (self.random(n * HIDDEN), self.random(HIDDEN), self.random(n * HIDDEN));
        let bytes = n * HIDDEN * 4;
        self.time("norm", (0, bytes), |backend| {
            let norm = Norm { weight: &weight, eps: 1e-6, dim: HIDDEN };
            backend.norm_products(NormProducts { x: &x, norm, n, h: &mut out, products: [] });
        });
        self.time("add", (0, bytes), |backend| backend.add(&x, n * HIDDEN, &mut out));
        let (z, mut input) = (self.random(n * 4096), self.random(n * 4096));
        let w = self.matrix(Format::Q6K, HIDDEN, 4096);
        let mut product = self.random(n * HIDDEN);
        self.time("output_product q6_K", (n * 4096 * HIDDEN, w.view().bytes.len()), |backend| {
            let norm = Norm { weight: &weight, eps: 1e-6, dim: 128 };
            let gated_norm = Some(GatedNorm { z: &z, norm, rows: n * 32 });
            let (input, product) = (&mut input, &mut product);
            let (bias, hidden, x) = (None, HIDDEN, &mut out);
            backend.output_product(OutputProduct { gated_norm, input, w: &w, bias, n, hidden, product, x });
        });
    }

    fn attention(&mut self, n: usize, pos: usize) {
        let (heads, dim, row) =
            (ATTENTION.heads, ATTENTION.head_dim, ATTENTION.kv_heads * ATTENTION.head_dim);
        let norm = self.random(dim);
        let mut qg = self.random(n * heads * 2 * dim);
        let (mut k, mut v, mut out) =
            (self.random(n * row), self.random(n * row), self.random(n * heads * dim));
        let pages: Vec<u32> = (0..(pos + n).div_ceil(PAGE_TOKENS) as u32).collect();
        for &kv in KvFormat::ALL {
            let [mut keys, mut values] =
                [0; 2].map(|_| self.backend.kv_pool(kv, &ATTENTION, pages.len()).expect("memory"));
            let mut attend = |backend: &mut CpuBackend, at: usize| {
                let batch = Batch { n, rows: &[rows(n, at, pages.len())], pages: &pages };
                backend.attention(Attention {
                    shape: &ATTENTION,
                    batch: &batch,
                    biases: None,
                    norms: Some([&norm, &norm]),
                    rope_factors: None,
                    qg: &mut qg,
                    k: &mut k,
                    v: &mut v,
                    keys: &mut keys,
                    values: &mut values,
                    out: &mut out,
                });
            };
            (0..=pos).step_by(n).for_each(|at| attend(&mut self.backend, at));
            let seen: usize = (pos + 1..=pos + n).sum();
            let work = (2 * seen * heads * dim, 2 * (pos + n) * ATTENTION.kv_heads * kv.head_bytes(dim));
            self.time(&format!("attention {kv} at {pos}"), work, |backend| attend(backend, pos));
            if n > 1 {
                let work = (n * (n + 1) * heads * dim, 0);
                self.time(&format!("attention {kv} at 0"), work, |backend| attend(backend, 0));
            }
        }
    }

    fn delta_net(&mut self, n: usize) {
        let (channels, heads) = (DELTA_NET.conv_channels(), DELTA_NET.value_heads);
        let (conv, u) = (self.random(channels * 4), self.random(n * channels));
        let (mut conv_states, mut qkv) = (self.random(3 * channels), self.random(n * channels));
        let (a, b, dt_bias) = (self.random(n * heads), self.random(n * heads), self.random(heads));
        let mut a_neg = self.random(heads);
        a_neg.as_mut_slice().iter_mut().for_each(|a| *a = -a.exp());
        let (mut states, mut out) =
            (self.random(DELTA_NET.state_len()), self.random(n * DELTA_NET.value_len()));
        let batch = Batch { n, rows: &[rows(n, 0, 0)], pages: &[] };
        let work = (3 * n * DELTA_NET.state_len(), 2 * DELTA_NET.state_len() * 4);
        self.time("delta_net", work, |backend| {
            backend.delta_net(DeltaNet {
                shape: &DELTA_NET,
                batch: &batch,
                u: &u,
                conv: &conv,
                b: &b,
                a: &a,
                a_neg: &a_neg,
                dt_bias: &dt_bias,
                conv_states: &mut conv_states,
                states: &mut states,
                qkv: &mut qkv,
                out: &mut out,
            });
        });
    }

    fn experts(&mut self, n: usize) {
        let (x, mut out) = (self.random(n * HIDDEN), self.random(n * EXPERTS_PER_TOKEN * HIDDEN));
        let rows: Vec<u32> = (0..n.div_ceil(32) as u32).collect();
        for (name, format, down) in
            [("q4_K/q6_K", Format::Q4K, Format::Q6K), ("q8_0", Format::Q8_0, Format::Q8_0)]
        {
            let [gate, up] = [0, 1].map(|_| self.matrix(format, INNER, HIDDEN));
            let down = self.matrix(down, HIDDEN, INNER);
            let gate_row = self.matrix(Format::F32, 1, HIDDEN);
            let bytes = 2 * gate.view().bytes.len() + down.view().bytes.len();
            let weights = ExpertWeights { gate: gate.view(), up: up.view(), down: down.view() };
            let work = (3 * rows.len() * HIDDEN * INNER, bytes);
            self.time(&format!("expert {name}, {} tokens", rows.len()), work, |backend| {
                backend.experts(&[ExpertRows { weights, x_rows: &rows, out_rows: &rows }], &x, &mut out);
            });
            self.time(&format!("mlp {name}"), (3 * n * HIDDEN * INNER, bytes), |backend| {
                let (gate, up, down, gate_row) = (&gate, &up, &down, Some(&gate_row));
                backend.mlp(Mlp { gate, up, down, gate_row, x: &x, n, out: &mut out });
            });
        }
        let (weights, shared) = (numbers(3, n * EXPERTS_PER_TOKEN, 1.0), self.random(n * HIDDEN));
        let (routed, mut x) = (self.random(n * EXPERTS_PER_TOKEN * HIDDEN), self.random(n * HIDDEN));
        self.time("combine", (0, n * EXPERTS_PER_TOKEN * HIDDEN * 4), |backend| {
            let (weights, routed, shared) = (&weights[..], &routed, Some(&shared));
            let (k_len, dim) = (EXPERTS_PER_TOKEN, HIDDEN);
            backend.combine(Combine { weights, routed, shared, n, k_len, dim, x: &mut x });
        });
    }
}
