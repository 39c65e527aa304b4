//! Makes model directories, sound and broken ones.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use checkpoint::Checkpoint;
use tempfile::TempDir;

/// A temporary directory that is filled file by file.
pub(crate) struct Model {
    directory: TempDir,
}

impl Model {
    /// An empty directory.
    pub(crate) fn empty() -> Model {
        Model { directory: TempDir::new().unwrap() }
    }

    /// A directory with a sound `config.json`.
    pub(crate) fn with_config() -> Model {
        Model::empty().file("config.json", r#"{"model_type":"test","text_config":{"a":1}}"#)
    }

    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Model {
        std::fs::write(self.path().join(name), content).unwrap();
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn open(&self) -> Checkpoint {
        Checkpoint::open(self.path()).unwrap()
    }

    /// The message of the error that opening gives, with the directory's name as `DIR`.
    pub(crate) fn error(&self) -> String {
        self.error_at(self.path())
    }

    pub(crate) fn error_at(&self, path: &Path) -> String {
        let message = Checkpoint::open(path).unwrap_err().to_string();
        assert!(!message.contains('\n'), "one line: {message}");
        assert!(!message.ends_with('.'), "no full stop: {message}");
        message.replace(self.path().to_str().unwrap(), "DIR")
    }
}

/// A safetensors file with this header text and `data_bytes` zeros behind it.
pub(crate) fn raw_shard(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

/// A sound shard of two-byte tensors `(name, shape)`, one behind the other.
pub(crate) fn shard(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut entries = vec![r#""__metadata__":{"format":"pt"}"#.to_owned()];
    let mut end = 0;
    for (name, shape) in tensors {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        entries
            .push(format!(r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
    }
    raw_shard(&format!("{{{}}}", entries.join(",")), end)
}

/// An index of `(tensor, shard)`.
pub(crate) fn index(entries: &[(&str, &str)]) -> String {
    let map: Vec<String> = entries.iter().map(|(t, s)| format!(r#""{t}":"{s}""#)).collect();
    format!(r#"{{"metadata":{{"total_size":1}},"weight_map":{{{}}}}}"#, map.join(","))
}
