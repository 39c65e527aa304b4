//! One request on the engine's thread.

use std::sync::Arc;
use std::time::Instant;

use ops::DELTA_BLOCK_TOKENS;
use sampling::Sampler;
use tokenizer::{StreamDecoder, Tokenizer, TokenizerError};

use crate::channel::{Channel, Item};
use crate::kv_cache::{Held, Keep};
use crate::stats::{Counters, RunStats};
use crate::{EngineError, Event, FinishReason, Generation, Logits, Request, system};

/// Distance of the snapshots within a long prompt, tokens.
const PERIODIC_TOKENS: usize = 512;

/// A request, checked, and how far it is.
pub(crate) struct Sequence {
    pub(crate) id: u64,
    pub(crate) request: Request,
    /// The prompt, then the generated tokens.
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt_len: usize,
    /// Most tokens that it can get to.
    pub(crate) total: usize,
    /// Leading tokens that pages and recurrent state have seen.
    pub(crate) computed: usize,
    pub(crate) held: Held,
    pub(crate) channel: Arc<Channel>,
    /// It has ended, but a pass under way still has its rows.
    pub(crate) ended: bool,
    /// A step failed halfway: layers disagree about how much the recurrent state has seen.
    pub(crate) spoilt: bool,
    /// When it last took part in a prompt part.
    pub(crate) served: u64,
    /// The token chosen from the pass that just ran.
    pub(crate) chosen: Option<Result<u32, EngineError>>,
    sampler: Sampler,
    decoder: Option<StreamDecoder<Arc<Tokenizer>>>,
    text: String,
    times: Times,
}

struct Times {
    submitted: Instant,
    admitted: Option<Instant>,
    prompt_done: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    at_start: Counters,
    at_decode: Counters,
}

/// A request whose prompt is tokens.
pub(crate) struct Checked {
    pub(crate) id: u64,
    pub(crate) request: Request,
    pub(crate) tokens: Vec<u32>,
    /// Context, tokens.
    pub(crate) ctx: usize,
}

impl Sequence {
    /// # Errors
    /// Unusable sampling parameters.
    pub(crate) fn new(
        checked: Checked,
        tokenizer: Option<&Arc<Tokenizer>>,
        channel: Arc<Channel>,
    ) -> Result<Self, EngineError> {
        let Checked { id, request, tokens, ctx } = checked;
        let mut decoder = tokenizer.map(|tokenizer| StreamDecoder::new(tokenizer.clone(), true));
        if request.continues_text {
            decoder = decoder.map(|decoder| decoder.after(&tokens));
        }
        Ok(Self {
            id,
            prompt_len: tokens.len(),
            total: tokens.len().saturating_add(request.max_tokens).min(ctx),
            sampler: Sampler::new(request.sampling)?,
            request,
            tokens,
            computed: 0,
            held: Held::default(),
            channel,
            ended: false,
            spoilt: false,
            served: 0,
            chosen: None,
            decoder,
            text: String::new(),
            times: Times {
                submitted: Instant::now(),
                admitted: None,
                prompt_done: None,
                first_token: None,
                last_token: None,
                at_start: Counters::default(),
                at_decode: Counters::default(),
            },
        })
    }

    /// Leading tokens that may come from the cache: all but the last, whose logits are needed.
    pub(crate) fn reuse_max(&self) -> usize {
        match self.request.logits {
            Logits::All => 0,
            _ => self.prompt_len - 1,
        }
    }

    /// It has pages and a slot now.
    pub(crate) fn admit(&mut self, held: Held, counters: Counters) {
        self.computed = held.reused;
        self.held = held;
        self.times.admitted = Some(Instant::now());
        (self.times.at_start, self.times.at_decode) = (counters, counters);
    }

    pub(crate) fn in_prompt(&self) -> bool {
        self.computed < self.prompt_len
    }

    pub(crate) fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// Where a recurrent state is worth keeping after position `from` and up to `to`, ascending.
    pub(crate) fn snapshots(&self, from: usize, to: usize) -> Vec<(usize, Keep)> {
        let floor = |position: usize| position / DELTA_BLOCK_TOKENS * DELTA_BLOCK_TOKENS;
        let mut found: Vec<(usize, Keep)> =
            self.request.prefix_marks.iter().map(|mark| (floor(*mark), Keep::Mark)).collect();
        found.push((floor(self.prompt_len - 1), Keep::Turn));
        let periodic = (from / PERIODIC_TOKENS + 1..=to / PERIODIC_TOKENS).map(|n| n * PERIODIC_TOKENS);
        found.extend(periodic.map(|position| (position, Keep::Periodic)));
        found.retain(|(position, _)| (from + 1..=to).contains(position));
        found.sort_by_key(|(position, keep)| (*position, std::cmp::Reverse(*keep)));
        found.dedup_by_key(|(position, _)| *position);
        found
    }

    /// Tells the caller how much of the prompt is computed.
    pub(crate) fn report_progress(&self) {
        let (done, total) = (self.computed - self.held.reused, self.prompt_len - self.held.reused);
        self.channel.push(Event::Prefill { done, total, share: done as f32 / total.max(1) as f32 });
    }

    pub(crate) fn prompt_done(&mut self, counters: Counters) {
        self.times.prompt_done = Some(Instant::now());
        self.times.at_decode = counters;
    }

