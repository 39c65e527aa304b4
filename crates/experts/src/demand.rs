//! Requests to the store: the experts that a layer's router chose, and what became of a failed one.

use std::mem;
use std::sync::Arc;

use crate::ExpertsError;
use crate::layout::Layout;

/// What the rows of a pass are computed for. The caller says it; a pass of one row may be either.
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
    /// What the rows are computed for.
    pub phase: Phase,
    /// Rows that the experts are for.
    pub tokens: usize,
}

/// The demand that a prefetch is for, before its router has chosen.
#[derive(Copy, Clone, Debug)]
pub struct Hint {
    /// Index of the layer in the model.
    pub layer: u32,
    /// What the rows are computed for.
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
