//! Routing: from a router's logits to each token's experts and their weights, and to the tokens of
//! each expert.
//!
//! The choice runs on the host and in a fixed order, so the same logits give the same experts and
//! weights whatever else is in the batch. A row whose logits are not finite is reported and gets no
//! experts; other rows are not touched by it.

use crate::spec::{GroupRank, Groups, RouterSpec, Score};

/// Stands in [`Routing::chosen`] for the experts of a row that has none.
pub const NO_EXPERT: u32 = u32::MAX;

/// Added to the sum of weights before they are divided by it: scores that all underflowed give
/// zeros, not NaN.
const SUM_EPSILON: f32 = 1e-20;

/// How one layer chooses experts: the rule and the vectors that belong to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    spec: RouterSpec,
    experts: usize,
    per_token: usize,
    bias: Option<Vec<f32>>,       // [E], added to the logits
    correction: Option<Vec<f32>>, // [E], added to the scores that are ranked, never to weights
}

impl Router {
    /// A router of `experts` experts, of which each token gets `per_token`, without bias and
    /// correction.
    pub fn new(spec: RouterSpec, experts: usize, per_token: usize) -> Self {
        assert!((1..=experts).contains(&per_token), "the specification was checked");
        Self { spec, experts, per_token, bias: None, correction: None }
    }

    /// Adds the vectors that [`RouterSpec::bias`] and [`RouterSpec::correction`] announce, `[E]`
    /// each.
    pub fn with_vectors(mut self, bias: Option<Vec<f32>>, correction: Option<Vec<f32>>) -> Self {
        let fits = |vector: &Option<Vec<f32>>| vector.as_ref().is_none_or(|v| v.len() == self.experts);
        assert!(fits(&bias) && fits(&correction), "shapes are checked when a checkpoint is opened");
        (self.bias, self.correction) = (bias, correction);
        self
    }

    /// The score that is computed: softmax over all experts, renormalised over the chosen, is
    /// softmax over those alone.
    fn score(&self) -> Score {
        let RouterSpec { score, renormalise, groups, .. } = self.spec;
        match score {
            Score::Softmax if renormalise && groups.is_none() && self.correction.is_none() => {
                Score::SoftmaxOfChosen
            }
            other => other,
        }
    }

    /// Experts of the layer, E.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Experts of each token, K.
    pub fn per_token(&self) -> usize {
        self.per_token
    }
}

/// Which experts a batch's tokens chose, by token and by expert.
pub struct Routing {
    k: usize,
    weights: Vec<f32>,    // [n, K] in router order
    chosen: Vec<u32>,     // [n, K] in router order
    used: Vec<u32>,       // experts chosen by any token, ascending
    starts: Vec<u32>,     // [E + 1] prefix sums into x_rows and out_rows
    x_rows: Vec<u32>,     // token rows, grouped by expert
    out_rows: Vec<u32>,   // token * K + rank, grouped by expert
    not_finite: Vec<u32>, // rows without experts
    choice: Choice,
}

/// Scratch of the choice for one token.
struct Choice {
    logits: Vec<f32>, // [E], bias added
    scores: Vec<f32>, // [E]
    keys: Vec<f32>,   // [E], ranked: scores and correction
    order: Vec<u32>,  // [E]
    groups: Vec<u32>, // [groups]
    group_keys: Vec<f32>,
}

impl Routing {
    /// Room for `n` tokens with `k` experts each, of layers with up to `experts` experts. `route`
    /// allocates nothing.
    pub fn new(experts: usize, k: usize, n: usize) -> Self {
        Self {
            k,
            weights: Vec::with_capacity(n * k),
            chosen: Vec::with_capacity(n * k),
            used: Vec::with_capacity(experts),
            starts: vec![0; experts + 1],
            x_rows: Vec::with_capacity(n * k),
            out_rows: Vec::with_capacity(n * k),
            not_finite: Vec::with_capacity(n),
            choice: Choice::new(experts),
        }
    }

