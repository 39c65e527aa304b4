//! Everything at once, at random: demands taken in batches, to their end or not, prefetches right and wrong,
//! faults, more and fewer slots, memory on loan. Bytes are always right, each expert is given out or
//! fails, and no slot is ever lost.
#![allow(clippy::unwrap_used)]

mod bank;

use std::time::Duration;

use bank::{Bank, Container, file_storage, hint, no_slot_leaked, random_list, within};
use experts::{Demand, ExpertStore, ExpertsError, Phase, PolicyKind, StoreOptions, Verify};
use storage::{FaultKind, FaultPlan, FaultyStorage, IoMode, SplitMix64};

const PHASES: [Phase; 2] = [Phase::Decode, Phase::Prefill];

/// A plan whose faults the container lets be found: a flipped bit takes a checksum.
fn plan(seed: u64, container: Container, random: &mut SplitMix64) -> FaultPlan {
    let has_checksums = matches!(container, Container::Packed | Container::ApartWithChecksums);
    FaultPlan {
        seed,
        eio_per_mille: [0, 40][random.below(2) as usize],
        short_per_mille: [0, 40][random.below(2) as usize],
        latency_us_max: random.below(300),
        fail_nth_demand: Some(random.below(60)),
        kind: if has_checksums { FaultKind::FlippedBit } else { FaultKind::Eio },
    }
}

struct Life<'a> {
    bank: &'a Bank,
    store: ExpertStore,
    random: SplitMix64,
    context: String,
    failed: usize,
    given: usize,
}

impl Life<'_> {
    fn list(&mut self, layer: u32) -> Vec<u32> {
        random_list(&mut self.random, self.bank.bytes[layer as usize].len(), 0)
    }

    /// Names experts of a layer, the given ones or others, now and then.
    fn hint(&mut self, layer: u32, list: &[u32]) {
        let list = if self.random.below(3) > 0 { list.to_vec() } else { self.list(layer) };
        let phase = PHASES[self.random.below(2) as usize];
        hint(&mut self.store, layer, phase, &list).unwrap();
    }

    /// One demand, taken to its end or given up.
    fn fetch(&mut self) {
        let layer = self.random.below(3) as u32;
        let list = self.list(layer);
        if self.random.below(2) == 0 {
            self.hint(layer, &list);
        }
        let (phase, tokens) = (PHASES[self.random.below(2) as usize], 1 + self.random.below(9) as usize);
        let before = *self.store.stats();
        self.store.start(&Demand { layer, experts: &list, phase, tokens, prompt: None }).unwrap();
        let stats = *self.store.stats();
        assert_eq!(stats.requests - before.requests, list.len() as u64, "{}", self.context);
        assert_eq!(stats.requests, stats.hits + stats.misses, "{}", self.context);
        if self.random.below(2) == 0 {
            let next = self.list((layer + 1) % 3);
            self.hint((layer + 1) % 3, &next);
        }
        let mut given = Vec::new();
        let mut patience = if self.random.below(4) == 0 { self.random.below(4) } else { u64::MAX };
        while patience > 0 && self.store.is_fetching() {
            let (max, wait) = (1 + self.random.below(5) as usize, self.random.below(3) > 0);
            let ready = self.store.next_batch(max, wait);
            assert!(ready.len() <= max, "{}", self.context);
            patience -= u64::from(!ready.is_empty());
            for loaded in ready {
                self.bank.check(layer, &loaded, &self.context);
                given.push(loaded.expert);
            }
        }
        let all = !self.store.is_fetching();
        self.store.end();
        self.check_end(&list, given, all);
    }

    fn check_end(&mut self, list: &[u32], mut experts: Vec<u32>, all: bool) {
        self.given += experts.len();
        for failed in self.store.failures() {
            let error = failed.error.as_ref();
            let is_fault = matches!(error, ExpertsError::Read { .. } | ExpertsError::Checksum { .. });
            assert!(is_fault, "{error}: {}", self.context);
            experts.push(failed.expert);
            self.failed += 1;
        }
        let count = experts.len();
        experts.sort_unstable();
        experts.dedup();
        assert_eq!(count, experts.len(), "given out twice, or given out and failed: {}", self.context);
        assert!(experts.iter().all(|expert| list.contains(expert)), "{}", self.context);
        assert!(!all || count == list.len(), "an expert was left out: {}", self.context);
    }

    fn change_memory(&mut self) {
        match self.random.below(12) {
            0 | 1 => {
                let slots = 1 + self.random.below(self.bank.expert_count() as u64 + 2) as usize;
                assert_eq!(self.store.resize(slots).unwrap(), slots.min(self.bank.expert_count()));
                no_slot_leaked(&self.store, false, &self.context);
            }
            2 => {
                let (count, keeps) = (self.random.below(5) as usize, self.random.below(2) == 0);
                let rubbish = &mut |bufs: &mut Vec<storage::AlignedBuf>| {
                    bufs.iter_mut().for_each(|buf| buf.fill(0xAB));
                    bufs.truncate(if keeps { bufs.len() } else { bufs.len() / 2 });
                };
                self.store.lend_buffers(count, rubbish).unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn slots_never_leak_and_bytes_are_always_right() {
    within(Duration::from_secs(300), || {
        let (mut failed, mut given, mut prefetched) = (0, 0, 0);
        for seed in 0..64 {
            let mut random = SplitMix64::new(seed);
            let container = Container::ALL[seed as usize % 4];
            let bank = Bank::new(container, &[1 + random.below(9) as usize, 6, 5], seed);
            let plan = plan(seed, container, &mut random);
            let storage = FaultyStorage::new(file_storage(IoMode::Direct), plan).unwrap();
            let files = bank.open(storage.as_ref());
            let options = StoreOptions {
                slots: 1 + random.below(bank.expert_count() as u64) as usize,
                verify: Verify::EveryLoad,
                lookahead: true,
                policy: PolicyKind::ALL[seed as usize / 4 % 2],
            };
            let context = format!("{container:?}, {options:?}, {plan:?}");
            let store = ExpertStore::new(bank.table.clone(), &files, storage.clone(), options).unwrap();
            let mut life = Life { bank: &bank, store, random, context, failed: 0, given: 0 };
            for _ in 0..80 {
                life.fetch();
                no_slot_leaked(&life.store, true, &life.context);
                life.change_memory();
                no_slot_leaked(&life.store, true, &life.context);
            }
            // In the end all is well.
            storage.set_calm(true);
            life.store.resize(bank.expert_count()).unwrap();
            for layer in 0..3 {
                let list: Vec<u32> = (0..bank.bytes[layer as usize].len() as u32).collect();
                bank.check_all(layer, &list, &mut life.store, &life.context);
            }
            no_slot_leaked(&life.store, false, &life.context);
            (failed, given) = (failed + life.failed, given + life.given);
            prefetched += life.store.lookahead_stats().reads_used;
        }
        assert!(
            failed > 200 && given > 5000 && prefetched > 200,
            "{failed} failed, {given} given out, {prefetched} prefetched: the rates test nothing"
        );
    });
}
