//! Measurements on an engine and on the machine below it: how fast a model runs ([`mod@bench`]), how
//! fast it would ([`forecast`]), how well it predicts ([`eval`], [`compare`]), its sizes
//! ([`inspect`], and in short [`glance()`]).
//!
//! Nothing here is needed to serve a model.
#![forbid(unsafe_code)]

pub mod bench;
mod compare;
mod drive;
mod error;
mod eval;
mod expert_reads;
mod facts;
mod figures;
pub mod forecast;
mod glance;
pub mod inspect;
mod layer_costs;
mod mark;
mod probe;
mod stand_in;
mod streams;
mod turns;

pub use compare::{CompareEvent, CompareOptions, CompareReport, compare};
pub use error::LabError;
pub use eval::{EvalOptions, EvalReport, eval};
pub use expert_reads::{ExpertReads, expert_reads};
pub use glance::{Glance, glance, glance_at_config};
pub use layer_costs::{LayerCost, PassCost};
pub use models::synthetic::Synthetic;
pub use models::{Unread, UnreadKey};
