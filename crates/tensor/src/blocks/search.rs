//! The searches behind the encoders (first version: without a search).

use super::HalfLe;

pub(super) struct Affine<const SUB: usize, const N: usize> {
    pub(super) d: HalfLe,
    pub(super) d_min: HalfLe,
    pub(super) scales: [u8; N],
    pub(super) mins: [u8; N],
    pub(super) codes: [[u8; SUB]; N],
}

pub(super) struct Scaled<const SUB: usize, const N: usize> {
    pub(super) d: HalfLe,
    pub(super) scales: [i8; N],
    pub(super) codes: [[u8; SUB]; N],
}

fn max_abs(src: &[f32]) -> f32 {
    src.iter().fold(0.0_f32, |max, value| max.max(value.abs()))
}

fn code(value: f32, scale: f32, zero: f32, max: f32) -> u8 {
    if scale == 0.0 {
        return zero as u8;
    }
    (value / scale + zero).round().clamp(0.0, max) as u8
}

pub(super) fn scaled_block<const N: usize>(src: &[f32], zero: f32) -> (HalfLe, [u8; N]) {
    let d = HalfLe::saturated(max_abs(src) / (zero - 1.0));
    (
        d,
        std::array::from_fn(|i| code(src[i], d.to_f32(), zero, 2.0 * zero - 1.0)),
    )
}

pub(super) fn scaled_super_block<const SUB: usize, const N: usize>(
    src: &[f32],
    zero: f32,
) -> Scaled<SUB, N> {
    let d = HalfLe::saturated(max_abs(src) / (zero - 1.0) / 127.0);
    let mut found = Scaled {
        d,
        scales: [0; N],
        codes: [[0; SUB]; N],
    };
    for (j, sub) in src.chunks_exact(SUB).enumerate() {
        if d.to_f32() > 0.0 {
            found.scales[j] = (max_abs(sub) / (zero - 1.0) / d.to_f32()).ceil().min(127.0) as i8;
        }
        let scale = d.to_f32() * f32::from(found.scales[j]);
        found.codes[j] = std::array::from_fn(|i| code(sub[i], scale, zero, 2.0 * zero - 1.0));
    }
    found
}

pub(super) fn affine_super_block<const SUB: usize, const N: usize>(
    src: &[f32],
    code_max: f32,
    scale_max: f32,
) -> Affine<SUB, N> {
    let min = |sub: &[f32]| -sub.iter().fold(0.0_f32, |min, &value| min.min(value));
    let range = |sub: &[f32]| min(sub) + sub.iter().fold(0.0_f32, |max, &value| max.max(value));
    let largest = src.chunks_exact(SUB).map(range).fold(0.0, f32::max);
    let d = HalfLe::saturated(largest / code_max / scale_max);
    let d_min = HalfLe::saturated(src.chunks_exact(SUB).map(min).fold(0.0, f32::max) / scale_max);
    let mut found = Affine {
        d,
        d_min,
        scales: [0; N],
        mins: [0; N],
        codes: [[0; SUB]; N],
    };
    for (j, sub) in src.chunks_exact(SUB).enumerate() {
        found.scales[j] = code(range(sub) / code_max, d.to_f32(), 0.0, scale_max);
        found.mins[j] = code(min(sub), d_min.to_f32(), 0.0, scale_max);
        let scale = d.to_f32() * f32::from(found.scales[j]);
        let min = d_min.to_f32() * f32::from(found.mins[j]);
        found.codes[j] = std::array::from_fn(|i| code(sub[i] + min, scale, 0.0, code_max));
    }
    found
}
