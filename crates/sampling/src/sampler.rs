//! The sampler: one row of logits in, one token id out.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::scan;
use crate::select::{self, Candidate, best_first};
use crate::{Rng, SamplingError, SamplingParams};

/// How many of the best tokens top-p looks at first when there is no top-k. Real distributions
/// rarely need more; if the mass is not reached, [`NUCLEUS_GROWTH`] times as many are tried.
const NUCLEUS_FIRST: usize = 256;
/// Factor between two attempts of top-p; with it a vocabulary of 248,320 needs at most five.
const NUCLEUS_GROWTH: usize = 8;

/// Chooses tokens with one set of parameters and one stream of random numbers.
///
/// The sequence of choices is a function of the seed, the logits and the histories. Exactly one
/// random number is used per token that is drawn, none per greedy token. Its scratch memory grows
/// to a few numbers per vocabulary entry during the first call that needs it and then stays.
///
/// ```
/// use sampling::{Sampler, SamplingParams};
///
/// let mut greedy = Sampler::new(SamplingParams::greedy())?;
/// assert_eq!(greedy.sample(&[0.5, 2.0, 2.0], &[])?, 1); // the lower id of two equals
/// # Ok::<(), sampling::SamplingError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    rng: Rng,
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
    /// How often each token was seen; all zero between calls. Empty until penalties are used.
    counts: Vec<u32>,
    /// The tokens whose count is not zero.
    touched: Vec<u32>,
    /// The logits after the penalties, which leave the caller's as they are.
    penalised: Vec<f32>,
}

impl Sampler {
    /// A sampler with checked parameters.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] as [`SamplingParams::validate`].
    pub fn new(params: SamplingParams) -> Result<Self, SamplingError> {
        params.validate()?;
        let seed = params.seed.unwrap_or_else(random_seed);
        Ok(Self {
            params,
            seed,
            rng: Rng::from_seed(seed),
            candidates: Vec::new(),
            weights: Vec::new(),
            counts: Vec::new(),
            touched: Vec::new(),
            penalised: Vec::new(),
        })
    }

