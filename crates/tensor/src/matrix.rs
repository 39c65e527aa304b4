//! A borrowed matrix of encoded rows.

use crate::{Format, TensorError};

/// A matrix of `rows` x `cols` weights, rows contiguous, borrowed. The bytes need not be aligned to
/// anything.
///
/// The fields are public for reading; build one with [`MatrixView::new`], which checks that the
/// shape and the length agree.
#[derive(Copy, Clone, Debug)]
pub struct MatrixView<'a> {
    /// Format of every row.
    pub format: Format,
    /// Output features.
    pub rows: usize,
    /// Input features: weights in a row.
    pub cols: usize,
    /// `rows` rows of `format.row_bytes(cols)` bytes each.
    pub bytes: &'a [u8],
}

impl<'a> MatrixView<'a> {
    /// Borrows `bytes` as a matrix.
    ///
    /// # Errors
    /// If `cols` is no multiple of the format's block, or `bytes` has not exactly the length that
    /// the shape takes.
    pub fn new(format: Format, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, TensorError> {
        let expected = format.row_bytes(cols)?.checked_mul(rows).ok_or(TensorError::SizeOverflow {
            format,
            rows,
            cols,
        })?;
        if bytes.len() != expected {
            return Err(TensorError::ByteLength { format, rows, cols, expected, got: bytes.len() });
        }
        Ok(Self { format, rows, cols, bytes })
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        // Not bytes.len() / rows: a matrix without rows has a row size as well.
        self.cols / self.format.block_len() * self.format.block_bytes()
    }

    /// Bytes of row `r`.
    ///
    /// # Panics
    /// If `r` is not below `rows`.
    pub fn row(&self, r: usize) -> &'a [u8] {
        let len = self.row_bytes();
        &self.bytes[r * len..(r + 1) * len]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn checks_the_length_exactly() {
        let bytes = [0_u8; 2 * 36 * 2];
        assert!(MatrixView::new(Format::Q8_0, 2, 64, &bytes[..136]).is_ok());
        for wrong in [0, 135, 137, 144] {
            let got = MatrixView::new(Format::Q8_0, 2, 64, &bytes[..wrong]);
            assert!(matches!(got, Err(TensorError::ByteLength { expected: 136, .. })), "{wrong}: {got:?}");
        }
        assert!(matches!(
            MatrixView::new(Format::F32, usize::MAX / 8, 4, &bytes),
            Err(TensorError::SizeOverflow { .. })
        ));
    }

    #[test]
    fn rows_are_contiguous() {
        let bytes: Vec<u8> = (0..12).collect();
        let matrix = MatrixView::new(Format::F16, 3, 2, &bytes).unwrap();
        assert_eq!(matrix.row_bytes(), 4);
        assert_eq!(matrix.row(0), [0, 1, 2, 3]);
        assert_eq!(matrix.row(2), [8, 9, 10, 11]);
        let empty = MatrixView::new(Format::Q4K, 0, 512, &[]).unwrap();
        assert_eq!(empty.row_bytes(), 288);
    }
}
