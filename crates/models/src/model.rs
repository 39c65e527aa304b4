//! A whole model: embedding, layers, final norm, head; and the scratch that a pass needs.

use ops::{Backend, Batch, KvFormat, Need, Norm, NormProducts, OpError, Tally};

use crate::exec::ExpertExec;
use crate::layers::{
    Attention, AttentionScratch, DeltaNet, DeltaNetScratch, Mlp, Moe, MoeScratch, Residual, Upcoming,
};
use crate::load::DenseLoader;
use crate::names::{POST_NORM, ROPE_FACTORS};
use crate::phases::Laps;
use crate::spec::{AttentionSpec, FeedSpec, MixerSpec, RopeFactors};
use crate::states::LayerStates;
use crate::step::Passes;
use crate::{Failures, ModelError, ModelSpec, Phases, PromptPart, States, Step};

/// Rows of logits that are computed at once when a caller wants more than the last: bounds `[rows, V]`.
pub const LOGIT_ROWS_MAX: usize = 16;

/// Token mixer of a layer.
enum Mixer<B: Backend> {
    Attention(Attention<B>),
    DeltaNet(DeltaNet<B>),
}

/// What a layer does after it has mixed tokens.
enum Feed<B: Backend> {
    Moe(Moe<B>),
    Dense(Mlp<B>),
}

struct Layer<B: Backend> {
    input_layernorm: B::Buffer, // [H]
    mixer: Mixer<B>,
    post_attention_layernorm: B::Buffer, // [H]
    feed: Feed<B>,
}

/// Resident weights of a model.
pub struct Model<B: Backend> {
    spec: ModelSpec,
    embed_tokens: B::Matrix,         // [V, H]
    rope_factors: Option<B::Buffer>, // [rotary_dim / 2]
    layers: Vec<Layer<B>>,
    norm: B::Buffer,            // [H]
    lm_head: Option<B::Matrix>, // [V, H]; None: tied to embed_tokens
}

/// Token rows that a [`Scratch`] has room for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ScratchRows {
    /// Of one pass.
    pub pass_max: usize,
    /// Of a prompt that waits between two passes; 0 if every prompt goes through all layers at once.
    pub parked_max: usize,
}

/// Activations of a pass, allocated once.
pub struct Scratch<B: Backend> {
    rows: ScratchRows,
    x: B::Buffer,         // [n, H], the residual stream
    h: B::Buffer,         // [n, H], normed
    mixed: B::Buffer,     // [n, H], the output of a mixer or a dense MLP
    parked: B::Buffer,    // [parked, H], the residual stream of a prompt between two passes
    head_rows: B::Buffer, // [LOGIT_ROWS_MAX, H], rows whose logits are wanted
    head_h: B::Buffer,    // the same, normed
    logits: B::Buffer,    // [LOGIT_ROWS_MAX, V]
    attention: AttentionScratch<B>,
    delta_net: Option<DeltaNetScratch<B>>,
    moe: MoeScratch<B>,
}

impl<B: Backend> Scratch<B> {
    /// Allocates it.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub fn new(backend: &mut B, spec: &ModelSpec, rows: ScratchRows) -> Result<Self, OpError> {
        let (n, hidden) = (rows.pass_max, spec.hidden_size);
        let head = LOGIT_ROWS_MAX.min(n);
        Ok(Self {
            rows,
            x: backend.buffer(n * hidden)?,
            h: backend.buffer(n * hidden)?,
            mixed: backend.buffer(n * hidden)?,
            parked: backend.buffer(rows.parked_max * hidden)?,
            head_rows: backend.buffer(head * hidden)?,
            head_h: backend.buffer(head * hidden)?,
            logits: backend.buffer(head * spec.vocab_size)?,
            attention: AttentionScratch::new(backend, spec, n)?,
            delta_net: DeltaNetScratch::new(backend, spec, n)?,
            moe: MoeScratch::new(backend, spec, n)?,
        })
    }

    /// Room for rows.
    pub fn rows(&self) -> ScratchRows {
        self.rows
    }

    /// Where the time of the steps that used this scratch went.
    pub fn phases(&self) -> Phases {
        self.moe.phases
    }

    /// Bytes that the host's vectors take.
    fn host_bytes(&self) -> u64 {
        self.moe.host_bytes()
    }
}

