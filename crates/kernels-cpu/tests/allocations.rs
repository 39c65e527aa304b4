//! After one call with the same shapes an op allocates nothing, on any thread.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels_cpu::{CpuBackend, CpuBuffer, CpuOptions};
use ops::conformance::{numbers, random_matrix};
use ops::{
    Attention, AttentionShape, Backend, Batch, Combine, DeltaNet, DeltaNetShape, ExpertRows, ExpertWeights,
    GatedNorm, KvFormat, Mlp, Norm, NormProducts, OutputProduct, PAGE_TOKENS, Phase, RopePairing, Rows,
    ValueHeadOrder,
};
use tensor::Format;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: forwards to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `data` and `layout`.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const ATTENTION: AttentionShape = AttentionShape {
    heads: 4,
    kv_heads: 2,
    head_dim: 32,
    rotary_dim: 8,
    rope_theta: 1e7,
    pairing: RopePairing::Halves,
    gated: true,
    eps: 1e-6,
};
const DELTA_NET: DeltaNetShape = DeltaNetShape {
    key_heads: 2,
    value_heads: 4,
    value_head_order: ValueHeadOrder::Grouped,
    key_dim: 32,
    value_dim: 32,
    conv_kernel: 4,
    eps: 1e-6,
};
const HIDDEN: usize = 256;

fn random(backend: &mut CpuBackend, len: usize) -> CpuBuffer {
    let mut buffer = backend.buffer(len).unwrap();
    backend.write(&mut buffer, 0, &numbers(1, len, 1.0));
    buffer
}

fn steady(backend: &mut CpuBackend, name: &str, n: usize, mut op: impl FnMut(&mut CpuBackend)) {
    op(backend);
    let mut allocations_of_ten = || {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..10).for_each(|_| op(backend));
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    // The least of a few: a thread that is just starting, or the test harness, may allocate
    // meanwhile.
    let allocations = (0..5).map(|_| allocations_of_ten()).min();
    assert_eq!(allocations, Some(0), "{name}, {n} tokens");
}

#[test]
fn ops_allocate_nothing_when_warm() {
    for threads in [1, 2] {
        let mut backend = CpuBackend::new(CpuOptions { threads, isa: None }).unwrap();
        for n in [1, 70] {
            dense_ops(&mut backend, n);
            mixers(&mut backend, n);
            experts(&mut backend, n);
        }
    }
}

fn dense_ops(backend: &mut CpuBackend, n: usize) {
    let (weight, mut h) = (random(backend, HIDDEN), random(backend, n * HIDDEN));
    for &format in Format::ALL {
        let w = backend.matrix(random_matrix(1, format, 512, HIDDEN)).unwrap();
        let (x, mut out) = (random(backend, n * HIDDEN), random(backend, n * 512));
        steady(backend, "norm_products", n, |backend| {
            let norm = Norm { weight: &weight, eps: 1e-6, dim: HIDDEN };
            let products = [(&w, &mut out)];
            backend.norm_products(NormProducts { x: &x, norm, n, h: &mut h, products });
        });
        steady(backend, "get_rows", n, |backend| backend.get_rows(&w, &[3, 1], &mut out, 0));
    }
    let w = backend.matrix(random_matrix(1, Format::Q8_0, HIDDEN, HIDDEN)).unwrap();
    let [z, mut input, mut product, mut x] = [0; 4].map(|_| random(backend, n * HIDDEN));
    steady(backend, "output_product", n, |backend| {
        let norm = Norm { weight: &weight, eps: 1e-6, dim: HIDDEN };
        let gated_norm = Some(GatedNorm { z: &z, norm, rows: n });
        let (input, product, bias, hidden) = (&mut input, &mut product, Some(&weight), HIDDEN);
        let op = OutputProduct { gated_norm, input, w: &w, bias, n, hidden, product, x: &mut x };
        backend.output_product(op);
    });
    steady(backend, "add", n, |backend| backend.add(&z, n * HIDDEN, &mut x));
}

fn mixers(backend: &mut CpuBackend, n: usize) {
    let (pos, heads, dim) = (300, ATTENTION.heads, ATTENTION.head_dim);
    let row = ATTENTION.kv_heads * dim;
    let pages: Vec<u32> = (0..(pos + n).div_ceil(PAGE_TOKENS) as u32).collect();
    let rows = Rows {
        first: 0,
        len: n as u32,
        pos: pos as u32,
        phase: Phase::Prefill,
        chunked: n > 1,
        state: 0,
        keep: None,
        pages: (0, pages.len() as u32),
    };
    let batch = Batch { n, rows: &[rows], pages: &pages };
    let norm = random(backend, dim);
    let (mut qg, mut k) = (random(backend, n * heads * 2 * dim), random(backend, n * row));
    let (mut v, mut out) = (random(backend, n * row), random(backend, n * heads * dim));
    for &kv in KvFormat::ALL {
        let [mut keys, mut values] = [0; 2].map(|_| backend.kv_pool(kv, &ATTENTION, pages.len()).unwrap());
        steady(backend, "attention", n, |backend| {
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
        });
    }

    let (channels, heads) = (DELTA_NET.conv_channels(), DELTA_NET.value_heads);
    let (conv, u, mut qkv) =
        (random(backend, 4 * channels), random(backend, n * channels), random(backend, n * channels));
    let mut conv_states = random(backend, 3 * channels);
    let mut states = random(backend, DELTA_NET.state_len());
    let (gates, decays) = (random(backend, n * heads), random(backend, heads));
    let mut out = random(backend, n * DELTA_NET.value_len());
    steady(backend, "delta_net", n, |backend| {
        backend.clear(&mut states, 0, DELTA_NET.state_len());
        backend.delta_net(DeltaNet {
            shape: &DELTA_NET,
            batch: &batch,
            u: &u,
            conv: &conv,
            b: &gates,
            a: &gates,
            a_neg: &decays,
            dt_bias: &decays,
            conv_states: &mut conv_states,
            states: &mut states,
            qkv: &mut qkv,
            out: &mut out,
        });
    });
}

fn experts(backend: &mut CpuBackend, n: usize) {
    let [gate, up, down] =
        [Format::Q4K, Format::Q4K, Format::Q6K].map(|format| random_matrix(1, format, 256, HIDDEN));
    let weights = ExpertWeights { gate: gate.view(), up: up.view(), down: down.view() };
    let (x, mut out) = (random(backend, n * HIDDEN), random(backend, 2 * n * HIDDEN));
    let rows: Vec<u32> = (0..n as u32).rev().collect();
    steady(backend, "expert", n, |backend| {
        backend.experts(&[ExpertRows { weights, x_rows: &rows, out_rows: &rows }], &x, &mut out)
    });
    let gate_row = backend.matrix(random_matrix(1, Format::F32, 1, HIDDEN)).unwrap();
    let [gate, up, down] = [&gate, &up, &down].map(|matrix| backend.matrix(matrix.clone()).unwrap());
    steady(backend, "mlp", n, |backend| {
        let (gate, up, down, gate_row) = (&gate, &up, &down, Some(&gate_row));
        backend.mlp(Mlp { gate, up, down, gate_row, x: &x, n, out: &mut out });
    });
    let (routed, mut x) = (random(backend, 2 * n * HIDDEN), random(backend, n * HIDDEN));
    let weights = numbers(1, 2 * n, 1.0);
    steady(backend, "combine", n, |backend| {
        let (weights, routed, shared) = (&weights[..], &routed, Some(&out));
        backend.combine(Combine { weights, routed, shared, n, k_len: 2, dim: HIDDEN, x: &mut x });
    });
}
