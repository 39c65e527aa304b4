//! The arithmetic that a model layer may ask for, and how every implementation of it is tested.
//!
//! * [`Backend`]: the ops contract. Fused ops on f32 activations; models are generic over it.
//! * [`oracle`]: the ops once more in plain f64, straight from the model's specification. Slow; the reference.
//! * [`conformance`]: one suite that compares any back-end with the oracle.
//!
//! Two promises hold for every back-end. A result does not depend on the number of threads: each output element belongs to
//! one task, which sums in a fixed order. And no op knows where weights come from: an expert is three borrowed matrices.
#![forbid(unsafe_code)]

mod backend;
pub mod conformance;
mod kv_format;
pub mod oracle;

pub use backend::*;
