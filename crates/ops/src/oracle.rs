//! The ops in plain f64, straight from the model's specification: the reference that every back-end
//! is compared with.
//!
//! Nothing is shared with the CPU implementation but the scalar codecs of `tensor`, and nothing is
//! fused, blocked or reordered. Values stay f64 from op to op, so a model run on the oracle is a
//! float64 run.

use tensor::MatrixView;

use crate::{
    AttentionShape, Backend, DeltaNetShape, ExpertRows, ExpertWeights, HostMatrix, KvFormat, RopePairing,
};

/// f64 values in memory.
#[derive(Clone, Debug, Default)]
pub struct OracleBuffer(Vec<f64>);

impl OracleBuffer {
    /// All values.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }
}

/// Keys or values, `[ctx, kv_heads, head_dim]`: what their format makes of them, in f64.
#[derive(Clone, Debug)]
pub struct OracleKvCache {
    format: KvFormat,
    kv_heads: usize,
    head_dim: usize,
    values: Vec<f64>,
}

impl OracleKvCache {
    /// Stores one head at element `at`.
    fn store(&mut self, at: usize, head: &[f64]) {
        let stored = &mut self.values[at..][..self.head_dim];
        if self.format == KvFormat::F32 {
            return stored.copy_from_slice(head);
        }
        let mut padded: Vec<f32> = head.iter().map(|&x| x as f32).collect();
        padded.resize(self.format.head_len(self.head_dim), 0.0);
        let mut bytes = vec![0; self.format.head_bytes(self.head_dim)];
        let format = self.format.format();
        let coded = format.encode_row(&padded, &mut bytes);
        let coded = coded.and_then(|()| format.decode_row(&bytes, &mut padded));
        coded.unwrap_or_else(|error| panic!("a head of a cache: {error}"));
        stored.iter_mut().zip(padded).for_each(|(stored, x)| *stored = f64::from(x));
    }
}

/// The oracle; see the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct OracleBackend;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

/// ln(1 + exp(x)), also where exp(x) overflows.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Row `row` of a matrix, decoded.
fn decode(w: &MatrixView<'_>, row: usize) -> Vec<f64> {
    let mut decoded = vec![0.0; w.cols];
    let result = w.format.decode_row(w.row(row), &mut decoded);
    result.unwrap_or_else(|error| panic!("row {row} of a checked matrix: {error}"));
    decoded.into_iter().map(f64::from).collect()
}

/// `w x`
fn mul_vec(w: &MatrixView<'_>, x: &[f64]) -> Vec<f64> {
    assert_eq!(w.cols, x.len());
    (0..w.rows).map(|row| dot(&decode(w, row), x)).collect()
}

