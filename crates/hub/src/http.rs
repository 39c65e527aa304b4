//! Requests: redirects by hand, so that the token stays with its host; retries with patience.

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode};

use crate::watch::Watch;
use crate::{HubError, Settings};

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 8;
/// Longest wait between two attempts, whatever a server asks for.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Shorter waits are not spoken of.
const REMARKED: Duration = Duration::from_secs(4);
/// What is read of an answer that is an error.
const SAID_BYTES_MAX: u64 = 2048;
/// Headers of an answer.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Asks the hub and hosts that it points to.
pub(crate) struct Client {
    agent: Agent,
    pub(crate) settings: Settings,
}

/// An answer whose body has not been read.
pub(crate) struct Answer {
    /// Where it came from in the end.
    pub(crate) url: String,
    /// Headers of the first answer, which is the hub's own.
    pub(crate) first: HeaderMap,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: ureq::Body,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header of the hub's own answer.
    pub(crate) fn hub_header(&self, name: &str) -> Option<&str> {
        self.first.get(name)?.to_str().ok()
    }

    pub(crate) fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// The whole body, if it is no longer than `limit`.
    pub(crate) fn read_all(self, limit: u64) -> Result<Vec<u8>, HubError> {
        let url = shown_url(&self.url);
        let mut bytes = Vec::new();
        self.into_reader().take(limit + 1).read_to_end(&mut bytes).map_err(|error| HubError::Transport {
            url: url.clone(),
            reason: error.to_string(),
            tried: String::new(),
        })?;
        if bytes.len() as u64 > limit {
            return Err(HubError::Answer { url, reason: format!("more than {limit} bytes") });
        }
        Ok(bytes)
    }
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("flash-moe/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(HEADER_BYTES_MAX)
            .max_idle_connections_per_host(settings.connections)
            .timeout_connect(Some(settings.silence))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence))
            .timeout_per_write(Some(settings.silence))
            .build();
        Self { agent: config.into(), settings: settings.clone() }
    }

    /// One attempt, redirects followed. The token goes to the hub's own origin and nowhere else.
    pub(crate) fn get(&self, url: &str, range: Option<(u64, u64)>) -> Result<Answer, HubError> {
        if self.settings.offline {
            return Err(HubError::Offline { what: shown_url(url) });
        }
        let (mut url, mut first) = (url.to_owned(), None);
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.agent.get(&url).header("Accept-Encoding", "identity");
            if let Some((from, to)) = range {
                request = request.header("Range", format!("bytes={from}-{to}"));
            }
            if let Some(token) = &self.settings.token
                && origin(&url) == origin(&self.settings.endpoint)
            {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let answer = request.call().map_err(|error| HubError::Transport {
                url: shown_url(&url),
                reason: checkpoint::shown(&error.to_string()),
                tried: String::new(),
            })?;
            let (head, body) = answer.into_parts();
            let first = first.get_or_insert_with(|| head.headers.clone());
            let target = head.headers.get("location").and_then(|value| value.to_str().ok());
            match target.filter(|_| head.status.is_redirection()) {
                Some(target) => url = joined(&url, target)?,
                None => {
                    let first = first.clone();
                    return Ok(Answer { url, first, status: head.status, headers: head.headers, body });
                }
            }
        }
        Err(HubError::Answer { url: shown_url(&url), reason: "too many redirects".into() })
    }

    /// Tries until an answer with a good status comes: patience with a busy or broken server, none
    /// with a clear refusal.
    pub(crate) fn get_patiently(
        &self,
        url: &str,
        range: Option<(u64, u64)>,
        watch: Watch<'_>,
    ) -> Result<Answer, HubError> {
        let mut patience = Patience::new(&self.settings);
        loop {
            if watch.stopped() {
                return Err(HubError::Cancelled { file: shown_url(url) });
            }
            let error = match self.get(url, range) {
                Ok(answer) if answer.status.is_success() => return Ok(answer),
                Ok(answer) => self.failure(url, answer),
                Err(error) => (error, None),
            };
            patience.wait(error, watch)?;
        }
    }

    /// An answer with a bad status as an error, and how long the server asks to wait. `url` is what
    /// the hub was asked for.
    pub(crate) fn failure(&self, url: &str, answer: Answer) -> (HubError, Option<Duration>) {
        let wait =
            answer.header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let status = answer.status.as_u16();
        let code = answer.hub_header("x-error-code").map(str::to_owned);
        let has_token = self.settings.token.is_some();
        let said = said(answer);
        let error = match status {
            401 | 403 => {
                let page = self.page(url);
                let todo = todo(&page, status, code.as_deref() == Some("GatedRepo"), has_token);
                HubError::Refused { repo: page, status, said, todo }
            }
            404 => HubError::NotFound {
                what: match code.as_deref() {
                    Some("RevisionNotFound") => "such revision",
                    Some("EntryNotFound") => "such file",
                    Some("RepoNotFound") => "such repository",
                    _ => "such repository, revision or file",
                }
                .into(),
                private: if has_token { "" } else { "; a private one needs HF_TOKEN" },
                url: match code.as_deref() {
                    Some("RepoNotFound") => self.page(url),
                    _ => shown_url(url),
                },
                said,
            },
            _ => HubError::Status { url: shown_url(url), status, said, tried: String::new() },
        };
        (error, wait)
    }

    /// The page of the repository that an address belongs to.
    fn page(&self, url: &str) -> String {
        let endpoint = &self.settings.endpoint;
        let rest = url.strip_prefix(endpoint.as_str()).map(|rest| rest.trim_start_matches('/'));
        let rest = rest.map(|rest| rest.strip_prefix("api/models/").unwrap_or(rest));
        let mut parts = rest.unwrap_or_default().split(['/', '?']);
        match (parts.next(), parts.next()) {
            (Some(org), Some(name)) => {
                format!("{endpoint}/{}/{}", checkpoint::shown(org), checkpoint::shown(name))
            }
            _ => shown_url(url),
        }
    }
}

