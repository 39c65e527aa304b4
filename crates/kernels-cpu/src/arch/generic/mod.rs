//! The f32 loops, written once over [`Vector`](super::vector::Vector).
//!
//! Order of summation: a dot product has one accumulator of 8 lanes and adds the last `k % 8`
//! products one by one; a matrix product adds over k in ascending order. Neither depends on which
//! tile an element falls into. Shapes have been checked by the caller (`f32_ops.rs`); products check
//! them again where they leave slices for pointers.

mod elementwise;
mod products;

pub(crate) use elementwise::{
    axpby, conv_silu, decode_f16, decode_q8_0, encode_f16, exp_sum, max, scaled_mul_silu, scaled_sigmoid_mul,
    silu_mul,
};
pub(crate) use products::{dots, matmul_add, state_step};
