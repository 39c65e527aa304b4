//! Where programs keep their models: their own variables and usual folders.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Folders to look into.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// This program's own models.
    pub own: Option<PathBuf>,
    /// Hugging Face caches.
    pub hf: Vec<PathBuf>,
    /// LM Studio's folders of models.
    pub lmstudio: Vec<PathBuf>,
    /// Ollama's folders of models.
    pub ollama: Vec<PathBuf>,
}

/// Longest file that names a folder, bytes.
const POINTER_BYTES_MAX: u64 = 4096;

impl Places {
    /// The folders by the variables that `variable` gives and the user's `home`: nothing else is asked,
    /// so that tests see only what they made.
    pub fn new(
        variable: &dyn Fn(&str) -> Option<OsString>,
        home: Option<&Path>,
        own: Option<PathBuf>,
    ) -> Self {
        let named = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some(expanded(Path::new(&value), home))
        };
        let hf_home = || named("HF_HOME").map(|dir| dir.join("hub"));
        let cache = || named("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
        let hf = named("HF_HUB_CACHE")
            .or_else(|| named("HUGGINGFACE_HUB_CACHE"))
            .or_else(hf_home)
            .or_else(|| Some(cache()?.join("huggingface").join("hub")));
        let pointed = home.and_then(|home| pointed(&home.join(".lmstudio-home-pointer"), home));
        let lmstudio =
            home.into_iter().flat_map(|home| [home.join(".lmstudio"), home.join(".cache/lm-studio")]);
        let mut lmstudio: Vec<PathBuf> =
            pointed.into_iter().chain(lmstudio).map(|dir| dir.join("models")).collect();
        let mut ollama = match named("OLLAMA_MODELS") {
            Some(dir) => vec![dir],
            // The second one is where its service on Linux has its home.
            None => home
                .map(|home| home.join(".ollama/models"))
                .into_iter()
                .chain([PathBuf::from("/usr/share/ollama/.ollama/models")])
                .collect(),
        };
        once_each(&mut lmstudio);
        once_each(&mut ollama);
        Self { own, hf: hf.into_iter().collect(), lmstudio, ollama }
    }
}

/// A folder may have two names; it is looked into once.
fn once_each(folders: &mut Vec<PathBuf>) {
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.clone())));
}

/// The folder that a file names in its first line.
fn pointed(file: &Path, home: &Path) -> Option<PathBuf> {
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return None;
    }
    let mut text = String::new();
    File::open(file).and_then(|file| file.take(POINTER_BYTES_MAX).read_to_string(&mut text)).ok()?;
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty())?;
    let folder = expanded(Path::new(line), Some(home));
    folder.is_absolute().then_some(folder)
}

/// A path with `~` for the home directory.
fn expanded(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)], home: &Path) -> Places {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        Places::new(&variable, Some(home), None)
    }

    #[test]
    fn folders_follow_variables_and_home() {
        let home = Path::new("/home/u");
        let usual = places(&[("HF_HOME", "")], home);
        assert_eq!(usual.hf, [home.join(".cache/huggingface/hub")]);
        assert_eq!(usual.lmstudio, [home.join(".lmstudio/models"), home.join(".cache/lm-studio/models")]);
        assert_eq!(usual.ollama[0], home.join(".ollama/models"));
        let hf = |variables: &[(&str, &str)]| places(variables, home).hf[0].clone();
        assert_eq!(hf(&[("XDG_CACHE_HOME", "/c")]), Path::new("/c/huggingface/hub"));
        assert_eq!(hf(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/c")]), home.join("hf/hub"));
        assert_eq!(hf(&[("HF_HUB_CACHE", "/hub"), ("HF_HOME", "/hf")]), Path::new("/hub"));
        assert_eq!(places(&[("OLLAMA_MODELS", "/o")], home).ollama, [Path::new("/o")]);
        let none = Places::new(&|_| None, None, None);
        assert!(none.hf.is_empty() && none.lmstudio.is_empty());
    }

    #[test]
    fn lm_studio_may_be_elsewhere() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join(".lmstudio-home-pointer"), "/disk/lms\n").expect("written");
        assert_eq!(places(&[], home.path()).lmstudio[0], Path::new("/disk/lms/models"));
        std::fs::write(home.path().join(".lmstudio-home-pointer"), "relative").expect("written");
        assert_eq!(places(&[], home.path()).lmstudio.len(), 2);
    }
}
