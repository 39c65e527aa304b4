//! Mixture of experts: router, routed experts as they become ready, and the shared expert where
//! there is one.

use experts::{Demand, ExpertStore, LoadedExpert};
use ops::{Backend, Batch, Combine, ExpertRows, ExpertWeights, NormProducts, OpError, Phase};

use crate::layers::guess::{GuessScratch, Upcoming, store_phase};
use crate::layers::routing::{Router, Routing};
use crate::layers::{Mlp, Residual};
use crate::load::DenseLoader;
use crate::names::{ROUTER, ROUTER_BIAS, ROUTER_CORRECTION};
use crate::phases::Laps;
use crate::spec::MoeSpec;
use crate::{Failures, ModelError, ModelSpec, Phases};

/// Experts that are computed in one parallel region when decoding rows ask for them.
const EXPERTS_TOGETHER_MAX: usize = 16;

/// Resident weights of one MoE layer. The routed experts are in the [`ExpertStore`].
pub struct Moe<B: Backend> {
    pub(super) layer: usize,
    pub(super) hidden: usize,
    pub(super) router: Router,
    pub(super) router_weight: B::Matrix, // [E, H]
    shared: Option<Shared<B>>,
}

/// The expert that every token uses.
struct Shared<B: Backend> {
    mlp: Mlp<B>,             // inner width Fs
    gate: Option<B::Matrix>, // [1, H]
}

/// Activations of a chunk inside the layer, and the host's view of the routing.
pub struct MoeScratch<B: Backend> {
    logits: B::Buffer,            // [n, E]
    pub(super) routed: B::Buffer, // [n, K, H]: each expert's output where its token and rank put it, whenever it arrives
    pub(super) shared: B::Buffer, // [n, H]
    host_logits: Vec<f32>,
    pub(super) routing: Routing,
    pub(super) guess: GuessScratch<B>,
    pub(crate) phases: Phases,
}

impl<B: Backend> MoeScratch<B> {
    /// Room for `n` rows.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub fn new(backend: &mut B, spec: &ModelSpec, n: usize) -> Result<Self, OpError> {
        let (experts, k) = (spec.experts_max(), spec.per_token_max());
        let has_shared = spec.moe().any(|moe| moe.shared.is_some());
        Ok(Self {
            logits: backend.buffer(n * experts)?,
            routed: backend.buffer(n * k * spec.hidden_size)?,
            shared: backend.buffer(if has_shared { n * spec.hidden_size } else { 0 })?,
            host_logits: vec![0.0; n * experts],
            routing: Routing::new(experts, k, n),
            guess: GuessScratch::new(backend, spec, n)?,
            phases: Phases::default(),
        })
    }

    /// Bytes that the host's vectors take.
    pub(crate) fn host_bytes(&self) -> u64 {
        (size_of::<f32>() * self.host_logits.len()) as u64 + self.routing.bytes() + self.guess.host_bytes()
    }
}

/// One expert and the token rows that chose it.
fn job<'a>(routing: &'a Routing, loaded: &LoadedExpert<'a>) -> ExpertRows<'a> {
    let ([gate, up, down], (x_rows, out_rows)) = (loaded.parts, routing.rows(loaded.expert));
    ExpertRows { weights: ExpertWeights { gate, up, down }, x_rows, out_rows }
}

impl<B: Backend> Moe<B> {
    /// Loads the MoE block of layer `layer`, whose tensors start with `base` (`….layers.0.`).
    ///
    /// # Errors
    /// Read errors and damaged tensors, named.
    pub fn load(
        backend: &mut B,
        loader: &mut DenseLoader<'_>,
        base: &str,
        layer: usize,
        (model, spec): (&ModelSpec, &MoeSpec),
    ) -> Result<Self, ModelError> {
        let mut vector = |there: bool, name| match there {
            true => loader.values(&format!("{base}{name}")).map(Some),
            false => Ok(None),
        };
        let (bias, correction) =
            (vector(spec.router.bias, ROUTER_BIAS)?, vector(spec.router.correction, ROUTER_CORRECTION)?);
        let shared = match &spec.shared {
            Some(shared) => Some(Shared {
                mlp: Mlp::load(backend, loader, &format!("{base}mlp.shared_expert."))?,
                gate: match shared.gate {
                    true => Some(loader.matrix(backend, &format!("{base}mlp.shared_expert_gate.weight"))?),
                    false => None,
                },
            }),
            None => None,
        };
        Ok(Self {
            layer,
            hidden: model.hidden_size,
            router: Router::new(spec.router, spec.experts, spec.per_token).with_vectors(bias, correction),
            router_weight: loader.matrix(backend, &format!("{base}{ROUTER}"))?,
            shared,
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
    /// Errors of the back-end and of the store as a whole. Sequences whose experts could not be read, or
    /// whose router values are not finite, are added to `failures`; their rows of `x` are then undefined.
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
        let products = [(&self.router_weight, &mut s.logits)];
        backend.norm_products(NormProducts { x, norm, n, h, products });
        let host_logits = &mut s.host_logits[..n * self.router.experts()];
        backend.read(&s.logits, 0, host_logits)?;
        for row in s.routing.route(&self.router, host_logits) {
            failures.add_row(batch, *row, || ModelError::RouterNotFinite { layer: self.layer });
        }
        let mut laps = Laps::start();
        let experts = s.routing.used();
        store.start(&Demand { layer: self.layer as u32, experts, phase: store_phase(phase), tokens: n })?;
        s.phases.fetch += laps.lap();
        if let Some(shared) = &self.shared {
            shared.mlp.forward(backend, shared.gate.as_ref(), h, n, &mut s.shared);
        }
        laps.lap();
        // A chunk gives each expert enough to do; in decoding, what is ready is computed together.
        let together = if phase == Phase::Decode { EXPERTS_TOGETHER_MAX } else { 1 };
        s.guess.begin(self.shared.is_some());
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
            let mut experts = [job(&s.routing, &first); EXPERTS_TOGETHER_MAX];
            let count = 1 + ready.len();
            for (slot, loaded) in experts[1..].iter_mut().zip(ready) {
                *slot = job(&s.routing, &loaded);
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
        let k = self.router.per_token();
        let shared = self.shared.as_ref().map(|_| &s.shared);
        let (weights, routed) = (s.routing.weights(), &s.routed);
        backend.combine(Combine { weights, routed, shared, n, k_len: k, dim: self.hidden, x });
        Ok(())
    }
}
