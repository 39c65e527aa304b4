//! Values of a config.json, read with their bounds and with errors that name the key.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::Value;

use crate::ModelError;
use crate::config_keys::{UnreadKey, judge, judge_rope};
use crate::spec::WeightForm;

/// Largest value accepted for any dimension; the largest model known has a vocabulary of 2^18.
pub(crate) const DIM_MAX: u64 = 1 << 24;
/// Most layers accepted.
pub(crate) const LAYERS_MAX: u64 = 4096;
/// Most experts a layer may have.
pub(crate) const EXPERTS_MAX: u64 = 65_536;

/// What a reader takes a section for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The model, or its text part.
    Model,
    /// The rotary keys.
    Rope,
}

/// Keys that a reader has asked for, by the section that they are in (empty: the root).
type Asked = Rc<RefCell<BTreeMap<String, (Part, Vec<String>)>>>;

/// One section of a config.json: reads typed values and turns bad ones into [`ModelError`]s. It notes
/// which keys were asked for.
pub(crate) struct Section<'a> {
    path: PathBuf,
    family: &'static str,
    values: &'a Value,
    /// Keys from the root to here, each with a point behind.
    prefix: String,
    asked: Asked,
}

impl<'a> Section<'a> {
    pub(crate) fn new(path: &Path, family: &'static str, values: &'a Value) -> Self {
        let asked = Asked::default();
        asked.borrow_mut().insert(String::new(), (Part::Model, Vec::new()));
        Self { path: path.to_path_buf(), family, values, prefix: String::new(), asked }
    }

    /// The same section of the file, narrowed to the object under `key`; `None` if absent or null.
    ///
    /// # Errors
    /// It is no object.
    pub(crate) fn section(&self, key: &str, part: Part) -> Result<Option<Section<'a>>, ModelError> {
        let Some(values) = self.get(key) else { return Ok(None) };
        if !values.is_object() {
            return Err(self.bad(key, values, "an object of keys, or null"));
        }
        let prefix = format!("{}{key}.", self.prefix);
        self.asked.borrow_mut().entry(prefix.clone()).or_insert_with(|| (part, Vec::new()));
        let (path, asked) = (self.path.clone(), self.asked.clone());
        Ok(Some(Section { path, family: self.family, values, prefix, asked }))
    }

    /// The value of a key, which counts as read from here on; `None` if absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        if let Some((_, keys)) = self.asked.borrow_mut().get_mut(&self.prefix)
            && !keys.iter().any(|asked| asked == key)
        {
            keys.push(key.to_string());
        }
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, be it null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values.get(key).is_some()
    }

    /// Counts a key as read: others decide, or the family does the same whatever it says.
    pub(crate) fn pass_over(&self, key: &str) {
        let _ = self.get(key);
    }

    /// The keys of this section and those in it that nothing has asked for.
    ///
    /// # Errors
    /// One of them changes the computation.
    pub(crate) fn unread(&self) -> Result<Vec<UnreadKey>, ModelError> {
        let mut unread = Vec::new();
        for (prefix, (part, asked)) in self.asked.borrow().iter() {
            let Some(object) = self.object(prefix) else { continue };
            for (key, value) in object.iter().filter(|(key, _)| !asked.contains(key)) {
                let found = match part {
                    Part::Model => judge(key, value),
                    Part::Rope => judge_rope(key, value),
                };
                let why = found.map_err(|neutral| {
                    let family = self.family;
                    let expected = format!(
                        "{neutral}: it changes the computation in a way that {family} is not computed with here"
                    );
                    self.bad(&format!("{prefix}{key}"), value, expected)
                })?;
                unread.push(UnreadKey { key: format!("{prefix}{key}"), why });
            }
        }
        Ok(unread)
    }

    /// The object under the keys of `prefix`, each with a point behind.
    fn object(&self, prefix: &str) -> Option<&'a serde_json::Map<String, Value>> {
        let mut at = self.values;
        for key in prefix.split_terminator('.') {
            at = at.get(key)?;
        }
        at.as_object()
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
        let key = format!("{}{key}", self.prefix);
        ModelError::MissingKey { path: self.path.clone(), key, architecture: self.family }
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

    /// The same, without a default.
    pub(crate) fn needed(&self, key: &str, max: f64) -> Result<f64, ModelError> {
        match self.get(key) {
            Some(_) => self.positive(key, 1.0, max),
            None => Err(self.missing(key)),
        }
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

    /// Text, if there is any.
    ///
    /// # Errors
    /// Another type.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.bad(key, value, "text"))
    }

    /// The activation of MLPs and experts, which every family has alike.
    ///
    /// # Errors
    /// Another one.
    pub(crate) fn silu(&self) -> Result<(), ModelError> {
        match self.text("hidden_act")? {
            None | Some("silu" | "swish") => Ok(()),
            Some(act) => Err(self.bad("hidden_act", act, "silu")),
        }
    }

    /// A flag that is true in every model that can be run, and when it is absent.
    ///
    /// # Errors
    /// It is false, which `expected` says more about.
    pub(crate) fn always(&self, key: &str, expected: &str) -> Result<(), ModelError> {
        match self.flag(key, true)? {
            true => Ok(()),
            false => Err(self.bad(key, false, expected)),
        }
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
