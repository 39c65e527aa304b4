//! Where everything of a synthetic container goes: a function of the plan and the limit on the disk alone.

use checkpoint::manifest::{
    CONFIG, Checksum, DENSE, DENSE_ALIGN_BYTES, DenseEntry, FileEntry, LayerEntry, Manifest,
    PART_ALIGN_BYTES, PartEntry, RECORD_ALIGN_BYTES, VERSION, expert_file_name,
};
use checkpoint::shown;
use tensor::Format;
use xxhash_rust::xxh3::xxh3_64;

use super::error::SynthError;
use super::plan::{SynthLayer, SynthPlan};
use crate::PackError;
use crate::names::CREATED_BY;

/// Files, units and the manifest without checksums.
pub(crate) struct Layout {
    /// Content of `config.json`.
    pub(crate) config: Vec<u8>,
    /// `dense.bin`, then the record files: name and size.
    pub(crate) files: Vec<(String, u64)>,
    /// Dense tensors in plan order, then records by file and expert.
    pub(crate) units: Vec<Unit>,
    /// Which record file each layer uses, from 0.
    pub(crate) sharing: Vec<usize>,
    /// Bytes of one layer's records, the largest.
    pub(crate) expert_bytes: u64,
    dense: Vec<DenseEntry>,
    layers: Vec<LayerEntry>,
    description: String,
    plan: Checksum,
}

/// One dense tensor or one expert record.
#[derive(Copy, Clone)]
pub(crate) struct Unit {
    /// Index in [`Layout::files`].
    pub(crate) file: usize,
    pub(crate) offset: u64,
    /// Length up to the next unit: a multiple of 4096.
    pub(crate) bytes: u64,
    /// Length that the checksum covers.
    pub(crate) hashed_bytes: u64,
    pub(crate) what: What,
}

/// What a unit holds.
#[derive(Copy, Clone)]
pub(crate) enum What {
    /// Index in the plan's dense tensors.
    Dense(usize),
    /// `layer` is the index in the plan's layers of the first layer that uses the file.
    Expert { layer: usize, expert: usize },
}

impl Layout {
    pub(crate) fn new(plan: &SynthPlan, disk_bytes: Option<u64>) -> Result<Layout, SynthError> {
        let config = serde_json::to_vec_pretty(&plan.config)
            .map_err(|error| PackError::plan(CONFIG, "a configuration", error))?;
        let mut layout = Layout {
            config,
            files: Vec::new(),
            units: Vec::new(),
            sharing: Vec::new(),
            expert_bytes: 0,
            dense: Vec::new(),
            layers: Vec::new(),
            description: plan.description.clone(),
            plan: identity(plan, disk_bytes),
        };
        layout.place_dense(plan)?;
        layout.place_layers(plan, disk_bytes)?;
        if let Some(note) = layout.sharing_note() {
            layout.description += &note;
        }
        Ok(layout)
    }

    fn place_dense(&mut self, plan: &SynthPlan) -> Result<(), SynthError> {
        let mut offset = 0u64;
        for (index, tensor) in plan.dense.iter().enumerate() {
            let label = || format!("tensor {}", shown(&tensor.name));
            let (&cols, outer) = tensor.shape.split_last().unwrap_or((&1, &[]));
            let hashed_bytes = matrix_bytes(label, tensor.format, outer.iter().product(), cols)?;
            let bytes = hashed_bytes.next_multiple_of(DENSE_ALIGN_BYTES);
            self.dense.push(DenseEntry {
                name: tensor.name.clone(),
                format: tensor.format.name().to_owned(),
                shape: tensor.shape.iter().map(|&dim| dim as u64).collect(),
                offset,
                bytes: hashed_bytes,
                checksum: Checksum(0),
            });
            self.units.push(Unit { file: 0, offset, bytes, hashed_bytes, what: What::Dense(index) });
            offset += bytes;
        }
        self.files.push((DENSE.to_owned(), offset));
        Ok(())
    }

    fn place_layers(&mut self, plan: &SynthPlan, disk_bytes: Option<u64>) -> Result<(), SynthError> {
        let records = plan.layers.iter().map(record).collect::<Result<Vec<_>, _>>()?;
        let layer_bytes = |index: usize| records[index].0 * plan.layers[index].experts as u64;
        self.expert_bytes = (0..records.len()).map(layer_bytes).sum();
        let files = self.record_files(plan, self.expert_bytes, disk_bytes)?;
        for (index, (layer, (record_bytes, parts))) in plan.layers.iter().zip(&records).enumerate() {
            let number = index % files;
            let name = expert_file_name(u32::try_from(number).unwrap_or(u32::MAX));
            self.sharing.push(number);
            self.layers.push(LayerEntry {
                layer: layer.layer,
                file: name.clone(),
                first_record: 0,
                record_bytes: *record_bytes,
                parts: parts.clone(),
                checksums: vec![Checksum(0); layer.experts],
            });
            if index >= files {
                continue;
            }
            for expert in 0..layer.experts {
                let what = What::Expert { layer: index, expert };
                let (bytes, offset) = (*record_bytes, expert as u64 * record_bytes);
                self.units.push(Unit { file: self.files.len(), offset, bytes, hashed_bytes: bytes, what });
            }
            self.files.push((name, layer_bytes(index)));
        }
        Ok(())
    }

