//! Models by name, unfinished: names, settings, requests, listings and the choice of files. What is
//! missing: downloads, the cache, finding models that are here, headers for a plan. Nothing uses it.
#![forbid(unsafe_code)]

mod api;
mod error;
mod http;
mod name;
mod paths;
mod registry;
mod select;
mod settings;

pub use api::{Digest, RemoteFile, Repo};
pub use error::{HubError, decimal_bytes};
pub use name::{RepoName, Select, Wanted};
pub use registry::Registry;
pub use select::{Selection, quant_of};
pub use settings::Settings;
