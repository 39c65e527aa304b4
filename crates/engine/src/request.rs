//! A request, and what comes back of it.

use sampling::SamplingParams;
use tokenizer::{Message, TemplateOptions};

use crate::RunStats;

/// A prompt. Callers hand in the whole of it every time; the engine finds the prefix that it has
/// computed before.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Prompt {
    /// Token ids.
    Tokens(Vec<u32>),
    /// Text to complete as it is; special tokens in it are recognised.
    Text(String),
    /// A conversation, for the model's chat template. Control tokens that a message spells out stay
    /// text.
    Chat {
        /// The messages.
        messages: Vec<Message>,
        /// Choices of the template. The prompt for an answer is always added.
        options: TemplateOptions,
    },
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Prompt::Tokens(tokens)
    }
}

impl From<&[u32]> for Prompt {
    fn from(tokens: &[u32]) -> Self {
        Prompt::Tokens(tokens.to_vec())
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Text(text.to_owned())
    }
}

impl From<Vec<Message>> for Prompt {
    fn from(messages: Vec<Message>) -> Self {
        Prompt::Chat { messages, options: TemplateOptions::default() }
    }
}

/// Who goes first when not everybody can.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// It may take longer. It is never put off for ever.
    Background,
}

/// Rows of logits that a request hands out beside its tokens.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Logits {
    /// None.
    #[default]
    None,
    /// Those that a token is chosen from: after the prompt, and after each token but the last.
    Last,
    /// Also those after each earlier token of the prompt, which is then computed from its
    /// beginning. A pass waits for the reader of these rows, so this is for measurements.
    All,
}

/// A prompt with its sampling and limits. [`crate::Engine::request`] makes one with the model's own defaults.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt.
    pub prompt: Prompt,
    /// Most tokens to generate; the context bounds them too.
    pub max_tokens: usize,
    /// How the next token is chosen.
    pub sampling: SamplingParams,
    /// Tokens that end the text; with none it goes on to `max_tokens`.
    pub stop_ids: Vec<u32>,
    /// Whether the text goes on where the prompt ends, rather than being an answer of its own:
    /// SentencePiece vocabularies drop a space at the beginning of a text.
    pub continues_text: bool,
    /// Who goes first.
    pub priority: Priority,
    /// Lengths of prefixes that other requests will begin with too, such as the system prompt, in
    /// tokens. A recurrent model keeps its state there.
    pub prefix_marks: Vec<usize>,
    /// Rows of logits to hand out.
    pub logits: Logits,
    /// Tokens that follow instead of chosen ones, as far as they reach: for comparisons and
    /// measurements.
    pub forced: Vec<u32>,
}

/// An event of a running request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The prompt is being computed. Of several such events that were not taken in time, the last
    /// one is left.
    Prefill {
        /// Prompt tokens computed, in whole tokens of work.
        done: usize,
        /// Prompt tokens to compute: those that were not computed before.
        total: usize,
        /// Share of the work that is done, by layers: a chunk may be the whole prompt.
        share: f32,
    },
    /// A token was chosen. Its text may be empty: characters are handed out whole.
    Token {
        /// The id.
        id: u32,
        /// The text that became complete with it.
        text: String,
    },
    /// A row of logits.
    Logits {
        /// Position of the token that they come after, counted from the start of the prompt.
        position: usize,
        /// One for each entry of the vocabulary.
        logits: Vec<f32>,
    },
    /// The last event of a request that did not fail.
    Finished(Box<Generation>),
}

/// Why a generation ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// An end token.
    Stop,
    /// The requested number of tokens.
    Length,
    /// The context is full.
    Context,
    /// The caller stopped it.
    Cancelled,
}

/// A finished generation.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// Generated ids, without the end token.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Seed of the sampler, so that the run can be repeated.
    pub seed: u64,
    /// Its times, rates and bytes.
    pub stats: RunStats,
}
