//! A whole model: embedding, layers, final norm, head; and the state and scratch that a step needs.

use std::sync::atomic::{AtomicBool, Ordering};

use experts::ExpertStore;
use ops::{Backend, KvFormat};

use crate::config::{LayerType, MlpType, RopeFactors};
use crate::layers::{
    Attention, AttentionScratch, DeltaNet, DeltaNetScratch, DeltaNetState, KvCache, Mlp, Moe, MoeScratch,
    Upcoming,
};
use crate::layout::ROPE_FACTORS;
use crate::load::DenseLoader;
use crate::phases::Laps;
use crate::{Config, ModelError, Phases};

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
    config: Config,
    embed_tokens: B::Matrix,         // [V, H]
    rope_factors: Option<B::Buffer>, // [rotary_dim / 2]
    layers: Vec<Layer<B>>,
    norm: B::Buffer,            // [H]
    lm_head: Option<B::Matrix>, // [V, H]; None: tied to embed_tokens
}

/// Per-sequence state of one layer.
enum LayerState<B: Backend> {
    Attention(KvCache<B>),
    DeltaNet(DeltaNetState<B>),
}

/// Per-sequence state: key/value caches and recurrent states, and how many tokens they have seen.
pub struct State<B: Backend> {
    layers: Vec<LayerState<B>>,
    pos: usize,
    ctx: usize,
}

impl<B: Backend> State<B> {
    /// The state of an empty sequence of at most `ctx` tokens, with keys and values in `kv`.
    pub fn new(backend: &mut B, config: &Config, kv: KvFormat, ctx: usize) -> Self {
        let layer = |kind: &LayerType| match (kind, &config.delta_net) {
            (LayerType::LinearAttention, Some(shape)) => {
                LayerState::DeltaNet(DeltaNetState::new(backend, shape))
            }
            _ => LayerState::Attention(KvCache::new(backend, &config.attention, kv, ctx)),
        };
        Self { layers: config.layer_types.iter().map(layer).collect(), pos: 0, ctx }
    }

    /// Tokens seen.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Most tokens it can hold.
    pub fn ctx(&self) -> usize {
        self.ctx
    }

    /// Back to the first `pos` tokens, where [`Config::can_rewind`]. Cached rows from there on are written anew before they
    /// are read.
    pub fn rewind(&mut self, pos: usize) {
        let recurrent = |layer: &LayerState<B>| matches!(layer, LayerState::DeltaNet(_));
        assert!(
            pos <= self.pos && !self.layers.iter().any(recurrent),
            "a state that cannot be rewound: the session checks this"
        );
        self.pos = pos;
    }

    /// Back to the empty sequence. Caches need no clearing: rows from `pos` on are never read.
    pub fn clear(&mut self, backend: &mut B) {
        self.pos = 0;
        for layer in &mut self.layers {
            if let LayerState::DeltaNet(state) = layer {
                state.clear(backend);
            }
        }
    }
}

/// Activations of a chunk, allocated once.
pub struct Scratch<B: Backend> {
    tokens_max: usize,
    x: B::Buffer,      // [n, H], the residual stream
    h: B::Buffer,      // [n, H], normed
    mixed: B::Buffer,  // [n, H], what a mixer or a dense MLP adds
    rows: B::Buffer,   // [LOGIT_ROWS_MAX, H], rows whose logits are wanted
    logits: B::Buffer, // [LOGIT_ROWS_MAX, V]
    host_logits: Vec<f32>,
    attention: AttentionScratch<B>,
    delta_net: Option<DeltaNetScratch<B>>,
    moe: MoeScratch<B>,
}

impl<B: Backend> Scratch<B> {
    /// Room for chunks of up to `tokens_max` tokens.
    pub fn new(backend: &mut B, config: &Config, tokens_max: usize) -> Self {
        let (n, hidden) = (tokens_max, config.hidden_size);
        let logit_rows = LOGIT_ROWS_MAX.min(n);
        Self {
            tokens_max,
            x: backend.buffer(n * hidden),
            h: backend.buffer(n * hidden),
            mixed: backend.buffer(n * hidden),
            rows: backend.buffer(logit_rows * hidden),
            logits: backend.buffer(logit_rows * config.vocab_size),
            host_logits: vec![0.0; logit_rows * config.vocab_size],
            attention: AttentionScratch::new(backend, &config.attention, n),
            delta_net: config.delta_net.as_ref().map(|shape| DeltaNetScratch::new(backend, shape, n)),
            moe: MoeScratch::new(backend, config, n),
        }
    }

