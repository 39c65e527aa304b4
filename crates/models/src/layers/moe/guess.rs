//! Asking a layer's router before the layer's turn, so that its experts can be read ahead (`experts/src/lookahead.rs` says when
//! that pays). No answer depends on it.

use std::cmp::Reverse;

use experts::Hint;
use ops::{Backend, Combine, Norm, NormProducts, OpError, Phase};

use crate::exec::{self, ExpertExec};
use crate::layers::moe::{Moe, MoeScratch};
use crate::layers::routing::Routing;
use crate::{ModelError, ModelSpec};

/// Tokens of a chunk that another layer's router is asked for. Of a longer chunk every expert is likely to be chosen.
const GUESS_TOKENS_MAX: usize = 64;

/// What guessing another layer's experts takes, for g tokens.
pub(super) struct GuessScratch<B: Backend> {
    x: B::Buffer,      // [g, H], what is known of the residual stream
    h: B::Buffer,      // [g, H], normed
    logits: B::Buffer, // [g, E]
    routing: Routing,
    weights: Vec<f32>, // [g, K], of the experts that are computed; 0 for the others
}

/// The part of a layer's output that is known before all of its experts are computed.
pub(super) struct Known<'a, B: Backend> {
    /// [n, H], the residual stream that enters the layer.
    pub(super) x: &'a B::Buffer,
    /// [n, K, H], outputs of the routed experts.
    pub(super) routed: &'a B::Buffer,
    /// [n, H], output of the shared expert, where there is one.
    pub(super) shared: Option<&'a B::Buffer>,
    /// Who chose the routed experts.
    pub(super) routing: &'a Routing,
}

/// The MoE block of a layer and the norm before it, whose router is asked early.
pub struct Upcoming<'a, B: Backend> {
    /// The block.
    pub moe: &'a Moe<B>,
    /// The norm.
    pub norm: Norm<'a, B>,
    /// Rows that will go through the layer.
    pub n: usize,
    /// Of those rows.
    pub phase: Phase,
}

impl<B: Backend> GuessScratch<B> {
    /// For chunks of up to `n` tokens.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub(super) fn new(backend: &mut B, spec: &ModelSpec, n: usize) -> Result<Self, OpError> {
        let tokens = n.min(GUESS_TOKENS_MAX);
        let (experts, k) = (spec.experts_max(), spec.per_token_max());
        Ok(Self {
            x: backend.buffer(tokens * spec.hidden_size)?,
            h: backend.buffer(tokens * spec.hidden_size)?,
            logits: backend.buffer(tokens * experts)?,
            routing: Routing::new(experts, k, tokens),
            weights: vec![0.0; tokens * k],
        })
    }

    /// Bytes that the host's vectors take.
    pub(super) fn host_bytes(&self) -> u64 {
        size_of_val(&self.weights[..]) as u64 + self.routing.bytes()
    }

    /// Takes the weights of these experts from a layer's routing, and 0 for all others.
    fn weigh(&mut self, routing: &Routing, computed: &[u32]) {
        self.weights.fill(0.0);
        for expert in computed {
            for &row in routing.rows(*expert).1 {
                if let Some(weight) = self.weights.get_mut(row as usize) {
                    *weight = routing.weights()[row as usize];
                }
            }
        }
    }

    /// Ranks experts by how likely they are to be of use to `n` rows, of which the first were routed: by the number of rows
    /// that chose them, then by the best rank that one gave them. If there are further rows, all other experts follow.
    fn rank_experts(&self, n: usize, num_experts: usize, ranked: &mut Vec<u32>) {
        let routing = &self.routing;
        let best_rank = |out_rows: &[u32]| out_rows.iter().map(|row| *row as usize % routing.k()).min();
        ranked.extend_from_slice(routing.used());
        ranked.sort_unstable_by_key(|expert| {
            let (_, out_rows) = routing.rows(*expert);
            (Reverse(out_rows.len()), best_rank(out_rows), *expert)
        });
        if n * routing.k() > routing.chosen().len() {
            let unchosen = |expert: &u32| routing.rows(*expert).0.is_empty();
            ranked.extend((0..num_experts as u32).filter(unchosen));
        }
    }
}

