//! The headers of a model that is not here: enough to open it, and not a weight.
//!
//! They lie in a temporary directory of files with the lengths of the real ones, holes but for the
//! headers. Whoever opens it needs no other code than for a model that is here, and removes it then.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use crate::fetch::{Source, ranged};
use crate::pull::{Hub, Offer};
use crate::watch::Watch;
use crate::{HubError, RemoteFile};

/// How the directories' names begin.
const PREFIX: &str = "headers-";
/// A file in them that is locked as long as somebody uses the directory.
const LOCK: &str = "flash-moe.lock";
/// Asked for at first; it doubles up to the most.
const FIRST_BYTES: u64 = 64 << 10;
const MOST_BYTES: u64 = 2 << 20;
/// A safetensors header's length comes before it.
const LENGTH_BYTES: u64 = 8;
/// Small files that describe the model, and are fetched whole.
const WHOLE: [&str; 2] = ["config.json", "model.safetensors.index.json"];

/// A directory that looks like the model to those who read headers only. It is removed when dropped.
pub struct Headers {
    dir: PathBuf,
    _lock: File,
    /// What to open: the first GGUF file, or the directory.
    pub path: PathBuf,
    /// Bytes that came over the network.
    pub fetched_bytes: u64,
}

impl Drop for Headers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Hub {
    /// Fetches the headers of all files of an offer.
    ///
    /// # Errors
    /// The hub fails, or a file is no GGUF or safetensors file.
    pub fn headers(&self, offer: &Offer, watch: Watch<'_>) -> Result<Headers, HubError> {
        let mut headers = Headers::create(&self.client.settings.own_cache)?;
        let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        let failure = Mutex::new(None);
        let work = || {
            while let Some(file) = offer.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.header(offer, file, &headers.dir.join(&file.path), watch) {
                    Ok(fetched) => {
                        bytes.fetch_add(fetched, Ordering::Relaxed);
                    }
                    Err(error) => {
                        // The others have no more to do.
                        next.store(offer.files.len(), Ordering::Relaxed);
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.client.settings.connections.min(offer.files.len()) {
                // With fewer threads it takes longer.
                let _ = Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        headers.fetched_bytes = bytes.into_inner();
        if !offer.selection.is_directory() {
            headers.path = headers.dir.join(&offer.selection.main);
        }
        Ok(headers)
    }

    /// Makes one file with its header, and gives the bytes that were fetched.
    fn header(&self, offer: &Offer, file: &RemoteFile, to: &Path, watch: Watch<'_>) -> Result<u64, HubError> {
        let url = offer.repo.url(&file.path);
        let mut remote = Remote {
            hub: self,
            source: Source {
                url: &url,
                path: &file.path,
                bytes: file.bytes,
                digest: Some(&file.digest),
                commit: Some(&offer.repo.commit),
            },
            watch,
            file: created(to, file.bytes)?,
            path: to,
            buffer: Vec::new(),
            at: 0,
            fetched: 0,
            failed: None,
        };
        let shown = PathBuf::from(format!("{}/{}", offer.repo.name, file.path));
        let is = |end: &str| file.path.to_ascii_lowercase().ends_with(end);
        if is(".gguf") {
            let read = checkpoint::gguf::read_from(&shown, &mut remote, file.bytes);
            remote.failure(read.map(drop).map_err(HubError::from))?;
        } else if is(".safetensors") {
            let read = remote.safetensors(&shown);
            remote.failure(read)?;
        } else if WHOLE.contains(&file.path.as_str()) {
            let limit = checkpoint::CONFIG_BYTES_MAX.max(checkpoint::INDEX_BYTES_MAX);
            if file.bytes > limit {
                let reason = format!("{} bytes, more than {limit}", file.bytes);
                return Err(HubError::Header { file: shown.display().to_string(), reason });
            }
            let read = remote.skip(file.bytes).map_err(HubError::io(to, "read"));
            remote.failure(read)?;
        }
        Ok(remote.fetched)
    }
}

/// A file of that length, with directories, and nothing in it.
fn created(path: &Path, bytes: u64) -> Result<File, HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(HubError::io(folder, "create the directory"))?;
    let file = File::create_new(path).map_err(HubError::io(path, "create the file"))?;
    file.set_len(bytes).map_err(HubError::io(path, "set the length of the file"))?;
    Ok(file)
}

impl Headers {
    /// The temporary directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn create(own_cache: &Path) -> Result<Self, HubError> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        remove_left(own_cache);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = own_cache.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).map_err(HubError::io(&dir, "create the directory"))?;
        let lock = File::create(dir.join(LOCK)).map_err(HubError::io(&dir, "create a file"))?;
        // Without locks others wait with their cleaning until the lock's file is gone.
        let _ = lock.try_lock();
        Ok(Self { path: dir.clone(), dir, _lock: lock, fetched_bytes: 0 })
    }
}

/// Removes directories of processes that were killed while they used them.
fn remove_left(own_cache: &Path) {
    for entry in fs::read_dir(own_cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let lock = File::open(entry.path().join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// A file on the hub, read from its beginning; what is read is written to its place here.
struct Remote<'a> {
    hub: &'a Hub,
    source: Source<'a>,
    watch: Watch<'a>,
    file: File,
    path: &'a Path,
    /// Bytes that end at `fetched`, of which those from `at` on have not been read yet.
    buffer: Vec<u8>,
    at: usize,
    fetched: u64,
    /// What a reader cannot hand on.
    failed: Option<HubError>,
}

impl Remote<'_> {
    fn refill(&mut self) -> Result<(), HubError> {
        let size = self.fetched.clamp(FIRST_BYTES, MOST_BYTES);
        let end = self.source.bytes.min(self.fetched + size);
        if end > self.fetched {
            self.buffer = ranged(&self.hub.client, self.source, (self.fetched, end), self.watch)?;
            let place = SeekFrom::Start(self.fetched);
            let written = self.file.seek(place).and_then(|_| self.file.write_all(&self.buffer));
            written.map_err(HubError::io(self.path, "write"))?;
        } else {
            self.buffer.clear();
        }
        (self.at, self.fetched) = (0, end);
        Ok(())
    }

    /// Reads so many bytes, which then are in the file here.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let read = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if read < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn safetensors(&mut self, shown: &Path) -> Result<(), HubError> {
        let path = self.path;
        let io = || HubError::io(path, "read");
        let mut length = [0; LENGTH_BYTES as usize];
        self.read_exact(&mut length).map_err(io())?;
        let bytes = u64::from_le_bytes(length);
        let limit = checkpoint::HEADER_BYTES_MAX.min(self.source.bytes.saturating_sub(LENGTH_BYTES));
        if bytes > limit {
            let reason =
                format!("not a safetensors file: a header of {bytes} bytes, at most {limit} expected");
            return Err(HubError::Header { file: shown.display().to_string(), reason });
        }
        self.skip(bytes).map_err(io())
    }

    /// The error of the hub instead of that of a reader.
    fn failure(&mut self, result: Result<(), HubError>) -> Result<(), HubError> {
        match (result, self.failed.take()) {
            (Err(_), Some(failed)) => Err(failed),
            (result, _) => result,
        }
    }
}

impl Read for Remote<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len()
            && let Err(error) = self.refill()
        {
            self.failed = Some(error);
            return Err(io::Error::other("the hub"));
        }
        let count = into.len().min(self.buffer.len() - self.at);
        into[..count].copy_from_slice(&self.buffer[self.at..][..count]);
        self.at += count;
        Ok(count)
    }
}
