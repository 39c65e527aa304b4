//! The layers that architectures are made of: weights, per-sequence state and one `forward` each.

pub mod attention;
pub mod delta_net;
pub mod guess;
pub mod mlp;
pub mod moe;

pub use attention::{Attention, AttentionScratch, KvCache};
pub use delta_net::{DeltaNet, DeltaNetScratch, DeltaNetState};
pub use guess::Upcoming;
pub use mlp::Mlp;
pub use moe::{Moe, MoeScratch};
