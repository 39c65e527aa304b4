//! Random numbers for faults, tests, measurements and synthetic weights.

/// Step of the counter.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A small generator of random numbers (SplitMix64: Steele, Lea and Flood 2014): the same for the
/// same seed everywhere and always. For tests and measurements.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        SplitMix64 { state: seed }
    }

    /// The next number, uniform over all of u64.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        Self::mix(self.state)
    }

    /// The generator's mixing function: bits that look random, another for each input.
    pub fn mix(mut bits: u64) -> u64 {
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below `limit` (0 if that is 0). The bias is below limit / 2^64.
    pub fn below(&mut self, limit: u64) -> u64 {
        let wide = u128::from(self.next_u64()) * u128::from(limit);
        (wide >> 64) as u64 // Less than limit.
    }
}
