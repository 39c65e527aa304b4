//! What can be wrong with parameters, logits or a `generation_config.json`.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A parameter is outside its range.
    #[error("{name} is {got}, expected {expected}; {hint}")]
    Parameter {
        /// The parameter's name as in [`crate::SamplingParams`].
        name: &'static str,
        /// The value given.
        got: f32,
        /// The range that is allowed.
        expected: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The row of logits has no entry.
    #[error("no logits to sample from: the row is empty, expected one logit per vocabulary entry")]
    NoLogits,
    /// A logit is NaN or +infinity: the model's arithmetic went wrong before sampling.
    #[error(
        "logit of token {token} is {value} of {vocab_size} logits, expected a finite number (or \
         -inf for a masked token); the weights or the activations are damaged, check the model \
         file with `flash-moe inspect`"
    )]
    BadLogit {
        /// The token's id.
        token: usize,
        /// NaN or +infinity.
        value: f32,
        /// Length of the row.
        vocab_size: usize,
    },
    /// Every logit is -infinity.
    #[error(
        "all {vocab_size} logits are -inf, so no token can follow; a constraint or mask forbids \
         everything, or the activations are damaged"
    )]
    AllMasked {
        /// Length of the row.
        vocab_size: usize,
    },
    /// A token of the history is not in the vocabulary.
    #[error(
        "token {token} at position {position} of the history is outside the vocabulary of \
         {vocab_size} logits; tokenizer and model do not belong together"
    )]
    HistoryToken {
        /// The offending id.
        token: u32,
        /// Its position, counted over prompt and generated tokens.
        position: usize,
        /// Length of the row of logits.
        vocab_size: usize,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than any real one.
    #[error(
        "{} is larger than {limit} bytes, the limit for a generation_config.json; it is not one, \
         remove or replace it", path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A file of a model is not what it should be.
    #[error("{}: {what}, expected {expected}; fix or remove the entry", path.display())]
    Config {
        /// The file, or just its usual name when it was parsed from memory.
        path: PathBuf,
        /// What was found.
        what: String,
        /// What should have been there.
        expected: &'static str,
    },
}
