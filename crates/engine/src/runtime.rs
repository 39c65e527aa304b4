//! The one place where the back-end's type is erased: everything above sees tokens in and logits out.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::session::Wanted;

use experts::{LookaheadStats, StoreStats};
use models::{Failures, Local, Model, ModelError, Phases, Run, Scratch, States, Step};
use ops::{Backend, KvFormat, PAGE_TOKENS, Phase, Rows};
use storage::AlignedBuf;

/// A model loaded on some back-end.
pub trait Runtime {
    /// The state of a new, empty sequence of at most `ctx` tokens, with keys and values in `kv`.
    ///
    /// # Errors
    /// No memory.
    fn new_state(&mut self, kv: KvFormat, ctx: usize) -> Result<Box<dyn Any>, ModelError>;
    /// Back to the empty sequence.
    fn clear(&mut self, state: &mut dyn Any);
    /// Back to the first `pos` tokens; recurrent states cannot.
    fn rewind(&mut self, state: &mut dyn Any, pos: usize);
    /// One chunk; see [`Model::forward`].
    fn forward(
        &mut self,
        state: &mut dyn Any,
        tokens: &[u32],
        wanted: Wanted,
        cancel: &AtomicBool,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), ModelError>;
    /// Counters of the expert store since it was opened.
    fn store_stats(&self) -> &StoreStats;
    /// What reading ahead has done since the model was opened.
    fn lookahead_stats(&self) -> &LookaheadStats;
    /// Where the time of the steps went since the model was opened.
    fn phases(&self) -> Phases;
    /// Fills the expert slots; see [`experts::ExpertStore::preload`].
    fn preload(&mut self, cancel: &AtomicBool) -> Result<usize, ModelError>;
    /// Changes the number of expert slots; see [`experts::ExpertStore::resize`].
    fn resize_slots(&mut self, slots: usize) -> Result<usize, ModelError>;
    /// Writes what is left of the trace; see [`experts::ExpertStore::flush_trace`].
    fn flush_trace(&mut self) -> Result<(), ModelError>;
    /// Lends slots; see [`experts::ExpertStore::lend_buffers`].
    fn lend_buffers(
        &mut self,
        count: usize,
        use_buffers: &mut dyn FnMut(&mut Vec<AlignedBuf>),
    ) -> Result<(), ModelError>;
}

/// A model, its back-end, its expert store and its scratch.
pub(crate) struct Loaded<B: Backend> {
    pub(crate) backend: B,
    pub(crate) model: Model<B>,
    pub(crate) experts: Local,
    pub(crate) scratch: Scratch<B>,
}

/// The pools of one sequence.
struct Sequence<B: Backend> {
    states: States<B>,
    pages: Vec<u32>,
    pos: usize,
}

fn sequence_of<B: Backend + 'static>(state: &mut dyn Any) -> &mut Sequence<B>
where
    B::Buffer: 'static,
    B::KvPool: 'static,
{
    state
        .downcast_mut()
        .expect("a session is used with the engine that made it: a caller's mistake otherwise")
}

/// Prompts of at least this many tokens take the chunked form of the gated delta rule.
const CHUNKED_TOKENS_MIN: usize = 16;

impl<B: Backend + 'static> Runtime for Loaded<B>
where
    B::Buffer: 'static,
    B::KvPool: 'static,
{
    fn new_state(&mut self, kv: KvFormat, ctx: usize) -> Result<Box<dyn Any>, ModelError> {
        let pages = ctx.div_ceil(PAGE_TOKENS);
        let states = States::new(&mut self.backend, self.model.spec(), kv, pages, 1)?;
        Ok(Box::new(Sequence { states, pages: (0..pages as u32).collect(), pos: 0 }))
    }

    fn clear(&mut self, state: &mut dyn Any) {
        let sequence = sequence_of::<B>(state);
        sequence.pos = 0;
        sequence.states.clear_slot(&mut self.backend, 0);
    }

    fn rewind(&mut self, state: &mut dyn Any, pos: usize) {
        sequence_of::<B>(state).pos = pos;
    }

    fn forward(
        &mut self,
        state: &mut dyn Any,
        tokens: &[u32],
        wanted: Wanted,
        cancel: &AtomicBool,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        let Self { backend, model, experts, scratch } = self;
        let Sequence { states, pages, pos } = sequence_of::<B>(state);
        let len = tokens.len() as u32;
        let rows = Rows {
            first: 0,
            len,
            pos: *pos as u32,
            phase: if len == 1 { Phase::Decode } else { Phase::Prefill },
            chunked: tokens.len() >= CHUNKED_TOKENS_MIN,
            state: 0,
            pages: (0, pages.len() as u32),
        };
        let wanted: Vec<u32> = match wanted {
            Wanted::None => Vec::new(),
            Wanted::Last => vec![len - 1],
            Wanted::All => (0..len).collect(),
        };
        let step = Step { tokens, rows: &[rows], pages, prompt: None, wanted: &wanted };
        let cancelled = &|| cancel.load(Ordering::Relaxed);
        let mut run = Run { backend, experts, states, scratch, cancelled };
        let failures: Failures =
            model.forward(&mut run, &step, &mut |row, logits| sink(row as usize, logits))?;
        if let Some((_, error)) = failures.into_iter().next() {
            return Err(error);
        }
        *pos += tokens.len();
        Ok(())
    }

    fn store_stats(&self) -> &StoreStats {
        self.experts.store().stats()
    }

    fn lookahead_stats(&self) -> &LookaheadStats {
        self.experts.store().lookahead_stats()
    }

    fn phases(&self) -> Phases {
        self.scratch.phases()
    }

    fn preload(&mut self, cancel: &AtomicBool) -> Result<usize, ModelError> {
        Ok(self.experts.store_mut().preload(&mut || !cancel.load(Ordering::Relaxed))?)
    }

    fn resize_slots(&mut self, slots: usize) -> Result<usize, ModelError> {
        Ok(self.experts.store_mut().resize(slots)?)
    }

    fn flush_trace(&mut self) -> Result<(), ModelError> {
        Ok(self.experts.store_mut().flush_trace()?)
    }

    fn lend_buffers(
        &mut self,
        count: usize,
        use_buffers: &mut dyn FnMut(&mut Vec<AlignedBuf>),
    ) -> Result<(), ModelError> {
        Ok(self.experts.store_mut().lend_buffers(count, use_buffers)?)
    }
}
