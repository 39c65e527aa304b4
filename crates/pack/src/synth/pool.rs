//! Pools of encoded weights, and rows put together out of them.
//!
//! Encoding is slow and the drive is fast. So for each distribution and format some blocks are
//! encoded once, and every row is a sequence of pieces of [`PIECE_WEIGHTS`] weights, each copied
//! from a random block of the pool: with 4096 blocks and 4 pieces there are 2.8e14 different rows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tensor::{Format, TensorError};

use super::plan::{Band, Fill, SynthPlan};
use super::rng::Rng;
use crate::threads;

/// Weights of one distribution in one format.
pub(crate) struct Pool {
    bytes: Vec<u8>,
    block_bytes: usize,
    /// Blocks of a piece.
    piece_blocks: usize,
    /// Blocks at which a piece can begin.
    starts: usize,
}

/// A distribution in a format; mean and standard deviation by their bits, so that keys can be compared.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolKey {
    format: Format,
    mean: u32,
    std: u32,
}

impl PoolKey {
    pub(crate) fn new(format: Format, mean: f32, std: f32) -> PoolKey {
        PoolKey { format, mean: mean.to_bits(), std: std.to_bits() }
    }
}

impl Pool {
    fn new(seed: u64, key: PoolKey, weights: usize) -> Result<Pool, TensorError> {
        let block_len = key.format.block_len();
        let piece_blocks = (PIECE_WEIGHTS / block_len).max(1);
        let blocks = (weights / block_len).max(2 * piece_blocks);
        let block_bytes = key.format.block_bytes();
        let mut bytes = vec![0; blocks * block_bytes];
        let format_word = key.format.name().bytes().fold(0u64, |word, byte| word << 8 | u64::from(byte));
        let mut rng = Rng::new(&[seed, POOL_STREAM, format_word, u64::from(key.mean), u64::from(key.std)]);
        let (mean, std) = (f32::from_bits(key.mean), f32::from_bits(key.std));
        let mut values = vec![0.0f32; piece_blocks * block_len];
        for piece in bytes.chunks_mut(piece_blocks * block_bytes) {
            let values = &mut values[..piece.len() / block_bytes * block_len];
            values.iter_mut().for_each(|value| *value = mean + std * rng.normal());
            key.format.encode_row(values, piece)?;
        }
        Ok(Pool { bytes, block_bytes, piece_blocks, starts: blocks - piece_blocks + 1 })
    }

    /// Pieces that make up a row of `row_bytes` bytes, one after the other.
    pub(crate) fn pieces<'a>(&'a self, rng: &'a mut Rng, row_bytes: usize) -> impl Iterator<Item = &'a [u8]> {
        let piece_bytes = self.piece_blocks * self.block_bytes;
        (0..row_bytes).step_by(piece_bytes).map(move |done| {
            let start = rng.below(self.starts) * self.block_bytes;
            &self.bytes[start..start + piece_bytes.min(row_bytes - done)]
        })
    }
}

/// Every pool that a plan needs.
pub(crate) struct Pools(BTreeMap<PoolKey, Pool>);

impl Pools {
    /// Encodes the pools with `threads` threads.
    pub(crate) fn new(plan: &SynthPlan, threads: usize) -> Result<Pools, TensorError> {
        let keys = keys(plan);
        let next = AtomicUsize::new(0);
        let made = Mutex::new(Vec::new());
        threads::side_by_side(threads.min(keys.len()).max(1), || {
            while let Some(&key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                let pool = Pool::new(plan.seed, key, plan.pool_weights);
                made.lock().unwrap_or_else(PoisonError::into_inner).push((key, pool));
            }
        });
        let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        made.into_iter().map(|(key, pool)| Ok((key, pool?))).collect::<Result<_, _>>().map(Pools)
    }

    /// The pool of a key that the plan names.
    pub(crate) fn get(&self, key: PoolKey) -> Option<&Pool> {
        self.0.get(&key)
    }
}

fn keys(plan: &SynthPlan) -> Vec<PoolKey> {
    let mut keys: Vec<PoolKey> = Vec::new();
    for tensor in &plan.dense {
        if let Fill::Pool(bands) = &tensor.fill {
            keys.extend(bands.iter().map(|&Band { mean, std, .. }| PoolKey::new(tensor.format, mean, std)));
        }
    }
    for layer in &plan.layers {
        keys.extend(layer.parts.iter().map(|part| PoolKey::new(part.format, 0.0, part.std)));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Weights that are copied in one piece: the longest block there is.
const PIECE_WEIGHTS: usize = 256;
/// Tells the pools' random numbers from all others.
const POOL_STREAM: u64 = 1;
