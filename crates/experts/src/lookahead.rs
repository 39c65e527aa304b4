//! When to prefetch: the router of a layer, applied to the part of the hidden state that is known before
//! the layer's token mixer has run, and before the last experts of the layer before it have been
//! read, names experts; reading them then uses a drive that would be idle.
//!
//! This file decides, from measurements, whether that pays; `prefetch.rs` does the reading. The rules:
//!
//! * Prefetches are read behind all demand reads, and few at a time; one that has not begun when the
//!   layer's demand is known is cancelled if it was wrong (`storage::Storage::submit_ahead`). So a
//!   wrong guess costs the reads that are under way at that moment.
//! * In decoding, a guess of rank r is read only if guesses of that rank were right at least half of the
//!   time in that layer. With several sequences the guess ranks the union of their choices, and
//!   ranks are counted per sequence: of 8 sequences, the first 8 experts have rank 0.
//! * If right guesses saved less than guessing cost, prefetching is switched off and tried again later.
//! * A prompt's rows demand most experts of a layer, those of a short one the experts that the first
//!   rows' guesses name: all of that is prefetched, and neither ranks nor cost are judged.
//!
//! Other engines measured 53 to 89 % right guesses and a net effect between −30 % and +17 %: hence the gates.

use std::time::Instant;

use storage::StorageError;

use crate::loader::Landed;
use crate::{Hint, Phase};

/// Share of right guesses below which a rank of a layer is not read.
const PRECISION_MIN: f32 = 0.5;
/// Weight of the newest observation in a moving average.
const NEWEST: f32 = 1.0 / 16.0;
/// Layers that are guessed for before the cost is judged.
const TRIAL_LAYERS: u32 = 256;
/// Layers that pass without guessing after guessing has not paid.
const PAUSE_LAYERS: u32 = 8192;
/// Ranks that are kept apart; further ones count as the last.
const RANKS_MAX: usize = 16;

/// Statistics of prefetching.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LookaheadStats {
    /// Experts guessed, whether read or not.
    pub guessed: u64,
    /// Of those, experts that were then demanded.
    pub right: u64,
    /// Prefetches that were submitted.
    pub reads: u64,
    /// Of those, reads that were cancelled before they were done.
    pub withdrawn: u64,
    /// Of those, experts that were then demanded.
    pub reads_used: u64,
    /// Bytes read ahead for nothing.
    pub bytes_wasted: u64,
    /// Times that reading ahead was switched off because it did not pay.
    pub pauses: u64,
}

/// Measures guesses and decides how many to read.
#[derive(Debug)]
pub(crate) struct Lookahead {
    enabled: bool,
    /// [layer][rank]: moving average of right guesses; starts hopeful, so that it is measured at all.
    precision: Vec<[f32; RANKS_MAX]>,
    /// The guess for the layer whose demand comes next, best first, and the rows that it was made for.
    guess: Vec<u32>,
    guess_tokens: usize,
    guess_layer: Option<u32>,
    guessed_at: Instant,
    /// Whether the demand under way was guessed by [`Lookahead::guess`].
    judging: bool,
    /// Moving average: what a read of one expert takes when several are under way.
    read_us: f32,
    /// Time that right guesses saved and that guessing cost since the trial began.
    saved_us: f32,
    cost_us: f32,
    trial_layers: u32,
    pause_layers: u32,
    pub(crate) stats: LookaheadStats,
}

impl Lookahead {
    pub(crate) fn new(layers: usize, enabled: bool) -> Self {
        Self {
            enabled,
            precision: vec![[0.75; RANKS_MAX]; layers],
            guess: Vec::new(),
            guess_tokens: 1,
            guess_layer: None,
            guessed_at: Instant::now(),
            judging: false,
            read_us: 0.0,
            saved_us: 0.0,
            cost_us: 0.0,
            trial_layers: 0,
            pause_layers: 0,
            stats: LookaheadStats::default(),
        }
    }

    /// Whether a guess for the layer about to run is wanted. Counts the layer.
    pub(crate) fn wants_guess(&mut self, phase: Phase) -> bool {
        if !self.enabled || phase == Phase::Prefill {
            return self.enabled;
        }
        if self.pause_layers > 0 {
            self.pause_layers -= 1;
            return false;
        }
        true
    }

    /// Takes a decoding pass' guess, best first, that took `cost_us` to make. Returns how many experts of
    /// it, from the first, are worth reading.
    pub(crate) fn guess(&mut self, hint: &Hint, experts: &[u32], cost_us: f32) -> usize {
        self.guess.clear();
        self.guess.extend_from_slice(experts);
        self.guess_tokens = hint.tokens.max(1);
        self.guess_layer = Some(hint.layer);
        self.guessed_at = Instant::now();
        self.cost_us += cost_us;
        let (precision, tokens) = (&self.precision[hint.layer as usize], self.guess_tokens);
        (0..experts.len()).take_while(|rank| precision[bucket(*rank, tokens)] >= PRECISION_MIN).count()
    }

