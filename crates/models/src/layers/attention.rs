//! Gated full attention with partial rotary embedding and norms on queries and keys (Qwen3.5-MoE section 3.1).

use kernels::backend::{AttentionShape, Backend, KvFormat};

use crate::load::DenseLoader;
use crate::{Config, ModelError};

/// Biases of the four projections, where the model has them.
struct Biases<B: Backend> {
    q: B::Buffer, // [heads * 2 * head_dim]
    k: B::Buffer, // [kv_heads * head_dim]
    v: B::Buffer, // [kv_heads * head_dim]
    o: B::Buffer, // [H]
}

/// Weights of one full-attention layer.
pub struct Attention<B: Backend> {
    shape: AttentionShape,
    hidden: usize,
    q_proj: B::Matrix, // [heads * 2 * head_dim, H]: query then gate, per head
    k_proj: B::Matrix, // [kv_heads * head_dim, H]
    v_proj: B::Matrix, // [kv_heads * head_dim, H]
    o_proj: B::Matrix, // [H, heads * head_dim]
    q_norm: B::Buffer, // [head_dim], 1 + w
    k_norm: B::Buffer, // [head_dim], 1 + w
    biases: Option<Biases<B>>,
}

/// Keys (after rotation) and values of one layer and sequence.
pub struct KvCache<B: Backend> {
    k: B::KvCache, // [ctx, kv_heads, head_dim]
    v: B::KvCache, // [ctx, kv_heads, head_dim]
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `ctx` tokens.
    pub fn new(backend: &mut B, shape: &AttentionShape, kv: KvFormat, ctx: usize) -> Self {
        Self { k: backend.kv_cache(kv, shape, ctx), v: backend.kv_cache(kv, shape, ctx) }
    }
}

/// Activations of a chunk inside the layer.
pub struct AttentionScratch<B: Backend> {
    qg: B::Buffer,  // [n, heads, 2, head_dim]
    k: B::Buffer,   // [n, kv_heads, head_dim]
    v: B::Buffer,   // [n, kv_heads, head_dim]
    out: B::Buffer, // [n, heads, head_dim]
}

impl<B: Backend> AttentionScratch<B> {
    /// Room for chunks of `n` tokens.
    pub fn new(backend: &mut B, shape: &AttentionShape, n: usize) -> Self {
        let (q, kv) = (n * shape.heads * shape.head_dim, n * shape.kv_heads * shape.head_dim);
        Self {
            qg: backend.buffer(2 * q),
            k: backend.buffer(kv),
            v: backend.buffer(kv),
            out: backend.buffer(q),
        }
    }

    /// Floats per token that [`AttentionScratch::new`] takes.
    pub fn len_per_token(shape: &AttentionShape) -> usize {
        (3 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    }
}

impl<B: Backend> Attention<B> {
    /// Loads the layer whose tensors start with `base` (`….layers.3.self_attn.`).
    ///
    /// # Errors
    /// Read errors and damaged tensors, named.
    pub fn load(
        backend: &mut B,
        loader: &mut DenseLoader<'_>,
        base: &str,
        config: &Config,
    ) -> Result<Self, ModelError> {
        let mut bias =
            |backend: &mut B, name: &str| loader.vector(backend, &format!("{base}{name}.bias"), |b| b);
        let biases = match config.attention_bias {
            true => Some(Biases {
                q: bias(backend, "q_proj")?,
                k: bias(backend, "k_proj")?,
                v: bias(backend, "v_proj")?,
                o: bias(backend, "o_proj")?,
            }),
            false => None,
        };
        Ok(Self {
            shape: config.attention,
            hidden: config.hidden_size,
            q_proj: loader.matrix(backend, &format!("{base}q_proj.weight"))?,
            k_proj: loader.matrix(backend, &format!("{base}k_proj.weight"))?,
            v_proj: loader.matrix(backend, &format!("{base}v_proj.weight"))?,
            o_proj: loader.matrix(backend, &format!("{base}o_proj.weight"))?,
            q_norm: loader.norm(backend, &format!("{base}q_norm.weight"), config.weight_form)?,
            k_norm: loader.norm(backend, &format!("{base}k_norm.weight"), config.weight_form)?,
            biases,
        })
    }

    /// `out = o_proj(attention(h))` for tokens `pos .. pos + n`; `h`, `out` are [n, H].
    #[allow(clippy::too_many_arguments)] // The parts have different owners; a struct would only rename them.
    pub fn forward(
        &self,
        backend: &mut B,
        h: &B::Buffer,
        pos: usize,
        n: usize,
        cache: &mut KvCache<B>,
        scratch: &mut AttentionScratch<B>,
        out: &mut B::Buffer,
    ) {
        let (shape, s) = (&self.shape, scratch);
        let products = [(&self.q_proj, &mut s.qg), (&self.k_proj, &mut s.k), (&self.v_proj, &mut s.v)];
        backend.mul_mats(products, h, n);
        if let Some(biases) = &self.biases {
            let kv = shape.kv_heads * shape.head_dim;
            backend.add_bias(&biases.q, n, 2 * shape.heads * shape.head_dim, &mut s.qg);
            backend.add_bias(&biases.k, n, kv, &mut s.k);
            backend.add_bias(&biases.v, n, kv, &mut s.v);
        }
        let (k_cache, v_cache) = (&mut cache.k, &mut cache.v);
        backend.qk_norm_rope_store(
            shape,
            pos,
            n,
            &self.q_norm,
            &self.k_norm,
            &mut s.qg,
            &mut s.k,
            &s.v,
            k_cache,
            v_cache,
        );
        backend.gated_attention(shape, pos, n, &s.qg, k_cache, v_cache, &mut s.out);
        backend.mul_mat(&self.o_proj, &s.out, n, out);
        if let Some(biases) = &self.biases {
            backend.add_bias(&biases.o, n, self.hidden, out);
        }
    }
}
