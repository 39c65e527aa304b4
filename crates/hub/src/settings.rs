//! Where the hub is, who asks, and where its files lie: the variables that Hugging Face's own tools
//! read, with their meanings.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::HubError;

/// The usual hub.
const ENDPOINT: &str = "https://huggingface.co";
/// Longest token file.
const TOKEN_BYTES_MAX: u64 = 4096;

/// How a hub is reached and where its files are kept.
#[derive(Clone)]
pub struct Settings {
    /// `https://host`, without a slash at the end.
    pub endpoint: String,
    /// The user's token, which goes to that hub alone.
    pub token: Option<String>,
    /// The cache with `models--ORG--NAME` directories.
    pub cache: PathBuf,
    /// Where files from addresses that are no hub's go, and what is temporary.
    pub own_cache: PathBuf,
    /// Nothing may be asked.
    pub offline: bool,
    /// Connections at once.
    pub connections: usize,
    /// Bytes that one request asks for.
    pub chunk_bytes: u64,
    /// Attempts without any progress before giving up.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles from there.
    pub backoff: Duration,
    /// Longest silence of a connection.
    pub silence: Duration,
    /// Room on the disk of a path; another function in tests.
    pub free_disk_bytes: fn(&Path) -> Option<u64>,
}

impl std::fmt::Debug for Settings {
    // The token is nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        let mut shown = f.debug_struct("Settings");
        shown.field("endpoint", &self.endpoint).field("token", &token).field("cache", &self.cache);
        shown.field("offline", &self.offline).finish_non_exhaustive()
    }
}

impl Settings {
    /// Those of given places, and the usual ones otherwise.
    pub fn new(endpoint: &str, cache: PathBuf, own_cache: PathBuf) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: None,
            cache,
            own_cache,
            offline: false,
            connections: 8,
            chunk_bytes: 8 << 20,
            attempts: 6,
            backoff: Duration::from_millis(500),
            silence: Duration::from_secs(30),
            free_disk_bytes: storage::free_disk_bytes,
        }
    }

    /// Those of the environment: `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`,
    /// `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
    ///
    /// # Errors
    /// [`HubError::Name`] for an endpoint that is no address, [`HubError::Damaged`] for a token that
    /// can be none.
    pub fn from_env(home: Option<&Path>, own_cache: PathBuf) -> Result<Self, HubError> {
        let path = |name: &str| text(name).map(|value| expanded(&value, home));
        let hf_home = path("HF_HOME").unwrap_or_else(|| {
            let base = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
            base.unwrap_or_else(|| own_cache.clone()).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let reason = "HF_ENDPOINT is no http or https address".to_owned();
            return Err(HubError::Name { name: checkpoint::shown(&endpoint), reason });
        }
        let mut settings = Self::new(&endpoint, cache.unwrap_or_else(|| hf_home.join("hub")), own_cache);
        settings.offline = flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE");
        let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
        settings.token = token(&file)?;
        Ok(settings)
    }
}

/// The user's token: from the environment, else from the file that a login leaves.
fn token(file: &Path) -> Result<Option<String>, HubError> {
    let (found, place) = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
        Some(token) => (token, Path::new("HF_TOKEN").to_path_buf()),
        None if flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") => return Ok(None),
        None => {
            let mut token = String::new();
            let Ok(opened) = File::open(file) else { return Ok(None) };
            let read = opened.take(TOKEN_BYTES_MAX).read_to_string(&mut token);
            read.map_err(HubError::io(file, "read the hub's token"))?;
            (token, file.to_path_buf())
        }
    };
    let found = found.trim();
    if found.is_empty() {
        return Ok(None);
    }
    if !found.bytes().all(|c| c.is_ascii_graphic()) {
        let reason = "the token has characters that none can have; log in again".to_owned();
        return Err(HubError::Damaged { path: place, reason });
    }
    Ok(Some(found.to_owned()))
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// As Hugging Face's tools read it.
fn flag(name: &str) -> bool {
    text(name).is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}

/// A path with `~` for the home directory.
fn expanded(path: &str, home: Option<&Path>) -> PathBuf {
    let rest = path.strip_prefix("~/").or_else(|| (path == "~").then_some(""));
    match (rest, home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}
