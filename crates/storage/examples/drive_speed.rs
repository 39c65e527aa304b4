//! What a drive gives for random reads of whole records, and what the reading costs the processor: the S of
//! the speed model, measured the way the expert store reads.
//!
//!     cargo run --release -p storage --example drive_speed -- FILE [--records BYTES,…] [--depths N,…]
//!         [--pieces BYTES,…] [--engine pread,uring] [--in-flight N] [--rounds N] [--seconds S] [--buffered]
//!
//! FILE is any large file on the drive in question, better larger than memory. Each round visits every
//! setting in another order, engines side by side; a figure is the median over the rounds. No offset is read
//! twice before the whole file has been read, so no cache of this process can help; the drive's own and a
//! virtual machine's host's may, which the line `file read … times` tells.
//!
//! Depth is the number of records under way; a piece of 0 bytes is the whole record. Processor seconds are
//! user and system time of the process for each GB read; what interrupts take is not in them.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use storage::{
    AlignedBuf, BLOCK_BYTES, CompletionQueue, FileStorage, IoEngine, IoMode, ReadRequest, Segment,
    SplitMix64, Storage, StorageError, StorageOptions,
};

struct Options {
    path: String,
    records: Vec<usize>,
    depths: Vec<usize>,
    pieces: Vec<usize>,
    engines: Vec<IoEngine>,
    in_flight: usize,
    rounds: usize,
    seconds: f64,
    mode: IoMode,
}

/// One row of the table.
#[derive(Copy, Clone)]
struct Setting {
    record: usize,
    depth: usize,
    piece: usize,
    engine: IoEngine,
}

/// What one round of a setting gave.
#[derive(Copy, Clone)]
struct Figure {
    gb_per_s: f64,
    us_per_record: f64,
    cpu_s_per_gb: f64,
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("usage: see the head of crates/storage/examples/drive_speed.rs");
        return ExitCode::from(2);
    };
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options {
        path: arguments.next()?,
        records: vec![1_769_472], // An expert of Qwen3.5-35B-A3B at 4.5 bits.
        depths: vec![1, 2, 4, 8, 16],
        pieces: vec![0, 1 << 20],
        engines: vec![IoEngine::Pread, IoEngine::Uring],
        in_flight: 16,
        rounds: 3,
        seconds: 0.4,
        mode: IoMode::Direct,
    };
    let numbers =
        |text: String| text.split(',').map(|number| number.parse().ok()).collect::<Option<Vec<usize>>>();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--buffered" => options.mode = IoMode::Buffered,
            "--records" => options.records = numbers(arguments.next()?)?,
            "--depths" => options.depths = numbers(arguments.next()?)?,
            "--pieces" => options.pieces = numbers(arguments.next()?)?,
            "--in-flight" => options.in_flight = arguments.next()?.parse().ok()?,
            "--rounds" => options.rounds = arguments.next()?.parse().ok()?,
            "--seconds" => options.seconds = arguments.next()?.parse().ok()?,
            "--engine" => {
                let engine = |name: &str| match name {
                    "pread" => Some(IoEngine::Pread),
                    "uring" => Some(IoEngine::Uring),
                    _ => None,
                };
                options.engines = arguments.next()?.split(',').map(engine).collect::<Option<_>>()?;
            }
            _ => return None,
        }
    }
    options.records.iter_mut().for_each(|bytes| *bytes = bytes.next_multiple_of(BLOCK_BYTES));
    (options.records.iter().all(|bytes| *bytes > 0) && options.rounds > 0).then_some(options)
}

fn measure(options: &Options) -> Result<(), StorageError> {
    let mut settings = Vec::new();
    for &record in &options.records {
        for &depth in &options.depths {
            // A piece as large as the record is the whole record again.
            for &piece in options.pieces.iter().filter(|piece| **piece < record) {
                settings.extend(options.engines.iter().map(|&engine| Setting {
                    record,
                    depth,
                    piece,
                    engine,
                }));
            }
        }
    }
    let mut random = SplitMix64::new(1);
    let mut place = Place { next: 0, total: 0, random: SplitMix64::new(2) };
    let mut figures = vec![Vec::new(); settings.len()];
    for _ in 0..options.rounds {
        // Settings in random order, but the engines of one setting side by side.
        let pairs = settings.len() / options.engines.len();
        let mut order: Vec<usize> = (0..pairs).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last as u64 + 1) as usize);
        }
        for pair in order {
            let mut group: Vec<usize> = (0..options.engines.len()).collect();
            if random.below(2) == 0 {
                group.reverse();
            }
            for engine in group {
                let index = pair * options.engines.len() + engine;
                figures[index].push(read_for_a_while(options, settings[index], &mut place)?);
            }
        }
    }
    print(options, &settings, &figures);
    println!("file read {:.2} times", place.total as f64 / file_bytes(options)? as f64);
    Ok(())
}