/// Host and device bytes of a [`Scratch`] and of all that ops of a back-end keep for such passes.
///
/// # Errors
/// As [`Scratch::new`].
pub fn scratch_footprint<B: Backend>(
    backend: &B,
    spec: &ModelSpec,
    kv: KvFormat,
    rows: ScratchRows,
) -> Result<ops::Footprint, OpError> {
    let mut tally = Tally::new(backend);
    let scratch = Scratch::new(&mut tally, spec, rows)?;
    tally.count(&Need::Mlp { hidden: spec.hidden_size, inner: spec.inner_max(), rows: rows.pass_max });
    // An op's memory serves all layers: the most that one needs.
    let of_layer = |attention: &AttentionSpec| {
        backend.footprint(&Need::Attention { shape: &attention.shape, format: kv })
    };
    let attention =
        spec.attention().map(of_layer).max_by_key(|needed| needed.host_bytes + needed.device_bytes);
    let mut footprint = tally.footprint;
    footprint += attention.unwrap_or_default();
    footprint.host_bytes += scratch.host_bytes();
    Ok(footprint)
}

/// What a pass works with besides the model.
pub struct Run<'a, B: Backend> {
    /// The back-end that all the others belong to.
    pub backend: &'a mut B,
    /// Computes the routed experts.
    pub experts: &'a mut dyn ExpertExec<B>,
    /// Pools of all sequences.
    pub states: &'a mut States<B>,
    /// Activations.
    pub scratch: &'a mut Scratch<B>,
    /// Asked once a layer whether the whole pass is to end.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl<B: Backend> Model<B> {
    /// Loads the resident weights. `prefix` is the prefix of the text model's tensor names.
    ///
    /// # Errors
    /// Read errors and damaged tensors, named.
    pub fn load(
        backend: &mut B,
        loader: &mut DenseLoader<'_>,
        prefix: &str,
        spec: &ModelSpec,
    ) -> Result<Self, ModelError> {
        let layers = (0..spec.num_layers()).map(|index| load_layer(backend, loader, prefix, index, spec));
        let layers = layers.collect::<Result<_, _>>()?;
        let lm_head = match spec.tie_word_embeddings {
            true => None,
            false => Some(loader.matrix(backend, "lm_head.weight")?),
        };
        let rope_factors = match &spec.rope_factors {
            RopeFactors::Ones => None,
            RopeFactors::Values(values) => {
                let mut buffer = backend.buffer(values.len())?;
                backend.write(&mut buffer, 0, values);
                Some(buffer)
            }
            RopeFactors::Stored => Some(loader.vector(backend, ROPE_FACTORS, |factor| factor)?),
        };
        Ok(Self {
            rope_factors,
            embed_tokens: loader.matrix(backend, &format!("{prefix}embed_tokens.weight"))?,
            layers,
            norm: loader.norm(backend, &format!("{prefix}norm.weight"), spec.norm.offset)?,
            lm_head,
            spec: spec.clone(),
        })
    }

    /// The model's specification.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Runs one pass, layer-major, and hands the wanted logits to `sink` (row of the step, `[V]`).
    ///
    /// Preconditions, which the engine keeps: ids are below V; rows fit into the scratch; pages and slots exist and belong
    /// to one sequence each, as far as they are written; a prompt's parts come in order. Returns the sequences that failed.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`], or what no sequence survives. The states of all sequences of the step are then undefined
    /// from their first row on.
    pub fn forward(
        &self,
        run: &mut Run<'_, B>,
        step: &Step<'_>,
        sink: &mut dyn FnMut(u32, &[f32]),
    ) -> Result<Failures, ModelError> {
        let mut laps = Laps::start();
        let (passes, mut failures) = (Passes::new(step), Failures::default());
        let rows = run.scratch.rows;
        let prompt_n = step.prompt.as_ref().map_or(0, |prompt| prompt.tokens.len());
        assert!(step.tokens.len() + prompt_n <= rows.pass_max, "rows fit: the engine checks this");
        if !step.tokens.is_empty() {
            run.backend.get_rows(&self.embed_tokens, step.tokens, &mut run.scratch.x, 0);
        }
        let mut under_way = false;
        for index in 0..self.layers.len() {
            let batch = passes.batch(step, index);
            if batch.n == 0 {
                continue;
            }
            if (run.cancelled)() {
                return Err(ModelError::Cancelled);
            }
            let prompt = step.prompt.as_ref().filter(|prompt| prompt.layers.contains(&index));
            if let Some(prompt) = prompt.filter(|prompt| prompt.layers.start == index) {
                self.enter(run, step.tokens.len(), prompt);
            }
            if !under_way && let Some(first) = self.upcoming(index, &batch) {
                first.guess((run.backend, run.experts), &run.scratch.x, &mut run.scratch.moe)?;
            }
            under_way = true;
            let next = self.upcoming(index + 1, &passes.batch(step, index + 1));
            self.forward_layer(run, index, &batch, next, &mut failures)?;
            if let Some(prompt) = prompt.filter(|prompt| prompt.layers.end == index + 1) {
                self.leave(run, step.tokens.len(), prompt);
            }
        }
        // Rows of sequences that failed are undefined.
        self.logits(run, step.wanted, &mut |row, logits| {
            if !passes.sequence(row).is_some_and(|sequence| failures.contains(sequence)) {
                sink(row, logits);
            }
        })?;
        run.scratch.moe.phases.forward += laps.lap();
        Ok(failures)
    }

    /// Brings a prompt's rows into the residual stream, behind the `whole` rows that go through all layers.
    fn enter(&self, run: &mut Run<'_, B>, whole: usize, prompt: &PromptPart<'_>) {
        let (hidden, s) = (self.spec.hidden_size, &mut *run.scratch);
        match prompt.layers.start {
            0 => run.backend.get_rows(&self.embed_tokens, prompt.tokens, &mut s.x, whole),
            _ => run.backend.copy(&s.parked, 0, &mut s.x, whole * hidden, prompt.tokens.len() * hidden),
        }
    }

    /// Parks a prompt's rows until the next pass, unless they are through.
    fn leave(&self, run: &mut Run<'_, B>, whole: usize, prompt: &PromptPart<'_>) {
        if prompt.layers.end < self.layers.len() {
            let (hidden, s) = (self.spec.hidden_size, &mut *run.scratch);
            assert!(prompt.tokens.len() <= s.rows.parked_max, "a prompt that fits: the engine checks this");
            run.backend.copy(&s.x, whole * hidden, &mut s.parked, 0, prompt.tokens.len() * hidden);
        }
    }

    fn forward_layer(
        &self,
        run: &mut Run<'_, B>,
        index: usize,
        batch: &Batch<'_>,
        next: Option<Upcoming<'_, B>>,
        failures: &mut Failures,
    ) -> Result<(), ModelError> {
        let (layer, backend, s) = (&self.layers[index], &mut *run.backend, &mut *run.scratch);
        let norm = self.norm_of(&layer.input_layernorm);
        let residual = Residual { norm, x: &mut s.x, h: &mut s.h, mixed: &mut s.mixed };
        match (&layer.mixer, &mut run.states.layers[index], &mut s.delta_net) {
            (Mixer::Attention(mixer), LayerStates::Attention(pools), _) => {
                let factors = self.rope_factors.as_ref();
                mixer.forward(backend, factors, batch, residual, pools, &mut s.attention);
            }
            (Mixer::DeltaNet(mixer), LayerStates::DeltaNet(states), Some(scratch)) => {
                mixer.forward(backend, batch, residual, states, scratch);
            }
            _ => unreachable!("states and scratch are made from the same specification as the layers"),
        }
        let norm = self.norm_of(&layer.post_attention_layernorm);
        let residual = Residual { norm, x: &mut s.x, h: &mut s.h, mixed: &mut s.mixed };
        match &layer.feed {
            Feed::Moe(moe) => {
                moe.forward((backend, run.experts), batch, residual, &mut s.moe, next, failures)
            }
            Feed::Dense(mlp) => {
                mlp.add(backend, batch.n, self.spec.hidden_size, residual);
                next.map_or(Ok(()), |next| next.guess((backend, run.experts), &s.x, &mut s.moe))
            }
        }
    }

    fn norm_of<'a>(&self, weight: &'a B::Buffer) -> Norm<'a, B> {
        Norm { weight, eps: self.spec.norm.eps, dim: self.spec.hidden_size }
    }

    /// The router of a layer that has one, to be asked before the layer's turn for the rows that will go through it.
    fn upcoming(&self, layer: usize, batch: &Batch<'_>) -> Option<Upcoming<'_, B>> {
        let layer = self.layers.get(layer)?;
        let Feed::Moe(moe) = &layer.feed else { return None };
        let (n, phase) = (batch.n, batch.phase());
        (n > 0).then(|| Upcoming { moe, norm: self.norm_of(&layer.post_attention_layernorm), n, phase })
    }

    /// Final norm and head over the wanted rows, a block of rows at a time.
    fn logits(
        &self,
        run: &mut Run<'_, B>,
        wanted: &[u32],
        sink: &mut dyn FnMut(u32, &[f32]),
    ) -> Result<(), OpError> {
        let (hidden, vocab, s) = (self.spec.hidden_size, self.spec.vocab_size, &mut *run.scratch);
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        for block in wanted.chunks(LOGIT_ROWS_MAX) {
            for (i, row) in block.iter().enumerate() {
                run.backend.copy(&s.x, *row as usize * hidden, &mut s.head_rows, i * hidden, hidden);
            }
            let (norm, products) = (self.norm_of(&self.norm), [(head, &mut s.logits)]);
            let n = block.len();
            run.backend.norm_products(NormProducts { x: &s.head_rows, norm, n, h: &mut s.head_h, products });
            run.backend.read_with(&s.logits, 0, n * vocab, |host| {
                host.chunks_exact(vocab).zip(block).for_each(|(logits, row)| sink(*row, logits));
            })?;
        }
        Ok(())
    }
}

