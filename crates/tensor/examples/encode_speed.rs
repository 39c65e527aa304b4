//! Prints how fast each format encodes and decodes on one thread: `cargo run --release -p tensor
//! --example encode_speed`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use tensor::Format;

const WEIGHTS: usize = 1 << 16;

fn main() {
    // A cheap sum of uniforms; only the speed matters here.
    let mut state = 1_u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let weights: Vec<f32> = (0..WEIGHTS).map(|_| uniform() + uniform() + uniform()).collect();
    let mut decoded = vec![0.0; WEIGHTS];
    for &format in Format::ALL {
        if !format.can_encode() {
            continue;
        }
        let mut bytes = vec![0; format.row_bytes(WEIGHTS).unwrap()];
        let encode = fastest(|| format.encode_row(&weights, &mut bytes).unwrap());
        let decode = fastest(|| format.decode_row(&bytes, &mut decoded).unwrap());
        let rate = |seconds: f64| (WEIGHTS * size_of::<f32>()) as f64 / seconds / 1e6;
        println!("{format:>5}: encode {:7.0}, decode {:7.0} MB/s of f32", rate(encode), rate(decode));
    }
}

/// Seconds of the fastest of a hundred runs, the one that other programs disturbed least.
fn fastest(mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..100).map(time).fold(f64::INFINITY, f64::min)
}
