//! Cost of the cache policies, and the hit rate that they reach: `cargo bench -p experts [FILTER]`.
//!
//! The trace is made: 40 layers of 256 experts, 8 a token, popular ones more often, neighbouring tokens alike.
#![allow(missing_docs)]

use std::sync::LazyLock;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use experts::PolicyKind;
use experts::replay::{optimum, replay};
use experts::trace::{Trace, TraceFetch, TraceHeader};
use storage::SplitMix64;

const LAYERS: u32 = 40;
const EXPERTS: u64 = 256;
const PER_TOKEN: usize = 8;
const TOKENS: usize = 50;
/// A quarter of all experts, and half.
const SLOTS: [usize; 2] = [2560, 5120];

fn main() {
    divan::main();
}

static TRACE: LazyLock<Trace> = LazyLock::new(|| {
    let mut random = SplitMix64::new(7);
    let mut last = vec![Vec::new(); LAYERS as usize];
    let mut fetches = Vec::new();
    for _ in 0..TOKENS {
        for layer in 0..LAYERS {
            let before: &mut Vec<u32> = &mut last[layer as usize];
            let kept = before.iter().copied().filter(|_| random.below(3) == 0).collect();
            let mut experts: Vec<u32> = kept;
            while experts.len() < PER_TOKEN {
                // The square of a uniform number: small ones are popular.
                let uniform = random.below(EXPERTS);
                let expert = (uniform * uniform / EXPERTS) as u32;
                if !experts.contains(&expert) {
                    experts.push(expert);
                }
            }
            before.clone_from(&experts);
            fetches.push(TraceFetch { layer, tokens: 1, experts, ..TraceFetch::default() });
        }
    }
    let experts = EXPERTS * u64::from(LAYERS);
    Trace {
        header: TraceHeader { layers: LAYERS, slots: 0, slot_bytes: 1, experts },
        fetches,
        cut_off: false,
    }
});

fn requests() -> ItemsCount {
    ItemsCount::new(TRACE.requests() as usize)
}

#[divan::bench(args = SLOTS, max_time = 0.5)]
fn lru(bencher: Bencher<'_, '_>, slots: usize) {
    let run = || replay(&TRACE, black_box(slots), &mut *PolicyKind::Lru.new_policy(slots), 0);
    bencher.counter(requests()).bench_local(run);
}

#[divan::bench(args = SLOTS, max_time = 0.5)]
fn adaptive(bencher: Bencher<'_, '_>, slots: usize) {
    let run = || replay(&TRACE, black_box(slots), &mut *PolicyKind::Adaptive.new_policy(slots), 0);
    bencher.counter(requests()).bench_local(run);
}

#[divan::bench(args = SLOTS, max_time = 0.5)]
fn best_possible(bencher: Bencher<'_, '_>, slots: usize) {
    bencher.counter(requests()).bench_local(|| optimum(&TRACE, black_box(slots), 0));
}
