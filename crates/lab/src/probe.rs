//! What this machine gives: the drive at the sizes and depths of expert reads, the memory, the
//! kernels.
//!
//! Each probe takes a second or less and is repeated by its caller before and after what it is
//! compared with, because a shared machine changes while one looks. None needs memory beyond what
//! it is handed or told.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kernels_cpu::CpuBackend;
use ops::{Backend, HostMatrix, Norm, NormProducts};
use storage::{AlignedBuf, CompletionQueue, ReadRequest, SplitMix64, Storage, StorageError, Widened};

use crate::LabError;
use crate::facts::{Record, Shape};
use crate::figures::median;

/// When a probe has seen enough.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) time: Duration,
    pub(crate) bytes: u64,
}

/// Records in random order, none twice before all were drawn.
pub(crate) struct Deck {
    records: Vec<Record>,
    next: usize,
    /// Some record has been drawn twice, so that a cache below may have helped.
    pub(crate) repeated: bool,
}

impl Deck {
    pub(crate) fn new(mut records: Vec<Record>, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        for last in (1..records.len()).rev() {
            records.swap(last, random.below(last as u64 + 1) as usize);
        }
        Self { records, next: 0, repeated: false }
    }

    /// The next record; `None` once at the end of the deck, after which it begins anew.
    fn draw(&mut self) -> Option<&Record> {
        if self.next == self.records.len() {
            (self.next, self.repeated) = (0, true);
            return None;
        }
        self.next += 1;
        self.records.get(self.next - 1)
    }

    /// Whether there is anything to draw.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// What a drive delivered.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct DriveSample {
    pub(crate) bytes: u64,
    pub(crate) reads: u64,
    pub(crate) seconds: f64,
}

impl DriveSample {
    pub(crate) fn bytes_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 / self.seconds } else { 0.0 }
    }
}

/// Reads records into the buffers, each of which must be large enough for any of them.
pub(crate) struct DriveProbe<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) deck: &'a mut Deck,
}

impl DriveProbe<'_> {
    /// Keeps as many reads under way as there are buffers, until the limit or the end of the deck.
    ///
    /// # Errors
    /// The first read that failed. All buffers are back in the vector in any case.
    pub(crate) fn steady(
        &mut self,
        bufs: &mut Vec<AlignedBuf>,
        limit: Limit,
    ) -> Result<DriveSample, StorageError> {
        let queue = CompletionQueue::new();
        let (mut sample, mut result, mut more, mut reading) = (DriveSample::default(), Ok(()), true, 0usize);
        let started = Instant::now();
        loop {
            while more && !bufs.is_empty() {
                // A deck that ended with the last probe begins anew with this one.
                more = self.submit(bufs, &queue)? || (reading == 0 && self.submit(bufs, &queue)?);
                reading += usize::from(more);
            }
            if reading == 0 {
                break;
            }
            let completion = queue.wait();
            reading -= 1;
            bufs.push(completion.buf);
            sample.bytes += completion.bytes_read;
            sample.reads += 1;
            more &= completion.result.is_ok() && started.elapsed() < limit.time && sample.bytes < limit.bytes;
            result = result.and(completion.result);
        }
        sample.seconds = started.elapsed().as_secs_f64();
        result.map(|()| sample)
    }

    /// Reads as many records at once as there are buffers and waits for all, again and again, as a
    /// layer does: median seconds of one such burst. `None` if the deck holds fewer records.
    ///
    /// # Errors
    /// As [`DriveProbe::steady`].
    pub(crate) fn bursts(
        &mut self,
        bufs: &mut Vec<AlignedBuf>,
        limit: Limit,
    ) -> Result<Option<f64>, StorageError> {
        let (mut seconds, started) = (Vec::new(), Instant::now());
        while seconds.len() < 3 || started.elapsed() < limit.time {
            let sample = self.steady(bufs, Limit { time: Duration::ZERO, bytes: 0 })?;
            // A burst that the end of the deck cut short says nothing.
            if sample.reads == bufs.len() as u64 {
                seconds.push(sample.seconds);
            } else if self.deck.records.len() < bufs.len() {
                return Ok(None);
            }
        }
        Ok(Some(median(&seconds)))
    }

    /// Starts one read into the last buffer. False at the end of the deck.
    fn submit(&mut self, bufs: &mut Vec<AlignedBuf>, queue: &CompletionQueue) -> Result<bool, StorageError> {
        let Some(record) = self.deck.draw() else { return Ok(false) };
        let mut widened = Widened::default();
        storage::widen_into(record.iter().copied(), self.storage.block_bytes(), &mut widened)?;
        let Some(buf) = bufs.pop() else { return Ok(false) };
        self.storage.submit(ReadRequest { tag: 0, buf, segments: widened.segments }, queue);
        Ok(true)
    }
}

