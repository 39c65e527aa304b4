//! The sampler against naive oracles and against the distributions it should follow.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sampling::{Sampler, SamplingError, SamplingParams};

/// The filters written the obvious way: sort everything, then look at the definitions.
/// Returns (token, probability) of the tokens that may be drawn, best first.
fn oracle(logits: &[f32], params: &SamplingParams) -> Vec<(u32, f64)> {
    let mut sorted: Vec<(u32, f64)> = logits
        .iter()
        .enumerate()
        .filter(|(_, l)| **l > f32::NEG_INFINITY)
        .map(|(t, &l)| (t as u32, f64::from(l)))
        .collect();
    sorted.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        sorted.truncate(params.top_k as usize);
    }
    let max = sorted[0].1;
    for entry in &mut sorted {
        entry.1 = ((entry.1 - max) / f64::from(params.temperature)).exp();
    }
    normalise(&mut sorted);
    let mut before = 0.0;
    let mut nucleus = Vec::new();
    for &(token, p) in &sorted {
        if nucleus.is_empty() || params.top_p >= 1.0 || before < f64::from(params.top_p) {
            nucleus.push((token, p));
        }
        before += p;
    }
    let best = nucleus[0].1;
    nucleus.retain(|&(_, p)| p >= f64::from(params.min_p) * best);
    normalise(&mut nucleus);
    nucleus
}

fn normalise(entries: &mut [(u32, f64)]) {
    let sum: f64 = entries.iter().map(|e| e.1).sum();
    entries.iter_mut().for_each(|e| e.1 /= sum);
}

fn logits_of(seed: u64, len: usize, spread: f32) -> Vec<f32> {
    let mut rng = sampling::Rng::from_seed(seed);
    (0..len).map(|_| (rng.next_unit() as f32 - 0.5) * spread).collect()
}

/// Draws many tokens and compares their frequencies with the oracle's probabilities.
fn check_distribution(logits: &[f32], params: SamplingParams) {
    let draws = if logits.len() > 100 { 6_000 } else { 30_000 };
    let expected = oracle(logits, &params);
    let mut counts = vec![0usize; logits.len()];
    let mut sampler = Sampler::new(params).unwrap();
    for _ in 0..draws {
        counts[sampler.sample(logits, &[]).unwrap() as usize] += 1;
    }
    let (mut chi, mut degrees, mut rare, mut rare_p) = (0.0, 0.0, 0usize, 0.0);
    for &(token, p) in &expected {
        let count = std::mem::take(&mut counts[token as usize]);
        if p * (draws as f64) < 10.0 {
            rare += count;
            rare_p += p;
            continue;
        }
        let mean = p * draws as f64;
        chi += (count as f64 - mean).powi(2) / mean;
        degrees += 1.0;
    }
    assert_eq!(counts.iter().sum::<usize>(), 0, "{params:?} drew a filtered token");
    // Far beyond 5 standard deviations of chi-square: only a wrong distribution gets there.
    assert!(chi < degrees + 6.0 * f64::sqrt(2.0 * degrees) + 12.0, "{params:?}: {chi} of {degrees}");
    let mean = rare_p * draws as f64;
    assert!((rare as f64 - mean).abs() < 6.0 * mean.sqrt() + 12.0, "{params:?}: {rare} vs {mean}");
}

#[test]
fn draws_follow_the_distribution() {
    let base = SamplingParams::greedy().with_temperature(1.0).with_seed(11);
    let small = logits_of(3, 12, 6.0);
    let wide = logits_of(4, 3000, 4.0);
    for params in [
        base,
        base.with_temperature(0.5),
        base.with_temperature(2.0),
        base.with_top_k(4),
        base.with_top_k(1),
        base.with_top_p(0.8),
        base.with_top_p(0.0),
        base.with_min_p(0.1),
        base.with_min_p(1.0),
        base.with_top_k(8).with_top_p(0.9).with_min_p(0.05).with_temperature(0.7),
    ] {
        check_distribution(&small, params);
    }
    for params in [base.with_top_p(0.5), base.with_top_k(700).with_top_p(0.9), base.with_min_p(0.4)] {
        check_distribution(&wide, params);
    }
}

