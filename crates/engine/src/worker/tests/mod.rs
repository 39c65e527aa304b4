//! The scheduler on a fake model, step by step on the test's own thread.
#![allow(clippy::unwrap_used, reason = "tests")]

mod fake;
mod random;

use std::time::Duration;

use sampling::SamplingParams;

use self::fake::{Fake, Faults, LAYERS};
use super::*;
use crate::channel::Channel;
use crate::{Event, Generation, Logits, Prompt, Request};

/// Sizes of a worker.
#[derive(Copy, Clone, Debug)]
struct Sizes {
    parallel: usize,
    chunk_tokens: usize,
    ctx: usize,
    /// Beyond what one sequence needs.
    pages: usize,
    /// `None`: no recurrent layers.
    snapshots: Option<usize>,
    pass_time_max: Duration,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            parallel: 4,
            chunk_tokens: 256,
            ctx: 1024,
            pages: 30,
            snapshots: Some(4),
            pass_time_max: Duration::from_secs(1),
        }
    }
}

/// A worker, and the requests' side of it.
struct Rig {
    worker: Worker,
    inbox: Arc<Inbox>,
    sizes: Sizes,
    passes: Arc<Mutex<Vec<(usize, usize)>>>,
    ids: u64,
}

fn plan() -> MemoryPlan {
    MemoryPlan {
        budget_bytes: 1000,
        process_bytes: 0,
        dense_bytes: 0,
        state_bytes: 0,
        scratch_bytes: 0,
        slot_bytes: 10,
        slots: 10,
        expert_count: 100,
        chunk_tokens: 0,
        ctx: 0,
        kv: ops::KvFormat::F16,
        parallel: 1,
        pages: 0,
        states: 0,
    }
}

impl Rig {
    fn new(sizes: Sizes) -> Self {
        Self::with(sizes, Faults::default(), |_| ())
    }

    fn with(sizes: Sizes, faults: Faults, prepare: impl FnOnce(&mut Fake)) -> Self {
        let pages = sizes.ctx.div_ceil(ops::PAGE_TOKENS) + sizes.pages;
        let slots = sizes.snapshots.map_or(0, |snapshots| sizes.parallel + snapshots);
        let mut fake = Fake::new(pages, slots, sizes.chunk_tokens + sizes.parallel - 1, faults);
        prepare(&mut fake);
        let (passes, inbox) = (fake.passes.clone(), Arc::new(Inbox::new(1000)));
        let worker = Worker::new(Parts {
            runtime: Box::new(fake),
            cache: KvCache::new(pages, slots),
            limits: Limits {
                parallel: sizes.parallel,
                chunk_tokens: sizes.chunk_tokens,
                pass_time_max: sizes.pass_time_max,
                layers: LAYERS,
                slots_min: 2,
            },
            inbox: inbox.clone(),
            about: RunStats::default(),
            plan: Arc::new(Mutex::new(plan())),
            halve_slots: Arc::default(),
            sessions: None,
        });
        Self { worker, inbox, sizes, passes, ids: 0 }
    }

    fn submit(&mut self, request: Request) -> Arc<Channel> {
        self.ids += 1;
        let channel = Arc::new(Channel::new(request.logits != Logits::None, self.inbox.closing.clone()));
        let Prompt::Tokens(tokens) = &request.prompt else { panic!("tokens") };
        let tokens = tokens.clone();
        let checked = Checked { id: self.ids, request, tokens, ctx: self.sizes.ctx };
        self.inbox.submit(Sequence::new(checked, None, channel.clone()).unwrap()).unwrap();
        channel
    }

    /// Takes what arrived and runs one pass.
    fn step(&mut self) -> bool {
        self.worker.take_letters(false);
        self.worker.step()
    }

    fn run(&mut self) {
        while self.step() {}
    }

    fn generate(&mut self, request: Request) -> Result<Generation, EngineError> {
        let channel = self.submit(request);
        self.run();
        last(&channel)
    }

    /// Nothing is lost and nothing is held.
    fn check_flat(&self) {
        let (worker, cache) = (&self.worker, &self.worker.cache);
        assert!(
            worker.running.is_empty()
                && worker.part.is_none()
                && worker.waiting.iter().all(VecDeque::is_empty)
        );
        assert_eq!(self.inbox.waiting(), 0);
        assert_eq!(cache.blocks.free() + cache.prefixes.pages(), cache.blocks.len());
        let slots = self.sizes.snapshots.map_or(0, |snapshots| self.sizes.parallel + snapshots);
        assert_eq!(cache.free_slots() + cache.prefixes.snapshots(), slots);
    }
}

