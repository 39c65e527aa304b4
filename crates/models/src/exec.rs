//! The seam between router and sum: whoever computes the experts that a layer's rows chose.
//!
//! Outputs land by (row, rank) in one buffer and are summed in router order afterwards, so no result
//! depends on who computed an expert, or when. [`Local`] computes all of them on one back-end from the
//! store's tiers; experts on other machines will stand behind the same trait.

use experts::{Demand, ExpertStore, ExpertsError, Failed, Hint, LoadedExpert, Phase, PromptUse};
use ops::{Backend, ExpertRows, ExpertWeights};

use crate::Phases;
use crate::layers::Routing;
use crate::phases::Laps;

/// Experts that are computed in one parallel region when decoding rows ask for them.
const EXPERTS_TOGETHER_MAX: usize = 16;

/// The rows of one layer and the experts that they chose.
pub struct Chosen<'a, B: Backend> {
    /// Index of the layer.
    pub layer: usize,
    /// What the rows are computed for.
    pub phase: ops::Phase,
    /// Rows.
    pub n: usize,
    /// Those of them that decode, which come first; the others are of prompts.
    pub decoding: usize,
    /// Who chose what.
    pub routing: &'a Routing,
    /// [n, H], the input of the experts.
    pub h: &'a B::Buffer,
}

/// How far a layer's experts are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The next [`ExpertExec::run_ready`] has experts to compute at once.
    Ready,
    /// The experts that are left are on their way.
    Waiting,
    /// Each expert was computed or has failed.
    Done,
}

/// Computes a layer's experts: one layer at a time, [`ExpertExec::start`] first.
pub trait ExpertExec<B: Backend> {
    /// Begins a layer: everything that its experts need is requested now.
    ///
    /// # Errors
    /// A layer or expert that does not exist. The failure of a single expert is no error: see
    /// [`ExpertExec::failures`].
    fn start(&mut self, backend: &mut B, chosen: &Chosen<'_, B>) -> Result<Progress, ExpertsError>;

    /// Computes experts that are ready, some at a time, into `out` [n, K, H]: the output for a row and the
    /// rank at which it chose the expert. If none is ready it waits for one, or returns if it
    /// shall not `wait`. Adds the time of both to `phases`.
    fn run_ready(
        &mut self,
        backend: &mut B,
        chosen: &Chosen<'_, B>,
        out: &mut B::Buffer,
        phases: &mut Phases,
        wait: bool,
    ) -> Progress;

    /// The experts of the layer that were computed, in the order in which they were.
    fn computed(&self) -> &[u32];

    /// The experts of the layer that are not to be had; `out` has no output for their rows. Complete when
    /// the layer is done.
    fn failures(&self) -> &[Failed];

    /// Tells which experts a layer will probably need, before it starts. If that is of any use, `rank` is
    /// called to name them, best first. Changes no result.
    ///
    /// # Errors
    /// A layer or expert that does not exist.
    fn hint(&mut self, hint: &Hint, rank: &mut dyn FnMut(&mut Vec<u32>)) -> Result<(), ExpertsError>;
}

/// All experts on this machine: read into the store's memory, computed by the back-end.
pub struct Local {
    store: ExpertStore,
    computed: Vec<u32>,
    /// [expert of a demand]: see [`PromptUse::rows`].
    prompt_rows: Vec<u32>,
}

impl Local {
    /// Takes the store that holds the experts.
    pub fn new(store: ExpertStore) -> Self {
        Self { store, computed: Vec::new(), prompt_rows: Vec::new() }
    }

    /// The store.
    pub fn store(&self) -> &ExpertStore {
        &self.store
    }

    /// The store, to change its memory or its trace between passes.
    pub fn store_mut(&mut self) -> &mut ExpertStore {
        &mut self.store
    }

