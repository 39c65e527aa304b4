//! Streams that decode together: what all of them get done, how evenly, and how long each waits for
//! its next token, also while a long prompt arrives.

use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use engine::{Canceller, Engine, EngineError, Event, Request, Running};
use serde::Serialize;

use crate::LabError;
use crate::figures::ratio;
use crate::mark::Mark;

/// What several streams did together.
#[derive(Clone, Debug, Serialize)]
pub struct Streams {
    /// Tokens of all streams, per second.
    pub total_tokens_per_s: f64,
    /// Tokens of the slowest stream, per second.
    pub stream_tokens_per_s_min: f64,
    /// Tokens of the fastest stream, per second.
    pub stream_tokens_per_s_max: f64,
    /// Longest time between two tokens of one stream.
    pub stream_wait_max_s: f64,
    /// Tokens of all streams in the time that was measured, at least as many of each as asked for.
    pub streams_tokens: usize,
    /// Time that was measured: all streams decoded.
    pub streams_time_s: f64,
    /// Expert bytes read for each token.
    pub streams_expert_bytes_per_token: f64,
    /// Share of the expert requests that were in memory; streams that want the same expert make one
    /// request.
    pub streams_hit_rate: f64,
    /// A long prompt that arrived then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival: Option<Arrival>,
}

/// A prompt that arrived while streams decoded.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct Arrival {
    /// Its tokens.
    pub prompt_tokens: usize,
    /// Until its first token.
    pub time_to_first_token_s: f64,
    /// Longest time between two tokens of one stream meanwhile.
    pub stream_wait_max_s: f64,
    /// Bound on a pass that was asked for.
    pub pass_time_max_s: f64,
    /// Tokens of all streams meanwhile.
    pub streams_tokens: usize,
}

/// Requests to measure.
pub(crate) struct Load {
    /// A prompt for each stream, and the tokens that follow: more than will be needed.
    pub(crate) streams: Vec<(Vec<u32>, Vec<u32>)>,
    /// Tokens of each stream that are measured.
    pub(crate) tokens: usize,
    /// A prompt that arrives when they have been.
    pub(crate) arrival: Option<Vec<u32>>,
    pub(crate) pass_time_max: Duration,
}

/// Runs the requests together.
///
/// # Errors
/// One of them failed; [`LabError::StreamEnded`] if one had no more tokens to decode while it was
/// needed.
pub(crate) fn measure(engine: &Engine, load: &Load) -> Result<Streams, LabError> {
    let running = load.streams.iter().map(|(prompt, forced)| {
        // A length that is given, whatever the model says.
        let (max_tokens, stop_ids) = (forced.len(), Vec::new());
        let request = Request { max_tokens, stop_ids, forced: forced.clone(), ..engine.request(&prompt[..]) };
        engine.submit(request).map_err(LabError::from)
    });
    let running = running.collect::<Result<Vec<Running>, _>>()?;
    let cancellers: Vec<Canceller> = running.iter().map(Running::canceller).collect();
    let (tell, told) = mpsc::channel();
    let board = Board { noted: Noted::new(running.len()), progress: Mutex::new(Progress::Starting), tell };
    thread::scope(|scope| {
        for (stream, running) in running.into_iter().enumerate() {
            let (board, engine) = (&board, engine);
            let follow = move || board.follow(engine, load, stream, running);
            if let Err(source) = thread::Builder::new().spawn_scoped(scope, follow) {
                cancellers.iter().for_each(Canceller::cancel);
                return Err(EngineError::Thread { source }.into());
            }
        }
        // Every stream tells how it ended, so something always comes.
        let window = told.recv().unwrap_or(Err(LabError::StreamEnded { tokens: 0 }));
        let result = window.and_then(|window| report(window, load, &board.noted));
        cancellers.iter().for_each(Canceller::cancel);
        result
    })
}

/// The time that is measured, and the prompt that arrived at its end.
struct Window {
    begin: Mark,
    end: Mark,
    arrival: Option<(Instant, Running)>,
}

