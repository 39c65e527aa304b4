//! Recorded router decisions, replayed against a policy or against the optimum, without reading anything.
//!
//! [`replay`] does what the store does with the same fetches in the same order (read-ahead off):
//! the integration test `replay.rs` compares the two. [`optimum`] is what a policy that knew the
//! future would do (Belady): of the experts that may go, the one goes whose next use is furthest
//! away.

use std::collections::BTreeSet;

use crate::trace::{Trace, TraceFetch};
use crate::{ExpertId, Policy};

/// Counts of a replay.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Demanded experts.
    pub requests: u64,
    /// Of those, the ones that were in a slot.
    pub hits: u64,
    /// Experts that made room for others.
    pub evictions: u64,
}

impl Replayed {
    /// Share of the demanded experts that were in a slot, 0 if none was demanded.
    pub fn hit_rate(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.hits as f64 / self.requests as f64 }
    }
}

/// The experts of a trace numbered from 0, and its fetches in these numbers.
struct Numbered {
    /// [fetch]: experts.
    fetches: Vec<Vec<usize>>,
    /// [number]
    ids: Vec<ExpertId>,
}

fn numbered(trace: &Trace) -> Numbered {
    let mut known = std::collections::HashMap::new();
    let mut ids = Vec::new();
    let fetches = trace.fetches.iter().map(|fetch| {
        let number = |expert: &u32| {
            let id = ExpertId { layer: fetch.layer, expert: *expert };
            *known.entry(id).or_insert_with(|| {
                ids.push(id);
                ids.len() - 1
            })
        };
        fetch.experts.iter().map(number).collect()
    });
    let fetches = fetches.collect();
    Numbered { fetches, ids }
}

/// Replays a trace against a policy with `slots` slots, all of them empty at first. Fetches before
/// `measure_from` fill the slots and are not counted.
pub fn replay(trace: &Trace, slots: usize, policy: &mut dyn Policy, measure_from: usize) -> Replayed {
    let Numbered { fetches, ids } = numbered(trace);
    let mut cache = Cache {
        slot_of: vec![None; ids.len()],
        held: vec![None; slots],
        pinned: vec![false; slots],
        free: (0..slots).rev().collect(),
        ids,
        policy,
        evictions: 0,
    };
    let mut replayed = Replayed::default();
    for (index, (experts, recorded)) in fetches.iter().zip(&trace.fetches).enumerate() {
        let before = cache.evictions;
        let hits = cache.fetch(experts, recorded);
        if index >= measure_from {
            replayed.requests += experts.len() as u64;
            replayed.hits += hits;
            replayed.evictions += cache.evictions - before;
        }
    }
    replayed
}

struct Cache<'a> {
    /// [number]: its slot.
    slot_of: Vec<Option<usize>>,
    /// [slot]: number of its expert.
    held: Vec<Option<usize>>,
    pinned: Vec<bool>,
    free: Vec<usize>,
    ids: Vec<ExpertId>,
    policy: &'a mut dyn Policy,
    evictions: u64,
}

impl Cache<'_> {
    /// One fetch, taken to its end as the store does: reads are submitted as slots allow, and land in order.
    fn fetch(&mut self, experts: &[usize], recorded: &TraceFetch) -> u64 {
        let mut given = std::collections::VecDeque::new();
        let mut missing = Vec::new();
        for (position, &number) in experts.iter().enumerate() {
            let used = recorded.used(position);
            match self.slot_of[number] {
                Some(slot) => {
                    self.pinned[slot] = true;
                    self.policy.touch(slot, self.ids[number], used);
                    given.push_back(slot);
                }
                None => missing.push((number, used)),
            }
        }
        let hits = given.len() as u64;
        let mut missing = missing.into_iter().peekable();
        loop {
            while let Some(&(number, used)) = missing.peek() {
                let Some(slot) = self.empty_slot() else { break };
                missing.next();
                self.slot_of[number] = Some(slot);
                self.held[slot] = Some(number);
                self.pinned[slot] = true;
                self.policy.insert(slot, self.ids[number], used);
                given.push_back(slot);
            }
            let Some(slot) = given.pop_front() else { return hits };
            self.pinned[slot] = false;
        }
    }

    fn empty_slot(&mut self) -> Option<usize> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let pinned = &self.pinned;
        let slot = self.policy.victim(&|slot| pinned[slot])?;
        self.policy.remove(slot);
        if let Some(number) = self.held[slot].take() {
            self.slot_of[number] = None;
        }
        self.evictions += 1;
        Some(slot)
    }
}

