//! NEON, which every 64-bit ARM processor has, and the dot product instruction where present.

#[cfg(target_endian = "big")]
compile_error!("the NEON kernels read blocks as little-endian vectors");

pub(crate) mod neon;
mod neon_blocks;
mod neon_dot;
mod neon_signed;
