//! Names of models: `ORG/NAME:QUANT@REVISION`, with `hf.co/` before it, or addresses of files.

use std::fmt;

use crate::HubError;

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Something in a repository of a hub.
    Repo(RepoName),
    /// One file at an address that is no hub's.
    Url(String),
}

/// A repository, a revision of it, and some of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoName {
    /// Another hub than the usual one: `https://host`.
    pub endpoint: Option<String>,
    /// `ORG/NAME`.
    pub repo: String,
    /// Branch, tag or commit; `None`: `main`.
    pub revision: Option<String>,
    /// Which files.
    pub select: Select,
}

/// Which files of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// The usual choice.
    Default,
    /// A quantisation, as `Q4_K_M`, or `safetensors`.
    Quant(String),
    /// A file by its path in the repository.
    File(String),
}

/// Hosts that mean the usual hub, whichever address that has.
const HUB_HOSTS: [&str; 4] = ["hf.co", "huggingface.co", "www.huggingface.co", "www.hf.co"];
/// Longest part of a repository's name.
const PART_BYTES_MAX: usize = 96;
/// Longest revision.
const REVISION_BYTES_MAX: usize = 200;

impl RepoName {
    /// The revision, `main` where none was named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(endpoint) = &self.endpoint {
            write!(f, "{endpoint}/")?;
        }
        f.write_str(&self.repo)?;
        match &self.select {
            Select::Default => {}
            Select::Quant(text) | Select::File(text) => write!(f, ":{text}")?,
        }
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Repo(name) => name.fmt(f),
            Wanted::Url(url) => f.write_str(url),
        }
    }
}

impl Wanted {
    /// Reads a name.
    ///
    /// # Errors
    /// [`HubError::Name`].
    pub fn parse(name: &str) -> Result<Self, HubError> {
        let bad = |reason: &str| HubError::Name { name: checkpoint::shown(name), reason: reason.to_owned() };
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("a name has no spaces"));
        }
        if let Some((scheme, rest)) = name.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                scheme @ ("https" | "http") => address(scheme, rest).map_err(|reason| bad(&reason)),
                "hf" => {
                    repo(rest.trim_end_matches('/'), None).map(Wanted::Repo).map_err(|reason| bad(&reason))
                }
                _ => Err(bad("only http and https addresses are understood")),
            };
        }
        let bare = HUB_HOSTS.iter().find_map(|host| strip_host(name, host));
        repo(bare.unwrap_or(name).trim_end_matches('/'), None)
            .map(Wanted::Repo)
            .map_err(|reason| bad(&reason))
    }
}

/// What follows `HOST/`, if the name begins with it.
fn strip_host<'a>(name: &'a str, host: &str) -> Option<&'a str> {
    let (first, rest) = name.split_once('/')?;
    first.eq_ignore_ascii_case(host).then_some(rest)
}

/// `ORG/NAME`, then `:SELECT` and `@REVISION` in either order.
fn repo(text: &str, endpoint: Option<String>) -> Result<RepoName, String> {
    let end = text.find([':', '@']).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let parts: Vec<&str> = name.split('/').collect();
    let [org, model] = parts[..] else {
        return Err(match parts.len() {
            1 => "a model on a hub has the name of an organisation before it".into(),
            _ => "a file in a repository is written after a colon".into(),
        });
    };
    if !is_name_part(org) || !is_name_part(model) {
        return Err("names consist of letters, digits, `-`, `_` and `.`".into());
    }
    let mut found = RepoName { endpoint, repo: name.into(), revision: None, select: Select::Default };
    while let Some(mark) = rest.chars().next() {
        let value = &rest[1..];
        // A file name may have an @ in it, a revision no colon.
        let end = if mark == ':' { value.rfind('@') } else { value.find(':') };
        let (value, next) = value.split_at(end.unwrap_or(value.len()));
        match mark {
            ':' if found.select == Select::Default => found.select = select(value)?,
            '@' if found.revision.is_none() => found.revision = Some(revision(value)?),
            _ => return Err(format!("there is more than one `{mark}`")),
        }
        rest = next;
    }
    Ok(found)
}

fn is_name_part(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty()
        && part.len() <= PART_BYTES_MAX
        && part.chars().all(plain)
        && !part.starts_with(['-', '.'])
        && !part.ends_with('.')
        && !part.contains("..")
}

fn select(text: &str) -> Result<Select, String> {
    if text.is_empty() {
        return Err("nothing follows the `:`".into());
    }
    if text.contains(':') {
        return Err("there is more than one `:`".into());
    }
    let lower = text.to_ascii_lowercase();
    let is_file = text.contains('/') || lower.ends_with(".gguf") || lower.ends_with(".safetensors");
    if is_file && !crate::paths::is_safe(text) {
        return Err("the file would lie outside of the repository".into());
    }
    Ok(if is_file { Select::File(text.into()) } else { Select::Quant(text.into()) })
}

fn revision(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    let good = !text.is_empty()
        && text.len() <= REVISION_BYTES_MAX
        && text.chars().all(plain)
        && crate::paths::is_safe(text);
    good.then(|| text.to_owned()).ok_or_else(|| "this can be no revision".into())
}