/// The most hits that any policy could have had, from empty slots. Exact where every fetch fits
/// into the slots; where one does not (a prompt chunk), it may keep the best of what was there and
/// what came, which no real order of reads allows, so it is an upper bound.
pub fn optimum(trace: &Trace, slots: usize, measure_from: usize) -> Replayed {
    let Numbered { fetches, ids } = numbered(trace);
    let next_uses = next_uses(&fetches, ids.len());
    // Kept experts by their next use; the last is the one to go.
    let mut kept: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut use_of: Vec<Option<usize>> = vec![None; ids.len()];
    let mut replayed = Replayed::default();
    for (index, experts) in fetches.iter().enumerate() {
        let mut hits = 0;
        for &number in experts {
            if let Some(next) = use_of[number].take() {
                kept.remove(&(next, number));
                hits += 1;
            }
        }
        let mut evictions = 0;
        // Experts of one demand have to be there at the same time, if they fit.
        while kept.len() + experts.len() > slots && experts.len() <= slots {
            let Some((_, number)) = kept.pop_last() else { break };
            use_of[number] = None;
            evictions += 1;
        }
        for (&number, &next) in experts.iter().zip(&next_uses[index]) {
            kept.insert((next, number));
            use_of[number] = Some(next);
        }
        while kept.len() > slots {
            let Some((_, number)) = kept.pop_last() else { break };
            use_of[number] = None;
            evictions += 1;
        }
        if index >= measure_from {
            replayed.requests += experts.len() as u64;
            replayed.hits += hits;
            replayed.evictions += evictions;
        }
    }
    replayed
}

/// [fetch][expert]: the next fetch that asks for it, or the largest number there is.
fn next_uses(fetches: &[Vec<usize>], experts: usize) -> Vec<Vec<usize>> {
    let mut next = vec![usize::MAX; experts];
    let mut all: Vec<Vec<usize>> = Vec::with_capacity(fetches.len());
    for (index, fetch) in fetches.iter().enumerate().rev() {
        all.push(fetch.iter().map(|number| next[*number]).collect());
        fetch.iter().for_each(|number| next[*number] = index);
    }
    all.reverse();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceHeader;
    use crate::{Lru, PolicyKind};
    use storage::SplitMix64;

    fn random_trace(seed: u64, layers: u32, experts: u64, k: usize) -> Trace {
        let mut random = SplitMix64::new(seed);
        let mut fetches = Vec::new();
        for _token in 0..80 {
            for layer in 0..layers {
                let mut chosen: Vec<u32> = Vec::new();
                while chosen.len() < k {
                    // Skewed: the least of two draws.
                    let expert = random.below(experts).min(random.below(experts)) as u32;
                    if !chosen.contains(&expert) {
                        chosen.push(expert);
                    }
                }
                fetches.push(TraceFetch { layer, tokens: 1, experts: chosen, ..Default::default() });
            }
        }
        let header = TraceHeader { layers, slots: 0, slot_bytes: 1, experts: experts * u64::from(layers) };
        Trace { header, fetches, cut_off: false }
    }

    #[test]
    fn nothing_beats_the_optimum() {
        for seed in 0..12 {
            let layers = 1 + seed as u32 % 5;
            let trace = random_trace(seed, layers, 12, 3);
            for slots in [1, 2, 3, 5, 8, 13, 21, 34, 60] {
                let best = optimum(&trace, slots, 0);
                for kind in PolicyKind::ALL {
                    let policy = &mut *kind.new_policy(slots);
                    let got = replay(&trace, slots, policy, 0);
                    assert_eq!(got.requests, best.requests);
                    assert!(got.hits <= best.hits, "{kind} seed {seed} {slots} slots: {got:?} {best:?}");
                }
            }
            // Everything fits: each expert is missed once, whatever the policy.
            let all = optimum(&trace, 60, 0);
            assert_eq!((replay(&trace, 60, &mut Lru::new(60), 0), all.evictions), (all, 0));
        }
    }

    /// Against a search over every choice of victims.
    #[test]
    fn the_optimum_is_the_optimum() {
        fn best(fetches: &[Vec<usize>], held: Vec<usize>, slots: usize) -> u64 {
            let Some((now, rest)) = fetches.split_first() else { return 0 };
            let hits = now.iter().filter(|number| held.contains(number)).count() as u64;
            let others: Vec<usize> = held.into_iter().filter(|number| !now.contains(number)).collect();
            let room = slots - now.len();
            let mut most = 0;
            for choice in 0..1u32 << others.len() {
                if choice.count_ones() as usize == room.min(others.len()) {
                    let kept = (0..others.len()).filter(|bit| choice >> bit & 1 == 1).map(|bit| others[bit]);
                    most = most.max(best(rest, kept.chain(now.iter().copied()).collect(), slots));
                }
            }
            hits + most
        }
        for seed in 0..30 {
            let mut trace = random_trace(seed, 2, 4, 2);
            trace.fetches.truncate(8);
            let fetches = numbered(&trace).fetches;
            for slots in [2, 3, 4, 5] {
                let found = optimum(&trace, slots, 0).hits;
                assert_eq!(found, best(&fetches, Vec::new(), slots), "seed {seed} {slots} slots");
            }
        }
    }

    #[test]
    fn warm_up_is_not_counted() {
        let trace = random_trace(1, 2, 6, 2);
        let all = replay(&trace, 12, &mut Lru::new(12), 0);
        let later = replay(&trace, 12, &mut Lru::new(12), 80);
        assert_eq!((all.requests, later.requests), (320, 160));
        assert_eq!(later.hit_rate(), 1.0);
        assert!(all.hit_rate() < 1.0 && Replayed::default().hit_rate() == 0.0);
    }
}