impl<B: Backend> Upcoming<'_, B> {
    /// Guesses, from the residual stream `x` [n, H] that enters the layer, which experts its router will choose, so that they
    /// can be prefetched while the token mixer runs. Changes no result.
    ///
    /// # Errors
    /// A back-end that fails.
    pub fn guess(
        &self,
        (backend, exec): (&mut B, &mut dyn ExpertExec<B>),
        x: &B::Buffer,
        scratch: &mut MoeScratch<B>,
    ) -> Result<(), ModelError> {
        let (guess, mut outcome) = (&mut scratch.guess, Ok(()));
        exec.hint(&self.hint(), &mut |ranked| {
            backend.copy(x, 0, &mut guess.x, 0, self.n.min(GUESS_TOKENS_MAX) * self.moe.hidden);
            outcome = self.choose(backend, guess, ranked);
        })?;
        Ok(outcome?)
    }

    /// As [`Upcoming::guess`], while the layer before is under way: from the part of its output that is known. The routed
    /// experts count in decoding only; a prompt's have hardly begun.
    ///
    /// # Errors
    /// As [`Upcoming::guess`].
    pub(super) fn guess_during(
        &self,
        (backend, exec): (&mut B, &mut dyn ExpertExec<B>),
        known: Known<'_, B>,
        guess: &mut GuessScratch<B>,
    ) -> Result<(), ModelError> {
        let computed = if self.phase == Phase::Decode { exec.computed() } else { &[] };
        guess.weigh(known.routing, computed);
        let mut outcome = Ok(());
        exec.hint(&self.hint(), &mut |ranked| {
            let (rows, k_len, dim) = (self.n.min(GUESS_TOKENS_MAX), known.routing.k(), self.moe.hidden);
            backend.copy(known.x, 0, &mut guess.x, 0, rows * dim);
            let Known { routed, shared, .. } = known;
            let (weights, x) = (&guess.weights[..], &mut guess.x);
            backend.combine(Combine { weights, routed, shared, n: rows, k_len, dim, x });
            outcome = self.choose(backend, guess, ranked);
        })?;
        Ok(outcome?)
    }

    fn hint(&self) -> Hint {
        Hint { layer: self.moe.layer as u32, phase: exec::phase(self.phase), tokens: self.n }
    }

    /// Names the experts that the router would choose for `scratch.x`, best first; none if a value is not finite.
    fn choose(
        &self,
        backend: &mut B,
        scratch: &mut GuessScratch<B>,
        ranked: &mut Vec<u32>,
    ) -> Result<(), OpError> {
        let (s, experts, known) = (scratch, self.moe.router.experts(), self.n.min(GUESS_TOKENS_MAX));
        let products = [(&self.moe.router_weight, &mut s.logits)];
        backend.norm_products(NormProducts { x: &s.x, norm: self.norm, n: known, h: &mut s.h, products });
        let routing = &mut s.routing;
        let route = |logits: &[f32]| routing.route(&self.moe.router, logits).is_empty();
        if backend.read_with(&s.logits, 0, known * experts, route)? {
            s.rank_experts(self.n, experts, ranked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Router;
    use crate::spec::RouterSpec;
    use kernels_cpu::{CpuBackend, CpuOptions};

    #[test]
    fn experts_are_ranked_by_how_many_tokens_chose_them_and_the_others_follow() {
        let mut backend = CpuBackend::new(CpuOptions { threads: 1, isa: None }).unwrap();
        let mut guess = GuessScratch::<CpuBackend> {
            x: backend.buffer(1).unwrap(),
            h: backend.buffer(1).unwrap(),
            logits: backend.buffer(1).unwrap(),
            routing: Routing::new(4, 2, 3),
            weights: vec![0.0; 2],
        };
        let router = Router::new(RouterSpec::SOFTMAX, 4, 2);
        let logits = [0.0, 2.0, 1.0, -1.0, 5.0, 5.5, 5.0, 0.0, -3.0, -2.0, -9.0, -2.5];
        let ranked = |guess: &GuessScratch<CpuBackend>, n| {
            let mut ranked = Vec::new();
            guess.rank_experts(n, 4, &mut ranked);
            ranked
        };
        assert!(guess.routing.route(&router, &logits[..4]).is_empty());
        assert_eq!(ranked(&guess, 1), [1, 2], "one row: in the router's order");
        assert!(guess.routing.route(&router, &logits).is_empty());
        assert_eq!(ranked(&guess, 3), [1, 0, 2, 3]); // 1 was chosen by three rows, each other by one.
        assert!(guess.routing.route(&router, &logits[..8]).is_empty());
        assert_eq!(ranked(&guess, 3), [1, 0, 2, 3]); // 3 was chosen by none of the two that were asked.
        assert_eq!(ranked(&guess, 2), [1, 0, 2]);
        // Among experts with as many rows, the one that a row ranked higher comes first.
        assert!(guess.routing.route(&router, &[0.0, 2.0, 1.0, 3.0, 4.0, 0.0, 5.0, 0.0]).is_empty());
        assert_eq!(ranked(&guess, 2), [2, 3, 0, 1]);

        let mut routing = Routing::new(4, 2, 2);
        assert!(routing.route(&router, &logits[..8]).is_empty());
        guess.weigh(&routing, &[2]);
        assert_eq!(guess.weights, [0.0, routing.weights()[1]]);
        guess.weigh(&routing, &[1, 2, 0]); // And a row beyond those that are guessed for.
        assert_eq!(guess.weights, routing.weights()[..2]);
        guess.weigh(&routing, &[]);
        assert_eq!(guess.weights, [0.0, 0.0]);
    }
}
