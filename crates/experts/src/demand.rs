//! Requests to the store: the experts that a layer's router chose, and what became of a failed one.

use std::mem;
use std::sync::Arc;

use crate::ExpertsError;
use crate::layout::Layout;

/// Purpose of the rows of a pass. The caller says it; a pass of one row may be either.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Rows of a prompt, perhaps with decoding rows beside them: most experts of a layer are used.
    Prefill,
    /// One row for each of some sequences.
    Decode,
}

/// The experts of one layer that a pass needs.
#[derive(Copy, Clone, Debug)]
pub struct Demand<'a> {
    /// Index of the layer in the model.
    pub layer: u32,
    /// Numbers of the experts, each once.
    pub experts: &'a [u32],
    /// Purpose of the rows.
    pub phase: Phase,
    /// Rows that the experts are for.
    pub tokens: usize,
    /// Those of the rows that are of prompts; `None` if there are none.
    pub prompt: Option<PromptUse<'a>>,
}

/// How many rows of prompts chose each expert of a demand.
#[derive(Copy, Clone, Debug)]
pub struct PromptUse<'a> {
    /// Rows of prompts, at most all rows of the demand.
    pub tokens: usize,
    /// Of each expert of the demand: rows of prompts that chose it; 0 where a decoding row did.
    pub rows: &'a [u32],
}

/// Evidence of a demand about the future use of one of its experts.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Used {
    /// Share of the coming tokens that will choose it, as far as this demand tells: 1 for a
    /// decoding row, else the share of the prompt's rows that chose it.
    pub share: f32,
    /// Tokens that the demand stands for: those of a prompt that has no company, else 1.
    pub tokens: u32,
}

impl Used {
    /// By a decoding row.
    pub const ONCE: Used = Used { share: 1.0, tokens: 1 };

    /// By a demand of `tokens` rows, `prompt_tokens` of them of prompts, `rows` of which chose it
    /// (0: a decoding row did).
    pub(crate) fn new(tokens: usize, prompt_tokens: usize, rows: u32) -> Self {
        let alone = prompt_tokens > 0 && prompt_tokens == tokens;
        let share = if rows == 0 { 1.0 } else { (rows as f32 / prompt_tokens as f32).min(1.0) };
        Used { share, tokens: if alone { u32::try_from(tokens).unwrap_or(u32::MAX) } else { 1 } }
    }
}

impl Demand<'_> {
    /// Its evidence about the expert at `position` of its list.
    pub(crate) fn used(&self, position: usize) -> Used {
        let (prompt_tokens, rows) = match self.prompt {
            None => (0, 0),
            Some(prompt) => (prompt.tokens, prompt.rows.get(position).copied().unwrap_or(0)),
        };
        Used::new(self.tokens, prompt_tokens, rows)
    }
}

/// The demand that a prefetch is for, before its router has chosen.
#[derive(Copy, Clone, Debug)]
pub struct Hint {
    /// Index of the layer in the model.
    pub layer: u32,
    /// Purpose of the rows.
    pub phase: Phase,
    /// Rows of the demand to come.
    pub tokens: usize,
}

/// An expert of a demand that is not to be had. The others of the demand are not affected.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Number of the expert in its layer.
    pub expert: u32,
    /// Why; shared, since it may concern several sequences.
    pub error: Arc<ExpertsError>,
}

/// Checks lists of experts.
pub(crate) struct Lists {
    /// [expert]: number of the list that named it last.
    listed_in: Vec<u64>,
    number: u64,
}

impl Lists {
    pub(crate) fn new(layout: &Layout) -> Self {
        Lists { listed_in: vec![0; layout.experts_max], number: 0 }
    }

    /// Takes a list of experts of a layer.
    ///
    /// # Errors
    /// The layer or an expert does not exist, or an expert is named twice.
    pub(crate) fn check(&mut self, layout: &Layout, layer: u32, experts: &[u32]) -> Result<(), ExpertsError> {
        let layers = layout.layers.len();
        if layer as usize >= layers {
            return Err(ExpertsError::NoSuchLayer { layer, layers });
        }
        let count = layout.layer_expert_count(layer);
        self.number += 1;
        for &expert in experts {
            if expert as usize >= count {
                return Err(ExpertsError::NoSuchExpert { layer, expert, experts: count });
            }
            if mem::replace(&mut self.listed_in[expert as usize], self.number) == self.number {
                return Err(ExpertsError::Duplicate { layer, expert });
            }
        }
        Ok(())
    }

    /// Whether the last list named this expert.
    pub(crate) fn named(&self, expert: u32) -> bool {
        self.listed_in.get(expert as usize) == Some(&self.number)
    }
}
