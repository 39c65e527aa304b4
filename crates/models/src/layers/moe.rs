//! Mixture of experts: router, routed experts as they become ready, shared expert (Qwen3.5-MoE section 3.3).

use experts::{Demand, ExpertStore, LoadedExpert};
use ops::{Backend, Batch, Combine, ExpertRows, ExpertWeights, NormProducts, OpError, Phase};

use crate::layers::guess::{GuessScratch, Upcoming, store_phase};
use crate::layers::{Mlp, Residual};
use crate::load::DenseLoader;
use crate::phases::Laps;
use crate::{Config, Failures, ModelError, Phases};

/// Experts that are computed in one parallel region when decoding rows ask for them.
const EXPERTS_TOGETHER_MAX: usize = 16;

/// Resident weights of one MoE layer. The routed experts are in the [`ExpertStore`].
pub struct Moe<B: Backend> {
    pub(super) layer: usize,
    pub(super) num_experts: usize,
    experts_per_token: usize,
    pub(super) hidden: usize,
    pub(super) router: B::Matrix, // [E, H]
    shared: Mlp<B>,               // inner width Fs
    shared_row: B::Matrix,        // [1, H], the shared expert's own gate
}

/// Activations of a chunk inside the layer, and the host's view of the routing.
pub struct MoeScratch<B: Backend> {
    logits: B::Buffer,            // [n, E]
    pub(super) routed: B::Buffer, // [n, K, H]: each expert's output where its token and rank put it, whenever it arrives
    pub(super) shared: B::Buffer, // [n, H]
    host_logits: Vec<f32>,
    routing: Routing,
    pub(super) guess: GuessScratch<B>,
    pub(crate) phases: Phases,
}

impl<B: Backend> MoeScratch<B> {
    /// Room for `n` rows.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub fn new(backend: &mut B, config: &Config, n: usize) -> Result<Self, OpError> {
        let (experts, k) = (config.num_experts, config.num_experts_per_tok);
        Ok(Self {
            logits: backend.buffer(n * experts)?,
            routed: backend.buffer(n * k * config.hidden_size)?,
            shared: backend.buffer(if experts > 0 { n * config.hidden_size } else { 0 })?,
            host_logits: vec![0.0; n * experts],
            routing: Routing::new(experts, k, n),
            guess: GuessScratch::new(backend, config, n)?,
            phases: Phases::default(),
        })
    }

    /// Bytes that the host's vectors take.
    pub(crate) fn host_bytes(&self) -> u64 {
        (size_of::<f32>() * self.host_logits.len()) as u64 + self.routing.bytes() + self.guess.host_bytes()
    }
}

/// Which experts a chunk's tokens chose, by token and by expert.
pub struct Routing {
    pub(super) k: usize,
    pub(super) weights: Vec<f32>, // [n, K] in router order, sum 1 for each token
    pub(super) used: Vec<u32>,    // experts chosen by any token, ascending
    pub(super) starts: Vec<u32>,  // [E + 1] prefix sums into x_rows and out_rows
    x_rows: Vec<u32>,             // token rows, grouped by expert
    out_rows: Vec<u32>,           // token * K + rank, grouped by expert
    pub(super) chosen: Vec<u32>,  // [n, K]
    order: Vec<u32>,              // [E], scratch of the selection
}

impl Routing {
    pub(super) fn new(num_experts: usize, k: usize, n: usize) -> Self {
        Self {
            k,
            weights: Vec::with_capacity(n * k),
            used: Vec::with_capacity(num_experts),
            starts: vec![0; num_experts + 1],
            x_rows: Vec::with_capacity(n * k),
            out_rows: Vec::with_capacity(n * k),
            chosen: Vec::with_capacity(n * k),
            order: Vec::with_capacity(num_experts),
        }
    }

    /// Bytes that the vectors take.
    pub(super) fn bytes(&self) -> u64 {
        let lists = [&self.used, &self.starts, &self.x_rows, &self.out_rows, &self.chosen, &self.order];
        let ids: usize = lists.iter().map(|list| list.capacity()).sum();
        (size_of::<f32>() * self.weights.capacity() + size_of::<u32>() * ids) as u64
    }

