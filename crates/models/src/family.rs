//! The contract of a family: which files it knows, and which specification it makes of their
//! configuration.

use serde_json::Value;

use crate::ModelError;
use crate::gguf_keys::Keys;
use crate::names::Names;
use crate::section::Section;
use crate::spec::ModelSpec;

/// Names by which files say that they are of a family.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Ids {
    /// Values of `model_type` in config.json. The first is the one that [`Family::from_gguf`]
    /// writes.
    pub(crate) model_types: &'static [&'static str],
    /// `general.architecture` of its GGUF files, which is the prefix of their keys too.
    pub(crate) gguf: &'static str,
    /// Whether its GGUF files have experts: two families may share one architecture's name.
    pub(crate) moe: bool,
}

/// A family of models: a mapping from configurations to specifications, and the names of its
/// tensors.
pub(crate) trait Family: Sync {
    /// Name in messages.
    fn name(&self) -> &'static str;

    /// Names in files.
    fn ids(&self) -> Ids;

    /// Names of a layer's tensors in Hugging Face directories where they are not ours.
    fn names(&self) -> &'static Names {
        &[]
    }

    /// The specification that `config`, the root of a config.json, describes.
    ///
    /// # Errors
    /// A missing key, a value out of range, or a key that asks for a computation that is not done:
    /// each named.
    fn spec(&self, config: &Section<'_>) -> Result<ModelSpec, ModelError>;

    /// The config.json that the model in a GGUF file would have.
    ///
    /// # Errors
    /// Metadata that is missing or out of range, naming the key.
    #[allow(
        clippy::wrong_self_convention,
        reason = "the config.json comes from the file, by the family's rules"
    )]
    fn from_gguf(&self, keys: &Keys<'_>) -> Result<Value, ModelError>;
}
