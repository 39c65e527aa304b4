//! The best few of many logits without sorting all of them.

use std::cmp::Ordering;

use crate::scan;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Token id.
    pub(crate) token: u32,
    /// Its logit after the penalties; never NaN.
    pub(crate) logit: f32,
}

/// Higher logits first, then lower ids: a total order, so what is kept never depends on chance.
pub(crate) fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    // `+ 0.0` makes -0.0 equal to 0.0, which total_cmp alone would tell apart.
    (b.logit + 0.0).total_cmp(&(a.logit + 0.0)).then(a.token.cmp(&b.token))
}

/// Token ids are u32; a row longer than that does not exist (it would be 16 GiB).
fn candidate(token: usize, logit: f32) -> Candidate {
    Candidate { token: token as u32, logit }
}

/// Puts the `count` best of `logits` that are not -inf into `out`, best first.
///
/// One pass with a buffer of `2 * count`: whenever it is full, the worse half goes, and the worst
/// one left is a bar that later logits must pass. O(V + count log count) for most inputs, O(V)
/// memory only when `count` is of that order.
pub(crate) fn best(logits: &[f32], count: usize, out: &mut Vec<Candidate>) {
    out.clear();
    if count == 0 {
        return;
    }
    let capacity = count.saturating_mul(2).min(logits.len()).max(1);
    // Ids rise during the pass, so a later logit equal to the bar loses to what is kept.
    let mut bar = f32::NEG_INFINITY;
    for (index, chunk) in logits.chunks(scan::CHUNK).enumerate() {
        if scan::highest(chunk) <= bar {
            continue;
        }
        for (token, &logit) in (index * scan::CHUNK..).zip(chunk) {
            if logit > bar {
                out.push(candidate(token, logit));
                if out.len() >= capacity && out.len() > count {
                    out.select_nth_unstable_by(count - 1, best_first);
                    out.truncate(count);
                    bar = out[count - 1].logit;
                }
            }
        }
    }
    if out.len() > count {
        out.select_nth_unstable_by(count - 1, best_first);
        out.truncate(count);
    }
    out.sort_unstable_by(best_first);
}

/// Puts every logit of at least `floor` (and above -inf) into `out`, in id order.
pub(crate) fn at_least(logits: &[f32], floor: f32, out: &mut Vec<Candidate>) {
    out.clear();
    let kept = logits.iter().enumerate().filter(|&(_, &l)| l >= floor && l > f32::NEG_INFINITY);
    out.extend(kept.map(|(token, &logit)| candidate(token, logit)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(logits: &[f32], count: usize) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = logits.iter().enumerate().map(|(t, &l)| candidate(t, l)).collect();
        all.retain(|c| c.logit > f32::NEG_INFINITY);
        all.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap().then(a.token.cmp(&b.token)));
        all.truncate(count);
        all
    }

    proptest! {
        #[test]
        fn best_is_the_sorted_prefix(
            // Few distinct values: many ties.
            logits in prop::collection::vec(prop_oneof![
                (-4i8..4).prop_map(f32::from), Just(f32::NEG_INFINITY), Just(-0.0f32), -1f32..1f32
            ], 0..200),
            count in 0usize..220,
        ) {
            let mut out = Vec::new();
            best(&logits, count, &mut out);
            prop_assert_eq!(out, naive(&logits, count));
        }
    }

    #[test]
    fn rising_input_keeps_the_buffer_small() {
        let logits: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let mut out = Vec::new();
        best(&logits, 5, &mut out);
        assert_eq!(out.iter().map(|c| c.token).collect::<Vec<_>>(), [99999, 99998, 99997, 99996, 99995]);
        assert!(out.capacity() <= 32, "{}", out.capacity());
    }
}
