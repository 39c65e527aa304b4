//! Attention over pages and the gated delta rule over slots: successive passes, one sequence alone and several at once.

use super::{F16_CACHE_TOLERANCE, F32_TOLERANCE, Outcome, QUANTISED_TOLERANCE, Suite, numbers};
use crate::{
    Attention, AttentionShape, Backend, Batch, DeltaNet, DeltaNetShape, KvFormat, PAGE_TOKENS, Phase,
    RopePairing, Rows, ValueHeadOrder,
};

/// Head layouts, and the numbers of tokens of successive calls. The longest history crosses several
/// blocks of keys.
const ATTENTION_SHAPES: &[(AttentionShape, &[usize])] = &[
    (attention_shape(4, 2, 16, 8), &[5, 1, 1, 130, 1, 7, 126, 1]),
    (attention_shape(3, 3, 20, 6), &[1, 1, 3, 70]),
    (attention_shape(8, 1, 256, 64), &[2, 1, 140, 1]),
    (attention_shape(2, 2, 8, 8), &[300, 1]),
    (plain(attention_shape(9, 3, 64, 64), RopePairing::Adjacent), &[5, 1, 140, 1]),
    (plain(attention_shape(4, 1, 20, 12), RopePairing::Halves), &[1, 33]),
];

const fn attention_shape(
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotary_dim: usize,
) -> AttentionShape {
    let pairing = RopePairing::Halves;
    AttentionShape { heads, kv_heads, head_dim, rotary_dim, rope_theta: 1e7, pairing, gated: true, eps: 1e-6 }
}

/// Without gates.
const fn plain(shape: AttentionShape, pairing: RopePairing) -> AttentionShape {
    AttentionShape { gated: false, pairing, ..shape }
}

/// Head layouts, and the numbers of tokens of successive calls.
const DELTA_NET_SHAPES: &[(DeltaNetShape, &[usize])] = &[
    (delta_net_shape((2, 4), (16, 16), 4), &[1, 5, 70, 1, 16, 64, 15, 129]),
    (delta_net_shape((1, 3), (12, 20), 3), &[40, 1, 2]),
    (delta_net_shape((2, 4), (128, 128), 4), &[3, 100, 37]),
    (delta_net_shape((3, 3), (5, 7), 2), &[33]),
    (tiled(delta_net_shape((2, 6), (12, 20), 4)), &[5, 70, 1, 16]),
    (tiled(delta_net_shape((2, 4), (128, 128), 4)), &[3, 100]),
];

const fn tiled(shape: DeltaNetShape) -> DeltaNetShape {
    DeltaNetShape { value_head_order: ValueHeadOrder::Tiled, ..shape }
}

const fn delta_net_shape(heads: (usize, usize), dims: (usize, usize), conv_kernel: usize) -> DeltaNetShape {
    let ((key_heads, value_heads), (key_dim, value_dim)) = (heads, dims);
    let value_head_order = ValueHeadOrder::Grouped;
    DeltaNetShape { key_heads, value_heads, value_head_order, key_dim, value_dim, conv_kernel, eps: 1e-6 }
}

/// Rows of several sequences, as (tokens, chunked) of each, from the position that each has reached.
fn rows_of(steps: &[(usize, bool)], reached: &[usize], pages_each: usize) -> Vec<Rows> {
    let mut first = 0;
    let rows = steps.iter().zip(reached).enumerate().filter(|(_, ((n, _), _))| *n > 0);
    rows.map(|(seq, ((n, chunked), pos))| {
        let rows = Rows {
            first,
            len: *n as u32,
            pos: *pos as u32,
            phase: if *n == 1 { Phase::Decode } else { Phase::Prefill },
            chunked: *chunked,
            state: (2 - seq % 3) as u32, // Not in the order of the sequences.
            keep: (*n > 1).then_some(3),
            pages: ((seq * pages_each) as u32, pages_each as u32),
        };
        first += rows.len;
        rows
    })
    .collect()
}

/// Page numbers of `sequences` sequences, `each` a piece, interleaved: no sequence's pages lie side by side.
fn scattered(sequences: usize, each: usize) -> Vec<u32> {
    let page = |seq: usize, index: usize| (index * sequences + sequences - 1 - seq) as u32;
    (0..sequences).flat_map(|seq| (0..each).map(move |index| page(seq, index))).collect()
}

