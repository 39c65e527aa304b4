//! LM Studio's models: `PUBLISHER/NAME/FILE.gguf`, or a folder of safetensors.

use std::path::Path;

use super::contents::models_of;
use super::folder::{Budget, files_below, list};
use super::{Local, LocalModel, Source};

/// Folders below a model's that are looked into: a quantisation may have one of its own.
const MODEL_DEPTH: usize = 2;

/// Finds the models below `root`. Links to folders are followed at both levels of names: people link
/// the models of other programs there.
pub(super) fn find(root: &Path, budget: &mut Budget, local: &mut Local) {
    for publisher in list(root, budget, local).into_iter().filter(|entry| entry.is_folder()) {
        for folder in list(&publisher.path, budget, local).into_iter().filter(|entry| entry.is_folder()) {
            let repo = format!("{}/{}", publisher.name, folder.name);
            let files = files_below(&folder.path, MODEL_DEPTH, budget, local);
            for found in models_of(&folder.path, &files) {
                local.models.push(LocalModel {
                    name: found.name(&repo),
                    repo: repo.clone(),
                    quant: found.quant,
                    label: found.label,
                    file: found.file,
                    revision: None,
                    commit: None,
                    source: Source::LmStudio,
                    path: found.path,
                    files: found.files,
                    bytes: found.bytes,
                    has_extras: false,
                    problem: found.problem,
                });
            }
        }
    }
}