fn report(window: Window, load: &Load, noted: &Noted) -> Result<Streams, LabError> {
    let Window { begin, end, arrival } = window;
    let arrival = arrival.map(|(at, running)| await_arrival(at, running, load, noted)).transpose()?;
    let tokens = noted.tokens_between(begin.at, end.at);
    let (seconds, all) = ((end.at - begin.at).as_secs_f64(), tokens.iter().sum::<usize>());
    let (requests, hits) = (end.requests - begin.requests, end.hits - begin.hits);
    let rate = |tokens: Option<&usize>| tokens.map_or(0.0, |tokens| ratio(*tokens as f64, seconds));
    Ok(Streams {
        total_tokens_per_s: ratio(all as f64, seconds),
        stream_tokens_per_s_min: rate(tokens.iter().min()),
        stream_tokens_per_s_max: rate(tokens.iter().max()),
        stream_wait_max_s: noted.longest_wait_s(begin.at, end.at),
        streams_tokens: all,
        streams_time_s: seconds,
        streams_expert_bytes_per_token: ratio((end.bytes_read - begin.bytes_read) as f64, all as f64),
        // A model without experts misses none.
        streams_hit_rate: if requests > 0 { hits as f64 / requests as f64 } else { 1.0 },
        arrival,
    })
}

/// Waits for the first token after the prompt that arrived.
fn await_arrival(begin: Instant, running: Running, load: &Load, noted: &Noted) -> Result<Arrival, LabError> {
    let (mut prompt_tokens, mut first_token_s) = (0, 0.0);
    for event in running {
        if let Event::Finished(generation) = event? {
            (prompt_tokens, first_token_s) =
                (generation.prompt.len(), generation.stats.time_to_first_token_s.unwrap_or_default());
        }
    }
    let end = begin + Duration::from_secs_f64(first_token_s);
    noted.check_decoding_until(end)?;
    Ok(Arrival {
        prompt_tokens,
        time_to_first_token_s: first_token_s,
        stream_wait_max_s: noted.longest_wait_s(begin, end),
        pass_time_max_s: load.pass_time_max.as_secs_f64(),
        streams_tokens: noted.tokens_between(begin, end).iter().sum(),
    })
}

/// How far the measurement is. Those who take the streams' events move it on: a stream whose events
/// are not taken stops, so that none gets far ahead of it.
enum Progress {
    /// Some stream has no token yet.
    Starting,
    /// Until each stream has so many tokens.
    Measuring { begin: Mark, wanted: Vec<usize> },
    /// The window was told.
    Done,
}

struct Board {
    noted: Noted,
    progress: Mutex<Progress>,
    tell: mpsc::Sender<Result<Window, LabError>>,
}

impl Board {
    /// Takes a stream's events until it ends.
    fn follow(&self, engine: &Engine, load: &Load, stream: usize, running: Running) {
        let mut result = Ok(());
        for event in running {
            result = match event {
                Ok(Event::Token { .. }) => {
                    self.noted.note(stream);
                    self.advance(engine, load)
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if result.is_err() {
                break;
            }
        }
        let tokens = self.noted.end(stream);
        // Whoever listens takes the first message only.
        let _ = self.tell.send(Err(result.err().unwrap_or(LabError::StreamEnded { tokens })));
    }

    fn advance(&self, engine: &Engine, load: &Load) -> Result<(), LabError> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match &*progress {
            Progress::Starting if self.noted.counts().iter().all(|count| *count > 0) => {
                let begin = Mark::now(engine)?;
                let wanted = self.noted.counts().iter().map(|count| count + load.tokens).collect();
                *progress = Progress::Measuring { begin, wanted };
            }
            Progress::Measuring { begin, wanted } if self.noted.has(wanted) => {
                let (begin, end) = (*begin, Mark::now(engine)?);
                let arrival = load.arrival.as_ref().map(|prompt| arrive(engine, prompt)).transpose()?;
                *progress = Progress::Done;
                let _ = self.tell.send(Ok(Window { begin, end, arrival }));
            }
            _ => {}
        }
        Ok(())
    }
}

fn arrive(engine: &Engine, prompt: &[u32]) -> Result<(Instant, Running), LabError> {
    let request = Request { max_tokens: 1, stop_ids: Vec::new(), ..engine.request(prompt) };
    let at = Instant::now();
    Ok((at, engine.submit(request)?))
}

/// When each stream got its tokens, and whether it has ended.
struct Noted(Mutex<Vec<(Vec<Instant>, bool)>>);

impl Noted {
    fn new(streams: usize) -> Self {
        Self(Mutex::new(vec![(Vec::new(), false); streams]))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Vec<Instant>, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, stream: usize) {
        self.lock()[stream].0.push(Instant::now());
    }

