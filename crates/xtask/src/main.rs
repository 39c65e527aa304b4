//! The checks of the repository, in one place for people and for continuous integration.
//!
//! `cargo xtask ci` runs them all, `cargo xtask ci fmt links` some. `cargo xtask check-targets` builds
//! and tests for other systems. A tool that this machine lacks is a step skipped, said at once and again
//! at the end, never a step passed.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a command-line tool")]

mod ci;
mod licences;
mod links;
mod step;
mod targets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage:
  cargo xtask ci [STEP…]                  all checks, or those named
  cargo xtask ci --except STEP…           all checks but those named
  cargo xtask check-targets [TARGET…]     check, build and test for other systems";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let steps = match words.as_slice() {
        ["ci", "--except", names @ ..] => ci::steps().map(|steps| step::without(steps, names)),
        ["ci", names @ ..] => ci::steps().and_then(|steps| step::only(steps, names)),
        ["check-targets", names @ ..] => targets::steps().and_then(|steps| step::only(steps, names)),
        _ => {
            println!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match steps {
        Ok(steps) => step::run_all(&steps),
        Err(error) => {
            println!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// The repository.
fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}
