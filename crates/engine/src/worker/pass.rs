//! One pass: its rows, running it, and what becomes of its sequences.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use models::{ModelError, PromptPart, Step};
use ops::{PAGE_TOKENS, Phase, Rows};
use tracing::{Span, field};

use super::{Sequence, Worker};
use crate::channel::Channel;
use crate::kv_cache::{Keep, KvCache};
use crate::stats::Counters;
use crate::{EngineError, Event, FinishReason, Logits};

/// Tokens from which on a prompt goes through the recurrent layers in blocks. Shorter ones go token
/// by token.
const CHUNKED_TOKENS_MIN: usize = 16;

/// Consecutive positions of a prompt, with the slot that keeps the state after them.
struct Piece {
    id: u64,
    pos: usize,
    end: usize,
    keep: Option<(u32, Keep)>,
}

/// Prompt rows that go through the layers together, some layers in each pass.
#[derive(Default)]
pub(super) struct Part {
    pieces: Vec<Piece>,
    /// Those of the pass at hand, or of the last one.
    pub(super) layers: Range<usize>,
}

impl Part {
    /// Adds positions of a prompt, cut where its state is worth keeping.
    pub(super) fn add(&mut self, sequence: &Sequence, pos: usize, end: usize, cache: &mut KvCache) {
        let mut from = pos;
        let snapshots = if cache.is_recurrent() { sequence.snapshots(pos, end) } else { Vec::new() };
        for (position, keep) in snapshots {
            let Some(slot) = cache.snapshot_slot(keep) else { continue };
            self.pieces.push(Piece { id: sequence.id, pos: from, end: position, keep: Some((slot, keep)) });
            from = position;
        }
        if from < end {
            self.pieces.push(Piece { id: sequence.id, pos: from, end, keep: None });
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.pieces.iter().map(|piece| piece.end - piece.pos).sum()
    }

    /// Its sequences, some of them more than once.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.pieces.iter().map(|piece| piece.id)
    }

    /// Slots that it was to fill.
    pub(super) fn kept(&self) -> impl Iterator<Item = u32> {
        self.pieces.iter().filter_map(|piece| Some(piece.keep?.0))
    }
}

/// Rows of one pass. Its buffers are kept from pass to pass.
#[derive(Default)]
pub(super) struct Pass {
    tokens: Vec<u32>,
    rows: Vec<Rows>,
    prompt_tokens: Vec<u32>,
    prompt_rows: Vec<Rows>,
    pages: Vec<u32>,
    wanted: Vec<u32>,
    /// Of each wanted row: index of the sequence, position.
    places: Vec<(usize, usize)>,
    /// Of each entry of `rows`, then of `prompt_rows`: index of the sequence.
    members: Vec<usize>,
    channels: Vec<Arc<Channel>>,
    layers: Option<Range<usize>>,
    progress: Vec<Progress>,
}

/// A prompt on its way through the layers.
struct Progress {
    id: u64,
    channel: Arc<Channel>,
    /// Tokens to compute, those computed, and those of this part.
    total: usize,
    done: usize,
    rows: usize,
}

impl Pass {
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.rows.clear();
        self.prompt_tokens.clear();
        self.prompt_rows.clear();
        self.pages.clear();
        self.wanted.clear();
        self.places.clear();
        self.members.clear();
        self.channels.clear();
        self.progress.clear();
        self.layers = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn add_pages(&mut self, sequence: &Sequence, end: usize) -> (u32, u32) {
        let (first, count) = (self.pages.len(), end.div_ceil(PAGE_TOKENS));
        self.pages.extend_from_slice(&sequence.held.pages[..count]);
        (first as u32, count as u32)
    }

    /// Adds the last token of a sequence that decodes.
    pub(super) fn add_decoding(&mut self, index: usize, sequence: &Sequence) {
        let (row, pos) = (self.tokens.len() as u32, sequence.computed);
        let pages = self.add_pages(sequence, pos + 1);
        self.tokens.push(sequence.tokens[pos]);
        self.rows.push(Rows {
            first: row,
            len: 1,
            pos: pos as u32,
            phase: Phase::Decode,
            chunked: false,
            state: sequence.held.slot.unwrap_or_default(),
            keep: None,
            pages,
        });
        self.wanted.push(row);
        self.places.push((index, pos));
        self.members.push(index);
        self.channels.push(sequence.channel.clone());
    }

