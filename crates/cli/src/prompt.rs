//! The prompt: an argument, standard input, or both.

use std::io::{self, IsTerminal, Read};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::args::Usage;
use crate::output;

/// Longest text read from standard input, bytes: so much, and this share of the memory budget.
const STDIN_BYTES_MAX: u64 = 64 << 20;
const STDIN_BYTES_MIN: u64 = 1 << 20;
const STDIN_SHARE: u64 = 8;
/// Standard input that is silent for so long beside an argument is spoken of.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the model is asked. Text on standard input beside an argument is context, and comes first.
///
/// # Errors
/// [`Usage`] where there is nothing to ask; input that is too long or is not UTF-8.
pub(crate) fn read(argument: Option<&str>, raw: bool, memory: Option<u64>) -> anyhow::Result<String> {
    let most = stdin_bytes_max(memory);
    let terminal = io::stdin().is_terminal();
    let prompt = match argument {
        Some("-") => read_stdin(most)?,
        Some(text) if terminal => text.to_owned(),
        Some(text) => joined(&read_stdin_beside_argument(most)?, text, raw),
        None if terminal => {
            return Err(Usage("there is no prompt; write one after the model, or pipe it in".into()).into());
        }
        None => read_stdin(most)?,
    };
    // Raw text may well be a line's end; a question may not.
    if prompt.is_empty() || !raw && prompt.trim().is_empty() {
        let what = match argument {
            Some(text) if text != "-" => "the prompt is empty; write a text after the model",
            _ => {
                "standard input is empty, so there is no prompt; pipe a text in, or write one after the model"
            }
        };
        return Err(Usage(what.into()).into());
    }
    Ok(prompt)
}

fn joined(context: &str, prompt: &str, raw: bool) -> String {
    match (context.trim().is_empty(), prompt.trim().is_empty()) {
        (true, _) => prompt.to_owned(),
        (false, true) => context.to_owned(),
        // What is raw is as it was given.
        _ if raw => format!("{context}{prompt}"),
        _ => format!("{}\n\n{prompt}", context.trim_end_matches(['\r', '\n'])),
    }
}

/// Longest text that is read from standard input within a memory budget.
pub(crate) fn stdin_bytes_max(memory: Option<u64>) -> u64 {
    memory.map_or(STDIN_BYTES_MAX, |memory| (memory / STDIN_SHARE).clamp(STDIN_BYTES_MIN, STDIN_BYTES_MAX))
}

fn read_stdin(most: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = io::stdin().take(most + 1).read_to_end(&mut bytes);
    read.context("cannot read standard input")?;
    anyhow::ensure!(
        bytes.len() as u64 <= most,
        "standard input is longer than the {most} bytes that are read as a prompt within this memory budget; give a \
         shorter text"
    );
    String::from_utf8(bytes).context("standard input is not UTF-8 text")
}

/// An open pipe that nobody closes is likely to be an accident: its user is told what is waited for.
fn read_stdin_beside_argument(most: u64) -> anyhow::Result<String> {
    let (sender, receiver) = sync_channel(1);
    let reader = thread::Builder::new().spawn(move || drop(sender.send(read_stdin(most))));
    if reader.is_err() {
        return read_stdin(most);
    }
    match receiver.recv_timeout(PATIENCE) {
        Ok(text) => text,
        Err(RecvTimeoutError::Disconnected) => anyhow::bail!("cannot read standard input"),
        Err(RecvTimeoutError::Timeout) => {
            output::note("reading standard input to its end, as context of the prompt (`< /dev/null`: none)");
            receiver.recv().context("cannot read standard input")?
        }
    }
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn text_beside_an_argument_is_context_and_empty_text_is_none() {
        assert_eq!(joined("one\ntwo\n", "Sum up", false), "one\ntwo\n\nSum up");
        assert_eq!(joined("one\n", "and", true), "one\nand");
        for empty in ["", "\n", " \r\n"] {
            assert_eq!(joined(empty, "Sum up", false), "Sum up");
            assert_eq!(joined(empty, "Sum up", true), "Sum up");
            assert_eq!(joined("one", empty, false), "one");
        }
    }
}
