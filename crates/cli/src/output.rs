//! What people see while they wait: one error line, progress bars on stderr, sizes for people.
#![allow(clippy::print_stderr)] // stderr is this module's job.

use std::io::{self, Write};
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
    note(&format!("error: {}{advice}", format!("{error:#}").replace('\n', " ")));
}

/// Prints a remark: one line for programs, broken between words on a terminal.
pub(crate) fn note(text: &str) {
    match console::Term::stderr().is_term() {
        true => text.lines().flat_map(wrapped).for_each(|line| eprintln!("{line}")),
        false => eprintln!("{text}"),
    }
}

/// Writes a line of results: as it is for programs, broken between words for a terminal.
pub(crate) fn result(out: &mut impl Write, text: &str) -> io::Result<()> {
    let term = console::Term::stdout();
    match term.size_checked().filter(|_| term.is_term()) {
        Some((_, columns)) => {
            let width = usize::from(columns).clamp(40, COLUMNS_MAX) - 1;
            wrapped_to(text, width).iter().try_for_each(|line| writeln!(out, "{line}"))
        }
        None => writeln!(out, "{text}"),
    }
}

/// Prints what is there for those who look for it: dim on a terminal.
pub(crate) fn aside(text: &str) {
    eprintln!("{}", console::style(text).for_stderr().dim());
}

/// Prints parts of a line, with dots between them, on as many lines as the terminal needs.
pub(crate) fn parts(parts: &[String]) {
    folded(parts, width()).iter().for_each(|line| note(line));
}

/// As [`parts`], dim on a terminal.
pub(crate) fn parts_aside(parts: &[String]) {
    folded(parts, width()).iter().for_each(|line| aside(line));
}

/// Columns of the terminal, of which a line leaves the last one free; where there is none, usual ones.
pub(crate) fn width() -> usize {
    let term = console::Term::stderr();
    term.size_checked().map_or(COLUMNS, |(_, columns)| usize::from(columns)).clamp(40, COLUMNS_MAX) - 1
}

const COLUMNS: usize = 80;
/// Longer lines are hard to read.
const COLUMNS_MAX: usize = 100;

fn folded(parts: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line)
                if console::measure_text_width(line) + 3 + console::measure_text_width(part) <= width =>
            {
                line.push_str(" · ");
                line.push_str(part);
            }
            _ => lines.push(part.clone()),
        }
    }
    lines
}

/// A text in lines for the terminal, broken between words.
pub(crate) fn wrapped(text: &str) -> Vec<String> {
    wrapped_to(text, width())
}

fn wrapped_to(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // What a line begins with stays as wide as it is.
    let indent = text.len() - text.trim_start_matches(' ').len();
    for word in text[indent..].split(' ') {
        match lines.last_mut() {
            Some(line)
                if console::measure_text_width(line) + 1 + console::measure_text_width(word) <= width =>
            {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{}{word}", &text[..indent])),
        }
    }
    lines
}

/// A time for people: `4 s`, `3 min`, `2 h 5 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    match (seconds / 3600, seconds.div_ceil(60)) {
        (0, _) if seconds < 100 => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, _) if hours > 9999 => "very long".into(),
        (hours, _) => format!("{hours} h {} min", seconds % 3600 / 60),
    }
}

/// All of a bar of [`share_bar`].
pub(crate) const WHOLE: u64 = 1000;

/// A bar over a share of some work; its message is what stands behind the share.
pub(crate) fn share_bar(what: &'static str) -> ProgressBar {
    let bar = bar(what, WHOLE, "{prefix:8} [{bar:24}] {percent:>3} %  {msg}");
    bar.set_prefix(what);
    bar.set_message("");
    bar.tick();
    bar
}

/// A bar over bytes with rate and time left; drawn only on a terminal. Bars are drawn by those who
/// move them and need no thread.
pub(crate) fn bytes_bar(what: &'static str, total: u64) -> ProgressBar {
    let style =
        "{msg:8} [{wide_bar}] {binary_bytes} / {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
    bar(what, total, style)
}

/// A bar over a download, in the units of hubs and sellers of disks.
pub(crate) fn download_bar(total: u64) -> ProgressBar {
    let style =
        "{msg:8} [{wide_bar}] {decimal_bytes} / {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
    bar("pulling", total, style)
}

/// A bar over tokens.
pub(crate) fn tokens_bar(what: &'static str, total: u64) -> ProgressBar {
    bar(what, total, "{msg:8} [{wide_bar}] {human_pos} / {human_len} tokens  {per_sec}  {eta} left")
}

fn bar(what: &'static str, total: u64, style: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_folded_between_parts() {
        let parts = ["prompt 12 tokens", "first token", "5 tokens"].map(String::from);
        assert_eq!(folded(&parts, 80), ["prompt 12 tokens · first token · 5 tokens"]);
        assert_eq!(folded(&parts, 30), ["prompt 12 tokens · first token", "5 tokens"]);
        assert_eq!(folded(&parts, 3), parts);
    }

    #[test]
    fn times_are_for_people() {
        let of = |seconds: f64| duration(Duration::from_secs_f64(seconds));
        assert_eq!([of(0.2), of(99.0), of(100.0), of(7500.0)], ["1 s", "99 s", "2 min", "2 h 5 min"]);
        assert_eq!(duration(Duration::MAX), "very long");
    }

    #[test]
    fn lines_fit_and_break_between_words_behind_the_same_indent() {
        let text = format!("  tip: {}", "some words to say ".repeat(20));
        let lines = wrapped(text.trim_end());
        assert!(lines.len() > 2 && lines.iter().all(|line| line.len() <= width() && line.starts_with("  ")));
        let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert_eq!(words(&lines.join(" ")), words(&text));
        assert_eq!(wrapped(""), [""]);
    }
}