    /// Adds a prompt part, whose logits are wanted when it comes out of the last of `layers`
    /// layers.
    pub(super) fn add_part(&mut self, part: &Part, running: &[Sequence], layers: usize) {
        let out = part.layers.end == layers;
        for piece in &part.pieces {
            let Some(index) = running.iter().position(|sequence| sequence.id == piece.id) else { continue };
            let sequence = &running[index];
            let first = self.prompt_tokens.len();
            let pages = self.add_pages(sequence, piece.end);
            self.prompt_tokens.extend_from_slice(&sequence.tokens[piece.pos..piece.end]);
            self.prompt_rows.push(Rows {
                first: (self.tokens.len() + first) as u32,
                len: (piece.end - piece.pos) as u32,
                pos: piece.pos as u32,
                phase: Phase::Prefill,
                chunked: sequence.prompt_len >= CHUNKED_TOKENS_MIN,
                state: sequence.held.slot.unwrap_or_default(),
                keep: piece.keep.map(|(slot, _)| slot),
                pages,
            });
            self.members.push(index);
            self.channels.push(sequence.channel.clone());
            self.add_progress(piece, sequence);
            let all = sequence.request.logits == Logits::All;
            let wants = |position: &usize| all || position + 1 == sequence.prompt_len;
            for position in
                (piece.pos..piece.end).filter(|position| out && !sequence.ended && wants(position))
            {
                self.wanted.push((self.tokens.len() + first + position - piece.pos) as u32);
                self.places.push((index, position));
            }
        }
        self.layers = Some(part.layers.clone());
    }

    fn add_progress(&mut self, piece: &Piece, sequence: &Sequence) {
        let rows = piece.end - piece.pos;
        match self.progress.last_mut().filter(|progress| progress.id == piece.id) {
            Some(progress) => progress.rows += rows,
            None if sequence.ended => {}
            None => self.progress.push(Progress {
                id: piece.id,
                channel: sequence.channel.clone(),
                total: sequence.prompt_len - sequence.held.reused,
                done: sequence.computed - sequence.held.reused,
                rows,
            }),
        }
    }

    /// Tells callers that their prompts are through the first `layers` layers of this pass, of
    /// `all` that there are.
    fn report_progress(&self, layers: usize, all: usize) {
        let Some(range) = &self.layers else { return };
        let through = range.end.min(range.start + layers);
        for &Progress { ref channel, total, done, rows, .. } in &self.progress {
            let work = (done * all + rows * through) as f32 / (total * all).max(1) as f32;
            channel.push(Event::Prefill { done: done + rows * through / all, total, share: work });
        }
    }

    fn step(&self) -> Step<'_> {
        let prompt = self.layers.clone().map(|layers| PromptPart {
            tokens: &self.prompt_tokens,
            rows: &self.prompt_rows,
            layers,
        });
        Step { tokens: &self.tokens, rows: &self.rows, pages: &self.pages, prompt, wanted: &self.wanted }
    }
}

impl Worker {
    /// Runs the pass; samples from its logits as they come.
    pub(super) fn run_pass(&mut self) {
        let started = Instant::now();
        let (span, before) = (self.pass_span(), self.counters());
        let _entered = span.enter();
        let ticks = Cell::new(0);
        let Self { runtime, pass, running, .. } = self;
        let cancel = || {
            pass.report_progress(ticks.replace(ticks.get() + 1), self.limits.layers);
            pass.channels.iter().all(|channel| channel.is_cancelled())
        };
        let mut sink = |row: u32, logits: &[f32]| {
            // Rows come in the order in which they are wanted.
            if let Ok(at) = pass.wanted.binary_search(&row) {
                let (index, position) = pass.places[at];
                running[index].take_logits(position, logits);
            }
        };
        let result = runtime.forward(&pass.step(), &cancel, &mut sink);
        let part = pass.layers.as_ref().map(|layers| (pass.prompt_tokens.len(), layers.len()));
        let decoding = !pass.rows.is_empty();
        self.record_reads(&span, before);
        match result {
            Ok(failures) => {
                self.pace.note(started.elapsed(), decoding, part);
                for (entry, error) in failures {
                    self.fail(entry, EngineError::Model(error));
                }
                self.advance();
            }
            Err(error) => self.fail_all(error),
        }
    }

