//! The `flash-moe` command line: arguments in, text or JSON on stdout, everything else on stderr.
//!
//! Exit code 0 on success, 2 for bad usage, 130 after Ctrl-C at a terminal, 1 for everything else,
//! with one line that says what was wrong, where, and what to do. A reader that closes the pipe early
//! (`| head`) is no error.
#![forbid(unsafe_code)]

mod advice;
mod args;
mod commands;
mod demo;
mod download;
mod habits;
mod interrupt;
mod log;
mod model;
mod output;
mod parse;
mod prompt;
mod settings;
mod shown;
mod summary;
mod values;
mod version;

use std::io;
use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::interrupt::Interrupted;

fn main() -> ExitCode {
    match parse::parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            match () {
                () if error.is::<args::Usage>() => ExitCode::from(2),
                () if error.is::<Interrupted>() => ExitCode::from(Interrupted::exit_code()),
                () => ExitCode::FAILURE,
            }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    log::start(cli.verbose)?;
    match cli.command {
        Command::Run(args) => commands::run::run(&args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Pack(args) => commands::pack::run(&args),
        Command::Synth(args) => commands::synth::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Logits(args) => commands::logits::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Simulate(args) => commands::simulate::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Pull(args) => commands::pull::run(&args),
        Command::List(args) => commands::list::run(&args),
        Command::Rm(args) => commands::rm::run(&args),
        Command::Completions(args) => commands::shell::completions(&args),
        Command::Man(args) => commands::shell::man(&args),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_pipe)
}
