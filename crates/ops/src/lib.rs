//! The arithmetic that a model layer may ask for, and how every implementation of it is tested.
//!
//! * [`Backend`]: the ops contract. Fused ops on f32 activations; models are generic over it.
//! * [`Batch`]: which rows of a pass belong to which sequence, and where their pages and states lie.
//! * [`Tally`]: a back-end that computes nothing and counts the memory that another would take.
//! * [`oracle`]: the ops once more in plain f64, straight from the model's specification. Slow; the reference.
//! * [`conformance`]: one suite that compares any back-end with the oracle.
//!
//! Two promises hold for every back-end. A result depends neither on the number of threads nor on the other rows of a
//! pass: each output element belongs to one task, which sums in a fixed order. And no op knows where weights come from:
//! an expert is three borrowed matrices.
#![forbid(unsafe_code)]

mod backend;
mod batch;
pub mod conformance;
mod error;
mod kv_format;
pub mod oracle;
mod shapes;
mod tally;

pub use backend::{
    Attention, Backend, Combine, DeltaNet, ExpertRows, ExpertWeights, Footprint, GatedNorm, HostMatrix, Mlp,
    Need, Norm, NormProducts, OutputProduct, SharedBytes,
};
pub use batch::{Batch, DELTA_BLOCK_TOKENS, PAGE_TOKENS, Phase, Rows, page_parts};
pub use error::OpError;
pub use kv_format::{KvFormat, UnknownKvFormat};
pub use shapes::{AttentionShape, DeltaNetShape, RopePairing, ValueHeadOrder};
pub use tally::Tally;
