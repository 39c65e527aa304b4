//! Gated DeltaNet, the linear attention of Qwen3.5-MoE (section 3.2; Yang et al., "Gated Delta Networks", 2024).

use ops::{Backend, DeltaNetShape};

use crate::ModelError;
use crate::config::WeightForm;
use crate::load::DenseLoader;

/// Weights of one Gated DeltaNet layer.
pub struct DeltaNet<B: Backend> {
    shape: DeltaNetShape,
    in_proj_qkv: B::Matrix, // [channels, H]: all q, all k, all v
    in_proj_z: B::Matrix,   // [Nv * dv, H]
    in_proj_b: B::Matrix,   // [Nv, H]
    in_proj_a: B::Matrix,   // [Nv, H]
    conv1d: B::Buffer,      // [channels, kernel]
    a_neg: B::Buffer,       // [Nv], -exp(A_log)
    dt_bias: B::Buffer,     // [Nv]
    norm: B::Buffer,        // [dv], as stored: this norm is not zero-centred
    out_proj: B::Matrix,    // [H, Nv * dv]
}

/// Recurrent state of one layer and sequence. Always f32; it cannot be rewound.
pub struct DeltaNetState<B: Backend> {
    conv: B::Buffer, // [kernel - 1, channels], oldest first
    s: B::Buffer,    // [Nk, Nv / Nk, dk, dv]
}

impl<B: Backend> DeltaNetState<B> {
    /// The state before the first token: zeros.
    pub fn new(backend: &mut B, shape: &DeltaNetShape) -> Self {
        let conv = (shape.conv_kernel - 1) * shape.conv_channels();
        Self { conv: backend.buffer(conv), s: backend.buffer(shape.state_len()) }
    }

    /// Back to the start of a sequence.
    pub fn clear(&mut self, backend: &mut B) {
        backend.clear(&mut self.conv);
        backend.clear(&mut self.s);
    }
}

/// Activations of a chunk inside the layer.
pub struct DeltaNetScratch<B: Backend> {
    u: B::Buffer,   // [n, channels]
    qkv: B::Buffer, // [n, channels]
    z: B::Buffer,   // [n, Nv, dv]
    a: B::Buffer,   // [n, Nv]
    b: B::Buffer,   // [n, Nv]
    o: B::Buffer,   // [n, Nv, dv]
}

impl<B: Backend> DeltaNetScratch<B> {
    /// Room for chunks of `n` tokens.
    pub fn new(backend: &mut B, shape: &DeltaNetShape, n: usize) -> Self {
        let (channels, values) = (n * shape.conv_channels(), n * shape.value_len());
        Self {
            u: backend.buffer(channels),
            qkv: backend.buffer(channels),
            z: backend.buffer(values),
            a: backend.buffer(n * shape.value_heads),
            b: backend.buffer(n * shape.value_heads),
            o: backend.buffer(values),
        }
    }

    /// Floats per token that [`DeltaNetScratch::new`] takes.
    pub fn len_per_token(shape: &DeltaNetShape) -> usize {
        2 * (shape.conv_channels() + shape.value_len() + shape.value_heads)
    }
}

impl<B: Backend> DeltaNet<B> {
    /// Loads the layer whose tensors start with `base` (`….layers.0.linear_attn.`).
    ///
    /// # Errors
    /// Read errors and damaged tensors, named.
    pub fn load(
        backend: &mut B,
        loader: &mut DenseLoader<'_>,
        base: &str,
        (shape, form): (DeltaNetShape, WeightForm),
    ) -> Result<Self, ModelError> {
        Ok(Self {
            shape,
            in_proj_qkv: loader.matrix(backend, &format!("{base}in_proj_qkv.weight"))?,
            in_proj_z: loader.matrix(backend, &format!("{base}in_proj_z.weight"))?,
            in_proj_b: loader.matrix(backend, &format!("{base}in_proj_b.weight"))?,
            in_proj_a: loader.matrix(backend, &format!("{base}in_proj_a.weight"))?,
            conv1d: loader.vector(backend, &format!("{base}conv1d.weight"), |w| w)?,
            a_neg: loader.vector(backend, &format!("{base}A_log"), |a| form.a_neg(a))?,
            dt_bias: loader.vector(backend, &format!("{base}dt_bias"), |bias| bias)?,
            norm: loader.vector(backend, &format!("{base}norm.weight"), |w| w)?,
            out_proj: loader.matrix(backend, &format!("{base}out_proj.weight"))?,
        })
    }

    /// `out = out_proj(delta_net(h))` for the next `n` tokens; `h`, `out` are [n, H]. Advances the state.
    pub fn forward(
        &self,
        backend: &mut B,
        h: &B::Buffer,
        n: usize,
        state: &mut DeltaNetState<B>,
        scratch: &mut DeltaNetScratch<B>,
        out: &mut B::Buffer,
    ) {
        let (shape, s) = (&self.shape, scratch);
        let products = [
            (&self.in_proj_qkv, &mut s.u),
            (&self.in_proj_z, &mut s.z),
            (&self.in_proj_b, &mut s.b),
            (&self.in_proj_a, &mut s.a),
        ];
        backend.mul_mats(products, h, n);
        backend.conv1d_silu(shape, n, &self.conv1d, &s.u, &mut state.conv, &mut s.qkv);
        backend.gated_delta_net(
            shape,
            n,
            &s.qkv,
            &s.a,
            &s.b,
            &self.a_neg,
            &self.dt_bias,
            &mut state.s,
            &mut s.o,
        );
        backend.gated_rms_norm(&s.z, &self.norm, shape.eps, n * shape.value_heads, shape.value_dim, &mut s.o);
        backend.mul_mat(&self.out_proj, &s.o, n, out);
    }
}
