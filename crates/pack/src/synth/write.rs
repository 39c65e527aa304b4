//! Generating and writing: each thread takes one tensor or record at a time, from the first to the last.

use std::fs::File;
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use checkpoint::manifest::CONFIG;
use storage::AlignedBuf;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::error::SynthError;
use super::layout::{Layout, Unit, What};
use super::plan::{Band, Fill, SynthPlan, SynthTensor};
use super::pool::{PoolKey, Pools};
use super::rng::Rng;
use crate::disk;
use crate::{PackError, PackProgress, threads};

/// The container's data files, open for writing.
pub(crate) struct Files {
    open: Vec<(PathBuf, File)>,
    direct: bool,
}

impl Files {
    /// Creates all files at their final sizes, their space reserved, and writes `config.json`.
    pub(crate) fn create(layout: &Layout, target: &Path) -> Result<Files, SynthError> {
        let config = target.join(CONFIG);
        File::create(&config)
            .and_then(|mut file| file.write_all(&layout.config).and_then(|()| file.sync_all()))
            .map_err(|e| PackError::io(&config, "write", e))?;
        let mut files = Files { open: Vec::new(), direct: true };
        for (name, bytes) in &layout.files {
            let path = target.join(name);
            let file = File::create(&path).and_then(|file| disk::reserve(&file, *bytes).map(|()| file));
            let file = file.map_err(|e| PackError::io(&path, "reserve the space", e))?;
            match disk::open_direct(&path) {
                Ok(direct) => files.open.push((path, direct)),
                Err(_) => {
                    files.direct = false;
                    files.open.push((path, file));
                }
            }
        }
        disk::sync_directory(target).map_err(|e| PackError::io(target, "sync", e))?;
        Ok(files)
    }

    /// Whether writes go past the page cache.
    pub(crate) fn direct(&self) -> bool {
        self.direct
    }

    /// Makes everything durable and leaves nothing in the page cache.
    pub(crate) fn sync(&self) -> Result<(), SynthError> {
        for (path, file) in &self.open {
            file.sync_all().map_err(|e| PackError::io(path, "sync", e))?;
            disk::wont_need(file, 0, 0);
        }
        Ok(())
    }

    fn write(&self, index: usize, bytes: &[u8], offset: u64) -> Result<(), PackError> {
        let (path, file) = &self.open[index];
        disk::write_all_at(file, bytes, offset).map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull => {
                PackError::DiskFull { path: path.clone(), offset, missing: bytes.len() as u64 }
            }
            _ => PackError::io(path, "write", e),
        })?;
        if !self.direct {
            disk::wont_need(file, offset, bytes.len() as u64);
        }
        Ok(())
    }
}

/// Writes every unit; returns their checksums.
pub(crate) fn run(
    plan: &SynthPlan,
    layout: &Layout,
    pools: &Pools,
    files: &Files,
    threads: usize,
    progress: &dyn PackProgress,
) -> Result<Vec<u64>, SynthError> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let advance = Mutex::new(progress);
    let work = || -> Result<Vec<(usize, u64)>, SynthError> {
        let mut done = Vec::new();
        let mut buf = AlignedBuf::new(CHUNK_BYTES)?;
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(unit) = layout.units.get(index) else { break };
            let mut sink =
                Sink { files, unit, advance: &advance, buf: &mut buf, len: 0, at: 0, hash: Xxh3::new() };
            match unit.what {
                What::Dense(tensor) => dense(&mut sink, plan, &plan.dense[tensor], pools)?,
                What::Expert { layer, expert } => record(&mut sink, plan, layer, expert, layout, pools)?,
            }
            done.push((index, sink.finish()?));
        }
        Ok(done)
    };
    let mut checksums = vec![0; layout.units.len()];
    let guarded = || work().inspect_err(|_| failed.store(true, Ordering::Relaxed));
    for done in threads::side_by_side(threads, guarded) {
        done?.into_iter().for_each(|(index, checksum)| checksums[index] = checksum);
    }
    Ok(checksums)
}

/// Takes a unit's bytes in order: buffers, hashes and writes them.
struct Sink<'a, 'p> {
    files: &'a Files,
    unit: &'a Unit,
    advance: &'a Mutex<&'p dyn PackProgress>,
    buf: &'a mut AlignedBuf,
    /// Bytes in the buffer.
    len: usize,
    /// Bytes of the unit before the buffer: a multiple of the chunk.
    at: u64,
    hash: Xxh3,
}

