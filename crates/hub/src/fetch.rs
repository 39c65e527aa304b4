//! The bytes of one file: chunks over several connections, or one stream from a server that knows no
//! ranges, with a checksum that follows behind.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use sha1::Digest as _;

use crate::http::{Answer, Client, Patience, shown_url};
use crate::part::Part;
use crate::watch::Watch;
use crate::{Digest, HubError};

/// Read and written at a time.
const PIECE_BYTES: usize = 128 << 10;
/// So much is progress, after which a connection may fail as often again.
const PROGRESS_BYTES: u64 = 64 << 10;
/// Addresses that expire while one chunk is fetched.
const EXPIRED_MAX: usize = 4;

/// A file as its server has announced it.
#[derive(Copy, Clone)]
pub(crate) struct Source<'a> {
    /// The hub's address of it, which leads to others.
    pub(crate) url: &'a str,
    /// Its name in messages.
    pub(crate) path: &'a str,
    pub(crate) bytes: u64,
    /// `None`: nothing is announced.
    pub(crate) digest: Option<&'a Digest>,
    pub(crate) commit: Option<&'a str>,
}

/// Bytes of all files that are here.
pub(crate) struct Tally<'a> {
    done: AtomicU64,
    watch: Watch<'a>,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(done: u64, watch: Watch<'a>) -> Self {
        Self { done: AtomicU64::new(done), watch }
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.watch.progress.position(self.done.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }

    /// Bytes that have to come again.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.watch.progress.position(self.done.fetch_sub(bytes, Ordering::Relaxed) - bytes);
    }
}

/// Fetches all chunks that `part` has not, and gives the checksum of the whole: SHA-256, or that of a
/// git blob where the hub announces such a one.
pub(crate) fn fetch(
    client: &Client,
    source: Source<'_>,
    part: &Part,
    tally: &Tally<'_>,
    watch: Watch<'_>,
) -> Result<String, HubError> {
    let failed = AtomicBool::new(false);
    let url = Mutex::new(source.url.to_owned());
    let transfer = Transfer { client, source, part, tally, watch, failed: &failed, url };
    let checksum = || checksum(part, source, || failed.load(Ordering::Relaxed) || watch.stopped());
    thread::scope(|scope| {
        // The system may refuse a thread; then the checksum is made afterwards.
        let beside = Builder::new().spawn_scoped(scope, checksum).ok();
        let fetched = transfer.all();
        failed.fetch_or(fetched.is_err(), Ordering::Relaxed);
        let found = match beside.map(|thread| thread.join()) {
            Some(Ok(found)) => found,
            _ => checksum(),
        };
        fetched?;
        found?.ok_or_else(|| transfer.cancelled())
    })
}

impl Source<'_> {
    /// Whether an answer of the hub is about the file that the listing had.
    fn expected(self, answer: Answer) -> Result<Answer, HubError> {
        let Source { path, bytes, digest, commit, .. } = self;
        let changed = |what: &'static str, expected: &str, got: &str| HubError::Changed {
            file: path.into(),
            what,
            expected: expected.into(),
            got: checkpoint::shown(got),
        };
        if let (Some(expected), Some(got)) = (commit, answer.hub_header("x-repo-commit"))
            && expected != got
        {
            return Err(changed("commit", expected, got));
        }
        if let Some(got) = answer.hub_header("x-linked-size").filter(|got| got.trim() != bytes.to_string()) {
            return Err(changed("size", &bytes.to_string(), got));
        }
        let etag =
            answer.hub_header("x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        if let (Some(Digest::Sha256(expected)), Some(got)) = (digest, etag)
            && crate::paths::is_hash(got)
            && got.len() == expected.len()
            && got != expected
        {
            return Err(changed("checksum", expected, got));
        }
        match (answer.status.as_u16(), answer.header("content-length")) {
            (200, Some(length)) if length.trim() != bytes.to_string() => {
                Err(changed("size", &bytes.to_string(), length))
            }
            _ => Ok(answer),
        }
    }

    /// Whether a part of the file is the one that was asked for.
    fn expected_range(self, answer: &Answer, offset: u64) -> Result<(), HubError> {
        let bad = |reason: &str| HubError::Answer { url: shown_url(&answer.url), reason: reason.into() };
        let range = answer.header("content-range").ok_or_else(|| bad("a part without its range"))?;
        let parsed = range.trim().strip_prefix("bytes ").and_then(|range| range.split_once('/'));
        let (range, total) = parsed.ok_or_else(|| bad("a range that makes no sense"))?;
        if total != "*" && total != self.bytes.to_string() {
            return Err(HubError::Changed {
                file: self.path.into(),
                what: "size",
                expected: self.bytes.to_string(),
                got: checkpoint::shown(total),
            });
        }
        let from = range.split('-').next().and_then(|from| from.parse().ok());
        if from == Some(offset) { Ok(()) } else { Err(bad("another range than the one asked for")) }
    }
}

