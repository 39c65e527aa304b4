//! The API of flash-moe: an [`Engine`] is a loaded model, a [`Session`] one timeline of tokens in it, a [`Request`] what to
//! generate, an [`Event`] what happens meanwhile.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use engine::{Engine, EngineOptions, Event, Request};
//!
//! let mut engine = Engine::open("models/demo".as_ref(), EngineOptions::default(), &mut |_| {})?;
//! let prompt = engine.encode("Once upon a time")?;
//! let mut session = engine.session()?;
//! let request = Request { max_tokens: 64, ..Request::new(prompt, &engine) };
//! engine.generate(&mut session, &request, &mut |event| {
//!     if let Event::Token { text, .. } = event {
//!         print!("{text}");
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! # Ok::<(), engine::EngineError>(())
//! ```
//!
//! Memory is planned before anything is loaded ([`plan::MemoryPlan`]); after loading, a step allocates nothing that grows.
#![forbid(unsafe_code)]

mod conversation;
#[doc(hidden)]
pub mod door;
mod engine;
mod error;
mod generate;
mod gguf;
mod options;
pub mod plan;
mod runtime;
mod session;
mod stats;
pub mod synth;
pub mod system;

pub use conversation::Conversation;
pub use engine::{Engine, Loading};
pub use error::EngineError;
pub use experts::{PolicyKind, Verify};
pub use generate::{Event, FinishReason, Generation, Request};
pub use gguf::files_inside;
pub use kernels_cpu::Isa;
pub use models::tiers::QuantTiers;
pub use ops::KvFormat;
pub use options::EngineOptions;
pub use session::Session;
pub use stats::RunStats;
pub use storage::{IoEngine, IoMode};
pub use tensor::Format;
pub use tokenizer::{Message, TemplateOptions, Tokenizer};
