//! Mixture of experts: router, routed experts as they become ready, and the shared expert where
//! there is one.

pub mod guess;

use ops::{Backend, Batch, Combine, NormProducts, OpError};

use crate::exec::{Chosen, ExpertExec, Progress};
use crate::layers::routing::{Router, Routing};
use crate::layers::{Mlp, Residual};
use crate::load::DenseLoader;
use crate::names::{ROUTER, ROUTER_BIAS, ROUTER_CORRECTION};
use crate::phases::Laps;
use crate::spec::MoeSpec;
use crate::{Failures, ModelError, ModelSpec, Phases};
use guess::{GuessScratch, Known, Upcoming};

/// Resident weights of one MoE layer. The routed experts are in the `ExpertStore`.
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
    pub(super) routing: Routing,
    guess: GuessScratch<B>,
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
            routing: Routing::new(experts, k, n),
            guess: GuessScratch::new(backend, spec, n)?,
            phases: Phases::default(),
        })
    }

    /// Bytes that the host's vectors take.
    pub(crate) fn host_bytes(&self) -> u64 {
        self.routing.bytes() + self.guess.host_bytes()
    }
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
    /// The experts start as soon as the router's choice is known, so that reads are under way; the shared expert is computed
    /// meanwhile, then the experts that are there, then each as it comes. Outputs are combined in router order, so neither
    /// the order in which they come nor the size of a cache changes a bit. Before it waits it says which experts `next`, the
    /// layer that follows, will probably need.
    ///
    /// A sequence whose router values are not finite, or whose rows chose an expert that is not to be had, joins `failures`;
    /// its rows of `x` are undefined from now on.
    ///
    /// # Errors
    /// A back-end that fails, or a store as a whole.
    pub fn forward(
        &self,
        run: (&mut B, &mut dyn ExpertExec<B>),
        batch: &Batch<'_>,
        residual: Residual<'_, B>,
        scratch: &mut MoeScratch<B>,
        next: Option<Upcoming<'_, B>>,
        failures: &mut Failures,
    ) -> Result<(), ModelError> {
        let ((backend, exec), n, s) = (run, batch.n, scratch);
        let Residual { norm, x, h, .. } = residual;
        let products = [(&self.router_weight, &mut s.logits)];
        backend.norm_products(NormProducts { x, norm, n, h, products });
        let routing = &mut s.routing;
        backend.read_with(&s.logits, 0, n * self.router.experts(), |logits| {
            routing.route(&self.router, logits);
        })?;
        for row in routing.not_finite() {
            failures.add_row(batch, *row, || ModelError::RouterNotFinite { layer: self.layer });
        }
        let mut laps = Laps::start();
        let (layer, phase, decoding) = (self.layer, batch.phase(), batch.decoding());
        let chosen = Chosen { layer, phase, n, decoding, routing: &s.routing, h };
        let mut progress = exec.start(backend, &chosen)?;
        s.phases.fetch += laps.lap();
        if let Some(shared) = &self.shared {
            shared.mlp.forward(backend, shared.gate.as_ref(), h, n, &mut s.shared);
        }
        let shared = self.shared.as_ref().map(|_| &s.shared);
        while progress == Progress::Ready {
            progress = exec.run_ready(backend, &chosen, &mut s.routed, &mut s.phases, false);
        }
        if let Some(next) = next {
            let known = Known { x, routed: &s.routed, shared, routing: &s.routing };
            next.guess_during((backend, exec), known, &mut s.guess)?;
        }
        while progress != Progress::Done {
            progress = exec.run_ready(backend, &chosen, &mut s.routed, &mut s.phases, true);
        }
        for failed in exec.failures() {
            for row in s.routing.rows(failed.expert).0 {
                failures.add_row(batch, *row, || ModelError::Expert(failed.error.clone()));
            }
        }
        let k = self.router.per_token();
        let (weights, routed) = (s.routing.weights(), &s.routed);
        backend.combine(Combine { weights, routed, shared, n, k_len: k, dim: self.hidden, x });
        Ok(())
    }
}