    /// The span of a pass in the log: its rows and layers and, at its end, its reads.
    fn pass_span(&self) -> Span {
        let layers = self.pass.layers.clone().unwrap_or(0..self.limits.layers);
        tracing::debug_span!(
            "pass",
            decode_rows = self.pass.rows.len(),
            prompt_rows = self.pass.prompt_tokens.len(),
            prompt_layers = ?self.pass.layers.as_ref().map(|_| layers),
            experts_resident = field::Empty,
            experts_missing = field::Empty,
            read_bytes = field::Empty,
            read_wait_us = field::Empty,
        )
    }

    fn record_reads(&self, span: &Span, before: Counters) {
        let after = self.counters();
        span.record("experts_resident", after.hits - before.hits);
        span.record("experts_missing", after.requests - before.requests - (after.hits - before.hits));
        span.record("read_bytes", after.bytes_read - before.bytes_read);
        span.record("read_wait_us", after.read_wait_us - before.read_wait_us);
    }

    /// Fails the sequence of an entry of `rows` or `prompt_rows`.
    fn fail(&mut self, entry: usize, error: EngineError) {
        let Some(index) = self.pass.members.get(entry) else { return };
        let sequence = &mut self.running[*index];
        sequence.spoilt = true;
        if !sequence.ended {
            sequence.end(Err(error));
        }
    }

    /// Ends a pass that failed as a whole, or that all its callers cancelled.
    fn fail_all(&mut self, error: ModelError) {
        let cancelled = matches!(error, ModelError::Cancelled);
        let error = Arc::new(error);
        for entry in 0..self.pass.members.len() {
            match cancelled {
                // Their callers get what they have so far.
                true => self.running[self.pass.members[entry]].spoilt = true,
                false => self.fail(entry, EngineError::Pass(error.clone())),
            }
        }
        if self.pass.layers.is_some() {
            self.drop_part();
        }
    }

    /// Advances the sequences by the rows of the pass.
    fn advance(&mut self) {
        for (rows, index) in self.pass.rows.iter().zip(&self.pass.members) {
            self.running[*index].computed += rows.len as usize;
        }
        if self.pass.layers.as_ref().is_some_and(|layers| layers.end == self.limits.layers)
            && let Some(part) = self.part.take()
        {
            let counters = self.counters();
            for piece in part.pieces {
                self.finish_piece(&piece, counters);
            }
        }
    }

    /// A piece of a prompt has been through all layers.
    fn finish_piece(&mut self, piece: &Piece, counters: Counters) {
        let live = self.running.iter_mut().find(|sequence| sequence.id == piece.id);
        let Some(sequence) = live.filter(|sequence| !sequence.ended) else {
            if let Some((slot, _)) = piece.keep {
                self.cache.give_back_slot(slot);
            }
            return self.spoil(piece.id);
        };
        sequence.computed = piece.end;
        let done = piece.end == sequence.prompt_len;
        if done {
            sequence.prompt_done(counters);
        }
        sequence.report_progress();
        let (tokens, pages) = (&sequence.tokens, &sequence.held.pages);
        if let Some((slot, keep)) = piece.keep {
            self.cache.remember(&tokens[..piece.end], pages, Some((slot, keep)));
            if let Some(sessions) = self.sessions.as_mut().filter(|_| keep > Keep::Periodic) {
                sessions.add(&tokens[..piece.end]);
            }
        } else if done {
            // Full pages are of use to others from now on; the last one when the request has ended.
            self.cache.remember(&tokens[..piece.end / PAGE_TOKENS * PAGE_TOKENS], pages, None);
        }
    }

    /// A sequence that ended while the layers had its rows.
    fn spoil(&mut self, id: u64) {
        let sequences = self.running.iter_mut().filter(|sequence| sequence.id == id);
        sequences.for_each(|sequence| sequence.spoilt = true);
    }

    /// Goes on with the tokens that were chosen.
    pub(super) fn emit(&mut self) {
        let counters = self.counters();
        for sequence in self.running.iter_mut().filter(|sequence| !sequence.ended) {
            let Some(chosen) = sequence.chosen.take() else { continue };
            // A cancelled channel drops logits, so the request must not end as complete.
            if sequence.channel.is_cancelled() {
                sequence.finish(FinishReason::Cancelled, counters, &self.about);
                continue;
            }
            match chosen.and_then(|id| sequence.accept(id)) {
                Ok(None) => {}
                Ok(Some(reason)) => sequence.finish(reason, counters, &self.about),
                Err(error) => sequence.end(Err(error)),
            }
        }
    }
}
