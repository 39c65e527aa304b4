//! What a model is: numbers and choices, no weights and no family names.
//!
//! A [`ModelSpec`] lists its layers one by one, and layers may differ from one another. A part that
//! a layer lacks is `None` or another variant, never a zero. Families make specifications
//! (`Family::spec` in `family.rs`); the tensors that a checkpoint must have ([`crate::layout`])
//! and the layers that are built follow from them.

use ops::{AttentionShape, DeltaNetShape, KvFormat, ValueHeadOrder};

/// A text model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Name of the family, for people.
    pub family: &'static str,
    /// Entries of the vocabulary, V.
    pub vocab_size: usize,
    /// Width of the residual stream, H.
    pub hidden_size: usize,
    /// The layers in order, `[L]`.
    pub layers: Vec<LayerSpec>,
    /// Norms of the residual stream.
    pub norm: NormSpec,
    /// What the rotary frequencies of all layers are divided by.
    pub rope_factors: RopeFactors,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Longest context that the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// End tokens named in config.json.
    pub eos_token_ids: Vec<u32>,
    /// In what form the weights are stored.
    pub weight_form: WeightForm,
}

/// One layer: `x += mixer(norm(x))`, then `x += feed(norm(x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// How tokens are mixed.
    pub mixer: MixerSpec,
    /// The position-wise part behind the mixer.
    pub feed: FeedSpec,
}

/// How a layer mixes tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum MixerSpec {
    /// Softmax attention over the whole context.
    Attention(AttentionSpec),
    /// Gated DeltaNet: a recurrent state of fixed size.
    DeltaNet(DeltaNetShape),
}

/// Softmax attention.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Heads, their rotary part, and whether their output is gated.
    pub shape: AttentionShape,
    /// Whether each head's queries and keys are normed before they are rotated.
    pub qk_norm: bool,
    /// Which projections have biases.
    pub bias: AttentionBias,
}

/// Which projections of an attention layer have biases.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct AttentionBias {
    /// Queries, keys and values.
    pub qkv: bool,
    /// Output.
    pub output: bool,
}

/// The position-wise part of a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedSpec {
    /// One MLP for every token.
    Dense(MlpSpec),
    /// Routed experts.
    Moe(MoeSpec),
}

/// A gated MLP: `down(silu(gate x) * (up x))`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MlpSpec {
    /// Inner width.
    pub inner: usize,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeSpec {
    /// Routed experts, E.
    pub experts: usize,
    /// Experts that each token uses, K: the model's own number, never another.
    pub per_token: usize,
    /// One routed expert; its inner width is F.
    pub expert: MlpSpec,
    /// From logits to experts and weights.
    pub router: RouterSpec,
    /// The expert that every token uses besides, if there is one.
    pub shared: Option<SharedSpec>,
}

/// An expert that every token uses.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SharedSpec {
    /// Inner width, Fs.
    pub inner: usize,
    /// Whether its output is multiplied by a sigmoid of the token's own.
    pub gate: bool,
}

/// How a router turns logits into the weights of the chosen experts.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Score {
    /// Softmax over all experts, before the choice.
    #[default]
    Softmax,
    /// The experts with the largest logits, then softmax over theirs alone.
    SoftmaxOfChosen,
    /// A sigmoid of each expert's own.
    Sigmoid,
}

/// The value that groups of experts are ranked by.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum GroupRank {
    /// The best expert of each.
    Max,
    /// The two best of each, added.
    SumOfTwo,
}

/// Experts in groups, of which a token may use only the best.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Groups of consecutive experts, equally large: a divisor of the number of experts.
    pub count: usize,
    /// Groups that a token may use, 1 to `count`; together they have at least K experts.
    pub used: usize,
    /// The value that they are ranked by.
    pub rank: GroupRank,
}

/// How a router's logits become each token's experts and their weights.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct RouterSpec {
    /// From logits to scores.
    pub score: Score,
    /// Whether a vector `[E]` is added to the logits.
    pub bias: bool,
    /// Whether a vector `[E]` is added to the scores for the choice alone; weights are made of the
    /// bare scores.
    pub correction: bool,
    /// Groups of experts, where a token may not use all.
    pub groups: Option<Groups>,
    /// Whether the weights of a token's experts are divided by their sum. With
    /// [`Score::SoftmaxOfChosen`] it is 1.
    pub renormalise: bool,
    /// Factor of all weights, applied last.
    pub scale: f32,
}

impl RouterSpec {
    /// Softmax over all experts, the best K, renormalised.
    pub const SOFTMAX: RouterSpec = RouterSpec {
        score: Score::Softmax,
        bias: false,
        correction: false,
        groups: None,
        renormalise: true,
        scale: 1.0,
    };
}

/// The RMS norms of a model.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct NormSpec {
    /// Added to the mean square.
    pub eps: f32,
    /// Added to a stored weight before it multiplies: 1 in families that store it less 1.
    pub offset: f32,
}

/// Divisors of the rotary frequencies.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RopeFactors {
    /// None.
    #[default]
    Ones,
    /// These, `[rotary_dim / 2]`.
    Values(Vec<f32>),
    /// A tensor of the checkpoint, `rope_freqs.weight`.
    Stored,
}