/// What one case of attention has: operands that do not change between passes.
struct AttentionCase<'a, B: Backend> {
    shape: &'a AttentionShape,
    format: KvFormat,
    norms: Option<[B::Buffer; 2]>,
    factors: Option<B::Buffer>,
    biases: Option<[B::Buffer; 3]>,
    pools: [B::KvPool; 2],
}

impl<B: Backend> Suite<'_, B> {
    pub(super) fn attention(&mut self) {
        for &format in KvFormat::ALL {
            for (shape, steps) in ATTENTION_SHAPES {
                let alone: Vec<Vec<usize>> = steps.iter().map(|n| vec![*n]).collect();
                self.attention_passes(format, shape, shape.gated, &alone);
                // Norms and gates come together in some models and one without the other in others.
                self.attention_passes(format, shape, !shape.gated, &alone[..2]);
            }
            let together = [vec![5, 130, 1], vec![1, 0, 1], vec![1, 1, 200], vec![127, 1, 1]];
            self.attention_passes(format, &attention_shape(4, 2, 16, 8), true, &together);
            self.far_along(format);
        }
    }

    fn attention_case<'a>(
        &mut self,
        format: KvFormat,
        shape: &'a AttentionShape,
        normed: bool,
        pages: usize,
    ) -> AttentionCase<'a, B> {
        let (dim, kv) = (shape.head_dim, shape.kv_heads * shape.head_dim);
        let factors = numbers(19, shape.rotary_dim / 2, 2.0).into_iter().map(f32::exp).collect::<Vec<_>>();
        let pool = |suite: &mut Self| {
            suite.backend.kv_pool(format, shape, pages).unwrap_or_else(|error| panic!("{error}"))
        };
        AttentionCase {
            shape,
            format,
            norms: normed.then(|| [self.random(16, dim, 2.0), self.random(17, dim, 2.0)]),
            factors: (!normed).then(|| self.buffer(&factors)),
            biases: (!normed).then(|| {
                let q = self.random(20, shape.heads * shape.query_len(), 1.0);
                [q, self.random(21, kv, 1.0), self.random(22, kv, 1.0)]
            }),
            pools: [pool(self), pool(self)],
        }
    }

    /// Passes over some sequences: `passes[i][s]` is the number of tokens of sequence s in pass i. Queries and keys are
    /// `normed`, or have biases and factors of their rotary frequencies.
    fn attention_passes(
        &mut self,
        format: KvFormat,
        shape: &AttentionShape,
        normed: bool,
        passes: &[Vec<usize>],
    ) {
        let sequences = passes[0].len();
        let total = |seq: usize| passes.iter().map(|pass| pass[seq]).sum::<usize>();
        let each = (0..sequences).map(total).max().unwrap_or(0).div_ceil(PAGE_TOKENS);
        let pages = scattered(sequences, each);
        let mut case = self.attention_case(format, shape, normed, pages.len() + 1);
        let mut reached = vec![0; sequences];
        for (pass, tokens) in passes.iter().enumerate() {
            let steps: Vec<(usize, bool)> = tokens.iter().map(|n| (*n, false)).collect();
            let rows = rows_of(&steps, &reached, each);
            let n = tokens.iter().sum();
            self.attention_pass(&mut case, 1000 + 10 * pass as u64, &Batch { n, rows: &rows, pages: &pages });
            reached.iter_mut().zip(tokens).for_each(|(reached, n)| *reached += n);
        }
        let last = reached[0] % PAGE_TOKENS;
        self.pages(&mut case, pages[0] as usize, pages.len(), last);
    }

    /// A few tokens far along in a pool whose pages were set.
    fn far_along(&mut self, format: KvFormat) {
        const POS: usize = 9000;
        let (shape, pages) = (attention_shape(4, 2, 8, 8), scattered(2, POS.div_ceil(PAGE_TOKENS)));
        let mut case = self.attention_case(format, &shape, true, pages.len());
        for (seed, pool) in case.pools.iter_mut().enumerate() {
            let values = numbers(80 + seed as u64, PAGE_TOKENS * shape.kv_heads * shape.head_dim, 2.0);
            let mut bytes = Vec::new();
            for head in values.chunks_exact(shape.head_dim) {
                let mut padded = head.to_vec();
                padded.resize(format.head_len(head.len()), 0.0);
                let mut coded = vec![0; format.head_bytes(head.len())];
                let result = format.format().encode_row(&padded, &mut coded);
                result.unwrap_or_else(|error| panic!("{error}"));
                bytes.append(&mut coded);
            }
            pages.iter().for_each(|page| self.backend.write_page(pool, *page as usize, &bytes));
        }
        let each = pages.len() / 2;
        for (seed, tokens) in [(82, [(1, false), (2, false)]), (92, [(3, false), (1, false)])] {
            let rows = rows_of(&tokens, &[POS, POS - 200], each);
            let n = tokens.iter().map(|(n, _)| n).sum();
            self.attention_pass(&mut case, seed, &Batch { n, rows: &rows, pages: &pages });
        }
    }

    fn attention_pass(&mut self, case: &mut AttentionCase<'_, B>, seed: u64, batch: &Batch<'_>) {
        let (shape, n) = (case.shape, batch.n);
        let (q_len, row) = (n * shape.heads * shape.query_len(), n * shape.kv_heads * shape.head_dim);
        let out_len = n * shape.heads * shape.head_dim;
        let mut qg = self.random(seed, q_len, 3.0);
        let (mut k, mut v) = (self.random(seed + 1, row, 3.0), self.random(seed + 2, row, 1.0));
        let mut out = self.random(seed + 3, out_len + 3, 1.0);
        let [keys, values] = &mut case.pools;
        self.backend.attention(Attention {
            shape,
            batch,
            biases: case.biases.as_ref().map(|[q, k, v]| [q, k, v]),
            norms: case.norms.as_ref().map(|[q, k]| [q, k]),
            rope_factors: case.factors.as_ref(),
            qg: &mut qg,
            k: &mut k,
            v: &mut v,
            keys,
            values,
            out: &mut out,
        });
        let (heads, dim, normed) = (shape.heads, shape.head_dim, case.norms.is_some());
        let at: Vec<(u32, u32)> = batch.rows.iter().map(|rows| (rows.len, rows.pos)).collect();
        let name = format!("attention {}, {heads} heads of {dim}, normed {normed}, {at:?}", case.format);
        self.keep(name, tolerance_of_pool(case.format), &out, out_len + 3);
    }

    /// A page that was written, its copy, one that was set to its bytes, and the page that nothing wrote to.
    fn pages(&mut self, case: &mut AttentionCase<'_, B>, page: usize, spare: usize, last: usize) {
        let format = case.format;
        for (which, tolerance) in [(0, tolerance_of_pool(format)), (1, tolerance_of_pool(format))] {
            let name =
                format!("pool {which} {format}, {} heads of {}", case.shape.kv_heads, case.shape.head_dim);
            let untouched = self.page_values(case, which, spare);
            self.outcomes.push(Outcome {
                name: format!("{name}, untouched"),
                tolerance: 0.0,
                values: untouched,
            });
            let written = self.page_values(case, which, page);
            self.backend.copy_page(&mut case.pools[which], page, spare, last);
            let copied = self.page_values(case, which, spare);
            let mut bytes = Vec::new();
            let read = self.backend.read_page(&case.pools[which], page, &mut bytes);
            read.unwrap_or_else(|error| panic!("{error}"));
            self.backend.write_page(&mut case.pools[which], spare, &bytes);
            assert_eq!(
                self.page_values(case, which, spare),
                written,
                "{name}: a page set to another's bytes"
            );
            self.outcomes.push(Outcome {
                name: format!("{name}, {last} tokens copied"),
                tolerance,
                values: copied,
            });
            self.outcomes.push(Outcome { name, tolerance, values: written });
        }
    }

    /// A page's values, decoded: `[PAGE_TOKENS, kv_heads, head_dim]`.
    fn page_values(&mut self, case: &AttentionCase<'_, B>, which: usize, page: usize) -> Vec<f32> {
        let (format, dim) = (case.format, case.shape.head_dim);
        let mut bytes = Vec::new();
        let read = self.backend.read_page(&case.pools[which], page, &mut bytes);
        read.unwrap_or_else(|error| panic!("{error}"));
        let mut head = vec![0.0; format.head_len(dim)];
        let mut values = Vec::new();
        for bytes in bytes.chunks_exact(format.head_bytes(dim)) {
            let decoded = format.format().decode_row(bytes, &mut head);
            decoded.unwrap_or_else(|error| panic!("{error}"));
            values.extend_from_slice(&head[..dim]);
        }
        assert_eq!(values.len(), PAGE_TOKENS * case.shape.kv_heads * dim, "a whole page");
        values
    }

    pub(super) fn delta_nets(&mut self) {
        for (shape, steps) in DELTA_NET_SHAPES {
            let passes: Vec<Vec<(usize, bool)>> = steps.iter().map(|n| vec![(*n, *n >= 16)]).collect();
            self.delta_net(shape, &passes);
        }
        let together = [
            vec![(5, false), (70, true), (1, false)],
            vec![(1, false), (0, false), (33, true)],
            vec![(64, true), (1, false), (1, true)],
        ];
        self.delta_net(&delta_net_shape((2, 4), (16, 16), 4), &together);
    }

    /// Passes over some sequences: `passes[i][s]` is the number of tokens of sequence s in pass i, and whether they are
    /// chunked.
    fn delta_net(&mut self, shape: &DeltaNetShape, passes: &[Vec<(usize, bool)>]) {
        let heads = shape.value_heads;
        let a_neg: Vec<f32> = numbers(50, heads, 1.5).into_iter().map(|a_log| -a_log.exp()).collect();
        let (a_neg, dt_bias) = (self.buffer(&a_neg), self.random(51, heads, 1.0));
        let conv = self.random(20, shape.conv_channels() * shape.conv_kernel, 1.0);
        let past = (shape.conv_kernel - 1) * shape.conv_channels();
        // From slow decay and small steps to saturated ones.
        for scale in [1.0, 8.0] {
            let mut states = self.random(52, 4 * shape.state_len(), 0.5);
            let mut conv_states = self.random(53, 4 * past, 1.0);
            let mut reached = vec![0; passes[0].len()];
            for (pass, steps) in passes.iter().enumerate() {
                let (seed, rows) = (2000 + 10 * pass as u64, rows_of(steps, &reached, 0));
                let n: usize = steps.iter().map(|(n, _)| n).sum();
                let u = self.random(seed, n * shape.conv_channels(), 2.0);
                let a = self.random(seed + 1, n * heads, scale);
                let b = self.random(seed + 2, n * heads, scale);
                let len = n * shape.value_len() + 3;
                let (mut qkv, mut out) =
                    (self.zeros(n * shape.conv_channels()), self.random(seed + 3, len, 1.0));
                self.backend.delta_net(DeltaNet {
                    shape,
                    batch: &Batch { n, rows: &rows, pages: &[] },
                    u: &u,
                    conv: &conv,
                    b: &b,
                    a: &a,
                    a_neg: &a_neg,
                    dt_bias: &dt_bias,
                    conv_states: &mut conv_states,
                    states: &mut states,
                    qkv: &mut qkv,
                    out: &mut out,
                });
                let (dk, dv, order) = (shape.key_dim, shape.value_dim, shape.value_head_order);
                let name = format!("delta_net {heads} {order:?} x {dk} x {dv}, {steps:?}, gates to {scale}");
                self.keep(name.clone(), F32_TOLERANCE, &out, len);
                self.keep(format!("{name}, states"), F32_TOLERANCE, &states, 4 * shape.state_len());
                self.keep(format!("{name}, last inputs"), 0.0, &conv_states, 4 * past);
                reached.iter_mut().zip(steps).for_each(|(reached, (n, _))| *reached += n);
            }
        }
    }
}

fn tolerance_of_pool(format: KvFormat) -> f64 {
    match format {
        KvFormat::F32 => F32_TOLERANCE,
        KvFormat::F16 => F16_CACHE_TOLERANCE,
        KvFormat::Q8_0 => QUANTISED_TOLERANCE,
    }
}
