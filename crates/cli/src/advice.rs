//! Advice for the command line: libraries say what is wrong, this file says which option mends it. A
//! value that is advised has been tried: it is accepted.

use std::fmt;
use std::path::PathBuf;

use engine::plan::MemoryPlan;
use engine::system::{self, human_bytes};
use engine::{EngineError, EngineOptions, Shortfall};
use lab::LabError;
use pack::synth::SynthError;

/// Options that would help against an error, as a half-sentence; `None` where there are none.
pub(crate) fn advice(error: &anyhow::Error) -> Option<String> {
    // An error of the engine may be inside one of the lab, which passes it through without being its cause.
    let of = |cause: &(dyn std::error::Error + 'static)| {
        let lab = cause.downcast_ref().and_then(lab_advice);
        let engine = || cause.downcast_ref().and_then(engine_advice);
        lab.or_else(engine).or_else(|| cause.downcast_ref().and_then(synth_advice))
    };
    error.chain().find_map(of)
}

fn engine_advice(error: &EngineError) -> Option<String> {
    match error {
        EngineError::NoChatTemplate { .. } => Some("complete text with `run --raw`".into()),
        _ => None,
    }
}

/// A command on a model, which another value of an option can be tried on before it is advised.
pub(crate) struct Trial {
    pub(crate) path: PathBuf,
    pub(crate) options: EngineOptions,
}

/// An error with advice that was tried.
#[derive(Debug)]
struct Advised {
    error: anyhow::Error,
    advice: String,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}; {}", self.error, self.advice)
    }
}

impl std::error::Error for Advised {}

impl Trial {
    /// With a text in memory beside the model.
    pub(crate) fn with_text(mut self, bytes: u64) -> Self {
        self.options.text_bytes = bytes;
        self
    }

    /// The error, with the advice that works if there is any.
    pub(crate) fn advise(&self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        let error = error.into();
        let engine = error.chain().find_map(|cause| match cause.downcast_ref() {
            Some(LabError::Engine(error)) => Some(error),
            _ => cause.downcast_ref::<EngineError>(),
        });
        let lab = error.chain().find_map(|cause| cause.downcast_ref::<LabError>());
        let advice = match (engine, lab) {
            (Some(EngineError::PromptTooLong { exact: false, .. }), _) => Some("use a shorter prompt".into()),
            (Some(EngineError::PromptTooLong { prompt, .. }), _) => {
                Some(self.room_for(prompt + 1, "a shorter prompt"))
            }
            (_, Some(LabError::BeyondContext { prompt, decode, .. })) => {
                Some(self.room_for(prompt + decode, "fewer tokens"))
            }
            (Some(EngineError::ContextTooLong { limit, .. }), _) => Some(self.context_within(*limit)),
            (Some(EngineError::BudgetTooSmall(shortfall)), _) => Some(self.memory(shortfall)),
            _ => None,
        };
        match advice {
            Some(advice) => Advised { error, advice }.into(),
            None => error,
        }
    }

    /// The plan with a change of the options.
    fn plan(&self, change: impl FnOnce(&mut EngineOptions)) -> Result<MemoryPlan, EngineError> {
        let mut options = self.options.clone();
        change(&mut options);
        engine::plan_for(&self.path, &options)
    }

    fn accepts_ctx(&self, ctx: usize) -> bool {
        self.plan(|options| options.ctx = Some(ctx)).is_ok()
    }

