//! What one pass computes.

use std::ops::Range;

use ops::{Batch, Rows};

use crate::ModelError;

/// One pass: token rows that go through all layers, and rows of prompts that go through some.
///
/// A prompt rides along with the decoding rows through a range of layers and waits in the scratch until the next pass takes
/// it on. So a pass can be kept short while every expert of a layer is read once for all rows, and a prompt is cut the
/// same way whatever its company.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    /// Ids of the rows that go through all layers.
    pub tokens: &'a [u32],
    /// The sequences of `tokens`, from row 0 on.
    pub rows: &'a [Rows],
    /// Page numbers of all sequences, of the prompt's too.
    pub pages: &'a [u32],
    /// Rows that go through some layers.
    pub prompt: Option<PromptPart<'a>>,
    /// Rows whose logits are wanted, ascending. The prompt's rows follow those of `tokens`; they have logits in the pass
    /// that takes them through the last layer.
    pub wanted: &'a [u32],
}

/// Rows of prompts, and the layers that they go through in this pass.
#[derive(Clone, Debug)]
pub struct PromptPart<'a> {
    /// Ids; the same in each pass until the last layer.
    pub tokens: &'a [u32],
    /// Their sequences. `first` counts on from the rows of [`Step::tokens`], whose number may differ from pass to pass.
    pub rows: &'a [Rows],
    /// Layers: from 0 in the first pass, then from where the pass before ended.
    pub layers: Range<usize>,
}

/// The sequences that failed in a pass; all others have their results. Each is an index into the step's `rows`, followed by
/// the prompt's, with its first error.
#[derive(Debug, Default)]
pub struct Failures(Vec<(usize, ModelError)>);

impl Failures {
    /// Notes an error of a sequence, unless it has one already.
    pub fn add(&mut self, sequence: usize, error: ModelError) {
        if !self.contains(sequence) {
            self.0.push((sequence, error));
        }
    }

    /// Notes an error of the sequence that a row of a batch belongs to.
    pub(crate) fn add_row(&mut self, batch: &Batch<'_>, row: u32, error: impl FnOnce() -> ModelError) {
        let sequence = batch.rows.iter().position(|rows| (rows.first..rows.first + rows.len).contains(&row));
        if let Some(sequence) = sequence.filter(|sequence| !self.contains(*sequence)) {
            self.add(sequence, error());
        }
    }

    /// Whether a sequence failed.
    pub fn contains(&self, sequence: usize) -> bool {
        self.0.iter().any(|(failed, _)| *failed == sequence)
    }

    /// Whether none failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Failures {
    type Item = (usize, ModelError);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The rows of a step, with and without the prompt's.
pub(crate) struct Passes {
    rows: Vec<Rows>,
    whole: usize,
    whole_n: usize,
    n: usize,
}

impl Passes {
    /// # Panics
    /// If rows are not in order and without gaps: a precondition of [`crate::Model::forward`].
    pub(crate) fn new(step: &Step<'_>) -> Self {
        let prompt = step.prompt.as_ref().map_or(&[][..], |prompt| prompt.rows);
        let rows = [step.rows, prompt].concat();
        let prompt_n = step.prompt.as_ref().map_or(0, |prompt| prompt.tokens.len());
        let n = step.tokens.len() + prompt_n;
        let mut first = 0;
        for rows in &rows {
            assert!(rows.first() == first && !rows.is_empty(), "rows in order and without gaps");
            first = rows.end();
        }
        assert_eq!(first, n, "each token has a sequence");
        Self { rows, whole: step.rows.len(), whole_n: step.tokens.len(), n }
    }

    /// Index of the sequence that a row belongs to.
    pub(crate) fn sequence(&self, row: u32) -> Option<usize> {
        self.rows.iter().position(|rows| (rows.first..rows.first + rows.len).contains(&row))
    }

    /// The rows that go through a layer.
    pub(crate) fn batch<'a>(&'a self, step: &Step<'a>, layer: usize) -> Batch<'a> {
        let with_prompt = step.prompt.as_ref().is_some_and(|prompt| prompt.layers.contains(&layer));
        match with_prompt {
            true => Batch { n: self.n, rows: &self.rows, pages: step.pages },
            false => Batch { n: self.whole_n, rows: &self.rows[..self.whole], pages: step.pages },
        }
    }
}
