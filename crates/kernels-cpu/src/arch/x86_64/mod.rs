//! AVX2 and FMA, and AVX-512 where it gains.

pub(crate) mod avx2_dot;
mod avx2_signed;
pub(crate) mod avx512_dot;
mod avx512_grids;
mod avx512_signed;
pub(crate) mod f32_ops;
