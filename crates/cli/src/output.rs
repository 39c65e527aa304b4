//! What people see while they wait: one error line, progress bars on stderr, sizes for people.
#![allow(clippy::print_stderr)] // stderr is this module's job.

use std::sync::OnceLock;
use std::time::Duration;

use engine::Loading;
use engine::system::human_bytes;
use indicatif::{ProgressBar, ProgressStyle};
use pack::PackProgress;

use crate::advice::advice;

/// Prints the one line that says what was wrong and which option would help.
pub(crate) fn error(error: &anyhow::Error) {
    let advice = advice(error).map_or_else(String::new, |advice| format!("; {advice}"));
    eprintln!("error: {}{advice}", format!("{error:#}").replace('\n', " "));
}

/// Prints a remark.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Prints what is there for those who look for it: dim on a terminal.
pub(crate) fn aside(text: &str) {
    eprintln!("{}", console::style(text).for_stderr().dim());
}

/// A bar over bytes with rate and time left; drawn only on a terminal.
pub(crate) fn bytes_bar(what: &'static str, total: u64) -> ProgressBar {
    let style =
        "{msg:10} [{bar:32}] {binary_bytes} / {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
    bar(what, total, style)
}

/// A bar over tokens.
pub(crate) fn tokens_bar(what: &'static str, total: u64) -> ProgressBar {
    bar(what, total, "{msg:10} [{bar:32}] {human_pos} / {human_len} tokens  {per_sec}  {eta} left")
}

fn bar(what: &'static str, total: u64, style: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Shows how a model is being opened.
#[derive(Default)]
pub(crate) struct LoadProgress {
    bar: Option<ProgressBar>,
}

impl LoadProgress {
    /// Takes one event of the engine.
    pub(crate) fn on(&mut self, event: Loading<'_>) {
        match event {
            Loading::Dense { done, total } => {
                self.bar.get_or_insert_with(|| bytes_bar("loading", total)).set_position(done);
            }
            Loading::IoFallback(reason) => note(&format!("note: reading through the page cache: {reason}")),
            Loading::EngineFallback(reason) => note(&format!("note: {reason}")),
            _ => {}
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows how a pack gets on.
pub(crate) struct PackBar {
    what: &'static str,
    bar: OnceLock<ProgressBar>,
}

impl PackBar {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, bar: OnceLock::new() }
    }
}

impl PackProgress for PackBar {
    fn start(&self, total_bytes: u64, done_bytes: u64) {
        let bar = bytes_bar(self.what, total_bytes);
        // What an earlier run did counts for the position, not for the rate.
        bar.set_position(done_bytes);
        bar.reset_eta();
        let _ = self.bar.set(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = self.bar.get() {
            bar.inc(bytes);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

/// `1.23 GiB` or `-` for nothing.
pub(crate) fn size(bytes: u64) -> String {
    if bytes == 0 { "-".into() } else { human_bytes(bytes) }
}

/// The lossy options that are on, for a table.
pub(crate) fn lossy(options: &[String]) -> String {
    if options.is_empty() { "nothing".into() } else { options.join(", ") }
}
