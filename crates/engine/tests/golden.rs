//! Logits against transformers: each position, prefilled and step by step, and greedy text. Keys and values in f32,
//! but where another format's own bound is tested.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Golden, argmax, for_rows, greedy, last_logits, models, open, stepwise};
use engine::{EngineOptions, KvFormat, Logits};

/// Against transformers in float32.
const ABSOLUTE_MAX: f32 = 1e-3;
/// Against float64, by norm of a position's logits.
const RELATIVE_MAX: f64 = 1e-4;

/// Against float64 with keys and values in half precision, in the median over positions: 1.2e-5 to
/// 3.0e-4 when it was measured.
const RELATIVE_MEDIAN_MAX_F16: f64 = 1e-3;
/// The same for `mixtral`, whose queries and keys have no norm: 1.2e-3.
const RELATIVE_MEDIAN_MAX_F16_MIXTRAL: f64 = 2e-3;
/// With 8-bit codes: 2.8e-4 to 9.1e-3.
const RELATIVE_MEDIAN_MAX_Q8_0: f64 = 3e-2;
/// The same for `qwen3moe`: 4.2e-2. Each of its layers attends and has a random router to turn.
const RELATIVE_MEDIAN_MAX_Q8_0_QWEN3MOE: f64 = 6e-2;

fn options() -> EngineOptions {
    EngineOptions { kv: Some(KvFormat::F32), ..common::options() }
}

/// Largest deviations over the positions of one run.
#[derive(Default, Debug)]
struct Deviation {
    absolute: f32,
    relative: f64,
}

impl Deviation {
    /// Where keys and values are exact, the likeliest token is the golden one too.
    fn add_exact(&mut self, golden: &Golden, position: usize, row: &[f32], what: &str) {
        assert_eq!(argmax(row), argmax(golden.row_f32(position)), "{what}: argmax at position {position}");
        self.add(golden, position, row);
    }

    fn add(&mut self, golden: &Golden, position: usize, row: &[f32]) {
        let (f32_row, f64_row) = (golden.row_f32(position), golden.row_f64(position));
        let absolute = row.iter().zip(f32_row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
        let difference = square(&mut row.iter().zip(f64_row).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let norm = square(&mut f64_row.iter().map(|x| f64::from(*x)));
        self.absolute = self.absolute.max(absolute);
        self.relative = self.relative.max((difference / norm).sqrt());
    }

    fn check(&self, what: &str) {
        assert!(self.absolute <= ABSOLUTE_MAX, "{what}: {self:?}");
        assert!(self.relative <= RELATIVE_MAX, "{what}: {self:?}");
    }
}

#[test]
fn prefilled_logits_are_those_of_transformers() {
    for (dir, golden) in models() {
        let golden = Golden::read(&golden);
        for chunk_tokens in [None, Some(33)] {
            let engine = open(&dir, EngineOptions { chunk_tokens, ..options() });
            for len in [1, 5, 64, golden.prompt.len()] {
                let what = format!("{}, {len} tokens, chunk {chunk_tokens:?}", dir.display());
                let mut deviation = Deviation::default();
                let sink = |position: usize, row: &[f32]| deviation.add_exact(&golden, position, row, &what);
                for_rows(&engine, greedy(&engine, &golden.prompt[..len], 0, Logits::All), sink).unwrap();
                deviation.check(&what);
            }
        }
    }
}

#[test]
fn stepwise_logits_are_those_of_transformers() {
    for (dir, golden) in models() {
        let golden = Golden::read(&golden);
        let engine = open(&dir, options());
        let what = format!("{}, step by step", dir.display());
        let (mut deviation, mut rows) = (Deviation::default(), 0);
        stepwise(&engine, &golden.prompt, |position, row| {
            deviation.add_exact(&golden, position, row, &what);
            rows += 1;
        });
        assert_eq!(rows, golden.prompt.len());
        deviation.check(&what);
    }
}

/// Half of the positions stay below the bound. The largest deviation has none: where a random router is undecided between
/// two experts, any rounding may turn it.
#[test]
fn rounded_keys_and_values_stay_within_their_bounds() {
    for (dir, golden) in models() {
        let golden = Golden::read(&golden);
        let deviation = |kv| {
            let engine = open(&dir, EngineOptions { kv: Some(kv), ..options() });
            let mut relative = Vec::new();
            let sink = |position: usize, row: &[f32]| {
                let mut deviation = Deviation::default();
                deviation.add(&golden, position, row);
                relative.push(deviation.relative);
            };
            for_rows(&engine, greedy(&engine, &golden.prompt, 0, Logits::All), sink).unwrap();
            relative.sort_by(f64::total_cmp);
            relative[relative.len() / 2]
        };
        let [exact, f16, q8_0] = [KvFormat::F32, KvFormat::F16, KvFormat::Q8_0].map(deviation);
        let is = |name| dir.to_string_lossy().contains(name);
        let most = if is("mixtral") { RELATIVE_MEDIAN_MAX_F16_MIXTRAL } else { RELATIVE_MEDIAN_MAX_F16 };
        assert!(exact < f16 && f16 <= most, "{}: f16 {f16:.1e}", dir.display());
        let qwen3moe = is("qwen3moe");
        let most = if qwen3moe { RELATIVE_MEDIAN_MAX_Q8_0_QWEN3MOE } else { RELATIVE_MEDIAN_MAX_Q8_0 };
        assert!(f16 < q8_0 && q8_0 <= most, "{}: q8_0 {q8_0:.1e}", dir.display());
    }
}

/// Prompts end in a step or in a chunk of any size; the state must be the same in between.
#[test]
fn a_prompt_may_be_extended_at_any_point() {
    for (dir, golden) in models() {
        let golden = Golden::read(&golden);
        let engine = open(&dir, options());
        let what = format!("{}, extended", dir.display());
        let mut deviation = Deviation::default();
        for end in [3, 4, 70, 71, 200, 264, 300].into_iter().filter(|end| *end <= golden.prompt.len()) {
            let logits = last_logits(&engine, &golden.prompt[..end]).unwrap();
            deviation.add_exact(&golden, end - 1, &logits, &what);
        }
        deviation.check(&what);
        // Back to a prefix.
        let mut deviation = Deviation::default();
        deviation.add_exact(&golden, 4, &last_logits(&engine, &golden.prompt[..5]).unwrap(), &what);
        deviation.check(&what);
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for (dir, golden) in models() {
        let golden = Golden::read(&golden);
        let engine = open(&dir, options());
        for (len, expected) in [(5, &golden.greedy_5), (64, &golden.greedy_64)] {
            let request = greedy(&engine, &golden.prompt[..len], 64, Logits::None);
            let got = for_rows(&engine, request, |_, _| ()).unwrap();
            assert_eq!(&got, expected, "{} after {len} tokens", dir.display());
        }
    }
}
