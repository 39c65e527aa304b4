//! Batching never changes a result: random arrivals, lengths, cancels, priorities, sizes and
//! faults.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Arrival {
    step: usize,
    /// Prompts of one family begin alike.
    family: u32,
    shared: usize,
    own: usize,
    max_tokens: usize,
    background: bool,
    /// Steps after which its caller gives up.
    cancel: Option<usize>,
    mark: bool,
    forced: usize,
}

impl Arrival {
    fn request(&self, index: usize) -> Request {
        let tokens = [prompt(self.family, self.shared), prompt(50 + index as u32, self.own)].concat();
        Request {
            priority: if self.background { Priority::Background } else { Priority::Interactive },
            prefix_marks: self.mark.then_some(self.shared).into_iter().collect(),
            forced: prompt(9, self.forced),
            sampling: SamplingParams::greedy().with_temperature(0.9).with_seed(index as u64),
            ..request(tokens, self.max_tokens)
        }
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let lengths = (0usize..300, 1usize..200, 0usize..12, 0usize..3);
    let cancel = prop_oneof![3 => Just(None), 1 => (0usize..12).prop_map(Some)];
    (0usize..20, 0u32..3, lengths, any::<[bool; 2]>(), cancel).prop_map(
        |(step, family, (shared, own, max_tokens, forced), [background, mark], cancel)| Arrival {
            step,
            family,
            shared,
            own,
            max_tokens,
            background,
            cancel,
            mark,
            forced,
        },
    )
}

fn sizes() -> impl Strategy<Value = Sizes> {
    let chunk = prop::sample::select(vec![1usize, 16, 33, 64, 100, 256, 1024]);
    let snapshots = prop::option::of(0usize..4);
    let pass = prop::sample::select(vec![0u64, 1000]);
    (1usize..4, chunk, 0usize..12, snapshots, pass).prop_map(
        |(parallel, chunk_tokens, pages, snapshots, ms)| Sizes {
            parallel,
            chunk_tokens,
            ctx: 520,
            pages,
            snapshots,
            pass_time_max: Duration::from_millis(ms),
        },
    )
}

fn faults() -> impl Strategy<Value = Faults> {
    let some = (any::<u64>(), 0u64..60, 0u64..20);
    let some = some.prop_map(|(seed, entries, passes)| Faults { seed, entries, passes });
    prop_oneof![Just(Faults::default()), some]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn batching_never_changes_a_result(
        arrivals in prop::collection::vec(arrival(), 1..8),
        sizes in sizes(),
        faults in faults(),
    ) {
        let mut rig = Rig::with(sizes, faults, |_| ());
        let mut channels: Vec<Option<Arc<Channel>>> = vec![None; arrivals.len()];
        let mut step = 0;
        loop {
            for (index, arrival) in arrivals.iter().enumerate() {
                if arrival.step == step {
                    channels[index] = Some(rig.submit(arrival.request(index)));
                }
                if arrival.cancel.is_some_and(|after| arrival.step + after == step) {
                    channels[index].as_ref().unwrap().cancel();
                }
            }
            let busy = rig.step();
            step += 1;
            if !busy && step > 40 {
                break;
            }
        }
        for (index, (arrival, channel)) in arrivals.iter().zip(&channels).enumerate() {
            let expected = alone(Sizes { parallel: 1, ..sizes }, &arrival.request(index));
            match last(channel.as_ref().unwrap()) {
                Ok(generation) if generation.finish_reason == FinishReason::Cancelled => {
                    prop_assert!(arrival.cancel.is_some());
                    prop_assert!(expected.starts_with(&generation.tokens));
                }
                Ok(generation) => prop_assert_eq!(&generation.tokens, &expected, "request {}", index),
                Err(error) => prop_assert!(faults.entries + faults.passes > 0, "{}", error),
            }
        }
        rig.check_flat();
    }
}