/// `x / sqrt(mean(x^2) + eps) * weight`
fn rms_normed(x: &[f64], weight: &[f64], eps: f32) -> Vec<f64> {
    let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

/// `x / sqrt(sum(x^2) + 1e-6)`
fn l2_normed(x: &[f64]) -> Vec<f64> {
    let scale = 1.0 / (dot(x, x) + 1e-6).sqrt();
    x.iter().map(|x| x * scale).collect()
}

/// Rotary embedding of the first `rotary_dim` dimensions.
fn rotated(shape: &AttentionShape, factors: Option<&OracleBuffer>, x: &[f64], pos: usize) -> Vec<f64> {
    let mut out = x.to_vec();
    let half = shape.rotary_dim / 2;
    for j in 0..half {
        let exponent = -2.0 * j as f64 / shape.rotary_dim as f64;
        let factor = factors.map_or(1.0, |factors| factors.0[j]);
        let angle = pos as f64 * f64::from(shape.rope_theta).powf(exponent) / factor;
        let (a, b) = match shape.pairing {
            RopePairing::Halves => (j, j + half),
            RopePairing::Adjacent => (2 * j, 2 * j + 1),
        };
        out[a] = x[a] * angle.cos() - x[b] * angle.sin();
        out[b] = x[b] * angle.cos() + x[a] * angle.sin();
    }
    out
}

/// `down(silu(gate x) * (up x))`
fn gated_mlp(weights: &ExpertWeights<'_>, x: &[f64]) -> Vec<f64> {
    let gate = mul_vec(&weights.gate, x);
    let up = mul_vec(&weights.up, x);
    let hidden: Vec<f64> = gate.iter().zip(&up).map(|(&gate, up)| silu(gate) * up).collect();
    mul_vec(&weights.down, &hidden)
}

/// One token of the gated delta rule for one value head: `state` is `[dk, dv]`; returns the output,
/// `[dv]`.
fn delta_rule(state: &mut [f64], q: &[f64], k: &[f64], v: &[f64], g: f64, beta: f64) -> Vec<f64> {
    let dv = v.len();
    state.iter_mut().for_each(|s| *s *= g.exp());
    let column = |state: &[f64], by: &[f64], j: usize| -> f64 {
        by.iter().enumerate().map(|(i, by)| state[i * dv + j] * by).sum()
    };
    let d: Vec<f64> = (0..dv).map(|j| beta * (v[j] - column(state, k, j))).collect();
    for (i, k) in k.iter().enumerate() {
        for (j, d) in d.iter().enumerate() {
            state[i * dv + j] += k * d;
        }
    }
    (0..dv).map(|j| column(state, q, j)).collect()
}

impl Backend for OracleBackend {
    type Buffer = OracleBuffer;
    type Matrix = HostMatrix;
    type KvCache = OracleKvCache;

    fn buffer(&mut self, len: usize) -> OracleBuffer {
        OracleBuffer(vec![0.0; len])
    }

    fn write(&mut self, dst: &mut OracleBuffer, at: usize, src: &[f32]) {
        for (dst, &src) in dst.0[at..][..src.len()].iter_mut().zip(src) {
            *dst = f64::from(src);
        }
    }

    fn read(&mut self, src: &OracleBuffer, at: usize, dst: &mut [f32]) {
        let src = &src.0[at..][..dst.len()];
        for (dst, &src) in dst.iter_mut().zip(src) {
            *dst = src as f32;
        }
    }

    fn clear(&mut self, dst: &mut OracleBuffer) {
        dst.0.fill(0.0);
    }

    fn copy(&mut self, src: &OracleBuffer, src_at: usize, dst: &mut OracleBuffer, dst_at: usize, len: usize) {
        dst.0[dst_at..][..len].copy_from_slice(&src.0[src_at..][..len]);
    }

    fn matrix(&mut self, data: HostMatrix) -> HostMatrix {
        data.view();
        data
    }

    fn kv_cache(&mut self, format: KvFormat, shape: &AttentionShape, ctx: usize) -> OracleKvCache {
        let values = vec![0.0; ctx * shape.kv_heads * shape.head_dim];
        OracleKvCache { format, kv_heads: shape.kv_heads, head_dim: shape.head_dim, values }
    }

    fn read_kv(&mut self, src: &OracleKvCache, row: usize, dst: &mut [f32]) {
        let values = &src.values[row * src.kv_heads * src.head_dim..][..dst.len()];
        for (dst, &x) in dst.iter_mut().zip(values) {
            *dst = x as f32;
        }
    }

    fn get_rows(&mut self, table: &HostMatrix, ids: &[u32], out: &mut OracleBuffer) {
        let table = table.view();
        for (out, &id) in out.0.chunks_exact_mut(table.cols).zip(ids) {
            out.copy_from_slice(&decode(&table, id as usize));
        }
    }

    fn rms_norm(
        &mut self,
        x: &OracleBuffer,
        weight: &OracleBuffer,
        eps: f32,
        n: usize,
        dim: usize,
        out: &mut OracleBuffer,
    ) {
        for i in 0..n {
            let row = i * dim..(i + 1) * dim;
            out.0[row.clone()].copy_from_slice(&rms_normed(&x.0[row], &weight.0, eps));
        }
    }

    fn mul_mat(&mut self, w: &HostMatrix, x: &OracleBuffer, n: usize, out: &mut OracleBuffer) {
        let w = w.view();
        for row in 0..w.rows {
            let decoded = decode(&w, row);
            for i in 0..n {
                out.0[i * w.rows + row] = dot(&decoded, &x.0[i * w.cols..][..w.cols]);
            }
        }
    }

    fn add_bias(&mut self, bias: &OracleBuffer, n: usize, dim: usize, out: &mut OracleBuffer) {
        for i in 0..n {
            for j in 0..dim {
                out.0[i * dim + j] += bias.0[j];
            }
        }
    }

    fn add(&mut self, y: &OracleBuffer, len: usize, x: &mut OracleBuffer) {
        for i in 0..len {
            x.0[i] += y.0[i];
        }
    }

    fn qk_norm_rope_store(
        &mut self,
        shape: &AttentionShape,
        pos: usize,
        n: usize,
        norms: Option<[&OracleBuffer; 2]>,
        rope_factors: Option<&OracleBuffer>,
        qg: &mut OracleBuffer,
        k: &mut OracleBuffer,
        v: &OracleBuffer,
        k_cache: &mut OracleKvCache,
        v_cache: &mut OracleKvCache,
    ) {
        let dim = shape.head_dim;
        let norm_and_rotate = |x: &mut [f64], weight: Option<&OracleBuffer>, t: usize| {
            let normed = weight.map_or(x.to_vec(), |weight| rms_normed(x, &weight.0, shape.eps));
            x.copy_from_slice(&rotated(shape, rope_factors, &normed, pos + t));
        };
        let [q_norm, k_norm] = [norms.map(|norms| norms[0]), norms.map(|norms| norms[1])];
        for t in 0..n {
            for head in 0..shape.heads {
                let query = &mut qg.0[(t * shape.heads + head) * shape.query_len()..][..dim];
                norm_and_rotate(query, q_norm, t);
            }
            for head in 0..shape.kv_heads {
                let at = (t * shape.kv_heads + head) * dim;
                norm_and_rotate(&mut k.0[at..][..dim], k_norm, t);
                let cached = at + pos * shape.kv_heads * dim;
                k_cache.store(cached, &k.0[at..][..dim]);
                v_cache.store(cached, &v.0[at..][..dim]);
            }
        }
    }

    fn gated_attention(
        &mut self,
        shape: &AttentionShape,
        pos: usize,
        n: usize,
        qg: &OracleBuffer,
        k_cache: &OracleKvCache,
        v_cache: &OracleKvCache,
        out: &mut OracleBuffer,
    ) {
        let dim = shape.head_dim;
        for t in 0..n {
            for head in 0..shape.heads {
                let kv_head = head / (shape.heads / shape.kv_heads);
                let len = shape.query_len();
                let (query, gate) = qg.0[(t * shape.heads + head) * len..][..len].split_at(dim);
                let cached = |p: usize| (p * shape.kv_heads + kv_head) * dim;
                let scores: Vec<f64> = (0..=pos + t)
                    .map(|p| dot(query, &k_cache.values[cached(p)..][..dim]) / (dim as f64).sqrt())
                    .collect();
                let max = scores.iter().fold(f64::NEG_INFINITY, |max, &score| max.max(score));
                let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
                for j in 0..dim {
                    let weighted: f64 = scores
                        .iter()
                        .enumerate()
                        .map(|(p, score)| (score - max).exp() / sum * v_cache.values[cached(p) + j])
                        .sum();
                    out.0[(t * shape.heads + head) * dim + j] =
                        weighted * gate.get(j).map_or(1.0, |&gate| sigmoid(gate));
                }
            }
        }
    }

    fn conv1d_silu(
        &mut self,
        shape: &DeltaNetShape,
        n: usize,
        weight: &OracleBuffer,
        u: &OracleBuffer,
        state: &mut OracleBuffer,
        out: &mut OracleBuffer,
    ) {
        let (channels, kernel) = (shape.conv_channels(), shape.conv_kernel);
        let past = (kernel - 1) * channels;
        let inputs = [&state.0[..past], &u.0[..n * channels]].concat();
        for t in 0..n {
            for c in 0..channels {
                let taps = (0..kernel).map(|j| weight.0[c * kernel + j] * inputs[(t + j) * channels + c]);
                out.0[t * channels + c] = silu(taps.sum());
            }
        }
        state.0[..past].copy_from_slice(&inputs[n * channels..]);
    }

    fn gated_delta_net(
        &mut self,
        shape: &DeltaNetShape,
        n: usize,
        qkv: &OracleBuffer,
        a: &OracleBuffer,
        b: &OracleBuffer,
        a_neg: &OracleBuffer,
        dt_bias: &OracleBuffer,
        state: &mut OracleBuffer,
        out: &mut OracleBuffer,
    ) {
        let (dk, dv) = (shape.key_dim, shape.value_dim);
        let keys = shape.key_heads * dk;
        for t in 0..n {
            let token = &qkv.0[t * shape.conv_channels()..][..shape.conv_channels()];
            // In the order of the states.
            for slot in 0..shape.value_heads {
                let group = shape.value_heads / shape.key_heads;
                let key_head = slot / group;
                let head = shape.value_head(key_head, slot % group);
                let mut q = l2_normed(&token[key_head * dk..][..dk]);
                q.iter_mut().for_each(|q| *q /= (dk as f64).sqrt());
                let k = l2_normed(&token[keys + key_head * dk..][..dk]);
                let v = &token[2 * keys + head * dv..][..dv];
                let at = t * shape.value_heads + head;
                let beta = sigmoid(b.0[at]);
                let g = a_neg.0[head] * softplus(a.0[at] + dt_bias.0[head]);
                let state = &mut state.0[slot * dk * dv..][..dk * dv];
                out.0[at * dv..][..dv].copy_from_slice(&delta_rule(state, &q, &k, v, g, beta));
            }
        }
    }

    fn gated_rms_norm(
        &mut self,
        z: &OracleBuffer,
        weight: &OracleBuffer,
        eps: f32,
        rows: usize,
        dim: usize,
        o: &mut OracleBuffer,
    ) {
        for (o, z) in o.0.chunks_exact_mut(dim).zip(z.0.chunks_exact(dim)).take(rows) {
            let normed = rms_normed(o, &weight.0, eps);
            for ((o, normed), &z) in o.iter_mut().zip(normed).zip(z) {
                *o = normed * silu(z);
            }
        }
    }

    fn shared_expert(
        &mut self,
        gate: &HostMatrix,
        up: &HostMatrix,
        down: &HostMatrix,
        gate_row: Option<&HostMatrix>,
        x: &OracleBuffer,
        n: usize,
        out: &mut OracleBuffer,
    ) {
        let (gate, up, down) = (gate.view(), up.view(), down.view());
        let (dim, weights) = (gate.cols, ExpertWeights { gate, up, down });
        for i in 0..n {
            let x = &x.0[i * dim..][..dim];
            let scale = gate_row.map_or(1.0, |row| sigmoid(mul_vec(&row.view(), x)[0]));
            for (j, y) in gated_mlp(&weights, x).into_iter().enumerate() {
                out.0[i * dim + j] = scale * y;
            }
        }
    }

    fn experts(&mut self, experts: &[ExpertRows<'_>], x: &OracleBuffer, out: &mut OracleBuffer) {
        for ExpertRows { weights, x_rows, out_rows } in experts {
            let dim = weights.gate.cols;
            for (&x_row, &out_row) in x_rows.iter().zip(*out_rows) {
                let y = gated_mlp(weights, &x.0[x_row as usize * dim..][..dim]);
                out.0[out_row as usize * dim..][..dim].copy_from_slice(&y);
            }
        }
    }

    fn moe_combine(
        &mut self,
        weights: &[f32],
        routed: &OracleBuffer,
        shared: &OracleBuffer,
        n: usize,
        k_len: usize,
        dim: usize,
        x: &mut OracleBuffer,
    ) {
        for i in 0..n {
            for j in 0..dim {
                let choices = i * k_len..(i + 1) * k_len;
                let sum: f64 = choices.map(|c| f64::from(weights[c]) * routed.0[c * dim + j]).sum();
                x.0[i * dim + j] += shared.0[i * dim + j] + sum;
            }
        }
    }
}
