//! Gated DeltaNet, the linear attention of Qwen3.5-MoE (section 3.2; Yang et al., "Gated Delta Networks", 2024).

use ops::{Backend, Batch, DeltaNetShape, GatedNorm, Norm, NormProducts, OpError, OutputProduct};

use crate::ModelError;
use crate::layers::Residual;
use crate::load::DenseLoader;
use crate::spec::ModelSpec;

/// Weights of one Gated DeltaNet layer.
pub struct DeltaNet<B: Backend> {
    shape: DeltaNetShape,
    hidden: usize,
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

/// Recurrent states of one layer, of all sequences. Always f32.
pub struct DeltaNetStates<B: Backend> {
    conv: B::Buffer, // [slots, kernel - 1, channels], oldest first
    s: B::Buffer,    // [slots, Nk, Nv / Nk, dk, dv]
    conv_len: usize, // Of one slot
    s_len: usize,
}

/// `[slots, len]`
pub(crate) struct RecurrentPool<'a, B: Backend> {
    pub(crate) buffer: &'a mut B::Buffer,
    pub(crate) len: usize,
}

impl<B: Backend> DeltaNetStates<B> {
    /// So many states, each as before the first token: zeros.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub fn new(backend: &mut B, shape: &DeltaNetShape, slots: usize) -> Result<Self, OpError> {
        let (conv_len, s_len) = ((shape.conv_kernel - 1) * shape.conv_channels(), shape.state_len());
        let (conv, s) = (backend.buffer(slots * conv_len)?, backend.buffer(slots * s_len)?);
        Ok(Self { conv, s, conv_len, s_len })
    }

    /// Both pools.
    pub(crate) fn pools(&mut self) -> [RecurrentPool<'_, B>; 2] {
        [
            RecurrentPool { buffer: &mut self.conv, len: self.conv_len },
            RecurrentPool { buffer: &mut self.s, len: self.s_len },
        ]
    }
}

/// Activations of a pass inside the layer.
pub struct DeltaNetScratch<B: Backend> {
    u: B::Buffer,   // [n, channels]
    qkv: B::Buffer, // [n, channels]
    z: B::Buffer,   // [n, Nv, dv]
    a: B::Buffer,   // [n, Nv]
    b: B::Buffer,   // [n, Nv]
    o: B::Buffer,   // [n, Nv, dv]
}

impl<B: Backend> DeltaNetScratch<B> {
    /// Room for `n` rows in any layer of the model; `None` if it has no such layer.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub fn new(backend: &mut B, spec: &ModelSpec, n: usize) -> Result<Option<Self>, OpError> {
        let widest = |len: fn(&DeltaNetShape) -> usize| spec.delta_net().map(|shape| n * len(shape)).max();
        let heads = widest(|shape| shape.value_heads);
        let (channels, values) = (widest(DeltaNetShape::conv_channels), widest(DeltaNetShape::value_len));
        let (Some(channels), Some(values), Some(heads)) = (channels, values, heads) else { return Ok(None) };
        Ok(Some(Self {
            u: backend.buffer(channels)?,
            qkv: backend.buffer(channels)?,
            z: backend.buffer(values)?,
            a: backend.buffer(heads)?,
            b: backend.buffer(heads)?,
            o: backend.buffer(values)?,
        }))
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
        (model, shape): (&ModelSpec, &DeltaNetShape),
    ) -> Result<Self, ModelError> {
        Ok(Self {
            shape: *shape,
            hidden: model.hidden_size,
            in_proj_qkv: loader.matrix(backend, &format!("{base}in_proj_qkv.weight"))?,
            in_proj_z: loader.matrix(backend, &format!("{base}in_proj_z.weight"))?,
            in_proj_b: loader.matrix(backend, &format!("{base}in_proj_b.weight"))?,
            in_proj_a: loader.matrix(backend, &format!("{base}in_proj_a.weight"))?,
            conv1d: loader.vector(backend, &format!("{base}conv1d.weight"), |w| w)?,
            a_neg: loader.vector(backend, &format!("{base}A_log"), |a| model.weight_form.a_neg(a))?,
            dt_bias: loader.vector(backend, &format!("{base}dt_bias"), |bias| bias)?,
            norm: loader.vector(backend, &format!("{base}norm.weight"), |w| w)?,
            out_proj: loader.matrix(backend, &format!("{base}out_proj.weight"))?,
        })
    }

    /// `x += out_proj(delta_net(norm(x)))` for the batch's rows. Advances their sequences' states.
    pub fn forward(
        &self,
        backend: &mut B,
        batch: &Batch<'_>,
        residual: Residual<'_, B>,
        states: &mut DeltaNetStates<B>,
        scratch: &mut DeltaNetScratch<B>,
    ) {
        let (shape, n, s) = (&self.shape, batch.n, scratch);
        let Residual { norm, x, h, mixed } = residual;
        let products = [
            (&self.in_proj_qkv, &mut s.u),
            (&self.in_proj_z, &mut s.z),
            (&self.in_proj_b, &mut s.b),
            (&self.in_proj_a, &mut s.a),
        ];
        backend.norm_products(NormProducts { x, norm, n, h, products });
        backend.delta_net(ops::DeltaNet {
            shape,
            batch,
            u: &s.u,
            conv: &self.conv1d,
            b: &s.b,
            a: &s.a,
            a_neg: &self.a_neg,
            dt_bias: &self.dt_bias,
            conv_states: &mut states.conv,
            states: &mut states.s,
            qkv: &mut s.qkv,
            out: &mut s.o,
        });
        let norm = Norm { weight: &self.norm, eps: shape.eps, dim: shape.value_dim };
        backend.output_product(OutputProduct {
            gated_norm: Some(GatedNorm { z: &s.z, norm, rows: n * shape.value_heads }),
            input: &mut s.o,
            w: &self.out_proj,
            bias: None,
            n,
            hidden: self.hidden,
            product: mixed,
            x,
        });
    }
}
