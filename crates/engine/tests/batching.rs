//! Company never changes a result: requests that arrive at random, share passes, are cancelled and fail give the bits that
//! they give alone.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Golden, dense, fixture, greedy, open, options};
use engine::{Engine, EngineError, EngineOptions, Event, FinishReason, Logits, Priority, Request};
use proptest::prelude::*;
use storage::{FaultPlan, FaultyStorage, FileStorage, SplitMix64, StorageOptions};

#[derive(Clone, Debug)]
struct Arrival {
    after_us: u64,
    /// Tokens in which prompts of one family begin alike.
    family: usize,
    shared: usize,
    own: usize,
    max_tokens: usize,
    background: bool,
    /// Events after which it is dropped.
    cancel: Option<usize>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let cancel = prop_oneof![4 => Just(None), 1 => (0usize..6).prop_map(Some)];
    (0u64..30_000, 0usize..2, 0usize..150, 1usize..100, 1usize..10, any::<bool>(), cancel).prop_map(
        |(after_us, family, shared, own, max_tokens, background, cancel)| Arrival {
            after_us,
            family,
            shared,
            own,
            max_tokens,
            background,
            cancel,
        },
    )
}

/// Tokens, and bits of the logits that they were chosen from.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    bits: Vec<u32>,
    cancelled: bool,
}

impl Arrival {
    fn request(&self, engine: &Engine, index: usize, golden: &Golden) -> Request {
        let mut random = SplitMix64::new(index as u64 + 1);
        let vocab = engine.config().vocab_size as u64;
        let shared = golden.prompt.iter().skip(7 * self.family).take(self.shared).copied();
        let prompt: Vec<u32> = shared.chain((0..self.own).map(|_| random.below(vocab) as u32)).collect();
        let priority = if self.background { Priority::Background } else { Priority::Interactive };
        Request { priority, ..greedy(engine, &prompt, self.max_tokens, Logits::Last) }
    }

