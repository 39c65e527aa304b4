//! Passes over a whole vocabulary, written so that the compiler makes vector code of them.

/// Logits that are looked at together.
pub(crate) const CHUNK: usize = 1024;

const LANES: usize = 16;

/// The bits that are all set in infinities and NaN, and in nothing else.
const EXPONENT: u32 = 0x7f80_0000;

/// The highest value, NaN left out; -inf if there is none.
pub(crate) fn highest(values: &[f32]) -> f32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane = higher(*lane, *value);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, higher)
}

/// Whether a value is NaN.
pub(crate) fn any_nan(values: &[f32]) -> bool {
    any(values, |bits| (bits & !(1 << 31)) > EXPONENT)
}

/// Index of the first value that is infinite or NaN.
pub fn first_not_finite(values: &[f32]) -> Option<usize> {
    let bad = |bits: u32| bits & EXPONENT == EXPONENT;
    let chunk = values.chunks(CHUNK).position(|chunk| any(chunk, bad))?;
    let first = chunk * CHUNK;
    values[first..].iter().position(|value| !value.is_finite()).map(|index| first + index)
}

/// Without a branch per value: a loop that may end early does not become vector code.
fn any(values: &[f32], is: impl Fn(u32) -> bool) -> bool {
    values.iter().fold(0, |found, value| found | u32::from(is(value.to_bits()))) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            20 => -9f32..9f32,
            1 => Just(f32::NAN),
            1 => Just(-f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
        ]
    }

    proptest! {
        #[test]
        fn scans_find_what_a_plain_loop_finds(
            values in prop::collection::vec(value(), 0..70),
            lead in 0usize..2 * CHUNK,
        ) {
            let values: Vec<f32> = std::iter::repeat_n(0.5, lead).chain(values).collect();
            prop_assert_eq!(first_not_finite(&values), values.iter().position(|value| !value.is_finite()));
            prop_assert_eq!(any_nan(&values), values.iter().any(|value| value.is_nan()));
            // f32::max leaves NaN out.
            prop_assert_eq!(highest(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
