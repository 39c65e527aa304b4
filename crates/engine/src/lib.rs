//! The API of flash-moe: an [`Engine`] is a handle on a loaded model, a [`Request`] what to
//! generate, an [`Event`] what happens meanwhile.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use engine::{Engine, EngineOptions, Event, Request};
//!
//! # let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/qwen35moe/published").as_ref();
//! let options = EngineOptions { memory_bytes: Some(1 << 30), ctx: Some(256), ..Default::default() };
//! let engine = Engine::open(model, options, &mut |_| {})?;
//! // Token ids; with a tokenizer also a text (`"Once upon a time"`) or a list of messages.
//! let request = Request { max_tokens: 8, stop_ids: vec![], ..engine.request(vec![1, 2, 3]) };
//! let generation = engine.generate(request, |event| match event {
//!     Event::Token { id: 0, .. } => ControlFlow::Break(()),
//!     _ => ControlFlow::Continue(()),
//! })?;
//! assert!(generation.tokens.len() <= 8);
//! # Ok::<(), engine::EngineError>(())
//! ```
//!
//! One thread owns the model. Requests of any number of handles and threads share its passes
//! ([`Engine::submit`]), wait for their turn when there is no room, and fail alone. Memory is
//! planned before anything is loaded ([`plan::MemoryPlan`]); a request is admitted only when all
//! that it can need is there.
#![forbid(unsafe_code)]

mod backend;
mod channel;
mod conversation;
#[doc(hidden)]
pub mod door;
mod engine;
mod error;
mod gguf;
mod inbox;
mod kv_cache;
mod open;
mod options;
pub mod plan;
mod request;
mod runtime;
mod session_cache;
mod stats;
pub mod synth;
pub mod system;
mod worker;

pub use channel::StillRunning;
pub use conversation::Conversation;
pub use engine::{Canceller, Engine, Running};
pub use error::{EngineError, Shortfall};
pub use experts::{PolicyKind, Verify};
pub use kernels_cpu::Isa;
pub use models::tiers::QuantTiers;
pub use open::{Loading, files_inside, plan_for};
pub use ops::KvFormat;
pub use options::{EngineOptions, Input};
pub use request::{Event, FinishReason, Generation, Logits, Priority, Prompt, Request};
pub use sampling::{GenerationDefaults, SamplingParams};
pub use stats::{EngineStats, RunStats};
pub use storage::{IoEngine, IoMode};
pub use tensor::Format;
pub use tokenizer::{Message, TemplateOptions, Tokenizer};
