//! Perplexity of a text: sliding windows, context and stride stated.

use engine::{Engine, Event, Logits, Request};

use crate::LabError;

/// How a text is cut into windows.
#[derive(Copy, Clone, Debug)]
pub struct EvalOptions {
    /// Tokens of a window.
    pub ctx: usize,
    /// Tokens that the window moves on; each is scored once, with at least `ctx - stride` tokens
    /// before it (but in the first window).
    pub stride: usize,
}

/// The result, with what is needed to compare it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct EvalReport {
    /// exp of the mean negative log-likelihood over the scored tokens.
    pub perplexity: f64,
    /// Mean negative log-likelihood of a token, nats.
    pub nll_nats: f64,
    /// Standard error of that mean, nats.
    pub nll_error_nats: f64,
    /// Bits per byte of the text, which does not depend on the tokenizer.
    pub bits_per_byte: f64,
    /// Tokens scored: all, but the first where no beginning-of-text token precedes it.
    pub tokens: usize,
    /// Window, tokens.
    pub ctx: usize,
    /// Stride, tokens.
    pub stride: usize,
    /// Tokens a second, everything included.
    pub tokens_per_s: f64,
    /// Number format of keys and values.
    pub kv: String,
    /// Lossy options that were on.
    pub lossy: Vec<String>,
}

/// Some tokens of a text, and which of them are scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    begin: usize,
    pub(crate) end: usize,
    /// First token that is scored; the last one is the window's.
    scored_from: usize,
}

impl Window {
    /// Tokens that are scored.
    pub(crate) fn scored(&self) -> usize {
        self.end.saturating_sub(self.scored_from)
    }
}

/// What goes before windows of a text.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Prefix {
    /// Tokens, at most.
    pub(crate) room: usize,
    /// Whether there is one for every model that takes part.
    pub(crate) always: bool,
}

impl Prefix {
    /// Of models that put so many tokens before a text.
    pub(crate) fn of(lengths: &[usize]) -> Prefix {
        let room = lengths.iter().copied().max().unwrap_or(0);
        Prefix { room, always: lengths.iter().all(|length| *length > 0) }
    }
}

impl EvalOptions {
    /// The windows of a text of so many tokens, before each of which `prefix` tokens go (the
    /// beginning-of-text token). Each token is scored in one of them, if anything precedes it.
    ///
    /// # Errors
    /// A text of fewer than two tokens, a stride of 0 or beyond the window.
    pub(crate) fn windows(&self, tokens: usize, prefix: Prefix) -> Result<Vec<Window>, LabError> {
        let EvalOptions { ctx, stride } = *self;
        if stride == 0 || stride > ctx || prefix.room >= ctx {
            return Err(LabError::BadStride { stride, ctx });
        }
        let first = usize::from(!prefix.always);
        if tokens <= first {
            return Err(LabError::TextTooShort { tokens });
        }
        let ctx = ctx - prefix.room;
        let mut windows = Vec::new();
        let mut scored_from = 0;
        for begin in (0..tokens).step_by(stride.min(ctx)) {
            let end = tokens.min(begin + ctx);
            // Without a prefix the first token of a window has nothing before it.
            windows.push(Window { begin, end, scored_from: scored_from.max(begin + first) });
            scored_from = end;
            if end == tokens {
                break;
            }
        }
        Ok(windows)
    }
}

