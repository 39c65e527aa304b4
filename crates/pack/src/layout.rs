//! From a plan to bytes: which file every tensor and record goes into, at which offset.
//!
//! The layout is a function of the plan alone, so an interrupted pack, one with other threads, and
//! one on another machine put the same bytes in the same places. A [`Unit`] is what the journal
//! counts: one dense tensor or one expert record. A [`Piece`] is one matrix of a unit.

use std::path::{Path, PathBuf};

use checkpoint::manifest::{
    AUX_BYTES_MAX, CONFIG, Checksum, DENSE, DENSE_ALIGN_BYTES, DenseEntry, FileEntry, JOURNAL, LAYERS_MAX,
    LayerEntry, MANIFEST, Manifest, PART_ALIGN_BYTES, PartEntry, RECORD_ALIGN_BYTES, expert_file_name,
};
use checkpoint::{Extent, shown};
use tensor::Format;
use xxhash_rust::xxh3::xxh3_64;

use super::error::PackError;
use super::names::{CREATED_BY, PARTIAL};
use super::plan::{DenseItem, LayerItem, PackPlan};
use experts::PART_NAMES;

/// Where everything of one container goes.
pub(crate) struct Layout {
    /// Files of records: `dense.bin`, then one per layer.
    pub(crate) files: Vec<OutFile>,
    /// Small files and their content.
    pub(crate) aux: Vec<AuxFile>,
    /// Dense tensors in plan order, then records by layer and expert.
    pub(crate) units: Vec<Unit>,
    dense: Vec<DenseEntry>,
    layers: Vec<LayerEntry>,
    description: String,
}

/// A file of records.
pub(crate) struct OutFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// A small file that is copied.
pub(crate) struct AuxFile {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    pub(crate) checksum: Checksum,
}

/// One dense tensor or one expert record.
pub(crate) struct Unit {
    /// Index in [`Layout::files`].
    pub(crate) file: usize,
    pub(crate) offset: u64,
    /// Length, padding inside and behind the pieces included.
    pub(crate) bytes: u64,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) name: UnitName,
}

/// What a unit is, for messages.
#[derive(Copy, Clone)]
pub(crate) enum UnitName {
    /// Index in the plan's dense tensors.
    Dense(usize),
    Expert {
        layer: u32,
        expert: usize,
    },
}

