//! A stand-in for a hub: the shape of Hugging Face's API on two ports of this machine, one the hub's and
//! one that of the servers with the bytes, with faults that can be switched on.
#![allow(clippy::unwrap_used, dead_code)] // Each test uses a part; one that cannot set itself up should panic.

mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::Builder;
use std::time::Duration;

use serde_json::{Value, json};
use sha1::Digest as _;

use wire::{Reply, Request};

/// Files of at least so many bytes are large ones, with a SHA-256; others have a git hash.
const LARGE_BYTES: u64 = 64 << 10;
/// Written at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Where a file's bytes are.
#[derive(Clone)]
pub(crate) enum Content {
    Bytes(Arc<Vec<u8>>),
    Disk(PathBuf),
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Disk(path) => path.metadata().unwrap().len(),
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Content::Bytes(bytes) => into.copy_from_slice(&bytes[offset as usize..][..into.len()]),
            Content::Disk(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(offset))?;
                file.read_exact(into)?;
            }
        }
        Ok(())
    }

    fn hash(&self) -> (bool, String) {
        let large = self.len() >= LARGE_BYTES;
        let mut sha256 = sha2::Sha256::new();
        let mut sha1 = sha1::Sha1::new();
        sha1.update(format!("blob {}\0", self.len()));
        let (mut at, mut piece) = (0, vec![0; PIECE_BYTES]);
        while at < self.len() {
            let count = (self.len() - at).min(PIECE_BYTES as u64) as usize;
            self.read(at, &mut piece[..count]).unwrap();
            if large {
                sha256.update(&piece[..count])
            } else {
                sha1.update(&piece[..count])
            }
            at += count as u64;
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        (large, if large { hex(&sha256.finalize()) } else { hex(&sha1.finalize()) })
    }
}

struct Entry {
    content: Content,
    large: bool,
    hash: String,
}

/// One repository.
#[derive(Default)]
pub(crate) struct Repo {
    commit: String,
    license: Option<String>,
    files: BTreeMap<String, Entry>,
}

impl Repo {
    pub(crate) fn new() -> Self {
        Self { commit: "c0ffee00".repeat(5), ..Self::default() }
    }

    pub(crate) fn file(mut self, path: &str, bytes: Vec<u8>) -> Self {
        self.add(path, Content::Bytes(Arc::new(bytes)));
        self
    }

    pub(crate) fn license(mut self, license: &str) -> Self {
        self.license = Some(license.into());
        self
    }

    pub(crate) fn commit(mut self, commit: &str) -> Self {
        self.commit = commit.into();
        self
    }

    pub(crate) fn add(&mut self, path: &str, content: Content) {
        let (large, hash) = content.hash();
        self.files.insert(path.into(), Entry { content, large, hash });
    }

    /// All files below a directory.
    pub(crate) fn of_directory(dir: &Path) -> Self {
        let mut repo = Self::new();
        let mut left = vec![dir.to_path_buf()];
        while let Some(next) = left.pop() {
            for entry in next.read_dir().unwrap().flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => left.push(path),
                    false => {
                        let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                        repo.add(&name, Content::Disk(path));
                    }
                }
            }
        }
        repo
    }

    pub(crate) fn hash(&self, path: &str) -> String {
        self.files[path].hash.clone()
    }
}