    /// How many record files there will be: one per layer, or as many as the limit allows.
    fn record_files(&self, plan: &SynthPlan, all: u64, disk_bytes: Option<u64>) -> Result<usize, SynthError> {
        let layers = plan.layers.len();
        let same = plan
            .layers
            .windows(2)
            .all(|pair| pair[0].parts == pair[1].parts && pair[0].experts == pair[1].experts);
        let manifest =
            MANIFEST_BYTES_PER_EXPERT * plan.layers.iter().map(|layer| layer.experts as u64).sum::<u64>();
        let dense = self.files[0].1
            + self.config.len() as u64
            + manifest
            + MANIFEST_BYTES_PER_TENSOR * self.dense.len() as u64;
        let layer = all / layers.max(1) as u64;
        match disk_bytes {
            None => Ok(layers.max(1)),
            Some(limit) if limit >= dense.saturating_add(all) || !same => Ok(layers.max(1)),
            Some(limit) => {
                let files = limit.saturating_sub(dense) / layer.max(1);
                if files == 0 {
                    return Err(SynthError::DiskLimit { asked: limit, dense, layer, needed: dense + layer });
                }
                Ok(usize::try_from(files).unwrap_or(layers).clamp(1, layers.max(1)))
            }
        }
    }

    fn sharing_note(&self) -> Option<String> {
        let (layers, files) = (self.layers.len(), self.files.len() - 1);
        (files < layers).then(|| format!("; {layers} layers share {files} record files"))
    }

    /// Where the parts of a layer's records begin.
    pub(crate) fn part_offsets(&self, layer: usize) -> [u64; 3] {
        self.layers[layer].parts.each_ref().map(|part| part.offset)
    }

    /// Identity of what is written, which an interrupted container carries too.
    pub(crate) fn identity(&self) -> Checksum {
        self.plan
    }

    /// The manifest; `checksums` has one entry per unit.
    pub(crate) fn manifest(&self, checksums: &[u64]) -> Manifest {
        let mut dense = self.dense.clone();
        let mut layers = self.layers.clone();
        for (unit, &checksum) in self.units.iter().zip(checksums) {
            match unit.what {
                What::Dense(index) => dense[index].checksum = Checksum(checksum),
                What::Expert { layer, expert } => {
                    let users = layers.iter_mut().zip(&self.sharing).filter(|&(_, &file)| file == layer);
                    users.for_each(|(entry, _)| entry.checksums[expert] = Checksum(checksum));
                }
            }
        }
        let config = FileEntry {
            name: CONFIG.to_owned(),
            bytes: self.config.len() as u64,
            checksum: Some(Checksum(xxh3_64(&self.config))),
        };
        let file =
            |(name, bytes): &(String, u64)| FileEntry { name: name.clone(), bytes: *bytes, checksum: None };
        Manifest {
            created_by: CREATED_BY.to_owned(),
            description: self.description.clone(),
            plan: self.plan,
            files: std::iter::once(config).chain(self.files.iter().map(file)).collect(),
            dense,
            layers,
        }
    }
}

/// Length of a layer's records and where their parts lie.
fn record(layer: &SynthLayer) -> Result<(u64, [PartEntry; 3]), SynthError> {
    let label = || format!("layer {}", layer.layer);
    let mut end = 0u64;
    let mut entries = Vec::with_capacity(layer.parts.len());
    for part in &layer.parts {
        let offset = end.next_multiple_of(PART_ALIGN_BYTES);
        end = offset + matrix_bytes(label, part.format, part.rows, part.cols)?;
        entries.push(PartEntry {
            format: part.format.name().to_owned(),
            rows: part.rows as u64,
            cols: part.cols as u64,
            offset,
        });
    }
    let entries = <[PartEntry; 3]>::try_from(entries).map_err(|e| PackError::plan(label(), 3, e.len()))?;
    Ok((end.next_multiple_of(RECORD_ALIGN_BYTES), entries))
}

fn matrix_bytes(
    label: impl Fn() -> String,
    format: Format,
    rows: usize,
    cols: usize,
) -> Result<u64, SynthError> {
    let row = format.row_bytes(cols).map_err(|source| PackError::Codec { item: label(), source })?;
    let bytes = (rows as u64).checked_mul(row as u64).filter(|&bytes| bytes <= MATRIX_BYTES_MAX);
    Ok(bytes.ok_or_else(|| PackError::plan(label(), format!("at most {MATRIX_BYTES_MAX} bytes"), "more"))?)
}

/// Equal plans give equal bytes; the closures of a plan follow from its configuration and description.
fn identity(plan: &SynthPlan, disk_bytes: Option<u64>) -> Checksum {
    let tensors: Vec<String> =
        plan.dense.iter().map(|t| format!("{}{:?}{}{:?}", t.name, t.shape, t.format, t.fill)).collect();
    let text = format!(
        "synth {VERSION} {CREATED_BY} {} {} {} {} {tensors:?} {:?} {disk_bytes:?}",
        plan.config, plan.description, plan.seed, plan.pool_weights, plan.layers
    );
    Checksum(xxh3_64(text.as_bytes()))
}

/// No tensor of any known model is as large; sums of thousands of these still fit 64 bits.
const MATRIX_BYTES_MAX: u64 = 1 << 46;
/// A checksum with its quotes and comma.
const MANIFEST_BYTES_PER_EXPERT: u64 = 19;
/// A dense tensor's entry in the manifest, about.
const MANIFEST_BYTES_PER_TENSOR: u64 = 256;
