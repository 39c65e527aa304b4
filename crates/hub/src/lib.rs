//! Models by name: a hub's listings, downloads into the cache that Hugging Face's tools share, and the
//! choice of files that a name means.
//!
//! Nothing that a hub says is believed: names become paths only when they stay below their
//! directory, sizes are checked before they allocate, bytes are held against checksums.
#![forbid(unsafe_code)]

mod api;
mod cache;
mod error;
mod fetch;
mod headers;
mod http;
pub mod local;
mod name;
mod part;
mod paths;
mod pull;
mod registry;
mod select;
mod settings;
mod watch;

pub use api::{Digest, RemoteFile, Repo};
pub use error::{HubError, decimal_bytes};
pub use headers::Headers;
pub use name::{RepoName, Select, Wanted};
pub use pull::{Hub, Offer, Pulled};
pub use registry::Registry;
pub use select::{Selection, quant_of};
pub use settings::Settings;
pub use watch::{Progress, Silent, Watch};