#[test]
fn greedy_takes_the_first_of_equals() {
    let mut sampler = Sampler::new(SamplingParams::greedy()).unwrap();
    assert_eq!(sampler.sample(&[1.0, 3.0, 3.0, -1.0], &[]).unwrap(), 1);
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY, -1e30], &[]).unwrap(), 1);
    assert_eq!(sampler.sample(&[-0.0, 0.0], &[]).unwrap(), 0);
}

#[test]
fn a_tiny_temperature_is_greedy() {
    let params = SamplingParams::greedy().with_temperature(1e-30).with_seed(5);
    let mut sampler = Sampler::new(params).unwrap();
    for _ in 0..100 {
        assert_eq!(sampler.sample(&[0.0, 1.0, 0.999, -50.0], &[]).unwrap(), 1);
    }
}

#[test]
fn damaged_logits_are_errors() {
    for params in [SamplingParams::greedy(), SamplingParams::greedy().with_temperature(1.0)] {
        let mut sampler = Sampler::new(params).unwrap();
        let mut check = |logits: &[f32]| sampler.sample(logits, &[]).unwrap_err();
        assert!(matches!(check(&[]), SamplingError::NoLogits));
        let nan = check(&[0.0, 1.0, f32::NAN]);
        assert!(matches!(nan, SamplingError::BadLogit { token: 2, vocab_size: 3, .. }), "{nan}");
        let inf = check(&[f32::INFINITY, 0.0]);
        assert!(matches!(inf, SamplingError::BadLogit { token: 0, .. }), "{inf}");
        let masked = check(&[f32::NEG_INFINITY; 4]);
        assert!(matches!(masked, SamplingError::AllMasked { vocab_size: 4 }), "{masked}");
        for error in [nan, inf, masked] {
            assert!(!error.to_string().contains('\n') && !error.to_string().ends_with('.'));
        }
    }
}

#[test]
fn penalties_by_hand() {
    let base = SamplingParams::greedy();
    let run = |params: SamplingParams, prompt: &[u32], generated: &[u32]| {
        let logits = [4.0, 3.0, -2.0, 0.0];
        let mut sampler = Sampler::new(params).unwrap();
        sampler.sample_after(&logits, prompt, generated).unwrap();
        assert_eq!(logits, [4.0, 3.0, -2.0, 0.0], "the caller's logits stay as they are");
        sampler.penalised(&logits, prompt, generated).unwrap().to_vec()
    };
    // Once per token however often it was seen; prompt and generated alike.
    let repetition = base.with_repetition_penalty(2.0);
    assert_eq!(run(repetition, &[0, 0], &[2, 2, 2]), [2.0, 3.0, -4.0, 0.0]);
    // Generated tokens only.
    assert_eq!(run(base.with_presence_penalty(0.5), &[0], &[1, 1, 3]), [4.0, 2.5, -2.0, -0.5]);
    assert_eq!(run(base.with_frequency_penalty(0.5), &[0], &[1, 1, 3]), [4.0, 2.0, -2.0, -0.5]);
    let all = repetition.with_presence_penalty(0.25).with_frequency_penalty(0.5);
    assert_eq!(run(all, &[0, 1], &[1, 1]), [2.0, 0.25, -2.0, 0.0]);
    // Everything is in force over the one history of `sample`.
    let logits = [4.0, 3.0];
    let mut sampler = Sampler::new(base.with_presence_penalty(2.0)).unwrap();
    assert_eq!(sampler.sample(&logits, &[0]).unwrap(), 1);
    // Scratch is clean afterwards: the next call starts from nothing.
    assert_eq!(sampler.sample(&[4.0, 3.0], &[]).unwrap(), 0);
}

