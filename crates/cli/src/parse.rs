//! From the words on the command line to [`Cli`], with defaults from the environment and the config file.

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Error, FromArgMatches};

use crate::args::Cli;
use crate::settings::Settings;
use crate::{habits, output};

/// The command line, or the end of the process: help with exit code 0, bad usage with 2.
///
/// # Errors
/// The environment or the config file names an option that does not exist, or cannot be read.
pub(crate) fn parse() -> anyhow::Result<Cli> {
    let settings = Settings::read()?;
    let command = settings.apply(Cli::command())?;
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_or_else(|error| exit(&error, &settings), Ok)
}

fn exit(error: &Error, settings: &Settings) -> ! {
    let name = std::env::args().nth(1).unwrap_or_default();
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let refused = context(ContextKind::InvalidArg).zip(context(ContextKind::InvalidValue));
    let source = refused.and_then(|(option, value)| settings.source_of(&name, option, value));
    if let Some(source) = source {
        output::note(&format!("note: the value comes from {source}"));
    }
    let Some(hint) = habits::hint(error, Some(&name)) else { error.exit() };
    let _ = error.print();
    output::note(&format!("\n  tip: {hint}"));
    std::process::exit(error.exit_code())
}
