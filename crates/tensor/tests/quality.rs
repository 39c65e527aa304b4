//! The encoders' error, against ggml's reference quantisers on the same data.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use tensor::Format;

/// Uniform in (0, 1): splitmix64, so that any other language can make the same numbers.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0
    }

    fn gaussian(&mut self) -> f64 {
        let (radius, angle) = (self.next(), self.next());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Student's t with four degrees of freedom: tails as heavy as those of trained weights with
    /// outliers.
    fn student(&mut self) -> f64 {
        let normal = self.gaussian();
        let (u, v) = (self.next(), self.next());
        normal / (-(u * v).ln() / 2.0).sqrt()
    }
}

const WEIGHTS: usize = 1024 * 256;

fn weights(draw: fn(&mut Uniform) -> f64) -> Vec<f32> {
    let mut uniform = Uniform(1);
    (0..WEIGHTS).map(|_| (0.02 * draw(&mut uniform)) as f32).collect()
}

fn relative_rmse(format: Format, x: &[f32]) -> f64 {
    let mut bytes = vec![0; format.row_bytes(x.len()).unwrap()];
    let mut decoded = vec![0.0; x.len()];
    format.encode_row(x, &mut bytes).unwrap();
    format.decode_row(&bytes, &mut decoded).unwrap();
    let square = |v: f64| v * v;
    let error: f64 = x.iter().zip(&decoded).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let power: f64 = x.iter().map(|&a| square(f64::from(a))).sum();
    (error / power).sqrt()
}

#[test]
fn no_worse_than_ggml() {
    // Relative RMSE of ggml's quantize_row_*_ref (October 2026) on these very numbers.
    let reference = [
        (Format::Q4_0, 0.086054, 0.11564),
        (Format::Q4_1, 0.078047, 0.093470),
        (Format::Q5_1, 0.037801, 0.045227),
        (Format::Q2K, 0.296303, 0.342670),
        (Format::Q5K, 0.036074, 0.043858),
        (Format::Q5_0, 0.042644, 0.057855),
        (Format::Q8_0, 0.00535, 0.007257),
        (Format::Q3K, 0.150628, 0.183197),
        (Format::Q4K, 0.071219, 0.086658),
        (Format::Q6K, 0.017775, 0.022736),
    ];
    let (gaussian, student) = (weights(Uniform::gaussian), weights(Uniform::student));
    for (format, on_gaussian, on_student) in reference {
        for (name, x, expected) in [("gaussian", &gaussian, on_gaussian), ("student", &student, on_student)] {
            let got = relative_rmse(format, x);
            println!("{format} {name}: {got:.6}, ggml {expected:.6}, ratio {:.4}", got / expected);
            assert!(got <= 1.01 * expected, "{format} on {name}: {got}, ggml has {expected}");
        }
    }
}