fn request(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request {
        prompt: prompt.into(),
        max_tokens,
        sampling: SamplingParams::greedy().with_temperature(1.0).with_seed(7),
        stop_ids: Vec::new(),
        continues_text: false,
        priority: Priority::Interactive,
        prefix_marks: Vec::new(),
        logits: Logits::None,
        forced: Vec::new(),
    }
}

/// A prompt of its own for each seed.
fn prompt(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 7 + seed * 13 + i * i * seed) % 32).collect()
}

/// The end of a request that has ended.
fn last(channel: &Channel) -> Result<Generation, EngineError> {
    loop {
        match channel.next(None).unwrap().expect("the last item ends the loop").0? {
            Event::Finished(generation) => return Ok(*generation),
            _ => continue,
        }
    }
}

/// What the request gives on a machine of its own.
fn alone(sizes: Sizes, request: &Request) -> Vec<u32> {
    Rig::new(sizes).generate(request.clone()).unwrap().tokens
}

#[test]
fn sequences_share_passes_and_give_what_they_give_alone() {
    let mut rig = Rig::new(Sizes::default());
    let requests: Vec<Request> =
        (0..4).map(|seed| request(prompt(seed, 50 + 40 * seed as usize), 20)).collect();
    let channels: Vec<_> = requests.iter().map(|request| rig.submit(request.clone())).collect();
    rig.run();
    for (request, channel) in requests.iter().zip(channels) {
        let generation = last(&channel).unwrap();
        assert_eq!(generation.tokens, alone(rig.sizes, request));
        assert_eq!((generation.finish_reason, generation.tokens.len()), (FinishReason::Length, 20));
    }
    let passes = rig.passes.lock().unwrap();
    assert!(passes.iter().filter(|(decoding, _)| *decoding == 4).count() >= 15, "{passes:?}");
    rig.check_flat();
}

#[test]
fn a_prompt_in_company_goes_through_a_few_layers_at_a_time() {
    // A pass that may take no time takes one layer.
    let mut rig = Rig::new(Sizes { pass_time_max: Duration::ZERO, ..Sizes::default() });
    let decoding = rig.submit(request(prompt(1, 10), 30));
    (0..3).for_each(|_| assert!(rig.step()));
    let long = request(prompt(2, 200), 3);
    let channel = rig.submit(long.clone());
    rig.run();
    assert_eq!(last(&channel).unwrap().tokens, alone(rig.sizes, &long));
    assert_eq!(last(&decoding).unwrap().tokens.len(), 30);
    let passes = rig.passes.lock().unwrap();
    let mixed: Vec<usize> =
        passes.iter().filter(|pass| pass.0 > 0 && pass.1 > 0).map(|pass| pass.1).collect();
    // 64 rows at a time, because nothing is known to fit.
    assert!(mixed.len() >= 9 && mixed.iter().all(|rows| *rows <= 64), "{mixed:?}");
    assert_eq!(mixed.iter().sum::<usize>(), LAYERS * 200);
}

#[test]
fn what_was_computed_is_not_computed_again() {
    for snapshots in [None, Some(0), Some(4)] {
        let sizes = Sizes { snapshots, parallel: 1, ..Sizes::default() };
        let mut rig = Rig::new(sizes);
        let first = rig.generate(request(prompt(3, 300), 10)).unwrap();
        assert_eq!(first.stats.reused_tokens, 0);
        // The next turn begins with all of it.
        let turn = [&first.prompt[..], &first.tokens, &prompt(4, 20)].concat();
        let second = rig.generate(request(turn.clone(), 10)).unwrap();
        assert_eq!(second.stats.reused_tokens, 309, "{snapshots:?}");
        assert_eq!(second.stats.prompt_tokens, turn.len() - 309);
        assert_eq!(second.tokens, alone(sizes, &request(turn, 10)));
        rig.check_flat();
    }
}

