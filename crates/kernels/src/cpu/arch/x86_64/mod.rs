//! AVX2 and FMA.

pub(crate) mod avx2_dot;
pub(crate) mod f32_ops;
