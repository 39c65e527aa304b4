//! A manifest's entries as extents of files, every number checked against the sizes of those files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use tensor::Format;

use crate::error::{CheckpointError, EntryError, PackedError, shown};
use crate::manifest::{
    DENSE, DENSE_ALIGN_BYTES, DenseEntry, JOURNAL, LAYERS_MAX, LayerEntry, MANIFEST, MANIFEST_BYTES_MAX,
    Manifest, PART_ALIGN_BYTES, PartEntry, RECORD_ALIGN_BYTES,
};
use crate::read::{is_plain_name, read_small};
use crate::safetensors::{NAME_BYTES_MAX, RANK_MAX, TENSORS_MAX};
use crate::table::{ExpertPart, ExpertTable, Extent, LayerExperts, TensorInfo};

/// The expert records of a packed container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackedExperts {
    /// Where each expert's record lies. A layer without experts has an empty entry.
    pub table: ExpertTable,
}

impl PackedExperts {
    /// Experts of the model for each record on the disk: 1, or more where layers share record
    /// files, which only synthetic models do. Whoever prints a measurement prints this with it.
    pub fn sharing_factor(&self) -> f64 {
        let first = |extents: &Vec<Extent>| extents.first().map(|extent| (extent.file, extent.offset));
        let experts = || self.table.layers.iter().flat_map(|layer| layer.extents.iter().filter_map(first));
        let (all, records) = (experts().count(), experts().collect::<HashSet<_>>().len());
        let float = |n: usize| u32::try_from(n).map_or(f64::INFINITY, f64::from);
        if records == 0 { 1.0 } else { float(all) / float(records) }
    }

    /// Whether several layers share record files.
    pub fn shared_record_files(&self) -> bool {
        self.sharing_factor() > 1.0
    }
}

/// A manifest in the vocabulary of all checkpoints.
pub(crate) struct Resolved {
    /// `dense.bin`, then the expert files in the manifest's order.
    pub(crate) files: Vec<PathBuf>,
    /// Dense tensors, sorted by name.
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) experts: PackedExperts,
}

impl Manifest {
    /// Reads and checks the manifest of `directory`; looks at no other file.
    pub fn read(directory: &Path) -> Result<Manifest, CheckpointError> {
        let path = directory.join(MANIFEST);
        let bytes = read_small(&path, "the manifest in bytes", MANIFEST_BYTES_MAX)?;
        Manifest::parse(&path, &bytes)
    }

    /// Checks and parses the bytes of a manifest; `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, CheckpointError> {
        let manifest = Manifest::decode(path, bytes)?;
        // Resolving is the check; its result is cheap to make again.
        resolve(&manifest, path)?;
        Ok(manifest)
    }
}

/// Turns the manifest at `path` into extents, checking every number against the sizes in `files`.
pub(crate) fn resolve(manifest: &Manifest, path: &Path) -> Result<Resolved, CheckpointError> {
    let check = Check { path };
    let data = check.data_files(manifest)?;
    let tensors = check.dense(manifest, &data)?;
    let table = check.layers(manifest, &data)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let files = data.names.iter().map(|name| directory.join(name)).collect();
    Ok(Resolved { files, tensors, experts: PackedExperts { table } })
}

/// The files whose bytes are tensors and records; the position of a name is its file number.
struct DataFiles<'a> {
    names: Vec<&'a str>,
    /// Name to number and size.
    by_name: HashMap<&'a str, (u32, u64)>,
}

/// The checks of one manifest, with its path for messages.
struct Check<'a> {
    path: &'a Path,
}

