//! `bench` of several streams, of a prompt that arrives beside them, and of two turns.
#![allow(clippy::unwrap_used)]

mod common;

use common::{dense, fixture, options};
use engine::EngineOptions;
use lab::LabError;
use lab::bench::{BenchOptions, bench};

fn short() -> BenchOptions {
    BenchOptions { prompt_tokens: 8, decode_tokens: 6, repeats: 1, ..BenchOptions::default() }
}

#[test]
fn streams_decode_together_while_a_prompt_arrives() {
    let choice = BenchOptions { parallel: Some(3), arrive_tokens: Some(150), ..short() };
    // Experts are read: as many as one token asks for are in memory.
    let options = EngineOptions { slots: Some(2), ..options() };
    let report = bench(&fixture("flat"), &options, &choice, &mut |_| ()).unwrap();
    assert_eq!((report.about.parallel, report.about.plan.parallel), (3, 4));
    let streams = report.streams.unwrap();
    assert!(streams.streams_tokens >= 3 * choice.decode_tokens, "{streams:?}");
    let (slow, fast) = (streams.stream_tokens_per_s_min, streams.stream_tokens_per_s_max);
    assert!(0.0 < slow && slow <= fast, "{streams:?}");
    assert!(3.0 * slow <= 1.0001 * streams.total_tokens_per_s, "{streams:?}");
    assert!(streams.total_tokens_per_s <= 3.0001 * fast, "{streams:?}");
    assert!(streams.streams_expert_bytes_per_token > 0.0 && streams.streams_hit_rate < 1.0, "{streams:?}");
    assert!(streams.stream_wait_max_s > 0.0);
    let arrival = streams.arrival.unwrap();
    assert_eq!(arrival.prompt_tokens, 150);
    assert!(arrival.streams_tokens > 0 && arrival.stream_wait_max_s > 0.0, "{arrival:?}");
    assert!(arrival.time_to_first_token_s > 0.0 && arrival.pass_time_max_s > 0.0);
}

#[test]
fn a_second_turn_goes_on_from_the_first_also_after_a_restart() {
    for model in [fixture("flat"), dense("qwen2")] {
        let cache = tempfile::tempdir().unwrap();
        let options = EngineOptions { session_cache: Some(cache.path().into()), ..options() };
        let choice = BenchOptions { prompt_tokens: 140, turn_tokens: Some(5), ..short() };
        let turns = bench(&model, &options, &choice, &mut |_| ()).unwrap().turns.unwrap();
        assert_eq!((turns.first_prompt_tokens, turns.second_prompt_tokens), (140, 151), "{turns:?}");
        assert!(turns.second_reused_tokens >= 140 && turns.second_over_first > 0.0, "{turns:?}");
        let restarted = turns.restarted.unwrap();
        assert!(restarted.reused_tokens > 0 && restarted.over_first > 0.0, "{restarted:?}");
    }
}

#[test]
fn more_than_the_context_holds_is_refused_before_anything_is_measured() {
    let refused = |choice: BenchOptions| {
        let result = bench(&fixture("flat"), &options(), &choice, &mut |_| panic!("something is measured"));
        assert!(matches!(result, Err(LabError::BeyondContext { ctx: 512, .. })), "{:?}", result.err());
    };
    refused(BenchOptions { arrive_tokens: Some(512), ..short() });
    refused(BenchOptions { turn_tokens: Some(500), ..short() });
    refused(BenchOptions { parallel: Some(2), prompt_tokens: 505, ..short() });
}
