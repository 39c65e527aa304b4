//! Prints how fast weights are multiplied, per format and instruction set: with one activation row
//! (decode, bound by memory) on one thread and on all, and with several on one thread (prefill, bound
//! by arithmetic). `cargo run --release -p kernels-cpu --example dot_speed [FORMAT…]`
//!
//! Instruction sets take turns, call by call, so that whatever else the machine does slows all of
//! them alike.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Barrier;
use std::time::Instant;

use kernels_cpu::dot::{Activations, mul_rows};
use kernels_cpu::{Isa, Kernels};
use ops::conformance::make_scales_small;
use tensor::{Format, MatrixView};

const COLS: usize = 4096;
/// Larger than any cache.
const WEIGHT_BYTES: usize = 256 << 20;
/// Weight rows of one call, about what a thread is given at a time.
const ROWS_PER_CALL: usize = 32;
/// Rows of activations in prefill: as many as the back-end prepares together.
const BATCH: usize = 16;
/// Passes over all weights in the measurement on all threads.
const PASSES: usize = 10;

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "one thread: fastest tenth (median) of the calls; {threads} threads: fastest of {PASSES} passes"
    );
    println!(
        "format   isa                n=1 GB/s     {threads} threads        n=4 GFLOP/s       n={BATCH} GFLOP/s"
    );
    for &format in Format::ALL {
        if !named.is_empty() && !named.iter().any(|name| Format::parse(name) == Ok(format)) {
            continue;
        }
        let weights = Weights::new(format);
        let calls = weights.rows / ROWS_PER_CALL;
        let (decode, few, many) =
            (weights.times(calls, 1), weights.times(calls.min(200), 4), weights.times(calls.min(100), BATCH));
        let all_threads = weights.seconds_of_pass(threads);
        let call_bytes = (ROWS_PER_CALL * weights.row_bytes) as f64;
        let call_flop = |n: usize| 2.0 * (ROWS_PER_CALL * COLS * n) as f64;
        for (i, isa) in measured().map(Kernels::isa).enumerate() {
            let rates = |amount: f64, times: &[Times]| {
                let Times { fastest, median } = times[i];
                format!("{:7.1} ({:6.1})", amount / fastest / 1e9, amount / median / 1e9)
            };
            println!(
                "{format:8} {isa:12} {}   {:7.1}   {}  {}",
                rates(call_bytes, &decode),
                weights.bytes.len() as f64 / all_threads[i] / 1e9,
                rates(call_flop(4), &few),
                rates(call_flop(BATCH), &many),
            );
        }
    }
}

/// The scalar code is for correctness; its speed matters to nobody.
fn measured() -> impl Iterator<Item = Kernels> {
    let best = Isa::detect();
    Kernels::all().filter(move |kernels| kernels.isa() != Isa::Scalar || best == Isa::Scalar)
}

struct Weights {
    format: Format,
    rows: usize,
    row_bytes: usize,
    bytes: Vec<u8>,
}

/// Seconds of a call.
struct Times {
    /// The tenth of the calls that was the fastest says what the code can do while other programs
    /// run.
    fastest: f64,
    median: f64,
}

fn activations(kernels: Kernels, format: Format, n: usize) -> Activations {
    let x: Vec<f32> = (0..n * COLS).map(|i| (i as f32 * 0.73).cos()).collect();
    let mut acts = Activations::new();
    acts.prepare(kernels, format, &x, n, COLS);
    acts
}

impl Weights {
    fn new(format: Format) -> Weights {
        let row_bytes = format.row_bytes(COLS).unwrap();
        let rows = WEIGHT_BYTES / row_bytes / ROWS_PER_CALL * ROWS_PER_CALL;
        let row: Vec<f32> = (0..COLS).map(|i| (i as f32 * 1.37).sin() * 0.02).collect();
        let mut encoded = vec![0; row_bytes];
        if format.can_encode() {
            format.encode_row(&row, &mut encoded).unwrap();
        } else {
            encoded.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 167 % 251) as u8);
            encoded.chunks_mut(format.block_bytes()).for_each(|block| make_scales_small(format, block));
        }
        Weights { format, rows, row_bytes, bytes: encoded.repeat(rows) }
    }

    fn view(&self) -> MatrixView<'_> {
        MatrixView::new(self.format, self.rows, COLS, &self.bytes).unwrap()
    }

    /// Each call takes other weight rows than the one before, and instruction sets walk through
    /// different parts of the weights.
    fn times(&self, calls: usize, n: usize) -> Vec<Times> {
        let (view, places) = (self.view(), self.rows / ROWS_PER_CALL);
        let mut out = vec![0.0; ROWS_PER_CALL * n];
        let mut runs: Vec<_> = measured()
            .map(|kernels| (kernels, activations(kernels, self.format, n), Vec::with_capacity(calls)))
            .collect();
        for call in 0..calls {
            for (i, (kernels, acts, seconds)) in runs.iter_mut().enumerate() {
                let place = (call + i * places / 4) % places;
                let start = Instant::now();
                mul_rows(*kernels, &view, place * ROWS_PER_CALL, ROWS_PER_CALL, acts, &mut out);
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        let times = runs.into_iter().map(|(_, _, mut seconds)| {
            seconds.sort_by(f64::total_cmp);
            Times { fastest: seconds[calls / 10], median: seconds[calls / 2] }
        });
        times.collect()
    }

    /// Seconds of the fastest pass over all weights, shared by `threads` threads.
    fn seconds_of_pass(&self, threads: usize) -> Vec<f64> {
        let barrier = Barrier::new(threads);
        let share = self.rows / threads / ROWS_PER_CALL * ROWS_PER_CALL;
        let worker = |thread: usize| {
            let (view, mut out) = (self.view(), vec![0.0; ROWS_PER_CALL]);
            let mut runs: Vec<_> = measured()
                .map(|kernels| (kernels, activations(kernels, self.format, 1), f64::INFINITY))
                .collect();
            for _ in 0..PASSES {
                for (kernels, acts, fastest) in &mut runs {
                    barrier.wait();
                    let start = Instant::now();
                    for row in (thread * share..(thread + 1) * share).step_by(ROWS_PER_CALL) {
                        mul_rows(*kernels, &view, row, ROWS_PER_CALL, acts, &mut out);
                    }
                    barrier.wait();
                    *fastest = fastest.min(start.elapsed().as_secs_f64());
                }
            }
            runs.into_iter().map(|(_, _, fastest)| fastest).collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                .map(|thread| {
                    scope.spawn({
                        let worker = &worker;
                        move || worker(thread)
                    })
                })
                .collect();
            let seconds = worker(0);
            others.into_iter().for_each(|other| drop(other.join().unwrap()));
            seconds
        })
    }
}
