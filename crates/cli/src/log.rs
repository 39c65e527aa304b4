//! Tracing output, to find the cause of a slow run: `-v` or `RUST_LOG`.

use std::io;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Shows events and spans on stderr: with `-v` what is opened and planned, with `-vv` each pass, with
/// `-vvv` each layer. `RUST_LOG`, where set, decides instead.
///
/// # Errors
/// `RUST_LOG` is no list of filters.
pub(crate) fn start(verbose: u8) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).with_context(|| format!("RUST_LOG={text} is no list of filters"))?
        }
        _ => EnvFilter::new(level(verbose)),
    };
    let shown = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(io::stderr)
        .with_ansi(console::colors_enabled_stderr());
    // A second start in one process changes nothing.
    let _ = shown.try_init();
    Ok(())
}

fn level(verbose: u8) -> &'static str {
    match verbose {
        0 => "off",
        1 => "info",
        2 => "debug",
        _ => "trace",
    }
}
