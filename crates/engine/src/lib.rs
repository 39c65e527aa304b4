//! The API of flash-moe: an [`Engine`] is a handle on a loaded model, a [`Request`] what to
//! generate, an [`Event`] what happens meanwhile.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use engine::{Engine, EngineOptions, Event, Request};
//!
//! let engine = Engine::open("models/demo".as_ref(), EngineOptions::default(), &mut |_| {})?;
//! let request = Request { max_tokens: 64, ..engine.request("Once upon a time") };
//! engine.generate(request, |event| {
//!     if let Event::Token { text, .. } = event {
//!         print!("{text}");
//!     }
//!     ControlFlow::Continue(())
//! })?;
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
