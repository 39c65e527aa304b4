//! Reading the small files that describe a model, with a limit on their size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{CheckpointError, FileError, shown};

/// Whether there is a file at `path`: the one question to ask before a file that a model may lack.
/// Only the absence of the name itself is absence.
///
/// # Errors
/// A link whose target is not there, something that is no file, a path that may not be looked at.
pub fn file_exists(path: &Path) -> Result<bool, CheckpointError> {
    if !exists(path)? {
        return Ok(false);
    }
    let metadata = std::fs::metadata(path).map_err(|e| CheckpointError::io(path, "look at the file", e))?;
    match metadata.is_dir() {
        true => Err(CheckpointError::new(path, FileError::NotAFile { found: "a directory" })),
        false => Ok(true),
    }
}

/// Whether there is anything at `path`; a link counts for its target.
///
/// # Errors
/// A link whose target is not there, a path that may not be looked at.
pub(crate) fn exists(path: &Path) -> Result<bool, CheckpointError> {
    match std::fs::metadata(path) {
        Ok(_) => return Ok(true),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(CheckpointError::io(path, "look at the file", e));
        }
        Err(_) => {}
    }
    match std::fs::read_link(path) {
        Ok(target) => Err(CheckpointError::new(path, FileError::DanglingLink { target })),
        Err(_) => Ok(false),
    }
}

/// Reads a whole file that must be at most `limit` bytes long.
pub(crate) fn read_small(path: &Path, what: &'static str, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let file = File::open(path).map_err(|e| CheckpointError::io(path, "open the file", e))?;
    let got = file.metadata().map_err(|e| CheckpointError::io(path, "find the size", e))?.len();
    if got > limit {
        return Err(CheckpointError::new(path, FileError::TooLarge { what, limit, got }));
    }
    let mut bytes = Vec::new();
    // `take` because a special file may deliver more than its size says.
    file.take(limit).read_to_end(&mut bytes).map_err(|e| CheckpointError::io(path, "read the file", e))?;
    Ok(bytes)
}

/// Reads `config.json`: any JSON object of at most [`CONFIG_BYTES_MAX`] bytes.
pub(crate) fn read_config(path: &Path) -> Result<serde_json::Value, CheckpointError> {
    let text = read_small(path, "the configuration in bytes", CONFIG_BYTES_MAX)?;
    parse_config(path, &text)
}

/// Parses the text of `config.json`.
pub(crate) fn parse_config(path: &Path, text: &[u8]) -> Result<serde_json::Value, CheckpointError> {
    if text.starts_with(b"version https://git-lfs") {
        return Err(CheckpointError::new(path, FileError::LfsPointer));
    }
    let invalid = |reason: String| {
        CheckpointError::new(
            path,
            FileError::Json {
                expected: "model configuration (a JSON object)",
                reason: shown(&reason),
                advice: "download it again",
            },
        )
    };
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|e| invalid(e.to_string()))?;
    match value {
        serde_json::Value::Object(_) => Ok(value),
        serde_json::Value::Array(_) => Err(invalid("expected an object, got an array".to_owned())),
        other => Err(invalid(format!("expected an object, got {other}"))),
    }
}

/// Whether `name` is the name of a file in a directory and nothing else: no separator, no parent,
/// no drive, no control character, not hidden.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= FILE_NAME_BYTES_MAX
        && !name.starts_with('.')
        && !name.contains(['/', '\\', ':'])
        && !name.chars().any(char::is_control)
}

/// Longest `config.json`.
pub const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Longest file name that common file systems take.
const FILE_NAME_BYTES_MAX: usize = 255;
