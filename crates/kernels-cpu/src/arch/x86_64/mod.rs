//! AVX2 and FMA, and AVX-512 where it gains.

pub(crate) mod avx2;
mod avx2_dot;
mod avx2_signed;
pub(crate) mod avx512;
mod avx512_dot;
mod avx512_grids;
mod avx512_signed;
mod scales;