impl Sink<'_, '_> {
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let n = bytes.len().min(CHUNK_BYTES - self.len);
            self.buf[self.len..self.len + n].copy_from_slice(&bytes[..n]);
            self.len += n;
            bytes = &bytes[n..];
            if self.len == CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Zeros up to byte `end` of the unit.
    fn pad(&mut self, end: u64) -> Result<(), PackError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.at + (self.len as u64) < end {
            let missing = end - self.at - self.len as u64;
            self.push(&ZEROS[..missing.min(ZEROS.len() as u64) as usize])?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PackError> {
        if self.len == 0 {
            return Ok(());
        }
        let covered = self.unit.hashed_bytes.saturating_sub(self.at).min(self.len as u64);
        self.hash.update(&self.buf[..covered as usize]);
        self.files.write(self.unit.file, &self.buf[..self.len], self.unit.offset + self.at)?;
        self.advance.lock().unwrap_or_else(PoisonError::into_inner).advance(self.len as u64);
        self.at += self.len as u64;
        self.len = 0;
        Ok(())
    }

    /// The checksum, after the last byte is written.
    fn finish(mut self) -> Result<u64, PackError> {
        self.pad(self.unit.bytes)?;
        self.flush()?;
        Ok(self.hash.digest())
    }
}

fn dense(
    sink: &mut Sink<'_, '_>,
    plan: &SynthPlan,
    tensor: &SynthTensor,
    pools: &Pools,
) -> Result<(), SynthError> {
    let (&cols, outer) = tensor.shape.split_last().unwrap_or((&1, &[]));
    let rows: u64 = outer.iter().map(|&dim| dim as u64).product();
    let codec = |source| PackError::Codec { item: tensor.name.clone(), source };
    let row_bytes = tensor.format.row_bytes(cols).map_err(codec)?;
    let name = xxh3_64(tensor.name.as_bytes());
    match &tensor.fill {
        Fill::Pool(bands) => {
            let mut rng = Rng::new(&[plan.seed, DENSE_STREAM, name]);
            let found: u64 = bands.iter().map(|band| band.rows).sum();
            if found != rows {
                return Err(PackError::plan(&tensor.name, format!("bands of {rows} rows"), found).into());
            }
            for &Band { rows, mean, std } in bands {
                pool_rows(sink, pools, PoolKey::new(tensor.format, mean, std), &mut rng, (rows, row_bytes))?;
            }
        }
        Fill::Rows(make) => {
            let mut values = vec![0.0; cols];
            let mut encoded = vec![0; row_bytes];
            for row in 0..rows {
                make(row, &mut Rng::new(&[plan.seed, DENSE_STREAM, name, row]), &mut values);
                tensor.format.encode_row(&values, &mut encoded).map_err(codec)?;
                sink.push(&encoded)?;
            }
        }
    }
    Ok(())
}

fn record(
    sink: &mut Sink<'_, '_>,
    plan: &SynthPlan,
    layer: usize,
    expert: usize,
    layout: &Layout,
    pools: &Pools,
) -> Result<(), SynthError> {
    let offsets = layout.part_offsets(layer);
    for (index, (part, offset)) in plan.layers[layer].parts.iter().zip(offsets).enumerate() {
        let codec = |source| PackError::Codec { item: format!("layer {layer} expert {expert}"), source };
        let row_bytes = part.format.row_bytes(part.cols).map_err(codec)?;
        let mut rng = Rng::new(&[plan.seed, EXPERT_STREAM, layer as u64, expert as u64, index as u64]);
        sink.pad(offset)?;
        let key = PoolKey::new(part.format, 0.0, part.std);
        pool_rows(sink, pools, key, &mut rng, (part.rows as u64, row_bytes))?;
    }
    Ok(())
}

fn pool_rows(
    sink: &mut Sink<'_, '_>,
    pools: &Pools,
    key: PoolKey,
    rng: &mut Rng,
    (rows, row_bytes): (u64, usize),
) -> Result<(), PackError> {
    // Pools were made from the same plan.
    let pool = pools.get(key).ok_or_else(|| PackError::plan("pools", "one per distribution", "none"))?;
    for _ in 0..rows {
        for piece in pool.pieces(rng, row_bytes) {
            sink.push(piece)?;
        }
    }
    Ok(())
}

/// Bytes of one write: enough for the drive's full speed, and a multiple of every block.
const CHUNK_BYTES: usize = 4 << 20;
/// Tells the random numbers of dense tensors from all others.
const DENSE_STREAM: u64 = 2;
/// Tells the random numbers of experts from all others.
const EXPERT_STREAM: u64 = 3;
