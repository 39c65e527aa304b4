//! The steps of `cargo xtask ci`, the quick ones first.

use crate::step::{Line, Outcome, Step, works};
use crate::{licences, links, root};

/// All steps, in the order in which they run.
pub(crate) fn steps() -> anyhow::Result<Vec<Step>> {
    Ok(vec![
        Step::command("fmt", "run `cargo fmt --all`", Line::new("cargo fmt --all --check"))
            .if_there(works("cargo fmt --version"), "no rustfmt: `rustup component add rustfmt`"),
        Step::command("spelling", "correct the words, or add names to .codespellrc", Line::new("codespell"))
            .if_there(works("codespell --version"), "no codespell: `apt install codespell`"),
        Step::new("links", "correct the link, or the name of the heading or file", || {
            links::check(&root()).map(|()| Outcome::Passed)
        }),
        Step::new(
            "licences",
            "choose another crate, or argue for its licence in crates/xtask/src/licences.rs",
            || licences::check(&root()).map(|()| Outcome::Passed),
        ),
        Step::command(
            "clippy",
            "do what clippy says; `cargo clippy --fix` does some of it",
            Line::new("cargo clippy --workspace --all-targets --locked -- -D warnings"),
        )
        .if_there(works("cargo clippy --version"), "no clippy: `rustup component add clippy`"),
        Step::command(
            "doc",
            "correct the comment that rustdoc names",
            Line::new("cargo doc --workspace --no-deps --locked").with("RUSTDOCFLAGS", "-D warnings"),
        ),
        Step::command(
            "tests",
            "`cargo test --workspace --test NAME FILTER` runs one again",
            Line::new("cargo test --workspace --locked"),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_can_be_named() {
        let all = ["fmt", "spelling", "links", "licences", "clippy", "doc", "tests"];
        for name in all {
            assert_eq!(crate::step::only(steps().unwrap(), &[name]).unwrap().len(), 1, "{name}");
        }
        assert!(crate::step::without(steps().unwrap(), &all).is_empty());
    }
}