/// One matrix: where from, where to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) source: Extent,
    pub(crate) source_format: Format,
    pub(crate) format: Format,
    pub(crate) rows: u64,
    pub(crate) cols: usize,
    /// First byte, from the start of the unit.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Layout {
    /// Lays out `plan`, checking every number in it against the source files.
    pub(crate) fn new(plan: &PackPlan) -> Result<Layout, PackError> {
        let sources = Sources::new(plan)?;
        let mut layout = Layout {
            files: Vec::new(),
            aux: read_aux(plan)?,
            units: Vec::new(),
            dense: Vec::new(),
            layers: Vec::new(),
            description: plan.description.clone(),
        };
        layout.place_dense(plan, &sources)?;
        for item in &plan.layers {
            layout.place_layer(item, &sources)?;
        }
        Ok(layout)
    }

    fn place_dense(&mut self, plan: &PackPlan, sources: &Sources) -> Result<(), PackError> {
        let mut end = 0u64;
        let mut names = std::collections::HashSet::new();
        for (index, item) in plan.dense.iter().enumerate() {
            let label = format!("tensor {}", shown(&item.name));
            if !names.insert(item.name.as_str()) {
                return Err(PackError::plan(label, "each name once", "twice"));
            }
            let (rows, cols) =
                rows_and_cols(item).ok_or_else(|| PackError::plan(&label, "a size of 64 bits", "more"))?;
            let piece =
                sources.piece(&label, item.source, (item.source_format, item.format), (rows, cols))?;
            // The source is this tensor and nothing else.
            let source_bytes = matrix_bytes(&label, item.source_format, rows, cols)?;
            if source_bytes != item.source.bytes {
                return Err(PackError::plan(label, source_bytes, item.source.bytes));
            }
            let (offset, bytes) = (align(&label, end, DENSE_ALIGN_BYTES)?, piece.bytes);
            end = add(&label, offset, bytes)?;
            self.dense.push(DenseEntry {
                name: item.name.clone(),
                format: item.format.name().to_owned(),
                shape: item.shape.iter().map(|&dim| dim as u64).collect(),
                offset,
                bytes,
                checksum: Checksum(0),
            });
            let name = UnitName::Dense(index);
            self.units.push(Unit { file: 0, offset, bytes, pieces: vec![piece], name });
        }
        let bytes = align(DENSE, end, DENSE_ALIGN_BYTES)?;
        self.files.push(OutFile { name: DENSE.to_owned(), bytes });
        Ok(())
    }

    fn place_layer(&mut self, item: &LayerItem, sources: &Sources) -> Result<(), PackError> {
        let label = format!("layer {}", item.layer);
        let rising = self.layers.last().is_none_or(|before| before.layer < item.layer);
        if !rising || item.layer >= LAYERS_MAX {
            let expected = format!("rising numbers below {LAYERS_MAX}");
            return Err(PackError::plan("layers", expected, item.layer));
        }
        if item.source.extents.is_empty() {
            return Err(PackError::plan(label, "at least one expert", "none"));
        }
        let mut parts = Vec::new();
        let mut end = 0u64;
        for (part, format) in item.source.parts.iter().zip(item.formats) {
            let rows = part.rows as u64;
            let offset = align(&label, end, PART_ALIGN_BYTES)?;
            end = add(&label, offset, matrix_bytes(&label, format, rows, part.cols)?)?;
            let cols = part.cols as u64;
            parts.push(PartEntry { format: format.name().to_owned(), rows, cols, offset });
        }
        let record_bytes = align(&label, end, RECORD_ALIGN_BYTES)?;
        if record_bytes == 0 {
            return Err(PackError::plan(label, "matrices", "nothing"));
        }
        let file = self.files.len();
        let mut offset = 0u64;
        for (expert, extents) in item.source.extents.iter().enumerate() {
            let name = UnitName::Expert { layer: item.layer, expert };
            let pieces = expert_pieces(item, expert, extents, &parts, sources)?;
            self.units.push(Unit { file, offset, bytes: record_bytes, pieces, name });
            offset = add(&label, offset, record_bytes)?;
        }
        let name = expert_file_name(item.layer);
        self.files.push(OutFile { name: name.clone(), bytes: offset });
        let parts =
            <[PartEntry; 3]>::try_from(parts).map_err(|parts| PackError::plan(&label, 3, parts.len()))?;
        self.layers.push(LayerEntry {
            layer: item.layer,
            file: name,
            first_record: 0,
            record_bytes,
            parts,
            checksums: vec![Checksum(0); item.source.extents.len()],
        });
        Ok(())
    }

    /// The bytes of `dense.bin` between the tensors and behind the last: offset and length.
    pub(crate) fn dense_gaps(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.dense.iter().map(|entry| entry.offset + entry.bytes);
        let file_end = self.files.first().map_or(0, |file| file.bytes);
        let starts = self.dense.iter().map(|entry| entry.offset).skip(1).chain([file_end]);
        ends.zip(starts).map(|(end, start)| (end, start - end)).filter(|&(_, bytes)| bytes > 0)
    }

    /// The manifest of the finished container. `checksums` has one entry per unit.
    pub(crate) fn manifest(&self, plan: Checksum, checksums: &[u64]) -> Manifest {
        let mut checksums = checksums.iter().map(|&checksum| Checksum(checksum));
        let mut dense = self.dense.clone();
        for (entry, checksum) in dense.iter_mut().zip(&mut checksums) {
            entry.checksum = checksum;
        }
        let mut layers = self.layers.clone();
        for entry in layers.iter_mut().flat_map(|layer| layer.checksums.iter_mut()) {
            // One unit per expert, in this order.
            *entry = checksums.next().unwrap_or(*entry);
        }
        let aux = self.aux.iter().map(|aux| FileEntry {
            name: aux.name.clone(),
            bytes: aux.content.len() as u64,
            checksum: Some(aux.checksum),
        });
        let data = self.files.iter().map(|file| FileEntry {
            name: file.name.clone(),
            bytes: file.bytes,
            checksum: None,
        });
        Manifest {
            created_by: CREATED_BY.to_owned(),
            description: self.description.clone(),
            plan,
            files: aux.chain(data).collect(),
            dense,
            layers,
        }
    }

    /// What piece `piece` of `unit` is, for messages.
    pub(crate) fn label(&self, unit: &Unit, piece: usize) -> String {
        match unit.name {
            UnitName::Dense(index) => format!("tensor {}", shown(&self.dense[index].name)),
            UnitName::Expert { layer, expert } => {
                format!("layer {layer} expert {expert} {}", PART_NAMES[piece])
            }
        }
    }
}