    /// Longest chunk.
    pub fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// Where the time of the steps that used this scratch went.
    pub fn phases(&self) -> Phases {
        self.moe.phases
    }

    /// Bytes that [`Scratch::new`] takes.
    pub fn bytes(config: &Config, tokens_max: usize) -> u64 {
        let per_token = 3 * config.hidden_size
            + AttentionScratch::<B>::len_per_token(&config.attention)
            + config.delta_net.as_ref().map_or(0, DeltaNetScratch::<B>::len_per_token)
            + MoeScratch::<B>::len_per_token(config);
        let logit_rows = LOGIT_ROWS_MAX.min(tokens_max);
        let logits = logit_rows * (config.hidden_size + 2 * config.vocab_size);
        let fixed = logits + MoeScratch::<B>::len_fixed(config, tokens_max);
        4 * (tokens_max as u64 * per_token as u64 + fixed as u64)
    }
}

/// Which positions of a chunk the caller wants logits of.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: a chunk of a prompt that is not its last.
    None,
    /// The last position only.
    Last,
    /// Every position.
    All,
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
        config: &Config,
    ) -> Result<Self, ModelError> {
        let layers = (0..config.num_layers()).map(|index| load_layer(backend, loader, prefix, index, config));
        let layers = layers.collect::<Result<_, _>>()?;
        let lm_head = match config.tie_word_embeddings {
            true => None,
            false => Some(loader.matrix(backend, "lm_head.weight")?),
        };
        let rope_factors = match &config.rope_factors {
            RopeFactors::Ones => None,
            RopeFactors::Values(values) => {
                let mut buffer = backend.buffer(values.len());
                backend.write(&mut buffer, 0, values);
                Some(buffer)
            }
            RopeFactors::Stored => Some(loader.vector(backend, ROPE_FACTORS, |factor| factor)?),
        };
        Ok(Self {
            rope_factors,
            embed_tokens: loader.matrix(backend, &format!("{prefix}embed_tokens.weight"))?,
            layers,
            norm: loader.norm(backend, &format!("{prefix}norm.weight"), config.norm_offset)?,
            lm_head,
            config: config.clone(),
        })
    }

    /// The model's hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs one chunk through the model, layer-major, and hands the wanted logits to `sink` (row in the chunk, [V]).
    ///
    /// `tokens` are ids below V, at most `scratch.tokens_max()` of them, and fit in the state's context: preconditions
    /// that the engine checks. `cancel` is looked at once per layer.
    ///
    /// # Errors
    /// What the expert store reports, or [`ModelError::Cancelled`]. The state has then seen part of the chunk and must be
    /// cleared before it is used again.
    #[allow(clippy::too_many_arguments)] // The parts are owned by the engine, one by one; a struct would only rename them.
    pub fn forward(
        &self,
        backend: &mut B,
        store: &mut ExpertStore,
        state: &mut State<B>,
        scratch: &mut Scratch<B>,
        tokens: &[u32],
        wanted: Wanted,
        cancel: &AtomicBool,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        let (n, pos) = (tokens.len(), state.pos);
        assert!(
            n > 0 && n <= scratch.tokens_max && pos + n <= state.ctx,
            "chunk does not fit: the engine checks this"
        );
        let mut laps = Laps::start();
        backend.get_rows(&self.embed_tokens, tokens, &mut scratch.x);
        let upcoming = |layer: usize| self.layers.get(layer).and_then(|layer| self.upcoming(layer));
        if let Some(first) = upcoming(0) {
            first.guess(backend, store, (&scratch.x, n), &mut scratch.moe)?;
        }
        for (index, (layer, state)) in self.layers.iter().zip(&mut state.layers).enumerate() {
            if cancel.load(Ordering::Relaxed) {
                return Err(ModelError::Cancelled);
            }
            self.forward_layer(backend, store, layer, state, scratch, (pos, n), upcoming(index + 1))?;
        }
        state.pos = pos + n;
        self.logits(backend, scratch, n, wanted, sink);
        scratch.moe.phases.forward += laps.lap();
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn forward_layer(
        &self,
        backend: &mut B,
        store: &mut ExpertStore,
        layer: &Layer<B>,
        state: &mut LayerState<B>,
        scratch: &mut Scratch<B>,
        (pos, n): (usize, usize),
        next: Option<Upcoming<'_, B>>,
    ) -> Result<(), ModelError> {
        let (hidden, eps, s) = (self.config.hidden_size, self.config.rms_norm_eps, scratch);
        backend.rms_norm(&s.x, &layer.input_layernorm, eps, n, hidden, &mut s.h);
        match (&layer.mixer, state, &mut s.delta_net) {
            (Mixer::Attention(mixer), LayerState::Attention(cache), _) => {
                let factors = self.rope_factors.as_ref();
                mixer.forward(backend, factors, &s.h, (pos, n), cache, &mut s.attention, &mut s.mixed);
            }
            (Mixer::DeltaNet(mixer), LayerState::DeltaNet(state), Some(scratch)) => {
                mixer.forward(backend, &s.h, n, state, scratch, &mut s.mixed);
            }
            _ => unreachable!("states and scratch are made from the same configuration as the layers"),
        }
        backend.add(&s.mixed, n * hidden, &mut s.x);
        backend.rms_norm(&s.x, &layer.post_attention_layernorm, eps, n, hidden, &mut s.h);
        match &layer.feed {
            Feed::Moe(moe) => moe.forward(backend, store, (&s.h, n), &mut s.moe, &mut s.x, next),
            Feed::Dense(mlp) => {
                mlp.forward(backend, None, &s.h, n, &mut s.mixed);
                backend.add(&s.mixed, n * hidden, &mut s.x);
                next.map_or(Ok(()), |next| next.guess(backend, store, (&s.x, n), &mut s.moe))
            }
        }
    }

    /// The router of a layer that has one, to be asked before the layer's turn.
    fn upcoming<'a>(&self, layer: &'a Layer<B>) -> Option<Upcoming<'a, B>> {
        let Feed::Moe(moe) = &layer.feed else { return None };
        Some(Upcoming { moe, norm: &layer.post_attention_layernorm, eps: self.config.rms_norm_eps })
    }

    /// Final norm and head over the wanted rows, a block of rows at a time.
    fn logits(
        &self,
        backend: &mut B,
        scratch: &mut Scratch<B>,
        n: usize,
        wanted: Wanted,
        sink: &mut dyn FnMut(usize, &[f32]),
    ) {
        let (hidden, vocab, s) = (self.config.hidden_size, self.config.vocab_size, scratch);
        let first = match wanted {
            Wanted::None => return,
            Wanted::Last => n - 1,
            Wanted::All => 0,
        };
        backend.rms_norm(&s.x, &self.norm, self.config.rms_norm_eps, n, hidden, &mut s.h);
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        for start in (first..n).step_by(LOGIT_ROWS_MAX) {
            let rows = LOGIT_ROWS_MAX.min(n - start);
            backend.copy(&s.h, start * hidden, &mut s.rows, 0, rows * hidden);
            backend.mul_mat(head, &s.rows, rows, &mut s.logits);
            let host = &mut s.host_logits[..rows * vocab];
            backend.read(&s.logits, 0, host);
            host.chunks_exact(vocab).enumerate().for_each(|(row, logits)| sink(start + row, logits));
        }
    }
}