    /// The layer's demand is known: judges the guess. `wanted` says whether an expert was demanded.
    pub(crate) fn judge(&mut self, layer: u32, wanted: impl Fn(u32) -> bool) {
        self.judging = self.guess_layer.take() == Some(layer);
        if !self.judging {
            return;
        }
        let (precision, tokens) = (&mut self.precision[layer as usize], self.guess_tokens);
        for (rank, expert) in self.guess.iter().enumerate() {
            let right = wanted(*expert);
            self.stats.guessed += 1;
            self.stats.right += u64::from(right);
            average(&mut precision[bucket(rank, tokens)], if right { 1.0 } else { 0.0 });
        }
        self.trial_layers += 1;
        if self.trial_layers >= TRIAL_LAYERS {
            if self.saved_us < self.cost_us {
                self.pause_layers = PAUSE_LAYERS;
                self.stats.pauses += 1;
            }
            (self.saved_us, self.cost_us, self.trial_layers) = (0.0, 0.0, 0);
        }
    }

    /// A prefetched expert was demanded; `landed` says whether its read had ended by then.
    pub(crate) fn used(&mut self, landed: bool) {
        self.stats.reads_used += 1;
        if !self.judging {
            return;
        }
        let since_guess_us = self.guessed_at.elapsed().as_micros() as f32;
        self.saved_us += if landed { self.read_us } else { since_guess_us.min(self.read_us) };
    }

    /// A prefetched expert was not demanded.
    pub(crate) fn wasted(&mut self, bytes: u64) {
        self.stats.bytes_wasted += bytes;
    }

    /// The read of a prefetch that no demand has joined has ended.
    pub(crate) fn landed(&mut self, landed: &Landed) {
        if matches!(landed.outcome, Err(StorageError::Withdrawn)) {
            self.stats.withdrawn += 1;
            self.stats.bytes_wasted += landed.bytes_read;
        }
    }

    /// A wrong guess is still being read when the demand comes.
    pub(crate) fn in_the_way(&mut self) {
        if self.judging {
            self.cost_us += self.read_us;
        }
    }

    /// A batch of `reads` demand reads kept the drive busy for `busy_us`.
    pub(crate) fn drive_took(&mut self, reads: usize, busy_us: f32) {
        if reads > 0 && busy_us > 0.0 {
            average(&mut self.read_us, busy_us / reads as f32);
        }
    }
}

/// The rank's place in [`Lookahead::precision`] for a guess of so many rows.
fn bucket(rank: usize, tokens: usize) -> usize {
    (rank / tokens).min(RANKS_MAX - 1)
}

/// Moves an average towards a value; the first value is taken as it is.
fn average(average: &mut f32, value: f32) {
    *average = if *average == 0.0 { value } else { *average + NEWEST * (value - *average) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One layer's life: guess, then demand for `wanted`.
    fn round(lookahead: &mut Lookahead, guess: &[u32], wanted: &[u32]) -> usize {
        let hint = Hint { layer: 0, phase: Phase::Decode, tokens: 1 };
        let reads = lookahead.guess(&hint, guess, 1.0);
        lookahead.judge(0, |expert| wanted.contains(&expert));
        reads
    }

    #[test]
    fn a_rank_that_is_wrong_most_of_the_time_is_not_read() {
        let mut lookahead = Lookahead::new(1, true);
        for _ in 0..100 {
            round(&mut lookahead, &[1, 2, 3], &[1, 2]);
            lookahead.used(true);
            lookahead.drive_took(10, 100.0);
        }
        assert_eq!(round(&mut lookahead, &[1, 2, 3], &[1, 2]), 2);
    }

    #[test]
    fn ranks_of_several_sequences_are_counted_per_sequence() {
        let hint = Hint { layer: 0, phase: Phase::Decode, tokens: 2 };
        let mut lookahead = Lookahead::new(1, true);
        for _ in 0..100 {
            lookahead.guess(&hint, &[5, 6, 7, 8, 9], 1.0);
            lookahead.judge(0, |expert| expert < 7);
        }
        assert_eq!(lookahead.guess(&hint, &[5, 6, 7, 8, 9], 1.0), 2);
        // One sequence alone: its first choice has the first rank.
        assert_eq!(round(&mut lookahead, &[5, 6, 7], &[5]), 1);
    }

    #[test]
    fn guessing_that_does_not_pay_pauses_and_is_tried_again() {
        let mut lookahead = Lookahead::new(1, true);
        for _ in 0..TRIAL_LAYERS {
            assert!(lookahead.wants_guess(Phase::Decode));
            round(&mut lookahead, &[1], &[2]);
        }
        assert!(!lookahead.wants_guess(Phase::Decode));
        assert_eq!(lookahead.stats.pauses, 1);
        for _ in 0..PAUSE_LAYERS {
            lookahead.wants_guess(Phase::Decode);
        }
        assert!(lookahead.wants_guess(Phase::Decode));
        assert!(!Lookahead::new(1, false).wants_guess(Phase::Decode));
    }
}
