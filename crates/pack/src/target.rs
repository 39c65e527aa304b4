//! The directory that becomes a container: its last file, its leftovers.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use checkpoint::manifest::{JOURNAL, MANIFEST, Manifest};

use crate::disk;
use crate::error::PackError;
use crate::names::PARTIAL;

/// Writes the manifest beside its place and renames it there: from then on the container is
/// complete. Returns its size.
pub(crate) fn publish(target: &Path, manifest: &Manifest) -> Result<u64, PackError> {
    let path = target.join(MANIFEST);
    let partial = target.join(MANIFEST.to_owned() + PARTIAL);
    let bytes = manifest.to_bytes().map_err(|e| PackError::io(&path, "write the manifest", e.into()))?;
    File::create(&partial)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&partial, &path))
        .and_then(|()| disk::sync_directory(target))
        .map_err(|e| PackError::io(&path, "write the manifest", e))?;
    Ok(bytes.len() as u64)
}

/// Removes what only an unfinished container has.
pub(crate) fn remove_leftovers(target: &Path) -> Result<(), PackError> {
    for name in [JOURNAL.to_owned(), JOURNAL.to_owned() + PARTIAL, MANIFEST.to_owned() + PARTIAL] {
        let path = target.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(PackError::io(&path, "remove", e)),
        }
    }
    disk::sync_directory(target).map_err(|e| PackError::io(target, "sync", e))
}

/// The nearest directory above `path` that exists; its disk is the one that will be written to.
pub(crate) fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors()
        .skip(1)
        .map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p })
        .find(|p| p.exists())
        .unwrap_or(Path::new("."))
}
