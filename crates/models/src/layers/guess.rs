//! Asking a layer's router before the layer's turn, so that its experts can be read ahead (`experts/src/lookahead.rs` says when
//! that pays). No answer depends on it.

use std::cmp::Reverse;
use std::time::Instant;

use experts::{ExpertStore, Fetch};
use ops::Backend;

use crate::layers::moe::{Moe, MoeScratch, Routing};
use crate::{Config, ModelError};

/// Tokens of a chunk that another layer's router is asked for. Of a longer chunk every expert is likely to be chosen.
const GUESS_TOKENS_MAX: usize = 64;

/// What guessing another layer's experts takes, for g tokens.
pub(super) struct GuessScratch<B: Backend> {
    x: B::Buffer,      // [g, H], what is known of the residual stream
    h: B::Buffer,      // [g, H], normed
    logits: B::Buffer, // [g, E]
    host_logits: Vec<f32>,
    routing: Routing,
    weights: Vec<f32>, // [g, K], of the experts that are computed; 0 for the others
    experts: Vec<u32>, // the guess, best first
}

/// The MoE block of a layer and the norm before it, whose router is asked early.
pub struct Upcoming<'a, B: Backend> {
    /// The block.
    pub moe: &'a Moe<B>,
    /// [H]
    pub norm: &'a B::Buffer,
    /// Of the norm.
    pub eps: f32,
}

impl<B: Backend> GuessScratch<B> {
    /// For chunks of up to `n` tokens.
    pub(super) fn new(backend: &mut B, config: &Config, n: usize) -> Self {
        let tokens = n.min(GUESS_TOKENS_MAX);
        let (experts, k) = (config.num_experts, config.num_experts_per_tok);
        Self {
            x: backend.buffer(tokens * config.hidden_size),
            h: backend.buffer(tokens * config.hidden_size),
            logits: backend.buffer(tokens * experts),
            host_logits: vec![0.0; tokens * experts],
            routing: Routing::new(experts, k, tokens),
            weights: vec![0.0; tokens * k],
            experts: Vec::with_capacity(experts),
        }
    }

    /// Floats that [`GuessScratch::new`] takes.
    pub(super) fn len(config: &Config, n: usize) -> usize {
        let per_token = 2 * config.hidden_size + 2 * config.num_experts + 4 * config.num_experts_per_tok;
        n.min(GUESS_TOKENS_MAX) * per_token + 4 * config.num_experts
    }

    /// A layer begins, of which nothing is computed.
    pub(super) fn begin(&mut self) {
        self.weights.fill(0.0);
    }

    /// The output of an expert of a single token is there.
    pub(super) fn computed(&mut self, routing: &Routing, expert: u32) {
        for ((weight, known), chosen) in self.weights.iter_mut().zip(&routing.weights).zip(&routing.chosen) {
            if *chosen == expert {
                *weight = *known;
            }
        }
    }

    /// Of `n` tokens, of which the first were routed, the experts in the order in which they are likely to be of use: of one
    /// token the router's, of several those that most chose; then, if there are further tokens, all others.
    fn rank_experts(&mut self, n: usize, num_experts: usize) {
        let Routing { used, starts, chosen, k, .. } = &self.routing;
        self.experts.clear();
        if n == 1 {
            self.experts.extend_from_slice(chosen);
            return;
        }
        let tokens = |expert: u32| starts[expert as usize + 1] - starts[expert as usize];
        self.experts.extend_from_slice(used);
        self.experts.sort_by_key(|expert| Reverse(tokens(*expert)));
        if n * k > chosen.len() {
            self.experts.extend((0..num_experts as u32).filter(|expert| tokens(*expert) == 0));
        }
    }
}