/// Some bytes of a file, from the first to before the second offset.
pub(crate) fn ranged(
    client: &Client,
    source: Source<'_>,
    (from, to): (u64, u64),
    watch: Watch<'_>,
) -> Result<Vec<u8>, HubError> {
    let mut patience = Patience::new(&client.settings);
    loop {
        let answer = client.get_patiently(source.url, Some((from, to - 1)), watch)?;
        let answer = source.expected(answer)?;
        // A server without ranges sends all, of which the beginning is passed over.
        let before = match answer.status.as_u16() {
            206 => source.expected_range(&answer, from).map(|()| 0)?,
            _ => from,
        };
        let url = shown_url(&answer.url);
        let mut reader = answer.into_reader();
        let mut bytes = Vec::new();
        let read = io::copy(&mut reader.by_ref().take(before), &mut io::sink())
            .and_then(|_| reader.take(to - from).read_to_end(&mut bytes));
        let reason = match read {
            Ok(_) if bytes.len() as u64 == to - from => return Ok(bytes),
            Ok(_) => "the connection ended too early".to_owned(),
            Err(error) => checkpoint::shown(&error.to_string()),
        };
        patience.wait((HubError::Transport { url, reason, tried: String::new() }, None), watch)?;
    }
}

struct Transfer<'a> {
    client: &'a Client,
    source: Source<'a>,
    part: &'a Part,
    tally: &'a Tally<'a>,
    watch: Watch<'a>,
    failed: &'a AtomicBool,
    /// Where the bytes come from now.
    url: Mutex<String>,
}

/// How a chunk ended that did not fail.
#[derive(PartialEq)]
enum Chunk {
    Here,
    /// The server sends the whole file instead.
    Refused,
}