    /// Bytes that the vectors take.
    pub(super) fn bytes(&self) -> u64 {
        let Choice { logits, scores, keys, order, groups, group_keys } = &self.choice;
        let floats = [&self.weights, logits, scores, keys, group_keys].map(Vec::capacity);
        let lists = [&self.chosen, &self.used, &self.starts, &self.x_rows, &self.out_rows, &self.not_finite];
        let ids = lists.iter().copied().chain([order, groups]).map(Vec::capacity).sum::<usize>();
        (size_of::<f32>() * floats.iter().sum::<usize>() + size_of::<u32>() * ids) as u64
    }

    /// Routes every row of `logits` [n, E] and returns the rows that are not finite, ascending.
    /// Those have [`NO_EXPERT`] for each choice, with weight 0, and belong to no expert.
    pub fn route(&mut self, router: &Router, logits: &[f32]) -> &[u32] {
        self.k = router.per_token;
        self.weights.clear();
        self.chosen.clear();
        self.not_finite.clear();
        for (row, logits) in logits.chunks_exact(router.experts).enumerate() {
            if !self.choice.route_token(router, logits, &mut self.chosen, &mut self.weights) {
                self.not_finite.push(row as u32);
                self.chosen.extend(std::iter::repeat_n(NO_EXPERT, self.k));
                self.weights.extend(std::iter::repeat_n(0.0, self.k));
            }
        }
        self.group(router.experts);
        &self.not_finite
    }

    /// Experts of each token, K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Weights of the chosen experts, [n, K] in router order.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Chosen experts, [n, K] in router order; [`NO_EXPERT`] in rows that are not finite.
    pub fn chosen(&self) -> &[u32] {
        &self.chosen
    }

    /// Experts that any token chose, ascending.
    pub fn used(&self) -> &[u32] {
        &self.used
    }

    /// Rows that are not finite, ascending.
    pub fn not_finite(&self) -> &[u32] {
        &self.not_finite
    }

    /// Tokens that chose `expert`.
    pub fn tokens(&self, expert: u32) -> u32 {
        self.starts[expert as usize + 1] - self.starts[expert as usize]
    }

    /// Token rows of one expert, ascending, and their output rows (token * K + rank).
    pub fn rows(&self, expert: u32) -> (&[u32], &[u32]) {
        let range = self.starts[expert as usize] as usize..self.starts[expert as usize + 1] as usize;
        (&self.x_rows[range.clone()], &self.out_rows[range])
    }

    /// Counting sort of (token, rank) pairs by expert; within an expert, tokens ascend.
    fn group(&mut self, experts: usize) {
        self.starts.clear();
        self.starts.resize(experts + 1, 0);
        let placed = || self.chosen.iter().enumerate().filter(|(_, expert)| **expert != NO_EXPERT);
        let count = placed().count();
        for (_, expert) in placed() {
            self.starts[*expert as usize + 1] += 1;
        }
        self.used.clear();
        self.used.extend((0..experts as u32).filter(|expert| self.starts[*expert as usize + 1] > 0));
        for expert in 0..experts {
            self.starts[expert + 1] += self.starts[expert];
        }
        self.x_rows.clear();
        self.x_rows.resize(count, 0);
        self.out_rows.clear();
        self.out_rows.resize(count, 0);
        for (slot, expert) in placed() {
            let at = &mut self.starts[*expert as usize];
            self.x_rows[*at as usize] = (slot / self.k) as u32;
            self.out_rows[*at as usize] = slot as u32;
            *at += 1;
        }
        // Filling moved each start to its end, which is the next expert's start: shift back by one.
        self.starts.rotate_right(1);
        self.starts[0] = 0;
    }
}

impl Choice {
    fn new(experts: usize) -> Self {
        let floats = || Vec::with_capacity(experts);
        Self {
            logits: floats(),
            scores: floats(),
            keys: floats(),
            order: Vec::with_capacity(experts),
            groups: Vec::with_capacity(experts),
            group_keys: floats(),
        }
    }

