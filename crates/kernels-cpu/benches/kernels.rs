//! Dot products of each format, and attention, on one thread: `cargo bench -p kernels-cpu [FILTER]`.
//!
//! For comparisons between two states of the code. Rates of a whole machine are the business of
//! `flash-moe bench` and of the examples `dot_speed` and `op_speed`.
#![allow(missing_docs, clippy::unwrap_used)]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use kernels_cpu::dot::{Activations, mul_rows};
use kernels_cpu::{CpuBackend, CpuBuffer, CpuOptions, Kernels};
use ops::conformance::{make_scales_small, numbers};
use ops::{Attention, AttentionShape, Backend, Batch, KvFormat, PAGE_TOKENS, Phase, RopePairing, Rows};
use tensor::{Format, MatrixView};

const COLS: usize = 4096;
const ROWS: usize = 64;
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

fn main() {
    divan::main();
}

/// `n` rows of activations times 64 rows of 4096 weights, which stay in a cache: arithmetic, not memory.
#[divan::bench(args = Format::ALL, consts = [1, 16], max_time = 0.15)]
fn dot<const N: usize>(bencher: Bencher<'_, '_>, format: &Format) {
    let kernels = Kernels::best();
    let row_bytes = format.row_bytes(COLS).unwrap();
    let mut row: Vec<u8> = (0..row_bytes).map(|i| (i * 167 % 251) as u8).collect();
    row.chunks_mut(format.block_bytes()).for_each(|block| make_scales_small(*format, block));
    let bytes = row.repeat(ROWS);
    let weights = MatrixView::new(*format, ROWS, COLS, &bytes).unwrap();
    let mut activations = Activations::new();
    activations.prepare(kernels, *format, &numbers(3, N * COLS, 1.0), N, COLS);
    let mut out = vec![0.0; ROWS * N];
    bencher
        .counter(BytesCount::new(bytes.len()))
        .counter(ItemsCount::new(ROWS * COLS * N))
        .bench_local(|| mul_rows(kernels, black_box(&weights), 0, ROWS, &activations, black_box(&mut out)));
}

fn buffer(backend: &mut CpuBackend, len: usize) -> CpuBuffer {
    let mut buffer = backend.buffer(len).unwrap();
    buffer.as_mut_slice().copy_from_slice(&numbers(1, len, 1.0));
    buffer
}

/// One token after a context of this many, with keys and values in each format.
#[divan::bench(args = [128, 2048], consts = [0, 1, 2], max_time = 0.3)]
fn attention<const KV: usize>(bencher: Bencher<'_, '_>, context: usize) {
    let kv = KvFormat::ALL[KV];
    let mut backend = CpuBackend::new(CpuOptions { threads: 1, isa: None }).unwrap();
    let (heads, dim) = (ATTENTION.heads, ATTENTION.head_dim);
    let row = ATTENTION.kv_heads * dim;
    let norm = buffer(&mut backend, dim);
    let [mut qg, mut k, mut v, mut out] =
        [heads * 2 * dim, row, row, heads * dim].map(|len| buffer(&mut backend, len));
    let pages: Vec<u32> = (0..(context + 1).div_ceil(PAGE_TOKENS) as u32).collect();
    let [mut keys, mut values] = [0; 2].map(|_| backend.kv_pool(kv, &ATTENTION, pages.len()).unwrap());
    let mut attend = |pos: usize| {
        let rows = Rows {
            first: 0,
            len: 1,
            pos: pos as u32,
            phase: Phase::Decode,
            chunked: false,
            state: 0,
            keep: None,
            pages: (0, pages.len() as u32),
        };
        backend.attention(Attention {
            shape: &ATTENTION,
            batch: &Batch { n: 1, rows: &[rows], pages: &pages },
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
    (0..context).for_each(&mut attend);
    let cache_bytes = 2 * (context + 1) * ATTENTION.kv_heads * kv.head_bytes(dim);
    bencher.counter(BytesCount::new(cache_bytes)).bench_local(|| attend(black_box(context)));
}