impl Transfer<'_> {
    fn cancelled(&self) -> HubError {
        HubError::Cancelled { file: self.source.path.to_owned() }
    }

    fn ended(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.watch.stopped()
    }

    fn all(&self) -> Result<(), HubError> {
        let Some(first) = self.part.take() else { return Ok(()) };
        let (offset, bytes) = self.part.extent(first);
        let range = Some((offset, offset + bytes - 1));
        let answer = self.client.get_patiently(self.source.url, range, self.watch);
        let answer = answer
            .and_then(|answer| self.source.expected(answer))
            .inspect_err(|_| self.part.give_back(first))?;
        if answer.status.as_u16() != 206 {
            self.part.give_back(first);
            return self.stream(Some(answer));
        }
        self.set_url(&answer.url);
        match self.parallel(first, answer)? {
            Chunk::Here if self.watch.stopped() => Err(self.cancelled()),
            Chunk::Here => Ok(()),
            Chunk::Refused => self.stream(None),
        }
    }

    fn url(&self) -> String {
        self.url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_url(&self, url: &str) {
        url.clone_into(&mut self.url.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All missing chunks, the first of which `answer` brings, over several connections.
    fn parallel(&self, first: usize, answer: Answer) -> Result<Chunk, HubError> {
        let refused = AtomicBool::new(false);
        let missing = self.part.count();
        let others = self.client.settings.connections.min(missing).saturating_sub(1);
        thread::scope(|scope| {
            let work = |first| self.worker(first, &refused);
            let threads: Vec<_> = (0..others)
                .filter_map(|_| Builder::new().spawn_scoped(scope, move || work(None)).ok())
                .collect();
            let mut result = work(Some((first, answer)));
            for thread in threads {
                let other = thread.join().unwrap_or_else(|_| Err(self.cancelled()));
                result = result.and(other);
            }
            result
        })?;
        Ok(if refused.load(Ordering::Relaxed) { Chunk::Refused } else { Chunk::Here })
    }

    fn worker(&self, mut first: Option<(usize, Answer)>, refused: &AtomicBool) -> Result<(), HubError> {
        let mut file = self.part.handle()?;
        while !self.ended() && !refused.load(Ordering::Relaxed) {
            let (at, answer) = match first.take() {
                Some((at, answer)) => (at, Some(answer)),
                None => match self.part.take() {
                    None => return Ok(()),
                    Some(at) => (at, None),
                },
            };
            match self.chunk(at, answer, &mut file) {
                Ok(Chunk::Here) => self.part.finish(at)?,
                Ok(Chunk::Refused) => {
                    self.part.give_back(at);
                    refused.store(true, Ordering::Relaxed);
                }
                Err(error) => {
                    self.part.give_back(at);
                    // Those who were stopped by the failure of another do not count.
                    return match self.failed.swap(true, Ordering::Relaxed) {
                        false => Err(error),
                        true => Ok(()),
                    };
                }
            }
        }
        Ok(())
    }

    /// One chunk, with as many requests as that takes.
    fn chunk(&self, at: usize, answer: Option<Answer>, file: &mut File) -> Result<Chunk, HubError> {
        let mut done = 0;
        let result = self.requests(at, answer, file, &mut done);
        if !matches!(result, Ok(Chunk::Here)) {
            self.tally.take_back(done);
        }
        result
    }

    fn requests(
        &self,
        at: usize,
        mut answer: Option<Answer>,
        file: &mut File,
        done: &mut u64,
    ) -> Result<Chunk, HubError> {
        let (offset, bytes) = self.part.extent(at);
        let mut patience = Patience::new(&self.client.settings);
        let (mut noted, mut expired) = (0, 0);
        loop {
            if self.ended() {
                return Err(self.cancelled());
            }
            let url = self.url();
            let range = Some((offset + *done, offset + bytes - 1));
            let asked = answer.take().map_or_else(|| self.client.get(&url, range), Ok);
            let error = match asked {
                Err(error) => (error, None),
                Ok(answer) if answer.status.as_u16() == 206 => {
                    self.source.expected_range(&answer, offset + *done)?;
                    if url == self.source.url {
                        self.set_url(&answer.url);
                    }
                    match self.copy(answer, file, offset, (done, bytes)) {
                        Ok(()) => return Ok(Chunk::Here),
                        Err(error) => (error, None),
                    }
                }
                Ok(answer) if answer.status.is_success() => return Ok(Chunk::Refused),
                // An address that has been signed for a while only; the hub gives another.
                Ok(answer)
                    if answer.url != self.source.url
                        && matches!(answer.status.as_u16(), 400..=410)
                        && expired < EXPIRED_MAX =>
                {
                    expired += 1;
                    self.set_url(self.source.url);
                    continue;
                }
                Ok(answer) => self.client.failure(self.source.url, answer),
            };
            if *done - noted >= PROGRESS_BYTES {
                noted = *done;
                patience.renew();
            }
            patience.wait(error, self.watch)?;
        }
    }

    /// Writes the body to its place; `done` of `bytes` are there, and more in the end.
    fn copy(
        &self,
        answer: Answer,
        file: &mut File,
        offset: u64,
        (done, bytes): (&mut u64, u64),
    ) -> Result<(), HubError> {
        let url = shown_url(&answer.url);
        let mut reader = answer.into_reader();
        let mut piece = vec![0; PIECE_BYTES];
        let io = |action| HubError::io(&self.part.path, action);
        file.seek(SeekFrom::Start(offset + *done)).map_err(io("write"))?;
        while *done < bytes {
            if self.ended() {
                return Err(self.cancelled());
            }
            let count = usize::try_from(bytes - *done).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let read = read(&mut reader, &mut piece[..count], &url, bytes - *done)?;
            file.write_all(&piece[..read]).map_err(io("write"))?;
            *done += read as u64;
            self.tally.add(read as u64);
        }
        // A connection whose body was read to its end can be used again.
        let _ = reader.read(&mut piece[..1]);
        Ok(())
    }

    /// The whole file from its beginning, as often as that takes; chunks that are there are passed over.
    fn stream(&self, mut answer: Option<Answer>) -> Result<(), HubError> {
        let mut patience = Patience::new(&self.client.settings);
        let mut file = self.part.handle()?;
        loop {
            let asked = match answer.take() {
                Some(answer) => answer,
                None => {
                    let answer = self.client.get_patiently(self.source.url, None, self.watch)?;
                    self.source.expected(answer)?
                }
            };
            let before = self.part.done_bytes();
            let error = match self.pour(asked, &mut file) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if self.part.done_bytes() > before {
                patience.renew();
            }
            patience.wait((error, None), self.watch)?;
        }
    }

    fn pour(&self, answer: Answer, file: &mut File) -> Result<(), HubError> {
        let url = shown_url(&answer.url);
        let mut reader = answer.into_reader();
        let mut piece = vec![0; PIECE_BYTES];
        for at in 0..self.part.count() {
            let (offset, bytes) = self.part.extent(at);
            let wanted = self.part.take_at(at);
            let poured = self.pour_chunk(&mut reader, (&mut piece, &url), file, (offset, bytes, wanted));
            match (poured, wanted) {
                (Ok(()), true) => self.part.finish(at)?,
                (Ok(()), false) => {}
                (Err(error), wanted) => {
                    if wanted {
                        self.part.give_back(at);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn pour_chunk(
        &self,
        reader: &mut impl Read,
        (piece, url): (&mut [u8], &str),
        file: &mut File,
        (offset, bytes, wanted): (u64, u64, bool),
    ) -> Result<(), HubError> {
        let io = |action| HubError::io(&self.part.path, action);
        file.seek(SeekFrom::Start(offset)).map_err(io("write"))?;
        let mut done = 0;
        let poured = loop {
            if done == bytes {
                break Ok(());
            }
            if self.ended() {
                break Err(self.cancelled());
            }
            let count = usize::try_from(bytes - done).map_or(piece.len(), |left| left.min(piece.len()));
            let count = match read(reader, &mut piece[..count], url, bytes - done) {
                Ok(count) => count,
                Err(error) => break Err(error),
            };
            if wanted {
                if let Err(error) = file.write_all(&piece[..count]) {
                    break Err(io("write")(error));
                }
                self.tally.add(count as u64);
            }
            done += count as u64;
        };
        if poured.is_err() && wanted {
            self.tally.take_back(done);
        }
        poured
    }
}

/// Reads something; the end of the connection is an error, for `left` bytes are still to come.
fn read(reader: &mut impl Read, into: &mut [u8], url: &str, left: u64) -> Result<usize, HubError> {
    let reason = match reader.read(into) {
        Ok(0) => format!("the connection ended {left} bytes too early"),
        Ok(count) => return Ok(count),
        Err(error) => checkpoint::shown(&error.to_string()),
    };
    Err(HubError::Transport { url: url.into(), reason, tried: String::new() })
}

/// The checksum of the file, chunk by chunk as they come; `None` if it ended before that.
fn checksum(part: &Part, source: Source<'_>, ended: impl Fn() -> bool) -> Result<Option<String>, HubError> {
    let mut sha256 = sha2::Sha256::new();
    let mut git = sha1::Sha1::new();
    git.update(format!("blob {}\0", source.bytes));
    let is_git = matches!(source.digest, Some(Digest::Git(_)));
    let mut file = part.handle()?;
    let mut piece = vec![0; PIECE_BYTES];
    for at in 0..part.count() {
        if !part.wait(at, &ended) {
            return Ok(None);
        }
        let (offset, bytes) = part.extent(at);
        file.seek(SeekFrom::Start(offset)).map_err(HubError::io(&part.path, "read"))?;
        let mut left = bytes;
        while left > 0 {
            if ended() {
                return Ok(None);
            }
            let count = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            file.read_exact(&mut piece[..count]).map_err(HubError::io(&part.path, "read"))?;
            match is_git {
                true => git.update(&piece[..count]),
                false => sha256.update(&piece[..count]),
            }
            left -= count as u64;
        }
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(if is_git { hex(&git.finalize()) } else { hex(&sha256.finalize()) }))
}