fn expert_pieces(
    item: &LayerItem,
    expert: usize,
    extents: &[Extent],
    targets: &[PartEntry],
    sources: &Sources,
) -> Result<Vec<Piece>, PackError> {
    let mut pieces = Vec::with_capacity(PART_NAMES.len());
    let parts = item.source.parts.iter().zip(item.formats).zip(targets);
    for (index, ((part, format), target)) in parts.enumerate() {
        let label = || format!("layer {} expert {expert} {}", item.layer, PART_NAMES[index]);
        let extent = extents
            .get(part.extent)
            .ok_or_else(|| PackError::plan(label(), format!("extent {}", part.extent), "none"))?;
        let rows = part.rows as u64;
        let bytes = matrix_bytes(&label(), part.format, rows, part.cols)?;
        let end = add(&label(), part.offset, bytes)?;
        if end > extent.bytes {
            let expected = format!("an end within {} bytes", extent.bytes);
            return Err(PackError::plan(label(), expected, end));
        }
        let offset = add(&label(), extent.offset, part.offset)?;
        let source = Extent { file: extent.file, offset, bytes };
        let mut piece = sources.piece(&label(), source, (part.format, format), (rows, part.cols))?;
        piece.offset = target.offset;
        pieces.push(piece);
    }
    Ok(pieces)
}

/// The source files' sizes, against which extents are checked.
pub(crate) struct Sources<'a> {
    files: Vec<(&'a Path, u64)>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(plan: &'a PackPlan) -> Result<Sources<'a>, PackError> {
        let size = |path: &'a PathBuf| {
            std::fs::metadata(path)
                .map(|metadata| (path.as_path(), metadata.len()))
                .map_err(|e| PackError::io(path, "find the size", e))
        };
        Ok(Sources { files: plan.source_files.iter().map(size).collect::<Result<_, _>>()? })
    }

    /// A matrix whose source bytes exist and whose rows both formats can hold.
    fn piece(
        &self,
        label: &str,
        source: Extent,
        (source_format, format): (Format, Format),
        (rows, cols): (u64, usize),
    ) -> Result<Piece, PackError> {
        let file = usize::try_from(source.file).ok().and_then(|index| self.files.get(index));
        let &(path, file_bytes) = file.ok_or_else(|| {
            PackError::plan(label, format!("one of {} files", self.files.len()), source.file)
        })?;
        let end = add(label, source.offset, source.bytes)?;
        if end > file_bytes {
            let expected = format!("an end within {} of {file_bytes} bytes", path.display());
            return Err(PackError::plan(label, expected, end));
        }
        let quantised = source_format.is_quantised() || format.is_quantised();
        if source_format != format && quantised && cols > ROW_WEIGHTS_MAX {
            let expected = format!("rows of at most {ROW_WEIGHTS_MAX} weights");
            return Err(PackError::plan(label, expected, cols));
        }
        let bytes = matrix_bytes(label, format, rows, cols)?;
        matrix_bytes(label, source_format, rows, cols)?;
        Ok(Piece { source, source_format, format, rows, cols, offset: 0, bytes })
    }
}

