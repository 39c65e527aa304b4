//! A MODEL argument: a path, `demo`, or the name of a model that is here. The one place where that is
//! decided.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::{env, fs};

use hub::Wanted;
use hub::local::{Local, LocalModel, Match, Places, Way, gguf_in};

use crate::{demo, download, output};

/// The model in the binary.
pub(crate) const DEMO: &str = "demo";
/// The folder of own models, instead of the one in the user's data directory.
const MODELS_VARIABLE: &str = "FLASH_MOE_MODELS";
/// Models that an error lists.
const LISTED_MAX: usize = 6;
/// What a directory has that is a model by itself, whole or damaged.
const MODEL_FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    checkpoint::manifest::DENSE,
    checkpoint::manifest::JOURNAL,
];

/// A model as it was asked for. Where it lies is found out once.
#[derive(Clone, Debug)]
pub(crate) struct ModelName {
    given: String,
    path: Arc<OnceLock<PathBuf>>,
}

/// What a name means.
pub(crate) enum Lookup {
    /// This path, which need not exist if it was given as one.
    Here(PathBuf),
    /// No model that is here.
    Absent(Absent),
}

/// A name that means no model here.
pub(crate) struct Absent {
    name: String,
    /// What it would mean on a hub.
    pub(crate) wanted: Option<Wanted>,
    near: Vec<String>,
}

impl FromStr for ModelName {
    type Err = Infallible;

    fn from_str(given: &str) -> Result<Self, Infallible> {
        Ok(Self { given: given.to_owned(), path: Arc::default() })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

impl ModelName {
    /// As it was given.
    pub(crate) fn given(&self) -> &str {
        &self.given
    }

    /// Where the model lies; the demo is made on first use.
    ///
    /// # Errors
    /// There is no such model here, or several.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        match self.look_up()? {
            Lookup::Here(path) => Ok(path),
            Lookup::Absent(absent) => Err(absent.error()),
        }
    }

    /// Where the model lies; one that is not here is offered to be pulled where somebody can be asked.
    ///
    /// # Errors
    /// As [`ModelName::path`]; the pull failed.
    pub(crate) fn path_or_pull(&self) -> anyhow::Result<PathBuf> {
        let absent = match self.look_up()? {
            Lookup::Here(path) => return Ok(path),
            Lookup::Absent(absent) => absent,
        };
        match &absent.wanted {
            Some(Wanted::Repo(wanted)) if io::stdin().is_terminal() && io::stderr().is_terminal() => {
                if !absent.near.is_empty() {
                    output::note(&format!("note: {} is here", absent.near.join(" or ")));
                }
                let path = download::offer(wanted)?;
                let _ = self.path.set(path.clone());
                Ok(path)
            }
            _ => Err(absent.error()),
        }
    }

    /// Where the model lies, if it is here.
    ///
    /// # Errors
    /// The name means several models, or one that is not complete.
    pub(crate) fn look_up(&self) -> anyhow::Result<Lookup> {
        if let Some(path) = self.path.get() {
            return Ok(Lookup::Here(path.clone()));
        }
        let found = look_up(&self.given)?;
        if let Lookup::Here(path) = &found {
            let _ = self.path.set(path.clone());
        }
        Ok(found)
    }
}

impl Absent {
    /// The error of a command that needs the model.
    pub(crate) fn error(&self) -> anyhow::Error {
        let near = match &self.near[..] {
            [] => String::new(),
            near => format!("; did you mean {}?", near.join(" or ")),
        };
        let name = checkpoint::shown(&self.name);
        match &self.wanted {
            Some(wanted) => anyhow::anyhow!(
                "{name}: there is no such file, and no such model here; get it with `flash-moe pull {wanted}`{near}"
            ),
            None => anyhow::anyhow!(
                "{name}: there is no such file, and no such model here{near}; `flash-moe list` shows those that are \
                 here, `flash-moe pull ORG/NAME:QUANT` gets one"
            ),
        }
    }
}

/// What exists goes before names, unless it is no model and a name is.
fn look_up(name: &str) -> anyhow::Result<Lookup> {
    let path = Path::new(name);
    // A link to nothing is a damaged model.
    let exists = path.symlink_metadata().is_ok();
    if exists && (is_spelt_as_path(name) || checkpoint::glance(path).is_ok() || gguf_in(path) != Err(None)) {
        return in_folder(path).map(Lookup::Here);
    }
    if name == DEMO {
        return demo::path().map(Lookup::Here);
    }
    if is_spelt_as_path(name) {
        return Ok(Lookup::Here(path.to_path_buf()));
    }
    match in_local(name, &Local::find(&places()))? {
        Lookup::Absent(_) if exists => Ok(Lookup::Here(path.to_path_buf())),
        found => Ok(found),
    }
}

/// The model in a folder of one GGUF model, or the path itself.
fn in_folder(path: &Path) -> anyhow::Result<PathBuf> {
    let has = |name: &&str| path.join(name).symlink_metadata().is_ok();
    if !path.is_dir() || MODEL_FILES.iter().any(has) {
        return Ok(path.to_path_buf());
    }
    match gguf_in(path) {
        Ok(file) => Ok(file),
        Err(None) => Ok(path.to_path_buf()),
        Err(Some(files)) => {
            anyhow::bail!("{}: this directory has several GGUF models; name one: {files}", path.display())
        }
    }
}

