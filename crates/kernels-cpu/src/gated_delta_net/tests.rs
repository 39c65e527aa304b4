//! The two forms against each other; the conformance suite compares them with the oracle.

use super::*;
use crate::{Isa, Kernels};
use ops::conformance::numbers;

const SHAPE: DeltaNetShape = DeltaNetShape {
    key_heads: 2,
    value_heads: 4,
    value_head_order: ValueHeadOrder::Grouped,
    key_dim: 32,
    value_dim: 24,
    conv_kernel: 4,
    eps: 1e-6,
};
const TOKENS_MAX: usize = 200;

struct Data {
    qkv: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    a_neg: Vec<f32>,
    dt_bias: Vec<f32>,
}

impl Data {
    fn new() -> Data {
        let gates = TOKENS_MAX * SHAPE.value_heads;
        Data {
            qkv: numbers(1, TOKENS_MAX * SHAPE.conv_channels(), 1.0),
            a: numbers(2, gates, 4.0),
            b: numbers(3, gates, 4.0),
            a_neg: numbers(4, SHAPE.value_heads, 2.0).into_iter().map(|a_log| -a_log.exp()).collect(),
            dt_bias: numbers(5, SHAPE.value_heads, 1.0),
        }
    }

    /// Tokens `start..start + n` in one form; appends the output.
    fn run(&self, isa: Isa, form: Form, (start, n): (usize, usize), state: &mut [f32], out: &mut Vec<f32>) {
        let pool = super::super::ThreadPool::new(2);
        let mut memory = DeltaNetScratch::new(pool.threads());
        let mut context = Context { pool, ops: Kernels::new(isa).unwrap() };
        let inputs = Inputs {
            shape: &SHAPE,
            n,
            pos: start,
            qkv: &self.qkv[start * SHAPE.conv_channels()..],
            a: &self.a[start * SHAPE.value_heads..],
            b: &self.b[start * SHAPE.value_heads..],
            a_neg: &self.a_neg,
            dt_bias: &self.dt_bias,
        };
        let mut rows = vec![0.0; n * SHAPE.value_len()];
        run(&mut context, &mut memory, &inputs, form, state, &mut rows);
        out.append(&mut rows);
    }
}

fn assert_close(expected: &[f32], got: &[f32], what: &str) {
    assert_eq!(expected.len(), got.len());
    let rms = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
    for (at, (x, y)) in expected.iter().zip(got).enumerate() {
        assert!((x - y).abs() <= 1e-5 * rms, "{what}: element {at} is {y}, expected {x}, rms {rms}");
    }
}

fn instruction_sets() -> [Isa; 2] {
    [Isa::Scalar, Isa::detect()]
}

#[test]
fn chunked_equals_recurrent() {
    let data = Data::new();
    for isa in instruction_sets() {
        for n in (1..=20).chain([31, 63, 64, 65, 100, 127, 128, 129, 191, 192, 193, 200]) {
            let start_state = numbers(6, SHAPE.state_len(), 0.3);
            let (mut state, mut out) = (start_state.clone(), Vec::new());
            data.run(isa, Form::Recurrent, (0, n), &mut state, &mut out);
            let (mut chunked_state, mut chunked_out) = (start_state, Vec::new());
            data.run(isa, Form::Chunked, (0, n), &mut chunked_state, &mut chunked_out);
            assert_close(&out, &chunked_out, &format!("output of {n} tokens, {isa:?}"));
            assert_close(&state, &chunked_state, &format!("state after {n} tokens, {isa:?}"));
        }
    }
}

#[test]
fn a_prompt_may_be_split_anywhere() {
    let data = Data::new();
    for isa in instruction_sets() {
        let (mut state, mut out) = (numbers(7, SHAPE.state_len(), 0.3), Vec::new());
        data.run(isa, Form::Chunked, (0, 137), &mut state, &mut out);
        for split in [1, 37, 64, 100, 128, 136] {
            let (mut split_state, mut split_out) = (numbers(7, SHAPE.state_len(), 0.3), Vec::new());
            for (start, n) in [(0, split), (split, 137 - split)] {
                let form = if n < 16 { Form::Recurrent } else { Form::Chunked };
                // At the bounds of blocks the bits are the same, whatever the number of tokens.
                let form = if split % CHUNK == 0 { Form::Chunked } else { form };
                data.run(isa, form, (start, n), &mut split_state, &mut split_out);
            }
            assert_close(&out, &split_out, &format!("output, split at {split}, {isa:?}"));
            assert_close(&state, &split_state, &format!("state, split at {split}, {isa:?}"));
            if split % CHUNK == 0 {
                assert!(out == split_out && state == split_state, "split at {split}, {isa:?}");
            }
        }
    }
}
