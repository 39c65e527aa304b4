//! Full attention with rotary embedding; output gate, norms on queries and keys, and biases where the model has them.

use ops::{AttentionShape, Backend, Batch, KvFormat, NormProducts, OpError, OutputProduct};

use crate::ModelError;
use crate::layers::Residual;
use crate::load::DenseLoader;
use crate::spec::{AttentionBias, AttentionSpec, ModelSpec};

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

/// Keys (after rotation) and values of one layer, of all sequences.
pub struct KvPools<B: Backend> {
    pub(crate) keys: B::KvPool,   // [pages, PAGE_TOKENS, kv_heads, head_dim]
    pub(crate) values: B::KvPool, // [pages, PAGE_TOKENS, kv_heads, head_dim]
}

impl<B: Backend> KvPools<B> {
    /// Pools of so many pages.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub fn new(backend: &mut B, shape: &AttentionShape, kv: KvFormat, pages: usize) -> Result<Self, OpError> {
        Ok(Self { keys: backend.kv_pool(kv, shape, pages)?, values: backend.kv_pool(kv, shape, pages)? })
    }
}

/// Activations of a pass inside the layer.
pub struct AttentionScratch<B: Backend> {
    qg: B::Buffer,  // [n, heads, 2, head_dim], or without the 2
    k: B::Buffer,   // [n, kv_heads, head_dim]
    v: B::Buffer,   // [n, kv_heads, head_dim]
    out: B::Buffer, // [n, heads, head_dim]
}

impl<B: Backend> AttentionScratch<B> {
    /// Room for `n` rows in any layer of the model.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub fn new(backend: &mut B, spec: &ModelSpec, n: usize) -> Result<Self, OpError> {
        let widest = |len: &dyn Fn(&AttentionShape) -> usize| {
            spec.attention().map(|attention| n * len(&attention.shape)).max().unwrap_or(0)
        };
        let kv = widest(&|shape| shape.kv_heads * shape.head_dim);
        Ok(Self {
            qg: backend.buffer(widest(&|shape| shape.heads * shape.query_len()))?,
            k: backend.buffer(kv)?,
            v: backend.buffer(kv)?,
            out: backend.buffer(widest(&|shape| shape.heads * shape.head_dim))?,
        })
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
        (model, spec): (&ModelSpec, &AttentionSpec),
    ) -> Result<Self, ModelError> {
        let mut norm = |name: &str| loader.norm(backend, &format!("{base}{name}.weight"), model.norm.offset);
        let norms = if spec.qk_norm { Some([norm("q_norm")?, norm("k_norm")?]) } else { None };
        Ok(Self {
            shape: spec.shape,
            hidden: model.hidden_size,
            q_proj: loader.matrix(backend, &format!("{base}q_proj.weight"))?,
            k_proj: loader.matrix(backend, &format!("{base}k_proj.weight"))?,
            v_proj: loader.matrix(backend, &format!("{base}v_proj.weight"))?,
            o_proj: loader.matrix(backend, &format!("{base}o_proj.weight"))?,
            norms,
            biases: Biases::load(backend, loader, base, spec.bias)?,
        })
    }

    /// `x += o_proj(attention(norm(x)))` for the batch's rows; `rope_factors` (divisors of the rotary frequencies)
    /// [rotary_dim / 2].
    pub fn forward(
        &self,
        backend: &mut B,
        rope_factors: Option<&B::Buffer>,
        batch: &Batch<'_>,
        residual: Residual<'_, B>,
        pools: &mut KvPools<B>,
        scratch: &mut AttentionScratch<B>,
    ) {
        let (n, s) = (batch.n, scratch);
        let Residual { norm, x, h, mixed } = residual;
        let products = [(&self.q_proj, &mut s.qg), (&self.k_proj, &mut s.k), (&self.v_proj, &mut s.v)];
        backend.norm_products(NormProducts { x, norm, n, h, products });
        backend.attention(ops::Attention {
            shape: &self.shape,
            batch,
            biases: self.biases.qkv.as_ref().map(|[q, k, v]| [q, k, v]),
            norms: self.norms.as_ref().map(|[q, k]| [q, k]),
            rope_factors,
            qg: &mut s.qg,
            k: &mut s.k,
            v: &mut s.v,
            keys: &mut pools.keys,
            values: &mut pools.values,
            out: &mut s.out,
        });
        backend.output_product(OutputProduct {
            gated_norm: None,
            input: &mut s.out,
            w: &self.o_proj,
            bias: self.biases.o.as_ref(),
            n,
            hidden: self.hidden,
            product: mixed,
            x,
        });
    }
}
