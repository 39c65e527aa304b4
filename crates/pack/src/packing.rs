//! The run of a pack: target examined, space checked, units written, manifest published.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use checkpoint::journal::{JOURNAL_FORMAT, JournalHead};
use checkpoint::manifest::{self, Checksum, JOURNAL, MANIFEST, Manifest, VERSION};
use checkpoint::{CheckpointError, ErrorKind, PackedError};

use crate::disk::{self, FilePool};
use crate::error::PackError;
use crate::journal::{Found, Journal, UnitLine};
use crate::layout::{Layout, Unit};
use crate::names::{CREATED_BY, PARTIAL};
use crate::plan::{PackOptions, PackPlan, PackProgress, PackReport};
use crate::target::{existing_ancestor, publish, remove_leftovers};
use crate::verify::{BadRecord, verify, verify_manifest};
use crate::{fingerprint, pipeline};

/// Packs `plan` into the directory `target`: makes it, resumes it, or, when it is finished already,
/// leaves it as it is.
///
/// # Errors
/// See [`PackError`]. After any error a directory that was begun can be resumed by the same call.
pub fn pack(
    plan: &PackPlan,
    target: &Path,
    options: &PackOptions,
    progress: &dyn PackProgress,
) -> Result<PackReport, PackError> {
    let layout = Layout::new(plan)?;
    let sources = FilePool::new(plan.source_files.clone(), false);
    let identity = fingerprint::fingerprint(plan, &layout, &sources)?;
    let manifest_bytes = check_manifest(&layout, identity, target)?;
    let job = Packing { plan, layout, sources, identity, manifest_bytes, target, options, progress };
    if !target.exists() {
        // Before the directory is made, so that a refusal leaves nothing behind.
        job.check_space(existing_ancestor(target))?;
        std::fs::create_dir_all(target).map_err(|e| PackError::io(target, "create the directory", e))?;
    }
    if !target.is_dir() {
        return Err(PackError::TargetIsFile { path: target.to_path_buf() });
    }
    let lock = disk::lock(target).map_err(|e| PackError::io(target, "lock the directory", e))?;
    let Some(_lock) = lock else { return Err(PackError::Busy { path: target.to_path_buf() }) };
    match job.state()? {
        State::Complete => job.complete(),
        State::Empty => job.write(None),
        State::Begun(found) => job.write(Some(found)),
    }
}

/// What lies in the target.
enum State {
    Empty,
    /// An unfinished container of the same plan.
    Begun(Found),
    /// A finished container of the same plan.
    Complete,
}

/// One call of [`pack`].
struct Packing<'a> {
    plan: &'a PackPlan,
    layout: Layout,
    sources: FilePool,
    identity: Checksum,
    manifest_bytes: u64,
    target: &'a Path,
    options: &'a PackOptions,
    progress: &'a dyn PackProgress,
}

