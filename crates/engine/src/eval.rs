//! Perplexity of a text: sliding windows, context and stride stated.

use crate::{Engine, EngineError};

/// How a text is cut into windows.
#[derive(Copy, Clone, Debug)]
pub struct EvalOptions {
    /// Tokens of a window.
    pub ctx: usize,
    /// Tokens that the window moves on; each is scored once, with at least `ctx - stride` tokens before it (but in the
    /// first window).
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
}

impl Engine {
    /// Perplexity of `text`, tokenised as a whole (special tokens in it are recognised).
    ///
    /// # Errors
    /// A text of fewer than two tokens, a stride of 0 or beyond the window, a failed read.
    pub fn eval(
        &mut self,
        text: &str,
        options: &EvalOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<EvalReport, EngineError> {
        let EvalOptions { ctx, stride } = *options;
        if stride == 0 || stride > ctx {
            return Err(EngineError::BadStride { stride, ctx });
        }
        let started = std::time::Instant::now();
        let tokens = self.tokenizer()?.encode(text, false)?;
        if tokens.len() < 2 {
            return Err(EngineError::TextTooShort { tokens: tokens.len() });
        }
        let mut session = self.session()?;
        let mut sums = Sums::default();
        let mut scored_to = 1; // The first token has nothing before it.
        for begin in (0..tokens.len()).step_by(stride) {
            let window = &tokens[begin..tokens.len().min(begin + ctx)];
            self.logits_all(&mut session, window, &mut |row, logits| {
                let next = begin + row + 1;
                if next >= scored_to && next < tokens.len() && row + 1 < window.len() {
                    sums.add(nll(logits, tokens[next] as usize));
                }
            })?;
            scored_to = begin + window.len();
            progress(scored_to, tokens.len());
            if scored_to == tokens.len() {
                break;
            }
        }
        Ok(sums.report(options, text.len(), started.elapsed().as_secs_f64()))
    }
}

/// Negative log-likelihood of `target`, nats: log-sum-exp in f64.
fn nll(logits: &[f32], target: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    sum.ln() - f64::from(logits[target] - max)
}

#[derive(Default)]
struct Sums {
    count: usize,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, nll: f64) {
        self.count += 1;
        self.sum += nll;
        self.squares += nll * nll;
    }

    fn report(&self, options: &EvalOptions, text_bytes: usize, seconds: f64) -> EvalReport {
        let count = self.count as f64;
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        EvalReport {
            perplexity: mean.exp(),
            nll_nats: mean,
            nll_error_nats: (variance / count).sqrt(),
            bits_per_byte: self.sum / std::f64::consts::LN_2 / text_bytes as f64,
            tokens: self.count,
            ctx: options.ctx,
            stride: options.stride,
            tokens_per_s: count / seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nll_is_minus_log_softmax() {
        let logits = [1.0f32, 2.0, 3.0];
        let expected = -(3f64.exp() / (1f64.exp() + 2f64.exp() + 3f64.exp())).ln();
        assert!((nll(&logits, 2) - expected).abs() < 1e-12);
        assert!((nll(&[0.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
    }
}
