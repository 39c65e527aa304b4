//! The searches behind the encoders: which scale, and which minimum, represents a group of weights
//! best.
//!
//! "Best" is the least weighted square error. A weight counts `rms + |weight|`, between the plain
//! square error and one where only large weights matter: without calibration data the activations
//! are unknown, and large weights are those whose error is seen in the output most often.
//!
//! For a given choice of codes the best scale (and minimum) is a linear least-squares solution in
//! closed form, and its error follows from a few sums. So a search tries a handful of grids, turns
//! each into codes, solves, and keeps the least error; then it alternates "codes for this scale"
//! with "scale for these codes" while that helps. Where scales are themselves stored in a few bits,
//! each sub-block tries the neighbours of its rounded scale against its own error, and the
//! super-block's scale is solved for last, when all integers are known.
//!
//! All sums run in eight fixed lanes: the compiler vectorises them and the result is the same on
//! every machine.

use super::HalfLe;

const LANES: usize = 8;

/// A row whose largest magnitude is below this is nearer to zero than to the smallest
/// half-precision scale, 2^-24.
const ZERO_BELOW: f32 = 1.0 / (1 << 25) as f32;

/// Grids tried either side of the plain one, and the distance between two of them in codes. Nine
/// either side at 0.1 with two rounds of polish is no better (relative RMSE of q4_K on normal
/// weights 0.07084 against 0.07082) and 30 % slower.
const GRIDS: i32 = 5;
const GRID_STEP: f32 = 0.2;

/// Rounds of "codes for this scale, scale for these codes" at the end of a search.
const POLISH_ROUNDS: usize = 3;

/// Adding and subtracting 1.5 * 2^23 rounds |v| < 2^22 to an integer, ties to even, without a call
/// or a branch.
const ROUNDER: f32 = 12_582_912.0;

/// A group of weights that share a scale, with what each of them counts.
struct Group<const N: usize> {
    x: [f32; N],
    weight: [f32; N],
}

/// The sums from which least squares follow. `q` are codes, `w` what a weight counts.
#[derive(Copy, Clone, Default)]
struct Sums {
    wq: f32,
    wqq: f32,
    wxq: f32,
}

impl<const N: usize> Group<N> {
    /// `src` divided by `unit`, which keeps the squares of huge and of tiny rows finite and
    /// non-zero.
    fn new(src: &[f32], unit: f32) -> Self {
        let inverse = 1.0 / unit;
        let x: [f32; N] = std::array::from_fn(|i| src[i] * inverse);
        let rms = (lane_sum::<N>(|i| x[i] * x[i]) / N as f32).sqrt();
        let weight = std::array::from_fn(|i| rms + x[i].abs());
        Self { x, weight }
    }

    /// The codes of `x / scale` rounded, then limited to `lowest..=highest`, and their sums.
    /// `inverse` is `1 / scale`, `shift` is added before rounding.
    #[inline(always)]
    fn sums(&self, inverse: f32, shift: f32, lowest: f32, highest: f32) -> Sums {
        let mut codes = [0.0; N];
        let mut weighted = [0.0; N];
        round_all(&self.x, inverse, shift, lowest, highest, &mut codes);
        multiply_all(&self.weight, &codes, &mut weighted);
        Sums { wq: dot(&self.weight, &codes), wqq: dot(&weighted, &codes), wxq: dot(&weighted, &self.x) }
    }
}

#[inline(always)]
fn lane_sum<const N: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    for at in (0..N).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(at + lane);
        }
    }
    fold(lanes)
}

#[inline(always)]
fn fold(lanes: [f32; LANES]) -> f32 {
    let half: [f32; 4] = std::array::from_fn(|i| lanes[i] + lanes[i + 4]);
    half[0] + half[1] + half[2] + half[3]
}

