//! The one place where the back-end's type is erased: everything above sees tokens in and logits out.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};

use experts::{ExpertStore, LookaheadStats, StoreStats};
use models::model::Wanted;
use models::{Model, ModelError, Phases, Scratch, State};
use ops::{Backend, KvFormat};
use storage::AlignedBuf;

/// A model loaded on some back-end.
pub trait Runtime {
    /// The state of a new, empty sequence of at most `ctx` tokens, with keys and values in `kv`.
    fn new_state(&mut self, kv: KvFormat, ctx: usize) -> Box<dyn Any>;
    /// Back to the empty sequence.
    fn clear(&mut self, state: &mut dyn Any);
    /// Back to the first `pos` tokens; see [`State::rewind`].
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
    /// Fills the expert slots; see [`ExpertStore::preload`].
    fn preload(&mut self, cancel: &AtomicBool) -> Result<usize, ModelError>;
    /// Changes the number of expert slots; see [`ExpertStore::resize`].
    fn resize_slots(&mut self, slots: usize) -> Result<usize, ModelError>;
    /// Writes what is left of the trace; see [`ExpertStore::flush_trace`].
    fn flush_trace(&mut self) -> Result<(), ModelError>;
    /// Lends slots; see [`ExpertStore::lend_buffers`].
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
    pub(crate) store: ExpertStore,
    pub(crate) scratch: Scratch<B>,
}

fn state_of<B: Backend + 'static>(state: &mut dyn Any) -> &mut State<B>
where
    B::Buffer: 'static,
    B::KvCache: 'static,
{
    state
        .downcast_mut()
        .expect("a session is used with the engine that made it: a caller's mistake otherwise")
}

impl<B: Backend + 'static> Runtime for Loaded<B>
where
    B::Buffer: 'static,
    B::KvCache: 'static,
{
    fn new_state(&mut self, kv: KvFormat, ctx: usize) -> Box<dyn Any> {
        Box::new(State::new(&mut self.backend, self.model.config(), kv, ctx))
    }

    fn clear(&mut self, state: &mut dyn Any) {
        state_of::<B>(state).clear(&mut self.backend);
    }

    fn rewind(&mut self, state: &mut dyn Any, pos: usize) {
        state_of::<B>(state).rewind(pos);
    }

    fn forward(
        &mut self,
        state: &mut dyn Any,
        tokens: &[u32],
        wanted: Wanted,
        cancel: &AtomicBool,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        let Self { backend, model, store, scratch } = self;
        model.forward(backend, store, state_of(state), scratch, tokens, wanted, cancel, sink)
    }

    fn store_stats(&self) -> &StoreStats {
        self.store.stats()
    }

    fn lookahead_stats(&self) -> &LookaheadStats {
        self.store.lookahead_stats()
    }

    fn phases(&self) -> Phases {
        self.scratch.phases()
    }

    fn preload(&mut self, cancel: &AtomicBool) -> Result<usize, ModelError> {
        Ok(self.store.preload(&mut || !cancel.load(Ordering::Relaxed))?)
    }

    fn resize_slots(&mut self, slots: usize) -> Result<usize, ModelError> {
        Ok(self.store.resize(slots)?)
    }

    fn flush_trace(&mut self) -> Result<(), ModelError> {
        Ok(self.store.flush_trace()?)
    }

    fn lend_buffers(
        &mut self,
        count: usize,
        use_buffers: &mut dyn FnMut(&mut Vec<AlignedBuf>),
    ) -> Result<(), ModelError> {
        Ok(self.store.lend_buffers(count, use_buffers)?)
    }
}
