//! Properties of encoding and decoding on rows that no model has but a file may.

#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use tensor::Format;

const COLS: usize = 512;

fn encodable() -> impl Iterator<Item = Format> {
    Format::ALL.iter().copied().filter(|format| format.can_encode())
}

fn round_trip(format: Format, row: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0; format.row_bytes(row.len()).unwrap()];
    let mut decoded = vec![f32::NAN; row.len()];
    format.encode_row(row, &mut bytes).unwrap();
    format.decode_row(&bytes, &mut decoded).unwrap();
    decoded
}

fn max_abs(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |max, v| v.abs().max(max))
}

/// The most that one weight may be off, as a share of the largest magnitude in its block, and
/// without a share: half a step of the smallest scale that a half can hold (times the largest
/// integer scale), or of the smallest float.
fn allowed(format: Format) -> (f32, f32) {
    let subnormal_half = 2.0_f32.powi(-24);
    match format {
        Format::F32 => (0.0, 0.0),
        Format::F16 => (2.0_f32.powi(-11), subnormal_half / 2.0),
        Format::BF16 => (2.0_f32.powi(-8), 1e-40),
        Format::Q8_0 => (0.5 / 127.0 + 1e-3, subnormal_half),
        // A searched scale may give up the extremes for the rest, by about one step.
        Format::Q4_0 => (1.1 / 7.0, 16.0 * subnormal_half),
        Format::Q5_0 => (1.1 / 15.0, 32.0 * subnormal_half),
        // Range of a sub-block is at most twice the largest magnitude.
        Format::Q4_1 => (2.2 / 15.0, 16.0 * subnormal_half),
        Format::Q5_1 => (2.2 / 31.0, 32.0 * subnormal_half),
        Format::Q2K => (2.2 / 3.0, 64.0 * subnormal_half),
        Format::Q4K => (2.2 / 15.0, 64.0 * subnormal_half),
        Format::Q5K => (2.2 / 31.0, 64.0 * subnormal_half),
        Format::Q3K => (1.1 / 3.0, 64.0 * subnormal_half),
        Format::Q6K => (1.1 / 31.0, 64.0 * subnormal_half),
        other => panic!("state the error allowed for {other}"),
    }
}

/// Weights of any finite bit pattern, or of one magnitude.
fn row() -> impl Strategy<Value = Vec<f32>> {
    let finite = any::<f32>().prop_filter("finite", |v| v.is_finite());
    let like_weights = (-45_i32..38).prop_flat_map(|exponent| {
        vec(-1.0_f32..1.0, COLS).prop_map(move |row| {
            row.into_iter().map(|v| (f64::from(v) * 10_f64.powi(exponent)) as f32).collect()
        })
    });
    let sparse = vec(prop_oneof![9 => Just(0.0_f32), 1 => -1e3_f32..1e3], COLS);
    prop_oneof![1 => vec(finite, COLS), 3 => like_weights, 1 => sparse]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn error_is_bounded_and_nothing_becomes_nan(row in row()) {
        for format in encodable() {
            let decoded = round_trip(format, &row);
            prop_assert!(decoded.iter().all(|v| v.is_finite()), "{format}");
            let (share, least) = allowed(format);
            // What the half-precision scale cannot express is saturated.
            let reach = match format {
                Format::F32 | Format::BF16 => f32::MAX,
                Format::F16 | Format::Q4_1 | Format::Q5_1 => 65504.0,
                _ => 65504.0 * 4.0,
            };
            for (block, got) in row.chunks(format.block_len()).zip(decoded.chunks(format.block_len())) {
                let peak = max_abs(block);
                if peak > reach {
                    continue;
                }
                for (a, b) in block.iter().zip(got) {
                    let error = (a - b).abs();
                    prop_assert!(error <= share * peak + least, "{format}: {a} became {b}, peak {peak}");
                }
            }
        }
    }

    #[test]
    fn a_second_trip_loses_little(row in vec(-1.0_f32..1.0, COLS)) {
        for format in encodable() {
            let once = round_trip(format, &row);
            let twice = round_trip(format, &once);
            let error = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
            };
            // Not idempotent, since the search minimises a weighted error; but it must not drift.
            let (first, second) = (error(&row, &once), error(&once, &twice));
            prop_assert!(second <= 0.25 * first, "{format}: {first} then {second}");
        }
    }

    #[test]
    fn encoding_is_deterministic(row in row()) {
        for format in encodable() {
            let row_bytes = format.row_bytes(COLS).unwrap();
            let mut bytes = [vec![0; row_bytes], vec![255; row_bytes]];
            for target in &mut bytes {
                format.encode_row(&row, target).unwrap();
            }
            prop_assert_eq!(&bytes[0], &bytes[1]);
        }
    }
}

#[test]
fn rows_at_the_edges() {
    let edges = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        1e-45,
        -1e-45,
        1e-38,
        1e-30,
        1e-8,
        -3e-8,
        6e-8,
        1e-6,
        1e-4,
        65504.0,
        1e5,
        -8e6,
        1e7,
        1e30,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
    ];
    for format in encodable() {
        for value in edges {
            for fill in [0.0, value, -value, value / 3.0] {
                let mut row = vec![fill; COLS];
                row[5] = value;
                row[300] = -value / 2.0;
                let decoded = round_trip(format, &row);
                assert!(decoded.iter().all(|v| v.is_finite()), "{format} {value} {fill}");
                if value == 0.0 {
                    assert!(decoded.iter().all(|&v| v == 0.0), "{format}");
                }
            }
        }
    }
}

#[test]
fn constant_rows_stay_constant() {
    for format in encodable() {
        for value in [0.5_f32, -0.5, 0.013, -7.0] {
            // Constant, and constant but for one weight.
            for odd in [value, 1.01 * value, 0.0] {
                let mut row = [value; COLS];
                row[40] = odd;
                let decoded = round_trip(format, &row);
                for (i, (got, expected)) in decoded.into_iter().zip(row).enumerate() {
                    let error = (got - expected).abs() / value.abs();
                    assert!(error <= 0.02, "{format}[{i}]: {expected} became {got}");
                }
            }
        }
    }
}