#[test]
fn a_long_context_does_not_keep_others_from_running() {
    // Pages for two whole contexts; requests for a little run beside one for all.
    let sizes = Sizes { pages: 10, snapshots: None, ..Sizes::default() };
    let mut rig = Rig::new(sizes);
    let large: Vec<_> = (0..3).map(|seed| rig.submit(request(prompt(seed, 600), 400))).collect();
    let small = rig.submit(request(prompt(9, 20), 5));
    let mut most = 0;
    while rig.step() {
        let pages: usize = rig.worker.running.iter().map(|sequence| sequence.held.pages.len()).sum();
        most = most.max(rig.worker.running.len());
        assert!(pages <= rig.worker.cache.blocks.len());
        rig.passes.lock().unwrap().clear();
        // Readers keep up.
        for channel in large.iter().chain([&small]).filter(|channel| !channel.has_room()) {
            while !channel.has_room() {
                channel.next(None).unwrap();
            }
        }
    }
    assert_eq!(most, 2, "two contexts fit, and nobody goes before those who came first");
    large.iter().for_each(|channel| assert_eq!(last(channel).unwrap().tokens.len(), 400));
    assert_eq!(last(&small).unwrap().tokens.len(), 5);
    rig.check_flat();
}

#[test]
fn a_reader_that_is_slow_holds_up_nobody_else() {
    let mut rig = Rig::new(Sizes::default());
    let slow = rig.submit(request(prompt(1, 10), 500));
    let quick = rig.submit(request(prompt(2, 10), 500));
    let mut taken = 0;
    while rig.step() {
        while !quick.has_room() {
            quick.next(None).unwrap();
            taken += 1;
        }
    }
    assert!(taken > 400);
    assert_eq!(last(&quick).unwrap().tokens.len(), 500);
    let sequence = &rig.worker.running[0];
    assert!(!slow.has_room() && sequence.generated().len() < 70, "it waits for its reader");
    // It goes on where it was.
    let mut events = 0;
    while rig.worker.running.len() == 1 {
        while slow.has_room() && rig.step() {}
        if rig.worker.running.len() == 1 {
            slow.next(None).unwrap();
            events += 1;
        }
    }
    assert!(events > 400);
    rig.check_flat();
}

#[test]
fn interactive_requests_go_first_but_not_for_ever() {
    let mut rig = Rig::new(Sizes { parallel: 1, ..Sizes::default() });
    let of = |priority, seed| Request { priority, ..request(prompt(seed, 20), 2) };
    let background = rig.submit(of(Priority::Background, 0));
    let interactive: Vec<_> = (1..10).map(|seed| rig.submit(of(Priority::Interactive, seed))).collect();
    let mut order = Vec::new();
    let done = |channel: &Channel, rig: &Rig| {
        let _ = channel;
        rig.worker.running.first().map(|sequence| sequence.id)
    };
    while rig.step() {
        order.extend(done(&background, &rig));
    }
    order.dedup();
    // Four overtake it.
    assert_eq!(order, [2, 3, 4, 5, 1, 6, 7, 8, 9, 10]);
    interactive.iter().chain([&background]).for_each(|channel| assert!(last(channel).is_ok()));
}

/// D1: a break in the middle of a prompt ended the request only after the whole prompt.
#[test]
fn a_prompt_is_given_up_within_a_layer() {
    let cancel = Arc::new(Mutex::new(None::<Arc<Channel>>));
    let handle = cancel.clone();
    let mut rig = Rig::with(Sizes::default(), Faults::default(), |fake| {
        fake.before = Some(Box::new(move || {
            if let Some(channel) = handle.lock().unwrap().as_ref() {
                channel.cancel();
            }
        }));
    });
    let channel = rig.submit(request(prompt(1, 900), 10));
    *cancel.lock().unwrap() = Some(channel.clone());
    rig.run();
    let generation = last(&channel).unwrap();
    assert_eq!((generation.finish_reason, generation.stats.prompt_tokens), (FinishReason::Cancelled, 0));
    assert_eq!(rig.passes.lock().unwrap().len(), 1);
    // D3: the next one is not cancelled.
    *cancel.lock().unwrap() = None;
    let next = request(prompt(1, 900), 10);
    assert_eq!(rig.generate(next.clone()).unwrap().tokens, alone(rig.sizes, &next));
    rig.check_flat();
}