/// What goes wrong.
#[derive(Default, Clone)]
pub(crate) struct Faults {
    /// The token that all requests to the hub must carry; 401 otherwise.
    pub(crate) token: Option<String>,
    /// The terms have not been accepted: 403 for all files.
    pub(crate) gated: bool,
    /// So many requests for files are answered with this status.
    pub(crate) busy: (u32, u16),
    /// The seconds of Retry-After in such an answer.
    pub(crate) retry_after: Option<u64>,
    /// Ranges are refused: the whole file comes with status 200.
    pub(crate) no_ranges: bool,
    /// So many answers with bytes break off after so many bytes.
    pub(crate) broken: (u32, u64),
    /// All answers for this path have a wrong byte.
    pub(crate) corrupt: Option<String>,
    /// Lengths in answers are those of another file.
    pub(crate) wrong_length: bool,
    /// The hub announces another commit than the listing did.
    pub(crate) other_commit: bool,
    /// So many addresses of files, once given out, are refused when they are used.
    pub(crate) expired: u32,
    /// After so many bytes of files in all, everybody waits.
    pub(crate) hold_at: Option<u64>,
    /// A longest rate in bytes per second, of all connections together.
    pub(crate) rate: Option<u64>,
    /// The listing has this name too.
    pub(crate) listed: Option<String>,
    /// Entries of one page of the listing.
    pub(crate) page: usize,
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether it came to the hub itself, not to a server with bytes.
    pub(crate) hub: bool,
    pub(crate) path: String,
    pub(crate) authorized: bool,
    pub(crate) range: Option<String>,
}

#[derive(Default)]
struct State {
    repos: Mutex<BTreeMap<String, Repo>>,
    faults: Mutex<Faults>,
    seen: Mutex<Vec<Seen>>,
    served: AtomicU64,
    waiting: AtomicU64,
    released: Condvar,
    cdn: String,
    hub: String,
}

/// The running stand-in. Its threads live as long as the process.
#[derive(Clone)]
pub(crate) struct Hub(Arc<State>);

impl Hub {
    pub(crate) fn start() -> Self {
        Self::start_at(0)
    }

    /// On a given port, 0 for any.
    pub(crate) fn start_at(port: u16) -> Self {
        let hub = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let cdn = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { hub: address(&hub), cdn: address(&cdn), ..State::default() });
        for (listener, is_hub) in [(hub, true), (cdn, false)] {
            let state = state.clone();
            Builder::new().spawn(move || accept(&state, &listener, is_hub)).unwrap();
        }
        Self(state)
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.0.hub
    }

    pub(crate) fn add(&self, name: &str, repo: Repo) {
        self.0.repos.lock().unwrap().insert(name.into(), repo);
    }

    pub(crate) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.faults.lock().unwrap());
        self.0.released.notify_all();
    }

    /// Bytes of files that were sent, and forgets them.
    pub(crate) fn take_served(&self) -> u64 {
        self.0.served.swap(0, Ordering::SeqCst)
    }

    /// Bytes of files that were sent.
    pub(crate) fn served(&self) -> u64 {
        self.0.served.load(Ordering::SeqCst)
    }

    /// Connections that wait because of [`Faults::hold_at`].
    pub(crate) fn waiting(&self) -> u64 {
        self.0.waiting.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.seen.lock().unwrap().clone()
    }
}

fn accept(state: &Arc<State>, listener: &TcpListener, is_hub: bool) {
    for stream in listener.incoming().flatten() {
        let state = state.clone();
        // A client that goes away in the middle is its own business.
        let _ = Builder::new().spawn(move || serve(&state, stream, is_hub));
    }
}

fn serve(state: &State, mut stream: TcpStream, is_hub: bool) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    while let Some(request) = Request::read(&mut stream)? {
        state.seen.lock().unwrap().push(Seen {
            hub: is_hub,
            path: request.path.clone(),
            authorized: request.header("authorization").is_some(),
            range: request.header("range").map(str::to_owned),
        });
        let goes_on = match is_hub {
            true => state.hub_answer(&request).write(&mut stream).map(|()| true)?,
            false => state.bytes_answer(&request, &mut stream)?,
        };
        if !goes_on {
            break;
        }
    }
    Ok(())
}

impl State {
    fn hub_answer(&self, request: &Request) -> Reply {
        let faults = self.faults.lock().unwrap().clone();
        let right = faults.token.as_ref().map(|token| format!("Bearer {token}"));
        if right.is_some() && request.header("authorization") != right.as_deref() {
            return Reply::error(401, "Invalid username or password.");
        }
        let path = request.path.split('?').next().unwrap();
        match path.strip_prefix("/api/models/") {
            Some(rest) => self.api(rest, request, &faults),
            None => self.resolve(path, &faults),
        }
    }

