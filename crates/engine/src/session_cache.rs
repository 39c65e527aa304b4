//! Computed prefixes on disk: what one process computed, a later one goes on from.
//!
//! A file holds a page of keys and values or a recurrent state. Its name says for which model and
//! after which tokens, as a chain of hashes from a secret of the directory, so that no prompt can
//! be made to look like another. It has a checksum, is written under another name, flushed and then
//! renamed, so that a process may die at any moment. Files that are damaged are removed when they
//! are met; the least recently used file goes first when the directory is full.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use ops::PAGE_TOKENS;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::EngineError;

const MAGIC: &[u8; 8] = b"FMSESS01";
/// Magic, key and checksum.
const HEADER_BYTES: usize = 24;
/// Ends the names of files that are being written.
const TEMPORARY: &str = ".session-tmp";

/// Contents of a file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Keys and values of a page.
    Page,
    /// The recurrent state after its last token.
    State,
}

/// Name of a file: tokens of one page, after a prefix of whole pages.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    /// Model, formats and instruction set.
    key: u64,
    /// The whole pages before.
    parent: u64,
    /// Tokens of this page, 1 to [`PAGE_TOKENS`].
    tokens: usize,
    /// These, and all before.
    hash: u64,
    kind: Kind,
}

impl Name {
    fn file_name(&self) -> String {
        let Name { key, parent, tokens, hash, kind } = self;
        let kind = match kind {
            Kind::Page => "page",
            Kind::State => "state",
        };
        format!("{key:016x}-{parent:016x}-{tokens}-{hash:016x}.session-{kind}")
    }

    fn parse(file_name: &str) -> Option<Self> {
        let (name, kind) = file_name.split_once(".session-")?;
        let kind = match kind {
            "page" => Kind::Page,
            "state" => Kind::State,
            _ => return None,
        };
        let parts: Vec<&str> = name.split('-').collect();
        let [key, parent, tokens, hash] = parts[..] else { return None };
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let tokens = tokens.parse().ok().filter(|tokens| (1..=PAGE_TOKENS).contains(tokens))?;
        Some(Self { key: hex(key)?, parent: hex(parent)?, tokens, hash: hex(hash)?, kind })
    }
}

/// A prefix on disk that goes beyond what memory has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its tokens.
    pub(crate) len: usize,
    /// Files of its pages, from the first that memory lacks.
    pub(crate) pages: Vec<Name>,
    pub(crate) state: Option<Name>,
}

struct Entry {
    bytes: u64,
    used: SystemTime,
}

/// The directory.
pub(crate) struct SessionCache {
    dir: PathBuf,
    bytes_max: u64,
    key: u64,
    recurrent: bool,
    entries: HashMap<Name, Entry>,
    bytes: u64,
    /// `None` once it has ended.
    writer: Option<Writer>,
}

struct Writer {
    jobs: SyncSender<(Name, Vec<u8>)>,
    done: Receiver<(Name, Vec<u8>, io::Result<()>)>,
    thread: JoinHandle<()>,
    /// The buffer, while nothing is written.
    idle: Option<Vec<u8>>,
}