/// Passes over the buffer that a memory probe makes.
const MEMORY_PASSES: usize = 7;

/// Bytes per second that `threads` threads read together from a buffer of `bytes` bytes, which
/// should be many times larger than any cache: one figure for each pass.
pub(crate) fn memory_rates(threads: usize, bytes: usize) -> Result<Vec<f64>, LabError> {
    let (buf, share) = shared_memory(threads, bytes)?;
    let pass = |_| {
        let started = Instant::now();
        thread::scope(|scope| {
            buf.chunks(share).for_each(|part| beside(scope, move || _ = black_box(fold(part))));
        });
        buf.len() as f64 / started.elapsed().as_secs_f64()
    };
    Ok((0..MEMORY_PASSES).map(pass).collect())
}

/// Memory for `threads` threads, and how many bytes of it are each one's.
fn shared_memory(threads: usize, bytes: usize) -> Result<(AlignedBuf, usize), LabError> {
    let threads = threads.max(1);
    let share = (bytes / threads).next_multiple_of(storage::BLOCK_BYTES);
    let mut buf = AlignedBuf::new(share * threads)?;
    // Written, so that it is memory and not the system's page of zeros.
    let parts = Mutex::new(buf.chunks_mut(share));
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let fill = || std::iter::from_fn(next).for_each(|part| part.fill(1));
    thread::scope(|scope| (0..threads).for_each(|_| beside(scope, fill)));
    Ok((buf, share))
}

/// Does the work in another thread, or here if the system gives none.
fn beside<'scope>(scope: &'scope thread::Scope<'scope, '_>, work: impl FnOnce() + Copy + Send + 'scope) {
    if thread::Builder::new().spawn_scoped(scope, work).is_err() {
        work();
    }
}

/// Bytes per second that the drive gives while `threads` threads read memory as [`memory_rates`]
/// does: what one can have of the drive while computing, where weights come from memory too. On
/// some machines, virtual ones above all, that is much less than of a drive alone.
pub(crate) fn drive_while_computing(
    threads: usize,
    bytes: usize,
    probe: &mut DriveProbe<'_>,
    bufs: &mut Vec<AlignedBuf>,
    limit: Limit,
) -> Result<f64, LabError> {
    let (buf, share) = shared_memory(threads, bytes)?;
    let stop = AtomicBool::new(false);
    let sample = thread::scope(|scope| {
        for part in buf.chunks(share) {
            let stop = &stop;
            // Without this thread there is less beside the reads, as there will be in a run.
            let _ = thread::Builder::new().spawn_scoped(scope, move || {
                let mut lines = part.chunks(64 << 10).cycle();
                while !stop.load(Ordering::Relaxed) {
                    black_box(lines.next().map(fold));
                }
            });
        }
        let sample = probe.steady(bufs, limit);
        stop.store(true, Ordering::Relaxed);
        sample
    });
    Ok(sample?.bytes_per_s())
}

