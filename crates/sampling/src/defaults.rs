//! A model's own wishes: `generation_config.json`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{SamplingError, SamplingParams};

/// Largest `generation_config.json` that is read, in bytes. Real ones have a few hundred.
pub const GENERATION_CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Most end tokens that are accepted. Real models have one to five.
pub const EOS_TOKEN_IDS_MAX: usize = 256;

/// Entries that say how to sample.
const SAMPLING_ENTRIES: [&str; 8] = [
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
];

/// What `generation_config.json` says: how to sample and where to stop.
///
/// `do_sample` that is false or absent means greedy, as in transformers; the filters are kept, so
/// that raising the temperature brings them into force. An entry that is absent or null leaves its
/// filter off (transformers would put top_k = 50). Entries this crate does not know are ignored.
///
/// ```
/// use sampling::GenerationDefaults;
///
/// let json = br#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95,
///                 "eos_token_id": [248046, 248044]}"#;
/// let defaults = GenerationDefaults::parse(json)?;
/// assert_eq!(defaults.params.top_k, 20);
/// assert_eq!(defaults.eos_token_ids, [248046, 248044]);
/// # Ok::<(), sampling::SamplingError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// How to sample, inside the ranges of [`SamplingParams::validate`]; greedy if nothing is said.
    pub params: SamplingParams,
    /// Whether anything is said about it.
    pub says_how: bool,
    /// Tokens that end the generation, in the file's order, without repeats.
    pub eos_token_ids: Vec<u32>,
}

impl GenerationDefaults {
    /// Reads a file.
    ///
    /// # Errors
    /// [`SamplingError::Io`], [`SamplingError::TooLarge`] beyond [`GENERATION_CONFIG_BYTES_MAX`],
    /// [`SamplingError::Config`] as [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self, SamplingError> {
        let io = |source| SamplingError::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(io)?;
        // One byte more than allowed tells "too large" from "just fits", also for a pipe.
        file.take(GENERATION_CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > GENERATION_CONFIG_BYTES_MAX {
            let limit = GENERATION_CONFIG_BYTES_MAX;
            return Err(SamplingError::TooLarge { path: path.to_owned(), limit });
        }
        Self::parse_as(&bytes, path)
    }

    /// Parses the bytes of a `generation_config.json`.
    ///
    /// # Errors
    /// [`SamplingError::Config`] for bytes that are not a JSON object, an entry of the wrong type
    /// a number outside its range, or an end token that is no id.
    pub fn parse(json: &[u8]) -> Result<Self, SamplingError> {
        Self::parse_as(json, Path::new("generation_config.json"))
    }

    fn parse_as(json: &[u8], path: &Path) -> Result<Self, SamplingError> {
        let value: Value = serde_json::from_slice(json).map_err(|error| SamplingError::Config {
            path: path.to_owned(),
            what: format!("not valid JSON ({error})"),
            expected: "a JSON object",
        })?;
        let entries = Entries { value: &value, path };
        if !value.is_object() {
            return Err(entries.error("the top level is not an object".into(), "a JSON object"));
        }
        let off = SamplingParams::greedy();
        let temperature = entries.number("temperature")?.unwrap_or(1.0);
        let params = SamplingParams {
            temperature: if entries.flag("do_sample")? { temperature } else { 0.0 },
            top_k: entries.top_k()?,
            top_p: entries.number("top_p")?.unwrap_or(off.top_p),
            min_p: entries.number("min_p")?.unwrap_or(off.min_p),
            repetition_penalty: entries.number("repetition_penalty")?.unwrap_or(off.repetition_penalty),
            presence_penalty: entries.number("presence_penalty")?.unwrap_or(off.presence_penalty),
            frequency_penalty: entries.number("frequency_penalty")?.unwrap_or(off.frequency_penalty),
            seed: None,
        };
        params.validate().map_err(|error| match error {
            SamplingError::Parameter { name, got, expected, .. } => {
                entries.error(format!("{name} is {got}"), expected)
            }
            other => other,
        })?;
        let says_how =
            SAMPLING_ENTRIES.iter().any(|key| value.get(key).is_some_and(|entry| !entry.is_null()));
        let mut defaults = Self { params, says_how, eos_token_ids: Vec::new() };
        defaults.add_eos(&entries)?;
        Ok(defaults)
    }

    /// How to sample for people: as the model wishes, or in the usual way if it says nothing. Greedy
    /// text of small models goes in circles.
    pub fn for_people(&self) -> SamplingParams {
        if self.says_how { self.params } else { SamplingParams::usual() }
    }

    /// Adds the end tokens of a `config.json` (`eos_token_id`, there or in `text_config`) to those
    /// already known. Some models list in one file what the other lacks.
    ///
    /// # Errors
    /// [`SamplingError::Config`] for an entry that is neither an id nor a list of ids.
    pub fn add_config_eos(&mut self, config: &Value) -> Result<(), SamplingError> {
        let path = PathBuf::from("config.json");
        for value in [Some(config), config.get("text_config")].into_iter().flatten() {
            self.add_eos(&Entries { value, path: &path })?;
        }
        Ok(())
    }

    /// Whether `token` ends the generation.
    pub fn is_eos(&self, token: u32) -> bool {
        self.eos_token_ids.contains(&token)
    }

    fn add_eos(&mut self, entries: &Entries<'_>) -> Result<(), SamplingError> {
        let expected = "a token id or a list of at most 256 token ids";
        let listed = match entries.value.get("eos_token_id") {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Array(list)) if list.len() <= EOS_TOKEN_IDS_MAX => list.as_slice(),
            Some(Value::Array(list)) => {
                let what = format!("eos_token_id has {} entries", list.len());
                return Err(entries.error(what, expected));
            }
            Some(one) => std::slice::from_ref(one),
        };
        for value in listed {
            let id = value
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| entries.error(format!("eos_token_id contains {}", shown(value)), expected))?;
            if !self.is_eos(id) {
                self.eos_token_ids.push(id);
            }
        }
        Ok(())
    }
}

/// Typed access to a JSON object's entries.
struct Entries<'a> {
    value: &'a Value,
    path: &'a Path,
}

impl Entries<'_> {
    fn error(&self, what: String, expected: &'static str) -> SamplingError {
        SamplingError::Config { path: self.path.to_owned(), what, expected }
    }

    fn number(&self, key: &str) -> Result<Option<f32>, SamplingError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => Ok(number.as_f64().map(|x| x as f32)),
            Some(other) => Err(self.error(format!("{key} is {}", shown(other)), "a number")),
        }
    }

    /// Absent and null mean false, as transformers' default is.
    fn flag(&self, key: &str) -> Result<bool, SamplingError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.error(format!("{key} is {}", shown(other)), "true or false")),
        }
    }

    /// 0 and, as vLLM writes it, -1 mean off.
    fn top_k(&self) -> Result<u32, SamplingError> {
        match self.value.get("top_k") {
            None | Some(Value::Null) => Ok(0),
            Some(value) => match value.as_i64() {
                Some(-1) => Ok(0),
                Some(k) if u32::try_from(k).is_ok() => Ok(k as u32),
                _ => Err(self.error(format!("top_k is {}", shown(value)), "a count (0 = off)")),
            },
        }
    }
}

/// A JSON value for a message: one line, short.
fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