/// D2: penalties changed the logits that the next request with the same prompt was sampled from.
#[test]
fn penalties_do_not_add_up_from_request_to_request() {
    let mut rig = Rig::new(Sizes::default());
    let sampling = SamplingParams::greedy().with_repetition_penalty(1.9).with_presence_penalty(1.0);
    let one = Request { sampling, logits: Logits::Last, ..request(prompt(5, 100), 1) };
    let mut rows = Vec::new();
    for _ in 0..3 {
        let channel = rig.submit(one.clone());
        rig.run();
        let mut events = std::iter::from_fn(|| channel.next(None).unwrap()).map(|item| item.0.unwrap());
        let logits = events.find_map(|event| match event {
            Event::Logits { logits, .. } => Some(logits),
            _ => None,
        });
        let Some(Event::Finished(generation)) = events.last() else { panic!("no end") };
        rows.push((logits.unwrap(), generation.tokens));
    }
    assert!(rows.windows(2).all(|pair| pair[0] == pair[1]));
}

/// D4: any number of sequences could be begun, though the plan had room for one.
#[test]
fn no_more_run_at_once_than_were_planned_for() {
    let mut rig = Rig::new(Sizes { parallel: 2, pages: 8, ..Sizes::default() });
    let channels: Vec<_> = (0..6).map(|seed| rig.submit(request(prompt(seed, 30), 10))).collect();
    assert_eq!(rig.inbox.waiting(), 6);
    while rig.step() {
        assert!(rig.worker.running.len() <= 2);
    }
    channels.iter().for_each(|channel| assert_eq!(last(channel).unwrap().tokens.len(), 10));
    rig.check_flat();
}

#[test]
fn logits_that_are_no_numbers_fail_their_request_alone() {
    let mut rig = Rig::with(Sizes::default(), Faults::default(), |fake| fake.poison = Some((31, f32::NAN)));
    let bad = rig.submit(request([&prompt(1, 40)[..], &[31]].concat(), 10));
    let forced = Request { forced: vec![1, 31, 2], ..request(prompt(2, 40), 3) };
    let forced = rig.submit(forced);
    let good = Request { forced: vec![3; 30], ..request(vec![4; 40], 30) };
    let good = rig.submit(good);
    rig.run();
    let error = last(&bad).unwrap_err();
    assert!(matches!(error, EngineError::LogitsNotFinite { position: 40, token: 0, .. }), "{error}");
    assert!(matches!(last(&forced), Err(EngineError::LogitsNotFinite { position: 41, .. })));
    assert_eq!(last(&good).unwrap().tokens, [3; 30]);
    rig.check_flat();
}

#[test]
fn all_rows_of_logits_come_in_order() {
    let mut rig = Rig::new(Sizes { chunk_tokens: 64, ..Sizes::default() });
    // The prompt is in the cache, and is computed all the same.
    rig.generate(request(prompt(1, 150), 1)).unwrap();
    let all = Request { logits: Logits::All, forced: vec![5, 6], ..request(prompt(1, 150), 3) };
    let channel = rig.submit(all);
    let reader = std::thread::spawn(move || {
        let mut positions = Vec::new();
        while let Some((item, _)) = channel.next(None).unwrap() {
            match item.unwrap() {
                Event::Logits { position, .. } => positions.push(position),
                Event::Finished(generation) => assert_eq!(generation.tokens[..2], [5, 6]),
                _ => {}
            }
        }
        positions
    });
    while !reader.is_finished() {
        if !rig.step() {
            std::thread::yield_now();
        }
    }
    assert_eq!(reader.join().unwrap(), (0..152).collect::<Vec<_>>());
}

#[test]
fn a_thousand_requests_leave_nothing_behind() {
    let mut rig = Rig::new(Sizes { parallel: 3, pages: 12, ..Sizes::default() });
    for round in 0..250 {
        let seeds = (0..4).map(|i| (round * 3 + i * 7) % 11);
        let channels: Vec<_> =
            seeds.map(|seed| rig.submit(request(prompt(seed, 30 + 37 * seed as usize), 5))).collect();
        rig.run();
        channels.iter().for_each(|channel| assert_eq!(last(channel).unwrap().tokens.len(), 5));
        rig.check_flat();
        assert!(rig.worker.cache.prefixes.pages() <= rig.worker.cache.blocks.len());
    }
    assert_eq!(rig.ids, 1000);
}