/// Touches every byte in a loop that the compiler turns into wide loads.
fn fold(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 16];
    for line in bytes.chunks_exact(128) {
        for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
            *sum ^= word.try_into().map_or(0, u64::from_le_bytes);
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

/// Tokens of a product in which the kernels are at their best: enough that weights are decoded for
/// many.
const PEAK_TOKENS: usize = 128;
/// Weight rows of that product: with them a matrix of any format stays in a cache.
const PEAK_ROWS: usize = 512;
/// Longest that one kernel is measured.
const PEAK_TIME: Duration = Duration::from_millis(250);

/// Multiply-adds per second of a product at its best: a matrix of this format and width that stays
/// in a cache, many tokens.
pub(crate) fn peak_products_per_s(backend: &mut CpuBackend, shape: Shape) -> f64 {
    products_per_s(backend, shape, PEAK_TOKENS)
}

/// [`peak_products_per_s`] with another number of tokens.
pub(crate) fn products_per_s(backend: &mut CpuBackend, shape: Shape, tokens: usize) -> f64 {
    let tokens = tokens.max(1);
    let shape = Shape { rows: PEAK_ROWS.min(shape.rows.max(1)), ..shape };
    let Some(host) = random_matrix(shape) else { return 0.0 };
    let zeros = [tokens * shape.cols, tokens * shape.cols, tokens * shape.rows, shape.cols];
    let [Ok(mut x), Ok(mut h), Ok(mut out), Ok(weight)] = zeros.map(|len| backend.buffer(len)) else {
        return 0.0;
    };
    let Ok(w) = backend.matrix(host) else { return 0.0 };
    backend.write(&mut x, 0, &random_values(tokens * shape.cols));
    let seconds = best_seconds(PEAK_TIME, || {
        let norm = Norm { weight: &weight, eps: 1e-6, dim: shape.cols };
        backend.norm_products(NormProducts { x: &x, norm, n: tokens, h: &mut h, products: [(&w, &mut out)] });
    });
    shape.weights() * tokens as f64 / seconds
}

/// Shortest time of `work`, tried at least three times.
pub(crate) fn best_seconds(time: Duration, mut work: impl FnMut()) -> f64 {
    let (began, mut best, mut tries) = (Instant::now(), f64::INFINITY, 0);
    while tries < 3 || began.elapsed() < time {
        let started = Instant::now();
        work();
        best = best.min(started.elapsed().as_secs_f64());
        tries += 1;
    }
    best.max(1e-9)
}

pub(crate) fn random_values(len: usize) -> Vec<f32> {
    let mut random = SplitMix64::new(3);
    (0..len).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect()
}

/// A matrix of one random row again and again: products with it take as long as with any other.
/// `None` if there is no such matrix or no memory for it.
pub(crate) fn random_matrix(shape: Shape) -> Option<HostMatrix> {
    let Shape { format, rows, cols } = shape;
    let row_bytes = format.row_bytes(cols).ok().filter(|bytes| *bytes > 0)?;
    let mut buf = AlignedBuf::new(row_bytes.checked_mul(rows)?).ok()?;
    let mut row = vec![0; row_bytes];
    format.encode_row(&random_values(cols), &mut row).ok()?;
    buf.chunks_exact_mut(row_bytes).for_each(|target| target.copy_from_slice(&row));
    Some(HostMatrix { format, rows, cols, bytes: Arc::new(buf), offset: 0 })
}

#[cfg(test)]
mod tests {
    use storage::FileId;

    use super::*;

    #[test]
    fn a_deck_gives_every_record_once_and_says_when_it_repeats() {
        let records: Vec<Record> = (0..5).map(|at| vec![(FileId(0), at, 1)]).collect();
        let mut deck = Deck::new(records.clone(), 7);
        let mut drawn: Vec<Record> = std::iter::from_fn(|| deck.draw().cloned()).collect();
        drawn.sort();
        assert_eq!(drawn, records);
        assert!(deck.repeated);
        assert!(deck.draw().is_some());
    }

    #[test]
    fn memory_and_kernels_have_rates() {
        assert!(memory_rates(2, 1 << 20).is_ok_and(|rates| rates.iter().all(|rate| *rate > 0.0)));
        let mut backend = CpuBackend::new(kernels_cpu::CpuOptions { threads: 1, isa: None }).unwrap();
        let shape = Shape { format: tensor::Format::Q8_0, rows: 32, cols: 64 };
        assert!(peak_products_per_s(&mut backend, shape) > 0.0);
    }
}
