//! Norm and rotary embedding of queries and keys.

use super::pool::Chunks;
use super::{Context, grow_all, norm::inverse_rms, scratch};
use ops::{AttentionShape, Batch, RopePairing};

/// Tokens of one task: a few, so that the angles of a token are worth computing once for all its
/// heads.
const TOKENS_PER_TASK: usize = 4;

/// Frequencies of the last shape, and each thread's table of one token's cosines and sines.
pub(super) struct RopeScratch {
    theta: f32,
    rotary_dim: usize,
    /// Empty: none.
    factors: Vec<f32>,
    frequencies: Vec<f64>,
    /// [n]: position of each row.
    positions: Vec<u32>,
    angles: Vec<Vec<f32>>,
}

impl RopeScratch {
    pub(super) fn new(threads: usize) -> Self {
        let angles = vec![Vec::new(); threads];
        RopeScratch {
            theta: 0.0,
            rotary_dim: 0,
            factors: Vec::new(),
            frequencies: Vec::new(),
            positions: Vec::new(),
            angles,
        }
    }

    /// Positions of the batch's rows, and frequencies of this shape: `theta^(-2 j / rotary_dim)` over the factor, in f64 because position
    /// times frequency runs to 10^5.
    pub(super) fn set_up(&mut self, shape: &AttentionShape, factors: Option<&[f32]>, batch: &Batch<'_>) {
        self.positions.clear();
        self.positions.extend(batch.rows.iter().flat_map(|rows| rows.pos..rows.pos + rows.len));
        let factors = factors.unwrap_or_default();
        let same = (self.theta, self.rotary_dim) == (shape.rope_theta, shape.rotary_dim);
        if same && self.factors == factors {
            return;
        }
        (self.theta, self.rotary_dim) = (shape.rope_theta, shape.rotary_dim);
        self.factors.clear();
        self.factors.extend_from_slice(factors);
        let (theta, dim) = (f64::from(shape.rope_theta), shape.rotary_dim as f64);
        self.frequencies.clear();
        self.frequencies.extend((0..shape.rotary_dim / 2).map(|j| theta.powf(-2.0 * j as f64 / dim)));
        for (frequency, factor) in self.frequencies.iter_mut().zip(factors) {
            *frequency /= f64::from(*factor);
        }
    }
}

/// Cosines, then sines, of the angles of one position.
fn fill_angles(frequencies: &[f64], pos: usize, angles: &mut [f32]) {
    let (cos, sin) = angles.split_at_mut(frequencies.len());
    for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(frequencies) {
        let (s, c) = (pos as f64 * frequency).sin_cos();
        (*cos, *sin) = (c as f32, s as f32);
    }
}

/// `head = head / rms(head) * weight`
fn norm(head: &mut [f32], weight: &[f32], eps: f32) {
    let scale = inverse_rms(head, eps);
    for (x, &weight) in head.iter_mut().zip(weight) {
        *x = scale * *x * weight;
    }
}

/// Rotates the first dimensions of a head.
fn rotate(head: &mut [f32], pairing: RopePairing, angles: &[f32]) {
    let half = angles.len() / 2;
    let (cos, sin) = angles.split_at(half);
    let head = &mut head[..2 * half];
    let turn = |x: &mut f32, y: &mut f32, cos: f32, sin: f32| {
        (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
    };
    match pairing {
        RopePairing::Halves => {
            let (first, second) = head.split_at_mut(half);
            for (((x, y), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                turn(x, y, cos, sin);
            }
        }
        RopePairing::Adjacent => {
            for ((pair, &cos), &sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                let [x, y] = pair else { continue };
                turn(x, y, cos, sin);
            }
        }
    }
}

/// Queries of `qg`, `[n, heads, 2, head_dim]` or without the 2, in place; gates stay as they are.
pub(super) fn queries(
    context: &mut Context,
    scratch: &mut RopeScratch,
    shape: &AttentionShape,
    norm: Option<&[f32]>,
    qg: &mut [f32],
) {
    rotate_heads(context, scratch, shape, norm, (shape.query_len(), shape.heads), qg);
}

/// Keys, `[n, kv_heads, head_dim]`, in place.
pub(super) fn keys(
    context: &mut Context,
    scratch: &mut RopeScratch,
    shape: &AttentionShape,
    norm: Option<&[f32]>,
    k: &mut [f32],
) {
    rotate_heads(context, scratch, shape, norm, (shape.head_dim, shape.kv_heads), k);
}

/// Norms and rotates the head at the start of each `stride` floats; tokens have `heads` of them.
fn rotate_heads(
    context: &mut Context,
    rope: &mut RopeScratch,
    shape: &AttentionShape,
    weight: Option<&[f32]>,
    (stride, heads): (usize, usize),
    data: &mut [f32],
) {
    grow_all(&mut rope.angles, shape.rotary_dim / 2 * 2);
    let (frequencies, positions, token_len) = (&rope.frequencies[..], &rope.positions[..], stride * heads);
    let tasks = Chunks::new(&mut data[..positions.len() * token_len], TOKENS_PER_TASK * token_len);
    context.pool.run_parts_with(tasks, &mut rope.angles, |task, tokens, angles| {
        let angles = scratch(angles, shape.rotary_dim / 2 * 2);
        for (i, token) in tokens.chunks_exact_mut(token_len).enumerate() {
            fill_angles(frequencies, positions[task * TOKENS_PER_TASK + i] as usize, angles);
            for head in token.chunks_exact_mut(stride) {
                let head = &mut head[..shape.head_dim];
                if let Some(weight) = weight {
                    norm(head, &weight[..shape.head_dim], shape.eps);
                }
                rotate(head, shape.pairing, angles);
            }
        }
    });
}
