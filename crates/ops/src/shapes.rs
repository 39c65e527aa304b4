//! Shapes of the layers that have ops of their own.

/// Which two dimensions of a head a rotary embedding turns together.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum RopePairing {
    /// Dimension j with j + rotary_dim / 2, as Hugging Face and most GGUF files have it.
    #[default]
    Halves,
    /// Dimension 2 j with 2 j + 1: the llama family in GGUF files, whose converters reorder the rows of
    /// queries and keys.
    Adjacent,
}

/// Shape of a full-attention layer.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub kv_heads: usize,
    /// Dimensions of one head.
    pub head_dim: usize,
    /// Leading dimensions of a head that are rotated (even).
    pub rotary_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Which dimensions are rotated together.
    pub pairing: RopePairing,
    /// Whether each query head comes with a gate for its output.
    pub gated: bool,
    /// Epsilon of the query and key norms.
    pub eps: f32,
}

impl AttentionShape {
    /// Floats of one query head: the query, and its gate where there is one.
    pub fn query_len(&self) -> usize {
        self.head_dim * if self.gated { 2 } else { 1 }
    }
}

/// Which key head a value head of a Gated DeltaNet layer belongs to.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum ValueHeadOrder {
    /// Hugging Face: the value heads of a key head follow one another. Value head n belongs to key
    /// head n / (Nv / Nk).
    #[default]
    Grouped,
    /// GGUF: the key heads take turns. Value head n belongs to key head n mod Nk.
    Tiled,
}

/// Shape of a Gated DeltaNet layer (Qwen3.5-MoE section 3.2).
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct DeltaNetShape {
    /// Key heads, Nk.
    pub key_heads: usize,
    /// Value heads, Nv; a multiple of Nk.
    pub value_heads: usize,
    /// Which key head each value head belongs to.
    pub value_head_order: ValueHeadOrder,
    /// dk.
    pub key_dim: usize,
    /// dv.
    pub value_dim: usize,
    /// Taps of the causal convolution.
    pub conv_kernel: usize,
    /// Epsilon of the gated norm.
    pub eps: f32,
}

impl DeltaNetShape {
    /// Channels of the convolution: q, k and v of all heads.
    pub fn conv_channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }

    /// Values of all value heads.
    pub fn value_len(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// The value head that is number `i` of those of `key_head`.
    pub fn value_head(&self, key_head: usize, i: usize) -> usize {
        match self.value_head_order {
            ValueHeadOrder::Grouped => key_head * (self.value_heads / self.key_heads) + i,
            ValueHeadOrder::Tiled => i * self.key_heads + key_head,
        }
    }

    /// Floats of the recurrent state, `[Nk, Nv / Nk, dk, dv]`.
    pub fn state_len(&self) -> usize {
        self.value_heads * self.key_dim * self.value_dim
    }
}
