//! A request while it runs: text on standard output, the progress of its prompt on standard error.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use engine::{EngineError, Event, Generation, Running, StillRunning};
use indicatif::ProgressBar;

use crate::output;

/// How often somebody looks whether Ctrl-C was pressed, and the time left is drawn anew.
const TICK: Duration = Duration::from_millis(50);
/// Before so much time the rest cannot be told from the beginning.
const ESTIMATE_AFTER: Duration = Duration::from_millis(500);

/// Takes the events of a request to its end, and `None` while there are none; a break cancels it.
pub(crate) fn take_events(
    mut running: Running,
    mut on_event: impl FnMut(Option<&Event>) -> ControlFlow<()>,
) -> anyhow::Result<Generation> {
    loop {
        let flow = match running.next_within(TICK) {
            Err(StillRunning) => on_event(None),
            Ok(None) => return Err(EngineError::Closed.into()),
            Ok(Some(event)) => match event? {
                Event::Finished(generation) => return Ok(*generation),
                event => on_event(Some(&event)),
            },
        };
        if flow.is_break() {
            running.cancel();
        }
    }
}

/// Streams text to stdout and shows the prompt's progress until the first token.
pub(crate) struct Shown {
    stream: bool,
    begun: Instant,
    bar: Option<ProgressBar>,
    /// Share of the prompt that is computed, and its tokens.
    prompt: Option<(f32, usize)>,
    written: bool,
    error: Option<io::Error>,
}

impl Shown {
    pub(crate) fn new(stream: bool) -> Self {
        let bar = Some(output::share_bar("prompt"));
        Self { stream, begun: Instant::now(), bar, prompt: None, written: false, error: None }
    }

    /// Shows an event, or `None`: that time goes by.
    pub(crate) fn on(&mut self, event: Option<&Event>) -> ControlFlow<()> {
        match event {
            None => self.draw(),
            Some(Event::Prefill { share, total, .. }) => {
                self.prompt = Some((*share, *total));
                self.draw();
            }
            Some(Event::Token { text, .. }) => {
                self.clear_bar();
                if self.stream && !text.is_empty() {
                    return self.write(text);
                }
            }
            Some(_) => self.clear_bar(),
        }
        ControlFlow::Continue(())
    }

    fn draw(&self) {
        let Some(bar) = &self.bar else { return };
        let Some((share, total)) = self.prompt else { return bar.tick() };
        let spent = self.begun.elapsed();
        bar.set_position((f64::from(share) * output::WHOLE as f64) as u64);
        bar.set_message(match spent >= ESTIMATE_AFTER && share > 0.0 {
            true => format!("of {total} tokens, {} left", output::duration(rest(spent, share))),
            false => format!("of {total} tokens"),
        });
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn write(&mut self, text: &str) -> ControlFlow<()> {
        let mut stdout = io::stdout().lock();
        self.written = true;
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        self.clear_bar();
        if self.written {
            let _ = self.write("\n");
        }
    }

    pub(crate) fn result(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Share of the prompt's work that was done; 0 if none was.
    pub(crate) fn prompt_share(&self) -> f32 {
        self.prompt.map_or(0.0, |(share, _)| share)
    }

    /// Time since the request began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Time for the rest if it goes on as it began.
fn rest(spent: Duration, share: f32) -> Duration {
    let share = f64::from(share.clamp(f32::MIN_POSITIVE, 1.0));
    Duration::try_from_secs_f64(spent.as_secs_f64() * (1.0 - share) / share).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_its_share() {
        assert_eq!(rest(Duration::from_secs(2), 0.25), Duration::from_secs(6));
        assert_eq!(rest(Duration::from_secs(2), 1.0), Duration::ZERO);
        assert_eq!(rest(Duration::MAX, 0.0), Duration::MAX);
    }
}