impl Check<'_> {
    fn invalid(
        &self,
        item: impl Into<String>,
        expected: impl ToString,
        got: impl ToString,
    ) -> CheckpointError {
        CheckpointError::new(
            self.path,
            PackedError::ManifestInvalid {
                item: item.into(),
                expected: expected.to_string(),
                got: shown(&got.to_string()),
            },
        )
    }

    fn data_files<'m>(&self, manifest: &'m Manifest) -> Result<DataFiles<'m>, CheckpointError> {
        let mut seen = HashSet::new();
        let mut data = DataFiles { names: vec![DENSE], by_name: HashMap::new() };
        for entry in &manifest.files {
            let name = entry.name.as_str();
            let reserved = name == MANIFEST || name == JOURNAL;
            if !is_plain_name(name) || reserved || !seen.insert(name) {
                return Err(self.invalid("files", "plain file names, each once", name));
            }
            if entry.checksum.is_some() {
                continue;
            }
            let number = if name == DENSE { 0 } else { data.names.len() };
            if number > 0 {
                data.names.push(name);
            }
            let number = u32::try_from(number)
                .map_err(|_| self.invalid("files", "fewer files", manifest.files.len()))?;
            data.by_name.insert(name, (number, entry.bytes));
        }
        if !data.by_name.contains_key(DENSE) {
            return Err(self.invalid("files", format!("{DENSE} without a checksum"), "none"));
        }
        Ok(data)
    }

    fn dense(&self, manifest: &Manifest, data: &DataFiles<'_>) -> Result<Vec<TensorInfo>, CheckpointError> {
        let file_bytes = data.by_name.get(DENSE).map_or(0, |&(_, bytes)| bytes);
        if manifest.dense.len() > TENSORS_MAX {
            return Err(self.invalid("dense", TENSORS_MAX, manifest.dense.len()));
        }
        let mut tensors = Vec::with_capacity(manifest.dense.len());
        let mut end_before = 0u64;
        for entry in &manifest.dense {
            let item = || format!("tensor {}", shown(&entry.name));
            let info = self.dense_tensor(entry)?;
            let end = entry.offset.checked_add(entry.bytes);
            if end.is_none_or(|end| end > file_bytes) {
                let got = format!("{} bytes at {}", entry.bytes, entry.offset);
                let expected = format!("a range within {DENSE} of {file_bytes} bytes");
                return Err(self.invalid(item(), expected, got));
            }
            if !entry.offset.is_multiple_of(DENSE_ALIGN_BYTES) || entry.offset < end_before {
                let expected = format!("a multiple of {DENSE_ALIGN_BYTES} of at least {end_before}");
                return Err(self.invalid(item() + " offset", expected, entry.offset));
            }
            end_before = end.unwrap_or(end_before);
            tensors.push(info);
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        match tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            None => Ok(tensors),
            Some(pair) => {
                Err(CheckpointError::new(self.path, EntryError::Duplicate { tensor: shown(&pair[0].name) }))
            }
        }
    }

    /// One dense tensor's own consistency.
    fn dense_tensor(&self, entry: &DenseEntry) -> Result<TensorInfo, CheckpointError> {
        let item = || format!("tensor {}", shown(&entry.name));
        if entry.name.len() > NAME_BYTES_MAX || entry.shape.len() > RANK_MAX {
            let expected = format!("name of {NAME_BYTES_MAX} bytes, {RANK_MAX} dimensions at most");
            let got = format!("{} bytes, {} dimensions", entry.name.len(), entry.shape.len());
            return Err(self.invalid(item(), expected, got));
        }
        let format = self.format(item, &entry.format)?;
        let (&cols, outer) = entry.shape.split_last().unwrap_or((&1, &[]));
        let rows = outer.iter().try_fold(1u64, |rows, &dim| rows.checked_mul(dim));
        let expected = rows
            .ok_or_else(|| self.invalid(item(), "a size of 64 bits", "more"))
            .and_then(|rows| self.matrix_bytes(item, format, rows, cols))?;
        if entry.bytes != expected {
            return Err(self.invalid(item() + " bytes", expected, entry.bytes));
        }
        let shape = entry.shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>();
        Ok(TensorInfo {
            name: entry.name.clone(),
            format,
            shape: shape.map_err(|_| self.invalid(item(), "dimensions of usize", "more"))?,
            extent: Extent { file: 0, offset: entry.offset, bytes: entry.bytes },
            checksum: Some(entry.checksum.0),
        })
    }

    fn layers(&self, manifest: &Manifest, data: &DataFiles<'_>) -> Result<ExpertTable, CheckpointError> {
        let mut table = ExpertTable::default();
        for entry in &manifest.layers {
            let next = u32::try_from(table.layers.len()).unwrap_or(u32::MAX);
            if entry.layer < next || entry.layer >= LAYERS_MAX {
                let expected = format!("rising numbers below {LAYERS_MAX}");
                return Err(self.invalid("layers", expected, entry.layer));
            }
            // Layers without experts, if the model has any.
            for _ in next..entry.layer {
                table.layers.push(LayerExperts::none());
            }
            table.layers.push(self.layer(entry, data)?);
        }
        Ok(table)
    }

    fn layer(&self, entry: &LayerEntry, data: &DataFiles<'_>) -> Result<LayerExperts, CheckpointError> {
        let item = || format!("layer {}", entry.layer);
        let &(file, file_bytes) = data
            .by_name
            .get(entry.file.as_str())
            .filter(|_| entry.file != DENSE)
            .ok_or_else(|| self.invalid(item(), "a file with records", &entry.file))?;
        let bytes = entry.record_bytes;
        if bytes == 0 || !bytes.is_multiple_of(RECORD_ALIGN_BYTES) {
            let expected = format!("a multiple of {RECORD_ALIGN_BYTES}");
            return Err(self.invalid(item() + " record_bytes", expected, bytes));
        }
        let count = u64::try_from(entry.checksums.len()).unwrap_or(u64::MAX);
        let records = entry.first_record.checked_add(count);
        let end = records.and_then(|records| records.checked_mul(bytes));
        if count == 0 || end.is_none_or(|end| end > file_bytes) {
            let expected = format!("records within {} of {file_bytes} bytes", shown(&entry.file));
            let got = format!("{count} of {bytes} bytes from record {}", entry.first_record);
            return Err(self.invalid(item(), expected, got));
        }
        let mut end_before = 0u64;
        let [gate, up, down] = &entry.parts;
        let mut part = |part| self.part(item, part, bytes, &mut end_before);
        let parts = [part(gate)?, part(up)?, part(down)?];
        let extents = (entry.first_record..entry.first_record + count)
            .map(|record| vec![Extent { file, offset: record * bytes, bytes }])
            .collect();
        let checksums = Some(entry.checksums.iter().map(|checksum| checksum.0).collect());
        Ok(LayerExperts { parts, extents, checksums })
    }

    fn part(
        &self,
        item: impl Fn() -> String + Copy,
        entry: &PartEntry,
        record_bytes: u64,
        end_before: &mut u64,
    ) -> Result<ExpertPart, CheckpointError> {
        let format = self.format(item, &entry.format)?;
        let bytes = self.matrix_bytes(item, format, entry.rows, entry.cols)?;
        if !entry.offset.is_multiple_of(PART_ALIGN_BYTES) || entry.offset < *end_before {
            let expected = format!("a multiple of {PART_ALIGN_BYTES} of at least {end_before}");
            return Err(self.invalid(item() + " part offset", expected, entry.offset));
        }
        let end = entry.offset.checked_add(bytes).filter(|&end| end <= record_bytes);
        *end_before = end.ok_or_else(|| {
            let got = format!("{bytes} bytes at {}", entry.offset);
            self.invalid(item(), format!("a part within {record_bytes} bytes"), got)
        })?;
        let dim = |n: u64| usize::try_from(n).map_err(|_| self.invalid(item(), "dimensions of usize", n));
        let (rows, cols) = (dim(entry.rows)?, dim(entry.cols)?);
        Ok(ExpertPart { format, rows, cols, extent: 0, offset: entry.offset })
    }

    fn format(&self, item: impl Fn() -> String, name: &str) -> Result<Format, CheckpointError> {
        Format::parse(name)
            .ok()
            .filter(|format| format.name() == name)
            .ok_or_else(|| self.invalid(item() + " format", "a known weight format", name))
    }

    /// Bytes of `rows` rows of `cols` weights.
    fn matrix_bytes(
        &self,
        item: impl Fn() -> String,
        format: Format,
        rows: u64,
        cols: u64,
    ) -> Result<u64, CheckpointError> {
        usize::try_from(cols)
            .ok()
            .and_then(|cols| format.row_bytes(cols).ok())
            .and_then(|bytes| u64::try_from(bytes).ok())
            .and_then(|bytes| bytes.checked_mul(rows))
            .ok_or_else(|| {
                let expected = format!("rows of whole {format} blocks within 64 bits");
                self.invalid(item(), expected, format!("{rows} rows of {cols} weights"))
            })
    }
}
