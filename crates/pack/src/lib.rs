//! Packed containers written: from a checkpoint in place ([`pack`]), or of random weights ([`synth`]).
//!
//! [`plan_model`] decides which tensors of a model become which formats; [`pack`] takes its [`PackPlan`]
//! and writes a directory in the form that `docs/packed-format.md` describes. It is a stream: memory is
//! bounded whatever the model's size (`pipeline` has the arithmetic), all cores encode, and output
//! is written in order of the layout.
//!
//! What holds at any moment, also after `kill -9` or a power cut:
//! * a directory without a manifest is unfinished, and its journal says what is done and how to
//!   resume; a directory with a manifest is complete;
//! * running the same command again goes on after the last journalled unit;
//! * the finished container has the same bytes for any number of threads and interruptions.
//!
//! Nothing that was not begun by the same plan and program is ever overwritten.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod disk;
mod error;
mod fingerprint;
mod journal;
mod layout;
mod model;
mod names;
mod packing;
mod pipeline;
mod plan;
pub mod synth;
mod target;
mod threads;
mod transcode;
mod verify;

pub use error::PackError;
pub use model::plan_model;
pub use models::tiers::QuantTiers;
pub use packing::pack;
pub use plan::{DenseItem, Hooks, LayerItem, NoProgress, PackOptions, PackPlan, PackProgress, PackReport};
pub use verify::{BadRecord, VerifyReport, verify};
