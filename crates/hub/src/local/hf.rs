//! Hugging Face's cache: `models--ORG--NAME/{refs,snapshots,blobs}`.
//!
//! `refs/REVISION` has a commit, `snapshots/COMMIT` the files of that commit, which are links to
//! `blobs/HASH` or, where links cannot be had, the files themselves.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::contents::{Contents, models_of};
use super::folder::{Budget, Entry, files_below, list};
use super::{Local, LocalModel, Source};
use crate::paths;

/// How a repository's folder begins.
pub(super) const PREFIX: &str = "models--";
/// Between organisation and name.
const SEPARATOR: &str = "--";
/// Folders below a snapshot that are looked into.
const SNAPSHOT_DEPTH: usize = 3;
/// Folders below `refs`: `refs/refs/pr/1`.
const REFS_DEPTH: usize = 3;
/// Longest file below `refs`, bytes.
const REF_BYTES_MAX: u64 = 256;
/// The usual branch.
const MAIN: &str = "main";
/// Digits of a commit in a name.
const COMMIT_DIGITS: usize = 8;

/// Finds the models of the cache at `root`.
pub(super) fn find(root: &Path, budget: &mut Budget, local: &mut Local) {
    for entry in list(root, budget, local) {
        if let Some(repo) = repo_name(&entry.name).filter(|_| entry.is_folder()) {
            find_in_repo(&entry.path, &repo, budget, local);
        }
    }
}

/// `ORG/NAME` of a folder; old models have no organisation. A name may have `--` in it.
fn repo_name(folder: &str) -> Option<String> {
    let rest = folder.strip_prefix(PREFIX).filter(|rest| !rest.is_empty())?;
    let name = rest.replacen(SEPARATOR, "/", 1);
    paths::is_safe(&name).then_some(name)
}

struct Snapshot {
    commit: String,
    path: PathBuf,
    /// The revision that is this commit; the usual one first.
    revision: Option<String>,
    changed: SystemTime,
}

fn find_in_repo(folder: &Path, repo: &str, budget: &mut Budget, local: &mut Local) {
    let refs = refs(&folder.join("refs"), budget, local);
    let snapshot = |entry: Entry| Snapshot {
        revision: refs.iter().find(|(_, commit)| **commit == entry.name).map(|(name, _)| name.clone()),
        changed: entry.path.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
        commit: entry.name,
        path: entry.path,
    };
    let entries = list(&folder.join("snapshots"), budget, local).into_iter();
    let mut snapshots: Vec<Snapshot> =
        entries.filter(|entry| entry.is_folder() && paths::is_hash(&entry.name)).map(snapshot).collect();
    // The usual branch, then what has a name, then the newest.
    snapshots.sort_by_key(|snapshot| {
        let rank = match snapshot.revision.as_deref() {
            Some(MAIN) => 0,
            Some(_) => 1,
            None => 2,
        };
        (rank, std::cmp::Reverse(snapshot.changed), snapshot.commit.clone())
    });
    // A file that two revisions share is one model.
    let mut known: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for snapshot in &snapshots {
        let files = files_below(&snapshot.path, SNAPSHOT_DEPTH, budget, local);
        for found in models_of(&snapshot.path, &files) {
            let is_directory = found.path == snapshot.path;
            let first = if is_directory { found.path.join(&found.file) } else { found.path.clone() };
            let target = first.canonicalize().unwrap_or(first);
            let same = known.entry(found.label.clone()).or_default();
            if !same.contains(&target) {
                let is_first = same.is_empty();
                same.push(target);
                local.models.push(model(repo, snapshot, found, is_first));
            }
        }
    }
}

/// The first of a name needs no revision behind it.
fn model(repo: &str, snapshot: &Snapshot, found: Contents, is_first: bool) -> LocalModel {
    let short = snapshot.commit.get(..COMMIT_DIGITS).unwrap_or(&snapshot.commit);
    let revision = (!is_first).then(|| snapshot.revision.clone().unwrap_or_else(|| short.to_owned()));
    let name = found.name(repo);
    LocalModel {
        name: revision.iter().fold(name, |name, revision| format!("{name}@{revision}")),
        repo: repo.to_owned(),
        quant: found.quant,
        label: found.label,
        file: found.file,
        revision: revision.or_else(|| snapshot.revision.clone().filter(|revision| revision != MAIN)),
        commit: Some(snapshot.commit.clone()),
        source: Source::HuggingFace,
        path: found.path,
        files: found.files,
        bytes: found.bytes,
        has_extras: false,
        problem: found.problem,
    }
}

/// Commits by revision.
fn refs(folder: &Path, budget: &mut Budget, local: &mut Local) -> BTreeMap<String, String> {
    let files = files_below(folder, REFS_DEPTH, budget, local).into_iter();
    let named = |file: super::folder::FileBelow| {
        let mut text = String::new();
        file.bytes?;
        File::open(&file.path).and_then(|file| file.take(REF_BYTES_MAX).read_to_string(&mut text)).ok()?;
        let commit = text.trim();
        paths::is_hash(commit).then(|| (file.name, commit.to_owned()))
    };
    let mut refs: BTreeMap<String, String> = files.filter_map(named).collect();
    // Of two names for a commit the usual one is found first.
    if let Some(main) = refs.get(MAIN).cloned() {
        refs.retain(|name, commit| name == MAIN || *commit != main);
    }
    refs
}
