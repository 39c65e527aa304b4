//! Layers and architectures: from tensor names to logits.
//!
//! An architecture is a thin file ([`qwen35moe`], [`llama`]) that turns its configuration into [`Config`]; what tensors it
//! must have ([`layout`]) and which of the shared [`layers`] they make follows from that. The layers are generic over [`ops::Backend`], and each reads like the paper:
//! a configuration, weights, per-sequence state, and one `forward`.
//!
//! The data flow of one step, layer by layer ([`model::Model::forward`]):
//!
//! ```text
//! ids ─ embed ─► x ─ norm ─► attention | gated DeltaNet ─► + x ─ norm ─► router ─► experts (streamed) + shared ─► + x … ─► logits
//! ```
//!
//! A whole prompt chunk goes through layer `l` before layer `l + 1`, so an expert is fetched at most once per layer and
//! chunk however many tokens chose it.
#![forbid(unsafe_code)]

mod architecture;
mod attention_config;
pub mod config;
mod error;
mod gguf_keys;
mod gguf_names;
pub mod layers;
pub mod layout;
pub mod llama;
mod llama_gguf;
pub mod load;
pub mod model;
mod phases;
pub mod presets;
pub mod qwen35moe;
mod qwen35moe_gguf;
mod states;
mod step;
pub mod synthetic;
pub mod tiers;

pub use architecture::{Architecture, adopt, config as read_config};
pub use config::Config;
pub use error::ModelError;
pub use model::{Model, Run, Scratch, ScratchRows, scratch_footprint};
pub use phases::Phases;
pub use states::States;
pub use step::{Failures, PromptPart, Step};