/// The form in which a checkpoint stores norms, decays and heads.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum WeightForm {
    /// As published: norms that multiply by `1 + w` in families that do, `A_log`, value heads
    /// grouped by key head, rotary dimensions paired by halves.
    #[default]
    HuggingFace,
    /// As converters to GGUF leave them: norms as they multiply, `-exp(A_log)`, value heads tiled,
    /// adjacent rotary dimensions paired in the llama family.
    Gguf,
}

impl WeightForm {
    /// The key in config.json that names the form, where `pack` writes it; published files have
    /// none.
    pub(crate) const KEY: &'static str = "weight_form";
    /// Name of [`WeightForm::Gguf`] there.
    pub(crate) const GGUF: &'static str = "gguf";

    /// `-exp(A_log)` of a DeltaNet head.
    pub fn a_neg(self, stored: f32) -> f32 {
        match self {
            WeightForm::HuggingFace => -stored.exp(),
            WeightForm::Gguf => stored,
        }
    }

    /// Which key head a DeltaNet value head belongs to.
    pub fn value_head_order(self) -> ValueHeadOrder {
        match self {
            WeightForm::HuggingFace => ValueHeadOrder::Grouped,
            WeightForm::Gguf => ValueHeadOrder::Tiled,
        }
    }
}

impl LayerSpec {
    /// The layer's attention, if it attends.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match &self.mixer {
            MixerSpec::Attention(attention) => Some(attention),
            MixerSpec::DeltaNet(_) => None,
        }
    }

    /// The layer's DeltaNet, if it has one.
    pub fn delta_net(&self) -> Option<&DeltaNetShape> {
        match &self.mixer {
            MixerSpec::Attention(_) => None,
            MixerSpec::DeltaNet(shape) => Some(shape),
        }
    }

    /// The layer's experts, if it has any.
    pub fn moe(&self) -> Option<&MoeSpec> {
        match &self.feed {
            FeedSpec::Dense(_) => None,
            FeedSpec::Moe(moe) => Some(moe),
        }
    }

    /// Inner width of the MLP that every token of the layer uses: of a dense layer, or of the
    /// shared expert.
    fn dense_inner(&self) -> usize {
        match &self.feed {
            FeedSpec::Dense(mlp) => mlp.inner,
            FeedSpec::Moe(moe) => moe.shared.map_or(0, |shared| shared.inner),
        }
    }
}

impl ModelSpec {
    /// Number of layers, L.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// The attention of each layer that attends.
    pub fn attention(&self) -> impl Iterator<Item = &AttentionSpec> {
        self.layers.iter().filter_map(LayerSpec::attention)
    }

    /// The DeltaNet of each recurrent layer.
    pub fn delta_net(&self) -> impl Iterator<Item = &DeltaNetShape> {
        self.layers.iter().filter_map(LayerSpec::delta_net)
    }

    /// The experts of each layer that has any.
    pub fn moe(&self) -> impl Iterator<Item = &MoeSpec> {
        self.layers.iter().filter_map(LayerSpec::moe)
    }

    /// Number of layers with softmax attention.
    pub fn attention_layers(&self) -> usize {
        self.attention().count()
    }

    /// Number of layers with routed experts.
    pub fn moe_layers(&self) -> usize {
        self.moe().count()
    }

    /// Routed experts of the layer that has most; 0 if no layer has any.
    pub fn experts_max(&self) -> usize {
        self.moe().map(|moe| moe.experts).max().unwrap_or(0)
    }

    /// Most experts that a token uses in one layer: the fewest slots that a step can do with. 0 if
    /// no layer has any.
    pub fn per_token_max(&self) -> usize {
        self.moe().map(|moe| moe.per_token).max().unwrap_or(0)
    }

    /// Experts that one token uses in all layers together.
    pub fn experts_per_token(&self) -> usize {
        self.moe().map(|moe| moe.per_token).sum()
    }

    /// Inner width of the widest MLP: routed, shared or dense.
    pub fn inner_max(&self) -> usize {
        let routed = self.moe().map(|moe| moe.expert.inner);
        routed.chain(self.layers.iter().map(LayerSpec::dense_inner)).max().unwrap_or(0)
    }

    /// Bytes of keys and values of one token in all layers.
    pub fn kv_bytes_per_token(&self, kv: KvFormat) -> u64 {
        let bytes = |attention: &AttentionSpec| {
            let AttentionShape { kv_heads, head_dim, .. } = attention.shape;
            2 * kv_heads as u64 * kv.head_bytes(head_dim) as u64
        };
        self.attention().map(bytes).sum()
    }

    /// Bytes of the DeltaNet states and convolution tails of one sequence, f32.
    pub fn recurrent_state_bytes(&self) -> u64 {
        let floats =
            |delta: &DeltaNetShape| delta.state_len() + (delta.conv_kernel - 1) * delta.conv_channels();
        4 * self.delta_net().map(floats).sum::<usize>() as u64
    }

    /// Bytes of one sequence's state for `ctx` tokens.
    pub fn state_bytes(&self, kv: KvFormat, ctx: usize) -> u64 {
        ctx as u64 * self.kv_bytes_per_token(kv) + self.recurrent_state_bytes()
    }

    /// Whether a sequence's state can go back to an earlier position: recurrent state cannot.
    pub fn can_rewind(&self) -> bool {
        self.attention_layers() == self.num_layers()
    }
}