    /// Softmax over all experts, the K largest (the lower index first among equals), renormalised, which is the softmax
    /// over the K logits. `logits` is [n, E]. False if a value is not finite.
    pub(super) fn route(&mut self, logits: &[f32], num_experts: usize) -> bool {
        self.weights.clear();
        self.chosen.clear();
        for row in logits.chunks_exact(num_experts) {
            if row.iter().any(|logit| !logit.is_finite()) {
                return false;
            }
            self.route_token(row);
        }
        self.group(num_experts);
        true
    }

    fn route_token(&mut self, row: &[f32]) {
        let descending = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        self.order.clear();
        self.order.extend(0..row.len() as u32);
        if self.k < row.len() {
            self.order.select_nth_unstable_by(self.k - 1, descending);
        }
        let top = &mut self.order[..self.k];
        top.sort_unstable_by(descending);
        let max = row[top[0] as usize];
        let first = self.weights.len();
        self.weights.extend(top.iter().map(|expert| (row[*expert as usize] - max).exp()));
        let sum: f32 = self.weights[first..].iter().sum();
        self.weights[first..].iter_mut().for_each(|weight| *weight /= sum);
        self.chosen.extend_from_slice(top);
    }

    /// Counting sort of (token, rank) pairs by expert; within an expert, tokens ascend.
    fn group(&mut self, num_experts: usize) {
        self.starts.clear();
        self.starts.resize(num_experts + 1, 0);
        for expert in &self.chosen {
            self.starts[*expert as usize + 1] += 1;
        }
        self.used.clear();
        self.used.extend((0..num_experts as u32).filter(|expert| self.starts[*expert as usize + 1] > 0));
        for expert in 0..num_experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        self.x_rows.clear();
        self.x_rows.resize(self.chosen.len(), 0);
        self.out_rows.clear();
        self.out_rows.resize(self.chosen.len(), 0);
        for (slot, expert) in self.chosen.iter().enumerate() {
            let at = &mut self.starts[*expert as usize];
            self.x_rows[*at as usize] = (slot / self.k) as u32;
            self.out_rows[*at as usize] = slot as u32;
            *at += 1;
        }
        // Filling moved each start to its end, which is the next expert's start: shift back by one.
        self.starts.rotate_right(1);
        self.starts[0] = 0;
    }

    /// An expert's matrices with the rows that chose it.
    fn job<'a>(&'a self, loaded: &LoadedExpert<'a>) -> ExpertRows<'a> {
        let ([gate, up, down], (x_rows, out_rows)) = (loaded.parts, self.rows(loaded.expert));
        ExpertRows { weights: ExpertWeights { gate, up, down }, x_rows, out_rows }
    }

    /// Token rows and output rows of one expert.
    pub(super) fn rows(&self, expert: u32) -> (&[u32], &[u32]) {
        let range = self.starts[expert as usize] as usize..self.starts[expert as usize + 1] as usize;
        (&self.x_rows[range.clone()], &self.out_rows[range])
    }
}

