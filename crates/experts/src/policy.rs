//! Which expert makes room for another.
//!
//! One order over the slots of all layers, since other engines measured that fixed shares for each layer and
//! static pinning lose. [`Lru`] is the plain one, [`Adaptive`] knows how often an expert was used of late and
//! when its layer comes again. `flash-moe simulate` compares them on recorded decisions.

mod adaptive;

use std::fmt;
use std::str::FromStr;

pub use adaptive::Adaptive;

use crate::{ExpertId, Used};

/// Decides which slot to evict. It hears of every slot that holds an expert or is being read into.
pub trait Policy: Send {
    /// `slot`, which holds `id`, is used again.
    fn touch(&mut self, slot: usize, id: ExpertId, used: Used);

    /// `slot`, which held nothing, will hold `id`.
    fn insert(&mut self, slot: usize, id: ExpertId, used: Used);

    /// `slot`, which held nothing, will hold `id`, which was not demanded yet:
    /// [`Policy::touch`] follows if somebody does.
    fn insert_ahead(&mut self, slot: usize, id: ExpertId) {
        self.insert(slot, id, Used::ONCE);
    }

    /// `slot` holds nothing any more.
    fn remove(&mut self, slot: usize);

    /// The slot to evict next: one that was inserted and is not pinned. None only if all are
    /// pinned.
    fn victim(&mut self, pinned: &dyn Fn(usize) -> bool) -> Option<usize>;

    /// The expert of `from` moves to `to`, which held nothing. That is no use of it.
    fn relocate(&mut self, from: usize, to: usize, id: ExpertId);

    /// There are `slots` slots from now on. Those that are gone hold nothing.
    fn resize(&mut self, slots: usize);
}

/// The policies that can be chosen by name.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum PolicyKind {
    /// [`Lru`].
    Lru,
    /// [`Adaptive`].
    #[default]
    Adaptive,
}

impl PolicyKind {
    /// Every policy.
    pub const ALL: &[PolicyKind] = &[PolicyKind::Lru, PolicyKind::Adaptive];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PolicyKind::Lru => "lru",
            PolicyKind::Adaptive => "adaptive",
        }
    }

    /// One for this many slots, all of them empty.
    pub fn new_policy(self, slots: usize) -> Box<dyn Policy> {
        match self {
            PolicyKind::Lru => Box::new(Lru::new(slots)),
            PolicyKind::Adaptive => Box::new(Adaptive::new(slots)),
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PolicyKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        PolicyKind::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| "write lru or adaptive".into())
    }
}

/// Least recently used first, over all layers. Every operation takes constant time, apart from the
/// pinned slots that `victim` has to pass, and those were used last.
#[derive(Clone, Debug)]
pub struct Lru {
    /// A ring: `links[slot + 1]` for each slot, and one before them that closes it. After that one comes the
    /// least recently used slot, before it the most recently used. A slot that is not in the ring
    /// links to itself.
    links: Vec<Link>,
}

#[derive(Copy, Clone, Debug)]
struct Link {
    before: usize,
    after: usize,
}

/// The link that closes the ring.
const END: usize = 0;

impl Lru {
    /// For slots 0 to `slots` - 1, all of them empty.
    pub fn new(slots: usize) -> Self {
        Lru { links: (0..=slots).map(|own| Link { before: own, after: own }).collect() }
    }

    fn push_newest(&mut self, link: usize) {
        let newest = self.links[END].before;
        self.links[link] = Link { before: newest, after: END };
        self.links[newest].after = link;
        self.links[END].before = link;
    }
}

impl Policy for Lru {
    fn touch(&mut self, slot: usize, _id: ExpertId, _used: Used) {
        self.remove(slot);
        self.push_newest(slot + 1);
    }

    fn insert(&mut self, slot: usize, _id: ExpertId, _used: Used) {
        self.remove(slot);
        self.push_newest(slot + 1);
    }

    fn remove(&mut self, slot: usize) {
        let link = slot + 1;
        let Link { before, after } = self.links[link];
        self.links[before].after = after;
        self.links[after].before = before;
        self.links[link] = Link { before: link, after: link };
    }

    fn victim(&mut self, pinned: &dyn Fn(usize) -> bool) -> Option<usize> {
        let mut link = self.links[END].after;
        while link != END {
            if !pinned(link - 1) {
                return Some(link - 1);
            }
            link = self.links[link].after;
        }
        None
    }

    fn relocate(&mut self, from: usize, to: usize, _id: ExpertId) {
        let (from, to) = (from + 1, to + 1);
        let Link { before, after } = self.links[from];
        self.links[from] = Link { before: from, after: from };
        self.links[to] = Link { before, after };
        self.links[before].after = to;
        self.links[after].before = to;
    }

    fn resize(&mut self, slots: usize) {
        let links = self.links.len();
        self.links.truncate(slots + 1);
        self.links.extend((links..=slots).map(|own| Link { before: own, after: own }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::SplitMix64;

    const ID: ExpertId = ExpertId { layer: 0, expert: 0 };

    #[test]
    fn nothing_to_evict() {
        assert_eq!(Lru::new(0).victim(&|_| false), None);
        let mut lru = Lru::new(2);
        assert_eq!(lru.victim(&|_| false), None);
        lru.insert(1, ID, Used::ONCE);
        assert_eq!(lru.victim(&|slot| slot == 1), None);
        assert_eq!(lru.victim(&|_| false), Some(1));
        lru.remove(1);
        lru.remove(1);
        assert_eq!(lru.victim(&|_| false), None);
    }

    #[test]
    fn agrees_with_a_list() {
        let seed = 5;
        let mut random = SplitMix64::new(seed);
        let slots = 7;
        let mut lru = Lru::new(slots);
        let mut list: Vec<usize> = Vec::new(); // Least recently used first.
        for step in 0..20_000 {
            let slot = random.below(slots as u64) as usize;
            let held = list.contains(&slot);
            match random.below(5) {
                0 => {
                    lru.remove(slot);
                    list.retain(|other| *other != slot);
                }
                1 => {
                    let pins = random.next_u64();
                    let pinned = |slot: usize| pins >> slot & 1 == 1;
                    let expected = list.iter().copied().find(|slot| !pinned(*slot));
                    assert_eq!(lru.victim(&pinned), expected, "seed {seed} step {step}");
                }
                2 if held => {
                    let Some(to) = (0..slots).find(|slot| !list.contains(slot)) else { continue };
                    lru.relocate(slot, to, ID);
                    list.iter_mut().filter(|other| **other == slot).for_each(|other| *other = to);
                }
                3 if list.iter().all(|slot| *slot < 5) => {
                    lru.resize(5);
                    lru.resize(slots);
                }
                _ => {
                    if held {
                        lru.touch(slot, ID, Used::ONCE)
                    } else {
                        lru.insert(slot, ID, Used::ONCE)
                    }
                    list.retain(|other| *other != slot);
                    list.push(slot);
                }
            }
        }
    }
}
