//! Seconds that each kind of layer computes, measured on stand-ins.

use engine::EngineOptions;
use models::spec::MixerSpec;
use serde::Serialize;

use crate::LabError;
use crate::facts::{Facts, Kind, distinct};
use crate::figures::ratio;
use crate::stand_in::{Pass, ROWS_MAX, StandIn};

/// What a pass computes in one layer.
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize)]
pub struct PassCost {
    /// Tokens that the pass computes.
    pub rows: usize,
    /// Mixer, norms, router, MLP: all but the experts.
    pub dense_s: f64,
    /// Shared expert.
    pub shared_s: f64,
    /// One routed expert, with the rows that choose it.
    pub expert_s: f64,
    /// Routed experts that any of the rows choose, where each is as likely as any other.
    pub experts: f64,
    /// Experts that one row chooses, and all that there are.
    #[serde(skip)]
    pub(crate) choice: (usize, usize),
}

impl PassCost {
    /// Experts that any of so many rows choose.
    pub(crate) fn distinct(&self, rows: usize) -> f64 {
        distinct(self.choice.0, self.choice.1, rows)
    }

    /// All of it, seconds.
    pub fn total_s(&self) -> f64 {
        self.dense_s + self.shared_s + self.experts * self.expert_s
    }
}

/// Layers of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct LayerCost {
    /// Mixer and feed.
    pub kind: String,
    /// Layers of the model that are of this kind.
    pub layers: usize,
    /// A pass of one token of each stream.
    pub decode: PassCost,
    /// A chunk of a prompt.
    pub prefill: PassCost,
}

/// Costs of all kinds of layers, and of the head for one token of each stream, seconds.
///
/// # Errors
/// No memory for a stand-in.
pub(crate) fn measure(
    facts: &Facts,
    streams: usize,
    chunk_tokens: usize,
    options: &EngineOptions,
) -> Result<(Vec<LayerCost>, f64), LabError> {
    let kinds = facts.kinds();
    let mut costs = Vec::with_capacity(kinds.len());
    for kind in &kinds {
        let mut stand_in = StandIn::of_kind(facts, kind, streams.min(ROWS_MAX), options)?;
        costs.push(LayerCost {
            kind: name(kind),
            layers: kind.count,
            decode: cost(&mut stand_in, kind, streams, Pass::Decode)?,
            prefill: cost(&mut stand_in, kind, chunk_tokens, Pass::Prompt)?,
        });
    }
    let head_s = match kinds.first() {
        Some(kind) => {
            let timed = streams.min(ROWS_MAX);
            let mut stand_in = StandIn::with_head(facts, kind, timed, options)?;
            stand_in.head_s(Pass::Decode(timed))? * ratio(streams as f64, timed as f64)
        }
        None => 0.0,
    };
    Ok((costs, head_s))
}

fn name(kind: &Kind) -> String {
    let mixer = match kind.spec.mixer {
        MixerSpec::Attention(_) => "attention",
        MixerSpec::DeltaNet(_) => "delta_net",
    };
    let feed = if kind.experts.is_some() { "experts" } else { "mlp" };
    format!("{mixer}+{feed}")
}

fn cost(
    stand_in: &mut StandIn,
    kind: &Kind,
    rows: usize,
    pass: fn(usize) -> Pass,
) -> Result<PassCost, LabError> {
    let (rows, k) = (rows.max(1), kind.per_token() as f64);
    let timed = rows.min(ROWS_MAX);
    let time = stand_in.layer_time(pass(timed))?;
    let dense_s = time.dense_s * rows as f64 / timed as f64;
    let shared_s = dense_s * ratio(kind.shared_bytes(), kind.dense_bytes());
    let mut cost = PassCost { rows, dense_s: dense_s - shared_s, shared_s, ..PassCost::default() };
    if kind.experts.is_some() {
        cost.experts = kind.distinct_experts(rows);
        cost.choice = kind.spec.moe().map_or((0, 0), |moe| (moe.per_token, moe.experts));
        // All rows of a stand-in choose the same experts; as many rows are timed as choose one
        // here.
        let per_expert = rows as f64 * k / cost.experts.max(1.0);
        cost.expert_s = experts_s(stand_in, per_expert, pass)? / k;
    }
    Ok(cost)
}

/// Time of the K experts of a stand-in's layer with so many rows each: between whole numbers, and
/// in proportion beyond the most that is timed.
fn experts_s(stand_in: &mut StandIn, rows: f64, pass: fn(usize) -> Pass) -> Result<f64, LabError> {
    let fewer = rows.max(1.0).min(ROWS_MAX as f64).floor();
    let less_s = stand_in.layer_time(pass(fewer as usize))?.experts_s;
    if fewer >= rows || fewer >= ROWS_MAX as f64 {
        return Ok(less_s * (rows / fewer).max(1.0));
    }
    let more_s = stand_in.layer_time(pass(fewer as usize + 1))?.experts_s;
    Ok(less_s + (rows - fewer) * (more_s - less_s).max(0.0))
}