    fn progress(&self) -> Progress {
        match (self.store.resident_left(), self.store.is_fetching()) {
            (1.., _) => Progress::Ready,
            (0, true) => Progress::Waiting,
            (0, false) => Progress::Done,
        }
    }
}

impl<B: Backend> ExpertExec<B> for Local {
    fn start(&mut self, _backend: &mut B, chosen: &Chosen<'_, B>) -> Result<Progress, ExpertsError> {
        self.computed.clear();
        self.prompt_rows.clear();
        let (routing, tokens) = (chosen.routing, chosen.n - chosen.decoding);
        self.prompt_rows.extend(routing.used().iter().map(|expert| {
            let rows = routing.rows(*expert).0;
            // Rows ascend, so one that decodes comes first.
            if (rows[0] as usize) < chosen.decoding { 0 } else { rows.len() as u32 }
        }));
        let prompt = PromptUse { tokens, rows: &self.prompt_rows };
        self.store.start(&Demand {
            layer: chosen.layer as u32, // Layers are numbered in 32 bits.
            experts: routing.used(),
            phase: phase(chosen.phase),
            tokens: chosen.n,
            prompt: Some(prompt).filter(|prompt| prompt.tokens > 0),
        })?;
        Ok(self.progress())
    }

    fn run_ready(
        &mut self,
        backend: &mut B,
        chosen: &Chosen<'_, B>,
        out: &mut B::Buffer,
        phases: &mut Phases,
        wait: bool,
    ) -> Progress {
        let mut laps = Laps::start();
        // A prompt gives each expert enough to do; in decoding, those that are ready run together.
        let max = if chosen.phase == ops::Phase::Decode { EXPERTS_TOGETHER_MAX } else { 1 };
        let mut ready = self.store.next_batch(max, wait);
        let Some(first) = ready.next() else {
            if self.progress() == Progress::Done {
                self.store.end();
            }
            phases.fetch += laps.lap();
            return self.progress();
        };
        phases.fetch += laps.lap();
        // On the stack: a pass allocates nothing.
        let mut jobs = [job(chosen.routing, &first); EXPERTS_TOGETHER_MAX];
        let count = 1 + ready.len();
        self.computed.push(first.expert);
        for (target, loaded) in jobs[1..].iter_mut().zip(ready) {
            *target = job(chosen.routing, &loaded);
            self.computed.push(loaded.expert);
        }
        backend.experts(&jobs[..count], chosen.h, out);
        phases.experts += laps.lap();
        if self.progress() == Progress::Done {
            self.store.end();
        }
        self.progress()
    }

    fn computed(&self) -> &[u32] {
        &self.computed
    }

    fn failures(&self) -> &[Failed] {
        self.store.failures()
    }

    fn hint(&mut self, hint: &Hint, rank: &mut dyn FnMut(&mut Vec<u32>)) -> Result<(), ExpertsError> {
        self.store.hint(hint, rank)
    }
}

/// The phase as the expert store calls it, which knows no ops.
pub(crate) fn phase(phase: ops::Phase) -> Phase {
    match phase {
        ops::Phase::Prefill => Phase::Prefill,
        ops::Phase::Decode => Phase::Decode,
    }
}

/// An expert's matrices with the rows that chose it.
fn job<'a>(routing: &'a Routing, loaded: &LoadedExpert<'a>) -> ExpertRows<'a> {
    let ([gate, up, down], (x_rows, out_rows)) = (loaded.parts, routing.rows(loaded.expert));
    ExpertRows { weights: ExpertWeights { gate, up, down }, x_rows, out_rows }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use checkpoint::{ExpertPart, ExpertTable, Extent, LayerExperts};
    use experts::{ExpertId, Place, PolicyKind, StoreOptions, Verify};
    use kernels_cpu::{CpuBackend, CpuBuffer, CpuOptions};
    use ops::conformance::numbers;
    use storage::{FaultPlan, FaultyStorage, FileStorage, Storage};
    use tensor::{Format, MatrixView};

    use super::*;
    use crate::layers::Router;
    use crate::spec::RouterSpec;

    const EXPERTS: usize = 6;
    const HIDDEN: usize = 32;
    const INNER: usize = 64;
    const K: usize = 2;
    /// [n, E]: four rows. Expert 5 is chosen by rows 0 and 2, expert 4 by none.
    const LOGITS: [f32; 4 * EXPERTS] = [
        0.0, 1.0, 0.0, 0.0, -1.0, 3.0, //
        4.0, 0.0, 3.0, 0.0, -1.0, 0.0, //
        0.0, 0.0, 0.0, 1.0, -1.0, 2.0, //
        2.0, 1.0, 0.0, 0.0, -1.0, 0.0, //
    ];
    const ROWS: usize = LOGITS.len() / EXPERTS;

    /// A layer of float experts in a file, and their bytes.
    struct Bank {
        dir: tempfile::TempDir,
        bytes: Vec<u8>,
    }

    const PART_BYTES: usize = HIDDEN * INNER * size_of::<f32>();

    impl Bank {
        fn new() -> Self {
            let weights = numbers(7, EXPERTS * 3 * HIDDEN * INNER, 0.1);
            let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("experts"), &bytes).unwrap();
            Self { dir, bytes }
        }

        fn matrix(&self, expert: u32, part: usize) -> MatrixView<'_> {
            let start = (3 * expert as usize + part) * PART_BYTES;
            let (rows, cols) = if part == 2 { (HIDDEN, INNER) } else { (INNER, HIDDEN) };
            MatrixView::new(Format::F32, rows, cols, &self.bytes[start..start + PART_BYTES]).unwrap()
        }

