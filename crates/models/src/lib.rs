//! Families and layers: from tensor names to logits.
//!
//! A family is a thin file in `families`, behind one line of the registry there, that turns its
//! configuration into a [`ModelSpec`]. The tensors that the model must have ([`layout`]), and the
//! shared [`layers`] that they make, follow from that. The layers are generic over
//! [`ops::Backend`], and each reads like the paper: a specification, weights, per-sequence state,
//! and one `forward`.
//!
//! The data flow of one step, layer by layer ([`model::Model::forward`]):
//!
//! ```text
//! ids ─ embed ─► x ─ norm ─► attention | gated DeltaNet ─► + x ─ norm ─► router ─► experts (streamed) + shared ─► + x … ─► logits
//! ```
//!
//! A whole prompt chunk goes through layer `l` before layer `l + 1`, so an expert is fetched at
//! most once per layer and chunk however many tokens chose it.
#![forbid(unsafe_code)]

mod attention_keys;
mod config_keys;
mod error;
pub mod exec;
mod families;
mod family;
mod gguf_keys;
mod gguf_names;
pub mod layers;
pub mod layout;
pub mod load;
pub mod model;
mod names;
mod phases;
pub mod presets;
mod section;
pub mod spec;
mod states;
mod step;
pub mod synthetic;
pub mod tiers;

pub use config_keys::{Unread, UnreadKey};
pub use error::ModelError;
pub use exec::{ExpertExec, Local};
pub use families::{adopt, family_of_config, family_of_metadata, read_config, unread_keys};
pub use model::{Model, Run, Scratch, ScratchRows, scratch_footprint};
pub use phases::Phases;
pub use spec::ModelSpec;
pub use states::States;
pub use step::{Failures, PromptPart, Step};