/// Attempts without progress.
pub(crate) struct Patience {
    left: u32,
    all: u32,
    next: Duration,
    first: Duration,
}

impl Patience {
    pub(crate) fn new(settings: &Settings) -> Self {
        let all = settings.attempts.max(1);
        Self { left: all, all, next: settings.backoff, first: settings.backoff }
    }

    /// There was progress.
    pub(crate) fn renew(&mut self) {
        (self.left, self.next) = (self.all, self.first);
    }

    /// Waits before another attempt; the error if that would be of no use or was tried enough.
    pub(crate) fn wait(
        &mut self,
        (error, asked): (HubError, Option<Duration>),
        watch: Watch<'_>,
    ) -> Result<(), HubError> {
        self.left -= 1;
        let passing = match &error {
            HubError::Transport { .. } => true,
            HubError::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        };
        if !passing || self.left == 0 || watch.stopped() {
            return Err(tried(error, self.all - self.left));
        }
        let pause = asked.unwrap_or(self.next).min(WAIT_MAX);
        if pause >= REMARKED {
            watch.progress.remark(&format!("{error}; the next attempt follows in {} s", pause.as_secs()));
        }
        let until = Instant::now() + pause;
        self.next = (self.next * 2).min(WAIT_MAX);
        while Instant::now() < until && !watch.stopped() {
            std::thread::sleep(
                Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())),
            );
        }
        Ok(())
    }
}

fn tried(error: HubError, times: u32) -> HubError {
    let words = if times > 1 { format!(", after {times} attempts") } else { String::new() };
    match error {
        HubError::Status { url, status, said, .. } => HubError::Status { url, status, said, tried: words },
        HubError::Transport { url, reason, .. } => HubError::Transport { url, reason, tried: words },
        other => other,
    }
}

/// What to do about a refusal.
fn todo(page: &str, status: u16, gated: bool, has_token: bool) -> String {
    match (gated, has_token) {
        (true, true) => format!("accept its terms at {page} with the account that the token belongs to"),
        (true, false) => format!("accept its terms at {page}, then set HF_TOKEN to a token of that account"),
        (false, true) if status == 401 => {
            "the token is not valid, or may not read it; set HF_TOKEN to another".into()
        }
        (false, true) => "the token may not read it; use one that may, or accept the terms there".into(),
        (false, false) => {
            "check the spelling; if it is private or has terms to accept, do so there and set HF_TOKEN".into()
        }
    }
}

/// The server's own words: a header, an `error` in JSON, or nothing of a page for browsers.
fn said(answer: Answer) -> String {
    let header = answer.hub_header("x-error-message").map(str::to_owned);
    let text = header.or_else(|| {
        let mut bytes = Vec::new();
        answer.into_reader().take(SAID_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let json: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        Some(json.get("error")?.as_str()?.to_owned())
    });
    text.map_or_else(String::new, |text| format!(": {}", checkpoint::shown(text.trim())))
}

/// Scheme, host and port; the default ports are as good as none.
pub(crate) fn origin(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
    let scheme = scheme.to_ascii_lowercase();
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(usual).unwrap_or(&host).to_owned();
    Some((scheme, host))
}

/// The target of a redirect, which may be a path only, and must not leave encryption.
pub(crate) fn joined(base: &str, target: &str) -> Result<String, HubError> {
    let bad = |reason: &str| HubError::Answer { url: shown_url(base), reason: reason.into() };
    let (scheme, host) = origin(base).ok_or_else(|| bad("an address without a host"))?;
    if let Some(rest) = target.strip_prefix("//") {
        return Ok(format!("{scheme}://{rest}"));
    }
    if target.starts_with('/') {
        return Ok(format!("{scheme}://{host}{target}"));
    }
    match origin(target) {
        Some((other, _)) if scheme == "https" && other != "https" => {
            Err(bad("a redirect without encryption"))
        }
        Some((other, _)) if other == "https" || other == "http" => Ok(target.to_owned()),
        _ => Err(bad("a redirect to no address")),
    }
}

/// An address without its query, which may hold a signature, made safe for one line.
pub(crate) fn shown_url(url: &str) -> String {
    checkpoint::shown(url.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_redirects() {
        assert_eq!(origin("https://A.b:443/x"), origin("https://a.b/y?z"));
        assert_ne!(origin("https://a.b"), origin("https://a.b:8443"));
        assert_ne!(origin("https://a.b"), origin("http://a.b"));
        assert_ne!(origin("https://a.b"), origin("https://a.b.evil.example"));
        assert_eq!(joined("https://a/b", "/c").ok().as_deref(), Some("https://a/c"));
        assert!(joined("https://a/b", "http://a/c").is_err(), "encryption is not left");
        assert!(joined("https://a/b", "file:///etc/passwd").is_err());
        assert_eq!(shown_url("https://a/b?secret=1"), "https://a/b");
    }
}
