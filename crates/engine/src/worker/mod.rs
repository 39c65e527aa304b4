//! The engine's thread. It owns model, expert store and states; a step is: admit, schedule, run,
//! sample, emit.

mod pass;
mod schedule;
mod sequence;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub(crate) use sequence::{Checked, Sequence};

use self::pass::{Part, Pass};
use self::schedule::{Claim, Grid, Pace, share_out};
use self::sessions::Sessions;
use crate::inbox::{self, Letters};
use crate::kv_cache::{Keep, KvCache};
use crate::plan::MemoryPlan;
use crate::runtime::Runtime;
use crate::session_cache::SessionCache;
use crate::stats::{Counters, EngineStats, RunStats};
use crate::{EngineError, FinishReason, Priority};

/// Interactive requests that are admitted while a background one waits before it is its turn.
const ADMITTED_BEFORE_BACKGROUND: usize = 4;

/// Where callers hand in what this thread is to do.
pub(crate) type Inbox = inbox::Inbox<Sequence, Worker>;

/// Sizes that do not change while a model is loaded.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Limits {
    /// Requests that run at once.
    pub(crate) parallel: usize,
    /// Rows of a prompt part.
    pub(crate) chunk_tokens: usize,
    /// Longest pass in which a prompt has company.
    pub(crate) pass_time_max: Duration,
    /// Layers of the model.
    pub(crate) layers: usize,
    /// Experts of a token: fewer slots than that do not work.
    pub(crate) slots_min: usize,
}

/// The state of the engine's thread.
pub(crate) struct Worker {
    pub(crate) runtime: Box<dyn Runtime>,
    pub(crate) cache: KvCache,
    limits: Limits,
    inbox: Arc<Inbox>,
    /// Requests that do not run yet, by priority.
    waiting: [VecDeque<Sequence>; 2],
    running: Vec<Sequence>,
    /// Prompt rows that are on their way through the layers.
    part: Option<Part>,
    pass: Pass,
    pace: Pace,
    /// Prompt parts so far.
    round: u64,
    /// Interactive requests admitted while a background one waited.
    overtaken: usize,
    /// The figures that are the same for all requests.
    about: RunStats,
    plan: Arc<Mutex<MemoryPlan>>,
    halve_slots: Arc<AtomicBool>,
    sessions: Option<Sessions>,
}

/// Arguments of [`Worker::new`].
pub(crate) struct Parts {
    pub(crate) runtime: Box<dyn Runtime>,
    pub(crate) cache: KvCache,
    pub(crate) limits: Limits,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) about: RunStats,
    pub(crate) plan: Arc<Mutex<MemoryPlan>>,
    pub(crate) halve_slots: Arc<AtomicBool>,
    pub(crate) sessions: Option<SessionCache>,
}

