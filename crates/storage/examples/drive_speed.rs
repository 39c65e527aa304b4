//! What a drive gives for random reads of whole records: the S of the speed model, measured the way the
//! expert store reads.
//!
//!     cargo run --release -p storage --example drive_speed -- FILE [RECORD_BYTES] [--buffered]
//!
//! FILE is any large file on the drive in question, better many times larger than RECORD_BYTES and larger
//! than memory. No record is read twice in one run, so no cache of this process can help; the drive's own
//! and a virtual machine's host's may, hence a second run can be faster than the first.
//!
//! Depth is the number of records under way. `whole` gives each record to one thread, as many threads as
//! records: what naive parallel reading gives. `pieces` is what flash-moe does: 16 threads and reads of at
//! most 1 MiB. The difference is largest at depth 1, where `whole` leaves the drive's queue empty.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use storage::{
    AlignedBuf, BLOCK_BYTES, CompletionQueue, FileStorage, IoMode, PIECE_BYTES, ReadRequest, Segment,
    SplitMix64, Storage, StorageError, StorageOptions,
};

const DEPTHS: [usize; 5] = [1, 2, 4, 8, 16];

/// Threads of the `pieces` columns.
const THREADS: usize = 16;

/// An expert of Qwen3.5-35B-A3B at 4.5 bits.
const RECORD_BYTES_DEFAULT: usize = 1_769_472;

fn main() -> ExitCode {
    let mut mode = IoMode::Direct;
    let mut names = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--buffered" => mode = IoMode::Buffered,
            _ => names.push(argument),
        }
    }
    let record_bytes = match names.get(1).map(|text| text.parse::<usize>()) {
        None => RECORD_BYTES_DEFAULT,
        Some(Ok(bytes)) if bytes > 0 => bytes.next_multiple_of(BLOCK_BYTES),
        Some(_) => return usage(),
    };
    let Some(path) = names.first() else { return usage() };
    match measure(path, record_bytes, mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: drive_speed FILE [RECORD_BYTES] [--buffered]");
    ExitCode::from(2)
}

fn measure(path: &str, record_bytes: usize, mode: IoMode) -> Result<(), StorageError> {
    let probe = FileStorage::new(StorageOptions { mode, threads: 1 })?;
    let file = probe.open(path.as_ref())?;
    let records = probe.len_bytes(file)? / record_bytes as u64;
    let obtained = probe.mode(file);
    if let Some(reason) = probe.fallback_reason() {
        println!("{reason}");
    }
    let runs = 2 * DEPTHS.len() as u64;
    let records_per_run = records / runs;
    println!("{path}: {records} records of {record_bytes} bytes, {obtained:?}, {records_per_run} a figure");
    println!("depth   whole GB/s  us/record   pieces GB/s  us/record");
    let mut offsets = shuffled(records).map(|record| record * record_bytes as u64);
    for depth in DEPTHS {
        let mut figures = Vec::new();
        for (threads, piece_bytes) in [(depth, record_bytes), (THREADS, PIECE_BYTES)] {
            let storage = FileStorage::with_piece_bytes(StorageOptions { mode, threads }, piece_bytes)?;
            let offsets = offsets.by_ref().take(records_per_run as usize);
            figures.push(read_at_depth(&storage, path, record_bytes, depth, offsets)?);
        }
        let [(whole, whole_us), (pieces, pieces_us)] = figures[..] else { continue };
        println!("{depth:5}   {whole:10.2}  {whole_us:9.0}   {pieces:11.2}  {pieces_us:9.0}");
    }
    Ok(())
}

/// Reads the records with `depth` of them under way: GB/s and mean microseconds from submission to completion.
fn read_at_depth(
    storage: &Arc<FileStorage>,
    path: &str,
    record_bytes: usize,
    depth: usize,
    mut offsets: impl Iterator<Item = u64>,
) -> Result<(f64, f64), StorageError> {
    let file = storage.open(path.as_ref())?;
    let queue = CompletionQueue::new();
    let submit = |buf: AlignedBuf, offset: u64| {
        let segments = vec![Segment { file, offset, bytes: record_bytes, buf_offset: 0 }];
        storage.submit(ReadRequest { tag: 0, buf, segments }, &queue);
    };
    let mut bufs = AlignedBuf::many(depth, record_bytes)?;
    // So that the pages are there, as those of a warm slot are.
    bufs.iter_mut().for_each(|buf| buf.fill(1));
    let (mut reading, mut bytes, mut wait_us, mut done) = (0, 0u64, 0u64, 0u64);
    let started = Instant::now();
    for (buf, offset) in bufs.into_iter().zip(offsets.by_ref()) {
        submit(buf, offset);
        reading += 1;
    }
    while reading > 0 {
        let completion = queue.wait();
        completion.result?;
        reading -= 1;
        bytes += completion.bytes_read;
        wait_us += completion.wait_us;
        done += 1;
        if let Some(offset) = offsets.next() {
            submit(completion.buf, offset);
            reading += 1;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok((bytes as f64 / seconds / 1e9, wait_us as f64 / done.max(1) as f64))
}

/// The numbers below `count` in random order.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    let mut random = SplitMix64::new(1);
    let mut all: Vec<u64> = (0..count).collect();
    for last in (1..all.len()).rev() {
        all.swap(last, random.below(last as u64 + 1) as usize);
    }
    all.into_iter()
}
