//! The CPU back-end against the oracle, and against itself.
#![allow(clippy::unwrap_used)]

use kernels_cpu::{CpuBackend, CpuBuffer, CpuOptions, Isa, MissingIsa};
use ops::conformance::{check, numbers, outcomes};
use ops::{Attention, AttentionShape, Backend, Batch, KvFormat, PAGE_TOKENS, Phase, RopePairing, Rows};

fn instruction_sets() -> Vec<Isa> {
    let mut sets = vec![Isa::Scalar, Isa::detect()];
    sets.dedup();
    sets
}

fn backend(threads: usize, isa: Isa) -> CpuBackend {
    CpuBackend::new(CpuOptions { threads, isa: Some(isa) }).unwrap()
}

#[test]
fn an_instruction_set_that_is_not_there_is_an_error() {
    for &isa in Isa::ALL {
        match CpuBackend::new(CpuOptions { threads: 1, isa: Some(isa) }) {
            Ok(backend) => assert_eq!(backend.isa(), isa),
            Err(error) => {
                assert_eq!(error, MissingIsa { isa });
                assert!(!isa.is_available() && error.to_string().contains(isa.name()), "{error}");
            }
        }
    }
}

#[test]
fn cpu_agrees_with_the_oracle() {
    for isa in instruction_sets() {
        check(|| backend(2, isa));
    }
}

/// Also a second run on the same back-end: what is left in scratch memory must not matter.
#[test]
fn results_do_not_depend_on_threads_or_history() {
    for isa in instruction_sets() {
        let expected = outcomes(&mut backend(1, isa));
        for threads in [1, 2, 3, 8] {
            let mut backend = backend(threads, isa);
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

/// A token gets the same bits in a prompt of any length, alone and in company: attention depends on nothing but
/// its own history.
#[test]
fn attention_is_the_same_in_prompt_and_decoding_and_in_company() {
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
    let kinds = instruction_sets().into_iter().flat_map(|isa| KvFormat::ALL.iter().map(move |kv| (isa, *kv)));
    for (isa, kv) in kinds {
        let case = Case { shape, isa, kv };
        let expected = case.attend(&[(CTX, 0)]);
        for chunk in [1, 2, 37, 128] {
            let chunks: Vec<(usize, usize)> =
                (0..CTX).step_by(chunk).map(|pos| (chunk.min(CTX - pos), 0)).collect();
            assert!(case.attend(&chunks) == expected, "{chunk} tokens at a time, {isa:?}, {kv}");
        }
        let company = [(130, 3), (1, 1), (1, 70), (100, 1), (68, 9)];
        assert!(case.attend(&company) == expected, "in company, {isa:?}, {kv}");
    }
}

const CTX: usize = 300;

struct Case {
    shape: AttentionShape,
    isa: Isa,
    kv: KvFormat,
}

impl Case {
    /// Outputs of a sequence of [`CTX`] tokens, so many in each pass, beside so many rows of another sequence.
    fn attend(&self, passes: &[(usize, usize)]) -> Vec<u32> {
        let (shape, each) = (&self.shape, CTX.div_ceil(PAGE_TOKENS) as u32);
        let pages: Vec<u32> = (0..2 * each).rev().collect();
        let mut backend = backend(2, self.isa);
        let (row, q_row) = (shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim);
        let [qg, k, v] = [2 * q_row, row, row].map(|len| numbers(len as u64, CTX * len, 3.0));
        let norm = filled(&mut backend, &numbers(4, shape.head_dim, 2.0));
        let [mut keys, mut values] = [0; 2].map(|_| backend.kv_pool(self.kv, shape, pages.len()).unwrap());
        let (mut outputs, mut reached) = (Vec::new(), [0, 0]);
        for &(n, others) in passes {
            // The other sequence comes first and has the same rows.
            let rows = |first: usize, len: usize, seq: usize| Rows {
                first: first as u32,
                len: len as u32,
                pos: reached[seq] as u32,
                phase: Phase::Prefill,
                chunked: true,
                state: 0,
                keep: None,
                pages: (seq as u32 * each, each),
            };
            let both = [rows(0, others, 1), rows(others, n, 0)];
            let list = if others > 0 { &both[..] } else { &both[1..] };
            let part = |data: &[f32], len: usize| {
                let of = |seq: usize, n: usize| data[reached[seq] * len..][..n * len].to_vec();
                [of(1, others), of(0, n)].concat()
            };
            let [mut qg, mut k, mut v] = [(&qg, 2 * q_row), (&k, row), (&v, row)]
                .map(|(data, len)| filled(&mut backend, &part(data, len)));
            let mut out = backend.buffer((others + n) * q_row).unwrap();
            backend.attention(Attention {
                shape,
                batch: &Batch { n: others + n, rows: list, pages: &pages },
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
            outputs.extend(out.as_slice()[others * q_row..].iter().map(|x| x.to_bits()));
            reached = [reached[0] + n, reached[1] + others];
        }
        outputs
    }
}

fn filled(backend: &mut CpuBackend, values: &[f32]) -> CpuBuffer {
    let mut buffer = backend.buffer(values.len()).unwrap();
    buffer.as_mut_slice().copy_from_slice(values);
    buffer
}
