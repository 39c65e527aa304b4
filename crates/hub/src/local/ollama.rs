//! Ollama's models: `manifests/HOST/NAMESPACE/NAME/TAG` is a JSON file that lists layers, each a file
//! `blobs/sha256-HASH`. The layer of a model is a GGUF file; others have templates and parameters.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::folder::{Budget, Entry, Kind, list};
use super::{Local, LocalModel, Source};

/// The registry whose name is left out.
const REGISTRY: &str = "registry.ollama.ai";
/// The namespace there that is left out.
const LIBRARY: &str = "library";
/// The tag that a name without one means.
pub(super) const LATEST: &str = "latest";
/// Longest manifest or configuration that is read, bytes.
const JSON_BYTES_MAX: u64 = 1 << 20;
/// Hexadecimal digits of SHA-256.
const DIGEST_DIGITS: usize = 64;
const MODEL: &str = "application/vnd.ollama.image.model";
/// What Ollama adds to a model when it runs it.
const EXTRAS: [&str; 3] = [
    "application/vnd.ollama.image.template",
    "application/vnd.ollama.image.params",
    "application/vnd.ollama.image.system",
];

#[derive(Deserialize)]
struct Manifest {
    config: Option<Layer>,
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: Option<u64>,
}

/// What is used of a model's configuration.
#[derive(Deserialize)]
struct Config {
    file_type: Option<String>,
}

/// Finds the models of the folder `root`.
pub(super) fn find(root: &Path, budget: &mut Budget, local: &mut Local) {
    let below = |entry: &Entry, budget: &mut Budget, local: &mut Local| list(&entry.path, budget, local);
    for host in folders(list(&root.join("manifests"), budget, local)) {
        for space in folders(below(&host, budget, local)) {
            for model in folders(below(&space, budget, local)) {
                for tag in below(&model, budget, local) {
                    if matches!(tag.kind, Kind::File(_)) {
                        let repo = repo(&host.name, &space.name, &model.name);
                        match read(root, &tag, repo) {
                            Ok(found) => local.models.push(found),
                            Err(reason) => local.remark(&tag.path, reason),
                        }
                    }
                }
            }
        }
    }
}

fn folders(entries: Vec<Entry>) -> impl Iterator<Item = Entry> {
    entries.into_iter().filter(|entry| entry.kind == Kind::Folder)
}

/// The name as Ollama's users write it.
fn repo(host: &str, space: &str, model: &str) -> String {
    match (host, space) {
        (REGISTRY, LIBRARY) => model.to_owned(),
        (REGISTRY, _) => format!("{space}/{model}"),
        _ => format!("{host}/{space}/{model}"),
    }
}

fn read(root: &Path, tag: &Entry, repo: String) -> Result<LocalModel, String> {
    let manifest: Manifest = json(&tag.path)?;
    let mut models = manifest.layers.iter().filter(|layer| layer.media_type == MODEL);
    let Some(layer) = models.next() else {
        return Err("lists no model file; the model is not on this machine, or of another kind".into());
    };
    let path = blob(root, &layer.digest)?;
    let got = path.metadata().ok().filter(|data| data.is_file()).map(|data| data.len());
    let problem = match (got, layer.size, models.next()) {
        (None, _, _) => Some("its file is not there; pull it again with Ollama".to_owned()),
        (Some(got), Some(size), _) if got != size => {
            Some(format!("its file has {got} bytes instead of {size}; pull it again with Ollama"))
        }
        (_, _, Some(_)) => Some("it consists of several files".to_owned()),
        _ => None,
    };
    let config = manifest.config.and_then(|layer| blob(root, &layer.digest).ok());
    let config = config.and_then(|path| json::<Config>(&path).ok());
    Ok(LocalModel {
        name: format!("{repo}:{}", tag.name),
        quant: config.and_then(|config| config.file_type).filter(|quant| is_plain(quant)),
        label: tag.name.clone(),
        file: tag.name.clone(),
        revision: None,
        commit: None,
        source: Source::Ollama,
        files: vec![path.clone()],
        bytes: got.unwrap_or(0),
        has_extras: manifest.layers.iter().any(|layer| EXTRAS.contains(&layer.media_type.as_str())),
        path,
        repo,
        problem,
    })
}

/// The name of a quantisation, and not something long or strange in its place.
fn is_plain(quant: &str) -> bool {
    (1..=24).contains(&quant.len()) && quant.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn blob(root: &Path, digest: &str) -> Result<PathBuf, String> {
    let hash = digest.strip_prefix("sha256:").or_else(|| digest.strip_prefix("sha256-"));
    let hash = hash.filter(|hash| hash.len() == DIGEST_DIGITS && crate::paths::is_hash(hash));
    let hash = hash.ok_or_else(|| format!("{} is no SHA-256 digest", checkpoint::shown(digest)))?;
    Ok(root.join("blobs").join(format!("sha256-{hash}")))
}

/// A small file with an object in JSON.
fn json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    if !path.metadata().is_ok_and(|data| data.is_file()) {
        return Err("is no file".into());
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(JSON_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("is not a manifest: {}", checkpoint::shown(&error.to_string())))
}
