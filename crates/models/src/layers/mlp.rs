//! A gated MLP that every token takes: `down(silu(gate x) * (up x))`.

use ops::{Backend, NormProducts};

use crate::ModelError;
use crate::layers::Residual;
use crate::load::DenseLoader;

/// Weights of one MLP.
pub struct Mlp<B: Backend> {
    gate: B::Matrix, // [F, H]
    up: B::Matrix,   // [F, H]
    down: B::Matrix, // [H, F]
}

impl<B: Backend> Mlp<B> {
    /// Loads the MLP whose tensors start with `base` (`….layers.0.mlp.`).
    ///
    /// # Errors
    /// Read errors and damaged tensors, named.
    pub fn load(backend: &mut B, loader: &mut DenseLoader<'_>, base: &str) -> Result<Self, ModelError> {
        Ok(Self {
            gate: loader.matrix(backend, &format!("{base}gate_proj.weight"))?,
            up: loader.matrix(backend, &format!("{base}up_proj.weight"))?,
            down: loader.matrix(backend, &format!("{base}down_proj.weight"))?,
        })
    }

    /// `out = mlp(h)` for `n` tokens, times the sigmoid of `gate_row @ h` where there is one; `h`, `out` are [n, H].
    pub fn forward(
        &self,
        backend: &mut B,
        gate_row: Option<&B::Matrix>,
        h: &B::Buffer,
        n: usize,
        out: &mut B::Buffer,
    ) {
        let (gate, up, down) = (&self.gate, &self.up, &self.down);
        backend.mlp(ops::Mlp { gate, up, down, gate_row, x: h, n, out });
    }

    /// `x += mlp(norm(x))` for `n` rows: a dense layer.
    pub fn add(&self, backend: &mut B, n: usize, hidden: usize, residual: Residual<'_, B>) {
        let Residual { norm, x, h, mixed } = residual;
        backend.norm_products(NormProducts { x, norm, n, h, products: [] });
        self.forward(backend, None, h, n, mixed);
        backend.add(mixed, n * hidden, x);
    }
}
