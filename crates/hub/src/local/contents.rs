//! Which models the files of one folder are: GGUF files, split ones together, and safetensors with
//! their configuration.

use std::path::{Path, PathBuf};

use super::folder::FileBelow;
use crate::error::decimal_bytes;
use crate::select::{self, Entry, SAFETENSORS};

/// A model in a folder.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) quant: Option<String>,
    /// What tells it from the other models of the folder.
    pub(super) label: String,
    /// Whether it is the only one, and the label says nothing that the folder's name does not.
    pub(super) is_alone: bool,
    /// Path of the first file below the folder.
    pub(super) file: String,
    pub(super) path: PathBuf,
    pub(super) files: Vec<PathBuf>,
    pub(super) bytes: u64,
    pub(super) problem: Option<String>,
}

impl Contents {
    /// The name of the model in a folder that is called `repo`.
    pub(super) fn name(&self, repo: &str) -> String {
        if self.is_alone { repo.to_owned() } else { format!("{repo}:{}", self.label) }
    }
}

/// The models that `files`, which lie below `folder`, are.
pub(super) fn models_of(folder: &Path, files: &[FileBelow]) -> Vec<Contents> {
    let entries: Vec<Entry> = files.iter().map(|file| (file.name.clone(), file.bytes.unwrap_or(0))).collect();
    let ggufs = select::gguf_models(&entries);
    let directory = select::directory("", &entries).ok();
    let is_alone = ggufs.len() + usize::from(directory.is_some()) == 1;
    let mut models = Vec::new();
    for (model, split) in &ggufs {
        let known = model.quant != select::UNKNOWN_QUANT;
        let unique = ggufs.iter().filter(|(other, _)| other.quant == model.quant).count() == 1;
        let label = if known && unique { &model.quant } else { &model.main };
        let incomplete = split.filter(|(found, count)| found != count);
        let incomplete =
            incomplete.map(|(found, count)| format!("only {found} of its {count} files are here"));
        models.push(Contents {
            quant: known.then(|| model.quant.clone()),
            label: label.clone(),
            is_alone: is_alone && !known,
            file: model.main.clone(),
            path: folder.join(&model.main),
            files: model.paths.iter().map(|path| folder.join(path)).collect(),
            bytes: model.bytes,
            problem: incomplete.or_else(|| missing(&model.paths, files)),
        });
    }
    if let Some(model) = directory {
        models.push(Contents {
            quant: Some(SAFETENSORS.to_owned()),
            label: SAFETENSORS.to_owned(),
            is_alone,
            file: model.main.clone(),
            path: folder.to_path_buf(),
            files: model.paths.iter().map(|path| folder.join(path)).collect(),
            bytes: model.bytes,
            problem: missing(&model.paths, files).or_else(|| shards_missing(&model.paths)),
        });
    }
    models
}

/// Links of a model without their targets.
fn missing(paths: &[String], files: &[FileBelow]) -> Option<String> {
    let dangling = |path: &&String| files.iter().any(|file| file.name == **path && file.bytes.is_none());
    let name = paths.iter().find(dangling)?;
    Some(format!("{} is a link to a file that is not there", checkpoint::shown(name)))
}

/// `model-00001-of-00003.safetensors` without its companions.
fn shards_missing(paths: &[String]) -> Option<String> {
    let count_of = |path: &String| -> Option<usize> {
        path.strip_suffix(".safetensors")?.rsplit_once("-of-")?.1.parse().ok()
    };
    let found = paths.iter().filter_map(count_of).collect::<Vec<_>>();
    let expected = *found.first()?;
    (found.len() < expected).then(|| format!("only {} of its {expected} files are here", found.len()))
}

/// The GGUF model of a folder that was given in place of a file.
///
/// # Errors
/// Why there is none to open: none at all (`None`), or several, in words.
pub(super) fn only_gguf(folder: &Path, files: &[FileBelow]) -> Result<PathBuf, Option<String>> {
    let ggufs: Vec<Contents> =
        models_of(folder, files).into_iter().filter(|model| model.path != folder).collect();
    match &ggufs[..] {
        [] => Err(None),
        [one] => Ok(one.path.clone()),
        several => {
            let listed = several.iter().take(LISTED_MAX);
            let mut listed: Vec<String> = listed
                .map(|model| format!("{} ({})", checkpoint::shown(&model.file), decimal_bytes(model.bytes)))
                .collect();
            if several.len() > LISTED_MAX {
                listed.push(format!("and {} more", several.len() - LISTED_MAX));
            }
            Err(Some(listed.join(", ")))
        }
    }
}

/// Models that a message lists.
const LISTED_MAX: usize = 8;
