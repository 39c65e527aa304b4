//! The ops in plain f64, straight from the model's specification: the reference that every back-end
//! is compared with.
//!
//! Nothing is shared with the CPU implementation but the scalar codecs of `tensor`, and nothing is
//! fused, blocked or reordered. Values stay f64 from op to op, so a model run on the oracle is a
//! float64 run.

use tensor::MatrixView;

use crate::{
    Attention, AttentionShape, Backend, Combine, DeltaNet, ExpertRows, ExpertWeights, Footprint, HostMatrix,
    KvFormat, Mlp, Need, NormProducts, OpError, OutputProduct, PAGE_TOKENS, RopePairing, Rows,
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

/// A pool of keys or values, `[pages, PAGE_TOKENS, kv_heads, head_dim]`: what their format makes of them, in f64.
#[derive(Clone, Debug)]
pub struct OracleKvPool {
    format: KvFormat,
    kv_heads: usize,
    head_dim: usize,
    values: Vec<f64>,
}

impl OracleKvPool {
    /// Where one head of position `pos` of a sequence with these pages lies.
    fn at(&self, pages: &[u32], pos: usize, head: usize) -> usize {
        let row = pages[pos / PAGE_TOKENS] as usize * PAGE_TOKENS + pos % PAGE_TOKENS;
        (row * self.kv_heads + head) * self.head_dim
    }

    fn page_len(&self) -> usize {
        PAGE_TOKENS * self.kv_heads * self.head_dim
    }

    /// Stores one head at element `at`.
    fn store(&mut self, at: usize, head: &[f64]) {
        let stored = &mut self.values[at..][..self.head_dim];
        match self.format {
            KvFormat::F32 => stored.copy_from_slice(head), // Without rounding, for a run in float64.
            format => stored.copy_from_slice(&decoded(format, &encoded(format, head))[..head.len()]),
        }
    }
}

/// A head in a pool's format, its last block filled up with zeros.
fn encoded(format: KvFormat, head: &[f64]) -> Vec<u8> {
    let mut padded: Vec<f32> = head.iter().map(|&x| x as f32).collect();
    padded.resize(format.head_len(head.len()), 0.0);
    let mut bytes = vec![0; format.head_bytes(head.len())];
    let coded = format.format().encode_row(&padded, &mut bytes);
    coded.unwrap_or_else(|error| panic!("a head of a cache: {error}"));
    bytes
}

/// What [`encoded`] made, with the zeros.
fn decoded(format: KvFormat, bytes: &[u8]) -> Vec<f64> {
    let block = format.format();
    let mut values = vec![0.0; bytes.len() / block.block_bytes() * block.block_len()];
    let decoded = block.decode_row(bytes, &mut values);
    decoded.unwrap_or_else(|error| panic!("a head of a cache: {error}"));
    values.into_iter().map(f64::from).collect()
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

/// `out[i] = w @ x[i]`
fn products(w: &MatrixView<'_>, x: &[f64], n: usize, out: &mut [f64]) {
    for row in 0..w.rows {
        let decoded = decode(w, row);
        for i in 0..n {
            out[i * w.rows + row] = dot(&decoded, &x[i * w.cols..][..w.cols]);
        }
    }
}

/// Each row of `bias.len()` values plus the bias.
fn add_bias(bias: &[f64], n: usize, out: &mut [f64]) {
    for row in out.chunks_exact_mut(bias.len()).take(n) {
        row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
}

/// Norms, rotates and stores the new positions of one sequence.
fn store_rows(op: &mut Attention<'_, OracleBackend>, rows: &Rows) {
    let (shape, dim, pages) = (op.shape, op.shape.head_dim, op.batch.pages_of(rows));
    let norm_and_rotate = |x: &mut [f64], weight: Option<&OracleBuffer>, pos: usize| {
        let normed = weight.map_or(x.to_vec(), |weight| rms_normed(x, &weight.0, shape.eps));
        x.copy_from_slice(&rotated(shape, op.rope_factors, &normed, pos));
    };
    let [q_norm, k_norm] = [0, 1].map(|which| op.norms.map(|norms| norms[which]));
    for (t, pos) in (rows.first()..rows.end()).zip(rows.pos()..) {
        for head in 0..shape.heads {
            let query = &mut op.qg.0[(t * shape.heads + head) * shape.query_len()..][..dim];
            norm_and_rotate(query, q_norm, pos);
        }
        for head in 0..shape.kv_heads {
            let new = (t * shape.kv_heads + head) * dim;
            norm_and_rotate(&mut op.k.0[new..][..dim], k_norm, pos);
            let at = op.keys.at(pages, pos, head);
            op.keys.store(at, &op.k.0[new..][..dim]);
            op.values.store(at, &op.v.0[new..][..dim]);
        }
    }
}

/// Attention of one head of row `t`, at position `pos` of its sequence.
fn attend(op: &mut Attention<'_, OracleBackend>, pages: &[u32], (t, pos): (usize, usize), head: usize) {
    let (shape, dim) = (op.shape, op.shape.head_dim);
    let kv_head = head / (shape.heads / shape.kv_heads);
    let len = shape.query_len();
    let (query, gate) = op.qg.0[(t * shape.heads + head) * len..][..len].split_at(dim);
    let scores: Vec<f64> = (0..=pos)
        .map(|p| dot(query, &op.keys.values[op.keys.at(pages, p, kv_head)..][..dim]) / (dim as f64).sqrt())
        .collect();
    let max = scores.iter().fold(f64::NEG_INFINITY, |max, &score| max.max(score));
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    for j in 0..dim {
        let value = |p: usize| op.values.values[op.values.at(pages, p, kv_head) + j];
        let weighted: f64 =
            scores.iter().enumerate().map(|(p, score)| (score - max).exp() / sum * value(p)).sum();
        op.out.0[(t * shape.heads + head) * dim + j] =
            weighted * gate.get(j).map_or(1.0, |&gate| sigmoid(gate));
    }
}

/// Convolution and silu of one sequence's rows, from and to its slot.
fn convolve(op: &mut DeltaNet<'_, OracleBackend>, rows: &Rows) {
    let (channels, kernel) = (op.shape.conv_channels(), op.shape.conv_kernel);
    let past = (kernel - 1) * channels;
    let state = &mut op.conv_states.0[rows.state() * past..][..past];
    let inputs = [&*state, &op.u.0[rows.first() * channels..rows.end() * channels]].concat();
    for t in 0..rows.len() {
        for c in 0..channels {
            let taps = (0..kernel).map(|j| op.conv.0[c * kernel + j] * inputs[(t + j) * channels + c]);
            op.qkv.0[(rows.first() + t) * channels + c] = silu(taps.sum());
        }
    }
    state.copy_from_slice(&inputs[rows.len() * channels..]);
}

/// The gated delta rule over one sequence's rows, from and to its slot.
fn delta_rows(op: &mut DeltaNet<'_, OracleBackend>, rows: &Rows) {
    let (shape, dk, dv) = (op.shape, op.shape.key_dim, op.shape.value_dim);
    let keys = shape.key_heads * dk;
    for t in rows.first()..rows.end() {
        let token = &op.qkv.0[t * shape.conv_channels()..][..shape.conv_channels()];
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
            let beta = sigmoid(op.b.0[at]);
            let g = op.a_neg.0[head] * softplus(op.a.0[at] + op.dt_bias.0[head]);
            let state = rows.state() * shape.state_len() + slot * dk * dv;
            let state = &mut op.states.0[state..][..dk * dv];
            op.out.0[at * dv..][..dv].copy_from_slice(&delta_rule(state, &q, &k, v, g, beta));
        }
    }
}

impl Backend for OracleBackend {
    type Buffer = OracleBuffer;
    type Matrix = HostMatrix;
    type KvPool = OracleKvPool;

    fn footprint(&self, _: &Need<'_>) -> Footprint {
        Footprint::default() // The oracle is not for models that need a plan.
    }

    fn buffer(&mut self, len: usize) -> Result<OracleBuffer, OpError> {
        Ok(OracleBuffer(vec![0.0; len]))
    }

    fn matrix(&mut self, data: HostMatrix) -> Result<HostMatrix, OpError> {
        data.view();
        Ok(data)
    }

    fn kv_pool(
        &mut self,
        format: KvFormat,
        shape: &AttentionShape,
        pages: usize,
    ) -> Result<OracleKvPool, OpError> {
        let values = vec![0.0; pages * PAGE_TOKENS * shape.kv_heads * shape.head_dim];
        Ok(OracleKvPool { format, kv_heads: shape.kv_heads, head_dim: shape.head_dim, values })
    }

    fn write(&mut self, dst: &mut OracleBuffer, at: usize, src: &[f32]) {
        for (dst, &src) in dst.0[at..][..src.len()].iter_mut().zip(src) {
            *dst = f64::from(src);
        }
    }

    fn read_with<T>(
        &mut self,
        src: &OracleBuffer,
        at: usize,
        len: usize,
        reader: impl FnOnce(&[f32]) -> T,
    ) -> Result<T, OpError> {
        let values: Vec<f32> = src.0[at..][..len].iter().map(|&value| value as f32).collect();
        Ok(reader(&values))
    }

    fn clear(&mut self, dst: &mut OracleBuffer, at: usize, len: usize) {
        dst.0[at..][..len].fill(0.0);
    }

    fn copy(&mut self, src: &OracleBuffer, src_at: usize, dst: &mut OracleBuffer, dst_at: usize, len: usize) {
        dst.0[dst_at..][..len].copy_from_slice(&src.0[src_at..][..len]);
    }

    fn copy_within(&mut self, buffer: &mut OracleBuffer, from: usize, to: usize, len: usize) {
        buffer.0.copy_within(from..from + len, to);
    }

    fn copy_page(&mut self, pool: &mut OracleKvPool, from: usize, to: usize, tokens: usize) {
        let (page, len) = (pool.page_len(), tokens * pool.kv_heads * pool.head_dim);
        pool.values.copy_within(from * page..from * page + len, to * page);
    }

    fn read_page(&mut self, pool: &OracleKvPool, page: usize, out: &mut Vec<u8>) -> Result<(), OpError> {
        for head in pool.values[page * pool.page_len()..][..pool.page_len()].chunks_exact(pool.head_dim) {
            out.extend_from_slice(&encoded(pool.format, head));
        }
        Ok(())
    }

    fn write_page(&mut self, pool: &mut OracleKvPool, page: usize, bytes: &[u8]) {
        let (format, dim, len) = (pool.format, pool.head_dim, pool.page_len());
        let heads = pool.values[page * len..][..len].chunks_exact_mut(dim);
        for (head, bytes) in heads.zip(bytes.chunks_exact(format.head_bytes(dim))) {
            head.copy_from_slice(&decoded(format, bytes)[..dim]);
        }
    }

    fn get_rows(&mut self, table: &HostMatrix, ids: &[u32], out: &mut OracleBuffer, at: usize) {
        let table = table.view();
        for (out, &id) in out.0.chunks_exact_mut(table.cols).skip(at).zip(ids) {
            out.copy_from_slice(&decode(&table, id as usize));
        }
    }

    fn norm_products<const N: usize>(&mut self, op: NormProducts<'_, Self, N>) {
        let NormProducts { x, norm, n, h, products: list } = op;
        for i in 0..n {
            let row = i * norm.dim..(i + 1) * norm.dim;
            h.0[row.clone()].copy_from_slice(&rms_normed(&x.0[row], &norm.weight.0, norm.eps));
        }
        list.into_iter().for_each(|(w, out)| products(&w.view(), &h.0, n, &mut out.0));
    }

    fn attention(&mut self, mut op: Attention<'_, Self>) {
        let batch = *op.batch;
        if let Some([q, k, v]) = op.biases {
            add_bias(&q.0, batch.n, &mut op.qg.0);
            add_bias(&k.0, batch.n, &mut op.k.0);
            add_bias(&v.0, batch.n, &mut op.v.0);
        }
        for rows in batch.rows {
            store_rows(&mut op, rows);
            for row in (rows.first()..rows.end()).zip(rows.pos()..) {
                (0..op.shape.heads).for_each(|head| attend(&mut op, batch.pages_of(rows), row, head));
            }
        }
    }

    fn delta_net(&mut self, mut op: DeltaNet<'_, Self>) {
        for rows in op.batch.rows {
            convolve(&mut op, rows);
            delta_rows(&mut op, rows);
            if let Some(keep) = rows.keep {
                let past_len = (op.shape.conv_kernel - 1) * op.shape.conv_channels();
                for (pool, len) in [(&mut *op.conv_states, past_len), (&mut *op.states, op.shape.state_len())]
                {
                    let from = rows.state() * len;
                    pool.0.copy_within(from..from + len, keep as usize * len);
                }
            }
        }
    }

    fn output_product(&mut self, op: OutputProduct<'_, Self>) {
        if let Some(gated) = op.gated_norm {
            let dim = gated.norm.dim;
            let rows = op.input.0.chunks_exact_mut(dim).zip(gated.z.0.chunks_exact(dim));
            for (o, z) in rows.take(gated.rows) {
                let normed = rms_normed(o, &gated.norm.weight.0, gated.norm.eps);
                o.iter_mut().zip(normed).zip(z).for_each(|((o, normed), &z)| *o = normed * silu(z));
            }
        }
        let len = op.n * op.hidden;
        products(&op.w.view(), &op.input.0, op.n, &mut op.product.0);
        if let Some(bias) = op.bias {
            add_bias(&bias.0, op.n, &mut op.product.0);
        }
        op.x.0[..len].iter_mut().zip(&op.product.0).for_each(|(x, y)| *x += y);
    }

    fn mlp(&mut self, op: Mlp<'_, Self>) {
        let (gate, up, down) = (op.gate.view(), op.up.view(), op.down.view());
        let (dim, weights) = (gate.cols, ExpertWeights { gate, up, down });
        for i in 0..op.n {
            let x = &op.x.0[i * dim..][..dim];
            let scale = op.gate_row.map_or(1.0, |row| sigmoid(mul_vec(&row.view(), x)[0]));
            for (j, y) in gated_mlp(&weights, x).into_iter().enumerate() {
                op.out.0[i * dim + j] = scale * y;
            }
        }
    }

    fn add(&mut self, y: &OracleBuffer, len: usize, x: &mut OracleBuffer) {
        x.0[..len].iter_mut().zip(&y.0).for_each(|(x, y)| *x += y);
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

    fn combine(&mut self, op: Combine<'_, Self>) {
        let Combine { weights, routed, shared, n, k_len, dim, x } = op;
        for i in 0..n {
            for j in 0..dim {
                let choices = i * k_len..(i + 1) * k_len;
                let sum: f64 = choices.map(|c| f64::from(weights[c]) * routed.0[c * dim + j]).sum();
                x.0[i * dim + j] += shared.map_or(0.0, |shared| shared.0[i * dim + j]) + sum;
            }
        }
    }
}
