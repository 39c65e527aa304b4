//! AVX2 and FMA.

pub(crate) mod f32_ops;
