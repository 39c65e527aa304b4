//! The cache that Hugging Face's own tools use, so that each file is on the disk once:
//! `models--ORG--NAME/{blobs/HASH, snapshots/COMMIT/PATH → blob, refs/REVISION}`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::watch::Watch;
use crate::{HubError, RemoteFile};

/// How often one who waits for another process looks.
const LOOK: Duration = Duration::from_millis(200);

/// The directory of one repository.
#[derive(Clone, Debug)]
pub(crate) struct RepoCache {
    pub(crate) dir: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, repo: &str) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self { dir: cache.join(&name), locks: cache.join(".locks").join(&name) }
    }

    pub(crate) fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.dir.join("blobs").join(file.digest.hex())
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// Whether the file is complete: as a blob, or in the snapshot where links are not possible.
    pub(crate) fn has(&self, commit: &str, file: &RemoteFile) -> bool {
        let fits = |path: PathBuf| {
            fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
        };
        fits(self.blob(file)) || fits(self.snapshot(commit).join(&file.path))
    }

    pub(crate) fn create_blobs(&self) -> Result<(), HubError> {
        let blobs = self.dir.join("blobs");
        fs::create_dir_all(&blobs).map_err(HubError::io(&blobs, "create the directory"))
    }

    /// Makes a complete file appear in the snapshot.
    pub(crate) fn link(&self, commit: &str, file: &RemoteFile) -> Result<(), HubError> {
        let (blob, path) = (self.blob(file), self.snapshot(commit).join(&file.path));
        if !blob.exists() {
            return Ok(());
        }
        let up = "../".repeat(2 + file.path.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{}", file.digest.hex()));
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(HubError::io(folder, "create the directory"))?;
        let new = folder.join(format!(".flash-moe-link-{}", std::process::id()));
        let _ = fs::remove_file(&new);
        let linked = symlink(&target, &new).and_then(|()| fs::rename(&new, &path));
        // Where there are no links the file itself moves, as Hugging Face's tools do it.
        linked
            .or_else(|_| {
                let _ = fs::remove_file(&new);
                fs::rename(&blob, &path)
            })
            .map_err(HubError::io(&path, "give the file its name"))
    }

    /// Notes which commit a branch or tag is.
    pub(crate) fn note_revision(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, commit))
            .map_err(HubError::io(&path, "note the commit"))
    }

    /// Waits until no other process fetches the file. The lock is the one that Hugging Face's tools take.
    pub(crate) fn lock(&self, file: &RemoteFile, watch: Watch<'_>) -> Result<File, HubError> {
        let path = self.locks.join(format!("{}.lock", file.digest.hex()));
        lock(&path, &file.path, watch)
    }
}

/// Locks a file, which is created, and waits while another process has it.
pub(crate) fn lock(path: &Path, what: &str, watch: Watch<'_>) -> Result<File, HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(HubError::io(folder, "create the directory"))?;
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = opened.map_err(HubError::io(path, "open the lock"))?;
    let mut said = false;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {}
            // A file system without locks: the journals of two processes agree in what they say.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
        if watch.stopped() {
            return Err(HubError::Cancelled { file: what.into() });
        }
        if !said {
            watch.progress.remark(&format!("{what}: another program is fetching it; waiting"));
            said = true;
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn links_lead_from_any_depth_to_the_blob() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = RepoCache::new(dir.path(), "org/m");
        let commit = "a".repeat(40);
        for path in ["a.gguf", "sub/deep/b.gguf"] {
            let file = RemoteFile { path: path.into(), bytes: 3, digest: Digest::Sha256("b".repeat(64)) };
            assert!(!cache.has(&commit, &file) || path != "a.gguf");
            cache.create_blobs().expect("created");
            fs::write(cache.blob(&file), "abc").expect("written");
            cache.link(&commit, &file).expect("linked");
            cache.link(&commit, &file).expect("linked again");
            assert_eq!(fs::read(cache.snapshot(&commit).join(path)).expect("found"), b"abc");
            assert!(cache.has(&commit, &file));
            assert!(!cache.has(&commit, &RemoteFile { bytes: 4, ..file }), "another size is another file");
        }
        cache.note_revision("refs/pr/1", &commit).expect("noted");
        let noted = dir.path().join("models--org--m/refs/refs/pr/1");
        assert_eq!(fs::read_to_string(noted).expect("read"), commit);
    }
}