/// The small files with their content, sorted by name.
fn read_aux(plan: &PackPlan) -> Result<Vec<AuxFile>, PackError> {
    let mut aux: Vec<AuxFile> = Vec::new();
    let on_disk = plan.aux_files.iter().map(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        (name.to_owned(), AuxSource::Disk(path))
    });
    let made = plan.aux_made.iter().map(|(name, content)| (name.clone(), AuxSource::Memory(content)));
    for (name, source) in on_disk.chain(made) {
        let label = || format!("file {}", shown(&name));
        let reserved = name == MANIFEST || name == JOURNAL || name.ends_with(PARTIAL);
        if name.is_empty() || name.starts_with('.') || reserved || name.ends_with(".bin") {
            return Err(PackError::plan(label(), "a name that the container does not use", name));
        }
        if aux.iter().any(|before| before.name == name) {
            return Err(PackError::plan(label(), "each name once", "twice"));
        }
        let bytes = source.len_bytes()?;
        let before: u64 = aux.iter().map(|aux| aux.content.len() as u64).sum();
        if before.saturating_add(bytes) > AUX_BYTES_MAX {
            let expected = format!("at most {AUX_BYTES_MAX} bytes of small files in all");
            return Err(PackError::plan(label(), expected, before.saturating_add(bytes)));
        }
        let content = source.content()?;
        let checksum = Checksum(xxh3_64(&content));
        aux.push(AuxFile { name, content, checksum });
    }
    if !aux.iter().any(|aux| aux.name == CONFIG) {
        let content = serde_json::to_vec_pretty(&plan.config)
            .map_err(|e| PackError::plan(CONFIG, "a configuration", e))?;
        let checksum = Checksum(xxh3_64(&content));
        aux.push(AuxFile { name: CONFIG.to_owned(), content, checksum });
    }
    aux.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(aux)
}

/// Where a small file's content comes from.
enum AuxSource<'a> {
    Disk(&'a PathBuf),
    Memory(&'a Vec<u8>),
}

impl AuxSource<'_> {
    fn len_bytes(&self) -> Result<u64, PackError> {
        match self {
            AuxSource::Disk(path) => std::fs::metadata(path)
                .map(|metadata| metadata.len())
                .map_err(|e| PackError::io(path, "read the file", e)),
            AuxSource::Memory(content) => Ok(content.len() as u64),
        }
    }

    fn content(&self) -> Result<Vec<u8>, PackError> {
        match self {
            AuxSource::Disk(path) => std::fs::read(path).map_err(|e| PackError::io(path, "read the file", e)),
            AuxSource::Memory(content) => Ok((*content).clone()),
        }
    }
}

/// Rows and weights per row of a dense tensor; a scalar is one row of one weight.
fn rows_and_cols(item: &DenseItem) -> Option<(u64, usize)> {
    let (&cols, outer) = item.shape.split_last().unwrap_or((&1, &[]));
    let rows = outer.iter().try_fold(1u64, |rows, &dim| rows.checked_mul(dim as u64))?;
    Some((rows, cols))
}

fn matrix_bytes(label: &str, format: Format, rows: u64, cols: usize) -> Result<u64, PackError> {
    let row = format.row_bytes(cols).map_err(|source| PackError::Codec { item: label.to_owned(), source })?;
    rows.checked_mul(row as u64)
        .filter(|&bytes| bytes <= FILE_BYTES_MAX)
        .ok_or_else(|| PackError::plan(label, "a size of 63 bits", "more"))
}

fn add(label: &str, a: u64, b: u64) -> Result<u64, PackError> {
    a.checked_add(b)
        .filter(|&sum| sum <= FILE_BYTES_MAX)
        .ok_or_else(|| PackError::plan(label, "a size of 63 bits", "more"))
}

fn align(label: &str, offset: u64, alignment: u64) -> Result<u64, PackError> {
    offset
        .checked_next_multiple_of(alignment)
        .filter(|&aligned| aligned <= FILE_BYTES_MAX)
        .ok_or_else(|| PackError::plan(label, "a size of 63 bits", "more"))
}

/// Longest row that is re-encoded: a row is decoded to f32 as a whole, and this bounds that memory.
const ROW_WEIGHTS_MAX: usize = 1 << 18;
/// No file system has longer files.
const FILE_BYTES_MAX: u64 = i64::MAX as u64;
