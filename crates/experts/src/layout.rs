//! Where each expert's bytes lie, checked once so that nothing has to be checked later.
//!
//! The table comes from a model's files and is not trusted. After [`Layout::new`] every extent lies
//! in its file, every matrix in its extent, and every expert in a slot.

use std::sync::Arc;

use checkpoint::{ExpertTable, Extent, LayerExperts};
use storage::{FileId, Storage, Widened, widen_into};

use crate::{ExpertId, ExpertsError, PART_NAMES};

/// The checked table.
pub(crate) struct Layout {
    pub(crate) layers: Vec<Layer>,
    files: Vec<FileId>,
    block_bytes: usize,
    /// Memory of one slot.
    pub(crate) slot_bytes: usize,
    /// Numbers of all experts.
    pub(crate) numbering: Numbering,
    /// Experts of the layer that has most.
    pub(crate) experts_max: usize,
}

/// Numbers the experts of all layers, from 0.
#[derive(Clone)]
pub(crate) struct Numbering {
    /// [layer + 1]: number of the layer's first expert, and behind the last layer their number.
    firsts: Arc<[u32]>,
}

impl Numbering {
    /// The expert's number. The id must be of this model.
    pub(crate) fn record(&self, id: ExpertId) -> usize {
        self.firsts[id.layer as usize] as usize + id.expert as usize
    }

    /// Experts of all layers.
    pub(crate) fn record_count(&self) -> usize {
        self.firsts.last().map_or(0, |count| *count as usize)
    }
}

pub(crate) struct Layer {
    pub(crate) experts: LayerExperts,
    /// Length of the gate, up and down matrix.
    pub(crate) part_bytes: [usize; 3],
}

impl Layout {
    pub(crate) fn new(
        table: ExpertTable,
        files: &[FileId],
        storage: &dyn Storage,
    ) -> Result<Self, ExpertsError> {
        let block_bytes = storage.block_bytes();
        let slot_bytes = slot_bytes(&table, block_bytes)?;
        let lens_bytes = files
            .iter()
            .map(|file| storage.len_bytes(*file))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| ExpertsError::Storage { source })?;
        let mut layers = Vec::with_capacity(table.layers.len());
        let mut firsts = vec![0u32];
        let mut experts_max = 0;
        for (layer, experts) in table.layers.into_iter().enumerate() {
            check_checksum_count(layer, &experts)?;
            let part_bytes = part_bytes(layer, &experts)?;
            for (expert, extents) in experts.extents.iter().enumerate() {
                check_extents(layer, expert, extents, files, &lens_bytes, storage)?;
                check_parts(layer, expert, extents, &experts, &part_bytes)?;
            }
            let count = experts.extents.len();
            // Slots and experts are numbered in 32 bits.
            let next = u32::try_from(count).ok().and_then(|count| firsts[layer].checked_add(count));
            firsts.push(next.ok_or(ExpertsError::TooManyExperts)?);
            experts_max = experts_max.max(count);
            layers.push(Layer { experts, part_bytes });
        }
        let files = files.to_vec();
        let numbering = Numbering { firsts: firsts.into() };
        Ok(Layout { layers, files, block_bytes, slot_bytes, numbering, experts_max })
    }

    /// Experts of all layers.
    pub(crate) fn record_count(&self) -> usize {
        self.numbering.record_count()
    }

    /// Routed experts of one layer, 0 for a layer without any or beyond the last.
    pub(crate) fn layer_expert_count(&self, layer: u32) -> usize {
        self.layers.get(layer as usize).map_or(0, |layer| layer.experts.extents.len())
    }

    /// Layers that have routed experts.
    pub(crate) fn moe_layer_count(&self) -> usize {
        self.layers.iter().filter(|layer| !layer.experts.extents.is_empty()).count()
    }

    pub(crate) fn extents(&self, id: ExpertId) -> &[Extent] {
        &self.layers[id.layer as usize].experts.extents[id.expert as usize]
    }

    pub(crate) fn checksum(&self, id: ExpertId) -> Option<u64> {
        let checksums = self.layers[id.layer as usize].experts.checksums.as_ref()?;
        checksums.get(id.expert as usize).copied()
    }

    pub(crate) fn file(&self, extent: &Extent) -> FileId {
        self.files[extent.file as usize]
    }

    /// The reads of an expert, and where its extents then lie in the slot.
    pub(crate) fn reads(&self, id: ExpertId, target: &mut Widened) -> Result<(), ExpertsError> {
        let extents = self.extents(id).iter();
        let extents = extents.map(|extent| (self.file(extent), extent.offset, extent.bytes));
        widen_into(extents, self.block_bytes, target).map_err(|source| ExpertsError::Storage { source })
    }
}

