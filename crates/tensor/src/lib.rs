//! Element types and quantised block formats with their scalar codecs.
//!
//! A weight matrix is rows of blocks. What a block is (how many weights, how many bytes, how they
//! decode) is decided here and nowhere else: the SIMD kernels and the shaders are tested against
//! [`Format::decode_row`], and packing writes what [`Format::encode_row`] makes. The bytes are
//! those of ggml's blocks, since that is what people have on disk.
//!
//! To add a format: one file in `blocks/` with a `repr(C)` struct that implements `Block` (and
//! `EncodeBlock` where weights are to be stored in it), one variant of [`Format`] and one row in its
//! table.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod blocks;
mod error;
mod format;
mod matrix;

pub use error::TensorError;
pub use format::Format;
pub use matrix::MatrixView;
