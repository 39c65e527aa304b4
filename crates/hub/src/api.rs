//! What is in a repository: revision, licence, files with sizes and checksums.

use serde::Deserialize;

use crate::http::{self, Client};
use crate::name::RepoName;
use crate::watch::Watch;
use crate::{HubError, paths};

/// Longest answer about a repository.
const INFO_BYTES_MAX: u64 = 16 << 20;
/// Pages of a listing.
const PAGES_MAX: usize = 64;
/// Files of a repository.
const FILES_MAX: usize = 100_000;

/// The checksum that a hub announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// Of the bytes: large files.
    Sha256(String),
    /// Of a git blob: small files.
    Git(String),
}

impl Digest {
    /// Hexadecimal digits; also the name of the blob in a cache.
    pub fn hex(&self) -> &str {
        match self {
            Digest::Sha256(hex) | Digest::Git(hex) => hex,
        }
    }
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path below the repository, safe to join.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Checksum.
    pub digest: Digest,
}

/// One revision of a repository.
#[derive(Clone, Debug)]
pub struct Repo {
    /// Its hub.
    pub endpoint: String,
    /// `ORG/NAME`.
    pub name: String,
    /// The revision that was asked for.
    pub revision: String,
    /// The commit that it is.
    pub commit: String,
    /// As the model card says it.
    pub license: Option<String>,
    /// Whether terms have to be accepted on its page.
    pub gated: bool,
    /// All files.
    pub files: Vec<RemoteFile>,
}

impl Repo {
    /// The address of a file at this commit.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/{}/resolve/{}/{}", self.endpoint, self.name, self.commit, paths::encoded(path))
    }
}

#[derive(Deserialize)]
struct RawInfo {
    sha: String,
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default, rename = "cardData")]
    card: serde_json::Value,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<RawLfs>,
}

#[derive(Deserialize)]
struct RawLfs {
    oid: String,
    size: u64,
}

/// Asks for a revision and all its files.
pub(crate) fn repo(client: &Client, name: &RepoName, watch: Watch<'_>) -> Result<Repo, HubError> {
    let endpoint = client.settings.endpoint.clone();
    let revision = paths::encoded(name.revision()).replace('/', "%2F");
    let url = format!("{endpoint}/api/models/{}/revision/{revision}", name.repo);
    let answer = client.get_patiently(&url, None, watch)?;
    let info: RawInfo = parse(&url, &answer.read_all(INFO_BYTES_MAX)?)?;
    if !paths::is_hash(&info.sha) {
        return Err(HubError::Answer { url, reason: "the commit is no hash".into() });
    }
    let tagged = info.tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned);
    let field = |key: &str| info.card.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let license = field("license_name").or_else(|| field("license")).or(tagged);
    let files = files(client, &name.repo, &info.sha, watch)?;
    Ok(Repo {
        endpoint,
        name: name.repo.clone(),
        revision: name.revision().to_owned(),
        commit: info.sha,
        license: license.map(|license| checkpoint::shown(&license)),
        gated: !matches!(info.gated, serde_json::Value::Null | serde_json::Value::Bool(false)),
        files,
    })
}

fn parse<T: for<'de> Deserialize<'de>>(url: &str, bytes: &[u8]) -> Result<T, HubError> {
    serde_json::from_slice(bytes).map_err(|error| HubError::Answer {
        url: http::shown_url(url),
        reason: checkpoint::shown(&error.to_string()),
    })
}

fn files(client: &Client, repo: &str, commit: &str, watch: Watch<'_>) -> Result<Vec<RemoteFile>, HubError> {
    let endpoint = &client.settings.endpoint;
    let mut url = format!("{endpoint}/api/models/{repo}/tree/{commit}?recursive=true");
    let mut files = Vec::new();
    for _ in 0..PAGES_MAX {
        let answer = client.get_patiently(&url, None, watch)?;
        let next =
            answer.header("link").and_then(next_page).map(|next| http::joined(&url, next)).transpose()?;
        let entries: Vec<RawEntry> = parse(&url, &answer.read_all(INFO_BYTES_MAX)?)?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            files.extend(remote_file(repo, &url, entry)?);
        }
        if files.len() > FILES_MAX {
            return Err(HubError::Answer {
                url: http::shown_url(&url),
                reason: format!("more than {FILES_MAX} files"),
            });
        }
        match next {
            None => return Ok(files),
            // A listing does not lead to another host.
            Some(next) if http::origin(&next) != http::origin(endpoint) => {
                return Err(HubError::Answer { url: http::shown_url(&next), reason: "another host".into() });
            }
            Some(next) => url = next,
        }
    }
    Err(HubError::Answer { url: http::shown_url(&url), reason: format!("more than {PAGES_MAX} pages") })
}

/// The address in `<address>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let part = link.split(',').find(|part| part.contains("rel=\"next\"") || part.contains("rel=next"))?;
    part.trim().strip_prefix('<')?.split('>').next()
}

/// A file of the listing; none of a name that other systems could not store, an error for one that
/// would leave the directory.
fn remote_file(repo: &str, url: &str, entry: RawEntry) -> Result<Option<RemoteFile>, HubError> {
    let RawEntry { path, oid, size, lfs, .. } = entry;
    if !paths::is_safe(&path) {
        let leaves = path.starts_with('/') || path.contains('\\') || path.split('/').any(|part| part == "..");
        let path = checkpoint::shown(&path);
        return if leaves { Err(HubError::UnsafePath { repo: repo.into(), path }) } else { Ok(None) };
    }
    let (digest, bytes) = match lfs {
        Some(lfs) => (Digest::Sha256(lfs.oid.trim_start_matches("sha256:").to_owned()), lfs.size),
        None => (Digest::Git(oid), size),
    };
    let length = if matches!(digest, Digest::Sha256(_)) { 64 } else { 40 };
    if !paths::is_hash(digest.hex()) || digest.hex().len() != length {
        let reason = format!("{path} has no checksum");
        return Err(HubError::Answer { url: http::shown_url(url), reason });
    }
    Ok(Some(RemoteFile { path, bytes, digest }))
}