/// `host/ORG/NAME`, `host/ORG/NAME/resolve/REV/FILE`, or any other address of a file.
fn address(scheme: &str, rest: &str) -> Result<Wanted, String> {
    let whole = format!("{scheme}://{rest}");
    let bare = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = bare.split_once('/').ok_or("the address names no file")?;
    if host.is_empty() || host.contains('@') {
        return Err("the address has no plain host".into());
    }
    let is_hub = HUB_HOSTS.iter().any(|hub| host.eq_ignore_ascii_case(hub));
    let endpoint = (!is_hub).then(|| format!("{scheme}://{}", host.to_ascii_lowercase()));
    let path = path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    if let [org, model, "resolve" | "blob" | "tree" | "raw", after @ ..] = &parts[..]
        && is_name_part(org)
        && is_name_part(model)
        && !after.is_empty()
    {
        let (revision_text, file) = match after {
            // Pull requests and other references have slashes.
            ["refs", kind, number, file @ ..] => (format!("refs/{kind}/{number}"), file),
            [revision, file @ ..] => ((*revision).replace("%2F", "/").replace("%2f", "/"), file),
            [] => return Err("the address names no revision".into()),
        };
        let file = decoded(&file.join("/")).ok_or("the address is not UTF-8")?;
        let select = match (file.is_empty(), parts[2]) {
            (true, _) => Select::Default,
            (false, "tree") => Select::Quant(file),
            (false, _) if crate::paths::is_safe(&file) => Select::File(file),
            (false, _) => return Err("the file would lie outside of the repository".into()),
        };
        let revision = Some(revision(&revision_text)?).filter(|revision| revision != "main");
        return Ok(Wanted::Repo(RepoName { endpoint, repo: format!("{org}/{model}"), revision, select }));
    }
    if is_hub {
        return repo(path, None).map(Wanted::Repo);
    }
    let file = parts.last().copied().unwrap_or_default();
    let lower = file.to_ascii_lowercase();
    match (lower.ends_with(".gguf"), parts.len()) {
        (true, _) => Ok(Wanted::Url(whole)),
        (false, 2) => repo(path, endpoint).map(Wanted::Repo),
        (false, _) => Err("the address is neither a repository nor a GGUF file".into()),
    }
}

/// `%20` and the like as what they stand for; `None` if that is not UTF-8.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|code| code.chars().all(|c| c.is_ascii_hexdigit()));
        match (first, code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo_of(text: &str) -> RepoName {
        match Wanted::parse(text) {
            Ok(Wanted::Repo(name)) => name,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn names_are_read_in_every_form() {
        let plain = repo_of("org/Model-1.5B");
        assert_eq!(
            (plain.repo.as_str(), plain.revision(), &plain.select),
            ("org/Model-1.5B", "main", &Select::Default)
        );
        for text in [
            "org/m:q4_k_m",
            "hf.co/org/m:q4_k_m",
            "HF.co/org/m:q4_k_m",
            "hf://org/m:q4_k_m",
            "https://huggingface.co/org/m:q4_k_m",
        ] {
            let name = repo_of(text);
            assert_eq!((name.repo.as_str(), &name.endpoint), ("org/m", &None), "{text}");
            assert_eq!(name.select, Select::Quant("q4_k_m".into()), "{text}");
        }
        for text in ["org/m:Q8_0@v1.0", "org/m@v1.0:Q8_0"] {
            let name = repo_of(text);
            assert_eq!((name.revision(), name.select.clone()), ("v1.0", Select::Quant("Q8_0".into())));
        }
        assert_eq!(repo_of("org/m@refs/pr/3").revision(), "refs/pr/3");
        assert_eq!(
            repo_of("org/m:BF16/m-BF16-00001-of-00002.gguf").select,
            Select::File("BF16/m-BF16-00001-of-00002.gguf".into())
        );
        assert_eq!(repo_of("org/m:Q8_0@v1.0").to_string(), "org/m:Q8_0@v1.0");
    }

    #[test]
    fn addresses_are_told_apart() {
        let name = repo_of("https://huggingface.co/org/m/resolve/main/sub/a%20b.gguf?download=true");
        assert_eq!((name.revision, name.select), (None, Select::File("sub/a b.gguf".into())));
        let name = repo_of("https://hub.example:8443/org/m/resolve/refs/pr/1/a.gguf");
        assert_eq!(name.endpoint.as_deref(), Some("https://hub.example:8443"));
        assert_eq!(name.revision.as_deref(), Some("refs/pr/1"));
        assert_eq!(repo_of("https://hf.co/org/m/tree/main/BF16").select, Select::Quant("BF16".into()));
        assert_eq!(repo_of("https://hf.co/org/m/blob/main/a.gguf").select, Select::File("a.gguf".into()));
        let url = "https://files.example/models/a.gguf?key=1";
        assert!(matches!(Wanted::parse(url), Ok(Wanted::Url(found)) if found == url));
    }

    #[test]
    fn what_can_be_no_name_is_refused() {
        let bad = [
            "model",
            "a/b/c",
            "../x",
            "a/..",
            "org/m:",
            "org/m:../x.gguf",
            "org/m:/etc/x.gguf",
            "org/m@",
            "org/m@../x",
            "org/m@a@b",
            "org/m:a:b",
            "-a/b",
            ".a/b",
            "a b/c",
            "ftp://x/y",
            "https://hf.co",
            "https://u@h/x.gguf",
            "https://x/org/m/resolve/main/%2e%2e/x",
            "org/m:a\\..\\b.gguf",
            "https://x/a/page.html/b",
            "",
        ];
        for name in bad {
            assert!(
                matches!(Wanted::parse(name), Err(HubError::Name { .. })),
                "{name}: {:?}",
                Wanted::parse(name)
            );
        }
    }
}
