//! Steps: named, timed, and with advice for the day when one fails.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::root;

/// How a step ended.
pub(crate) enum Outcome {
    /// All was checked and is well.
    Passed,
    /// A tool is missing: which, and how to get it.
    Skipped(String),
}

type Run = Box<dyn Fn() -> anyhow::Result<Outcome>>;

/// One check.
pub(crate) struct Step {
    name: String,
    /// Advice for when it fails.
    fix: String,
    run: Run,
}

impl Step {
    /// A check by a function.
    pub(crate) fn new(
        name: &str,
        fix: impl Into<String>,
        run: impl Fn() -> anyhow::Result<Outcome> + 'static,
    ) -> Step {
        Step { name: name.to_owned(), fix: fix.into(), run: Box::new(run) }
    }

    /// A check by a command that must succeed.
    pub(crate) fn command(name: &str, fix: impl Into<String>, line: Line) -> Step {
        Step::new(name, fix, move || line.run().map(|()| Outcome::Passed))
    }

    /// This step, if `tool` is there; otherwise skipped, with `advice`.
    pub(crate) fn if_there(self, tool: bool, advice: &str) -> Step {
        let advice = advice.to_owned();
        if tool { self } else { Step { run: Box::new(move || Ok(Outcome::Skipped(advice.clone()))), ..self } }
    }
}

/// A command with its arguments and variables, run in the repository.
#[derive(Clone)]
pub(crate) struct Line {
    words: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Line {
    /// A command line without quotes: words are separated by spaces.
    pub(crate) fn new(line: &str) -> Line {
        Line { words: line.split_whitespace().map(str::to_owned).collect(), variables: Vec::new() }
    }

    /// With a variable of the environment.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Line {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// As a person would type it.
    pub(crate) fn shown(&self) -> String {
        let variables = self.variables.iter().map(|(name, value)| match value.contains(' ') {
            true => format!("{name}=\"{value}\""),
            false => format!("{name}={value}"),
        });
        variables.chain(self.words.iter().cloned()).collect::<Vec<_>>().join(" ")
    }

    /// Runs it, its output going where ours goes.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        println!("$ {}", self.shown());
        let (program, args) = self.words.split_first().context("a command needs a program")?;
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        let status = Command::new(program).args(args).envs(variables).current_dir(root()).status();
        let status = status.with_context(|| format!("{program} cannot be run"))?;
        if !status.success() {
            bail!("{} ended with {status}", self.shown());
        }
        Ok(())
    }
}

/// Whether a command can be run and succeeds, silently.
pub(crate) fn works(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((program, args)) = words.split_first() else { return false };
    let command = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    command.is_ok_and(|status| status.success())
}

/// The steps that are named, or all when none is.
///
/// # Errors
/// A name of no step.
pub(crate) fn only(steps: Vec<Step>, names: &[&str]) -> anyhow::Result<Vec<Step>> {
    let known: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        bail!("no step is called {name}: there are {}", known.join(", "));
    }
    Ok(steps.into_iter().filter(|step| names.is_empty() || names.contains(&step.name.as_str())).collect())
}

/// All steps but those named.
pub(crate) fn without(steps: Vec<Step>, names: &[&str]) -> Vec<Step> {
    steps.into_iter().filter(|step| !names.contains(&step.name.as_str())).collect()
}

/// Runs all, also after one has failed, and says at the end how each ended.
pub(crate) fn run_all(steps: &[Step]) -> ExitCode {
    let (mut report, mut failed) = (Vec::new(), 0);
    for step in steps {
        println!("\n== {}", step.name);
        let started = Instant::now();
        let outcome = (step.run)();
        let time = shown(started.elapsed());
        let (mark, note) = match outcome {
            Ok(Outcome::Passed) => ("ok", String::new()),
            Ok(Outcome::Skipped(advice)) => ("SKIPPED", advice),
            Err(error) => {
                failed += 1;
                println!("{error:#}");
                ("FAILED", step.fix.clone())
            }
        };
        let line = format!("{mark:8} {:12} {time:>9}  {note}", step.name);
        println!("{}", line.trim_end());
        report.push(line);
    }
    println!("\n== summary");
    for line in report {
        println!("{}", line.trim_end());
    }
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn shown(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), (seconds % 60.0).floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<Step> {
        ["a", "b", "c"].map(|name| Step::new(name, "", || Ok(Outcome::Passed))).into()
    }

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| step.name.as_str()).collect()
    }

    #[test]
    fn steps_are_chosen_by_name() {
        assert_eq!(names(&only(steps(), &[]).unwrap()), ["a", "b", "c"]);
        assert_eq!(names(&only(steps(), &["c", "a"]).unwrap()), ["a", "c"]);
        assert_eq!(names(&without(steps(), &["b"])), ["a", "c"]);
        let refused = only(steps(), &["d"]).err().map(|e| e.to_string());
        assert_eq!(refused.as_deref(), Some("no step is called d: there are a, b, c"));
    }

    #[test]
    fn a_missing_tool_skips_and_never_runs() {
        let step = Step::new("x", "", || bail!("it ran")).if_there(false, "install it");
        assert!(matches!((step.run)(), Ok(Outcome::Skipped(advice)) if advice == "install it"));
        assert!(!works("a-program-that-is-not-there"));
    }

    #[test]
    fn times_and_commands_are_shown_as_people_write_them() {
        assert_eq!(shown(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(shown(Duration::from_millis(125_900)), "2 min 05 s");
        assert_eq!(Line::new("cargo doc  -p x").with("A", "b c").shown(), "A=\"b c\" cargo doc -p x");
    }
}