/// Memory of a slot that any expert of the table fits into.
pub(crate) fn slot_bytes(table: &ExpertTable, block_bytes: usize) -> Result<usize, ExpertsError> {
    let mut widened = Widened::default();
    let mut slot_bytes = 0;
    for extents in table.layers.iter().flat_map(|layer| &layer.extents) {
        let ranges = extents.iter().map(|extent| (FileId(extent.file), extent.offset, extent.bytes));
        widen_into(ranges, block_bytes, &mut widened).map_err(|source| ExpertsError::Storage { source })?;
        slot_bytes = slot_bytes.max(widened.buf_bytes);
    }
    Ok(slot_bytes)
}

fn check_checksum_count(layer: usize, experts: &LayerExperts) -> Result<(), ExpertsError> {
    let expected = experts.extents.len();
    match experts.checksums.as_ref().map(Vec::len) {
        Some(got) if got != expected => Err(ExpertsError::ChecksumCount { layer, expected, got }),
        _ => Ok(()),
    }
}

fn part_bytes(layer: usize, experts: &LayerExperts) -> Result<[usize; 3], ExpertsError> {
    let mut part_bytes = [0; 3];
    for ((part, name), bytes) in experts.parts.iter().zip(PART_NAMES).zip(&mut part_bytes) {
        let row_bytes = part.format.row_bytes(part.cols).map_err(|source| ExpertsError::BadPart {
            layer,
            part: name,
            source,
        })?;
        *bytes = row_bytes.checked_mul(part.rows).ok_or(ExpertsError::PartTooLarge {
            layer,
            part: name,
            rows: part.rows,
        })?;
    }
    Ok(part_bytes)
}

fn check_extents(
    layer: usize,
    expert: usize,
    extents: &[Extent],
    files: &[FileId],
    lens_bytes: &[u64],
    storage: &dyn Storage,
) -> Result<(), ExpertsError> {
    for &Extent { file, offset, bytes } in extents {
        let index = file as usize;
        let (Some(id), Some(len_bytes)) = (files.get(index), lens_bytes.get(index)) else {
            return Err(ExpertsError::NoSuchFile { layer, expert, file, files: files.len() });
        };
        let got = len_bytes.saturating_sub(offset);
        if got < bytes {
            let path = storage.path(*id);
            return Err(ExpertsError::BeyondFile { path, layer, expert, offset, expected: bytes, got });
        }
    }
    Ok(())
}

fn check_parts(
    layer: usize,
    expert: usize,
    extents: &[Extent],
    experts: &LayerExperts,
    part_bytes: &[usize; 3],
) -> Result<(), ExpertsError> {
    for ((part, name), bytes) in experts.parts.iter().zip(PART_NAMES).zip(part_bytes) {
        let expected = *bytes as u64;
        let extent_bytes = extents.get(part.extent).map_or(0, |extent| extent.bytes);
        let got = extent_bytes.saturating_sub(part.offset);
        // The offset as well, lest a matrix without rows point outside.
        if got < expected || part.offset > extent_bytes || part.extent >= extents.len() {
            return Err(ExpertsError::PartOutside {
                layer,
                expert,
                part: name,
                extent: part.extent,
                offset: part.offset,
                expected,
                got,
            });
        }
    }
    Ok(())
}
