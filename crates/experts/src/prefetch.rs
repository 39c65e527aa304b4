//! Prefetches: reads of experts that a layer will probably demand. `lookahead.rs` decides how many of
//! them are worth it; storage reads them when nothing else waits.

use crate::fetch::Fetch;
use crate::loader::Loader;
use crate::lookahead::Lookahead;
use crate::slots::Place;
use crate::{ExpertId, ExpertsError, Hint, Phase};

/// The prefetches under way and those that have landed for the next demand.
pub(crate) struct Prefetch {
    pub(crate) lookahead: Lookahead,
    /// Prefetched experts that no demand has named, and the slots that they were read into. One that
    /// has landed may have been evicted since.
    slots: Vec<(u32, ExpertId)>,
    /// Layers that have routed experts.
    moe_layers: usize,
    /// Scratch of [`Prefetch::settle`].
    wanted_tags: Vec<u64>,
}

impl Prefetch {
    pub(crate) fn new(lookahead: Lookahead, moe_layers: usize) -> Self {
        Prefetch { lookahead, slots: Vec::new(), moe_layers, wanted_tags: Vec::new() }
    }

    /// Reads those of the ranked experts that are worth it, behind all demand reads. The list was
    /// checked. `cost_us` is the time that ranking took.
    pub(crate) fn read(
        &mut self,
        hint: &Hint,
        ranked: &[u32],
        cost_us: f32,
        loader: &mut Loader,
        fetch: &Fetch,
    ) -> Result<(), ExpertsError> {
        let worth = match hint.phase {
            Phase::Decode => self.lookahead.guess(hint, ranked, cost_us),
            // A demand that has no slot yet comes first.
            Phase::Prefill if fetch.is_short_of_slots() => 0,
            Phase::Prefill => ranked.len(),
        };
        for &expert in &ranked[..worth] {
            let id = ExpertId { layer: hint.layer, expert };
            if loader.slots.place(id) != Place::Disk {
                continue;
            }
            // A pass demands the experts of each layer once.
            let holds_a_pass = loader.slots.len() > fetch.experts().len() * self.moe_layers;
            let recent = fetch.number().saturating_sub(self.moe_layers as u64);
            let empty = loader.empty_old_slot(if holds_a_pass { recent } else { u64::MAX });
            let Some(empty) = empty else { break };
            let slot = loader.read(empty, id, None)?;
            // It may have been prefetched before and evicted since.
            self.slots.retain(|(_, other)| *other != id);
            self.slots.push((slot, id));
            self.lookahead.stats.reads += 1;
        }
        Ok(())
    }

    /// The demand of `layer` is known: its prefetches that were right stay, or are joined by the fetch while
    /// they are still being read. The others give their slots back, once they have landed if
    /// they are under way. `wanted` says whether the demand names an expert of the layer.
    pub(crate) fn settle(&mut self, layer: u32, wanted: impl Fn(u32) -> bool, loader: &mut Loader) {
        self.lookahead.judge(layer, &wanted);
        if self.slots.is_empty() {
            return;
        }
        self.land(loader);
        let is_wanted = |id: ExpertId| id.layer == layer && wanted(id.expert);
        if loader.slots.reading() > 0 {
            self.wanted_tags.clear();
            let is_read = |slot: u32, id: ExpertId| loader.slots.place(id) == Place::Reading(slot);
            let tags = self.slots.iter().filter(|(slot, id)| is_wanted(*id) && is_read(*slot, *id));
            self.wanted_tags.extend(tags.map(|(slot, _)| u64::from(*slot)));
            loader.settle_ahead(&self.wanted_tags);
            self.land(loader);
        }
        let lookahead = &mut self.lookahead;
        self.slots.retain(|&(slot, id)| match loader.slots.place(id) {
            Place::Reading(at) if at == slot => {
                match is_wanted(id) {
                    true => lookahead.used(false),
                    false if id.layer == layer => lookahead.in_the_way(),
                    false => {}
                }
                true
            }
            Place::Host(at) if at == slot => {
                match is_wanted(id) {
                    true => lookahead.used(true),
                    false => {
                        lookahead.wasted(loader.layout.slot_bytes as u64);
                        loader.slots.vacate(slot);
                    }
                }
                false
            }
            // Cancelled, failed, or evicted, perhaps read again since.
            _ => false,
        });
    }

    /// Forgets the prefetches that a fetch has joined.
    pub(crate) fn forget_joined(&mut self, loader: &Loader) {
        self.slots.retain(|(slot, _)| loader.slots.holder(*slot).is_none());
    }

    /// Waits for every prefetch and forgets them. Only while no fetch is under way.
    pub(crate) fn finish(&mut self, loader: &mut Loader) {
        while loader.slots.reading() > 0 {
            let completion = loader.wait();
            self.lookahead.landed(&loader.land(completion));
        }
        self.slots.clear();
    }

    /// Takes back prefetches whose reads have ended. Only while no fetch is under way, so that
    /// nothing else is. The error of a prefetch is dropped: a demand read of the same expert will
    /// report it.
    fn land(&mut self, loader: &mut Loader) {
        while let Some(completion) = loader.try_next() {
            self.lookahead.landed(&loader.land(completion));
        }
    }
}