impl<B: Backend> Upcoming<'_, B> {
    /// Guesses, from the residual stream `x` [n, H] that enters the layer, which experts its router will choose, and lets
    /// the store read them while the token mixer runs. Changes no answer.
    ///
    /// # Errors
    /// None that a correct table can give; whatever is wrong with a read shows when the expert is asked for.
    pub fn guess(
        &self,
        backend: &mut B,
        store: &mut ExpertStore,
        (x, n): (&B::Buffer, usize),
        scratch: &mut MoeScratch<B>,
    ) -> Result<(), ModelError> {
        if !store.wants_guess(n) {
            return Ok(());
        }
        let (guess, started) = (&mut scratch.guess, Instant::now());
        backend.copy(x, 0, &mut guess.x, 0, n.min(GUESS_TOKENS_MAX) * self.moe.hidden);
        if self.choose(backend, n, guess) {
            let cost_us = started.elapsed().as_micros() as f32;
            store.read_ahead(n, self.moe.layer as u32, &guess.experts, cost_us)?;
        }
        Ok(())
    }

    /// As [`Upcoming::guess`], while the layer before is under way: from the residual stream `x` [n, H] that enters its experts
    /// and what of these is computed: the shared one and, of a single token, the routed ones that were resident.
    ///
    /// # Errors
    /// As [`Upcoming::guess`].
    pub(super) fn guess_during(
        &self,
        backend: &mut B,
        fetch: &mut Fetch<'_>,
        (x, n): (&B::Buffer, usize),
        scratch: &mut MoeScratch<B>,
    ) -> Result<(), ModelError> {
        if !fetch.wants_guess(n) {
            return Ok(());
        }
        let (s, started, known) = (scratch, Instant::now(), n.min(GUESS_TOKENS_MAX));
        let hidden = self.moe.hidden;
        backend.copy(x, 0, &mut s.guess.x, 0, known * hidden);
        let (k, guess) = (s.guess.routing.k, &mut s.guess);
        backend.moe_combine(&guess.weights, &s.routed, &s.shared, known, k, hidden, &mut guess.x);
        if self.choose(backend, n, guess) {
            let cost_us = started.elapsed().as_micros() as f32;
            fetch.read_ahead(n, self.moe.layer as u32, &guess.experts, cost_us)?;
        }
        Ok(())
    }

    /// Fills `scratch.experts` with what the router would choose for `scratch.x`. False if a value is not finite.
    fn choose(&self, backend: &mut B, n: usize, scratch: &mut GuessScratch<B>) -> bool {
        let (s, experts, known) = (scratch, self.moe.num_experts, n.min(GUESS_TOKENS_MAX));
        backend.rms_norm(&s.x, self.norm, self.eps, known, self.moe.hidden, &mut s.h);
        backend.mul_mat(&self.moe.router, &s.h, known, &mut s.logits);
        let host_logits = &mut s.host_logits[..known * experts];
        backend.read(&s.logits, 0, host_logits);
        let finite = s.routing.route(host_logits, experts);
        if finite {
            s.rank_experts(n, experts);
        }
        finite
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels_cpu::{CpuBackend, CpuOptions};

    #[test]
    fn experts_are_ranked_by_how_many_tokens_chose_them_and_the_others_follow() {
        let mut backend = CpuBackend::new(CpuOptions { threads: 1, isa: None });
        let mut guess = GuessScratch::<CpuBackend> {
            x: backend.buffer(1),
            h: backend.buffer(1),
            logits: backend.buffer(1),
            host_logits: Vec::new(),
            routing: Routing::new(4, 2, 3),
            weights: vec![0.0; 2],
            experts: Vec::new(),
        };
        let logits = [0.0, 2.0, 1.0, -1.0, 5.0, 5.5, 5.0, 0.0, -3.0, -2.0, -9.0, -2.5];
        assert!(guess.routing.route(&logits[..4], 4));
        guess.rank_experts(1, 4);
        assert_eq!(guess.experts, [1, 2], "one token: in the router's order");
        assert!(guess.routing.route(&logits, 4));
        guess.rank_experts(3, 4);
        assert_eq!(guess.experts, [1, 0, 2, 3]); // 1 was chosen by three tokens, each other by one.
        assert!(guess.routing.route(&logits[..8], 4));
        guess.rank_experts(3, 4);
        assert_eq!(guess.experts, [1, 0, 2, 3]); // 3 was chosen by none of the two that were asked.
        guess.rank_experts(2, 4);
        assert_eq!(guess.experts, [1, 0, 2]);

        let mut routing = Routing::new(4, 2, 1);
        assert!(routing.route(&logits[..4], 4));
        guess.computed(&routing, 2);
        assert_eq!(guess.weights, [0.0, routing.weights[1]]);
        guess.computed(&routing, 1);
        assert_eq!(guess.weights, routing.weights);
        guess.begin();
        assert_eq!(guess.weights, [0.0, 0.0]);
    }
}
