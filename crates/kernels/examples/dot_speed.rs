//! Prints how fast weights are multiplied on one thread, per format: with one activation row
//! (decode, bound by memory) and with 64 (prefill, bound by arithmetic). `cargo run --release -p
//! kernels --example dot_speed [FORMAT…]`
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
            let call_bytes = (ROWS_PER_CALL * weights.row_bytes) as f64;
            let call_flop = |n: usize| 2.0 * (ROWS_PER_CALL * COLS * n) as f64;
            // The scalar code need not run through all of memory to be measured.
            let calls = if isa == Isa::Scalar { 16 } else { weights.rows / ROWS_PER_CALL };
            let decode = call_bytes / weights.seconds_per_call(isa, calls, 1) / 1e9;
            let rate = |n: usize| call_flop(n) / weights.seconds_per_call(isa, calls.min(200), n) / 1e9;
            println!("{format:6}  {isa:6} {decode:9.1} {:13.1} {:13.1}", rate(4), rate(BATCH));
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

    /// Each call takes other weight rows than the one before. The tenth of the calls that was the
    /// fastest says what the code can do while other programs run.
    fn seconds_per_call(&self, isa: Isa, calls: usize, n: usize) -> f64 {
        let view = MatrixView::new(self.format, self.rows, COLS, &self.bytes).unwrap();
        let x: Vec<f32> = (0..n * COLS).map(|i| (i as f32 * 0.73).cos()).collect();
        let mut acts = Activations::new();
        acts.prepare(isa, self.format, &x, n, COLS);
        let mut out = vec![0.0; ROWS_PER_CALL * n];
        let mut seconds: Vec<f64> = (0..calls)
            .map(|call| {
                let start = Instant::now();
                mul_rows(isa, &view, call * ROWS_PER_CALL, ROWS_PER_CALL, &acts, &mut out);
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        seconds[calls / 10]
    }
}
