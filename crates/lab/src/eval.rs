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
    /// Tokens scored: all but the first.
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

impl EvalOptions {
    /// The windows of a text of so many tokens. Each token but the first is scored in one of them.
    ///
    /// # Errors
    /// A text of fewer than two tokens, a stride of 0 or beyond the window.
    pub(crate) fn windows(&self, tokens: usize) -> Result<Vec<Window>, LabError> {
        let EvalOptions { ctx, stride } = *self;
        if stride == 0 || stride > ctx {
            return Err(LabError::BadStride { stride, ctx });
        }
        if tokens < 2 {
            return Err(LabError::TextTooShort { tokens });
        }
        let mut windows = Vec::new();
        let mut scored_from = 1; // The first token has nothing before it.
        for begin in (0..tokens).step_by(stride) {
            let end = tokens.min(begin + ctx);
            windows.push(Window { begin, end, scored_from });
            scored_from = end;
            if end == tokens {
                break;
            }
        }
        Ok(windows)
    }
}

/// Perplexity of `text`, tokenised as a whole (special tokens in it are recognised).
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
    let windows = options.windows(tokens.len())?;
    let mut sums = Sums::default();
    for window in &windows {
        score(engine, &tokens, window, &mut |token, logits| {
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
pub(crate) fn score(
    engine: &Engine,
    tokens: &[u32],
    window: &Window,
    sink: &mut dyn FnMut(u32, &[f32]),
) -> Result<(), LabError> {
    let Window { begin, end, scored_from } = *window;
    let request = Request { logits: Logits::All, max_tokens: 0, ..engine.request(&tokens[begin..end]) };
    for event in engine.submit(request)? {
        if let Event::Logits { position, logits } = event? {
            let next = begin + position + 1;
            if (scored_from..end).contains(&next) {
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
    fn each_token_but_the_first_is_scored_once() {
        for (ctx, stride) in [(4, 2), (5, 5), (3, 1), (7, 3), (64, 32)] {
            for tokens in 2..40 {
                let windows = EvalOptions { ctx, stride }.windows(tokens).unwrap();
                let scored: Vec<usize> =
                    windows.iter().flat_map(|w| w.scored_from.max(w.begin + 1)..w.end).collect();
                // Where windows do not overlap nothing precedes the first token of each.
                let expected = (1..tokens).filter(|token| stride < ctx || token % stride != 0);
                assert_eq!(scored, expected.collect::<Vec<_>>(), "{tokens} tokens, {ctx}, {stride}");
                assert!(windows.iter().all(|w| w.end - w.begin <= ctx));
            }
        }
        assert!(EvalOptions { ctx: 4, stride: 5 }.windows(9).is_err());
        assert!(EvalOptions { ctx: 4, stride: 0 }.windows(9).is_err());
        assert!(EvalOptions { ctx: 4, stride: 4 }.windows(1).is_err());
    }
}
