//! The identity of a plan: what decides whether an unfinished container may be resumed.
//!
//! It covers the whole layout (names, shapes, formats, offsets), the small files' content, every
//! source extent, and a sample of the source's weights: 4 KiB from the middle of each dense tensor
//! and of the matrices of three experts a layer. So a fine-tune with the same shapes is another
//! plan, while the same model moved to another path is the same one. Reading the samples takes
//! about a thousand small reads.

use checkpoint::manifest::Checksum;
use xxhash_rust::xxh3::Xxh3;

use super::disk::{FilePool, read_exact_at};
use super::error::PackError;
use super::layout::{Layout, Piece, UnitName};
use super::plan::PackPlan;

/// Hashes everything that decides the container's bytes.
pub(crate) fn fingerprint(
    plan: &PackPlan,
    layout: &Layout,
    sources: &FilePool,
) -> Result<Checksum, PackError> {
    let mut hash = Xxh3::new();
    let no_checksums = vec![0; layout.units.len()];
    let manifest = layout.manifest(Checksum(0), &no_checksums);
    let manifest = manifest.to_bytes().map_err(|e| PackError::plan("manifest", "a manifest", e))?;
    hash.update(&manifest);
    for path in &plan.source_files {
        let name = path.file_name().unwrap_or_default();
        let bytes = std::fs::metadata(path).map_err(|e| PackError::io(path, "find the size", e))?;
        hash.update(name.as_encoded_bytes());
        hash.update(&bytes.len().to_le_bytes());
    }
    for unit in &layout.units {
        for (index, piece) in unit.pieces.iter().enumerate() {
            hash.update(piece.source_format.name().as_bytes());
            hash.update(&piece.source.file.to_le_bytes());
            hash.update(&piece.source.offset.to_le_bytes());
            hash.update(&piece.source.bytes.to_le_bytes());
            if is_sampled(plan, unit.name) {
                hash.update(&sample(piece, sources, || layout.label(unit, index))?);
            }
        }
    }
    Ok(Checksum(hash.digest()))
}

/// Whether the weights of a unit are looked at: dense tensors and each layer's first, middle and
/// last expert.
fn is_sampled(plan: &PackPlan, name: UnitName) -> bool {
    let UnitName::Expert { layer, expert } = name else { return true };
    let item = plan.layers.iter().find(|item| item.layer == layer);
    let count = item.map_or(0, |item| item.source.extents.len());
    expert == 0 || expert == count / 2 || expert + 1 == count
}

/// At most [`SAMPLE_BYTES`] from the middle of a matrix.
fn sample(piece: &Piece, sources: &FilePool, label: impl Fn() -> String) -> Result<Vec<u8>, PackError> {
    let bytes = piece.source.bytes.min(SAMPLE_BYTES);
    let offset = piece.source.offset + (piece.source.bytes - bytes) / 2;
    // The layout bounds file numbers by the number of source files.
    let index = piece.source.file as usize;
    let read = |source| PackError::Read {
        path: sources.path(index).to_path_buf(),
        item: label(),
        offset,
        expected: bytes,
        source,
    };
    let mut sample = vec![0; bytes as usize];
    let file = sources.file(index).map_err(read)?;
    read_exact_at(&file, &mut sample, offset).map_err(read)?;
    Ok(sample)
}

/// Weights that are looked at per matrix.
const SAMPLE_BYTES: u64 = 4096;