    /// The parameters it was made with.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// The seed in use: the one given or, without one, the one drawn. Report it, and the run can
    /// be repeated.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Chooses the next token after `history`; all penalties look at all of `history`.
    ///
    /// `logits` has one entry per vocabulary entry and stays as it is. -inf marks a token that must
    /// not be chosen. Without penalties `history` is not read.
    ///
    /// # Errors
    /// * [`SamplingError::NoLogits`], [`SamplingError::BadLogit`] for NaN or +inf,
    ///   [`SamplingError::AllMasked`].
    /// * [`SamplingError::HistoryToken`] for an id outside `logits`, when penalties are on.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SamplingError> {
        self.sample_after(logits, &[], history)
    }

    /// Like [`Self::sample`], with the history in two parts: the repetition penalty looks at both,
    /// the presence and frequency penalties only at what was generated. That is what the OpenAI
    /// API and vLLM mean by these names, so a long prompt does not silence its own words.
    ///
    /// # Errors
    /// As [`Self::sample`].
    pub fn sample_after(
        &mut self,
        logits: &[f32],
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<u32, SamplingError> {
        if !self.params.has_penalties() {
            return self.choose(logits);
        }
        self.penalised(logits, prompt, generated)?;
        let penalised = std::mem::take(&mut self.penalised);
        let chosen = self.choose(&penalised);
        self.penalised = penalised;
        chosen
    }

    /// The logits after the penalties, as [`Self::sample_after`] chooses from them.
    ///
    /// # Errors
    /// [`SamplingError::HistoryToken`] for an id outside `logits`.
    pub fn penalised(
        &mut self,
        logits: &[f32],
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<&[f32], SamplingError> {
        let mut penalised = std::mem::take(&mut self.penalised);
        penalised.clear();
        penalised.extend_from_slice(logits);
        let result = self.penalise(&mut penalised, prompt, generated);
        self.penalised = penalised;
        result.map(|()| &self.penalised[..])
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let (token, max) = argmax(logits)?;
        if self.params.is_greedy() {
            return Ok(token);
        }
        self.keep_candidates(logits, max);
        Ok(self.draw())
    }

    /// Applies the three penalties to the logits of the tokens seen.
    fn penalise(
        &mut self,
        logits: &mut [f32],
        prompt: &[u32],
        generated: &[u32],
    ) -> Result<(), SamplingError> {
        /// Count of a token that is in the prompt but was not generated.
        const PROMPT_ONLY: u32 = u32::MAX;
        let vocab_size = logits.len();
        let history = prompt.iter().chain(generated).copied();
        if let Some((position, token)) = history.enumerate().find(|&(_, token)| token as usize >= vocab_size)
        {
            return Err(SamplingError::HistoryToken { token, position, vocab_size });
        }
        if self.counts.len() < vocab_size {
            self.counts.resize(vocab_size, 0);
        }
        for &token in generated {
            let count = &mut self.counts[token as usize];
            if *count == 0 {
                self.touched.push(token);
            }
            *count = (*count + 1).min(PROMPT_ONLY - 1);
        }
        if self.params.repetition_penalty != 1.0 {
            for &token in prompt {
                let count = &mut self.counts[token as usize];
                if *count == 0 {
                    self.touched.push(token);
                    *count = PROMPT_ONLY;
                }
            }
        }
        let params = &self.params;
        for token in self.touched.drain(..) {
            let count = std::mem::take(&mut self.counts[token as usize]);
            let logit = &mut logits[token as usize];
            let factor = params.repetition_penalty;
            *logit = if *logit > 0.0 { *logit / factor } else { *logit * factor };
            if count != PROMPT_ONLY {
                *logit -= params.presence_penalty + params.frequency_penalty * count as f32;
            }
        }
        Ok(())
    }

    /// Fills `candidates` with the tokens that pass the filters and `weights` with their
    /// unnormalised probabilities, exp((logit - max) / temperature).
    fn keep_candidates(&mut self, logits: &[f32], max: f32) {
        let SamplingParams { temperature, top_k, top_p, min_p, .. } = self.params;
        let temperature = f64::from(temperature);
        let weight = |c: &Candidate| ((f64::from(c.logit) - f64::from(max)) / temperature).exp();
        let (kept, weights) = (&mut self.candidates, &mut self.weights);
        if top_k > 0 && (top_k as usize) < logits.len() {
            select::best(logits, top_k as usize, kept);
            fill(weights, kept, weight);
            if top_p < 1.0 {
                let mass = f64::from(top_p) * weights.iter().sum::<f64>();
                truncate_to_mass(kept, weights, mass);
            }
        } else if top_p < 1.0 {
            keep_nucleus(logits, f64::from(top_p), weight, kept, weights);
        } else {
            // A little below the exact floor: the comparison of weights below decides.
            let floor = f64::from(max) + f64::from(min_p).ln() * temperature;
            select::at_least(logits, (floor - 1e-3 * floor.abs().max(1.0)) as f32, kept);
            fill(weights, kept, weight);
        }
        if min_p > 0.0 {
            // The best token's weight is exp(0) = 1, whatever was cut off before.
            keep_weights_at_least(kept, weights, f64::from(min_p));
        }
        debug_assert!(!kept.is_empty() && kept.len() == weights.len());
    }

    /// Draws one of the candidates in proportion to the weights.
    fn draw(&mut self) -> u32 {
        let total: f64 = self.weights.iter().sum();
        let mut left = self.rng.next_unit() * total;
        let mut last = 0;
        for (candidate, &weight) in self.candidates.iter().zip(&self.weights) {
            if weight > 0.0 {
                last = candidate.token;
                if left < weight {
                    break;
                }
            }
            left -= weight;
        }
        // Rounding may leave a rest after the last one; it belongs to the last possible token.
        last
    }
}

/// The first token with the highest logit, and that logit. Checks every logit on the way.
fn argmax(logits: &[f32]) -> Result<(u32, f32), SamplingError> {
    let vocab_size = logits.len();
    let (mut first, mut max) = (0, f32::NEG_INFINITY);
    for (index, chunk) in logits.chunks(scan::CHUNK).enumerate() {
        let highest = scan::highest(chunk);
        if highest == f32::INFINITY || scan::any_nan(chunk) {
            let bad = chunk.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY).unwrap_or(0);
            let token = index * scan::CHUNK + bad;
            return Err(SamplingError::BadLogit { token, value: logits[token], vocab_size });
        }
        if highest > max {
            (first, max) = (index * scan::CHUNK, highest);
        }
    }
    let token = first + logits[first..].iter().position(|&logit| logit == max).unwrap_or(0);
    if vocab_size == 0 {
        return Err(SamplingError::NoLogits);
    }
    if max == f32::NEG_INFINITY {
        return Err(SamplingError::AllMasked { vocab_size });
    }
    Ok((token as u32, max))
}

/// Top-p over the whole vocabulary: the best tokens until their mass is `top_p` of the total.
fn keep_nucleus(
    logits: &[f32],
    top_p: f64,
    weight: impl Fn(&Candidate) -> f64,
    kept: &mut Vec<Candidate>,
    weights: &mut Vec<f64>,
) {
    let total: f64 = logits.iter().map(|&logit| weight(&Candidate { token: 0, logit })).sum();
    let mass = top_p * total;
    let mut count = NUCLEUS_FIRST;
    loop {
        select::best(logits, count, kept);
        fill(weights, kept, &weight);
        if weights.iter().sum::<f64>() >= mass || count >= logits.len() {
            break;
        }
        count = count.saturating_mul(NUCLEUS_GROWTH);
    }
    truncate_to_mass(kept, weights, mass);
}

/// Keeps each candidate, best first, while the mass before it is below `mass`; always the first.
fn truncate_to_mass(kept: &mut Vec<Candidate>, weights: &mut Vec<f64>, mass: f64) {
    debug_assert!(kept.is_sorted_by(|a, b| best_first(a, b).is_lt()));
    let mut before = 0.0;
    let count = weights.iter().take_while(|&&weight| {
        let keep = before < mass;
        before += weight;
        keep
    });
    let count = count.count().max(1);
    kept.truncate(count);
    weights.truncate(count);
}

/// Drops the candidates whose weight is below `floor`, in both lists alike.
fn keep_weights_at_least(kept: &mut Vec<Candidate>, weights: &mut Vec<f64>, floor: f64) {
    let mut position = 0;
    kept.retain(|_| {
        position += 1;
        weights[position - 1] >= floor
    });
    weights.retain(|&weight| weight >= floor);
}

fn fill(weights: &mut Vec<f64>, kept: &[Candidate], weight: impl Fn(&Candidate) -> f64) {
    weights.clear();
    weights.extend(kept.iter().map(weight));
}

/// A seed nobody chose: the standard library's per-process random keys, from the system.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
