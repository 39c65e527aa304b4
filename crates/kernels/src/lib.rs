//! The arithmetic of flash-moe: what a model layer may ask for, and two implementations of it.
//!
//! * [`backend`]: the ops contract, [`backend::Backend`]. About twenty fused ops on f32
//!   activations; models are generic over it.
//! * [`cpu`]: the ops on the CPU, with a thread pool and instruction sets chosen at run time.
//! * [`dot`]: products of quantised weight rows with activation rows, where nearly all of the time
//!   goes.
//! * [`oracle`]: the ops once more in plain f64, straight from the model's specification. Slow; the
//!   reference.
//! * [`conformance`]: one suite that compares any back-end with the oracle.
//!
//! Two promises hold for every back-end of this crate. A result does not depend on the number of
//! threads: each output element belongs to one task, which sums in a fixed order. And nothing here
//! knows where weights come from: an expert is three borrowed matrices.
//!
//! Unsafe code is confined to the thread pool (`cpu::pool`) and the intrinsics (`cpu::arch`).
#![deny(unsafe_code)]

pub mod backend;
pub mod conformance;
pub mod cpu;
pub mod dot;
mod kv_format;
pub mod oracle;