impl Packing<'_> {
    /// Looks at the target; refuses everything that is not empty, ours and of this plan.
    fn state(&self) -> Result<State, PackError> {
        if self.target.join(MANIFEST).exists() {
            let manifest = match Manifest::read(self.target) {
                Ok(manifest) => manifest,
                Err(newer) if is_newer(&newer) => return Err(newer.into()),
                // Somebody else's, or damaged: not ours to replace in either case.
                Err(_) => {
                    let found = "a manifest.json that cannot be read".to_owned();
                    let path = self.target.to_path_buf();
                    return Err(PackError::TargetNotEmpty { path, found });
                }
            };
            self.check_identity("a container", manifest.plan, &manifest.created_by)?;
            return Ok(State::Complete);
        }
        if let Some(found) = Found::read(self.target)? {
            let what = "an unfinished container";
            self.check_identity(what, found.head.plan, &found.head.created_by)?;
            return Ok(State::Begun(found));
        }
        let entries = std::fs::read_dir(self.target)
            .map_err(|e| PackError::io(self.target, "list the directory", e))?;
        // A journal that was never renamed into place is all that a very early kill leaves.
        let begun = JOURNAL.to_owned() + PARTIAL;
        for entry in entries {
            let entry = entry.map_err(|e| PackError::io(self.target, "list the directory", e))?;
            let name = entry.file_name();
            if name != begun.as_str() {
                let found = checkpoint::shown(&name.to_string_lossy());
                return Err(PackError::TargetNotEmpty { path: self.target.to_path_buf(), found });
            }
        }
        Ok(State::Empty)
    }

    fn check_identity(&self, what: &'static str, found: Checksum, found_by: &str) -> Result<(), PackError> {
        if found == self.identity && found_by == CREATED_BY {
            return Ok(());
        }
        Err(PackError::OtherPlan {
            path: self.target.to_path_buf(),
            what,
            expected: self.identity,
            found,
            found_by: checkpoint::shown(found_by),
        })
    }

    /// The container was finished by an earlier call, which may have been killed while it tidied up.
    fn complete(&self) -> Result<PackReport, PackError> {
        remove_leftovers(self.target)?;
        // Sizes and small files; the rest is for `verify`.
        checkpoint::Checkpoint::open(self.target)?;
        let units = self.layout.units.len() as u64;
        let mut report = self.report(0, units);
        report.already_complete = true;
        if self.options.verify {
            let found = verify(self.target, self.progress)?;
            if let Some(first) = found.bad.first() {
                return Err(self.verify_failed(found.bad.len(), first));
            }
            report.verified_bytes = Some(found.bytes);
        }
        Ok(report)
    }

    fn write(&self, found: Option<Found>) -> Result<PackReport, PackError> {
        self.check_space(self.target)?;
        let head = self.journal_head();
        let mut checksums: Vec<Option<u64>> = vec![None; self.layout.units.len()];
        let mut journal = match &found {
            Some(found) => Journal::resume(self.target, found)?,
            None => Journal::create(self.target, &head)?,
        };
        for line in found.iter().flat_map(|found| &found.units) {
            let slot = usize::try_from(line.unit).ok().and_then(|unit| checksums.get_mut(unit));
            if let Some(slot) = slot {
                *slot = Some(line.checksum.0);
            }
        }
        let resumed = checksums.iter().flatten().count() as u64;
        let targets = self.create_files(resumed == 0)?;
        self.start_progress(&checksums);
        let job = pipeline::Job {
            layout: &self.layout,
            sources: &self.sources,
            targets: &targets,
            options: self.options,
            progress: self.progress,
        };
        let bytes_in = pipeline::run(&job, &mut checksums, &mut journal)?;
        self.progress.finish();
        self.damage_for_tests(&targets)?;
        // The pipeline gave every unit one.
        let checksums: Vec<u64> = checksums.into_iter().flatten().collect();
        let manifest = self.layout.manifest(self.identity, &checksums);
        let mut report = self.report(bytes_in, resumed);
        if self.options.verify {
            report.verified_bytes = Some(self.verify_or_forget(&manifest, &head, &checksums)?);
        }
        publish(self.target, &manifest).map_err(|error| self.full(error))?;
        drop(journal);
        remove_leftovers(self.target)?;
        Ok(report)
    }

    /// Small files, and files for the records with their final size. `fresh`: no unit is finished,
    /// so whatever an earlier run left in them is of no use.
    fn create_files(&self, fresh: bool) -> Result<FilePool, PackError> {
        for aux in &self.layout.aux {
            let path = self.target.join(&aux.name);
            let mut file = File::create(&path).map_err(|e| self.io(&path, "create", e))?;
            file.write_all(&aux.content)
                .and_then(|()| file.sync_all())
                .map_err(|e| self.io(&path, "write", e))?;
        }
        let mut paths = Vec::new();
        for out in &self.layout.files {
            let path = self.target.join(&out.name);
            File::options()
                .write(true)
                .create(true)
                .truncate(fresh)
                .open(&path)
                .and_then(|file| disk::reserve(&file, out.bytes))
                .map_err(|e| self.io(&path, "reserve the space", e))?;
            paths.push(path);
        }
        let targets = FilePool::new(paths, true);
        // Units bring their own padding; with the gaps every byte of the container is written.
        for (offset, bytes) in self.layout.dense_gaps() {
            let zeros = [0u8; manifest::DENSE_ALIGN_BYTES as usize];
            targets
                .file(0)
                .and_then(|file| disk::write_all_at(&file, &zeros[..bytes as usize], offset))
                .map_err(|e| self.io(targets.path(0), "write", e))?;
        }
        disk::sync_directory(self.target).map_err(|e| self.io(self.target, "sync", e))?;
        Ok(targets)
    }

    fn start_progress(&self, checksums: &[Option<u64>]) {
        let (mut total, mut done) = (0, 0);
        for (unit, checksum) in self.layout.units.iter().zip(checksums) {
            let bytes: u64 = unit.pieces.iter().map(|piece| piece.source.bytes).sum();
            total += bytes;
            done += if checksum.is_some() { bytes } else { 0 };
        }
        self.progress.start(total, done);
    }

    /// Re-reads everything before the manifest exists. Units that are damaged are taken out of the
    /// journal, so that the next call writes them again.
    fn verify_or_forget(
        &self,
        manifest: &Manifest,
        head: &JournalHead,
        checksums: &[u64],
    ) -> Result<u64, PackError> {
        let found = verify_manifest(manifest, self.target, self.progress);
        let Some(first) = found.bad.first() else { return Ok(found.bytes) };
        let is_bad = |unit: &Unit| {
            let path = self.target.join(&self.layout.files[unit.file].name);
            found.bad.iter().any(|bad| bad.path == path && bad.offset == unit.offset)
        };
        let mut good = Vec::new();
        for (index, (unit, &checksum)) in self.layout.units.iter().zip(checksums).enumerate() {
            if !is_bad(unit) {
                good.push(UnitLine { unit: index as u64, checksum: Checksum(checksum) });
            }
        }
        Journal::replace(self.target, head, &good)?;
        Err(self.verify_failed(found.bad.len(), first))
    }

    fn verify_failed(&self, count: usize, first: &BadRecord) -> PackError {
        PackError::VerifyFailed { path: self.target.to_path_buf(), count, first: first.to_string() }
    }

    /// Refuses when the disk that has `place` cannot hold what is still missing.
    fn check_space(&self, place: &Path) -> Result<(), PackError> {
        let files = self.layout.files.iter().map(|file| (&file.name, file.bytes));
        let aux = self.layout.aux.iter().map(|aux| (&aux.name, aux.content.len() as u64));
        let missing = files
            .chain(aux)
            .map(|(name, bytes)| bytes.saturating_sub(disk::allocated_bytes(&self.target.join(name))));
        let journal = JOURNAL_LINE_BYTES.saturating_mul(self.layout.units.len() as u64);
        let needed = missing.fold(self.manifest_bytes.saturating_add(journal), u64::saturating_add);
        let free = self.options.hooks.free_bytes.or_else(|| storage::free_disk_bytes(place));
        match free {
            Some(free) if free < needed => Err(PackError::NoSpace {
                path: self.target.to_path_buf(),
                needed,
                free,
                missing: needed - free,
            }),
            _ => Ok(()),
        }
    }

    fn journal_head(&self) -> JournalHead {
        let source = self.plan.source_files.first().and_then(|file| file.parent());
        let command = || {
            let source = source.unwrap_or(Path::new("SOURCE")).display();
            format!("flash-moe pack {source} {}", self.target.display())
        };
        JournalHead {
            format: JOURNAL_FORMAT.to_owned(),
            version: VERSION,
            created_by: CREATED_BY.to_owned(),
            plan: self.identity,
            resume: self.options.command.clone().unwrap_or_else(command),
        }
    }

    fn report(&self, bytes_in: u64, units_resumed: u64) -> PackReport {
        let files = self.layout.files.iter().map(|file| file.bytes);
        let aux = self.layout.aux.iter().map(|aux| aux.content.len() as u64);
        PackReport {
            bytes_in,
            bytes_out: files.chain(aux).sum::<u64>() + self.manifest_bytes,
            units: self.layout.units.len() as u64,
            units_resumed,
            already_complete: false,
            verified_bytes: None,
        }
    }

    /// An error with a full disk told apart.
    fn io(&self, path: &Path, action: &'static str, source: std::io::Error) -> PackError {
        if source.kind() != std::io::ErrorKind::StorageFull {
            return PackError::io(path, action, source);
        }
        let files = self.layout.files.iter();
        let needed = files
            .map(|f| f.bytes.saturating_sub(disk::allocated_bytes(&self.target.join(&f.name))))
            .fold(0, u64::saturating_add);
        let missing = needed.saturating_sub(storage::free_disk_bytes(self.target).unwrap_or(0)).max(1);
        PackError::DiskFull { path: path.to_path_buf(), offset: 0, missing }
    }

    /// [`Packing::io`] for an error that is one already.
    fn full(&self, error: PackError) -> PackError {
        match error {
            PackError::Io { path, action, source } => self.io(&path, action, source),
            other => other,
        }
    }

    /// Flips a bit where a test wants damage.
    fn damage_for_tests(&self, targets: &FilePool) -> Result<(), PackError> {
        let Some(unit) = self.options.hooks.damage_unit else { return Ok(()) };
        let Some(unit) = self.layout.units.get(unit) else { return Ok(()) };
        let path = targets.path(unit.file);
        let mut byte = [0u8];
        targets
            .file(unit.file)
            .and_then(|file| {
                disk::read_exact_at(&file, &mut byte, unit.offset)?;
                disk::write_all_at(&file, &[byte[0] ^ 1], unit.offset)
            })
            .map_err(|e| PackError::io(path, "damage", e))
    }
}

/// Whether a container is of a later version of the format.
fn is_newer(error: &CheckpointError) -> bool {
    matches!(*error.kind, ErrorKind::Packed(PackedError::NewerVersion { .. }))
}

/// Makes sure that the manifest this layout leads to is one that opens; returns its size.
fn check_manifest(layout: &Layout, plan: Checksum, target: &Path) -> Result<u64, PackError> {
    let manifest = layout.manifest(plan, &vec![0; layout.units.len()]);
    let path = target.join(MANIFEST);
    let bytes = manifest.to_bytes().map_err(|e| PackError::plan("manifest", "a manifest", e))?;
    Manifest::parse(&path, &bytes)?;
    Ok(bytes.len() as u64)
}

/// Length of a unit's line in the journal, at most.
const JOURNAL_LINE_BYTES: u64 = 96;
