//! Which experts are in memory: slots, policy, loader, statistics.
//!
//! A model's routed experts lie on the drive; memory holds as many of them as there are slots. A
//! layer demands the experts that its router chose:
//!
//! ```text
//! start(demand) ─► resident: held                       ─► next_batch(), in the order demanded
//!               └► missing:  read, all of them at once  ─► next_batch(), as each lands
//!                                    └► failed          ─► failures(), one expert each
//! ```
//!
//! Invariants:
//! * Slots are allocated when the store is made, all of one size. Their number comes from the memory
//!   budget, and changes only when the budget does ([`ExpertStore::resize`]).
//! * A slot is free, being read into, or holds one expert whose bytes were read in full (and match
//!   their checksum, where there is one). A read that fails leaves its slot free, and concerns its
//!   expert only.
//! * An expert that was given out is held: nothing overwrites it before the consumer asks for the next.
//! * Which experts are resident changes when a result comes, never what it is.
//!
//! This crate knows no operation on weights; it gives out matrices.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod demand;
mod error;
mod fetch;
mod layout;
mod loader;
mod lookahead;
mod policy;
mod prefetch;
pub mod replay;
mod slots;
mod stats;
mod store;
pub mod trace;

pub use demand::{Demand, Failed, Hint, Phase, PromptUse, Used};
pub use error::ExpertsError;
pub use loader::Verify;
pub use lookahead::LookaheadStats;
pub use policy::{Adaptive, Lru, Policy, PolicyKind};
pub use slots::Place;
pub use stats::{Occupancy, StoreStats};
pub use store::{ExpertStore, LoadedExpert, Ready, StoreOptions};

/// One routed expert of one layer.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpertId {
    /// Index of the layer in the model.
    pub layer: u32,
    /// Index of the expert in its layer.
    pub expert: u32,
}

/// Names of an expert's matrices, in the order of `ExpertPart`s.
pub const PART_NAMES: [&str; 3] = ["gate", "up", "down"];
