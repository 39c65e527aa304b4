//! Evicts the expert whose next use is expected to be furthest away.
//!
//! That is what the optimal policy does with the real next use. Here it is estimated from two
//! things that are known. First, how often an expert was used of late: two moving averages over
//! tokens of "was used", a quick one that knows what the last tokens had in common and a slow one
//! that knows what the text is about, both kept for experts that are not in memory as well. A chunk
//! of a prompt counts as its tokens do one after another: an expert that a tenth of them chose was
//! used in a tenth. So a long prompt, which uses every expert, does not push out those in demand.
//! Second,
//! when its layer comes again: layers take turns, so an expert of the layer that has just run
//! cannot be of use for a whole token, one of the next layer may be at once. An expert that is used
//! in a share p of the tokens, and whose layer is d layers away, is expected after `d + layers *
//! (1/p - 1)` layers.
//!
//! The second part is what keeps some hits where memory holds less than one token's experts: least
//! recently used evicts there the expert that is needed next, and finds nothing.

use std::mem;

use super::Policy;
use crate::{ExpertId, Used};

/// Tokens after which a use counts half, quick and slow. These and the share were chosen on two
/// traces of the demo model and held on a third and on a synthetic one
/// (docs/experiments/2026-11-cache-policies.md).
const HALF_LIFE_TOKENS: [f32; 2] = [8.0, 48.0];
/// Share of the quick average in the estimate.
const QUICK_SHARE: f32 = 0.5;
/// Least share of tokens that an expert is taken to be used in, so that an estimate stays finite.
const SHARE_MIN: f32 = 1e-4;
/// Tokens after which powers are not looked up but 0.
const DECAY_TOKENS_MAX: usize = 1024;

/// Slots for each victim that one look at all of them finds. With few slots a victim is the very
/// furthest of the moment; with many, one of the furthest of a moment ago, which is a layer or two
/// of some hundred off.
const SLOTS_PER_VICTIM: usize = 128;
/// Most victims that one look finds.
const VICTIMS_MAX: usize = 64;

/// The policy. Finding victims looks at every slot, some ten nanoseconds each, hence several at once.
#[derive(Clone, Debug)]
pub struct Adaptive {
    /// [slot]: the expert in it.
    held: Vec<Option<ExpertId>>,
    /// The slots found last that hold what they held then and were not used since, the furthest at the end.
    victims: Vec<(f32, usize)>,
    /// [layer][expert]: how often it was used of late.
    usage: Vec<Vec<Usage>>,
    /// Tokens (or prompt chunks) so far, and the layer that is running.
    token: u32,
    layer: u32,
    /// [tokens]: share of the averages that is left after so many tokens.
    decay: Vec<[f32; 2]>,
}

#[derive(Copy, Clone, Debug, Default)]
struct Usage {
    /// Quick and slow average as of `token`.
    average: [f32; 2],
    token: u32,
}

impl Adaptive {
    /// For slots 0 to `slots` - 1, all of them empty.
    pub fn new(slots: usize) -> Self {
        let left = |tokens: usize| HALF_LIFE_TOKENS.map(|half| 0.5f32.powf(tokens as f32 / half));
        Adaptive {
            held: vec![None; slots],
            victims: Vec::new(),
            usage: Vec::new(),
            token: 0,
            layer: 0,
            decay: (0..DECAY_TOKENS_MAX).map(left).collect(),
        }
    }

    /// Averages of an expert now.
    fn averages(&self, usage: Usage) -> [f32; 2] {
        let tokens = self.token.wrapping_sub(usage.token) as usize;
        let left = self.decay.get(tokens).copied().unwrap_or([0.0; 2]);
        [usage.average[0] * left[0], usage.average[1] * left[1]]
    }

    fn used(&mut self, id: ExpertId, used: Used) {
        // Layers take turns: one that lies before the last is the next token's.
        if id.layer < self.layer {
            self.token = self.token.wrapping_add(used.tokens);
        }
        self.layer = id.layer;
        let (layer, expert) = self.known(id);
        let usage = self.usage[layer][expert];
        let left = self.decay.get(used.tokens as usize).copied().unwrap_or([0.0; 2]);
        let averages = self.averages(usage);
        let average = [0, 1].map(|speed| (averages[speed] + used.share * (1.0 - left[speed])).min(1.0));
        self.usage[layer][expert] = Usage { average, token: self.token };
    }

    /// Where an expert's averages are, from now on.
    fn known(&mut self, id: ExpertId) -> (usize, usize) {
        let (layer, expert) = (id.layer as usize, id.expert as usize);
        if self.usage.len() <= layer {
            self.usage.resize(layer + 1, Vec::new());
        }
        if self.usage[layer].len() <= expert {
            self.usage[layer].resize(expert + 1, Usage::default());
        }
        (layer, expert)
    }

