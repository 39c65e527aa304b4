//! Keys or values of all sequences, in pages, in the format that was chosen for them.
//!
//! A row is a token, and a page [`PAGE_TOKENS`] rows: `[kv_heads, head_dim]`, each head stored by itself. f32 is used where it lies;
//! other formats are decoded into scratch by those who need them, to the same values on every
//! instruction set.

use tensor::blocks::BlockQ8_0;

use super::f32_ops::{F32Ops, Rows};
use super::pool::Chunks;
use super::{Context, zeroed};
use ops::{AttentionShape, Batch, KvFormat, OpError, PAGE_TOKENS, page_parts};

/// Rows of one task when a prompt is stored.
const ROWS_PER_TASK: usize = 16;
/// A block of q8_0 whose values are all NaN: the scale's bits, and codes other than zero.
const NAN_Q8_0: [u8; BLOCK_BYTES] = {
    let mut block = [1; BLOCK_BYTES];
    [block[0], block[1]] = 0x7E00_u16.to_le_bytes();
    block
};
const BLOCK_LEN: usize = 32;
const BLOCK_BYTES: usize = size_of::<BlockQ8_0>();

/// Keys, or values, of one layer: `[pages, PAGE_TOKENS, kv_heads, head_dim]`.
#[derive(Clone, Debug)]
pub struct CpuKvPool {
    format: KvFormat,
    heads: usize,
    head_dim: usize,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    F32(Vec<f32>),
    Encoded(Vec<u8>),
}

impl CpuKvPool {
    /// All zeros; the system gives the memory of a page when it is first written.
    pub(super) fn new(format: KvFormat, shape: &AttentionShape, pages: usize) -> Result<Self, OpError> {
        let (heads, head_dim) = (shape.kv_heads, shape.head_dim);
        let rows = pages * PAGE_TOKENS;
        let data = match format {
            KvFormat::F32 => Data::F32(zeroed(rows * heads * head_dim, "keys and values")?),
            _ => Data::Encoded(zeroed(rows * heads * format.head_bytes(head_dim), "keys and values")?),
        };
        Ok(CpuKvPool { format, heads, head_dim, data })
    }

    /// Bytes that [`CpuKvPool::new`] takes.
    pub(super) fn bytes(format: KvFormat, shape: &AttentionShape, pages: usize) -> u64 {
        (pages * PAGE_TOKENS * shape.kv_heads) as u64 * format.head_bytes(shape.head_dim) as u64
    }

    /// Stores `values`, `[n, kv_heads, head_dim]`, at the positions of the batch's rows.
    pub(super) fn store(&mut self, context: &mut Context, batch: &Batch<'_>, values: &[f32]) {
        let row_len = self.heads * self.head_dim;
        for rows in batch.rows {
            let pages = batch.pages_of(rows);
            for (row, page, start, tokens) in page_parts(rows.pos(), rows.len()) {
                let values = &values[(rows.first() + row) * row_len..][..tokens * row_len];
                self.store_rows(context, pages[page] as usize * PAGE_TOKENS + start, values);
            }
        }
    }

    /// Stores `values`, `[n, kv_heads, head_dim]`, as rows `row..row + n`.
    fn store_rows(&mut self, context: &mut Context, row: usize, values: &[f32]) {
        let (heads, dim, format, ops) = (self.heads, self.head_dim, self.format, context.ops);
        let head_bytes = format.head_bytes(dim);
        match &mut self.data {
            Data::F32(data) => data[row * heads * dim..][..values.len()].copy_from_slice(values),
            Data::Encoded(bytes) => {
                let stored = values.len() / dim * head_bytes;
                let tasks = Chunks::new(
                    &mut bytes[row * heads * head_bytes..][..stored],
                    ROWS_PER_TASK * heads * head_bytes,
                );
                context.pool.run_parts(tasks, |task, rows| {
                    let values = &values[task * ROWS_PER_TASK * heads * dim..];
                    for (values, head) in values.chunks_exact(dim).zip(rows.chunks_exact_mut(head_bytes)) {
                        encode(format, ops, values, head);
                    }
                });
            }
        }
    }

