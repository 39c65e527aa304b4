//! The CPU back-end against the oracle, and against itself.

use kernels_cpu::dot::Isa;
use kernels_cpu::{CpuBackend, CpuOptions};
use ops::conformance::{check, numbers, outcomes};
use ops::{AttentionShape, Backend, KvFormat, RopePairing};

fn instruction_sets() -> Vec<Isa> {
    let mut sets = vec![Isa::Scalar, Isa::detect()];
    sets.dedup();
    sets
}

#[test]
fn cpu_agrees_with_the_oracle() {
    for isa in instruction_sets() {
        check(|| CpuBackend::new(CpuOptions { threads: 2, isa: Some(isa) }));
    }
}

/// Also a second run on the same back-end: what is left in scratch memory must not matter.
#[test]
fn results_do_not_depend_on_threads_or_history() {
    for isa in instruction_sets() {
        let backend = |threads| CpuBackend::new(CpuOptions { threads, isa: Some(isa) });
        let expected = outcomes(&mut backend(1));
        for threads in [1, 2, 3, 8] {
            let mut backend = backend(threads);
            for run in ["first", "second"] {
                for (expected, got) in expected.iter().zip(outcomes(&mut backend)) {
                    let equal =
                        expected.values.iter().zip(&got.values).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(equal, "{}: {threads} threads, {run} run, {isa:?}", got.name);
                }
            }
        }
    }
}

/// A token gets the same bits in a prompt of any length and alone: attention depends on nothing but
/// its own history.
#[test]
fn attention_is_the_same_in_prompt_and_decoding() {
    let shape = AttentionShape {
        heads: 6,
        kv_heads: 2,
        head_dim: 40,
        rotary_dim: 16,
        rope_theta: 1e6,
        pairing: RopePairing::Halves,
        gated: true,
        eps: 1e-6,
    };
    let (ctx, row, q_row) = (300, shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim);
    let kinds = instruction_sets().into_iter().flat_map(|isa| KvFormat::ALL.iter().map(move |kv| (isa, *kv)));
    for (isa, kv) in kinds {
        let attend = |chunk: usize| {
            let mut backend = CpuBackend::new(CpuOptions { threads: 2, isa: Some(isa) });
            let mut buffer = |seed, len| {
                let mut buffer = backend.buffer(len);
                buffer.as_mut_slice().copy_from_slice(&numbers(seed, len, 3.0));
                buffer
            };
            let (all_qg, all_k, all_v) =
                (buffer(1, ctx * 2 * q_row), buffer(2, ctx * row), buffer(3, ctx * row));
            let norm = buffer(4, shape.head_dim);
            let (mut qg, mut k, mut v) = (all_qg.clone(), all_k.clone(), all_v.clone());
            let (mut out, mut outputs) = (buffer(7, ctx * q_row), Vec::new());
            let [mut keys, mut values] = [0; 2].map(|_| backend.kv_cache(kv, &shape, ctx));
            for pos in (0..ctx).step_by(chunk) {
                let n = chunk.min(ctx - pos);
                backend.copy(&all_qg, pos * 2 * q_row, &mut qg, 0, n * 2 * q_row);
                backend.copy(&all_k, pos * row, &mut k, 0, n * row);
                backend.copy(&all_v, pos * row, &mut v, 0, n * row);
                let caches = (&mut keys, &mut values);
                backend.qk_norm_rope_store(
                    &shape,
                    pos,
                    n,
                    Some([&norm, &norm]),
                    None,
                    &mut qg,
                    &mut k,
                    &v,
                    caches.0,
                    caches.1,
                );
                backend.gated_attention(&shape, pos, n, &qg, &keys, &values, &mut out);
                outputs.extend(out.as_slice()[..n * q_row].iter().map(|x| x.to_bits()));
            }
            outputs
        };
        let expected = attend(ctx);
        for chunk in [1, 2, 37, 128] {
            assert!(attend(chunk) == expected, "{chunk} tokens at a time, {isa:?}, {kv}");
        }
    }
}
