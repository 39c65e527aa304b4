//! One chunk of work: a run of rows from the source's format to the container's.
//!
//! A [`Grain`] is the least that can be encoded by itself: a byte when the formats are equal, one
//! weight when both are plain numbers, a row when either has blocks. Chunks are runs of whole
//! grains, and encoding a grain depends on nothing else, so the bytes do not depend on where the
//! chunks are cut.

use tensor::Format;

use super::layout::Piece;

/// What a matrix is cut into.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grain {
    /// Bytes of a grain in the source.
    pub(crate) source_bytes: u64,
    /// Bytes of a grain in the container.
    pub(crate) target_bytes: u64,
    /// Number of grains in the matrix.
    pub(crate) count: u64,
}

impl Grain {
    /// How `piece` is cut.
    pub(crate) fn of(piece: &Piece) -> Grain {
        let (from, to) = (piece.source_format, piece.format);
        if from == to {
            return Grain { source_bytes: 1, target_bytes: 1, count: piece.bytes };
        }
        if !from.is_quantised() && !to.is_quantised() {
            return Grain {
                source_bytes: from.block_bytes() as u64,
                target_bytes: to.block_bytes() as u64,
                // The layout checked that the matrix, and so the number of weights, fits.
                count: piece.rows * piece.cols as u64,
            };
        }
        // Rows that either format cannot hold were refused by the layout; an empty matrix has
        // rows of no bytes, or none.
        let rows = piece.rows.max(1);
        Grain { source_bytes: piece.source.bytes / rows, target_bytes: piece.bytes / rows, count: piece.rows }
    }

    /// Grains per chunk: at least one, else as many as stay within `chunk_bytes` on both sides.
    pub(crate) fn per_chunk(&self, chunk_bytes: u64) -> u64 {
        (chunk_bytes / self.source_bytes.max(self.target_bytes).max(1)).max(1)
    }
}

/// A weight that the target cannot hold, and where.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct BadWeight {
    pub(crate) weight: f32,
    pub(crate) limit: f32,
    /// First byte, in the chunk's source, of the row or run that has it.
    pub(crate) offset: u64,
}

/// Why a chunk cannot be encoded.
#[derive(Debug)]
pub(crate) enum TranscodeError {
    Weight(BadWeight),
    Codec(tensor::TensorError),
}

/// Encodes whole grains of `piece` from `source` into `target`, which has exactly their size.
pub(crate) fn transcode(
    piece: &Piece,
    source: &[u8],
    target: &mut [u8],
    row: &mut Vec<f32>,
) -> Result<(), TranscodeError> {
    let (from, to) = (piece.source_format, piece.format);
    if from == to {
        target.copy_from_slice(source);
        return Ok(());
    }
    let whole_rows = from.is_quantised() || to.is_quantised();
    let step_weights = if whole_rows { piece.cols } else { RUN_WEIGHTS };
    if step_weights == 0 || source.is_empty() {
        return Ok(());
    }
    let source_step = from.row_bytes(step_weights).map_err(TranscodeError::Codec)?;
    let target_step = to.row_bytes(step_weights).map_err(TranscodeError::Codec)?;
    let limit = magnitude_max(to);
    let steps = source.chunks(source_step).zip(target.chunks_mut(target_step));
    for (index, (source, target)) in steps.enumerate() {
        // Only the last run of plain numbers may be shorter than a step.
        let weights = if whole_rows { step_weights } else { source.len() / from.block_bytes().max(1) };
        row.resize(weights, 0.0);
        from.decode_row(source, row).map_err(TranscodeError::Codec)?;
        let bad = |weight: &&f32| weight.is_nan() || weight.abs() > limit;
        if let Some(&weight) = row.iter().find(bad) {
            let offset = (index * source_step) as u64;
            return Err(TranscodeError::Weight(BadWeight { weight, limit, offset }));
        }
        to.encode_row(row, target).map_err(TranscodeError::Codec)?;
    }
    Ok(())
}

/// Largest magnitude that is stored in a format. Quantised formats scale by half-precision numbers:
/// beyond those a block would silently saturate.
fn magnitude_max(format: Format) -> f32 {
    match format {
        Format::F32 | Format::BF16 => f32::MAX,
        _ => HALF_MAX,
    }
}

/// Largest finite half-precision number.
const HALF_MAX: f32 = 65504.0;
/// Weights converted at a time between plain formats.
const RUN_WEIGHTS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use checkpoint::Extent;

    use super::*;

    fn piece(from: Format, to: Format, rows: u64, cols: usize) -> Piece {
        let bytes = |format: Format| rows * format.row_bytes(cols).unwrap() as u64;
        let source = Extent { file: 0, offset: 0, bytes: bytes(from) };
        Piece { source, source_format: from, format: to, rows, cols, offset: 0, bytes: bytes(to) }
    }

    fn weights(count: usize) -> Vec<u8> {
        (0..count).flat_map(|i| ((i % 97) as f32 / 31.0 - 1.5).to_le_bytes()).collect()
    }

    #[test]
    fn grains_are_bytes_weights_or_rows() {
        let check = |from, to, expected: (u64, u64, u64)| {
            let grain = Grain::of(&piece(from, to, 3, 256));
            assert_eq!((grain.source_bytes, grain.target_bytes, grain.count), expected);
        };
        check(Format::BF16, Format::BF16, (1, 1, 3 * 512));
        check(Format::BF16, Format::F32, (2, 4, 3 * 256));
        check(Format::BF16, Format::Q4K, (512, 144, 3));
        assert_eq!(Grain::of(&piece(Format::F32, Format::Q8_0, 0, 32)).count, 0);
        assert_eq!(Grain::of(&piece(Format::F32, Format::Q8_0, 4, 256)).per_chunk(2048), 2);
        assert_eq!(Grain::of(&piece(Format::F32, Format::Q8_0, 4, 256)).per_chunk(1), 1);
    }

    #[test]
    fn the_cut_does_not_change_the_bytes() {
        for to in [Format::F32, Format::F16, Format::BF16, Format::Q8_0] {
            let piece = piece(Format::F32, to, 7, 64);
            let source = weights(7 * 64);
            let mut whole = vec![0; piece.bytes as usize];
            transcode(&piece, &source, &mut whole, &mut Vec::new()).unwrap();
            let grain = Grain::of(&piece);
            let mut cut = Vec::new();
            let step = grain.source_bytes as usize * if grain.count == 7 { 2 } else { 40 };
            for chunk in source.chunks(step) {
                let grains = chunk.len() / grain.source_bytes as usize;
                let mut target = vec![0; grains * grain.target_bytes as usize];
                transcode(&piece, chunk, &mut target, &mut Vec::new()).unwrap();
                cut.extend(target);
            }
            assert_eq!(whole, cut, "{to}");
        }
    }

    #[test]
    fn a_weight_that_does_not_fit_is_named() {
        let piece = piece(Format::F32, Format::Q8_0, 2, 32);
        for bad in [f32::NAN, f32::INFINITY, -1e6] {
            let mut source = weights(64);
            source[4 * 40..4 * 41].copy_from_slice(&bad.to_le_bytes());
            let mut target = vec![0; piece.bytes as usize];
            match transcode(&piece, &source, &mut target, &mut Vec::new()) {
                Err(TranscodeError::Weight(found)) => {
                    assert_eq!(found.weight.to_bits(), bad.to_bits());
                    assert_eq!(found.offset, 128);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
