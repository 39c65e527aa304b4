//! This program's own folder of models: packed containers, GGUF files and directories, each by its name.

use std::path::{Path, PathBuf};

use super::contents::{models_of, only_gguf};
use super::folder::{Budget, Kind, files_below, list};
use super::{Local, LocalModel, Source};

/// Finds the models in `root`.
pub(super) fn find(root: Option<&Path>, budget: &mut Budget, local: &mut Local) {
    let Some(root) = root else { return };
    for entry in list(root, budget, local) {
        let mut model = LocalModel {
            name: entry.name.clone(),
            repo: entry.name.clone(),
            quant: None,
            label: String::new(),
            file: String::new(),
            revision: None,
            commit: None,
            source: Source::Own,
            path: entry.path.clone(),
            files: vec![entry.path.clone()],
            bytes: 0,
            has_extras: false,
            problem: None,
        };
        match entry.kind {
            Kind::Folder | Kind::FolderLink => {
                let files = files_below(&entry.path, 1, budget, local);
                if files.iter().any(|file| file.name == checkpoint::manifest::MANIFEST) {
                    model.files = files.iter().map(|file| file.path.clone()).collect();
                    model.bytes = files.iter().fold(0, |sum, file| sum + file.bytes.unwrap_or(0));
                    local.models.push(model);
                    continue;
                }
                for found in models_of(&entry.path, &files) {
                    local.models.push(LocalModel {
                        name: found.name(&entry.name),
                        quant: found.quant,
                        label: found.label,
                        file: found.file,
                        path: found.path,
                        files: found.files,
                        bytes: found.bytes,
                        problem: found.problem,
                        ..model.clone()
                    });
                }
            }
            Kind::File(bytes) if is_gguf(&entry.name) => {
                let stem = entry.name.rsplit_once('.').map_or(entry.name.as_str(), |(stem, _)| stem);
                model.name = stem.to_owned();
                model.repo = stem.to_owned();
                model.quant = crate::quant_of(&entry.name);
                model.bytes = bytes;
                local.models.push(model);
            }
            _ => {}
        }
    }
}

fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

/// The GGUF model in a folder that was given in place of a file.
///
/// # Errors
/// `None` where no GGUF file is in it; the files, in words, where they are of several models.
pub fn gguf_in(folder: &Path) -> Result<PathBuf, Option<String>> {
    let (mut budget, mut local) = (Budget::default(), Local::default());
    let files = files_below(folder, 0, &mut budget, &mut local);
    only_gguf(folder, &files)
}
