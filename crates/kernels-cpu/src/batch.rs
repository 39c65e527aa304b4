//! Activation rows prepared for products, a few tokens at a time.

use tensor::Format;

use super::Context;
use super::pool::Chunks;
use crate::dot::Activations;

/// Tokens prepared together: their activations (2 to 4 KiB each at 8 bits) stay in the first-level
/// cache while the rows of a weight block pass by.
pub(super) const TOKENS_PER_BLOCK: usize = 16;

/// Rows of activations, in blocks of [`TOKENS_PER_BLOCK`].
#[derive(Default)]
pub(super) struct Batch {
    blocks: Vec<Activations>,
    n: usize,
}

impl Batch {
    /// Calls `prepare(block, first row, rows)` for each block, in parallel.
    fn prepare_blocks(
        &mut self,
        context: &mut Context,
        n: usize,
        prepare: impl Fn(&mut Activations, usize, usize) + Sync,
    ) {
        self.n = n;
        let used = n.div_ceil(TOKENS_PER_BLOCK);
        while self.blocks.len() < used {
            self.blocks.push(Activations::new());
        }
        context.pool.run_parts(Chunks::new(&mut self.blocks[..used], 1), |block, activations| {
            let first = block * TOKENS_PER_BLOCK;
            prepare(&mut activations[0], first, TOKENS_PER_BLOCK.min(n - first));
        });
    }

    /// Prepares the first `n` rows of `x`, `[_, cols]`, for weights of `format`.
    pub(super) fn prepare(
        &mut self,
        context: &mut Context,
        format: Format,
        x: &[f32],
        n: usize,
        cols: usize,
    ) {
        let kernels = context.ops;
        self.prepare_blocks(context, n, |block, first, len| {
            block.prepare(kernels, format, &x[first * cols..][..len * cols], len, cols);
        });
    }

    /// Prepares the rows of `x`, `[_, cols]`, that `rows` names.
    pub(super) fn prepare_rows(
        &mut self,
        context: &mut Context,
        format: Format,
        x: &[f32],
        rows: &[u32],
        cols: usize,
    ) {
        let kernels = context.ops;
        self.prepare_blocks(context, rows.len(), |block, first, len| {
            block.prepare_rows(kernels, format, x, &rows[first..][..len], cols);
        });
    }

    /// The blocks, each with the number of its first row.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, &Activations)> {
        let used = self.n.div_ceil(TOKENS_PER_BLOCK);
        self.blocks[..used].iter().enumerate().map(|(block, rows)| (block * TOKENS_PER_BLOCK, rows))
    }
}