fn file_bytes(options: &Options) -> Result<u64, StorageError> {
    let probe = FileStorage::new(StorageOptions { mode: options.mode, threads: 1, ..Default::default() })?;
    let file = probe.open(options.path.as_ref())?;
    if let Some(reason) = probe.fallback_reason() {
        println!("{reason}");
    }
    probe.len_bytes(file)
}

fn print(options: &Options, settings: &[Setting], figures: &[Vec<Figure>]) {
    let median = |figures: &[Figure], of: fn(&Figure) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "record    depth  piece    engine   GB/s   us/record   cpu s/GB   ({} rounds, medians)",
        options.rounds
    );
    for (setting, figures) in settings.iter().zip(figures) {
        let piece = if setting.piece == 0 { "whole".into() } else { format!("{}", setting.piece) };
        println!(
            "{:8}  {:5}  {piece:7}  {:6}  {:5.2}   {:9.0}   {:8.3}",
            setting.record,
            setting.depth,
            format!("{:?}", setting.engine).to_lowercase(),
            median(figures, |figure| figure.gb_per_s),
            median(figures, |figure| figure.us_per_record),
            median(figures, |figure| figure.cpu_s_per_gb),
        );
    }
}

/// Where the next record is read.
struct Place {
    next: u64,
    total: u64,
    random: SplitMix64,
}

impl Place {
    /// An offset that has not been read since the file was last used up.
    fn take(&mut self, file_bytes: u64, record: usize) -> u64 {
        const STRIDE_BYTES: u64 = 8 << 20;
        let places = (file_bytes / STRIDE_BYTES).max(1);
        // The golden section visits all places before it comes to one again, far apart in between.
        let step = ((places as f64 * 0.618_034) as u64) | 1;
        let place = (self.next.wrapping_mul(step)) % places;
        self.next += 1;
        self.total += record as u64;
        let slack = STRIDE_BYTES.saturating_sub(record as u64) / BLOCK_BYTES as u64;
        let start = place * STRIDE_BYTES + self.random.below(slack + 1) * BLOCK_BYTES as u64;
        start.min(file_bytes.saturating_sub(record as u64)) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64
    }
}

/// Reads records with `depth` of them under way for the time of one figure.
fn read_for_a_while(options: &Options, setting: Setting, place: &mut Place) -> Result<Figure, StorageError> {
    let Setting { record, depth, piece, engine } = setting;
    let piece = if piece == 0 { record } else { piece };
    let storage_options = StorageOptions { mode: options.mode, threads: options.in_flight, engine };
    let storage = FileStorage::with_piece_bytes(storage_options, piece)?;
    assert_eq!(storage.engine(), engine, "{:?}", storage.engine_fallback());
    let file = storage.open(options.path.as_ref())?;
    let file_bytes = storage.len_bytes(file)?;
    let queue = CompletionQueue::new();
    let mut submit = |buf: AlignedBuf| {
        let offset = place.take(file_bytes, record);
        let segments = vec![Segment { file, offset, bytes: record, buf_offset: 0 }];
        storage.submit(ReadRequest { tag: 0, buf, segments }, &queue);
    };
    let mut bufs = AlignedBuf::many(depth, record)?;
    // So that the pages are there, as those of a warm slot are.
    bufs.iter_mut().for_each(|buf| buf.fill(1));
    let (mut reading, mut bytes, mut wait_us, mut done) = (0, 0u64, 0u64, 0u64);
    let cpu = cpu_time();
    let started = Instant::now();
    for buf in bufs {
        submit(buf);
        reading += 1;
    }
    while reading > 0 {
        let completion = queue.wait();
        completion.result?;
        reading -= 1;
        bytes += completion.bytes_read;
        wait_us += completion.wait_us;
        done += 1;
        if started.elapsed().as_secs_f64() < options.seconds {
            submit(completion.buf);
            reading += 1;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let gb = bytes as f64 / 1e9;
    Ok(Figure {
        gb_per_s: gb / seconds,
        us_per_record: wait_us as f64 / done.max(1) as f64,
        cpu_s_per_gb: (cpu_time() - cpu).as_secs_f64() / gb,
    })
}

/// User and system time of this process and its threads, those of the kernel that work for its ring included.
#[cfg(unix)]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(not(unix))]
fn cpu_time() -> Duration {
    Duration::ZERO
}
