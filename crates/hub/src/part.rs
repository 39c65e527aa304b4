//! A file that is not complete yet: its bytes, and a journal that knows which of them are there.
//!
//! The journal is a line that says what it belongs to, then one byte for each chunk. A chunk's byte is
//! written when the chunk's bytes are, so that a process can be killed at any time. The length of
//! the file says nothing: it is the final one from the start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::HubError;

/// Name of the file behind that of the blob. Other programs have other names for theirs.
pub(crate) const PART: &str = ".flash-moe-part";
/// Name of the journal behind that of the blob.
pub(crate) const JOURNAL: &str = ".flash-moe-journal";
/// Most chunks of a file.
const CHUNKS_MAX: u64 = 1 << 24;
const MISSING: u8 = b'.';
const DONE: u8 = b'#';
/// How often one who waits looks up.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum State {
    Missing,
    Taken,
    Done,
}

/// The file while it is fetched.
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    journal_path: PathBuf,
    bytes: u64,
    chunk_bytes: u64,
    head_bytes: u64,
    /// Chunks that an earlier attempt has fetched.
    pub(crate) resumed: usize,
    state: Mutex<Chunks>,
    changed: Condvar,
}

struct Chunks {
    states: Vec<State>,
    journal: File,
}

/// Sizes of a file that is fetched in pieces.
#[derive(Copy, Clone)]
pub(crate) struct Shape {
    pub(crate) bytes: u64,
    pub(crate) chunk_bytes: u64,
}

impl Shape {
    fn count(self) -> u64 {
        self.bytes.div_ceil(self.chunk_bytes.max(1))
    }
}

/// `PATH.flash-moe-part` and `PATH.flash-moe-journal`.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn head(id: &str, shape: Shape) -> String {
    format!("flash-moe download 1 {id} {} {}\n", shape.bytes, shape.chunk_bytes)
}

/// What a journal beside `path` says is there: nothing unless it belongs to the same file in the same
/// chunks.
fn journaled(path: &Path, id: &str, shape: Shape) -> Option<Vec<State>> {
    let head = head(id, shape);
    let count = usize::try_from(shape.count()).ok()?;
    let mut found = Vec::new();
    let limit = (head.len() + count) as u64 + 1;
    File::open(beside(path, JOURNAL)).ok()?.take(limit).read_to_end(&mut found).ok()?;
    let states = found.strip_prefix(head.as_bytes())?;
    let whole = fs::metadata(beside(path, PART)).is_ok_and(|part| part.len() == shape.bytes);
    (whole && states.len() == count)
        .then(|| states.iter().map(|&c| if c == DONE { State::Done } else { State::Missing }).collect())
}

fn bytes_done(states: &[State], shape: Shape) -> u64 {
    let done = states.iter().enumerate().filter(|(_, state)| **state == State::Done);
    done.map(|(at, _)| extent(shape, at).1).sum()
}

/// Offset and length of a chunk.
fn extent(Shape { bytes, chunk_bytes }: Shape, at: usize) -> (u64, u64) {
    let offset = at as u64 * chunk_bytes;
    (offset, chunk_bytes.min(bytes - offset))
}

/// Bytes of the file that an earlier attempt has left beside `path`.
pub(crate) fn left_bytes(path: &Path, id: &str, shape: Shape) -> u64 {
    journaled(path, id, shape).map_or(0, |states| bytes_done(&states, shape))
}

