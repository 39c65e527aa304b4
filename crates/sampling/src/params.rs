//! How to choose: the parameters and their ranges.

use crate::SamplingError;

/// How the next token is chosen from the logits.
///
/// The default is greedy with every filter and penalty off: the only choice that needs no
/// randomness. A model's own defaults come from [`crate::GenerationDefaults`].
///
/// ```
/// use sampling::SamplingParams;
///
/// let params = SamplingParams::default().with_temperature(1.0).with_min_p(0.05);
/// assert!(params.validate().is_ok());
/// let error = params.with_top_p(1.5).validate().unwrap_err();
/// assert!(error.to_string().contains("top_p is 1.5"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 means greedy (the filters are then irrelevant, penalties still count).
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 = off.
    pub top_k: u32,
    /// Keep the most likely tokens up to this probability mass, in [0, 1]; 1 = off, 0 = the best.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the best one, in [0, 1]; 0 = off.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens seen so far, > 0; 1 = off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of each token seen so far; 0 = off, negative encourages.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time it was seen; 0 = off.
    pub frequency_penalty: f32,
    /// The seed; `None` draws one at random, which [`crate::Sampler::seed`] tells.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self::greedy()
    }
}

impl SamplingParams {
    /// Largest temperature accepted: beyond it every token is equally likely in practice, so a
    /// larger number is a mistake (a percentage, say).
    pub const TEMPERATURE_MAX: f32 = 100.0;
    /// Largest penalty accepted (magnitude, for the additive ones).
    pub const PENALTY_MAX: f32 = 100.0;
    /// Smallest repetition penalty accepted; the largest is [`Self::PENALTY_MAX`].
    pub const REPETITION_PENALTY_MIN: f32 = 0.01;

    /// Always the most likely token, no filter, no penalty.
    pub const fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
        }
    }

    /// What engines of the field use for models that say nothing: temperature 0.8, top-k 40, top-p
    /// 0.95, min-p 0.05.
    pub const fn usual() -> Self {
        Self { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, ..Self::greedy() }
    }

    /// Whether the most likely token is always chosen.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Whether any penalty changes the logits.
    pub fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Sets the temperature; 0 means greedy.
    pub fn with_temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets top-k; 0 turns it off.
    pub fn with_top_k(mut self, top_k: u32) -> Self {
        self.top_k = top_k;
        self
    }

    /// Sets top-p; 1 turns it off.
    pub fn with_top_p(mut self, top_p: f32) -> Self {
        self.top_p = top_p;
        self
    }

    /// Sets min-p; 0 turns it off.
    pub fn with_min_p(mut self, min_p: f32) -> Self {
        self.min_p = min_p;
        self
    }

    /// Sets the repetition penalty; 1 turns it off.
    pub fn with_repetition_penalty(mut self, penalty: f32) -> Self {
        self.repetition_penalty = penalty;
        self
    }

    /// Sets the presence penalty; 0 turns it off.
    pub fn with_presence_penalty(mut self, penalty: f32) -> Self {
        self.presence_penalty = penalty;
        self
    }

    /// Sets the frequency penalty; 0 turns it off.
    pub fn with_frequency_penalty(mut self, penalty: f32) -> Self {
        self.frequency_penalty = penalty;
        self
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks every parameter's range.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] names the first one outside its range, the range, and what to
    /// do.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let penalties = -Self::PENALTY_MAX..=Self::PENALTY_MAX;
        let repetition = Self::REPETITION_PENALTY_MIN..=Self::PENALTY_MAX;
        // (name, value, range, range in words, what to do); NaN is in no range.
        let checks = [
            (
                "temperature",
                self.temperature,
                0.0..=Self::TEMPERATURE_MAX,
                "0 to 100",
                "0 is greedy, 0.6 to 1 is usual",
            ),
            ("top_p", self.top_p, 0.0..=1.0, "0 to 1", "1 turns it off, 0.8 to 0.95 is usual"),
            ("min_p", self.min_p, 0.0..=1.0, "0 to 1", "0 turns it off, 0.05 is usual"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                repetition,
                "0.01 to 100",
                "1 turns it off, 1.05 to 1.2 is usual",
            ),
            (
                "presence_penalty",
                self.presence_penalty,
                penalties.clone(),
                "-100 to 100",
                "0 turns it off, 0 to 2 is usual",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                penalties,
                "-100 to 100",
                "0 turns it off, 0 to 2 is usual",
            ),
        ];
        for (name, got, range, expected, hint) in checks {
            if !range.contains(&got) {
                return Err(SamplingError::Parameter { name, got, expected, hint });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_greedy_and_valid() {
        let params = SamplingParams::default();
        assert!(params.is_greedy() && !params.has_penalties());
        assert!(params.validate().is_ok());
    }

    #[test]
    fn ranges_are_checked() {
        let ok = SamplingParams::default();
        let bad = [
            ok.with_temperature(-0.1),
            ok.with_temperature(f32::NAN),
            ok.with_temperature(f32::INFINITY),
            ok.with_top_p(-0.01),
            ok.with_top_p(1.01),
            ok.with_top_p(f32::NAN),
            ok.with_min_p(2.0),
            ok.with_repetition_penalty(0.0),
            ok.with_repetition_penalty(-1.0),
            ok.with_presence_penalty(f32::NAN),
            ok.with_frequency_penalty(1e9),
        ];
        for params in bad {
            let message = params.validate().unwrap_err().to_string();
            assert!(message.contains("expected") && !message.ends_with('.'), "{message}");
            assert!(!message.contains('\n'));
        }
        for params in [ok.with_top_p(0.0), ok.with_min_p(1.0), ok.with_presence_penalty(-2.0)] {
            assert!(params.validate().is_ok());
        }
    }
}