    /// Copies the first `tokens` rows of page `from` to page `to`.
    pub(super) fn copy_page(&mut self, from: usize, to: usize, tokens: usize) {
        let rows = |page: usize| page * PAGE_TOKENS;
        match &mut self.data {
            Data::F32(data) => {
                let row = self.heads * self.head_dim;
                data.copy_within(rows(from) * row..(rows(from) + tokens) * row, rows(to) * row);
            }
            Data::Encoded(bytes) => {
                let row = self.heads * self.format.head_bytes(self.head_dim);
                bytes.copy_within(rows(from) * row..(rows(from) + tokens) * row, rows(to) * row);
            }
        }
    }

    fn page_bytes(&self) -> usize {
        PAGE_TOKENS * self.heads * self.format.head_bytes(self.head_dim)
    }

    /// Appends a page as it is stored.
    pub(super) fn read_page(&self, page: usize, out: &mut Vec<u8>) {
        let len = self.page_bytes();
        match &self.data {
            Data::F32(data) => {
                let values = &data[page * len / size_of::<f32>()..][..len / size_of::<f32>()];
                values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
            }
            Data::Encoded(bytes) => out.extend_from_slice(&bytes[page * len..][..len]),
        }
    }

    /// Sets a page to what [`CpuKvPool::read_page`] gave.
    pub(super) fn write_page(&mut self, page: usize, stored: &[u8]) {
        let len = self.page_bytes();
        match &mut self.data {
            Data::F32(data) => {
                let values = &mut data[page * len / size_of::<f32>()..][..len / size_of::<f32>()];
                for (value, bytes) in values.iter_mut().zip(stored.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Data::Encoded(bytes) => bytes[page * len..][..len].copy_from_slice(&stored[..len]),
        }
    }

    /// Values between the starts of two rows that [`CpuKvPool::decode`] wrote.
    pub(super) fn decoded_stride(&self) -> usize {
        self.format.head_len(self.head_dim)
    }

    /// Rows from `row` on of one head, if they can be used where they lie.
    pub(super) fn rows(&self, row: usize, head: usize) -> Option<Rows<'_>> {
        match &self.data {
            Data::F32(data) => {
                let stride = self.heads * self.head_dim;
                Some(Rows::new(&data[row * stride + head * self.head_dim..], stride))
            }
            Data::Encoded(_) => None,
        }
    }

    /// Writes rows from `row` on of one head to `out`, as many as it holds: each takes
    /// [`CpuKvPool::decoded_stride`], of which the first `head_dim` count.
    pub(super) fn decode(&self, ops: F32Ops, row: usize, head: usize, out: &mut [f32]) {
        let len = self.decoded_stride();
        let bytes = match &self.data {
            Data::F32(data) => {
                for (i, out) in out.chunks_exact_mut(len).enumerate() {
                    out.copy_from_slice(&data[((row + i) * self.heads + head) * len..][..len]);
                }
                return;
            }
            Data::Encoded(bytes) => bytes,
        };
        let head_bytes = self.format.head_bytes(self.head_dim);
        let (bytes, stride) = (&bytes[(row * self.heads + head) * head_bytes..], self.heads * head_bytes);
        match self.format {
            KvFormat::F32 => unreachable!("f32 is stored as it is"),
            KvFormat::F16 => ops.decode_f16(bytes, stride, len, out),
            KvFormat::Q8_0 => ops.decode_q8_0(bytes, stride, len, out),
        }
    }

    /// Decoded rows from `row` on, `[rows, kv_heads, head_dim]`.
    #[cfg(test)]
    pub(super) fn read(&self, ops: F32Ops, row: usize, dst: &mut [f32]) {
        let mut decoded = vec![0.0; self.decoded_stride()];
        for (i, dst) in dst.chunks_exact_mut(self.head_dim).enumerate() {
            self.decode(ops, row + i / self.heads, i % self.heads, &mut decoded);
            dst.copy_from_slice(&decoded[..self.head_dim]);
        }
    }
}

/// One head.
fn encode(format: KvFormat, ops: F32Ops, values: &[f32], out: &mut [u8]) {
    match format {
        KvFormat::F32 => unreachable!("f32 is stored as it is"),
        KvFormat::F16 => ops.encode_f16(values, out),
        KvFormat::Q8_0 => {
            for (values, block) in values.chunks(BLOCK_LEN).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
                encode_q8_0(format, values, block);
            }
        }
    }
}