/// Written as comparisons since `f32::max` promises more about NaN than one instruction gives. The
/// `+ ROUNDER` makes an integer of it.
#[inline(always)]
fn round_within(v: f32, lowest: f32, highest: f32) -> f32 {
    let v = if v > lowest { v } else { lowest };
    let v = if v < highest { v } else { highest };
    (v + ROUNDER) - ROUNDER
}

// The next three are loops over slices, and not inlined, on purpose: that form is what the compiler
// vectorises. Unrolled into their caller, the compiler made branches of the limits, and packing
// q4_K ran at 80 MB/s instead of 135.

#[inline(never)]
fn round_all(x: &[f32], inverse: f32, shift: f32, lowest: f32, highest: f32, codes: &mut [f32]) {
    for (code, x) in codes.iter_mut().zip(x) {
        *code = round_within(x * inverse + shift, lowest, highest);
    }
}

#[inline(never)]
fn multiply_all(a: &[f32], b: &[f32], product: &mut [f32]) {
    for ((product, a), b) in product.iter_mut().zip(a).zip(b) {
        *product = a * b;
    }
}

#[inline(never)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    fold(lanes)
}

fn max_abs(src: &[f32]) -> f32 {
    src.iter().fold(0.0_f32, |max, value| if value.abs() > max { value.abs() } else { max })
}

