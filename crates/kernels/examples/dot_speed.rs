//! Prints how fast weights are multiplied on one thread, per format: with one activation row (decode, bound by memory) and
//! with 64 (prefill, bound by arithmetic). `cargo run --release -p kernels --example dot_speed [FORMAT…]`
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use kernels::dot::{Activations, Isa, mul_rows};
use tensor::{Format, MatrixView};

const COLS: usize = 4096;
/// Larger than any cache.
const WEIGHT_BYTES: usize = 256 << 20;
/// Weight rows of one call, about what a thread is given at a time.
const ROWS_PER_CALL: usize = 32;
const BATCH: usize = 64;

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    println!("format  isa     n=1 GB/s   n=4 GFLOP/s  n={BATCH} GFLOP/s");
    for &format in Format::ALL {
        if !named.is_empty() && !named.iter().any(|name| Format::parse(name) == Ok(format)) {
            continue;
        }
        let weights = Weights::new(format);
        for &isa in Isa::ALL.iter().filter(|isa| isa.is_available()) {
            // The scalar code need not run through all of memory to be measured.
            let rows = if isa == Isa::Scalar { 512 } else { weights.rows };
            let decode = rows as f64 * weights.row_bytes as f64 / weights.seconds(isa, rows, 1) / 1e9;
            let flops =
                |rows: usize, n: usize| 2.0 * (rows * COLS * n) as f64 / weights.seconds(isa, rows, n) / 1e9;
            let (four, batch) = (flops(rows.min(4096), 4), flops(rows.min(1024), BATCH));
            println!("{format:6}  {isa:6} {decode:9.1} {four:13.1} {batch:13.1}");
        }
    }
}

struct Weights {
    format: Format,
    rows: usize,
    row_bytes: usize,
    bytes: Vec<u8>,
}

impl Weights {
    fn new(format: Format) -> Weights {
        let row_bytes = format.row_bytes(COLS).unwrap();
        let rows = WEIGHT_BYTES / row_bytes / ROWS_PER_CALL * ROWS_PER_CALL;
        let row: Vec<f32> = (0..COLS).map(|i| (i as f32 * 1.37).sin() * 0.02).collect();
        let mut encoded = vec![0; row_bytes];
        format.encode_row(&row, &mut encoded).unwrap();
        Weights { format, rows, row_bytes, bytes: encoded.repeat(rows) }
    }

    /// Of the fastest of several runs over the first `rows` rows.
    fn seconds(&self, isa: Isa, rows: usize, n: usize) -> f64 {
        let bytes = &self.bytes[..rows * self.row_bytes];
        let view = MatrixView::new(self.format, rows, COLS, bytes).unwrap();
        let x: Vec<f32> = (0..n * COLS).map(|i| (i as f32 * 0.73).cos()).collect();
        let mut acts = Activations::new();
        acts.prepare(isa, self.format, &x, n, COLS);
        let mut out = vec![0.0; ROWS_PER_CALL * n];
        let mut time = || {
            let start = Instant::now();
            for first in (0..rows).step_by(ROWS_PER_CALL) {
                mul_rows(isa, &view, first, ROWS_PER_CALL, &acts, &mut out);
            }
            start.elapsed().as_secs_f64()
        };
        (0..5).map(|_| time()).fold(f64::INFINITY, f64::min)
    }
}
