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
//! block as integers once in `dot/scalar.rs` and once per instruction set.

pub(crate) mod activations;
pub(crate) mod scalar;

use std::fmt;

use tensor::MatrixView;

#[cfg(target_arch = "aarch64")]
use crate::arch::aarch64::neon_dot;
#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::{avx2_dot, avx512_dot};
pub use activations::{ActivationClass, Activations};

/// Which instruction set the dot products use.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, VL, VBMI, VNNI) and GFNI on top of [`Isa::Avx2`]: Ice Lake, Zen 4
    /// and what followed them. No processor is known that has GFNI and VNNI in 512 bits without VBMI;
    /// a machine that lacks any of them counts as [`Isa::Avx2`]. What gains nothing runs as there.
    Avx512,
    /// 64-bit ARM with NEON, which is all of them.
    Neon,
    /// 64-bit ARM with the dot product instruction (`sdot`) on top of [`Isa::Neon`]: most of
    /// ARMv8.2, all of ARMv8.4 and what followed. Among them Apple's from the A13 and M1 on,
    /// Cortex-A55, A75, A76 and Neoverse N1.
    NeonDotprod,
}

impl Isa {
    /// Every instruction set, the slowest of each architecture first.
    pub const ALL: &[Isa] = &[Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::NeonDotprod];

    /// The best instruction set of this machine. It does not change while the process lives.
    pub fn detect() -> Isa {
        Isa::ALL.iter().rev().copied().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
    }

    /// Whether this machine has it. What is asked of an instruction set that it has not, runs on
    /// the scalar code.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2_dot::is_available(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512_dot::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => false,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon_dot::is_available(),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => neon_dot::has_dotprod(),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDotprod => false,
        }
    }

    /// Its name in lower case, as users write it (`--isa`).
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neon-dotprod",
        }
    }

    /// The instruction set of that name, if there is one.
    pub fn parse(name: &str) -> Option<Isa> {
        Isa::ALL.iter().copied().find(|isa| isa.name() == name)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Dot products of the `rows` weight rows from `first_row` on with all activation rows: `out` is
/// [rows, n].
///
/// # Panics
/// If the weight rows are not all in `w`, if their columns are not those of the activations, if the
/// activations were prepared for another class of formats, or if `out` has another length than
/// `rows * n`.
pub fn mul_rows(
    isa: Isa,
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
        acts,
    };
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.is_available() && avx512_dot::gains(w.format) => avx512_dot::mul_rows(&job, out),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 if avx2_dot::is_available() => avx2_dot::mul_rows(&job, out),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod if isa.is_available() => neon_dot::mul_rows_dotprod(&job, out),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if isa.is_available() => neon_dot::mul_rows(&job, out),
        _ => scalar::mul_rows(&job, out),
    }
}

/// What an instruction set is asked for: at least one weight row, one activation row and one
/// column, shapes checked.
pub(crate) struct Job<'a> {
    pub(crate) format: tensor::Format,
    /// Whole rows.
    pub(crate) weights: &'a [u8],
    pub(crate) row_bytes: usize,
    pub(crate) acts: &'a Activations,
}

impl<'a> Job<'a> {
    /// The weight rows one by one.
    pub(crate) fn weight_rows(&self) -> std::slice::ChunksExact<'a, u8> {
        self.weights.chunks_exact(self.row_bytes)
    }
}

/// Calls `$tile::<T>(…, first token)` for tiles of `$most` activation rows and then for the rest:
/// `$most` is 4.
macro_rules! for_token_tiles {
    ($n:expr, $t:ident => $tile:ident($($argument:expr),*)) => {{
        let n: usize = $n;
        for $t in (0..n / 4 * 4).step_by(4) {
            $tile::<4>($($argument),*);
        }
        let $t = n / 4 * 4;
        match n % 4 {
            1 => $tile::<1>($($argument),*),
            2 => $tile::<2>($($argument),*),
            3 => $tile::<3>($($argument),*),
            _ => {}
        }
    }};
}
pub(crate) use for_token_tiles;
