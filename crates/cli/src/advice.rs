//! Advice for the command line: libraries say what is wrong, this file says which option mends it.

use engine::EngineError;
use engine::system::human_bytes;
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
        EngineError::BudgetTooSmall(shortfall) => {
            let enough = shortfall.least_bytes.div_ceil(1 << 20);
            Some(format!("use --memory {enough}MiB or more, or a smaller --ctx"))
        }
        EngineError::PromptTooLong { prompt, .. } => {
            let enough = (prompt + 256).next_multiple_of(256);
            Some(format!("use --ctx {enough} or more, or a shorter prompt"))
        }
        EngineError::ContextTooLong { limit, .. } => Some(format!("use --ctx {limit} or less")),
        EngineError::NoChatTemplate { .. } => Some("complete text with `run --raw`".into()),
        _ => None,
    }
}

fn lab_advice(error: &LabError) -> Option<String> {
    match error {
        LabError::Engine(error) => engine_advice(error),
        LabError::BeyondContext { prompt, decode, .. } => {
            let enough = (prompt + decode).next_multiple_of(256);
            Some(format!("use --ctx {enough} or more, or fewer tokens"))
        }
        LabError::StreamEnded { .. } => Some("use a larger --ctx, or a shorter prompt with --arrive".into()),
        LabError::BadStride { ctx, .. } => Some(format!("use a --stride from 1 to {ctx}, or a larger --ctx")),
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