impl<B: Backend> Moe<B> {
    /// Loads the layer whose tensors start with `base` (`….layers.0.mlp.`).
    ///
    /// # Errors
    /// Read errors and damaged tensors, named.
    pub fn load(
        backend: &mut B,
        loader: &mut DenseLoader<'_>,
        base: &str,
        layer: usize,
        config: &Config,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            layer,
            num_experts: config.num_experts,
            experts_per_token: config.num_experts_per_tok,
            hidden: config.hidden_size,
            router: loader.matrix(backend, &format!("{base}gate.weight"))?,
            shared: Mlp::load(backend, loader, &format!("{base}shared_expert."))?,
            shared_row: loader.matrix(backend, &format!("{base}shared_expert_gate.weight"))?,
        })
    }

    /// `x += moe(norm(x))` for the batch's rows.
    ///
    /// The reads of all experts that are not in memory start as soon as the router's choice is known; the shared expert is
    /// computed meanwhile, then the resident experts, then each as it lands. Outputs are combined in router order, so
    /// neither arrival order nor cache size changes a bit. Before it waits for reads it lets the store read what `next`, the layer
    /// that follows, will probably ask for.
    ///
    /// # Errors
    /// A router value that is not finite. Sequences whose experts could not be read are added to `failures`; what `x` then
    /// has for them is undefined.
    pub fn forward(
        &self,
        backend: &mut B,
        store: &mut ExpertStore,
        batch: &Batch<'_>,
        residual: Residual<'_, B>,
        scratch: &mut MoeScratch<B>,
        (mut next, failures): (Option<Upcoming<'_, B>>, &mut Failures),
    ) -> Result<(), ModelError> {
        let (n, phase, s) = (batch.n, batch.phase(), scratch);
        let Residual { norm, x, h, .. } = residual;
        let products = [(&self.router, &mut s.logits)];
        backend.norm_products(NormProducts { x, norm, n, h, products });
        let host_logits = &mut s.host_logits[..n * self.num_experts];
        backend.read(&s.logits, 0, host_logits)?;
        if !s.routing.route(host_logits, self.num_experts) {
            return Err(ModelError::RouterNotFinite { layer: self.layer });
        }
        let mut laps = Laps::start();
        let experts = &s.routing.used;
        store.start(&Demand { layer: self.layer as u32, experts, phase: store_phase(phase), tokens: n })?;
        s.phases.fetch += laps.lap();
        self.shared.forward(backend, Some(&self.shared_row), h, n, &mut s.shared);
        laps.lap();
        // A chunk gives each expert enough to do; in decoding, what is ready is computed together.
        let together = if phase == Phase::Decode { EXPERTS_TOGETHER_MAX } else { 1 };
        s.guess.begin();
        loop {
            if store.resident_left() == 0
                && let Some(next) = next.take()
            {
                next.guess_during(backend, store, x, s)?;
                laps.lap();
            }
            let mut ready = store.next_batch(together, true);
            let Some(first) = ready.next() else { break };
            s.phases.fetch += laps.lap();
            // On the stack: a pass allocates nothing.
            let mut experts = [s.routing.job(&first); EXPERTS_TOGETHER_MAX];
            let count = 1 + ready.len();
            for (job, loaded) in experts[1..].iter_mut().zip(ready) {
                *job = s.routing.job(&loaded);
            }
            backend.experts(&experts[..count], h, &mut s.routed);
            if phase == Phase::Decode && next.is_some() {
                experts[..count].iter().for_each(|job| s.guess.computed(&s.routing, job.out_rows));
            }
            s.phases.experts += laps.lap();
        }
        store.end();
        s.phases.fetch += laps.lap();
        for failed in store.failures() {
            for row in s.routing.rows(failed.expert).0 {
                failures.add_row(batch, *row, || ModelError::Expert(failed.error.clone()));
            }
        }
        let k = self.experts_per_token;
        let (weights, routed, shared) = (&s.routing.weights[..], &s.routed, Some(&s.shared));
        backend.combine(Combine { weights, routed, shared, n, k_len: k, dim: self.hidden, x });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routing_picks_the_largest_and_groups_by_expert() {
        let mut routing = Routing::new(4, 2, 3);
        let logits = [0.0, 2.0, 1.0, -1.0, 5.0, 5.0, 5.0, 0.0, -3.0, -2.0, -9.0, -2.5];
        assert!(routing.route(&logits, 4));
        assert_eq!(routing.chosen, [1, 2, 0, 1, 1, 3]);
        assert_eq!(routing.used, [0, 1, 2, 3]);
        assert_eq!(routing.rows(1), (&[0, 1, 2][..], &[0, 3, 4][..]));
        assert_eq!(routing.rows(3), (&[2][..], &[5][..]));
        let expected = 1.0 / (1.0 + (-1.0f32).exp());
        assert!((routing.weights[0] - expected).abs() < 1e-6);
        assert_eq!(routing.weights[2..4], [0.5, 0.5]);
    }

    #[test]
    fn a_router_value_that_is_not_finite_is_refused() {
        let mut routing = Routing::new(2, 1, 1);
        assert!(!routing.route(&[f32::NAN, 0.0], 2));
    }
}
