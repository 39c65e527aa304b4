//! Dot products of weight rows with activation rows: nearly all of the time of a token goes here.
//!
//! The activations of a token meet thousands of weight rows, so they are prepared once
//! ([`Activations`]): as they are for float weights, quantised to 8 bits for quantised weights,
//! whose products then are products of small integers. What is prepared depends on the class of the
//! weights' format only, so several matrices share one preparation.
//!
//! A product is a function of its weight row and its activation row alone. It does not depend on
//! how many activation rows there are, on which rows are computed in one call, nor on where the
//! bytes lie; decode and prefill give the same bits. For quantised formats it does not depend on
//! the instruction set either: all sums are integers until a block of 32 or 256 weights is
//! complete, and from there every instruction set does the same roundings in the same eight lanes.
//! Fused multiply-add would save one instruction in forty there, and cost that promise. Float
//! formats do use it, so there the scalar result differs in the last bits.
//!
//! To add a format: say in [`Activations::class`] how its activations are prepared, and open its
//! block as integers once in `dot/scalar.rs` and once per instruction set (`arch`).

pub(crate) mod activations;
pub(crate) mod job;
pub(crate) mod quantise;
pub(crate) mod scalar;

use tensor::MatrixView;

use crate::kernels::Kernels;
pub use activations::{ActivationClass, Activations};
use job::Job;

/// Dot products of the `rows` weight rows from `first_row` on with all activation rows: `out` is
/// [rows, n].
///
/// # Panics
/// If the weight rows are not all in `w`, if their columns are not those of the activations, if the
/// activations were prepared for another class of formats, or if `out` has another length than
/// `rows * n`.
pub fn mul_rows(
    kernels: Kernels,
    w: &MatrixView<'_>,
    first_row: usize,
    rows: usize,
    acts: &Activations,
    out: &mut [f32],
) {
    assert!(
        first_row <= w.rows && rows <= w.rows - first_row,
        "rows {first_row}+{rows} of a matrix of {}",
        w.rows
    );
    assert_eq!(w.cols, acts.cols(), "columns of the weights and of the activations");
    assert_eq!(Activations::class(w.format), acts.prepared_for(), "activations for {}", w.format);
    assert_eq!(out.len(), rows * acts.n(), "products of {rows} rows with {} activation rows", acts.n());
    if out.is_empty() {
        return;
    }
    if w.cols == 0 {
        return out.fill(0.0);
    }
    let row_bytes = w.row_bytes();
    let job = Job {
        format: w.format,
        weights: &w.bytes[first_row * row_bytes..(first_row + rows) * row_bytes],
        row_bytes,
        acts: acts.rows(),
    };
    kernels.mul_rows(&job, out);
}