        fn local(&self, slots: usize, plan: FaultPlan) -> Local {
            let storage = FaultyStorage::new(FileStorage::new(Default::default()).unwrap(), plan).unwrap();
            let file = storage.open(&self.dir.path().join("experts")).unwrap();
            let part = |which: usize| {
                let view = self.matrix(0, which);
                let offset = (which * PART_BYTES) as u64;
                ExpertPart { format: view.format, rows: view.rows, cols: view.cols, extent: 0, offset }
            };
            let bytes = 3 * PART_BYTES as u64;
            let extent = |expert: u64| vec![Extent { file: 0, offset: expert * bytes, bytes }];
            let layer = LayerExperts {
                parts: [part(0), part(1), part(2)],
                extents: (0..EXPERTS as u64).map(extent).collect(),
                checksums: None,
            };
            let options =
                StoreOptions { slots, verify: Verify::FirstLoad, lookahead: true, policy: PolicyKind::Lru };
            let table = ExpertTable { layers: vec![layer] };
            Local::new(ExpertStore::new(table, &[file], storage, options).unwrap())
        }

        /// The outputs without any store.
        fn expected(&self, backend: &mut CpuBackend, routing: &Routing, h: &CpuBuffer) -> Vec<f32> {
            let mut out = backend.buffer(ROWS * K * HIDDEN).unwrap();
            for &expert in routing.used() {
                let [gate, up, down] = [0, 1, 2].map(|part| self.matrix(expert, part));
                let (x_rows, out_rows) = routing.rows(expert);
                let weights = ExpertWeights { gate, up, down };
                backend.experts(&[ExpertRows { weights, x_rows, out_rows }], h, &mut out);
            }
            read(backend, &out)
        }
    }

    fn read(backend: &mut CpuBackend, out: &CpuBuffer) -> Vec<f32> {
        let mut values = vec![0.0; ROWS * K * HIDDEN];
        backend.read(out, 0, &mut values).unwrap();
        values
    }

    fn cpu() -> (CpuBackend, CpuBuffer, Routing) {
        let mut backend = CpuBackend::new(CpuOptions { threads: 2, isa: None }).unwrap();
        let mut h = backend.buffer(ROWS * HIDDEN).unwrap();
        backend.write(&mut h, 0, &numbers(3, ROWS * HIDDEN, 1.0));
        let mut routing = Routing::new(EXPERTS, K, ROWS);
        let router = Router::new(RouterSpec::SOFTMAX, EXPERTS, K);
        assert!(routing.route(&router, &LOGITS).is_empty());
        (backend, h, routing)
    }

    /// One layer, polled `polls` times before it is waited for.
    fn run(
        backend: &mut CpuBackend,
        exec: &mut dyn ExpertExec<CpuBackend>,
        chosen: &Chosen<'_, CpuBackend>,
        polls: usize,
    ) -> Vec<f32> {
        let (mut out, mut phases) = (backend.buffer(ROWS * K * HIDDEN).unwrap(), Phases::default());
        let mut progress = exec.start(backend, chosen).unwrap();
        for poll in 0.. {
            if progress == Progress::Done {
                break;
            }
            progress = exec.run_ready(backend, chosen, &mut out, &mut phases, poll >= polls);
        }
        read(backend, &out)
    }

    #[test]
    fn outputs_lie_by_row_and_rank_whatever_the_slots_and_the_order() {
        let (bank, (mut backend, h, routing)) = (Bank::new(), cpu());
        let expected = bank.expected(&mut backend, &routing, &h);
        assert!(expected.iter().any(|value| *value != 0.0));
        for phase in [ops::Phase::Decode, ops::Phase::Prefill] {
            let decoding = if phase == ops::Phase::Decode { ROWS } else { 0 };
            let chosen = Chosen { layer: 0, phase, n: ROWS, decoding, routing: &routing, h: &h };
            for (slots, seed) in [(1, 1), (2, 2), (EXPERTS, 3), (EXPERTS, 4)] {
                let plan = FaultPlan { seed, latency_us_max: 500, ..Default::default() };
                let mut local = bank.local(slots, plan);
                for polls in [0, 5] {
                    let got = run(&mut backend, &mut local, &chosen, polls);
                    assert_eq!(got, expected, "{phase:?}, {slots} slots, {polls} polls");
                    let exec: &dyn ExpertExec<CpuBackend> = &local;
                    let mut computed = exec.computed().to_vec();
                    computed.sort_unstable();
                    assert_eq!((computed.as_slice(), exec.failures().len()), (routing.used(), 0));
                }
            }
        }
    }

    #[test]
    fn a_failed_expert_is_named_and_the_others_are_computed() {
        let (bank, (mut backend, h, routing)) = (Bank::new(), cpu());
        let expected = bank.expected(&mut backend, &routing, &h);
        let chosen =
            Chosen { layer: 0, phase: ops::Phase::Decode, n: ROWS, decoding: ROWS, routing: &routing, h: &h };
        for (nth, &fated) in routing.used().iter().enumerate() {
            let plan = FaultPlan { fail_nth_demand: Some(nth as u64), ..Default::default() };
            let mut local = bank.local(3, plan);
            let got = run(&mut backend, &mut local, &chosen, 0);
            let failures = ExpertExec::<CpuBackend>::failures(&local).to_vec();
            assert_eq!((failures.len(), failures[0].expert), (1, fated));
            assert!(failures[0].error.to_string().contains("offset"), "{}", failures[0].error);
            let (_, lost) = routing.rows(fated);
            let outputs = got.chunks_exact(HIDDEN).zip(expected.chunks_exact(HIDDEN));
            for (row, (got, expected)) in (0u32..).zip(outputs) {
                assert!(got == expected || lost.contains(&row), "expert {fated} fails, output {row}");
            }
            assert_eq!(run(&mut backend, &mut local, &chosen, 0), expected, "the next pass is whole");
        }
    }

    #[test]
    fn hinted_experts_are_read_before_their_layer_starts() {
        let (bank, (mut backend, h, routing)) = (Bank::new(), cpu());
        let mut local = bank.local(EXPERTS - 1, FaultPlan::default());
        let hint = Hint { layer: 0, phase: Phase::Decode, tokens: ROWS };
        let exec: &mut dyn ExpertExec<CpuBackend> = &mut local;
        exec.hint(&hint, &mut |ranked| ranked.extend([5, 0])).unwrap();
        assert!(exec.hint(&hint, &mut |ranked| ranked.push(EXPERTS as u32)).is_err());
        let place = |expert| local.store().place(ExpertId { layer: 0, expert }).unwrap();
        assert!(place(5) != Place::Disk && place(0) != Place::Disk && place(1) == Place::Disk);
        let chosen =
            Chosen { layer: 0, phase: ops::Phase::Decode, n: ROWS, decoding: ROWS, routing: &routing, h: &h };
        let got = run(&mut backend, &mut local, &chosen, 0);
        assert_eq!(got, bank.expected(&mut backend, &routing, &h));
        assert_eq!(local.store().lookahead_stats().reads_used, 2);
    }

    #[test]
    fn an_executor_can_stand_behind_the_seam_on_another_thread() {
        fn assert_send<T: Send>() {}
        assert_send::<Local>();
        assert_send::<Arc<Failed>>();
    }
}