    /// Notes the end of a stream. Returns the number of its tokens.
    fn end(&self, stream: usize) -> usize {
        let stream = &mut self.lock()[stream];
        stream.1 = true;
        stream.0.len()
    }

    fn counts(&self) -> Vec<usize> {
        self.lock().iter().map(|(tokens, _)| tokens.len()).collect()
    }

    /// Whether each stream has so many tokens.
    fn has(&self, wanted: &[usize]) -> bool {
        self.lock().iter().zip(wanted).all(|((tokens, _), wanted)| tokens.len() >= *wanted)
    }

    /// Whether each stream decoded until then, or still does.
    fn check_decoding_until(&self, end: Instant) -> Result<(), LabError> {
        let streams = self.lock();
        let early = |(tokens, ended): &&(Vec<Instant>, bool)| *ended && tokens.last() < Some(&end);
        match streams.iter().find(early) {
            Some((tokens, _)) => Err(LabError::StreamEnded { tokens: tokens.len() }),
            None => Ok(()),
        }
    }

    /// [stream]: tokens after `begin`, until `end`.
    fn tokens_between(&self, begin: Instant, end: Instant) -> Vec<usize> {
        let inside = |(tokens, _): &(Vec<Instant>, bool)| {
            tokens.iter().filter(|at| begin < **at && **at <= end).count()
        };
        self.lock().iter().map(inside).collect()
    }

    /// Longest time between two tokens of one stream, of the waits that lie at least partly between
    /// `begin` and `end`.
    fn longest_wait_s(&self, begin: Instant, end: Instant) -> f64 {
        let streams = self.lock();
        let waits = streams.iter().flat_map(|(tokens, _)| {
            let last = tokens.last().copied();
            let open = last.filter(|last| *last < end).map(|last| [last, end]);
            let closed = tokens.windows(2).map(|pair| [pair[0], pair[1]]);
            closed.filter(move |[from, to]| *to > begin && *from < end).chain(open)
        });
        waits.map(|[from, to]| (to - from).as_secs_f64()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(tokens_ms: &[&[u64]]) -> (Noted, impl Fn(u64) -> Instant) {
        let noted = Noted::new(tokens_ms.len());
        let begin = Instant::now();
        let at = move |ms: u64| begin + Duration::from_millis(ms);
        for (stream, tokens) in noted.lock().iter_mut().zip(tokens_ms) {
            stream.0 = tokens.iter().map(|ms| at(*ms)).collect();
        }
        (noted, at)
    }

    #[test]
    fn waits_count_where_they_overlap_the_time_that_is_looked_at() {
        let (noted, at) = noted(&[&[0, 10, 50, 60], &[5, 30]]);
        let wait_ms = |from, to| (1e3 * noted.longest_wait_s(at(from), at(to))).round() as u64;
        assert_eq!(wait_ms(0, 60), 40, "from 10 to 50");
        assert_eq!(wait_ms(0, 9), 25, "the second stream's, from 5 to 30");
        assert_eq!(wait_ms(52, 80), 50, "the second stream has had none since 30");
        assert_eq!(noted.tokens_between(at(5), at(50)), [2, 1]);
    }

    #[test]
    fn a_stream_may_end_after_it_was_needed_and_not_before() {
        let (noted, at) = noted(&[&[0, 10, 50], &[5, 30]]);
        assert!(noted.check_decoding_until(at(40)).is_ok());
        assert_eq!(noted.end(0), 3);
        assert!(noted.check_decoding_until(at(40)).is_ok());
        assert!(matches!(noted.check_decoding_until(at(51)), Err(LabError::StreamEnded { tokens: 3 })));
        assert!(noted.has(&[3, 1]) && !noted.has(&[3, 3]));
    }
}