    /// Layers until an expert is expected to be used again.
    fn expected_layers(&self, id: ExpertId) -> f32 {
        let layers = self.usage.len() as u32;
        let usage = self.usage[id.layer as usize][id.expert as usize]; // Since `known`.
        let [quick, slow] = self.averages(usage);
        let share = (QUICK_SHARE * quick + (1.0 - QUICK_SHARE) * slow).clamp(SHARE_MIN, 1.0);
        let turn = (id.layer + layers - self.layer - 1) % layers;
        turn as f32 + layers as f32 * (1.0 / share - 1.0)
    }
}

impl Adaptive {
    /// The expert in `slot`, which was a victim to be, is in use now or gone.
    fn spare(&mut self, slot: usize) {
        self.victims.retain(|(_, victim)| *victim != slot);
    }

    /// The slots whose experts are expected to be used last.
    fn find_victims(&mut self, pinned: &dyn Fn(usize) -> bool) {
        let count = (self.held.len() / SLOTS_PER_VICTIM).clamp(1, VICTIMS_MAX);
        let mut found = mem::take(&mut self.victims); // Empty; ascending, at most `count`.
        for (slot, held) in self.held.iter().enumerate() {
            let Some(id) = held else { continue };
            let layers = self.expected_layers(*id);
            let is_full = found.len() == count;
            if is_full && found.first().is_some_and(|(least, _)| layers <= *least) || pinned(slot) {
                continue;
            }
            if is_full {
                found.remove(0);
            }
            // Of equals the first slot goes first.
            let place = found.partition_point(|(other, _)| *other < layers);
            found.insert(place, (layers, slot));
        }
        self.victims = found;
    }
}

impl Policy for Adaptive {
    fn touch(&mut self, slot: usize, id: ExpertId, used: Used) {
        self.spare(slot);
        self.used(id, used);
    }

    fn insert(&mut self, slot: usize, id: ExpertId, used: Used) {
        self.held[slot] = Some(id);
        self.used(id, used);
    }

    fn insert_ahead(&mut self, slot: usize, id: ExpertId) {
        self.known(id);
        self.held[slot] = Some(id);
    }

    fn remove(&mut self, slot: usize) {
        self.spare(slot);
        self.held[slot] = None;
    }

    fn victim(&mut self, pinned: &dyn Fn(usize) -> bool) -> Option<usize> {
        while let Some((_, slot)) = self.victims.pop() {
            if !pinned(slot) {
                return Some(slot);
            }
        }
        self.find_victims(pinned);
        self.victims.pop().map(|(_, slot)| slot)
    }

    fn relocate(&mut self, from: usize, to: usize, _id: ExpertId) {
        self.spare(from);
        self.held[to] = self.held[from].take();
    }

    fn resize(&mut self, slots: usize) {
        self.victims.clear();
        self.held.resize(slots, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(layer: u32, expert: u32) -> ExpertId {
        ExpertId { layer, expert }
    }

    #[test]
    fn what_was_used_often_stays_and_what_comes_next_stays() {
        let mut policy = Adaptive::new(4);
        assert_eq!(policy.victim(&|_| false), None);
        // Two layers; expert 0 of each is used in every token.
        for token in 0..6 {
            for layer in 0..2 {
                match token {
                    0 => policy.insert(layer as usize, id(layer, 0), Used::ONCE),
                    _ => policy.touch(layer as usize, id(layer, 0), Used::ONCE),
                }
            }
        }
        policy.insert(2, id(0, 7), Used::ONCE);
        assert_eq!(policy.victim(&|_| false), Some(2));
        policy.insert(3, id(1, 7), Used::ONCE);
        // Both were used once in this token; layer 0 comes next, so the one of layer 1 goes.
        assert_eq!(policy.victim(&|_| false), Some(3));
        assert_eq!(policy.victim(&|slot| slot == 3), Some(2));
        policy.relocate(2, 2, id(0, 7));
        policy.remove(3);
        assert_eq!(policy.victim(&|slot| slot == 2), Some(1));
        policy.remove(2);
        policy.resize(2);
        assert_eq!(policy.victim(&|_| true), None);
    }

    #[test]
    fn several_victims_of_one_look_are_the_furthest_and_not_in_use() {
        let slots = 5 * SLOTS_PER_VICTIM;
        let mut policy = Adaptive::new(slots);
        // Two layers' experts, each used once, one layer after the other; then some of them again.
        for slot in 0..slots {
            policy.insert(slot, id(slot as u32 % 2, slot as u32 / 2), Used::ONCE);
        }
        let again = |slot: usize| !slot.is_multiple_of(5);
        (0..slots)
            .filter(|slot| again(*slot))
            .for_each(|slot| policy.touch(slot, id(slot as u32 % 2, slot as u32 / 2), Used::ONCE));
        policy.insert_ahead(0, id(1, 2000)); // Never demanded: a victim like any other.
        let mut victims = Vec::new();
        for _ in 0..slots / 5 {
            let victim = policy.victim(&|slot| slot == 10).unwrap();
            policy.remove(victim);
            victims.push(victim);
            if victims.len() == 2 {
                // One of those found is demanded: it stays.
                policy.touch(20, id(0, 10), Used::ONCE);
            }
        }
        let mut sorted = victims.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), victims.len(), "none twice: {victims:?}");
        assert!(!victims.contains(&10) && victims.contains(&0), "{victims:?}");
        let used_once = victims.iter().filter(|slot| !again(**slot)).count();
        assert!(used_once + 3 >= victims.len() && !victims[..100].contains(&20), "{victims:?}");
    }

