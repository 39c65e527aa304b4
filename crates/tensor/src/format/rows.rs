//! What of a format can fail: its name, and rows of weights in it.

use std::str::FromStr;

use super::Format;
use crate::error::TensorError;

impl Format {
    /// The format with this name, in upper or lower case.
    ///
    /// # Errors
    /// [`TensorError::UnknownFormat`], which lists the known names.
    pub fn parse(s: &str) -> Result<Format, TensorError> {
        let found = Format::ALL.iter().find(|format| format.name().eq_ignore_ascii_case(s));
        found.copied().ok_or_else(|| TensorError::UnknownFormat {
            name: s.to_owned(),
            known: names(Format::ALL.iter()),
        })
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    /// If `cols` is no multiple of [`Format::block_len`], or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Result<usize, TensorError> {
        let block_len = self.block_len();
        if !cols.is_multiple_of(block_len) {
            let instead = self.for_cols(cols);
            return Err(TensorError::PartialBlock { format: self, block_len, cols, instead });
        }
        (cols / block_len).checked_mul(self.block_bytes()).ok_or(TensorError::SizeOverflow {
            format: self,
            rows: 1,
            cols,
        })
    }

    /// Decodes one row; the scalar oracle that every kernel is tested against.
    ///
    /// # Errors
    /// If `dst` is not a whole number of blocks, or `src` has another length than `dst.len()`
    /// weights take.
    pub fn decode_row(self, src: &[u8], dst: &mut [f32]) -> Result<(), TensorError> {
        self.check_row(dst.len(), src.len())?;
        (self.spec().decode)(src, dst);
        Ok(())
    }

    /// Encodes one row, deterministically. A magnitude beyond what the format's half-precision
    /// scale can express is saturated, never turned into an infinity.
    ///
    /// # Errors
    /// If weights cannot be stored in this format ([`Format::can_encode`]), if `src` is not a whole
    /// number of blocks or `dst` has not the length that it takes, and for
    /// the quantised formats if a weight is not finite. (The float formats store infinities and
    /// NaNs as they are.)
    pub fn encode_row(self, src: &[f32], dst: &mut [u8]) -> Result<(), TensorError> {
        let encode = self.spec().encode.ok_or_else(|| TensorError::NoEncoder {
            format: self,
            known: names(Format::ALL.iter().filter(|format| format.can_encode())),
        })?;
        self.check_row(src.len(), dst.len())?;
        if self.is_quantised()
            && let Some(index) = src.iter().position(|value| !value.is_finite())
        {
            return Err(TensorError::NotFinite { format: self, index, value: src[index] });
        }
        encode(src, dst);
        Ok(())
    }

    fn check_row(self, cols: usize, got: usize) -> Result<(), TensorError> {
        let expected = self.row_bytes(cols)?;
        if got != expected {
            return Err(TensorError::ByteLength { format: self, rows: 1, cols, expected, got });
        }
        Ok(())
    }
}

impl FromStr for Format {
    type Err = TensorError;

    fn from_str(s: &str) -> Result<Self, TensorError> {
        Format::parse(s)
    }
}

fn names<'a>(formats: impl Iterator<Item = &'a Format>) -> String {
    formats.map(|format| format.name()).collect::<Vec<_>>().join(" ")
}
