//! Full attention with rotary embedding; output gate, norms on queries and keys, and biases where the model has them.

use ops::{AttentionShape, Backend, KvFormat};

use crate::config::AttentionBias;
use crate::load::DenseLoader;
use crate::{Config, ModelError};

/// Biases of the projections, where the model has them.
struct Biases<B: Backend> {
    qkv: Option<[B::Buffer; 3]>, // as many as each projection has rows
    o: Option<B::Buffer>,        // [H]
}

impl<B: Backend> Biases<B> {
    fn load(
        backend: &mut B,
        loader: &mut DenseLoader<'_>,
        base: &str,
        has: AttentionBias,
    ) -> Result<Self, ModelError> {
        let mut bias = |name: &str| loader.vector(backend, &format!("{base}{name}.bias"), |b| b);
        let qkv = match has.qkv {
            true => Some([bias("q_proj")?, bias("k_proj")?, bias("v_proj")?]),
            false => None,
        };
        let o = if has.output { Some(bias("o_proj")?) } else { None };
        Ok(Self { qkv, o })
    }
}

/// Weights of one full-attention layer.
pub struct Attention<B: Backend> {
    shape: AttentionShape,
    hidden: usize,
    q_proj: B::Matrix, // [heads * 2 * head_dim, H]: query then gate, per head; without gates [heads * head_dim, H]
    k_proj: B::Matrix, // [kv_heads * head_dim, H]
    v_proj: B::Matrix, // [kv_heads * head_dim, H]
    o_proj: B::Matrix, // [H, heads * head_dim]
    norms: Option<[B::Buffer; 2]>, // of queries and keys, [head_dim] each, as they multiply
    biases: Biases<B>,
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
    qg: B::Buffer,  // [n, heads, 2, head_dim], or without the 2
    k: B::Buffer,   // [n, kv_heads, head_dim]
    v: B::Buffer,   // [n, kv_heads, head_dim]
    out: B::Buffer, // [n, heads, head_dim]
}

impl<B: Backend> AttentionScratch<B> {
    /// Room for chunks of `n` tokens.
    pub fn new(backend: &mut B, shape: &AttentionShape, n: usize) -> Self {
        let (q, kv) = (n * shape.heads * shape.head_dim, n * shape.kv_heads * shape.head_dim);
        Self {
            qg: backend.buffer(n * shape.heads * shape.query_len()),
            k: backend.buffer(kv),
            v: backend.buffer(kv),
            out: backend.buffer(q),
        }
    }

    /// Floats per token that [`AttentionScratch::new`] takes.
    pub fn len_per_token(shape: &AttentionShape) -> usize {
        shape.heads * shape.query_len() + (shape.heads + 2 * shape.kv_heads) * shape.head_dim
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
        let mut norm = |name: &str| loader.norm(backend, &format!("{base}{name}.weight"), config.norm_offset);
        let norms = if config.qk_norm { Some([norm("q_norm")?, norm("k_norm")?]) } else { None };
        Ok(Self {
            shape: config.attention,
            hidden: config.hidden_size,
            q_proj: loader.matrix(backend, &format!("{base}q_proj.weight"))?,
            k_proj: loader.matrix(backend, &format!("{base}k_proj.weight"))?,
            v_proj: loader.matrix(backend, &format!("{base}v_proj.weight"))?,
            o_proj: loader.matrix(backend, &format!("{base}o_proj.weight"))?,
            norms,
            biases: Biases::load(backend, loader, base, config.attention_bias)?,
        })
    }

    /// `out = o_proj(attention(h))` for tokens `pos .. pos + n`; `h`, `out` are [n, H], `rope_factors` (what rotary
    /// frequencies are divided by) [rotary_dim / 2].
    #[allow(clippy::too_many_arguments)] // The parts have different owners; a struct would only rename them.
    pub fn forward(
        &self,
        backend: &mut B,
        rope_factors: Option<&B::Buffer>,
        h: &B::Buffer,
        (pos, n): (usize, usize),
        cache: &mut KvCache<B>,
        scratch: &mut AttentionScratch<B>,
        out: &mut B::Buffer,
    ) {
        let (shape, s) = (&self.shape, scratch);
        let products = [(&self.q_proj, &mut s.qg), (&self.k_proj, &mut s.k), (&self.v_proj, &mut s.v)];
        backend.mul_mats(products, h, n);
        if let Some([q, k, v]) = &self.biases.qkv {
            let kv = shape.kv_heads * shape.head_dim;
            backend.add_bias(q, n, shape.heads * shape.query_len(), &mut s.qg);
            backend.add_bias(k, n, kv, &mut s.k);
            backend.add_bias(v, n, kv, &mut s.v);
        }
        let (k_cache, v_cache) = (&mut cache.k, &mut cache.v);
        backend.qk_norm_rope_store(
            shape,
            pos,
            n,
            self.norms.as_ref().map(|[q, k]| [q, k]),
            rope_factors,
            &mut s.qg,
            &mut s.k,
            &s.v,
            k_cache,
            v_cache,
        );
        backend.gated_attention(shape, pos, n, &s.qg, k_cache, v_cache, &mut s.out);
        backend.mul_mat(&self.o_proj, &s.out, n, out);
        if let Some(bias) = &self.biases.o {
            backend.add_bias(bias, n, self.hidden, out);
        }
    }
}