impl SessionCache {
    /// Opens a directory, which is made if it is not there; `key` says what files of another are of
    /// no use. `on_written` is called by another thread whenever a file was written.
    ///
    /// # Errors
    /// [`EngineError::SessionCache`].
    pub(crate) fn open(
        (dir, bytes_max): (&Path, u64),
        key: u64,
        recurrent: bool,
        on_written: impl Fn() + Send + 'static,
    ) -> Result<Self, EngineError> {
        let failed = |source| EngineError::SessionCache { path: dir.into(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let key = chain(secret(dir).map_err(failed)?, &[key as u32, (key >> 32) as u32]);
        let mut entries = HashMap::new();
        for file in fs::read_dir(dir).map_err(failed)?.filter_map(Result::ok) {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.ends_with(TEMPORARY) {
                // Of a process that died. If it lives, its file is just not kept.
                let _ = fs::remove_file(file.path());
            }
            if let (Some(name), Ok(metadata)) = (Name::parse(&name), file.metadata()) {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.insert(name, Entry { bytes: metadata.len(), used });
            }
        }
        let bytes = entries.values().map(|entry| entry.bytes).sum();
        let writer = Some(Writer::start(dir.to_path_buf(), on_written)?);
        let mut cache = Self { dir: dir.to_path_buf(), bytes_max, key, recurrent, entries, bytes, writer };
        cache.make_room(0);
        Ok(cache)
    }

    /// Name of the page, or the state, at the end of `tokens`.
    pub(crate) fn name(&self, tokens: &[u32], kind: Kind) -> Name {
        let whole = tokens.len().saturating_sub(1) / PAGE_TOKENS * PAGE_TOKENS;
        let parent = tokens[..whole].chunks(PAGE_TOKENS).fold(self.key, chain);
        let tail = &tokens[whole..];
        Name { key: self.key, parent, tokens: tail.len(), hash: chain(parent, tail), kind }
    }

    pub(crate) fn contains(&self, name: &Name) -> bool {
        self.entries.contains_key(name)
    }

    /// The longest prefix of `tokens`, longer than `known` and at most `limit` tokens, that can be
    /// read.
    pub(crate) fn lookup(&self, tokens: &[u32], known: usize, limit: usize) -> Option<Stored> {
        let (mut pages, mut best, mut parent) = (Vec::new(), None, self.key);
        for (index, chunk) in tokens[..limit].chunks(PAGE_TOKENS).enumerate() {
            let name = |tokens, kind| Name {
                key: self.key,
                parent,
                tokens,
                hash: chain(parent, &chunk[..tokens]),
                kind,
            };
            let full = name(chunk.len(), Kind::Page);
            for len in (1..=chunk.len()).rev() {
                let end = index * PAGE_TOKENS + len;
                let state = self.recurrent.then(|| name(len, Kind::State));
                let exact = name(len, Kind::Page);
                let page = [exact, full].into_iter().find(|page| self.contains(page));
                let Some(page) = page.filter(|_| end > known) else { continue };
                if state.is_none_or(|state| self.contains(&state)) {
                    let pages = pages.iter().copied().chain([page]).collect();
                    best = Some(Stored { len: end, pages, state });
                    break;
                }
            }
            if index >= known / PAGE_TOKENS {
                if chunk.len() < PAGE_TOKENS || !self.contains(&full) {
                    break;
                }
                pages.push(full);
            }
            parent = full.hash;
        }
        best
    }

    /// The contents of a file; `None` if it is damaged, and then gone.
    pub(crate) fn read(&mut self, name: &Name) -> Option<Vec<u8>> {
        let path = self.dir.join(name.file_name());
        let contents = fs::read(&path).ok().and_then(|bytes| unwrapped(bytes, name));
        match (&contents, self.entries.get_mut(name)) {
            (Some(_), Some(entry)) => {
                entry.used = SystemTime::now();
                // For the next process. Without the right to do so it takes another for the least
                // recently used.
                let _ =
                    File::options().append(true).open(&path).and_then(|file| file.set_modified(entry.used));
            }
            _ => self.remove(name),
        }
        contents
    }

    fn remove(&mut self, name: &Name) {
        if let Some(entry) = self.entries.remove(name) {
            self.bytes -= entry.bytes;
        }
        let _ = fs::remove_file(self.dir.join(name.file_name()));
    }

    /// Whether a file can be written without waiting.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.collect(false);
        self.writer.as_ref().is_some_and(|writer| writer.idle.is_some())
    }

    /// Takes note of a finished write; waits for it if `wait`.
    fn collect(&mut self, wait: bool) {
        let Some(writer) = &mut self.writer else { return };
        if writer.idle.is_some() {
            return;
        }
        let done = match wait {
            true => writer.done.recv().map_err(|_| TryRecvError::Disconnected),
            false => writer.done.try_recv(),
        };
        match done {
            Ok((name, buffer, written)) => {
                let bytes = buffer.len() as u64;
                writer.idle = Some(buffer);
                // A prefix that could not be written will be computed again.
                if written.is_ok() {
                    self.entries.insert(name, Entry { bytes, used: SystemTime::now() });
                    self.bytes += bytes;
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => self.writer = None,
        }
    }

    /// Begins to write a file; `fill` appends its contents. Waits for the one before.
    pub(crate) fn write(&mut self, name: Name, fill: impl FnOnce(&mut Vec<u8>) -> bool) {
        self.collect(true);
        let Some(mut buffer) = self.writer.as_mut().and_then(|writer| writer.idle.take()) else { return };
        buffer.clear();
        buffer.resize(HEADER_BYTES, 0);
        let filled = fill(&mut buffer);
        let checksum = xxh3_64_with_seed(&buffer[HEADER_BYTES..], name.hash);
        buffer[..8].copy_from_slice(MAGIC);
        buffer[8..16].copy_from_slice(&name.key.to_le_bytes());
        buffer[16..24].copy_from_slice(&checksum.to_le_bytes());
        let fits = filled && buffer.len() as u64 <= self.bytes_max;
        if fits {
            self.make_room(buffer.len() as u64);
        }
        let Some(writer) = &mut self.writer else { return };
        if !fits {
            writer.idle = Some(buffer);
        } else if writer.jobs.send((name, buffer)).is_err() {
            self.writer = None;
        }
    }

    /// Removes the least recently used files until `bytes` more fit.
    fn make_room(&mut self, bytes: u64) {
        while self.bytes + bytes > self.bytes_max {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(name) = oldest.map(|(name, _)| *name) else { return };
            self.remove(&name);
        }
    }
}

impl Drop for SessionCache {
    fn drop(&mut self) {
        self.collect(true);
        if let Some(Writer { jobs, thread, .. }) = self.writer.take() {
            drop(jobs);
            let _ = thread.join();
        }
    }
}

impl Writer {
    fn start(dir: PathBuf, on_written: impl Fn() + Send + 'static) -> Result<Self, EngineError> {
        let (jobs, todo) = sync_channel::<(Name, Vec<u8>)>(1);
        let (report, done) = sync_channel(1);
        let write = move || {
            for (name, buffer) in todo {
                let written = write_file(&dir, &name, &buffer);
                if report.send((name, buffer, written)).is_err() {
                    return;
                }
                on_written();
            }
        };
        let thread = std::thread::Builder::new().name("sessions".into()).spawn(write);
        let thread = thread.map_err(|source| EngineError::Thread { source })?;
        Ok(Self { jobs, done, thread, idle: Some(Vec::new()) })
    }
}

/// A random secret, drawn when the directory is first used.
fn secret(dir: &Path) -> io::Result<u64> {
    let path = dir.join("session-secret");
    let known = fs::read(&path).ok().and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    if let Some(secret) = known {
        return Ok(secret);
    }
    let secret = RandomState::new().build_hasher().finish();
    fs::write(&path, secret.to_le_bytes())?;
    Ok(secret)
}

/// Hash of a prefix that goes on with `tokens` after a prefix of that hash.
fn chain(parent: u64, tokens: &[u32]) -> u64 {
    let mut bytes = [0; 4 * PAGE_TOKENS];
    let bytes = &mut bytes[..4 * tokens.len()];
    bytes.chunks_exact_mut(4).zip(tokens).for_each(|(bytes, id)| bytes.copy_from_slice(&id.to_le_bytes()));
    xxh3_64_with_seed(bytes, parent)
}

/// The contents of a file that is what its name says.
fn unwrapped(mut bytes: Vec<u8>, name: &Name) -> Option<Vec<u8>> {
    let header = bytes.get(..HEADER_BYTES)?;
    let number = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let checksum = xxh3_64_with_seed(&bytes[HEADER_BYTES..], name.hash);
    let good = &header[..8] == MAGIC && number(8) == Some(name.key) && number(16) == Some(checksum);
    good.then(|| bytes.split_off(HEADER_BYTES))
}

fn write_file(dir: &Path, name: &Name, bytes: &[u8]) -> io::Result<()> {
    let target = dir.join(name.file_name());
    let temporary = dir.join(format!("{}-{}{TEMPORARY}", name.file_name(), std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, &target)) {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The name too should outlive a power cut; where a directory cannot be flushed it usually does.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(())
}

/// What makes files of one model useless for another: names, sizes, times and first bytes of its
/// files, and `form`: number formats and instruction set.
pub(crate) fn model_key(files: &[PathBuf], form: &str) -> u64 {
    use std::io::Read;
    let mut text = form.as_bytes().to_vec();
    for path in files {
        text.extend_from_slice(path.file_name().unwrap_or_default().as_encoded_bytes());
        let Ok(file) = File::open(path) else { continue };
        if let Ok(metadata) = file.metadata() {
            text.extend_from_slice(&metadata.len().to_le_bytes());
            let modified =
                metadata.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            text.extend_from_slice(&modified.unwrap_or_default().as_nanos().to_le_bytes());
        }
        // An unreadable file fails elsewhere, with its name.
        let _ = file.take(1 << 16).read_to_end(&mut text);
    }
    xxh3_64(&text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn open(dir: &Path, bytes_max: u64, recurrent: bool) -> SessionCache {
        SessionCache::open((dir, bytes_max), 7, recurrent, || ()).unwrap()
    }

    fn put(cache: &mut SessionCache, tokens: &[u32], kind: Kind) -> Name {
        let name = cache.name(tokens, kind);
        cache.write(name, |out| {
            out.extend(tokens.iter().map(|token| *token as u8));
            true
        });
        cache.collect(true);
        name
    }

    #[test]
    fn a_later_process_finds_the_longest_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let tokens: Vec<u32> = (0..300).collect();
        let mut cache = open(dir.path(), 1 << 20, true);
        for end in [128, 256, 300] {
            put(&mut cache, &tokens[..end], Kind::Page);
        }
        let state = put(&mut cache, &tokens[..300], Kind::State);
        drop(cache);
        let mut cache = open(dir.path(), 1 << 20, true);
        let mut longer = tokens.clone();
        longer.extend([5; 20]);
        let found = cache.lookup(&longer, 0, 319).unwrap();
        assert_eq!((found.len, found.pages.len(), found.state), (300, 3, Some(state)));
        assert_eq!(cache.read(&found.pages[1]).unwrap().len(), 256);
        // Memory has the first page; or all of it.
        assert_eq!(cache.lookup(&longer, 130, 319).unwrap().pages, found.pages[1..]);
        assert_eq!(cache.lookup(&longer, 300, 319), None);
        longer[3] = 9;
        assert_eq!(cache.lookup(&longer, 0, 319), None);
        let plain = SessionCache::open((dir.path(), 1 << 20), 7, false, || ()).unwrap();
        assert_eq!(plain.lookup(&tokens, 0, 299).unwrap().len, 256);
        let other = SessionCache::open((dir.path(), 1 << 20), 8, true, || ()).unwrap();
        assert_eq!(other.lookup(&tokens, 0, 300), None);
    }

    #[test]
    fn damaged_files_go_and_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let tokens: Vec<u32> = (0..128).collect();
        let mut cache = open(dir.path(), 1 << 20, false);
        let name = put(&mut cache, &tokens, Kind::Page);
        drop(cache);
        let path = dir.path().join(name.file_name());
        fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        fs::write(dir.path().join(format!("half{TEMPORARY}")), "dea").unwrap();
        for damage in [0, 12, 20, 60] {
            let whole = fs::read(&path).unwrap();
            let mut bytes = whole.clone();
            bytes[damage] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let mut cache = open(dir.path(), 1 << 20, false);
            assert!(cache.contains(&name) && cache.read(&name).is_none());
            assert!(!cache.contains(&name) && !path.exists());
            fs::write(&path, &whole[..whole.len() - damage]).unwrap();
            let mut cache = open(dir.path(), 1 << 20, false);
            assert_eq!(cache.read(&name).is_some(), damage == 0);
            fs::write(&path, &whole).unwrap();
        }
        // The letter, the page, the secret.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn the_directory_stays_within_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = open(dir.path(), 500, false);
        let names: Vec<Name> = (0..6u32).map(|seed| put(&mut cache, &[seed; 100], Kind::Page)).collect();
        let size = |dir: &Path| -> u64 {
            let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
            files.filter(|len| *len > 8).sum()
        };
        assert!(size(dir.path()) <= 500 && !cache.contains(&names[0]) && cache.contains(&names[5]));
        drop(cache);
        let cache = open(dir.path(), 200, false);
        assert!(size(dir.path()) <= 200 && cache.entries.len() == 1);
    }
}
