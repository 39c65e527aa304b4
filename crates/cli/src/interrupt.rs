//! Ctrl-C: while a request runs it ends the request, so that its figures can be printed; otherwise the
//! process, as without this file. No thread is needed: handlers set flags, which the one who waits
//! for events looks at.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use signal_hook::consts::SIGINT;
use signal_hook::flag;

/// What Ctrl-C does now.
pub(crate) struct Interrupt {
    /// It was pressed, and nobody has taken notice yet.
    asked: Arc<AtomicBool>,
    /// The next one ends the process at once.
    at_once: Arc<AtomicBool>,
}

/// Ctrl-C ended something; this is for the exit code.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// A request, whose figures are printed.
    Request {
        /// Tokens that were generated.
        tokens: usize,
    },
    /// A download, of which everything that has arrived is kept.
    Download,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interrupted::Request { tokens } => write!(f, "interrupted after {tokens} tokens"),
            Interrupted::Download => {
                f.write_str("interrupted; what has arrived is kept, and the same command goes on from there")
            }
        }
    }
}

impl std::error::Error for Interrupted {}

impl Interrupted {
    /// The shell's number for an end by Ctrl-C, where somebody sits at a terminal to press it; for
    /// programs that send the signal the request has failed like any other.
    pub(crate) fn exit_code() -> u8 {
        let terminal = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        if terminal { 130 } else { 1 }
    }
}

impl Interrupt {
    /// Takes Ctrl-C over. Until [`Interrupt::listen`] it ends the process.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let interrupt = Self { asked: Arc::default(), at_once: Arc::new(AtomicBool::new(true)) };
        let Self { asked, at_once } = &interrupt;
        // In this order: the first one ends a request, the second one the process.
        flag::register_conditional_default(SIGINT, at_once.clone())
            .and_then(|_| flag::register(SIGINT, asked.clone()))
            .and_then(|_| flag::register(SIGINT, at_once.clone()))
            .context("cannot handle Ctrl-C")?;
        Ok(interrupt)
    }

    /// A request begins: Ctrl-C is for it until [`Interrupt::idle`].
    pub(crate) fn listen(&self) {
        self.asked.store(false, Ordering::SeqCst);
        self.at_once.store(false, Ordering::SeqCst);
    }

    /// Nothing runs: Ctrl-C ends the process.
    pub(crate) fn idle(&self) {
        self.at_once.store(true, Ordering::SeqCst);
    }

    /// Whether Ctrl-C was pressed since the last look.
    pub(crate) fn take(&self) -> bool {
        self.asked.swap(false, Ordering::SeqCst)
    }

    /// Lets the next Ctrl-C be for the request again.
    pub(crate) fn once_more(&self) {
        self.at_once.store(false, Ordering::SeqCst);
    }
}