/// One block; the values that it lacks are zeros. A value that no code stands for must not vanish:
/// it makes the whole block NaN.
fn encode_q8_0(format: KvFormat, values: &[f32], block: &mut [u8]) {
    let mut padded = [0.0; BLOCK_LEN];
    padded[..values.len()].copy_from_slice(values);
    if format.format().encode_row(&padded, block).is_err() {
        block.copy_from_slice(&NAN_Q8_0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CpuBackend, CpuOptions, Isa};
    use ops::RopePairing;
    use ops::conformance::numbers;

    const SHAPE: AttentionShape = AttentionShape {
        heads: 4,
        kv_heads: 3,
        head_dim: 43,
        rotary_dim: 8,
        rope_theta: 1e4,
        pairing: RopePairing::Halves,
        gated: true,
        eps: 1e-6,
    };
    const ROW: usize = SHAPE.kv_heads * SHAPE.head_dim;

    fn stored(isa: Isa, threads: usize, format: KvFormat, values: &[f32]) -> Vec<f32> {
        let mut backend = CpuBackend::new(CpuOptions { threads, isa: Some(isa) }).unwrap();
        let rows = values.len() / ROW;
        let mut cache = CpuKvPool::new(format, &SHAPE, (rows + 2).div_ceil(PAGE_TOKENS)).unwrap();
        cache.store_rows(&mut backend.context, 1, values);
        let mut read = vec![1.0; (rows + 2) * ROW];
        cache.read(backend.context.ops, 0, &mut read);
        let (before, rest) = read.split_at(ROW);
        let (read, after) = rest.split_at(values.len());
        assert!(before.iter().chain(after).all(|&x| x == 0.0), "rows around those that were stored");
        read.to_vec()
    }

    #[test]
    fn what_is_stored_is_what_the_codec_makes_of_it() {
        let values = numbers(1, 50 * ROW, 3.0);
        for isa in [Isa::Scalar, Isa::detect()] {
            assert!(stored(isa, 2, KvFormat::F32, &values) == values);
            for format in [KvFormat::F16, KvFormat::Q8_0] {
                let got = stored(isa, 2, format, &values);
                assert!(got == stored(isa, 1, format, &values), "threads");
                let codec = format.format();
                for (values, got) in values.chunks(SHAPE.head_dim).zip(got.chunks(SHAPE.head_dim)) {
                    let mut padded = values.to_vec();
                    padded.resize(format.head_len(values.len()), 0.0);
                    let mut bytes = vec![0; format.head_bytes(values.len())];
                    codec.encode_row(&padded, &mut bytes).unwrap();
                    codec.decode_row(&bytes, &mut padded).unwrap();
                    assert_eq!(&padded[..values.len()], got, "{format} {isa:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_does_not_vanish() {
        for isa in [Isa::Scalar, Isa::detect()] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for &format in KvFormat::ALL {
                    let mut values = vec![0.0; ROW];
                    values[50] = bad;
                    let got = stored(isa, 1, format, &values);
                    assert!(!got[50].is_finite(), "{bad} as {format}: {}", got[50]);
                    assert_eq!(got[..43], values[..43], "other heads stay as they are");
                }
            }
            assert_eq!(stored(isa, 1, KvFormat::F16, &[-1e6; ROW])[0], -65504.0);
        }
    }
}
