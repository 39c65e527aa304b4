//! Synthetic models: packed containers of the true shapes with seeded random weights, for measurements.
//!
//! [`synth`] takes a [`SynthPlan`] ([`plan_synth`]) and writes a directory as [`crate::pack()`]
//! would have, at the speed of the drive: weights come out of pools that are encoded once (`pool`),
//! checksums are computed on the way, writes go past the page cache. Memory is a few MiB per thread
//! and the pools, whatever the model's size.
//!
//! The bytes follow from the plan and [`SynthOptions::disk_bytes`] alone, not from the number of
//! threads: every row of every tensor and record has a random generator of its own.
//!
//! With less disk than the model takes, several layers share record files: layer `l` uses file `l
//! mod n`. Everything that reads them treats the layers' experts as different, so each read stays a
//! real read.

mod error;
mod layout;
mod plan;
mod pool;
mod rng;
mod weights;
mod write;

use std::path::Path;

use checkpoint::journal::{JOURNAL_FORMAT, JournalHead};
use checkpoint::manifest::{CONFIG, JOURNAL, MANIFEST, VERSION};

pub use error::SynthError;
pub use plan::{Band, Fill, RowFn, SynthLayer, SynthOptions, SynthPart, SynthPlan, SynthReport, SynthTensor};
pub use rng::Rng;
pub use weights::{SKEW_MAX, SynthChoice, plan_synth};

use crate::disk;
use crate::journal::{Found, Journal};
use crate::names::{CREATED_BY, PARTIAL};
use crate::target::{existing_ancestor, publish, remove_leftovers};
use crate::{PackError, PackProgress};
use layout::Layout;
use pool::Pools;

/// Writes the model of `plan` into the directory `target`, which must be new or empty, or hold an
/// interrupted attempt at the same model, which is begun again. After an error, what was written is
/// removed.
///
/// # Errors
/// A target with something else in it, a limit on the disk or a disk that is too small, a failed write.
pub fn synth(
    plan: &SynthPlan,
    target: &Path,
    options: &SynthOptions,
    progress: &dyn PackProgress,
) -> Result<SynthReport, SynthError> {
    let layout = Layout::new(plan, options.disk_bytes)?;
    if target.exists() && !target.is_dir() {
        return Err(PackError::TargetIsFile { path: target.to_path_buf() }.into());
    }
    let existed = target.is_dir();
    check_space(&layout, target, options)?;
    std::fs::create_dir_all(target).map_err(|e| PackError::io(target, "create the directory", e))?;
    let lock = disk::lock(target).map_err(|e| PackError::io(target, "lock the directory", e))?;
    let Some(_lock) = lock else { return Err(PackError::Busy { path: target.to_path_buf() }.into()) };
    check_target(&layout, target)?;
    write_all(plan, &layout, target, options, progress).inspect_err(|_| clean_up(&layout, target, existed))
}

/// What the container of `plan` takes, without writing anything.
///
/// # Errors
/// As [`synth`] for the plan and the limit.
pub fn sizes(plan: &SynthPlan, options: &SynthOptions) -> Result<SynthReport, SynthError> {
    let layout = Layout::new(plan, options.disk_bytes)?;
    Ok(report(&layout, 0, false))
}

fn write_all(
    plan: &SynthPlan,
    layout: &Layout,
    target: &Path,
    options: &SynthOptions,
    progress: &dyn PackProgress,
) -> Result<SynthReport, SynthError> {
    let threads = match options.threads {
        // While some wait for the drive, the others generate.
        0 => std::thread::available_parallelism().map_or(1, usize::from) + THREADS_WAITING,
        threads => threads,
    };
    // From here on an interrupted directory says what it is.
    drop(Journal::create(target, &journal_head(layout, target, options))?);
    let pools = Pools::new(plan, threads)
        .map_err(|source| PackError::Codec { item: "random weights".to_owned(), source })?;
    let files = write::Files::create(layout, target)?;
    progress.start(layout.files.iter().map(|(_, bytes)| bytes).sum(), 0);
    let checksums = write::run(plan, layout, &pools, &files, threads, progress)?;
    files.sync()?;
    progress.finish();
    let manifest = layout.manifest(&checksums);
    let manifest_bytes = publish(target, &manifest)?;
    remove_leftovers(target)?;
    Ok(report(layout, manifest_bytes, files.direct()))
}

fn report(layout: &Layout, manifest_bytes: u64, direct: bool) -> SynthReport {
    let files: u64 = layout.files.iter().map(|(_, bytes)| bytes).sum();
    SynthReport {
        bytes: files + layout.config.len() as u64 + manifest_bytes,
        dense_bytes: layout.files[0].1,
        expert_bytes: layout.expert_bytes,
        layers: layout.sharing.len(),
        record_files: layout.files.len() - 1,
        direct,
    }
}

/// Refuses what is neither empty nor an interrupted attempt at the same model.
fn check_target(layout: &Layout, target: &Path) -> Result<(), SynthError> {
    let list = || std::fs::read_dir(target).map_err(|e| PackError::io(target, "list the directory", e));
    let begun = JOURNAL.to_owned() + PARTIAL;
    let mut names = Vec::new();
    for entry in list()? {
        let entry = entry.map_err(|e| PackError::io(target, "list the directory", e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| *name != begun);
    names.sort();
    let ours = Found::read(target)?.is_some_and(|found| found.head.plan == layout.identity());
    match names.first() {
        Some(_) if ours && !names.iter().any(|name| name == MANIFEST) => Ok(()),
        Some(first) => {
            let found = checkpoint::shown(first);
            Err(PackError::TargetNotEmpty { path: target.to_path_buf(), found }.into())
        }
        None => Ok(()),
    }
}

fn check_space(layout: &Layout, target: &Path, options: &SynthOptions) -> Result<(), SynthError> {
    let place = if target.exists() { target } else { existing_ancestor(target) };
    let there = layout.files.iter().map(|(name, _)| disk::allocated_bytes(&target.join(name)));
    let already: u64 = there.sum();
    let manifest = layout.manifest(&[]).to_bytes().map_or(0, |bytes| bytes.len() as u64);
    let needed = report(layout, manifest, false).bytes.saturating_sub(already);
    match options.free_bytes.or_else(|| storage::free_disk_bytes(place)) {
        Some(free) if free < needed => {
            let (path, missing) = (target.to_path_buf(), needed - free);
            Err(PackError::NoSpace { path, needed, free, missing }.into())
        }
        _ => Ok(()),
    }
}

fn journal_head(layout: &Layout, target: &Path, options: &SynthOptions) -> JournalHead {
    let usual = || format!("flash-moe synth PRESET {}", target.display());
    JournalHead {
        format: JOURNAL_FORMAT.to_owned(),
        version: VERSION,
        created_by: CREATED_BY.to_owned(),
        plan: layout.identity(),
        resume: options.command.clone().unwrap_or_else(usual),
    }
}

/// Removes what a failed attempt left. The error that is being reported matters more than one here.
fn clean_up(layout: &Layout, target: &Path, existed: bool) {
    let names = layout.files.iter().map(|(name, _)| name.as_str());
    for name in names.chain([CONFIG, MANIFEST]) {
        let _ = std::fs::remove_file(target.join(name));
    }
    let _ = remove_leftovers(target);
    if !existed {
        let _ = std::fs::remove_dir(target);
    }
}

/// Threads beyond the cores.
const THREADS_WAITING: usize = 2;