    fn api(&self, rest: &str, request: &Request, faults: &Faults) -> Reply {
        let parts: Vec<&str> = rest.split('/').collect();
        let repos = self.repos.lock().unwrap();
        let name = parts.get(..2).map(|parts| parts.join("/")).unwrap_or_default();
        let Some(repo) = repos.get(&name) else {
            return Reply::error(404, "Repository not found").with("X-Error-Code", "RepoNotFound");
        };
        let known = |revision: &str| {
            let revision = revision.replace("%2F", "/");
            revision == "main" || revision == "refs/pr/1" || revision == repo.commit
        };
        match parts[2..] {
            [] => Reply::json(&info(repo, faults)),
            ["revision", revision] if known(revision) => Reply::json(&info(repo, faults)),
            ["tree", revision] if known(revision) => self.tree(&name, repo, request, faults),
            _ => Reply::error(404, "Invalid rev id").with("X-Error-Code", "RevisionNotFound"),
        }
    }

    fn tree(&self, name: &str, repo: &Repo, request: &Request, faults: &Faults) -> Reply {
        let entry = |(path, entry): (&String, &Entry)| {
            let bytes = entry.content.len();
            match entry.large {
                true => json!({"type": "file", "oid": "0".repeat(40), "size": bytes, "path": path,
                    "lfs": {"oid": entry.hash, "size": bytes, "pointerSize": 130}}),
                false => json!({"type": "file", "oid": entry.hash, "size": bytes, "path": path}),
            }
        };
        let mut entries: Vec<Value> = vec![json!({"type": "directory", "oid": "", "size": 0, "path": "d"})];
        entries.extend(repo.files.iter().map(entry));
        if let Some(path) = &faults.listed {
            entries.push(json!({"type": "file", "oid": "0".repeat(40), "size": 1, "path": path}));
        }
        let cursor = request.path.split("cursor=").nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        let page = if faults.page == 0 { entries.len() } else { faults.page };
        let end = entries.len().min(cursor + page);
        let reply = Reply::json(&Value::from(entries[cursor..end].to_vec()));
        match end < entries.len() {
            true => {
                let next = format!("{}/api/models/{name}/tree/main?recursive=true&cursor={end}", self.hub);
                reply.with("Link", &format!("<{next}>; rel=\"next\""))
            }
            false => reply,
        }
    }

    fn resolve(&self, path: &str, faults: &Faults) -> Reply {
        let found = path.trim_start_matches('/').split_once("/resolve/");
        let Some((name, rest)) = found else { return Reply::error(404, "Not found") };
        let file = rest.split_once('/').map_or("", |(_, file)| file).replace("%20", " ");
        let repos = self.repos.lock().unwrap();
        let Some(entry) = repos.get(name).and_then(|repo| repo.files.get(&file)) else {
            return Reply::error(404, "Entry not found").with("X-Error-Code", "EntryNotFound");
        };
        if faults.gated {
            let said = "Access to this model is restricted and you are not in the authorized list.";
            return Reply::error(403, said).with("X-Error-Code", "GatedRepo");
        }
        if let Some(status) = self.take_busy() {
            let reply = Reply::error(status, "Come back later.");
            return match faults.retry_after {
                Some(seconds) => reply.with("Retry-After", &seconds.to_string()),
                None => reply,
            };
        }
        let repo = &repos[name];
        let commit = if faults.other_commit { "0".repeat(40) } else { repo.commit.clone() };
        Reply::redirect(&format!("{}/{name}/{file}?signature=secret", self.cdn).replace(' ', "%20"))
            .with("X-Repo-Commit", &commit)
            .with("X-Linked-Size", &entry.content.len().to_string())
            .with("X-Linked-Etag", &format!("\"{}\"", entry.hash))
    }

