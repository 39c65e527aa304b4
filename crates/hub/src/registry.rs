//! The record of what this program pulled into a cache that it shares with other programs: only that
//! may be removed again.
//!
//! It lies beside what it describes, as `flash-moe.json` in the folder `models--ORG--NAME` of the
//! cache: whoever removes the repository removes its record too. It names files by the commit and
//! the path in the repository; what was in the cache before a pull is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{HubError, paths};

/// File name of the record.
pub(crate) const RECORD: &str = "flash-moe.json";
/// A file that is locked while the record changes.
pub(crate) const LOCK: &str = "flash-moe.lock";
/// Longest record that is read, bytes.
const RECORD_BYTES_MAX: u64 = 16 << 20;
const VERSION: u32 = 1;

/// The record of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Paths in the repository, by commit.
    pulled: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    pulled: BTreeMap<String, BTreeSet<String>>,
}

impl Registry {
    /// The record of the repository in `repo_dir`; an absent one is empty.
    ///
    /// # Errors
    /// [`HubError::Io`]; [`HubError::Damaged`] for a file that is no record, or names files outside of
    /// the repository.
    pub fn read(repo_dir: &Path) -> Result<Self, HubError> {
        let path = repo_dir.join(RECORD);
        let damaged = |reason: String| HubError::Damaged { path: path.clone(), reason };
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            file => file.map_err(HubError::io(&path, "open the record of what was pulled"))?,
        };
        let mut text = String::new();
        let read = file.take(RECORD_BYTES_MAX).read_to_string(&mut text);
        read.map_err(HubError::io(&path, "read the record of what was pulled"))?;
        let stored: Stored = serde_json::from_str(&text).map_err(|error| {
            damaged(format!(
                "not a record of what was pulled ({error}); remove the file, and nothing counts as pulled"
            ))
        })?;
        if stored.version != VERSION {
            let version = stored.version;
            return Err(damaged(format!("version {version} of the record; this program knows {VERSION}")));
        }
        for (commit, files) in &stored.pulled {
            if !paths::is_hash(commit) {
                return Err(damaged(format!("{} is no commit", checkpoint::shown(commit))));
            }
            if let Some(file) = files.iter().find(|file| !paths::is_safe(file)) {
                return Err(damaged(format!("{} is no file of a repository", checkpoint::shown(file))));
            }
        }
        Ok(Self { pulled: stored.pulled })
    }

    /// Whether this program pulled the file of that commit.
    pub fn has(&self, commit: &str, file: &str) -> bool {
        self.pulled.get(commit).is_some_and(|files| files.contains(file))
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.pulled.values().all(BTreeSet::is_empty)
    }

    /// Records files that a pull has fetched, not those that were there already.
    ///
    /// # Errors
    /// As [`Registry::read`].
    pub fn add<'a>(
        repo_dir: &Path,
        commit: &str,
        files: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), HubError> {
        change(repo_dir, |registry| {
            let known = registry.pulled.entry(commit.to_owned()).or_default();
            known.extend(files.into_iter().map(str::to_owned));
        })
    }

    /// Forgets files that have been removed.
    ///
    /// # Errors
    /// As [`Registry::read`].
    pub fn forget<'a>(
        repo_dir: &Path,
        commit: &str,
        files: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), HubError> {
        change(repo_dir, |registry| {
            if let Some(known) = registry.pulled.get_mut(commit) {
                for file in files {
                    known.remove(file);
                }
            }
            registry.pulled.retain(|_, files| !files.is_empty());
        })
    }

    fn write(self, repo_dir: &Path) -> Result<(), HubError> {
        let path = repo_dir.join(RECORD);
        if self.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(HubError::io(&path, "remove the record of what was pulled")(error))
                }
                _ => Ok(()),
            };
        }
        let stored = Stored { version: VERSION, pulled: self.pulled };
        let text = serde_json::to_vec(&stored).map_err(std::io::Error::from);
        let new: PathBuf = repo_dir.join(format!("{RECORD}.{}", std::process::id()));
        let written = text.and_then(|text| fs::write(&new, text)).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            // Nothing is left behind; the first error is the one that counts.
            let _ = fs::remove_file(&new);
        }
        written.map_err(HubError::io(&path, "write the record of what was pulled"))
    }
}

/// Changes the record while no other process does.
fn change(repo_dir: &Path, change: impl FnOnce(&mut Registry)) -> Result<(), HubError> {
    let path = repo_dir.join(LOCK);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(HubError::io(&path, "open the lock of the record"))?;
    // A file system without locks has no two pulls at once either, as far as can be told.
    let _ = lock.lock();
    let mut registry = Registry::read(repo_dir)?;
    change(&mut registry);
    registry.write(repo_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn files_are_recorded_and_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Registry::read(dir.path()).expect("empty"), Registry::default());
        Registry::add(dir.path(), COMMIT, ["a.gguf", "sub/b.gguf"]).expect("recorded");
        Registry::add(dir.path(), COMMIT, ["c.gguf"]).expect("recorded");
        let registry = Registry::read(dir.path()).expect("read");
        assert!(registry.has(COMMIT, "sub/b.gguf") && registry.has(COMMIT, "c.gguf"));
        assert!(!registry.has(COMMIT, "d.gguf") && !registry.has(&"0".repeat(40), "a.gguf"));
        Registry::forget(dir.path(), COMMIT, ["a.gguf", "sub/b.gguf", "c.gguf"]).expect("forgotten");
        assert!(!dir.path().join(RECORD).exists(), "an empty record is no file");
    }

    #[test]
    fn a_record_that_names_other_places_is_damaged() {
        let dir = tempfile::tempdir().expect("a directory");
        for text in [
            "",
            "[]",
            r#"{"version":2,"pulled":{}}"#,
            r#"{"version":1,"pulled":{"main":["a"]}}"#,
            &format!(r#"{{"version":1,"pulled":{{"{COMMIT}":["../../x"]}}}}"#),
        ] {
            fs::write(dir.path().join(RECORD), text).expect("written");
            let error = Registry::read(dir.path()).expect_err(text);
            assert!(matches!(error, HubError::Damaged { .. }), "{error}");
        }
    }
}
