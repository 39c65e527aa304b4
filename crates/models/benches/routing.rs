//! From a router's logits to experts and rows: `cargo bench -p models [FILTER]`.
#![allow(missing_docs)]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use models::layers::{Router, Routing};
use models::spec::{RouterSpec, Score};

fn main() {
    divan::main();
}

/// (experts, experts of a token): Mixtral, Qwen3-MoE, Qwen3.5-MoE of the largest size.
const SHAPES: [(usize, usize); 3] = [(8, 2), (128, 8), (512, 10)];

fn route(bencher: Bencher<'_, '_>, spec: RouterSpec, (experts, per_token): (usize, usize), rows: usize) {
    let router = Router::new(spec, experts, per_token);
    let mut routing = Routing::new(experts, per_token, rows);
    let logits: Vec<f32> = (0..rows * experts).map(|i| (i * 7919 % 10_007) as f32 / 1000.0 - 5.0).collect();
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| black_box(routing.route(&router, black_box(&logits))).len());
}

#[divan::bench(args = SHAPES, consts = [1, 512], max_time = 0.3)]
fn softmax<const ROWS: usize>(bencher: Bencher<'_, '_>, shape: &(usize, usize)) {
    route(bencher, RouterSpec::SOFTMAX, *shape, ROWS);
}

#[divan::bench(args = SHAPES, max_time = 0.3)]
fn sigmoid(bencher: Bencher<'_, '_>, shape: &(usize, usize)) {
    route(bencher, RouterSpec { score: Score::Sigmoid, ..RouterSpec::SOFTMAX }, *shape, 1);
}