    /// Appends one token's experts and weights. False, and nothing appended, if a value is not
    /// finite.
    fn route_token(
        &mut self,
        router: &Router,
        logits: &[f32],
        chosen: &mut Vec<u32>,
        weights: &mut Vec<f32>,
    ) -> bool {
        self.logits.clear();
        match &router.bias {
            Some(bias) => self.logits.extend(logits.iter().zip(bias).map(|(logit, bias)| logit + bias)),
            None => self.logits.extend_from_slice(logits),
        }
        if self.logits.iter().any(|logit| !logit.is_finite()) {
            return false;
        }
        let score = router.score();
        self.rank(router, score);
        if self.keys.iter().any(|key| key.is_nan()) {
            return false;
        }
        if let Some(groups) = router.spec.groups {
            self.drop_groups(groups);
        }
        let k = router.per_token;
        let top = largest(&self.keys, k, &mut self.order);
        let first = weights.len();
        match score {
            Score::SoftmaxOfChosen => {
                let max = self.logits[top[0] as usize];
                weights.extend(top.iter().map(|expert| (self.logits[*expert as usize] - max).exp()));
                normalise(&mut weights[first..]);
            }
            Score::Softmax | Score::Sigmoid => {
                weights.extend(top.iter().map(|expert| self.scores[*expert as usize]));
                if router.spec.renormalise {
                    normalise(&mut weights[first..]);
                }
            }
        }
        weights[first..].iter_mut().for_each(|weight| *weight *= router.spec.scale);
        chosen.extend_from_slice(top);
        true
    }

    /// Fills `scores` and `keys`.
    fn rank(&mut self, router: &Router, score: Score) {
        self.scores.clear();
        match score {
            Score::SoftmaxOfChosen => self.scores.extend_from_slice(&self.logits),
            Score::Sigmoid => {
                self.scores.extend(self.logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())))
            }
            Score::Softmax => {
                let max = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                self.scores.extend(self.logits.iter().map(|logit| (logit - max).exp()));
                let sum: f32 = self.scores.iter().sum();
                self.scores.iter_mut().for_each(|score| *score /= sum);
            }
        }
        self.keys.clear();
        match (&router.correction, router.spec.groups) {
            (Some(correction), _) => {
                self.keys.extend(self.scores.iter().zip(correction).map(|(score, add)| score + add));
            }
            // The order of logits is that of scores, without the ties of those that underflow or
            // round to 1.
            (None, None) => self.keys.extend_from_slice(&self.logits),
            (None, Some(_)) => self.keys.extend_from_slice(&self.scores),
        }
    }

    /// Leaves only the experts of the best groups in `keys`: the others get minus infinity.
    fn drop_groups(&mut self, groups: Groups) {
        let size = self.keys.len() / groups.count;
        self.group_keys.clear();
        self.group_keys.extend(self.keys.chunks_exact(size).map(|keys| group_key(keys, groups.rank)));
        let kept = largest(&self.group_keys, groups.used, &mut self.groups);
        for (group, keys) in self.keys.chunks_exact_mut(size).enumerate() {
            if !kept.contains(&(group as u32)) {
                keys.fill(f32::NEG_INFINITY);
            }
        }
    }
}

/// What a group of experts is ranked by.
fn group_key(keys: &[f32], rank: GroupRank) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for key in keys {
        if *key > first {
            (first, second) = (*key, first);
        } else if *key > second {
            second = *key;
        }
    }
    match rank {
        GroupRank::Max => first,
        GroupRank::SumOfTwo if keys.len() > 1 => first + second,
        GroupRank::SumOfTwo => first,
    }
}

/// The indices of the `k` largest values, largest first; the lower index first among equals.
fn largest<'a>(values: &[f32], k: usize, order: &'a mut Vec<u32>) -> &'a [u32] {
    let descending = |a: &u32, b: &u32| values[*b as usize].total_cmp(&values[*a as usize]).then(a.cmp(b));
    order.clear();
    order.extend(0..values.len() as u32);
    if k < values.len() {
        order.select_nth_unstable_by(k - 1, descending);
    }
    let top = &mut order[..k];
    top.sort_unstable_by(descending);
    top
}

fn normalise(weights: &mut [f32]) {
    let sum: f32 = weights.iter().sum::<f32>() + SUM_EPSILON;
    weights.iter_mut().for_each(|weight| *weight /= sum);
}

#[cfg(test)]
mod tests;
