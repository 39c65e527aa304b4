//! The streaming part: workers encode chunks, one thread puts them in order, one makes them durable.
//!
//! ```text
//!            ┌► worker: read, encode, write at its place ─┐   in order    ┌► committer: sync data,
//!  chunks ───┼► worker                                    ┼──► sequencer ─┤  then journal
//!            └► worker                                    ┘   hash, count └► progress
//! ```
//!
//! Workers take chunks in order and may run at most `window` chunks ahead of the sequencer, so the
//! encoded buffers in flight are bounded. The sequencer hashes them in order, which gives each
//! unit's checksum in one pass without reading anything back.
//!
//! Memory, with T threads and chunks of C bytes (see [`Memory`]): each worker holds one source
//! buffer (C) and one row (at most 1 MiB as f32), and at most 2 T + 2 encoded chunks (C, and less
//! than 4 KiB of padding) exist. C is 4 MiB, less when 3 T + 2 of them would exceed 768 MiB. With
//! 16 threads that is 216 MiB in all, with 128 it is 896 MiB, whatever the model. Besides, the
//! layout takes about 200 bytes per expert matrix: 20 MB for 60 layers of 512 experts.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use checkpoint::manifest::Checksum;
use xxhash_rust::xxh3::Xxh3;

use super::disk::{FilePool, read_exact_at, will_need, wont_need, write_all_at};
use super::error::PackError;
use super::journal::{Journal, UnitLine};
use super::layout::{Layout, Unit};
use super::plan::{Hooks, PackOptions, PackProgress};
use super::transcode::{Grain, TranscodeError, transcode};

/// What one run of the pipeline works on.
pub(crate) struct Job<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) sources: &'a FilePool,
    pub(crate) targets: &'a FilePool,
    pub(crate) options: &'a PackOptions,
    pub(crate) progress: &'a dyn PackProgress,
}

/// Encodes every unit that has no checksum yet, and gives it one. Returns the source bytes read.
pub(crate) fn run(
    job: &Job<'_>,
    checksums: &mut [Option<u64>],
    journal: &mut Journal,
) -> Result<u64, PackError> {
    let threads = match job.options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let memory = Memory::new(threads);
    let todo: Vec<usize> = (0..checksums.len()).filter(|&u| checksums[u].is_none()).collect();
    let feed = Feed::new(job, &todo, memory);
    let room = Room { left: Mutex::new(job.options.hooks.disk_bytes) };
    std::thread::scope(|scope| {
        let (chunk_sender, chunk_receiver) = channel();
        let (unit_sender, unit_receiver) = channel();
        let thread = |source| PackError::Thread { source };
        let commit = move || commit(job, &unit_receiver, journal);
        let committer = Builder::new().spawn_scoped(scope, commit).map_err(thread)?;
        for worker in 0..threads {
            let (feed, room, sender) = (&feed, &room, chunk_sender.clone());
            match Builder::new().spawn_scoped(scope, move || work(job, feed, room, &sender)) {
                Ok(_) => {}
                // Fewer are slower, and that is all. The committer ends with its sender.
                Err(_) if worker > 0 => break,
                Err(source) => return Err(thread(source)),
            }
        }
        drop(chunk_sender);
        let sequenced = sequence(job, &feed, &chunk_receiver, &unit_sender, checksums);
        feed.stop();
        drop(unit_sender);
        // A panic of the committer is a bug and goes on as one.
        let committed = committer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // When the committer failed the sequencer could only notice that it is gone.
        committed?;
        sequenced
    })
}

/// How much of everything there is at a time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Most bytes of a chunk on either side, if it has more than one grain.
    pub(crate) chunk_bytes: u64,
    /// Most chunks that are handed out and not yet sequenced.
    pub(crate) window: u64,
}

impl Memory {
    pub(crate) fn new(threads: usize) -> Memory {
        let threads = threads as u64;
        let chunk_bytes = (BUFFERS_BYTES_MAX / (3 * threads + 2)).min(CHUNK_BYTES);
        Memory { chunk_bytes, window: 2 * threads + 2 }
    }
}

