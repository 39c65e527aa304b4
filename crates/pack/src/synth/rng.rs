//! Random numbers that are the same on every machine: no mathematical library is involved.

use storage::SplitMix64;

/// A generator of weights.
#[derive(Clone, Debug)]
pub struct Rng(SplitMix64);

impl Rng {
    /// A generator for one purpose: each word makes the streams independent.
    pub fn new(words: &[u64]) -> Rng {
        let seed = words.iter().fold(0x51ab_1e5e_ed00_0001, |state, &word| {
            SplitMix64::mix(state ^ SplitMix64::new(word).next_u64())
        });
        Rng(SplitMix64::new(seed))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        // The upper half of the product; below n, so it fits.
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Mean 0, variance 1, bell-shaped: a sum of eight uniform numbers (Irwin–Hall), at most 4.9 in
    /// magnitude.
    pub fn normal(&mut self) -> f32 {
        let sum = |bits: u64| (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        let sum = sum(self.bits()) + sum(self.bits());
        // Eight uniform numbers of 0..=65535: mean 4 * 65535, variance 8 * 2^32 / 12.
        (sum as f32 - 262_140.0) * (1.0 / 53_509.4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut rng = Rng::new(&[1, 2]);
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|_| f64::from(rng.normal())).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!((0..1000).all(|_| rng.below(7) < 7 && rng.uniform() < 1.0));
        assert_ne!(Rng::new(&[1, 2]).bits(), Rng::new(&[2, 1]).bits());
    }
}