impl Part {
    /// Opens what an earlier attempt has left beside `path`, or begins.
    pub(crate) fn open(path: &Path, id: &str, shape: Shape) -> Result<Self, HubError> {
        let (part, journal_path) = (beside(path, PART), beside(path, JOURNAL));
        let count = usize::try_from(shape.count().min(CHUNKS_MAX)).unwrap_or_default();
        let head = head(id, shape);
        let io = HubError::io;
        let states = match journaled(path, id, shape) {
            Some(states) => states,
            None => {
                // The old journal goes first: it must not speak of the new file.
                let mut journal =
                    File::create(&journal_path).map_err(io(&journal_path, "create the journal"))?;
                let file = File::create(&part).map_err(io(&part, "create the file"))?;
                file.set_len(shape.bytes).map_err(io(&part, "make room for the file"))?;
                let text = [head.as_bytes(), &vec![MISSING; count]].concat();
                journal.write_all(&text).map_err(io(&journal_path, "write the journal"))?;
                vec![State::Missing; count]
            }
        };
        let journal = OpenOptions::new().write(true).open(&journal_path);
        let journal = journal.map_err(io(&journal_path, "open the journal"))?;
        Ok(Self {
            path: part,
            journal_path,
            bytes: shape.bytes,
            chunk_bytes: shape.chunk_bytes,
            head_bytes: head.len() as u64,
            resumed: states.iter().filter(|state| **state == State::Done).count(),
            state: Mutex::new(Chunks { states, journal }),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Chunks> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shape(&self) -> Shape {
        Shape { bytes: self.bytes, chunk_bytes: self.chunk_bytes }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().states.len()
    }

    pub(crate) fn done_bytes(&self) -> u64 {
        bytes_done(&self.lock().states, self.shape())
    }

    /// Offset and length of a chunk.
    pub(crate) fn extent(&self, at: usize) -> (u64, u64) {
        extent(self.shape(), at)
    }

    /// The first chunk that nobody has or fetches.
    pub(crate) fn take(&self) -> Option<usize> {
        let mut chunks = self.lock();
        let at = chunks.states.iter().position(|state| *state == State::Missing)?;
        chunks.states[at] = State::Taken;
        Some(at)
    }

    /// Takes that chunk; false if it is there or under way.
    pub(crate) fn take_at(&self, at: usize) -> bool {
        let mut chunks = self.lock();
        let free = chunks.states[at] == State::Missing;
        if free {
            chunks.states[at] = State::Taken;
        }
        free
    }

    /// Gives a chunk back that could not be fetched.
    pub(crate) fn give_back(&self, at: usize) {
        self.lock().states[at] = State::Missing;
    }

    /// The chunk's bytes have been written.
    pub(crate) fn finish(&self, at: usize) -> Result<(), HubError> {
        let mut chunks = self.lock();
        chunks.states[at] = State::Done;
        let place = SeekFrom::Start(self.head_bytes + at as u64);
        let written = chunks.journal.seek(place).and_then(|_| chunks.journal.write_all(&[DONE]));
        self.changed.notify_all();
        written.map_err(HubError::io(&self.journal_path, "write the journal"))
    }

    /// Waits until a chunk is there; false if `ended` says that it will not come.
    pub(crate) fn wait(&self, at: usize, ended: impl Fn() -> bool) -> bool {
        let mut chunks = self.lock();
        while chunks.states[at] != State::Done {
            if ended() {
                return false;
            }
            chunks = self.changed.wait_timeout(chunks, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// A handle of one's own for writing or reading.
    pub(crate) fn handle(&self) -> Result<File, HubError> {
        let opened = OpenOptions::new().read(true).write(true).open(&self.path);
        opened.map_err(HubError::io(&self.path, "open the file"))
    }

    /// The file is complete and right: it gets its name.
    pub(crate) fn publish(self, path: &Path) -> Result<(), HubError> {
        self.handle()?.sync_all().map_err(HubError::io(&self.path, "write the file to the disk"))?;
        fs::rename(&self.path, path).map_err(HubError::io(path, "give the file its name"))?;
        let _ = fs::remove_file(&self.journal_path);
        Ok(())
    }

    /// The file is of no use.
    pub(crate) fn remove(self) {
        let Self { path, journal_path, state, .. } = self;
        drop(state);
        // Journal first: a file without one is begun anew.
        for path in [journal_path, path] {
            let _: io::Result<()> = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { bytes: 10, chunk_bytes: 4 };

    #[test]
    fn a_journal_remembers_chunks_of_the_same_file_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("blob");
        let part = Part::open(&path, "id", SHAPE).expect("begun");
        assert_eq!((part.count(), part.resumed, part.extent(2)), (3, 0, (8, 2)));
        assert_eq!((part.take(), part.take()), (Some(0), Some(1)));
        part.give_back(0);
        part.finish(1).expect("noted");
        drop(part);
        assert_eq!(left_bytes(&path, "id", SHAPE), 4);
        assert_eq!(left_bytes(&path, "other", SHAPE), 0);
        assert_eq!(left_bytes(&path, "id", Shape { chunk_bytes: 5, ..SHAPE }), 0);
        let part = Part::open(&path, "id", SHAPE).expect("resumed");
        assert_eq!((part.resumed, part.done_bytes(), part.take(), part.take()), (1, 4, Some(0), Some(2)));
        drop(part);
        fs::write(beside(&path, PART), b"short").expect("cut");
        assert_eq!(left_bytes(&path, "id", SHAPE), 0, "a file of another length is another file");
        let part = Part::open(&path, "id", SHAPE).expect("begun anew");
        assert_eq!((part.resumed, part.path.metadata().expect("there").len()), (0, 10));
        part.remove();
        assert_eq!(dir.path().read_dir().expect("listed").count(), 0);
    }
}
