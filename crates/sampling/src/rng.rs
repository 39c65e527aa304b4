//! The pseudo-random number generator: xoshiro256++ seeded by SplitMix64.
//!
//! Both follow the published algorithms (D. Blackman and S. Vigna, "Scrambled linear pseudorandom
//! number generators", 2021; G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number
//! generators", 2014). It is written out here, and not taken from a crate, so that a seed gives the
//! same text in every version of the program: crates reserve the right to change their generators.

/// A small, fast, seedable generator. Not for cryptography.
///
/// ```
/// let mut a = sampling::Rng::from_seed(7);
/// let mut b = sampling::Rng::from_seed(7);
/// assert_eq!(a.next_u64(), b.next_u64());
/// assert!((0.0..1.0).contains(&a.next_unit()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose whole sequence is determined by `seed`.
    pub fn from_seed(seed: u64) -> Self {
        let mut x = seed;
        // SplitMix64 never yields four zeros in a row, the one state xoshiro cannot leave.
        let state = std::array::from_fn(|_| split_mix(&mut x));
        Self { state }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number in [0, 1), uniform over the multiples of 2^-53.
    pub fn next_unit(&mut self) -> f64 {
        const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
        (self.next_u64() >> 11) as f64 * SCALE
    }
}

/// One step of SplitMix64.
fn split_mix(x: &mut u64) -> u64 {
    *x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *x;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outputs published for the reference implementations.
    #[test]
    fn known_answers() {
        let mut x = 1_234_567;
        let split: Vec<u64> = (0..3).map(|_| split_mix(&mut x)).collect();
        assert_eq!(split, [6457827717110365317, 3203168211198807973, 9817491932198370423]);

        let mut rng = Rng { state: [1, 2, 3, 4] };
        let got: Vec<u64> = (0..6).map(|_| rng.next_u64()).collect();
        let expected = [
            41943041,
            58720359,
            3588806011781223,
            3591011842654386,
            9228616714210784205,
            9973669472204895162,
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn unit_is_uniform() {
        let mut rng = Rng::from_seed(1);
        let mut bins = [0u32; 16];
        for _ in 0..160_000 {
            bins[(rng.next_unit() * 16.0) as usize] += 1;
        }
        // 15 degrees of freedom: 44.3 is exceeded once in 10,000.
        let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 44.3, "chi-square {chi}");
    }
}
