//! A conversation of two turns: what the second one costs when the first one's computation is
//! reused.

use std::ops::ControlFlow;

use engine::{Engine, Generation, Request, RunStats};
use serde::Serialize;

use crate::LabError;
use crate::figures::ratio;

/// Times of two turns.
#[derive(Clone, Debug, Serialize)]
pub struct Turns {
    /// Tokens of the first prompt.
    pub first_prompt_tokens: usize,
    /// Time to the first token of its answer.
    pub first_time_to_first_token_s: f64,
    /// Tokens of the second prompt: the first, its answer, and the new ones.
    pub second_prompt_tokens: usize,
    /// Of those, tokens that had been computed.
    pub second_reused_tokens: usize,
    /// Time to the first token of the second answer.
    pub second_time_to_first_token_s: f64,
    /// The second over the first.
    pub second_over_first: f64,
    /// The second turn in an engine that was opened anew, with what it had on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarted: Option<Restarted>,
}

/// The second turn after a restart.
#[derive(Clone, Debug, Serialize)]
pub struct Restarted {
    /// Tokens that had been computed before the restart.
    pub reused_tokens: usize,
    /// Time to the first token.
    pub time_to_first_token_s: f64,
    /// Over the first turn's.
    pub over_first: f64,
}

/// A conversation: tokens of the first prompt, of its answer, and of what is said then.
pub(crate) struct Conversation {
    pub(crate) prompt: Vec<u32>,
    pub(crate) answer: Vec<u32>,
    pub(crate) more: Vec<u32>,
}

impl Conversation {
    fn second_prompt(&self) -> Vec<u32> {
        [&self.prompt[..], &self.answer, &self.more].concat()
    }

    /// Both turns.
    ///
    /// # Errors
    /// A request failed.
    pub(crate) fn run(&self, engine: &Engine) -> Result<Turns, LabError> {
        let first = answer(engine, &self.prompt, &self.answer)?.stats;
        let second = answer(engine, &self.second_prompt(), &self.answer)?.stats;
        Ok(Turns {
            first_prompt_tokens: self.prompt.len(),
            first_time_to_first_token_s: first_token_s(&first),
            second_prompt_tokens: second.prompt_tokens + second.reused_tokens,
            second_reused_tokens: second.reused_tokens,
            second_time_to_first_token_s: first_token_s(&second),
            second_over_first: ratio(first_token_s(&second), first_token_s(&first)),
            restarted: None,
        })
    }

    /// The second turn in an engine that was opened after [`Conversation::run`].
    ///
    /// # Errors
    /// The request failed.
    pub(crate) fn go_on(&self, engine: &Engine, turns: &mut Turns) -> Result<(), LabError> {
        let stats = answer(engine, &self.second_prompt(), &self.answer[..1])?.stats;
        turns.restarted = Some(Restarted {
            reused_tokens: stats.reused_tokens,
            time_to_first_token_s: first_token_s(&stats),
            over_first: ratio(first_token_s(&stats), turns.first_time_to_first_token_s),
        });
        Ok(())
    }
}

fn answer(engine: &Engine, prompt: &[u32], forced: &[u32]) -> Result<Generation, LabError> {
    let (max_tokens, stop_ids, forced) = (forced.len(), Vec::new(), forced.to_vec());
    let request = Request { max_tokens, stop_ids, forced, ..engine.request(prompt) };
    Ok(engine.generate(request, |_| ControlFlow::Continue(()))?)
}

/// Every turn here has a first token.
fn first_token_s(stats: &RunStats) -> f64 {
    stats.time_to_first_token_s.unwrap_or_default()
}
