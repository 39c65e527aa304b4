//! Reading a model's small files, up to a limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::TokenizerError;

/// Largest `tokenizer.json` that is read, in bytes. Real ones are 2 to 35 MB.
pub const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Largest `tokenizer_config.json` that is read, in bytes. Real ones are up to some hundred kB.
pub const TOKENIZER_CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Largest chat template, in bytes, from its own file or from `tokenizer_config.json`. Real ones
/// are 1 to 30 kB.
pub const CHAT_TEMPLATE_BYTES_MAX: u64 = 256 << 10;

/// The JSON of a file of at most `limit` bytes.
pub(crate) fn read_json(path: &Path, limit: u64) -> Result<serde_json::Value, TokenizerError> {
    serde_json::from_slice(&read(path, limit)?).map_err(|error| TokenizerError::Malformed {
        path: path.to_owned(),
        what: crate::error::one_line(&error.to_string()),
    })
}

/// A whole file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, TokenizerError> {
    let io = |source| TokenizerError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io)?;
    // One byte more than allowed tells "too large" from "just fits", also for a pipe.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(TokenizerError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}
