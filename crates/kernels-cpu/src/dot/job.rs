//! What an instruction set is asked for: types that the kernels and what chooses among them share.

use tensor::Format;

/// Codes that share a sum, in rows for blocks of 256.
pub(crate) const SUM_LEN: usize = 16;
/// Sums of one block of 256.
pub(crate) const SUMS: usize = 256 / SUM_LEN;

/// Products of weight rows with activation rows: at least one weight row, one activation row and
/// one column, shapes checked.
pub(crate) struct Job<'a> {
    pub(crate) format: Format,
    /// Whole rows.
    pub(crate) weights: &'a [u8],
    pub(crate) row_bytes: usize,
    pub(crate) acts: ActivationRows<'a>,
}

impl<'a> Job<'a> {
    /// The weight rows one by one.
    pub(crate) fn weight_rows(&self) -> std::slice::ChunksExact<'a, u8> {
        self.weights.chunks_exact(self.row_bytes)
    }
}

/// Activation rows as they were prepared; what their class does not have is empty.
#[derive(Copy, Clone)]
pub(crate) struct ActivationRows<'a> {
    pub(crate) n: usize,
    pub(crate) cols: usize,
    /// [n, cols], for float weights.
    pub(crate) values: &'a [f32],
    /// [n, cols], for quantised weights.
    pub(crate) codes: &'a [i8],
    /// [n, cols / block]: an activation is `scale * code`.
    pub(crate) scales: &'a [f32],
    /// [n, cols / 32], for blocks of 32: the sums of the activations of a block.
    pub(crate) block_sums: &'a [f32],
    /// [n, cols / 256], for blocks of 256: the sums of codes 0..16, 32..48, 64..80 … of a block,
    /// then those of 16..32, 48..64 …, which is the order in which two 128-bit halves of a vector
    /// use them.
    pub(crate) sums: &'a [[i16; SUMS]],
}

/// One row for blocks of 32.
#[derive(Copy, Clone)]
pub(crate) struct Row32<'a> {
    pub(crate) codes: &'a [[i8; 32]],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [f32],
}

/// One row for blocks of 256.
#[derive(Copy, Clone)]
pub(crate) struct Row256<'a> {
    pub(crate) codes: &'a [[i8; 256]],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [[i16; SUMS]],
}

impl<'a> ActivationRows<'a> {
    /// Rows.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Row `t` for float weights.
    pub(crate) fn values(&self, t: usize) -> &'a [f32] {
        &self.values[t * self.cols..(t + 1) * self.cols]
    }

    /// Row `t` for blocks of 32.
    pub(crate) fn row_32(&self, t: usize) -> Row32<'a> {
        let blocks = self.cols / 32;
        Row32 {
            codes: self.codes[t * self.cols..(t + 1) * self.cols].as_chunks().0,
            scales: &self.scales[t * blocks..(t + 1) * blocks],
            sums: &self.block_sums[t * blocks..(t + 1) * blocks],
        }
    }

    /// Row `t` for blocks of 256.
    pub(crate) fn row_256(&self, t: usize) -> Row256<'a> {
        let blocks = self.cols / 256;
        Row256 {
            codes: self.codes[t * self.cols..(t + 1) * self.cols].as_chunks().0,
            scales: &self.scales[t * blocks..(t + 1) * blocks],
            sums: &self.sums[t * blocks..(t + 1) * blocks],
        }
    }
}

/// Calls `$tile::<T>(…, first token)` for tiles of `$most` activation rows and then for the rest:
/// `$most` is 4.
macro_rules! for_token_tiles {
    ($n:expr, $t:ident => $tile:ident($($argument:expr),*)) => {{
        let n: usize = $n;
        for $t in (0..n / 4 * 4).step_by(4) {
            $tile::<4>($($argument),*);
        }
        let $t = n / 4 * 4;
        match n % 4 {
            1 => $tile::<1>($($argument),*),
            2 => $tile::<2>($($argument),*),
            3 => $tile::<3>($($argument),*),
            _ => {}
        }
    }};
}
pub(crate) use for_token_tiles;
