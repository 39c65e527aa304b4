//! The one place where the back-end's type is erased: everything above sees tokens in and logits
//! out.

use experts::{LookaheadStats, StoreStats};
use models::{Failures, Local, Model, ModelError, Phases, Run, Scratch, States, Step};
use ops::Backend;
use storage::AlignedBuf;

/// A model loaded on some back-end, with the pools of its sequences' states.
pub trait Runtime: Send {
    /// One pass; see [`Model::forward`]. `cancel` is called about once for each layer.
    ///
    /// # Errors
    /// A failure of the whole pass, or [`ModelError::Cancelled`].
    fn forward(
        &mut self,
        step: &Step<'_>,
        cancel: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(u32, &[f32]),
    ) -> Result<Failures, ModelError>;
    /// Sets a recurrent slot to the state of an empty sequence.
    fn clear_state(&mut self, slot: u32);
    /// Copies a recurrent slot.
    fn copy_state(&mut self, from: u32, to: u32);
    /// Copies the first `tokens` tokens of a page.
    fn copy_page(&mut self, from: u32, to: u32, tokens: u32);
    /// Appends the bytes of a page to `out`.
    ///
    /// # Errors
    /// The back-end cannot read it.
    fn save_page(&mut self, page: u32, out: &mut Vec<u8>) -> Result<(), ModelError>;
    /// Sets a page to bytes that [`Runtime::save_page`] gave.
    ///
    /// # Errors
    /// They are not as many.
    fn load_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), ModelError>;
    /// Appends the bytes of a recurrent slot to `out`.
    ///
    /// # Errors
    /// The back-end cannot read it.
    fn save_state(&mut self, slot: u32, out: &mut Vec<u8>) -> Result<(), ModelError>;
    /// Sets a recurrent slot to bytes that [`Runtime::save_state`] gave.
    ///
    /// # Errors
    /// They are not as many.
    fn load_state(&mut self, slot: u32, bytes: &[u8]) -> Result<(), ModelError>;
    /// Counters of the expert store since it was opened.
    fn store_stats(&self) -> &StoreStats;
    /// Statistics of prefetching since the model was opened.
    fn lookahead_stats(&self) -> &LookaheadStats;
    /// Where the time of the passes went since the model was opened.
    fn phases(&self) -> Phases;
    /// Fills the expert slots; see [`experts::ExpertStore::preload`].
    ///
    /// # Errors
    /// A failed read.
    fn preload(&mut self, cancel: &dyn Fn() -> bool) -> Result<usize, ModelError>;
    /// Changes the number of expert slots; see [`experts::ExpertStore::resize`].
    ///
    /// # Errors
    /// No memory for more.
    fn resize_slots(&mut self, slots: usize) -> Result<usize, ModelError>;
    /// Writes the rest of the trace; see [`experts::ExpertStore::flush_trace`].
    ///
    /// # Errors
    /// The file cannot be written.
    fn flush_trace(&mut self) -> Result<(), ModelError>;
    /// Lends slots; see [`experts::ExpertStore::lend_buffers`].
    ///
    /// # Errors
    /// No memory to give the slots back.
    fn lend_buffers(
        &mut self,
        count: usize,
        use_buffers: &mut dyn FnMut(&mut Vec<AlignedBuf>),
    ) -> Result<(), ModelError>;
}

/// A model, its back-end, its expert store, its sequences' states and its scratch.
pub(crate) struct Loaded<B: Backend> {
    pub(crate) backend: B,
    pub(crate) model: Model<B>,
    pub(crate) experts: Local,
    pub(crate) states: States<B>,
    pub(crate) scratch: Scratch<B>,
}

impl<B: Backend> Runtime for Loaded<B>
where
    Self: Send,
{
    fn forward(
        &mut self,
        step: &Step<'_>,
        cancel: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(u32, &[f32]),
    ) -> Result<Failures, ModelError> {
        let Self { backend, model, experts, states, scratch } = self;
        let mut run = Run { backend, experts, states, scratch, cancelled: cancel };
        model.forward(&mut run, step, sink)
    }

    fn clear_state(&mut self, slot: u32) {
        self.states.clear_slot(&mut self.backend, slot);
    }

    fn copy_state(&mut self, from: u32, to: u32) {
        self.states.copy_slot(&mut self.backend, from, to);
    }

    fn copy_page(&mut self, from: u32, to: u32, tokens: u32) {
        self.states.copy_page(&mut self.backend, from, to, tokens);
    }

    fn save_page(&mut self, page: u32, out: &mut Vec<u8>) -> Result<(), ModelError> {
        Ok(self.states.save_page(&mut self.backend, page, out)?)
    }

    fn load_page(&mut self, page: u32, bytes: &[u8]) -> Result<(), ModelError> {
        self.states.load_page(&mut self.backend, page, bytes)
    }

    fn save_state(&mut self, slot: u32, out: &mut Vec<u8>) -> Result<(), ModelError> {
        Ok(self.states.save_slot(&mut self.backend, slot, out)?)
    }

    fn load_state(&mut self, slot: u32, bytes: &[u8]) -> Result<(), ModelError> {
        self.states.load_slot(&mut self.backend, slot, bytes)
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

    fn preload(&mut self, cancel: &dyn Fn() -> bool) -> Result<usize, ModelError> {
        Ok(self.experts.store_mut().preload(&mut || !cancel())?)
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