/// `1 / scale`, or 0 for a scale of 0: every code is then the one nearest to zero.
fn invert(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

// ---- scale only: weight = scale * (code - zero) -------------------------------------------------

/// The scale that represents the group best with codes `-zero..zero`.
fn best_scale<const N: usize>(group: &Group<N>, zero: f32) -> f32 {
    let peak = group.x.iter().fold(0.0_f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
    if peak == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (0.0, 0.0);
    let mut consider = |inverse: f32| {
        let sums = group.sums(inverse, 0.0, -zero, zero - 1.0);
        // The square error falls from that of all zeros by this much.
        let gain = sums.wxq * sums.wxq / sums.wqq;
        if gain > best_gain {
            (best, best_gain) = (sums.wxq / sums.wqq, gain);
        }
        best
    };
    // The range has one code more below zero than above, so the peak goes there.
    let mut scale = 0.0;
    for grid in -GRIDS..=GRIDS {
        scale = consider(-(zero + GRID_STEP * grid as f32) / peak);
    }
    for _ in 0..POLISH_ROUNDS {
        scale = consider(1.0 / scale);
    }
    scale
}

/// One block of q4_0 or q5_0: its scale and its codes, 0..2 * zero.
pub(super) fn scaled_block<const N: usize>(src: &[f32], zero: f32) -> (HalfLe, [u8; N]) {
    let unit = max_abs(src);
    if unit < ZERO_BELOW {
        return (HalfLe::scale(0.0), [zero as u8; N]);
    }
    let d = HalfLe::scale(best_scale(&Group::<N>::new(src, unit), zero) * unit);
    (d, scaled_codes(src, d.to_f32(), zero))
}

fn scaled_codes<const N: usize>(src: &[f32], scale: f32, zero: f32) -> [u8; N] {
    let inverse = invert(scale);
    std::array::from_fn(|i| (round_within(src[i] * inverse, -zero, zero - 1.0) + zero) as u8)
}

/// A super-block of `N` sub-blocks whose scales are signed and of one byte or less.
pub(super) struct Scaled<const SUB: usize, const N: usize> {
    pub(super) d: HalfLe,
    pub(super) scales: [i8; N],
    pub(super) codes: [[u8; SUB]; N],
}

/// A super-block of q3_K or q6_K: codes `0..2 * zero`, scales `-scale_limit..scale_limit`.
pub(super) fn scaled_super_block<const SUB: usize, const N: usize>(
    src: &[f32],
    zero: f32,
    scale_limit: f32,
) -> Scaled<SUB, N> {
    let unit = max_abs(src);
    if unit < ZERO_BELOW {
        let codes = [[zero as u8; SUB]; N];
        return Scaled { d: HalfLe::scale(0.0), scales: [0; N], codes };
    }
    let groups: [Group<SUB>; N] = std::array::from_fn(|j| Group::new(&src[j * SUB..][..SUB], unit));
    let ideal: [f32; N] = std::array::from_fn(|j| best_scale(&groups[j], zero));
    let peak = ideal.iter().fold(0.0_f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
    // Signed integers reach one further below zero as well.
    let first = HalfLe::scale_reaching(peak / -scale_limit * unit).to_f32() / unit;
    let (mut scales, mut total) = ([0_i8; N], Sums::default());
    for (j, group) in groups.iter().enumerate() {
        let (scale, sums) = nearest_scale(group, ideal[j], first, zero, scale_limit);
        scales[j] = scale;
        total.wxq += f32::from(scale) * sums.wxq;
        total.wqq += f32::from(scale) * f32::from(scale) * sums.wqq;
    }
    let solved = if total.wqq > 0.0 { total.wxq / total.wqq } else { first };
    let d = HalfLe::scale(solved * unit);
    let codes = std::array::from_fn(|j| {
        scaled_codes(&src[j * SUB..][..SUB], d.to_f32() * f32::from(scales[j]), zero)
    });
    Scaled { d, scales, codes }
}

/// The signed integer near `ideal / d` with the least error when the group's scale is `d` times it,
/// and the sums of its codes.
fn nearest_scale<const N: usize>(
    group: &Group<N>,
    ideal: f32,
    d: f32,
    zero: f32,
    scale_limit: f32,
) -> (i8, Sums) {
    let middle = round_within(ideal * invert(d), -scale_limit, scale_limit - 1.0);
    let (mut best, mut best_gain) = ((0, Sums::default()), f32::NEG_INFINITY);
    for step in [0.0, -1.0, 1.0] {
        let candidate = middle + step;
        if !(-scale_limit..scale_limit).contains(&candidate) {
            continue;
        }
        let scale = d * candidate;
        let sums = group.sums(invert(scale), 0.0, -zero, zero - 1.0);
        let gain = scale * (2.0 * sums.wxq - scale * sums.wqq);
        if gain > best_gain {
            (best, best_gain) = ((candidate as i8, sums), gain);
        }
    }
    best
}

// ---- scale and minimum: weight = scale * code - min ---------------------------------------------

/// A super-block of `N` sub-blocks whose scales and minima are unsigned and small.
pub(super) struct Affine<const SUB: usize, const N: usize> {
    pub(super) d: HalfLe,
    pub(super) d_min: HalfLe,
    pub(super) scales: [u8; N],
    pub(super) mins: [u8; N],
    pub(super) codes: [[u8; SUB]; N],
}

/// A group with the sums that do not depend on the codes.
struct AffineGroup<const N: usize> {
    group: Group<N>,
    /// Which signs the format's minimum may have.
    min_sign: MinSign,
    w: f32,
    wx: f32,
}

#[derive(Copy, Clone, PartialEq)]
enum MinSign {
    /// `min` is not negative.
    Positive,
    Any,
}

/// What `weight = scale * code - min` is built from.
#[derive(Copy, Clone, Default)]
struct Line {
    scale: f32,
    min: f32,
}

impl<const N: usize> AffineGroup<N> {
    fn new(src: &[f32], unit: f32, min_sign: MinSign) -> Self {
        let group = Group::<N>::new(src, unit);
        let w = lane_sum::<N>(|i| group.weight[i]);
        let wx = lane_sum::<N>(|i| group.weight[i] * group.x[i]);
        Self { group, min_sign, w, wx }
    }

    fn sums(&self, line: Line, code_max: f32) -> Sums {
        let inverse = invert(line.scale);
        self.group.sums(inverse, line.min * inverse, 0.0, code_max)
    }

    /// By how much the square error is less than that of all zeros.
    fn gain(&self, sums: &Sums, line: Line) -> f32 {
        let Line { scale, min } = line;
        scale * (2.0 * sums.wxq - scale * sums.wqq)
            + min * (2.0 * scale * sums.wq - 2.0 * self.wx - min * self.w)
    }

    /// Least squares for given codes.
    fn solve(&self, sums: &Sums) -> Line {
        let determinant = self.w * sums.wqq - sums.wq * sums.wq;
        // All codes equal: the weights are as good as constant, and one of the two numbers says it.
        if determinant <= 1e-6 * self.w * sums.wqq {
            return match self.wx < 0.0 || self.min_sign == MinSign::Any {
                true => Line { scale: 0.0, min: -self.wx / self.w },
                false => Line { scale: sums.wxq * invert(sums.wqq), min: 0.0 },
            };
        }
        let min = (sums.wq * sums.wxq - sums.wqq * self.wx) / determinant;
        if min > 0.0 || self.min_sign == MinSign::Any {
            return Line { scale: (self.w * sums.wxq - self.wx * sums.wq) / determinant, min };
        }
        Line { scale: sums.wxq / sums.wqq, min: 0.0 }
    }

    /// The line that represents the group best with codes `0..=code_max`.
    fn best_line(&self, code_max: f32) -> Line {
        let x = &self.group.x;
        let start = if self.min_sign == MinSign::Any { x[0] } else { 0.0 };
        let lowest = x.iter().fold(start, |min, &v| if v < min { v } else { min });
        let highest = x.iter().fold(lowest, |max, &v| if v > max { v } else { max });
        if highest <= lowest {
            return Line { scale: 0.0, min: -lowest };
        }
        let (mut best, mut best_gain) = (Line::default(), 0.0);
        let mut consider = |line: Line| {
            let sums = self.sums(line, code_max);
            let solved = self.solve(&sums);
            let gain = self.gain(&sums, solved);
            if gain > best_gain {
                (best, best_gain) = (solved, gain);
            }
            best
        };
        let mut line = Line::default();
        for grid in -GRIDS..=GRIDS {
            let codes = code_max + GRID_STEP * grid as f32;
            line = consider(Line { scale: (highest - lowest) / codes, min: -lowest });
        }
        for _ in 0..POLISH_ROUNDS {
            line = consider(line);
        }
        line
    }
}

/// One block of q4_1 or q5_1: its scale, the weight of code 0 and its codes, `0..=code_max`.
pub(super) fn offset_block<const N: usize>(src: &[f32], code_max: f32) -> (HalfLe, HalfLe, [u8; N]) {
    let unit = max_abs(src);
    if unit < ZERO_BELOW {
        return (HalfLe::scale(0.0), HalfLe::scale(0.0), [0; N]);
    }
    let line = AffineGroup::<N>::new(src, unit, MinSign::Any).best_line(code_max);
    let (d, m) = (HalfLe::scale(line.scale * unit), HalfLe::scale(-line.min * unit));
    let (inverse, offset) = (invert(d.to_f32()), m.to_f32());
    let codes = std::array::from_fn(|i| round_within((src[i] - offset) * inverse, 0.0, code_max) as u8);
    (d, m, codes)
}

/// A super-block of q2_K, q4_K or q5_K: codes `0..=code_max`, scales and minima `0..=scale_max`.
pub(super) fn affine_super_block<const SUB: usize, const N: usize>(
    src: &[f32],
    code_max: f32,
    scale_max: f32,
) -> Affine<SUB, N> {
    let unit = max_abs(src);
    let none = HalfLe::scale(0.0);
    let mut found = Affine { d: none, d_min: none, scales: [0; N], mins: [0; N], codes: [[0; SUB]; N] };
    if unit < ZERO_BELOW {
        return found;
    }
    let groups: [AffineGroup<SUB>; N] =
        std::array::from_fn(|j| AffineGroup::new(&src[j * SUB..][..SUB], unit, MinSign::Positive));
    let ideal: [Line; N] = std::array::from_fn(|j| groups[j].best_line(code_max));
    let largest = |pick: fn(&Line) -> f32| ideal.iter().map(pick).fold(0.0, f32::max);
    let storable = |value: f32| HalfLe::scale_reaching(value / scale_max * unit).to_f32() / unit;
    let step = Line { scale: storable(largest(|l| l.scale)), min: storable(largest(|l| l.min)) };

    let mut normal = Normal::default();
    for (j, group) in groups.iter().enumerate() {
        let (scale, min, sums) = nearest_line(group, ideal[j], step, code_max, scale_max);
        (found.scales[j], found.mins[j]) = (scale as u8, min as u8);
        normal.add(group, scale, min, &sums);
    }
    let solved = normal.solve().unwrap_or(step);
    (found.d, found.d_min) = (HalfLe::scale(solved.scale * unit), HalfLe::scale(solved.min * unit));
    for (j, sub) in src.chunks_exact(SUB).enumerate() {
        let scale = found.d.to_f32() * f32::from(found.scales[j]);
        let min = found.d_min.to_f32() * f32::from(found.mins[j]);
        let inverse = invert(scale);
        found.codes[j] = std::array::from_fn(|i| round_within((sub[i] + min) * inverse, 0.0, code_max) as u8);
    }
    found
}

/// The stored scale and minimum near `ideal` with the least error, and the sums of their codes.
fn nearest_line<const N: usize>(
    group: &AffineGroup<N>,
    ideal: Line,
    step: Line,
    code_max: f32,
    scale_max: f32,
) -> (f32, f32, Sums) {
    let middle = round_within(ideal.scale * invert(step.scale), 0.0, scale_max);
    let min_inverse = invert(step.min);
    let (mut best, mut best_gain) = ((0.0, 0.0, Sums::default()), f32::NEG_INFINITY);
    for offset in [0.0, -1.0, 1.0] {
        let scale = middle + offset;
        if !(0.0..=scale_max).contains(&scale) {
            continue;
        }
        let mut min = round_within(ideal.min * min_inverse, 0.0, scale_max);
        // The minimum that suits the codes which this scale leads to, then the codes for that
        // minimum.
        for _ in 0..2 {
            let line = Line { scale: step.scale * scale, min: step.min * min };
            let sums = group.sums(line, code_max);
            let gain = group.gain(&sums, line);
            if gain > best_gain {
                (best, best_gain) = ((scale, min, sums), gain);
            }
            let suits = (line.scale * sums.wq - group.wx) / group.w;
            min = round_within(suits * min_inverse, 0.0, scale_max);
        }
    }
    best
}

/// The normal equations of a super-block's two scales, once all integers are known.
#[derive(Default)]
struct Normal {
    aa: f32,
    ab: f32,
    bb: f32,
    xa: f32,
    xb: f32,
}

impl Normal {
    fn add<const N: usize>(&mut self, group: &AffineGroup<N>, scale: f32, min: f32, sums: &Sums) {
        self.aa += scale * scale * sums.wqq;
        self.ab -= scale * min * sums.wq;
        self.bb += min * min * group.w;
        self.xa += scale * sums.wxq;
        self.xb -= min * group.wx;
    }

    /// None where the equations do not determine both, or the solution has a sign that cannot be.
    fn solve(&self) -> Option<Line> {
        if self.bb == 0.0 {
            return (self.aa > 0.0).then(|| Line { scale: self.xa / self.aa, min: 0.0 });
        }
        let determinant = self.aa * self.bb - self.ab * self.ab;
        if determinant <= 1e-6 * self.aa * self.bb {
            return None;
        }
        let scale = (self.xa * self.bb - self.xb * self.ab) / determinant;
        let min = (self.xb * self.aa - self.xa * self.ab) / determinant;
        (scale > 0.0 && min >= 0.0).then_some(Line { scale, min })
    }
}
