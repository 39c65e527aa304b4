//! Values of a config.json, read with their bounds and with errors that name the key.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::ModelError;
use crate::spec::WeightForm;

/// Largest value accepted for any dimension; the largest model known has a vocabulary of 2^18.
pub(crate) const DIM_MAX: u64 = 1 << 24;
/// Most layers accepted.
pub(crate) const LAYERS_MAX: u64 = 4096;
/// Most experts a layer may have.
pub(crate) const EXPERTS_MAX: u64 = 65_536;

/// One section of a config.json: reads typed values and turns bad ones into [`ModelError`]s.
pub(crate) struct Section<'a> {
    path: PathBuf,
    family: &'static str,
    values: &'a Value,
}

impl<'a> Section<'a> {
    pub(crate) fn new(path: &Path, family: &'static str, values: &'a Value) -> Self {
        Self { path: path.to_path_buf(), family, values }
    }

    /// The same section of the file, narrowed to the object under `key`; `None` if absent or null.
    pub(crate) fn section(&self, key: &str) -> Option<Section<'a>> {
        let values = self.values.get(key).filter(|value| value.is_object())?;
        Some(Section { path: self.path.clone(), family: self.family, values })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn bad(&self, key: &str, got: impl ToString, expected: impl Into<String>) -> ModelError {
        let mut got = got.to_string();
        if got.chars().count() > 80 {
            got = got.chars().take(77).chain("...".chars()).collect();
        }
        ModelError::BadValue { path: self.path.clone(), key: key.into(), got, expected: expected.into() }
    }

    /// The family that the section is read for.
    pub(crate) fn family(&self) -> &'static str {
        self.family
    }

    fn missing(&self, key: &str) -> ModelError {
        ModelError::MissingKey { path: self.path.clone(), key: key.into(), architecture: self.family }
    }

    /// A whole number from 1 to `max`; `default` when absent, an error when there is none.
    pub(crate) fn count(&self, key: &str, default: Option<u64>, max: u64) -> Result<usize, ModelError> {
        let value = match (self.get(key), default) {
            (None, Some(default)) => return Ok(default as usize),
            (None, None) => return Err(self.missing(key)),
            (Some(value), _) => value,
        };
        let number = value.as_u64().filter(|number| (1..=max).contains(number));
        number
            .map(|number| number as usize)
            .ok_or_else(|| self.bad(key, value, format!("a whole number from 1 to {max}")))
    }

    pub(crate) fn dim(&self, key: &str, default: Option<u64>) -> Result<usize, ModelError> {
        self.count(key, default, DIM_MAX)
    }

    /// A finite number above 0 and not above `max`, or `default`.
    pub(crate) fn positive(&self, key: &str, default: f64, max: f64) -> Result<f64, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|number| *number > 0.0 && *number <= max);
        number.ok_or_else(|| self.bad(key, value, format!("a number above 0, at most {max}")))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.bad(key, value, "true or false"))
    }

    pub(crate) fn weight_form(&self) -> Result<WeightForm, ModelError> {
        match self.get(WeightForm::KEY) {
            None => Ok(WeightForm::HuggingFace),
            Some(form) if form.as_str() == Some(WeightForm::GGUF) => Ok(WeightForm::Gguf),
            Some(form) => Err(self.bad(WeightForm::KEY, form, "gguf, or nothing")),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    pub(crate) fn layers(&self) -> Result<usize, ModelError> {
        self.count("num_hidden_layers", None, LAYERS_MAX)
    }

    pub(crate) fn experts(&self, key: &str, max: u64) -> Result<usize, ModelError> {
        self.count(key, None, max.min(EXPERTS_MAX))
    }

    /// A list of numbers below `below`; empty if absent.
    pub(crate) fn indices(&self, key: &str, below: usize) -> Result<Vec<usize>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let index =
            |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n < below);
        let list = value.as_array().map(|list| list.iter().map(index).collect::<Option<Vec<_>>>());
        list.flatten().ok_or_else(|| self.bad(key, value, format!("a list of numbers below {below}")))
    }

    /// One id or a list of ids.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.bad(key, value, "a token id or a list of them"))
        };
        match value.as_array() {
            Some(list) => list.iter().map(id).collect(),
            None => Ok(vec![id(value)?]),
        }
    }
}