fn load_layer<B: Backend>(
    backend: &mut B,
    loader: &mut DenseLoader<'_>,
    prefix: &str,
    index: usize,
    spec: &ModelSpec,
) -> Result<Layer<B>, ModelError> {
    let base = format!("{prefix}layers.{index}.");
    let layer = &spec.layers[index];
    let mixer = match &layer.mixer {
        MixerSpec::DeltaNet(shape) => {
            let specs = (spec, shape);
            Mixer::DeltaNet(DeltaNet::load(backend, loader, &format!("{base}linear_attn."), specs)?)
        }
        MixerSpec::Attention(attention) => {
            let specs = (spec, attention);
            Mixer::Attention(Attention::load(backend, loader, &format!("{base}self_attn."), specs)?)
        }
    };
    let feed = match &layer.feed {
        FeedSpec::Moe(moe) => Feed::Moe(Moe::load(backend, loader, &base, index, (spec, moe))?),
        FeedSpec::Dense(_) => Feed::Dense(Mlp::load(backend, loader, &format!("{base}mlp."))?),
    };
    let mut norm = |name| loader.norm(backend, &format!("{base}{name}"), spec.norm.offset);
    Ok(Layer {
        input_layernorm: norm("input_layernorm.weight")?,
        mixer,
        post_attention_layernorm: norm(POST_NORM)?,
        feed,
    })
}
