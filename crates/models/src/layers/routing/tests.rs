//! The choice against an independent formula, and its edges.
#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::*;

/// Relative deviation from float64 that f32 scores may have.
const RELATIVE_MAX: f64 = 2e-6;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn spec(case: &Value) -> RouterSpec {
    let groups = case["groups"].as_array().map(|groups| Groups {
        count: groups[0].as_u64().unwrap() as usize,
        used: groups[1].as_u64().unwrap() as usize,
        rank: if groups[2] == "max" { GroupRank::Max } else { GroupRank::SumOfTwo },
    });
    let score = match case["score"].as_str().unwrap() {
        "softmax" => Score::Softmax,
        "softmax_of_chosen" => Score::SoftmaxOfChosen,
        "sigmoid" => Score::Sigmoid,
        other => panic!("{other}"),
    };
    RouterSpec {
        score,
        bias: !case["bias"].is_null(),
        correction: !case["correction"].is_null(),
        groups,
        renormalise: case["renormalise"].as_bool().unwrap(),
        scale: case["scale"].as_f64().unwrap() as f32,
    }
}

fn vector(value: &Value) -> Option<Vec<f32>> {
    (!value.is_null()).then(|| floats(value))
}

/// `fixtures/make_routing.py` computes the cases by formulas of its own.
#[test]
fn every_kind_of_router_agrees_with_numpy() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../../../../../fixtures/routing.json")).unwrap();
    assert!(cases.len() >= 13);
    for case in &cases {
        let (experts, k) = (case["experts"].as_u64().unwrap() as usize, case["per_token"].as_u64().unwrap());
        let router = Router::new(spec(case), experts, k as usize)
            .with_vectors(vector(&case["bias"]), vector(&case["correction"]));
        let logits = floats(&case["logits"]);
        let mut routing = Routing::new(experts, k as usize, logits.len() / experts);
        assert!(routing.route(&router, &logits).is_empty(), "{}", case["name"]);
        let chosen: Vec<u64> = routing.chosen().iter().map(|expert| u64::from(*expert)).collect();
        let expected: Vec<u64> =
            case["chosen"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect();
        assert_eq!(chosen, expected, "{}", case["name"]);
        let weights = case["weights"].as_array().unwrap();
        assert_eq!(weights.len(), routing.weights().len());
        for (got, expected) in routing.weights().iter().zip(weights) {
            let expected = expected.as_f64().unwrap();
            let off = (f64::from(*got) - expected).abs() / expected.abs();
            assert!(off < RELATIVE_MAX, "{}: {got} instead of {expected}", case["name"]);
        }
    }
}

#[test]
fn tokens_are_grouped_by_expert() {
    let router = Router::new(RouterSpec::SOFTMAX, 4, 2);
    let mut routing = Routing::new(4, 2, 3);
    let logits = [0.0, 2.0, 1.0, -1.0, 5.0, 5.0, 5.0, 0.0, -3.0, -2.0, -9.0, -2.5];
    assert!(routing.route(&router, &logits).is_empty());
    assert_eq!(routing.chosen(), [1, 2, 0, 1, 1, 3], "the lower index first among equals");
    assert_eq!(routing.used(), [0, 1, 2, 3]);
    assert_eq!(routing.rows(1), (&[0, 1, 2][..], &[0, 3, 4][..]));
    assert_eq!(routing.rows(3), (&[2][..], &[5][..]));
    assert_eq!(routing.weights()[2..4], [0.5, 0.5]);
}

#[test]
fn a_row_that_is_not_finite_leaves_the_others_alone() {
    let good = [0.0, 2.0, 1.0, -1.0];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let rows = [good, [0.0, bad, 0.0, 1.0], good].concat();
        let sigmoid = RouterSpec { score: Score::Sigmoid, correction: true, ..RouterSpec::SOFTMAX };
        for (spec, correction) in [(RouterSpec::SOFTMAX, None), (sigmoid, Some(vec![0.0, 0.1, 0.0, 0.0]))] {
            let router = Router::new(spec, 4, 2).with_vectors(None, correction);
            let mut routing = Routing::new(4, 2, 3);
            assert!(routing.route(&router, &good).is_empty());
            let alone = routing.weights().to_vec();
            assert_eq!(routing.route(&router, &rows), [1]);
            assert_eq!(routing.chosen(), [1, 2, NO_EXPERT, NO_EXPERT, 1, 2]);
            assert_eq!(routing.used(), [1, 2]);
            assert_eq!(routing.rows(1), (&[0, 2][..], &[0, 4][..]));
            assert_eq!((routing.tokens(0), routing.tokens(2)), (0, 2));
            assert_eq!(routing.weights()[2..4], [0.0, 0.0]);
            assert_eq!((&routing.weights()[..2], &routing.weights()[4..]), (&alone[..], &alone[..]));
        }
    }
    let router = Router::new(RouterSpec { correction: true, ..RouterSpec::SOFTMAX }, 4, 2)
        .with_vectors(None, Some(vec![0.0, f32::NAN, 0.0, 0.0]));
    assert_eq!(Routing::new(4, 2, 1).route(&router, &good), [0], "a correction that is not a number");
}

#[test]
fn layers_of_other_sizes_share_one_routing() {
    let mut routing = Routing::new(4, 2, 2);
    let small = Router::new(RouterSpec::SOFTMAX, 2, 1);
    assert!(routing.route(&small, &[1.0, 0.0, 0.0, 1.0]).is_empty());
    assert_eq!((routing.k(), routing.chosen(), routing.used()), (1, &[0, 1][..], &[0, 1][..]));
    assert_eq!(routing.weights(), [1.0, 1.0]);
    let large = Router::new(RouterSpec::SOFTMAX, 4, 2);
    assert!(routing.route(&large, &[0.0, 1.0, 0.0, 3.0]).is_empty());
    assert_eq!((routing.k(), routing.chosen()), (2, &[3, 1][..]));
}

#[test]
fn scores_that_all_underflow_give_zeros() {
    let router = Router::new(RouterSpec { score: Score::Sigmoid, ..RouterSpec::SOFTMAX }, 2, 1);
    let mut routing = Routing::new(2, 1, 1);
    assert!(routing.route(&router, &[-200.0, -300.0]).is_empty());
    assert_eq!((routing.chosen(), routing.weights()), (&[0][..], &[0.0][..]));
}