#[test]
fn a_history_outside_the_vocabulary_is_an_error_and_leaves_no_trace() {
    let params = SamplingParams::greedy().with_presence_penalty(5.0);
    let mut sampler = Sampler::new(params).unwrap();
    let error = sampler.sample_after(&[1.0, 0.0], &[0], &[0, 2]).unwrap_err();
    assert!(matches!(error, SamplingError::HistoryToken { token: 2, position: 2, vocab_size: 2 }), "{error}");
    assert_eq!(sampler.sample(&[1.0, 0.0], &[]).unwrap(), 0);
}

#[test]
fn a_seed_repeats_and_no_seed_does_not() {
    let logits = logits_of(1, 1000, 2.0);
    let run = |params: SamplingParams| -> (u64, Vec<u32>) {
        let mut sampler = Sampler::new(params).unwrap();
        let tokens = (0..50).map(|_| sampler.sample(&logits, &[]).unwrap()).collect();
        (sampler.seed(), tokens)
    };
    let params = SamplingParams::greedy().with_temperature(1.0);
    assert_eq!(run(params.with_seed(9)), run(params.with_seed(9)));
    assert_ne!(run(params.with_seed(9)).1, run(params.with_seed(10)).1);
    let (seed, tokens) = run(params);
    assert_ne!(tokens, run(params).1);
    assert_eq!(run(params.with_seed(seed)).1, tokens);
}

/// The text of a seed must not change between versions of the program.
#[test]
fn the_sequence_of_a_seed_is_fixed() {
    let logits = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
    let params = SamplingParams::greedy().with_temperature(1.5).with_top_k(6).with_seed(2026);
    let mut sampler = Sampler::new(params).unwrap();
    let tokens: Vec<u32> = (0..16).map(|_| sampler.sample(&logits, &[]).unwrap()).collect();
    assert_eq!(tokens, FIXED);
}
const FIXED: [u32; 16] = [6, 5, 5, 3, 7, 3, 4, 3, 4, 6, 3, 5, 2, 2, 6, 7];

proptest! {
    #[test]
    fn never_picks_a_filtered_token(
        logits in prop::collection::vec(
            prop_oneof![8 => -8f32..8f32, 2 => (-3i8..3).prop_map(f32::from), 1 => Just(f32::NEG_INFINITY)],
            1..400),
        temperature in 0.05f32..3.0,
        top_k in 0u32..50,
        top_p in prop_oneof![Just(1.0f32), 0f32..1.0],
        min_p in prop_oneof![Just(0.0f32), 0f32..1.0],
        seed: u64,
    ) {
        prop_assume!(logits.iter().any(|l| *l > f32::NEG_INFINITY));
        let params = SamplingParams::greedy().with_temperature(temperature).with_top_k(top_k)
            .with_top_p(top_p).with_min_p(min_p).with_seed(seed);
        let allowed = oracle(&logits, &params);
        let mut sampler = Sampler::new(params).unwrap();
        for _ in 0..20 {
            let token = sampler.sample(&logits, &[]).unwrap();
            prop_assert!(allowed.iter().any(|a| a.0 == token), "{token} not in {allowed:?}");
        }
    }

    #[test]
    fn penalties_match_the_definition(
        logits in prop::collection::vec(-8f32..8f32, 10),
        prompt in prop::collection::vec(0u32..10, 0..20),
        generated in prop::collection::vec(0u32..10, 0..20),
        repetition in 0.5f32..2.0, presence in -2f32..2.0, frequency in -2f32..2.0,
    ) {
        let params = SamplingParams::greedy().with_repetition_penalty(repetition)
            .with_presence_penalty(presence).with_frequency_penalty(frequency);
        let mut sampler = Sampler::new(params).unwrap();
        let got = sampler.penalised(&logits, &prompt, &generated).unwrap();
        for (token, (&before, &after)) in logits.iter().zip(got).enumerate() {
            let count = generated.iter().filter(|t| **t as usize == token).count() as f32;
            let mut expected = before;
            if count > 0.0 || prompt.contains(&(token as u32)) {
                expected = if before > 0.0 { before / repetition } else { before * repetition };
            }
            if count > 0.0 {
                expected -= presence + frequency * count;
            }
            prop_assert!((expected - after).abs() < 1e-5, "{token}: {expected} {after}");
        }
    }
}