fn in_local(name: &str, local: &Local) -> anyhow::Result<Lookup> {
    let (model, way) = match local.look_up(name) {
        Match::One(model, way) => (model, way),
        Match::Several(models) => return Err(several(name, &models)),
        Match::None(near) => {
            let wanted = Wanted::parse(name).ok();
            let near = near.into_iter().map(checkpoint::shown).collect();
            return Ok(Lookup::Absent(Absent { name: name.to_owned(), wanted, near }));
        }
    };
    if let Some(problem) = &model.problem {
        anyhow::bail!("{}: {problem} ({})", checkpoint::shown(&model.name), model.path.display());
    }
    if way != Way::Exact {
        output::note(&format!("note: using {}{}", model.name, other_quants(model, local)));
    }
    if model.has_extras {
        output::note(
            "note: the template and the parameters that Ollama adds are not used, but those in the model's file",
        );
    }
    Ok(Lookup::Here(model.path.clone()))
}

/// `; Q8_0 and BF16 are here too`.
fn other_quants(model: &LocalModel, local: &Local) -> String {
    let others = local.models.iter().filter(|other| other.repo == model.repo && other.label != model.label);
    let others: Vec<&str> = others.map(|other| other.label.as_str()).take(LISTED_MAX).collect();
    match others[..] {
        [] => String::new(),
        [one] => format!("; {one} is here too"),
        _ => format!("; {} are here too", others.join(", ")),
    }
}

/// The error of a name that means several models.
pub(crate) fn several(name: &str, models: &[&LocalModel]) -> anyhow::Error {
    let mut listed: Vec<String> =
        models.iter().take(LISTED_MAX).map(|model| checkpoint::shown(&model.name)).collect();
    if models.len() > LISTED_MAX {
        listed.push(format!("and {} more (`flash-moe list`)", models.len() - LISTED_MAX));
    }
    let name = checkpoint::shown(name);
    anyhow::anyhow!("{name}: several models here fit this name; name one of {}", listed.join(", "))
}

/// Whether a name is meant as a path, so that its error is a file's: it begins as paths do, ends as files
/// of models do, has several `/`, or one behind a folder that is here.
fn is_spelt_as_path(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let is_file = [".gguf", ".safetensors", ".json", ".bin"].iter().any(|end| lower.ends_with(end));
    if name.starts_with(['.', '~', '/', '\\']) || name.ends_with(['/', '\\']) || Path::new(name).is_absolute()
    {
        return true;
    }
    if name.contains("://") {
        return false;
    }
    // A file in a repository is behind a colon, and a path has none.
    let (repo, has_colon) = name.split_once(':').map_or((name, false), |(repo, _)| (repo, true));
    if has_colon {
        return false;
    }
    let in_folder_here = repo.split_once('/').is_some_and(|(first, _)| fs::metadata(first).is_ok());
    let is_name = match Wanted::parse(name) {
        Ok(_) => true,
        Err(_) => !name.contains('/') || is_name_of_other_registry(name),
    };
    is_file || name.contains('\\') || in_folder_here || !is_name
}

/// `registry.ollama.ai/library/NAME` and the like: the first part is a host.
fn is_name_of_other_registry(name: &str) -> bool {
    name.split_once('/').is_some_and(|(host, rest)| host.contains('.') && rest.matches('/').count() == 1)
}

/// The folders that models are looked for in.
pub(crate) fn places() -> Places {
    let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_path_buf());
    let mut places = Places::new(&|name| env::var_os(name), home.as_deref(), own_models());
    // Models of hubs that were named by their addresses.
    let hubs = fs::read_dir(demo::cache_dir().join("hubs")).into_iter().flatten().flatten();
    places.hf.extend(hubs.map(|entry| entry.path()));
    places
}

/// The folder of own models.
fn own_models() -> Option<PathBuf> {
    match env::var_os(MODELS_VARIABLE).filter(|dir| !dir.is_empty()) {
        Some(dir) => Some(PathBuf::from(dir)),
        None => {
            directories::ProjectDirs::from("", "", "flash-moe").map(|dirs| dirs.data_dir().join("models"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_are_told_apart_by_their_spelling() {
        for path in [
            "./m",
            "../m",
            "~/m",
            "/m",
            "m.gguf",
            "m.GGUF",
            "a/m.gguf",
            "a/b/c",
            "a/b/c/d",
            "m/",
            "src/nothing",
            "a//b",
            "a b/c",
            "a\\m",
        ] {
            assert!(is_spelt_as_path(path), "{path}");
        }
        for name in [
            "org/m",
            "org/m:Q4_K_M",
            "org/m:dir/m.gguf",
            "hf.co/org/m",
            "hf.co/org/m:Q8_0",
            "https://hf.co/org/m",
            "qwen3",
            "qwen3:30b",
            "registry.ollama.ai/library/qwen3",
            "org/m@v1",
        ] {
            assert!(!is_spelt_as_path(name), "{name}");
        }
    }
}
