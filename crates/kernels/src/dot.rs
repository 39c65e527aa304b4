//! Dot products of weight rows with activation rows (stub: the signatures, on the scalar codec).

use tensor::{Format, MatrixView};

/// Which instruction set the dot products use.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
}

impl Isa {
    /// The best instruction set of this machine.
    pub fn detect() -> Isa {
        Isa::Scalar
    }
}

/// How activations are prepared for a format: formats of one class share one preparation.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ActivationClass {
    /// f32 as they are.
    F32,
    /// 8-bit codes with one scale per 32.
    Q8x32,
    /// 8-bit codes with one scale per 256 and sums per 16.
    Q8x256,
}

/// n rows of activations prepared for products with one class of weight formats. Reuses its memory.
#[derive(Clone, Debug, Default)]
pub struct Activations {
    n: usize,
    cols: usize,
    values: Vec<f32>,
}

impl Activations {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How activations are prepared for weights of this format.
    pub fn class(format: Format) -> ActivationClass {
        match format.block_len() {
            1 => ActivationClass::F32,
            32 => ActivationClass::Q8x32,
            _ => ActivationClass::Q8x256,
        }
    }

    /// Takes the `n` rows of `x`, [n, cols].
    pub fn prepare(&mut self, _isa: Isa, _weights: Format, x: &[f32], n: usize, cols: usize) {
        (self.n, self.cols) = (n, cols);
        self.values.clear();
        self.values.extend_from_slice(&x[..n * cols]);
    }

    /// Takes the rows of `x`, [_, cols], that `rows` names, in that order.
    pub fn prepare_rows(
        &mut self,
        _isa: Isa,
        _weights: Format,
        x: &[f32],
        rows: &[u32],
        cols: usize,
    ) {
        (self.n, self.cols) = (rows.len(), cols);
        self.values.clear();
        for &row in rows {
            self.values
                .extend_from_slice(&x[row as usize * cols..][..cols]);
        }
    }

    /// Rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Activations in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }
}

/// Dot products of the `rows` weight rows from `first_row` on with all activation rows: `out` is [rows, n].
///
/// # Panics
/// If the shapes disagree.
pub fn mul_rows(
    _isa: Isa,
    w: &MatrixView<'_>,
    first_row: usize,
    rows: usize,
    acts: &Activations,
    out: &mut [f32],
) {
    assert_eq!(w.cols, acts.cols);
    assert_eq!(out.len(), rows * acts.n);
    let mut decoded = vec![0.0; w.cols];
    for r in 0..rows {
        let row = w.format.decode_row(w.row(first_row + r), &mut decoded);
        assert!(row.is_ok(), "the view has checked the row's length");
        for t in 0..acts.n {
            let x = &acts.values[t * w.cols..][..w.cols];
            out[r * acts.n + t] = decoded.iter().zip(x).map(|(w, x)| w * x).sum();
        }
    }
}