    fn run(&self, engine: &Engine, request: Request) -> Result<Answer, EngineError> {
        let mut answer = Answer::default();
        let running = engine.submit(request)?;
        let canceller = running.canceller();
        for (index, event) in running.enumerate() {
            if self.cancel == Some(index) {
                canceller.cancel();
            }
            match event? {
                Event::Logits { logits, .. } => answer.bits.extend(logits.iter().map(|x| x.to_bits())),
                Event::Finished(generation) => {
                    answer.cancelled = generation.finish_reason == FinishReason::Cancelled;
                    answer.tokens = generation.tokens;
                }
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Runs all at once and compares each with itself alone.
fn check(dir: &Path, arrivals: &[Arrival], choice: EngineOptions, faults: FaultPlan) {
    let golden = Golden::read(dir);
    let real = FileStorage::new(StorageOptions { threads: 4, ..Default::default() }).unwrap();
    let faulty = FaultyStorage::new(real, faults).unwrap();
    faulty.set_calm(true);
    let engine = open(dir, EngineOptions { storage: Some(faulty.clone()), ..choice.clone() });
    faulty.set_calm(false);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let run = |(index, arrival): (usize, &'_ Arrival)| {
            let (engine, golden, arrival) = (engine.clone(), &golden, arrival.clone());
            scope.spawn(move || {
                std::thread::sleep(Duration::from_micros(arrival.after_us));
                arrival.run(&engine, arrival.request(&engine, index, golden))
            })
        };
        let threads: Vec<_> = arrivals.iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let stats = engine.stats().unwrap();
    assert_eq!((stats.running, stats.waiting), (0, 0));
    assert_eq!(stats.pages, stats.pages_free + stats.pages_cached);
    drop(engine);
    let (chunk_tokens, memory_bytes) = (choice.chunk_tokens, choice.memory_bytes);
    let alone = EngineOptions { chunk_tokens, memory_bytes, ctx: choice.ctx, ..options() };
    for (index, (arrival, answer)) in arrivals.iter().zip(answers).enumerate() {
        // An engine of its own: nothing was computed before.
        let engine = open(dir, alone.clone());
        let uncancelled = Arrival { cancel: None, ..arrival.clone() };
        let expected = uncancelled.run(&engine, arrival.request(&engine, index, &golden)).unwrap();
        match answer {
            Ok(answer) if answer.cancelled => {
                assert!(arrival.cancel.is_some() && expected.tokens.starts_with(&answer.tokens));
                assert!(expected.bits.starts_with(&answer.bits), "request {index}");
            }
            Ok(answer) => assert!(answer == expected, "request {index}: {arrival:?}"),
            Err(error) => {
                assert!(
                    faulty.reads() > 0 && error.to_string().contains("expert"),
                    "request {index}: {error}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn batching_never_changes_a_bit(
        arrivals in prop::collection::vec(arrival(), 2..6),
        parallel in 2usize..5,
        slots in prop::option::of(4usize..20),
        threads in 1usize..4,
        snapshots in 0usize..4,
        pass_ms in prop::sample::select(vec![0u64, 1, 1000]),
        recurrent: bool,
        faults in prop::option::of(any::<u64>()),
    ) {
        let dir = if recurrent { fixture("published") } else { dense("llama") };
        let choice = EngineOptions {
            parallel: Some(parallel),
            slots,
            threads: Some(threads),
            snapshots: Some(snapshots),
            pass_time_max: Some(Duration::from_millis(pass_ms)),
            chunk_tokens: Some(128),
            ..options()
        };
        let plan = match faults {
            Some(seed) => FaultPlan { seed, eio_per_mille: 2, latency_us_max: 100, ..FaultPlan::default() },
            None => FaultPlan::default(),
        };
        check(&dir, &arrivals, choice, plan);
    }
}

/// Experts are read once for all sequences that decode, and the phase of several is still decode.
#[test]
fn sequences_that_say_the_same_read_no_more_than_one() {
    let dir = fixture("published");
    let golden = Golden::read(&dir);
    let read = |sequences: usize| {
        let choice =
            EngineOptions { parallel: Some(sequences), slots: Some(5), lookahead: Some(false), ..options() };
        let engine = open(&dir, choice);
        // All wait until all are there: the first holds the engine's thread up while the others come.
        let prompt = &golden.prompt[..4];
        let requests: Vec<_> = (0..sequences).map(|_| greedy(&engine, prompt, 40, Logits::None)).collect();
        let runs: Vec<_> = requests.into_iter().map(|request| engine.submit(request).unwrap()).collect();
        runs.into_iter().for_each(|run| assert!(run.map(Result::unwrap).count() > 40));
        engine.stats().unwrap().expert_bytes_read
    };
    let (one, four) = (read(1), read(4));
    assert!(four < 2 * one, "{one} bytes for one, {four} for four");
}

#[test]
fn an_engine_is_closed_with_its_last_handle() {
    let engine = open(&fixture("published"), options());
    let other = engine.clone();
    let request = greedy(&engine, &[1, 2, 3], 400, Logits::None);
    let running = engine.submit(request).unwrap();
    drop(engine);
    assert!(other.stats().is_ok());
    drop(other);
    assert!(matches!(running.last(), Some(Err(EngineError::Closed)) | Some(Ok(Event::Finished(_)))));
}

#[test]
fn too_many_requests_and_too_long_ones_are_refused_with_figures() {
    let choice = EngineOptions { queue: Some(2), ctx: Some(64), ..options() };
    let engine = Arc::new(open(&fixture("published"), choice));
    let request = |tokens: usize| greedy(&engine, &vec![1; tokens], 5, Logits::None);
    let error = engine.submit(request(64)).err().unwrap();
    assert!(matches!(error, EngineError::PromptTooLong { prompt: 64, ctx: 64, .. }), "{error}");
    assert!(matches!(engine.submit(request(0)).err().unwrap(), EngineError::EmptyPrompt));
    let bad = Request { forced: vec![1 << 30], ..request(3) };
    assert!(matches!(engine.submit(bad).err().unwrap(), EngineError::TokenOutOfRange { .. }));
    let mut running = Vec::new();
    let error = loop {
        match engine.submit(request(20)) {
            Ok(run) => running.push(run),
            Err(error) => break error,
        }
        assert!(running.len() < 100_000, "a queue of two takes no end of requests");
    };
    assert!(matches!(error, EngineError::QueueFull { waiting: 2 }), "{error}");
    running.into_iter().for_each(|run| assert!(matches!(run.last(), Some(Ok(Event::Finished(_))))));
}
