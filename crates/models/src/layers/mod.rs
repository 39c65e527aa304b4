//! The layers that architectures are made of: weights, per-sequence state and one `forward` each.

pub mod attention;
pub mod delta_net;
pub mod mlp;
pub mod moe;
pub mod routing;

pub use attention::{Attention, AttentionScratch, KvPools};
pub use delta_net::{DeltaNet, DeltaNetScratch, DeltaNetStates};
pub use mlp::Mlp;
pub use moe::guess::Upcoming;
pub use moe::{Moe, MoeScratch};
pub use routing::{Router, Routing};

/// The residual stream as a token mixer sees it.
pub struct Residual<'a, B: ops::Backend> {
    /// Norm of the mixer's input.
    pub norm: ops::Norm<'a, B>,
    /// The stream, [n, H], to which the mixer's output is added.
    pub x: &'a mut B::Buffer,
    /// Takes the normed rows, [n, H].
    pub h: &'a mut B::Buffer,
    /// Takes the mixer's output, [n, H].
    pub mixed: &'a mut B::Buffer,
}
