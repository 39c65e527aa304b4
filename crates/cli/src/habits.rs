//! Options and commands that people know from other programs, and what they are here.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use crate::args::Cli;

/// Names elsewhere, and the option that it is here.
const OPTIONS: [(&[&str], &str); 10] = [
    (&["-c", "--ctx-size", "--num-ctx", "--context-length", "--n-ctx"], "--ctx"),
    (&["-t", "--n-threads"], "--threads"),
    (&["-n", "--n-predict", "--predict", "--num-predict"], "--max-tokens"),
    (&["-s"], "--seed"),
    (&["--temperature"], "--temp"),
    (&["--repeat-penalty"], "--repetition-penalty"),
    (&["--system-prompt", "--sys"], "--system"),
    (&["--cache-type-k", "--cache-type-v"], "--kv"),
    (&["-q", "--quantize"], "--quant"),
    (&["--format"], "--json"),
];
/// Names elsewhere of what is no option here, and what to do.
const OTHERWISE: [(&[&str], &str); 5] = [
    (&["-m", "--model", "--hf-repo"], "the model is the first argument: flash-moe run MODEL"),
    (&["-p", "--prompt"], "the prompt is an argument: flash-moe run MODEL PROMPT"),
    (&["-f", "--file"], "pipe the file in: flash-moe run MODEL < FILE"),
    (&["-i", "--interactive", "--conversation"], "for a conversation: flash-moe chat MODEL"),
    (
        &["--n-gpu-layers", "--gpu-layers", "--flash-attn", "--mmap", "--no-mmap", "--mlock"],
        "leave it out; --memory says how much memory to use, and what does not fit is read from disk",
    ),
];
/// Verbs elsewhere, and the command that it is here.
const VERBS: [(&[&str], &str); 6] = [
    (&["show", "info"], "inspect"),
    (&["ls", "tags"], "list"),
    (&["download", "get"], "pull"),
    (&["remove", "delete"], "rm"),
    (&["quantize", "convert", "create"], "pack"),
    (&["cli", "generate", "complete"], "run"),
];

fn find<'a>(table: &[(&[&str], &'a str)], name: &str) -> Option<&'a str> {
    table.iter().find(|(names, _)| names.contains(&name)).map(|(_, here)| *here)
}

/// Advice for an error of the parser, in the subcommand of that name.
pub(crate) fn hint(error: &clap::Error, subcommand: Option<&str>) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let program = Cli::command();
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let name = text(ContextKind::InvalidArg)?.split(['=', ' ']).next()?;
            option_hint(name, program.find_subcommand(subcommand?)?)
        }
        // `-ngl 99` is `-n gl` to the parser.
        ErrorKind::ValueValidation if text(ContextKind::InvalidValue) == Some("gl") => {
            find(&OTHERWISE, "--n-gpu-layers").map(String::from)
        }
        ErrorKind::InvalidSubcommand => match text(ContextKind::InvalidSubcommand)? {
            "serve" | "server" | "ps" | "stop" => {
                Some("there is no server yet; `flash-moe chat MODEL` is a conversation".into())
            }
            verb => {
                let here = program.find_subcommand(find(&VERBS, verb)?)?;
                Some(format!("that is `flash-moe {}` here", here.get_name()))
            }
        },
        _ => None,
    }
}

/// An option is advised where the command has it.
fn option_hint(name: &str, command: &Command) -> Option<String> {
    let has = |long: &str| command.get_arguments().any(|arg| arg.get_long() == long.strip_prefix("--"));
    match find(&OPTIONS, name) {
        Some(here) if has(here) => Some(format!("that is {here} here")),
        Some(_) => None,
        None => find(&OTHERWISE, name).map(String::from),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn hint_for(line: &str) -> Option<String> {
        let words: Vec<&str> = line.split(' ').collect();
        let error = Cli::try_parse_from(&words).err()?;
        hint(&error, words.get(1).copied())
    }

    #[test]
    fn habits_of_other_programs_are_answered() {
        for (line, part) in [
            ("flash-moe run demo hi -c 99", "--ctx"),
            ("flash-moe run demo hi -t 4", "--threads"),
            ("flash-moe run demo hi --temperature 1", "--temp"),
            ("flash-moe run demo hi -ngl 99", "leave it out"),
            ("flash-moe chat demo --n-predict 9", "--max-tokens"),
            ("flash-moe run -m model.gguf", "first argument"),
            ("flash-moe run demo -p hi", "the prompt is an argument"),
            ("flash-moe show demo", "inspect"),
            ("flash-moe generate demo", "flash-moe run"),
        ] {
            assert!(hint_for(line).is_some_and(|hint| hint.contains(part)), "{line}: {:?}", hint_for(line));
        }
    }

    #[test]
    fn what_is_advised_is_there() {
        assert_eq!(hint_for("flash-moe inspect demo -c 99"), None, "inspect has no --ctx");
        let program = Cli::command();
        let run = program.find_subcommand("run").map(|run| run.get_arguments().collect::<Vec<_>>());
        for (names, _) in OPTIONS.iter().take(8) {
            for name in *names {
                let Some(hint) = option_hint(name, program.find_subcommand("run").unwrap_or(&program)) else {
                    panic!("{name}: no hint")
                };
                let here = hint.split("--").nth(1).and_then(|rest| rest.split(' ').next());
                assert!(run.iter().flatten().any(|arg| arg.get_long() == here), "{name}: {hint}");
            }
        }
    }
}
