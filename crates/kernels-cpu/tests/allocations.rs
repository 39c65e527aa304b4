//! After one call with the same shapes an op allocates nothing, on any thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use kernels_cpu::{CpuBackend, CpuBuffer, CpuOptions};
use ops::conformance::{numbers, random_matrix};
use ops::{
    AttentionShape, Backend, DeltaNetShape, ExpertRows, ExpertWeights, KvFormat, RopePairing, ValueHeadOrder,
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
    let mut buffer = backend.buffer(len);
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
        let mut backend = CpuBackend::new(CpuOptions { threads, isa: None });
        for n in [1, 70] {
            dense_ops(&mut backend, n);
            mixers(&mut backend, n);
            experts(&mut backend, n);
        }
    }
}

fn dense_ops(backend: &mut CpuBackend, n: usize) {
    for &format in Format::ALL {
        let w = backend.matrix(random_matrix(1, format, 512, HIDDEN));
        let (x, mut out) = (random(backend, n * HIDDEN), random(backend, n * 512));
        steady(backend, "mul_mat", n, |backend| backend.mul_mat(&w, &x, n, &mut out));
        steady(backend, "get_rows", n, |backend| backend.get_rows(&w, &[3, 1], &mut out));
    }
    let (x, weight, mut out) =
        (random(backend, n * HIDDEN), random(backend, HIDDEN), random(backend, n * HIDDEN));
    steady(backend, "rms_norm", n, |backend| backend.rms_norm(&x, &weight, 1e-6, n, HIDDEN, &mut out));
    steady(backend, "gated_rms_norm", n, |backend| {
        backend.gated_rms_norm(&x, &weight, 1e-6, n, HIDDEN, &mut out);
    });
    steady(backend, "add", n, |backend| backend.add(&x, n * HIDDEN, &mut out));
    steady(backend, "add_bias", n, |backend| backend.add_bias(&weight, n, HIDDEN, &mut out));
}

fn mixers(backend: &mut CpuBackend, n: usize) {
    let (pos, heads, dim) = (300, ATTENTION.heads, ATTENTION.head_dim);
    let row = ATTENTION.kv_heads * dim;
    let norm = random(backend, dim);
    let (mut qg, mut k) = (random(backend, n * heads * 2 * dim), random(backend, n * row));
    let (v, mut out) = (random(backend, n * row), random(backend, n * heads * dim));
    for &kv in KvFormat::ALL {
        let [mut keys, mut values] = [0; 2].map(|_| backend.kv_cache(kv, &ATTENTION, pos + n));
        steady(backend, "qk_norm_rope_store", n, |backend| {
            let norms = Some([&norm, &norm]);
            let caches = (&mut keys, &mut values);
            backend
                .qk_norm_rope_store(&ATTENTION, pos, n, norms, None, &mut qg, &mut k, &v, caches.0, caches.1);
        });
        steady(backend, "gated_attention", n, |backend| {
            backend.gated_attention(&ATTENTION, pos, n, &qg, &keys, &values, &mut out);
        });
    }

    let (channels, heads) = (DELTA_NET.conv_channels(), DELTA_NET.value_heads);
    let (weight, u, mut qkv) =
        (random(backend, 4 * channels), random(backend, n * channels), random(backend, n * channels));
    let (mut past, mut state) = (random(backend, 3 * channels), random(backend, DELTA_NET.state_len()));
    let (gates, decays) = (random(backend, n * heads), random(backend, heads));
    let mut out = random(backend, n * DELTA_NET.value_len());
    steady(backend, "conv1d_silu", n, |backend| {
        backend.conv1d_silu(&DELTA_NET, n, &weight, &u, &mut past, &mut qkv);
    });
    steady(backend, "gated_delta_net", n, |backend| {
        backend.clear(&mut state);
        backend.gated_delta_net(&DELTA_NET, n, &qkv, &gates, &gates, &decays, &decays, &mut state, &mut out);
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
    let gate_row = backend.matrix(random_matrix(1, Format::F32, 1, HIDDEN));
    let [gate, up, down] = [&gate, &up, &down].map(|matrix| backend.matrix(matrix.clone()));
    steady(backend, "shared_expert", n, |backend| {
        backend.shared_expert(&gate, &up, &down, Some(&gate_row), &x, n, &mut out);
    });
    let (routed, mut x) = (random(backend, 2 * n * HIDDEN), random(backend, n * HIDDEN));
    let choices = numbers(1, 2 * n, 1.0);
    steady(backend, "moe_combine", n, |backend| {
        backend.moe_combine(&choices, &routed, &out, n, 2, HIDDEN, &mut x);
    });
}
