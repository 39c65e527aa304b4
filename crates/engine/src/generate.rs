//! Generation: a prompt in, tokens and their text out, one event at a time.

use std::ops::ControlFlow;
use std::time::Instant;

use models::ModelError;
use sampling::{Sampler, SamplingParams};

use crate::{Engine, EngineError, RunStats, Session, system};

/// What to generate.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whole token prefix.
    pub prompt: Vec<u32>,
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How the next token is chosen.
    pub sampling: SamplingParams,
    /// Tokens that end the text.
    pub stop_ids: Vec<u32>,
    /// Whether the text goes on where the prompt ends, rather than being an answer of its own: SentencePiece
    /// vocabularies drop a space at the beginning of a text.
    pub continues_text: bool,
}

impl Request {
    /// A request with the model's own sampling defaults and end tokens, as long as the context allows.
    pub fn new(prompt: Vec<u32>, engine: &Engine) -> Self {
        let defaults = engine.defaults();
        Self {
            prompt,
            max_tokens: usize::MAX,
            sampling: defaults.params,
            stop_ids: defaults.eos_token_ids.clone(),
            continues_text: false,
        }
    }
}

/// What happens while a request runs.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A chunk of the prompt has been computed.
    Prefill {
        /// Prompt tokens computed.
        done: usize,
        /// Prompt tokens to compute.
        total: usize,
    },
    /// A token was chosen. Its text may be empty: characters are handed out whole.
    Token {
        /// The id.
        id: u32,
        /// The text that became complete with it.
        text: &'a str,
    },
}

/// Why a generation ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// An end token.
    Stop,
    /// As many tokens as asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller stopped it.
    Cancelled,
}

/// A finished generation.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Generated ids, without the end token.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Seed of the sampler, so that the run can be repeated.
    pub seed: u64,
    /// What it cost.
    pub stats: RunStats,
}