fn load_layer<B: Backend>(
    backend: &mut B,
    loader: &mut DenseLoader<'_>,
    prefix: &str,
    index: usize,
    config: &Config,
) -> Result<Layer<B>, ModelError> {
    let base = format!("{prefix}layers.{index}.");
    let mixer = match (config.layer_types[index], config.delta_net) {
        (LayerType::LinearAttention, Some(shape)) => {
            let form = (shape, config.weight_form);
            Mixer::DeltaNet(DeltaNet::load(backend, loader, &format!("{base}linear_attn."), form)?)
        }
        _ => Mixer::Attention(Attention::load(backend, loader, &format!("{base}self_attn."), config)?),
    };
    let mlp = format!("{base}mlp.");
    let feed = match config.mlp_types[index] {
        MlpType::Moe => Feed::Moe(Moe::load(backend, loader, &mlp, index, config)?),
        MlpType::Dense => Feed::Dense(Mlp::load(backend, loader, &mlp)?),
    };
    Ok(Layer {
        input_layernorm: loader.norm(
            backend,
            &format!("{base}input_layernorm.weight"),
            config.norm_offset,
        )?,
        mixer,
        post_attention_layernorm: loader.norm(
            backend,
            &format!("{base}post_attention_layernorm.weight"),
            config.norm_offset,
        )?,
        feed,
    })
}