    /// A context for so many tokens, rounded up if that works; otherwise with the memory that it
    /// takes, if there is so much; otherwise what else would help.
    fn room_for(&self, tokens: usize, otherwise: &str) -> String {
        let rounded = (tokens + CTX_ROOM).next_multiple_of(CTX_ROOM);
        if let Some(ctx) = [rounded, tokens].into_iter().find(|ctx| self.accepts_ctx(*ctx)) {
            return format!("use --ctx {ctx}, or {otherwise}");
        }
        let Err(EngineError::BudgetTooSmall(shortfall)) = self.plan(|options| options.ctx = Some(tokens))
        else {
            return format!("use {otherwise}");
        };
        let bytes = rounded_up(shortfall.least_bytes);
        let works = || {
            let change = |options: &mut EngineOptions| {
                (options.ctx, options.memory_bytes) = (Some(tokens), Some(bytes));
            };
            is_free(bytes) && self.plan(change).is_ok()
        };
        match works() {
            true => format!("use --ctx {tokens} --memory {}, or {otherwise}", mebibytes(bytes)),
            false => format!("use {otherwise}"),
        }
    }

    /// The longest context up to the model's limit that is accepted, or half of it, and so on.
    fn context_within(&self, limit: usize) -> String {
        let halves = std::iter::successors(Some(limit), |ctx| Some(ctx / 2).filter(|ctx| *ctx > 0));
        match halves.into_iter().find(|ctx| self.accepts_ctx(*ctx)) {
            Some(ctx) => format!("use --ctx {ctx} or less"),
            None => "leave --ctx out".into(),
        }
    }

    fn memory(&self, shortfall: &Shortfall) -> String {
        let bytes = rounded_up(shortfall.least_bytes);
        let shorter = match self.accepts_ctx(CTX_ROOM.min(shortfall.ctx / 2).max(1)) {
            true => ", or a smaller --ctx",
            false => "",
        };
        let free = system::available_memory_bytes().filter(|_| !is_free(bytes));
        let beyond = free.map_or_else(String::new, |free| format!(" ({} are free here)", human_bytes(free)));
        format!("use --memory {} or more{beyond}{shorter}", mebibytes(bytes))
    }
}

/// Contexts are advised in multiples of so many tokens, and with as much room for an answer.
const CTX_ROOM: usize = 256;

/// Whole mebibytes, for people.
fn rounded_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(1 << 20)
}

fn mebibytes(bytes: u64) -> String {
    format!("{}MiB", bytes >> 20)
}

fn is_free(bytes: u64) -> bool {
    system::available_memory_bytes().is_none_or(|free| bytes <= free)
}

fn lab_advice(error: &LabError) -> Option<String> {
    match error {
        LabError::Engine(error) => engine_advice(error),
        LabError::StreamEnded { .. } => Some("use a larger --ctx, or a shorter prompt with --arrive".into()),
        LabError::BadStride { ctx, .. } => Some(format!("use a --stride from 1 to {ctx}")),
        LabError::ProbeFile { .. } => Some("choose a directory with --disk-path".into()),
        LabError::ProbeFileTooLarge { needed_bytes, free_bytes, .. } => Some(format!(
            "{} are needed and {} are free: choose another directory with --disk-path or a smaller --probe-size",
            human_bytes(*needed_bytes),
            human_bytes(*free_bytes)
        )),
        LabError::VocabulariesDiffer { .. } => {
            Some("--against takes another precision or version of the same model".into())
        }
        LabError::Spill { .. } => Some("choose a directory with --spill-dir".into()),
        LabError::SpillTooLarge { needed_bytes, free_bytes, enough_memory_bytes, .. } => Some(format!(
            "{} are needed and {} are free: use a shorter --text, another --spill-dir, or --memory {}MiB or more for both \
             models at once",
            human_bytes(*needed_bytes),
            human_bytes(*free_bytes),
            enough_memory_bytes.div_ceil(1 << 20)
        )),
        _ => None,
    }
}

fn synth_advice(error: &SynthError) -> Option<String> {
    match error {
        SynthError::DiskLimit { needed, .. } => Some(format!("use --disk {needed} or more")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_below_a_context_is_found() {
        let error = anyhow::Error::from(LabError::BadStride { stride: 9, ctx: 8 }).context("evaluating");
        assert!(advice(&error).is_some_and(|advice| advice.contains("--stride from 1 to 8")));
        assert_eq!(advice(&anyhow::anyhow!("something else")), None);
    }
}
