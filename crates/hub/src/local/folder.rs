//! Reading folders of others: bounded, and without surprises by links.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Local;

/// Entries that are looked at in all folders together.
const ENTRIES_MAX: usize = 500_000;

/// Entries that may still be looked at.
pub(super) struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: ENTRIES_MAX }
    }
}

impl Budget {
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// What an entry is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file of so many bytes, maybe behind a link.
    File(u64),
    /// A folder.
    Folder,
    /// A link to a folder.
    FolderLink,
    /// A link whose target is not there or may not be looked at.
    Dangling,
    /// A device, a pipe: never opened.
    Other,
}

/// One entry of a folder.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

impl Entry {
    /// Whether it is a folder, by itself or through a link.
    pub(super) fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder | Kind::FolderLink)
    }
}

/// The entries of a folder, sorted by name; none where there is no folder. Those whose names are no
/// text, or have control characters, are left out with a remark, as is a folder that cannot be read.
pub(super) fn list(folder: &Path, budget: &mut Budget, local: &mut Local) -> Vec<Entry> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Vec::new();
        }
        Err(error) => {
            local.remark(folder, format!("cannot be read: {error}"));
            return Vec::new();
        }
        Ok(entries) => entries,
    };
    let mut found = Vec::new();
    for entry in entries {
        if budget.is_spent() {
            break;
        }
        budget.left -= 1;
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                local.remark(folder, format!("cannot be read to its end: {error}"));
                break;
            }
        };
        match entry.file_name().into_string() {
            Ok(name) if crate::paths::is_safe(&name) => {
                let path = entry.path();
                let kind = kind_of(&path);
                found.push(Entry { name, path, kind });
            }
            Ok(name) => local.remark(folder, format!("{}: left out for its name", checkpoint::shown(&name))),
            Err(name) => {
                let name = checkpoint::shown(&name.to_string_lossy());
                local.remark(folder, format!("{name}: left out, for its name is not UTF-8"));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn kind_of(path: &Path) -> Kind {
    let is_link = path.symlink_metadata().is_ok_and(|data| data.is_symlink());
    match path.metadata() {
        Ok(data) if data.is_file() => Kind::File(data.len()),
        Ok(data) if data.is_dir() && is_link => Kind::FolderLink,
        Ok(data) if data.is_dir() => Kind::Folder,
        Ok(_) => Kind::Other,
        Err(_) => Kind::Dangling,
    }
}

/// A file below a folder.
#[derive(Clone, Debug)]
pub(super) struct FileBelow {
    /// Path below the folder, with `/` between its parts.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Bytes; `None` where a link has no target.
    pub(super) bytes: Option<u64>,
}

/// The files of a folder and of the folders in it, to a `depth`. Links to folders are not followed.
pub(super) fn files_below(
    folder: &Path,
    depth: usize,
    budget: &mut Budget,
    local: &mut Local,
) -> Vec<FileBelow> {
    let mut files = Vec::new();
    let mut open = vec![(folder.to_path_buf(), String::new(), depth)];
    while let Some((folder, prefix, depth)) = open.pop() {
        for entry in list(&folder, budget, local) {
            let name = format!("{prefix}{}", entry.name);
            let file = |bytes| FileBelow { name: name.clone(), path: entry.path.clone(), bytes };
            match entry.kind {
                Kind::File(bytes) => files.push(file(Some(bytes))),
                Kind::Dangling => files.push(file(None)),
                Kind::Folder if depth > 0 => open.push((entry.path.clone(), format!("{name}/"), depth - 1)),
                _ => {}
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}
