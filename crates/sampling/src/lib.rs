//! Logits to token id: greedy, temperature, top-k, top-p, min-p and penalties, reproducible by seed.
//!
//! A [`Sampler`] takes one row of logits and the tokens so far and names the next token.
//! [`SamplingParams`] says how; [`GenerationDefaults`] reads a model's own wishes and its end
//! tokens from `generation_config.json`.
//!
//! ```
//! use sampling::{Sampler, SamplingParams};
//!
//! let params = SamplingParams::greedy()
//!     .with_temperature(0.7)
//!     .with_top_k(20)
//!     .with_top_p(0.95)
//!     .with_seed(42);
//! let mut sampler = Sampler::new(params)?;
//! let logits = [0.1, 2.5, -1.0, 2.4];
//! let token = sampler.sample(&logits, &[3, 3])?;
//! assert!(token == 1 || token == 3); // top-p leaves nothing else
//! # Ok::<(), sampling::SamplingError>(())
//! ```
//!
//! # The order of the steps
//!
//! **penalties, temperature, top-k, top-p, min-p, draw.** This is the order of Hugging Face
//! transformers (logits processors first, then the warpers), so that the numbers in a model's
//! `generation_config.json`, which were tuned there, mean the same here. It differs from
//! llama.cpp, whose default chain applies the temperature last: there top-p and min-p look at the
//! distribution at temperature 1, here at the one that is drawn from. At temperature 1 the two
//! agree.
//!
//! Each filter keeps a prefix of the tokens ordered by falling logit (ties: the lower id first), so
//! what is kept is deterministic:
//!
//! * top-k keeps the k best, exactly k also when the k-th is tied (transformers keeps all of the
//!   ties);
//! * top-p keeps a token while the probability of all better ones, among the k, is below p;
//! * min-p keeps a token whose probability is at least `min_p` times that of the best one.
//!
//! The best token always survives.
//!
//! # Cost
//!
//! Nothing sorts the vocabulary. A greedy choice is one pass; top-k is one pass with a bounded
//! buffer; top-p without top-k sorts only as many of the best tokens as its mass needs.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod defaults;
mod error;
mod params;
mod rng;
mod sampler;
mod scan;
mod select;

pub use defaults::{EOS_TOKEN_IDS_MAX, GENERATION_CONFIG_BYTES_MAX, GenerationDefaults};
pub use error::SamplingError;
pub use params::SamplingParams;
pub use rng::Rng;
pub use sampler::Sampler;
pub use scan::first_not_finite;