    fn take_busy(&self) -> Option<u16> {
        let mut faults = self.faults.lock().unwrap();
        let (left, status) = faults.busy;
        faults.busy.0 = left.saturating_sub(1);
        (left > 0).then_some(status)
    }

    /// Sends bytes; false if the connection is to end.
    fn bytes_answer(&self, request: &Request, stream: &mut TcpStream) -> io::Result<bool> {
        let (expired, faults) = {
            let mut faults = self.faults.lock().unwrap();
            let expired = faults.expired > 0;
            faults.expired = faults.expired.saturating_sub(1);
            (expired, faults.clone())
        };
        if expired {
            return Reply::error(403, "Request has expired").write(stream).map(|()| true);
        }
        let path = request.path.split('?').next().unwrap().trim_start_matches('/').replace("%20", " ");
        let content = {
            let repos = self.repos.lock().unwrap();
            repos.iter().find_map(|(name, repo)| {
                let file = path.strip_prefix(name.as_str())?.strip_prefix('/')?;
                Some(repo.files.get(file)?.content.clone())
            })
        };
        let Some(content) = content else {
            return Reply::error(404, "no such file").write(stream).map(|()| true);
        };
        let total = content.len();
        let range = request.range().filter(|_| !faults.no_ranges);
        let (from, to) = range.map_or((0, total), |(from, to)| (from, (to + 1).min(total)));
        if from > to || (from == total && total > 0) {
            return Reply::error(416, "Range not satisfiable").write(stream).map(|()| true);
        }
        let wrong = u64::from(faults.wrong_length);
        let mut reply = Reply::new(if range.is_some() { 206 } else { 200 });
        if range.is_some() {
            let shown = format!("bytes {from}-{}/{}", to.saturating_sub(1), total + wrong);
            reply = reply.with("Content-Range", &shown);
        }
        let length = to - from + if range.is_some() { 0 } else { wrong };
        reply.with("Content-Length", &length.to_string()).write(stream)?;
        self.body(
            stream,
            &content,
            (from, to),
            faults.corrupt.is_some_and(|corrupt| path.ends_with(&corrupt)),
        )
    }

    fn body(
        &self,
        stream: &mut TcpStream,
        content: &Content,
        (from, to): (u64, u64),
        corrupt: bool,
    ) -> io::Result<bool> {
        use std::io::Write;
        let breaks_after = {
            let mut faults = self.faults.lock().unwrap();
            let (left, bytes) = faults.broken;
            faults.broken.0 = left.saturating_sub(1);
            (left > 0).then_some(bytes)
        };
        let end = breaks_after.map_or(to, |bytes| to.min(from + bytes));
        let (mut at, mut piece) = (from, vec![0; PIECE_BYTES]);
        while at < end {
            self.wait();
            let count = (end - at).min(PIECE_BYTES as u64) as usize;
            content.read(at, &mut piece[..count])?;
            if corrupt && at == 0 {
                piece[0] ^= 1;
            }
            stream.write_all(&piece[..count])?;
            self.served.fetch_add(count as u64, Ordering::SeqCst);
            at += count as u64;
        }
        Ok(end == to)
    }

    /// Holds an answer back as the faults say.
    fn wait(&self) {
        let faults = self.faults.lock().unwrap();
        let held =
            |faults: &Faults| faults.hold_at.is_some_and(|bytes| self.served.load(Ordering::SeqCst) >= bytes);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let faults = self.released.wait_while(faults, |faults| held(faults)).unwrap();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        if let Some(rate) = faults.rate {
            // With the lock, so that all connections together have this rate.
            std::thread::sleep(Duration::from_secs_f64(PIECE_BYTES as f64 / rate as f64));
        }
    }
}

fn info(repo: &Repo, faults: &Faults) -> Value {
    json!({
        "sha": repo.commit,
        "gated": if faults.gated { json!("manual") } else { json!(false) },
        "cardData": {"license": repo.license},
        "tags": ["gguf"],
    })
}

/// Bytes that look like nothing in particular.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut found: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    found.truncate(bytes);
    found
}