    #[test]
    fn some_hits_where_least_recently_used_finds_nothing() {
        // 8 layers that always use the same 4 experts, and half as many slots.
        let hits = |policy: &mut dyn Policy| {
            let (slots, mut held, mut hits) = (16, Vec::<(usize, ExpertId)>::new(), 0);
            for _token in 0..50 {
                for id in (0..8).flat_map(|layer| (0..4).map(move |expert| id(layer, expert))) {
                    if let Some((slot, _)) = held.iter().find(|(_, other)| *other == id) {
                        policy.touch(*slot, id, Used::ONCE);
                        hits += 1;
                        continue;
                    }
                    let slot = match held.len() < slots {
                        true => held.len(),
                        false => {
                            let slot = policy.victim(&|_| false).unwrap();
                            policy.remove(slot);
                            held.retain(|(other, _)| *other != slot);
                            slot
                        }
                    };
                    held.push((slot, id));
                    policy.insert(slot, id, Used::ONCE);
                }
            }
            hits
        };
        assert_eq!(hits(&mut super::super::Lru::new(16)), 0);
        let adaptive = hits(&mut Adaptive::new(16));
        assert!(adaptive > 50 * 32 * 4 / 10, "{adaptive} of {}", 50 * 32);
    }

    /// A cache of `slots` slots that a policy rules; returns whether the expert was there.
    fn demand(policy: &mut Adaptive, held: &mut [Option<ExpertId>], id: ExpertId, used: Used) -> bool {
        if let Some(slot) = held.iter().position(|held| *held == Some(id)) {
            policy.touch(slot, id, used);
            return true;
        }
        let slot = held.iter().position(Option::is_none).unwrap_or_else(|| {
            let victim = policy.victim(&|_| false).unwrap();
            policy.remove(victim);
            victim
        });
        held[slot] = Some(id);
        policy.insert(slot, id, used);
        false
    }

    #[test]
    fn a_prompt_leaves_the_experts_that_most_of_its_tokens_chose() {
        // Four layers of 32 experts. Of 256 rows each chose one of the first two and one of the rest.
        let (mut policy, mut held) = (Adaptive::new(20), [None; 20]);
        for layer in 0..4 {
            for expert in 0..32 {
                let rows = if expert < 2 { 128 } else { 8 };
                demand(&mut policy, &mut held, id(layer, expert), Used::new(256, 256, rows));
            }
        }
        for id in (0..4).flat_map(|layer| [id(layer, 0), id(layer, 1)]) {
            assert!(held.contains(&Some(id)), "{id:?} of {held:?}");
        }
    }

    #[test]
    fn a_prompt_in_company_does_not_push_out_what_decoding_rows_use() {
        // Two layers: decoding uses 6 experts of each, again and again, in 16 slots.
        let (mut policy, mut held) = (Adaptive::new(16), [None; 16]);
        let decoding = |layer| (0..6).map(move |expert| id(layer, expert));
        for id in (0..20).flat_map(|_| (0..2).flat_map(decoding)) {
            demand(&mut policy, &mut held, id, Used::ONCE);
        }
        for _pass in 0..6 {
            for layer in 0..2 {
                for id in decoding(layer) {
                    assert!(demand(&mut policy, &mut held, id, Used::new(513, 512, 0)), "{id:?} was evicted");
                }
                for expert in 6..64 {
                    demand(&mut policy, &mut held, id(layer, expert), Used::new(513, 512, 9));
                }
            }
        }
    }
}
