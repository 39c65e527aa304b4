//! Removing what this program pulled, and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::folder::{Budget, files_below, list};
use super::{Local, LocalModel, Source};
use crate::HubError;
use crate::registry::{LOCK, Registry};

/// What removing a model would do.
#[derive(Clone, Debug)]
pub struct Removal {
    name: String,
    /// The repository's folder in the cache.
    folder: PathBuf,
    commit: String,
    /// Paths in the repository.
    own: Vec<String>,
    /// Those that another program put there.
    others: Vec<String>,
    bytes: u64,
}

/// What is below a repository's folder: deeper than any path in it that this program writes.
const DEPTH: usize = 12;

impl Removal {
    /// Whether this program pulled any of the model's files.
    pub fn is_ours(model: &LocalModel) -> bool {
        Self::of(model).is_ok()
    }

    /// What removing `model` would do. Nothing is removed yet.
    ///
    /// # Errors
    /// [`HubError::NotOurs`] where this program pulled none of its files; a damaged record.
    pub fn plan(model: &LocalModel) -> Result<Self, HubError> {
        let mut removal = Self::of(model)?;
        removal.bytes = removal.freed().iter().map(|(_, bytes)| bytes).sum();
        Ok(removal)
    }

    fn of(model: &LocalModel) -> Result<Self, HubError> {
        let not_ours = |reason: String| HubError::NotOurs { name: model.name.clone(), reason };
        let (Source::HuggingFace, Some(commit)) = (model.source, &model.commit) else {
            return Err(not_ours(whose(model)));
        };
        // `models--…/snapshots/COMMIT`, then the path of the file.
        let snapshot = model.path.ancestors().find(|path| path.ends_with(commit));
        let folder = snapshot.and_then(|path| path.parent()?.parent());
        let (Some(snapshot), Some(folder)) = (snapshot, folder) else {
            return Err(not_ours(whose(model)));
        };
        let registry = Registry::read(folder)?;
        let inside = |path: &PathBuf| {
            let below = path.strip_prefix(snapshot).ok()?;
            let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
            parts.map(|parts| parts.join("/"))
        };
        let files = model.files.iter().filter_map(inside);
        let (own, others): (Vec<String>, Vec<String>) = files.partition(|file| registry.has(commit, file));
        if own.is_empty() {
            return Err(not_ours(whose(model)));
        }
        Ok(Self {
            name: model.name.clone(),
            folder: folder.to_path_buf(),
            commit: commit.clone(),
            own,
            others,
            bytes: 0,
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Files that would go.
    pub fn files(&self) -> usize {
        self.own.len()
    }

    /// Files of the model that another program put there, and that stay.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// Bytes that would be free: those of files that nothing else in the cache refers to.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The repository's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshots").join(&self.commit)
    }

    /// Blobs that only the model's own files refer to, and files that are no links, with their bytes.
    fn freed(&self) -> Vec<(PathBuf, u64)> {
        let snapshot = self.snapshot();
        let own: Vec<PathBuf> = self.own.iter().map(|file| snapshot.join(file)).collect();
        let (mut budget, mut local) = (Budget::default(), Local::default());
        let others = files_below(&self.folder.join("snapshots"), DEPTH, &mut budget, &mut local);
        // A blob counts as used where not all could be looked at.
        let all_seen = !budget.is_spent() && local.remarks.is_empty();
        let blobs = self.folder.join("blobs").canonicalize().ok();
        let used: Vec<PathBuf> = others
            .iter()
            .filter(|file| !own.contains(&file.path))
            .filter_map(|file| file.path.canonicalize().ok())
            .collect();
        let freed = |path: &PathBuf| {
            let data = path.symlink_metadata().ok()?;
            if data.is_file() {
                return Some((path.clone(), data.len()));
            }
            // A link to anywhere else is removed, its target is not.
            let target = path.canonicalize().ok()?;
            let is_blob = target.parent() == blobs.as_deref();
            let bytes = target.metadata().ok()?.len();
            (all_seen && is_blob && !used.contains(&target)).then_some((target, bytes))
        };
        let mut freed: Vec<(PathBuf, u64)> = own.iter().filter_map(freed).collect();
        // Two paths may have the same content.
        freed.sort();
        freed.dedup();
        freed
    }

    /// Removes the files, and the folders that are empty then. Returns the bytes that are free now.
    ///
    /// # Errors
    /// [`HubError::Io`]; what was removed before stays removed, and the rest is still recorded.
    pub fn run(&self) -> Result<u64, HubError> {
        let freed = self.freed();
        let snapshot = self.snapshot();
        for file in &self.own {
            remove(&snapshot.join(file))?;
        }
        let mut bytes = 0;
        for (path, size) in &freed {
            remove(path)?;
            bytes += size;
        }
        Registry::forget(&self.folder, &self.commit, self.own.iter().map(String::as_str))?;
        self.tidy();
        Ok(bytes)
    }

    /// Removes folders that are empty now, and of a repository without snapshots what names them. What
    /// cannot be removed stays, for it is not empty.
    fn tidy(&self) {
        let snapshot = self.snapshot();
        for file in &self.own {
            let path = snapshot.join(file);
            let above = path.ancestors().skip(1).take_while(|path| path.starts_with(&snapshot));
            above.take_while(|path| fs::remove_dir(path).is_ok()).for_each(drop);
        }
        let snapshots = self.folder.join("snapshots");
        if fs::remove_dir(&snapshots).is_err() {
            return;
        }
        let refs = self.folder.join("refs");
        let (mut budget, mut local) = (Budget::default(), Local::default());
        for file in files_below(&refs, DEPTH, &mut budget, &mut local) {
            let _ = fs::remove_file(&file.path);
            let above = file.path.ancestors().skip(1).take_while(|path| path.starts_with(&refs));
            above.take_while(|path| fs::remove_dir(path).is_ok()).for_each(drop);
        }
        let _ = fs::remove_dir(self.folder.join("blobs"));
        let rest = list(&self.folder, &mut budget, &mut local);
        if rest.iter().all(|entry| entry.name == LOCK) {
            let _ = fs::remove_file(self.folder.join(LOCK));
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// What is not there any more is as good as removed.
fn remove(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(HubError::io(path, "remove the file")(error))
        }
        _ => Ok(()),
    }
}

/// Who put a model where it is, and how it is removed there.
fn whose(model: &LocalModel) -> String {
    let path = model.path.display();
    match model.source {
        Source::Own => format!("it was not pulled; it lies at {path}, remove it there"),
        Source::HuggingFace => format!(
            "another program put it into the Hugging Face cache, at {path}; remove it with that program, or with \
             `hf cache rm`"
        ),
        Source::LmStudio => format!("it belongs to LM Studio and lies at {path}; remove it there"),
        Source::Ollama => {
            format!("it belongs to Ollama and lies at {path}; remove it with `ollama rm {}`", model.name)
        }
    }
}
