//! Norm and partial rotary embedding of queries and keys.

use super::pool::Chunks;
use super::{Context, grow_all, norm::inverse_rms, scratch};
use crate::backend::AttentionShape;

/// Tokens of one task: a few, so that the angles of a token are worth computing once for all its
/// heads.
const TOKENS_PER_TASK: usize = 4;

/// Frequencies of the last shape, and each thread's table of one token's cosines and sines.
pub(super) struct RopeScratch {
    theta: f32,
    rotary_dim: usize,
    frequencies: Vec<f64>,
    angles: Vec<Vec<f32>>,
}

/// Weights of the norms, `[head_dim]` each.
#[derive(Copy, Clone)]
pub(super) struct Norms<'a> {
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
}

impl RopeScratch {
    pub(super) fn new(threads: usize) -> Self {
        RopeScratch { theta: 0.0, rotary_dim: 0, frequencies: Vec::new(), angles: vec![Vec::new(); threads] }
    }

    /// Frequencies of this shape: `theta^(-2 j / rotary_dim)`, in f64 because position times
    /// frequency runs to 10^5.
    pub(super) fn set_up(&mut self, shape: &AttentionShape) {
        if (self.theta, self.rotary_dim) == (shape.rope_theta, shape.rotary_dim) {
            return;
        }
        (self.theta, self.rotary_dim) = (shape.rope_theta, shape.rotary_dim);
        let (theta, dim) = (f64::from(shape.rope_theta), shape.rotary_dim as f64);
        self.frequencies.clear();
        self.frequencies.extend((0..shape.rotary_dim / 2).map(|j| theta.powf(-2.0 * j as f64 / dim)));
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

/// Norms one head and rotates its first dimensions, pairing dimension j with j + half.
fn norm_and_rotate(head: &mut [f32], weight: &[f32], eps: f32, angles: &[f32]) {
    let scale = inverse_rms(head, eps);
    for (x, &weight) in head.iter_mut().zip(weight) {
        *x = scale * *x * weight;
    }
    let half = angles.len() / 2;
    let (cos, sin) = angles.split_at(half);
    let (first, second) = head[..2 * half].split_at_mut(half);
    for (((x, y), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
    }
}

/// Queries of `qg`, `[n, heads, 2, head_dim]`, in place; the gates stay as they are.
pub(super) fn queries(
    context: &mut Context,
    scratch: &mut RopeScratch,
    shape: &AttentionShape,
    pos: usize,
    n: usize,
    norms: Norms<'_>,
    qg: &mut [f32],
) {
    let qg = &mut qg[..n * shape.heads * 2 * shape.head_dim];
    rotate_heads(context, scratch, shape, pos, norms.q, (2 * shape.head_dim, shape.heads), qg);
}

/// Keys, `[n, kv_heads, head_dim]`, in place.
pub(super) fn keys(
    context: &mut Context,
    scratch: &mut RopeScratch,
    shape: &AttentionShape,
    pos: usize,
    n: usize,
    norms: Norms<'_>,
    k: &mut [f32],
) {
    let k = &mut k[..n * shape.kv_heads * shape.head_dim];
    rotate_heads(context, scratch, shape, pos, norms.k, (shape.head_dim, shape.kv_heads), k);
}

/// Norms and rotates the head at the start of each `stride` floats; tokens have `heads` of them.
fn rotate_heads(
    context: &mut Context,
    rope: &mut RopeScratch,
    shape: &AttentionShape,
    pos: usize,
    weight: &[f32],
    (stride, heads): (usize, usize),
    data: &mut [f32],
) {
    grow_all(&mut rope.angles, shape.rotary_dim / 2 * 2);
    let (frequencies, token_len) = (&rope.frequencies[..], stride * heads);
    let tasks = Chunks::new(data, TOKENS_PER_TASK * token_len);
    context.pool.run_parts_with(tasks, &mut rope.angles, |task, tokens, angles| {
        let angles = scratch(angles, shape.rotary_dim / 2 * 2);
        for (i, token) in tokens.chunks_exact_mut(token_len).enumerate() {
            fill_angles(frequencies, pos + task * TOKENS_PER_TASK + i, angles);
            for head in token.chunks_exact_mut(stride) {
                norm_and_rotate(&mut head[..shape.head_dim], &weight[..shape.head_dim], shape.eps, angles);
            }
        }
    });
}