impl Worker {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { runtime, cache, limits, inbox, about, plan, halve_slots, sessions } = parts;
        Self {
            runtime,
            cache,
            limits,
            inbox,
            waiting: Default::default(),
            running: Vec::with_capacity(limits.parallel),
            part: None,
            pass: Pass::default(),
            pace: Pace::new(limits.pass_time_max),
            round: 0,
            overtaken: 0,
            about,
            plan,
            halve_slots,
            sessions: sessions.map(Sessions::new),
        }
    }

    /// Serves requests until the last handle is gone.
    pub(crate) fn run(mut self) {
        let mut idle = true;
        while !self.inbox.is_closing() {
            self.take_letters(idle);
            idle = !self.step();
            self.write_sessions(false);
        }
        self.write_sessions(true);
    }

    fn take_letters(&mut self, idle: bool) {
        let inbox = self.inbox.clone();
        let Letters { requests, calls, .. } = inbox.take(idle);
        calls.into_iter().for_each(|call| call(self));
        for sequence in requests {
            self.waiting[sequence.request.priority as usize].push_back(sequence);
        }
    }

    /// One pass through the model, or through some layers of it. Returns whether there was anything
    /// to compute.
    pub(crate) fn step(&mut self) -> bool {
        self.end_cancelled();
        self.retire();
        self.admit();
        self.schedule();
        if self.pass.is_empty() {
            return false;
        }
        self.halve_slots_if_asked();
        self.run_pass();
        self.emit();
        self.retire();
        true
    }

    /// Ends cancelled requests.
    fn end_cancelled(&mut self) {
        let counters = self.counters();
        let mut left = 0;
        for queue in &mut self.waiting {
            queue.retain_mut(|sequence| {
                let cancelled = sequence.channel.is_cancelled();
                if cancelled {
                    sequence.finish(FinishReason::Cancelled, counters, &self.about);
                    left += 1;
                }
                !cancelled
            });
        }
        (0..left).for_each(|_| self.inbox.left_queue());
        let live = self.running.iter_mut().filter(|sequence| !sequence.ended);
        for sequence in live.filter(|sequence| sequence.channel.is_cancelled()) {
            sequence.finish(FinishReason::Cancelled, counters, &self.about);
        }
    }

    /// Takes back what ended requests held, and remembers what they computed.
    fn retire(&mut self) {
        let live =
            |running: &[Sequence], id| running.iter().any(|sequence| sequence.id == id && !sequence.ended);
        if self.part.as_ref().is_some_and(|part| !part.ids().any(|id| live(&self.running, id))) {
            self.drop_part();
        }
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &self.running[index];
            let in_part = self.part.as_ref().is_some_and(|part| part.ids().any(|id| id == sequence.id));
            if !sequence.ended || in_part {
                index += 1;
                continue;
            }
            let mut sequence = self.running.remove(index);
            let mut held = std::mem::take(&mut sequence.held);
            let (computed, spoilt) = (sequence.computed, sequence.spoilt);
            let state = held.slot.take_if(|_| !spoilt && computed > 0);
            let snapshot = state.map(|slot| (slot, Keep::Turn));
            let tokens = &sequence.tokens[..computed];
            self.cache.remember(tokens, &held.pages, snapshot);
            self.cache.release(held);
            self.write_later(tokens);
        }
    }

    /// Gives up a prompt part halfway. The states of its sequences are spoilt.
    fn drop_part(&mut self) {
        let Some(part) = self.part.take() else { return };
        for sequence in &mut self.running {
            sequence.spoilt |= part.ids().any(|id| id == sequence.id);
        }
        part.kept().for_each(|slot| self.cache.give_back_slot(slot));
    }

    /// Lets requests run, first come, first served, as long as all that they can need is there.
    fn admit(&mut self) {
        while self.running.len() < self.limits.parallel {
            let Some(queue) = self.next_queue() else { return };
            let Some(sequence) = self.waiting[queue].front() else { return };
            let (tokens, total) = (&sequence.tokens, sequence.total);
            let runtime = self.runtime.as_mut();
            let mut held = self.cache.reserve(runtime, tokens, sequence.reuse_max(), total);
            if held.is_none() && self.running.is_empty() {
                // Alone it fits, if it need not go on from what fills the pool.
                held = self.cache.reserve(runtime, tokens, 0, total);
            }
            let Some(mut held) = held else { return };
            if let Some(sessions) = &mut self.sessions {
                sessions.restore(runtime, tokens, sequence.reuse_max(), &mut held);
            }
            let counters = self.counters();
            let Some(mut sequence) = self.waiting[queue].pop_front() else { return };
            self.inbox.left_queue();
            self.overtaken = match queue {
                0 if !self.waiting[1].is_empty() => self.overtaken + 1,
                _ => 0,
            };
            sequence.admit(held, counters);
            sequence.served = self.round;
            self.running.push(sequence);
        }
    }

    fn next_queue(&self) -> Option<usize> {
        match (self.waiting[0].is_empty(), self.waiting[1].is_empty()) {
            (true, true) => None,
            (false, true) => Some(0),
            (true, false) => Some(1),
            (false, false) => Some(usize::from(self.overtaken >= ADMITTED_BEFORE_BACKGROUND)),
        }
    }

    /// Fills the next pass: a row of everybody who decodes, and some layers of a prompt part.
    fn schedule(&mut self) {
        self.pass.clear();
        for (index, sequence) in self.running.iter().enumerate() {
            if !sequence.ended && !sequence.in_prompt() && sequence.channel.has_room() {
                self.pass.add_decoding(index, sequence);
            }
        }
        let company = !self.pass.is_empty();
        if self.part.is_none() {
            self.part = self.new_part(company);
        }
        let Some(part) = &mut self.part else { return };
        let left = self.limits.layers - part.layers.end;
        let layers = match company {
            true => self.pace.layers(part.rows(), left),
            false => left,
        };
        part.layers = part.layers.end..part.layers.end + layers;
        self.pass.add_part(part, &self.running, self.limits.layers);
    }

    fn new_part(&mut self, company: bool) -> Option<Part> {
        let prompts = self.running.iter().filter(|sequence| !sequence.ended && sequence.in_prompt());
        let claims = prompts.filter(|sequence| sequence.channel.has_room()).map(|sequence| Claim {
            id: sequence.id,
            priority: sequence.request.priority,
            served: sequence.served,
            pos: sequence.computed,
            end: sequence.prompt_len,
        });
        let claims: Vec<Claim> = claims.collect();
        if claims.is_empty() {
            return None;
        }
        self.round += 1;
        let most = self.limits.chunk_tokens;
        let rows = if company { self.pace.rows(most) } else { most };
        let mut part = Part::default();
        for (id, pos, end) in share_out(claims, self.round, rows, Grid::new(most)) {
            let Some(sequence) = self.running.iter_mut().find(|sequence| sequence.id == id) else { continue };
            sequence.served = self.round;
            part.add(sequence, pos, end, &mut self.cache);
        }
        Some(part)
    }

    /// Counters of the expert store.
    pub(crate) fn counters(&self) -> Counters {
        Counters::of(self.runtime.store_stats())
    }

    /// Requests, pages and reads at this moment.
    pub(crate) fn stats(&self) -> EngineStats {
        EngineStats {
            running: self.running.len(),
            waiting: self.inbox.waiting(),
            pages: self.cache.blocks.len(),
            pages_free: self.cache.blocks.free(),
            pages_cached: self.cache.prefixes.pages(),
            snapshots: self.cache.prefixes.snapshots(),
            expert_bytes_read: self.runtime.store_stats().bytes_read,
        }
    }

    fn halve_slots_if_asked(&mut self) {
        if self.halve_slots.swap(false, Ordering::Relaxed) {
            let slots = self.plan().slots / 2;
            // With less memory to spare than before there is nothing to do but to go on.
            let _ = self.set_slots(slots.max(self.limits.slots_min));
        }
    }

    fn plan(&self) -> MemoryPlan {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_slots(&mut self, slots: usize) -> Result<usize, EngineError> {
        let slots = self.runtime.resize_slots(slots)?;
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).slots = slots;
        self.about.expert_slots = slots;
        Ok(slots)
    }

    /// See [`crate::Engine::set_memory_budget`].
    pub(crate) fn set_memory_budget(&mut self, bytes: u64) -> Result<usize, EngineError> {
        let slots = self.plan().slots_within(bytes, self.limits.slots_min)?;
        let slots = self.set_slots(slots)?;
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).budget_bytes = bytes;
        self.about.memory_budget_bytes = bytes;
        Ok(slots)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Requests that are dropped tell their callers.
        drop(self.inbox.shut());
    }
}

const _: () = assert!(Priority::Interactive as usize == 0 && Priority::Background as usize == 1);