impl Engine {
    /// Runs a request. The caller may stop it by returning [`ControlFlow::Break`] or by [`Engine::cancel_flag`]; what was
    /// generated until then is returned.
    ///
    /// # Errors
    /// A prompt that does not fit, unusable sampling parameters, a failed read. The session rebuilds itself next time.
    pub fn generate(
        &mut self,
        session: &mut Session,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, EngineError> {
        if request.prompt.len() >= session.ctx() {
            let (prompt, ctx) = (request.prompt.len(), session.ctx());
            let suggestion = (prompt + 256).next_multiple_of(256);
            return Err(EngineError::PromptTooLong { prompt, ctx, suggestion });
        }
        let mut run = Run::new(self, request)?;
        let mut stopped = false;
        let prefill = self.sync(session, &request.prompt, &mut |done, total| {
            stopped |= on_event(Event::Prefill { done, total }).is_break();
        });
        let finish_reason = match prefill {
            Err(EngineError::Model(ModelError::Cancelled)) => FinishReason::Cancelled,
            Err(error) => return Err(error),
            Ok(computed) => {
                run.prefilled(self, computed);
                match stopped {
                    true => FinishReason::Cancelled,
                    false => self.decode(session, request, &mut run, on_event)?,
                }
            }
        };
        Ok(run.finish(self, finish_reason))
    }

    fn decode(
        &mut self,
        session: &mut Session,
        request: &Request,
        run: &mut Run,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<FinishReason, EngineError> {
        let tokenizer = self.shared_tokenizer()?;
        let mut decoder = tokenizer.stream_decoder(true);
        if request.continues_text {
            decoder = decoder.after(&request.prompt);
        }
        let mut sequence = request.prompt.clone();
        let finish_reason = loop {
            if run.tokens.len() >= request.max_tokens {
                break FinishReason::Length;
            }
            if self.cancelled() {
                break FinishReason::Cancelled;
            }
            let id = run.sampler.sample_after(&mut session.logits, &request.prompt, &run.tokens)?;
            run.first_token();
            if request.stop_ids.contains(&id) {
                break FinishReason::Stop;
            }
            run.tokens.push(id);
            sequence.push(id);
            let text = decoder.push(id)?.unwrap_or_default();
            run.text.push_str(&text);
            if on_event(Event::Token { id, text: &text }).is_break() {
                break FinishReason::Cancelled;
            }
            if sequence.len() >= session.ctx() {
                break FinishReason::Context;
            }
            if run.tokens.len() >= request.max_tokens {
                break FinishReason::Length;
            }
            match self.sync(session, &sequence, &mut |_, _| ()) {
                Err(EngineError::Model(ModelError::Cancelled)) => break FinishReason::Cancelled,
                result => result?,
            };
        };
        if let (Some(rest), Some(id)) = (decoder.flush()?, run.tokens.last()) {
            run.text.push_str(&rest);
            let _ = on_event(Event::Token { id: *id, text: &rest });
        }
        Ok(finish_reason)
    }
}

/// Counters of the expert store that a run takes differences of.
#[derive(Copy, Clone, Default)]
struct Mark {
    requests: u64,
    hits: u64,
    bytes_read: u64,
    read_wait_us: u64,
}

impl Mark {
    fn now(engine: &Engine) -> Self {
        let stats = engine.runtime.store_stats();
        Self {
            requests: stats.requests,
            hits: stats.hits,
            bytes_read: stats.bytes_read,
            read_wait_us: stats.read_wait_us,
        }
    }
}

/// A generation under way.
struct Run {
    sampler: Sampler,
    tokens: Vec<u32>,
    text: String,
    started: Instant,
    prefill_done: Option<Instant>,
    first_token: Option<Instant>,
    prompt_tokens: usize,
    at_start: Mark,
    at_decode: Mark,
}

impl Run {
    fn new(engine: &Engine, request: &Request) -> Result<Self, EngineError> {
        let mark = Mark::now(engine);
        Ok(Self {
            sampler: Sampler::new(request.sampling)?,
            tokens: Vec::new(),
            text: String::new(),
            started: Instant::now(),
            prefill_done: None,
            first_token: None,
            prompt_tokens: 0,
            at_start: mark,
            at_decode: mark,
        })
    }

    fn prefilled(&mut self, engine: &Engine, computed: usize) {
        self.prompt_tokens = computed;
        self.prefill_done = Some(Instant::now());
        self.at_decode = Mark::now(engine);
    }

    fn first_token(&mut self) {
        self.first_token.get_or_insert_with(Instant::now);
    }

    fn finish(self, engine: &Engine, finish_reason: FinishReason) -> Generation {
        let (now, end) = (Instant::now(), Mark::now(engine));
        let per_second =
            |count: usize, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let prefill_s = self.prefill_done.map_or(0.0, |done| (done - self.started).as_secs_f64());
        let decode_s = self.first_token.map_or(0.0, |first| (now - first).as_secs_f64());
        // The first token comes out of prefill; each further one is a step.
        let steps = self.tokens.len().saturating_sub(1);
        let decode_bytes = end.bytes_read - self.at_decode.bytes_read;
        let requests = end.requests - self.at_decode.requests;
        let hits = end.hits - self.at_decode.hits;
        let stats = RunStats {
            prompt_tokens: self.prompt_tokens,
            generated_tokens: self.tokens.len(),
            time_to_first_token_s: self.first_token.map_or(0.0, |first| (first - self.started).as_secs_f64()),
            prefill_tokens_per_s: per_second(self.prompt_tokens, prefill_s),
            decode_tokens_per_s: per_second(steps, decode_s),
            prefill_expert_bytes_read: self.at_decode.bytes_read - self.at_start.bytes_read,
            decode_expert_bytes_read: decode_bytes,
            expert_bytes_per_token: if steps > 0 { decode_bytes as f64 / steps as f64 } else { 0.0 },
            hit_rate: match requests {
                // A model without experts misses none.
                0 if engine.config.experts_max() == 0 => 1.0,
                0 => 0.0,
                requests => hits as f64 / requests as f64,
            },
            read_wait_s: (end.read_wait_us - self.at_start.read_wait_us) as f64 / 1e6,
            expert_slots: engine.plan().slots,
            experts_per_token: engine.config.per_token_max(),
            peak_resident_bytes: system::peak_resident_bytes(),
            memory_budget_bytes: engine.plan().budget_bytes,
            io_fallback: engine.io_fallback(),
            kv: engine.plan().kv.to_string(),
            lossy: engine.lossy.clone(),
        };
        Generation { tokens: self.tokens, text: self.text, finish_reason, seed: self.sampler.seed(), stats }
    }
}
