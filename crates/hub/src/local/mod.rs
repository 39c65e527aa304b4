//! Models that are here already, in the folders of this and of other programs; used in place.
//!
//! Only names, links and sizes are looked at, and the small files that programs keep about their
//! models; no weights. Everything found is untrusted: folders are read to a bounded depth and number of
//! entries, links of folders are followed only where a program puts models, and names that could leave
//! a folder are refused. A folder that cannot be read is a [`Remark`], never an error.

mod contents;
mod folder;
mod hf;
mod lmstudio;
mod lookup;
mod ollama;
mod own;
mod places;
mod remove;

use std::fmt;
use std::path::{Path, PathBuf};

pub use lookup::{Match, Way};
pub use own::gguf_in;
pub use places::Places;
pub use remove::Removal;

use folder::Budget;

/// Whose folder a model lies in.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The folder of this program's own models.
    Own,
    /// Hugging Face's cache, which this program pulls into.
    HuggingFace,
    /// LM Studio's models.
    LmStudio,
    /// Ollama's blobs.
    Ollama,
}

impl Source {
    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Source::Own => "own",
            Source::HuggingFace => "hf",
            Source::LmStudio => "lmstudio",
            Source::Ollama => "ollama",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Own => "the folder of own models",
            Source::HuggingFace => "the Hugging Face cache",
            Source::LmStudio => "LM Studio's folder",
            Source::Ollama => "Ollama's folder",
        })
    }
}

/// A model that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModel {
    /// The name that means this model and no other one here.
    pub name: String,
    /// The name without quantisation, tag and revision.
    pub repo: String,
    /// Quantisation as the file's name or its program's records have it, or `safetensors`.
    pub quant: Option<String>,
    /// What follows the colon in the name, if anything may: quantisation, file or tag.
    pub label: String,
    /// The first file's path in its repository; of a directory its config.json.
    pub file: String,
    /// Branch or tag that the files are of, or their commit; `None` for the usual one.
    pub revision: Option<String>,
    /// The commit, in a cache that has them.
    pub commit: Option<String>,
    /// Whose folder it is in.
    pub source: Source,
    /// What to open: the first GGUF file, or a directory.
    pub path: PathBuf,
    /// All files.
    pub files: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
    /// Its program keeps a chat template and parameters for it, which are not in the model's file.
    pub has_extras: bool,
    /// Why it cannot be opened as it is; `None` where nothing is known to be wrong.
    pub problem: Option<String>,
}

/// A folder or file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// All models that are here.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// Sorted by name; of equal names the one that the name means comes first.
    pub models: Vec<LocalModel>,
    /// What could not be used.
    pub remarks: Vec<Remark>,
}

impl Local {
    /// Looks into all `places`.
    pub fn find(places: &Places) -> Self {
        let mut local = Self::default();
        let mut budget = Budget::default();
        own::find(places.own.as_deref(), &mut budget, &mut local);
        places.hf.iter().for_each(|root| hf::find(root, &mut budget, &mut local));
        places.lmstudio.iter().for_each(|root| lmstudio::find(root, &mut budget, &mut local));
        places.ollama.iter().for_each(|root| ollama::find(root, &mut budget, &mut local));
        if budget.is_spent() {
            let path = places.hf.first().cloned().unwrap_or_default();
            local.remark(
                &path,
                "there are too many files in the folders of models; the rest is not looked at",
            );
        }
        local
            .models
            .sort_by_cached_key(|model| (model.name.to_lowercase(), model.source, model.path.clone()));
        local.name_apart();
        local
    }

    /// Two models of one name: it means the first, and the other is known by its path.
    fn name_apart(&mut self) {
        let mut seen = std::collections::HashSet::new();
        for model in &mut self.models {
            if !seen.insert(model.name.to_lowercase()) {
                model.name = model.path.display().to_string();
            }
        }
    }

    fn remark(&mut self, path: &Path, reason: impl Into<String>) {
        self.remarks.push(Remark { path: path.to_path_buf(), reason: reason.into() });
    }
}

#[cfg(test)]
mod tests;