/// A run of grains of one piece, with the zeros behind it.
#[derive(Copy, Clone, Debug)]
struct Chunk {
    unit: usize,
    piece: usize,
    first: u64,
    grain: Grain,
    grains: u64,
    /// Zeros up to the next piece, or to the end of the record.
    padding_bytes: u64,
    ends_unit: bool,
}

/// The chunks, in order, handed out to the workers.
struct Feed<'a> {
    job: &'a Job<'a>,
    todo: &'a [usize],
    memory: Memory,
    state: Mutex<FeedState>,
    wake: Condvar,
}

struct FeedState {
    /// Position in `todo`, piece and grain that come next.
    next: (usize, usize, u64),
    /// Chunks handed out.
    handed: u64,
    /// Chunks sequenced.
    sequenced: u64,
    stopped: bool,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl<'a> Feed<'a> {
    fn new(job: &'a Job<'a>, todo: &'a [usize], memory: Memory) -> Feed<'a> {
        let state = FeedState { next: (0, 0, 0), handed: 0, sequenced: 0, stopped: false, spare: vec![] };
        Feed { job, todo, memory, state: Mutex::new(state), wake: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, FeedState> {
        // The state is whole between statements, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next chunk, its number and a buffer for it; waits while the window is full.
    fn take(&self) -> Option<(u64, Chunk, Vec<u8>)> {
        let mut state = self.state();
        while !state.stopped && state.handed >= state.sequenced + self.memory.window {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped {
            return None;
        }
        let chunk = self.next_chunk(&mut state.next)?;
        let number = state.handed;
        state.handed += 1;
        Some((number, chunk, state.spare.pop().unwrap_or_default()))
    }

    fn next_chunk(&self, next: &mut (usize, usize, u64)) -> Option<Chunk> {
        let (position, piece_index, first) = *next;
        let unit_index = *self.todo.get(position)?;
        let unit = &self.job.layout.units[unit_index];
        let piece = &unit.pieces[piece_index];
        let grain = Grain::of(piece);
        let grains = grain.per_chunk(self.memory.chunk_bytes).min(grain.count - first);
        let ends_piece = first + grains == grain.count;
        let ends_unit = ends_piece && piece_index + 1 == unit.pieces.len();
        let end_with_padding = unit.pieces.get(piece_index + 1).map_or(unit.bytes, |p| p.offset);
        *next = match (ends_piece, ends_unit) {
            (_, true) => (position + 1, 0, 0),
            (true, false) => (position, piece_index + 1, 0),
            (false, false) => (position, piece_index, first + grains),
        };
        Some(Chunk {
            unit: unit_index,
            piece: piece_index,
            first,
            grain,
            grains,
            padding_bytes: if ends_piece { end_with_padding - (piece.offset + piece.bytes) } else { 0 },
            ends_unit,
        })
    }

    /// One more chunk is sequenced and its buffer free.
    fn give_back(&self, buffer: Vec<u8>) {
        let mut state = self.state();
        state.sequenced += 1;
        state.spare.push(buffer);
        self.wake.notify_all();
    }

    /// Lets every worker end after the chunk it is at.
    fn stop(&self) {
        self.state().stopped = true;
        self.wake.notify_all();
    }
}

/// Stops the feed when a thread panics, so that no other waits for a chunk that never comes.
struct StopOnPanic<'a>(&'a Feed<'a>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// A worker's result: the chunk with its number and encoded bytes.
type Encoded = (u64, Result<(Chunk, Vec<u8>), PackError>);

fn work(job: &Job<'_>, feed: &Feed<'_>, room: &Room, sender: &Sender<Encoded>) {
    let _guard = StopOnPanic(feed);
    let mut source = Vec::new();
    let mut row = Vec::new();
    while let Some((number, chunk, mut target)) = feed.take() {
        let result = encode(job, &chunk, &mut source, &mut row, &mut target)
            .and_then(|()| write(job, room, &chunk, &target))
            .map(|()| (chunk, target));
        if sender.send((number, result)).is_err() {
            return;
        }
    }
}

/// Reads and encodes one chunk; `target` gets its bytes and padding.
fn encode(
    job: &Job<'_>,
    chunk: &Chunk,
    source: &mut Vec<u8>,
    row: &mut Vec<f32>,
    target: &mut Vec<u8>,
) -> Result<(), PackError> {
    let unit = &job.layout.units[chunk.unit];
    let piece = &unit.pieces[chunk.piece];
    let label = || job.layout.label(unit, chunk.piece);
    let bytes = chunk.grains * chunk.grain.source_bytes;
    let offset = piece.source.offset + chunk.first * chunk.grain.source_bytes;
    let index = piece.source.file as usize;
    let failed = |error| PackError::Read {
        path: job.sources.path(index).to_path_buf(),
        item: label(),
        offset,
        expected: bytes,
        source: error,
    };
    // No `clear`: what is overwritten anyway need not be zeroed again.
    source.resize(bytes as usize, 0);
    let file = job.sources.file(index).map_err(failed)?;
    will_need(&file, offset, bytes);
    read_exact_at(&file, source, offset).map_err(failed)?;
    if bytes > 0 {
        wont_need(&file, offset, bytes);
    }
    let encoded_bytes = (chunk.grains * chunk.grain.target_bytes) as usize;
    target.resize(encoded_bytes + chunk.padding_bytes as usize, 0);
    target[encoded_bytes..].fill(0);
    transcode(piece, source, &mut target[..encoded_bytes], row).map_err(|error| match error {
        TranscodeError::Codec(source) => PackError::Codec { item: label(), source },
        TranscodeError::Weight(bad) => PackError::Weight {
            path: job.sources.path(index).to_path_buf(),
            item: label(),
            offset: offset + bad.offset,
            format: piece.format.name(),
            limit: bad.limit,
            got: bad.weight,
        },
    })
}

fn write(job: &Job<'_>, room: &Room, chunk: &Chunk, target: &[u8]) -> Result<(), PackError> {
    let unit = &job.layout.units[chunk.unit];
    let in_unit = unit.pieces[chunk.piece].offset + chunk.first * chunk.grain.target_bytes;
    let offset = unit.offset + in_unit;
    let path = job.targets.path(unit.file);
    room.take(target.len() as u64)
        .and_then(|()| job.targets.file(unit.file))
        .and_then(|file| write_all_at(&file, target, offset))
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::StorageFull => disk_full(job, path, offset),
            _ => PackError::io(path, "write", e),
        })
}

/// The error for a disk that filled up: says how much is missing for the rest.
fn disk_full(job: &Job<'_>, path: &std::path::Path, offset: u64) -> PackError {
    let files = job.layout.files.iter().enumerate();
    let needed: u64 = files
        .map(|(index, file)| {
            let allocated = super::disk::allocated_bytes(job.targets.path(index));
            file.bytes.saturating_sub(allocated)
        })
        .fold(0, u64::saturating_add);
    let free = storage::free_disk_bytes(path).unwrap_or(0);
    let missing = needed.saturating_sub(free).max(1);
    PackError::DiskFull { path: path.to_path_buf(), offset, missing }
}

/// A test's limit on what may be written.
struct Room {
    left: Mutex<Option<u64>>,
}

impl Room {
    fn take(&self, bytes: u64) -> std::io::Result<()> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match *left {
            None => Ok(()),
            Some(room) if room >= bytes => {
                *left = Some(room - bytes);
                Ok(())
            }
            Some(_) => Err(std::io::ErrorKind::StorageFull.into()),
        }
    }
}

/// Puts the chunks back in order, hashes them, and passes each finished unit to the committer.
fn sequence(
    job: &Job<'_>,
    feed: &Feed<'_>,
    chunks: &Receiver<Encoded>,
    units: &Sender<UnitLine>,
    checksums: &mut [Option<u64>],
) -> Result<u64, PackError> {
    let _guard = StopOnPanic(feed);
    let mut waiting = BTreeMap::new();
    let mut expected = 0u64;
    let mut hash = Xxh3::new();
    let mut bytes_in = 0u64;
    for (number, result) in chunks {
        waiting.insert(number, result);
        while let Some(result) = waiting.remove(&expected) {
            expected += 1;
            let (chunk, buffer) = result?;
            hash.update(&buffer);
            feed.give_back(buffer);
            let read = chunk.grains * chunk.grain.source_bytes;
            bytes_in += read;
            job.progress.advance(read);
            if chunk.ends_unit {
                let checksum = hash.digest();
                hash.reset();
                checksums[chunk.unit] = Some(checksum);
                let line = UnitLine { unit: chunk.unit as u64, checksum: Checksum(checksum) };
                if units.send(line).is_err() {
                    // The committer has failed, and `run` reports its error.
                    return Ok(bytes_in);
                }
            }
        }
    }
    Ok(bytes_in)
}

/// Makes finished units durable in groups: first their bytes, then their lines in the journal.
fn commit(job: &Job<'_>, units: &Receiver<UnitLine>, journal: &mut Journal) -> Result<(), PackError> {
    let mut committed = 0u64;
    while let Ok(first) = units.recv() {
        let group = gather(job.layout, units, first, job.options.commit_bytes);
        let group = stop_short(&job.options.hooks, committed, group);
        let mut files: Vec<usize> = group.iter().map(|line| unit_of(job.layout, line).file).collect();
        files.sort_unstable();
        files.dedup();
        for index in files {
            sync(job, index)?;
        }
        journal.append(&group).map_err(|error| match error {
            PackError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                disk_full(job, &path, 0)
            }
            other => other,
        })?;
        committed += group.len() as u64;
        if job.options.hooks.stop_after_units.is_some_and(|units| committed >= units) {
            return Err(PackError::Stopped { units: committed });
        }
    }
    Ok(())
}

/// Waits for more units until enough bytes or time have come together.
fn gather(layout: &Layout, units: &Receiver<UnitLine>, first: UnitLine, commit_bytes: u64) -> Vec<UnitLine> {
    let until = Instant::now() + COMMIT_INTERVAL;
    let mut bytes = unit_of(layout, &first).bytes;
    let mut group = vec![first];
    while bytes < commit_bytes {
        match units.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                bytes += unit_of(layout, &line).bytes;
                group.push(line);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    group
}

fn stop_short(hooks: &Hooks, committed: u64, mut group: Vec<UnitLine>) -> Vec<UnitLine> {
    if let Some(units) = hooks.stop_after_units {
        let keep = usize::try_from(units.saturating_sub(committed)).unwrap_or(usize::MAX);
        group.truncate(keep);
    }
    group
}

fn unit_of<'a>(layout: &'a Layout, line: &UnitLine) -> &'a Unit {
    // Lines come from the sequencer, whose numbers come from the layout.
    &layout.units[line.unit as usize]
}

/// Makes everything written to one file so far durable and drops it from the page cache.
fn sync(job: &Job<'_>, index: usize) -> Result<(), PackError> {
    let path = job.targets.path(index);
    let file = job.targets.file(index).map_err(|e| PackError::io(path, "open", e))?;
    file.sync_data().map_err(|e| match e.kind() {
        std::io::ErrorKind::StorageFull => disk_full(job, path, 0),
        _ => PackError::io(path, "sync", e),
    })?;
    wont_need(&file, 0, 0);
    Ok(())
}

/// Largest chunk: big enough for full drive speed, small enough for many cores.
const CHUNK_BYTES: u64 = 4 << 20;
/// Bound of the source and encoded buffers of all threads together.
const BUFFERS_BYTES_MAX: u64 = 768 << 20;
/// Longest that a finished unit waits for the journal.
const COMMIT_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_for_any_number_of_threads() {
        const ROW_BYTES_MAX: u64 = 1 << 20;
        for threads in [1usize, 2, 16, 64, 128, 192] {
            let memory = Memory::new(threads);
            let buffers = memory.chunk_bytes * (threads as u64 + memory.window);
            let rows = threads as u64 * ROW_BYTES_MAX;
            assert!(buffers <= BUFFERS_BYTES_MAX, "{threads}");
            assert!(buffers + rows < 1000 << 20, "{threads}");
            assert!(memory.chunk_bytes >= ROW_BYTES_MAX, "{threads}");
        }
    }
}