    /// Takes logits after the token at `position`: hands them out, and chooses what follows the
    /// last token. Logits that are not finite are not handed out and end the request, in whatever row
    /// they are.
    pub(crate) fn take_logits(&mut self, position: usize, logits: &[f32]) {
        if matches!(self.chosen, Some(Err(_))) {
            return;
        }
        if let Some(token) = sampling::first_not_finite(logits) {
            self.spoilt = true;
            self.chosen = Some(Err(EngineError::LogitsNotFinite { position, token, value: logits[token] }));
            return;
        }
        let last = position + 1 == self.tokens.len();
        let wanted = match self.request.logits {
            Logits::None => false,
            Logits::Last => last,
            Logits::All => true,
        };
        if wanted {
            self.channel.push_when_room(Event::Logits { position, logits: logits.to_vec() });
        }
        if last {
            self.chosen = Some(self.choose(logits));
        }
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, EngineError> {
        let (prompt, generated) = self.tokens.split_at(self.prompt_len);
        let forced = self.request.forced.get(generated.len()).copied();
        // Nothing is drawn where nothing is chosen.
        match forced {
            None if generated.len() < self.request.max_tokens => {
                Ok(self.sampler.sample_after(logits, prompt, generated)?)
            }
            forced => Ok(forced.unwrap_or_default()),
        }
    }

    /// Goes on with the token that was chosen; why the request ends with it, if it does.
    pub(crate) fn accept(&mut self, id: u32) -> Result<Option<FinishReason>, EngineError> {
        let generated = self.generated().len();
        if generated >= self.request.max_tokens {
            return Ok(Some(FinishReason::Length));
        }
        self.times.last_token = Some(Instant::now());
        self.times.first_token = self.times.first_token.or(self.times.last_token);
        let forced = generated < self.request.forced.len();
        if !forced && self.request.stop_ids.contains(&id) {
            return Ok(Some(FinishReason::Stop));
        }
        self.tokens.push(id);
        let text = self.decode(|decoder| decoder.push(id))?;
        self.channel.push(Event::Token { id, text });
        Ok(match () {
            () if self.generated().len() >= self.request.max_tokens => Some(FinishReason::Length),
            () if self.tokens.len() >= self.total => Some(FinishReason::Context),
            () => None,
        })
    }

    fn decode(
        &mut self,
        next: impl FnOnce(&mut StreamDecoder<Arc<Tokenizer>>) -> Result<Option<String>, TokenizerError>,
    ) -> Result<String, EngineError> {
        let text = self.decoder.as_mut().map(next).transpose()?.flatten().unwrap_or_default();
        self.text.push_str(&text);
        Ok(text)
    }

    /// Ends the request well.
    pub(crate) fn finish(&mut self, finish_reason: FinishReason, counters: Counters, about: &RunStats) {
        match self.decode(StreamDecoder::flush) {
            Err(error) => return self.end(Err(error)),
            Ok(text) => {
                if let (Some(&id), false) = (self.generated().last(), text.is_empty()) {
                    self.channel.push(Event::Token { id, text });
                }
            }
        }
        let generation = Generation {
            stats: self.stats(counters, about),
            prompt: self.tokens[..self.prompt_len].to_vec(),
            tokens: self.generated().to_vec(),
            text: std::mem::take(&mut self.text),
            finish_reason,
            seed: self.sampler.seed(),
        };
        self.end(Ok(Event::Finished(Box::new(generation))));
    }

    /// Ends the request with its last item.
    pub(crate) fn end(&mut self, last: Item) {
        self.ended = true;
        self.channel.close(last);
    }

    fn stats(&self, end: Counters, about: &RunStats) -> RunStats {
        let times = &self.times;
        let since = |from: Option<Instant>, to: Option<Instant>| Some((to? - from?).as_secs_f64());
        let per_second = |count: usize, seconds: Option<f64>| {
            seconds.filter(|seconds| count > 0 && *seconds > 0.0).map(|seconds| count as f64 / seconds)
        };
        // The first token comes out of prefill; each further one is a step.
        let steps = self.generated().len().saturating_sub(1);
        let prompt_tokens = self.computed.min(self.prompt_len).saturating_sub(self.held.reused);
        let decoded = times.prompt_done.map(|_| end.since(&times.at_decode));
        // Until the prompt is done all that was read was read for it.
        let prompt_end = if times.prompt_done.is_some() { times.at_decode } else { end };
        let prefilled = times.admitted.map(|_| prompt_end.since(&times.at_start));
        let waited = since(Some(times.submitted), times.admitted.or_else(|| Some(Instant::now())));
        RunStats {
            prompt_tokens,
            reused_tokens: self.held.reused,
            generated_tokens: self.generated().len(),
            waited_s: waited.unwrap_or_default(),
            time_to_first_token_s: since(Some(times.submitted), times.first_token),
            prefill_tokens_per_s: per_second(prompt_tokens, since(times.admitted, times.prompt_done)),
            decode_tokens_per_s: per_second(steps, since(times.first_token, times.last_token)),
            prefill_expert_bytes_read: prefilled.map(|counters| counters.bytes_read),
            decode_expert_bytes_read: decoded.map(|counters| counters.bytes_read),
            expert_bytes_per_token: decoded
                .filter(|_| steps > 0)
                .map(|counters| counters.bytes_read as f64 / steps as f64),
            // A model without experts misses none.
            hit_rate: decoded.filter(|_| steps > 0).map(|counters| match counters.requests {
                0 => 1.0,
                requests => counters.hits as f64 / requests as f64,
            }),
            read_wait_s: times.admitted.map_or(0.0, |_| end.since(&times.at_start).read_wait_us as f64 / 1e6),
            peak_resident_bytes: system::peak_resident_bytes(),
            ..about.clone()
        }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        if !self.ended {
            self.channel.close(Err(EngineError::Closed));
        }
    }
}