/// Perplexity of `text`, tokenised as a whole (special tokens in it are recognised). Where the model
/// puts a beginning-of-text token before texts, each window has it.
///
/// # Errors
/// A text of fewer than two tokens, a stride of 0 or beyond the window, a failed read.
pub fn eval(
    engine: &Engine,
    text: &str,
    options: &EvalOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<EvalReport, LabError> {
    let started = std::time::Instant::now();
    let tokens = engine.tokenizer()?.encode(text, false)?;
    let prefix = engine.tokenizer()?.text_prefix()?;
    let windows = options.windows(tokens.len(), Prefix::of(&[prefix.len()]))?;
    let mut sums = Sums::default();
    for window in &windows {
        score(engine, (&prefix, &tokens), window, &mut |token, logits| {
            sums.add(nll(logits, token as usize));
        })?;
        progress(window.end, tokens.len());
    }
    let (nll_nats, nll_error_nats) = sums.mean_and_error();
    let seconds = started.elapsed().as_secs_f64();
    Ok(EvalReport {
        perplexity: nll_nats.exp(),
        nll_nats,
        nll_error_nats,
        bits_per_byte: sums.sum / std::f64::consts::LN_2 / text.len() as f64,
        tokens: sums.count,
        ctx: options.ctx,
        stride: options.stride,
        tokens_per_s: sums.count as f64 / seconds,
        kv: engine.plan().kv.to_string(),
        lossy: engine.lossy().to_vec(),
    })
}

/// Hands each token of a window that is scored to `sink`, in order, with the logits before it.
/// `text` is what goes before each window, and the tokens.
pub(crate) fn score(
    engine: &Engine,
    (prefix, tokens): (&[u32], &[u32]),
    window: &Window,
    sink: &mut dyn FnMut(u32, &[f32]),
) -> Result<(), LabError> {
    let Window { begin, end, scored_from } = *window;
    let prompt = [prefix, &tokens[begin..end]].concat();
    let request = Request { logits: Logits::All, max_tokens: 0, ..engine.request(&prompt[..]) };
    for event in engine.submit(request)? {
        if let Event::Logits { position, logits } = event? {
            // Less what belongs to the prefix.
            let next = (begin + position + 1).checked_sub(prefix.len());
            if let Some(next) = next.filter(|next| (scored_from..end).contains(next)) {
                sink(tokens[next], &logits);
            }
        }
    }
    Ok(())
}

/// Negative log-likelihood of `target`, nats: log-sum-exp in f64.
fn nll(logits: &[f32], target: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    sum.ln() - f64::from(logits[target] - max)
}

/// Sums for a mean and its standard error.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) count: usize,
    sum: f64,
    squares: f64,
}

impl Sums {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
    }

    pub(crate) fn mean_and_error(&self) -> (f64, f64) {
        let count = self.count as f64;
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        (mean, (variance / count).sqrt())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn nll_is_minus_log_softmax() {
        let logits = [1.0f32, 2.0, 3.0];
        let expected = -(3f64.exp() / (1f64.exp() + 2f64.exp() + 3f64.exp())).ln();
        assert!((nll(&logits, 2) - expected).abs() < 1e-12);
        assert!((nll(&[0.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn with_a_prefix_each_token_is_scored_once() {
        for (ctx, stride) in [(4, 2), (5, 5), (3, 1), (64, 32)] {
            for tokens in 1..40 {
                let windows = EvalOptions { ctx, stride }.windows(tokens, Prefix::of(&[1])).unwrap();
                let scored: Vec<usize> = windows.iter().flat_map(|w| w.scored_from..w.end).collect();
                assert_eq!(scored, (0..tokens).collect::<Vec<_>>(), "{tokens} tokens, {ctx}, {stride}");
                assert!(windows.iter().all(|w| w.end - w.begin < ctx));
            }
        }
        // One model of two has one: nothing is scored that either cannot predict.
        let windows = EvalOptions { ctx: 4, stride: 2 }.windows(9, Prefix::of(&[0, 1])).unwrap();
        assert!(windows.iter().all(|w| w.scored_from > w.begin && w.end - w.begin < 4));
        assert!(EvalOptions { ctx: 1, stride: 1 }.windows(9, Prefix::of(&[1])).is_err());
    }

    #[test]
    fn each_token_but_the_first_is_scored_once() {
        for (ctx, stride) in [(4, 2), (5, 5), (3, 1), (7, 3), (64, 32)] {
            for tokens in 2..40 {
                let windows = EvalOptions { ctx, stride }.windows(tokens, Prefix::default()).unwrap();
                let scored: Vec<usize> =
                    windows.iter().flat_map(|w| w.scored_from.max(w.begin + 1)..w.end).collect();
                // Where windows do not overlap nothing precedes the first token of each.
                let expected = (1..tokens).filter(|token| stride < ctx || token % stride != 0);
                assert_eq!(scored, expected.collect::<Vec<_>>(), "{tokens} tokens, {ctx}, {stride}");
                assert!(windows.iter().all(|w| w.end - w.begin <= ctx));
            }
        }
        assert!(EvalOptions { ctx: 4, stride: 5 }.windows(9, Prefix::default()).is_err());
        assert!(EvalOptions { ctx: 4, stride: 0 }.windows(9, Prefix::default()).is_err());
        assert!(EvalOptions { ctx: 4, stride: 4 }.windows(1, Prefix::default()).is_err());
    }
}
