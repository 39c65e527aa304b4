//! What a generation was and what it cost, in some lines for people. Nothing is said of phases that
//! did not happen.

use engine::system::human_bytes;
use engine::{Generation, GenerationDefaults, Request, RunStats, SamplingParams};
use serde::Serialize;

use crate::args::SamplingArgs;
use crate::output;

/// How tokens are chosen, and who said so.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sampled {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    presence_penalty: f32,
    /// Options that were given; the rest is from `defaults`.
    given: Vec<&'static str>,
    /// `model`, or `flash-moe` where the model says nothing.
    defaults: &'static str,
}

impl Sampled {
    /// Chooses for a request: what was given, else what the model says, else the usual.
    pub(crate) fn choose(args: &SamplingArgs, defaults: &GenerationDefaults, request: &mut Request) -> Self {
        let mut given = Vec::new();
        let mut params = defaults.for_people();
        let mut set = |name: &'static str, value: Option<f32>, field: &mut f32| {
            if let Some(value) = value {
                *field = value;
                given.push(name);
            }
        };
        set("--temp", args.temp, &mut params.temperature);
        set("--top-p", args.top_p, &mut params.top_p);
        set("--min-p", args.min_p, &mut params.min_p);
        set("--repetition-penalty", args.repetition_penalty, &mut params.repetition_penalty);
        set("--presence-penalty", args.presence_penalty, &mut params.presence_penalty);
        if let Some(top_k) = args.top_k {
            params.top_k = top_k;
            given.push("--top-k");
        }
        params.seed = args.seed;
        request.sampling = params;
        Self::of(&params, given, defaults.says_how)
    }

    fn of(params: &SamplingParams, given: Vec<&'static str>, model: bool) -> Self {
        Self {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            presence_penalty: params.presence_penalty,
            given,
            defaults: if model { "model" } else { "flash-moe" },
        }
    }

    /// Whether chance had a say.
    pub(crate) fn is_random(&self) -> bool {
        self.temperature > 0.0 && self.top_k != 1
    }

    /// For the summary: what is in force, and where it comes from.
    fn parts(&self, seed: u64) -> Vec<String> {
        let mut chosen = Vec::new();
        let mut add = |on: bool, text: String| {
            if on {
                chosen.push(text);
            }
        };
        let random = self.is_random();
        add(!random, "the likeliest token".into());
        add(random, format!("temperature {}", self.temperature));
        add(random && self.top_k > 0, format!("top-k {}", self.top_k));
        add(random && self.top_p < 1.0, format!("top-p {}", self.top_p));
        add(random && self.min_p > 0.0, format!("min-p {}", self.min_p));
        add(self.repetition_penalty != 1.0, format!("repetition penalty {}", self.repetition_penalty));
        add(self.presence_penalty != 0.0, format!("presence penalty {}", self.presence_penalty));
        let defaults = match self.defaults {
            "model" => "the model's defaults",
            _ => "usual defaults, the model names none",
        };
        let from = match self.given.as_slice() {
            [] => defaults.into(),
            given if !random && given.contains(&"--temp") => format!("{} given", given.join(", ")),
            given => format!("{} given, else {defaults}", given.join(", ")),
        };
        let mut parts = vec![format!("sampling {}", chosen.join(", ")), from];
        parts.extend(random.then(|| format!("seed {seed}")));
        parts
    }
}

/// How far a request got that was stopped in its prompt.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Stopped {
    /// Share of the prompt's work that was done.
    pub(crate) share: f32,
    /// Time since it began.
    pub(crate) seconds: f64,
}

/// The whole summary. `stopped` is for a request whose prompt was not computed to its end.
pub(crate) fn print(generation: &Generation, sampled: &Sampled, stopped: Option<Stopped>) {
    let stats = &generation.stats;
    output::note("");
    output::parts(&speed(generation, stopped));
    output::parts(&cost(stats));
    // Where nothing was chosen it does not matter how.
    if stats.generated_tokens > 0 {
        output::parts(&sampled.parts(generation.seed));
    }
}

/// Tokens and their rates.
pub(crate) fn speed(generation: &Generation, stopped: Option<Stopped>) -> Vec<String> {
    let stats = &generation.stats;
    let mut parts = Vec::new();
    let rate = |rate: Option<f64>| rate.map_or_else(String::new, |rate| format!(" at {rate:.1}/s"));
    if stats.time_to_first_token_s.is_none() && stats.prefill_tokens_per_s.is_none() {
        let prompt = generation.prompt.len();
        parts.push(match stopped {
            Some(Stopped { share, seconds }) => format!(
                "stopped after {:.0} % of a prompt of {prompt} tokens, in {seconds:.1} s",
                100.0 * share
            ),
            None => format!("stopped in a prompt of {prompt} tokens"),
        });
        return parts;
    }
    let reused = match stats.reused_tokens {
        0 => String::new(),
        reused => format!(", {reused} more were known"),
    };
    parts.push(format!("prompt {} tokens{}{reused}", stats.prompt_tokens, rate(stats.prefill_tokens_per_s)));
    parts.extend(stats.time_to_first_token_s.map(|seconds| format!("first token after {seconds:.2} s")));
    parts.push(format!("{} tokens{}", stats.generated_tokens, rate(stats.decode_tokens_per_s)));
    parts
}

/// Experts, memory, losses.
fn cost(stats: &RunStats) -> Vec<String> {
    let mut parts = vec![match stats.experts_per_token {
        0 => "no experts".to_string(),
        k => format!("experts {k} a token and layer"),
    }];
    if stats.experts_per_token > 0 {
        let slots = stats.expert_slots;
        parts.push(match stats.hit_rate {
            Some(rate) => format!("{:.0} % found in {slots} slots", 100.0 * rate),
            None => format!("{slots} slots"),
        });
        let per_token = stats.expert_bytes_per_token.map(|bytes| human_bytes(bytes as u64));
        parts.extend(per_token.map(|bytes| format!("{bytes} read per token")));
        if let (None, Some(bytes)) = (stats.expert_bytes_per_token, stats.prefill_expert_bytes_read) {
            parts.push(format!("{} read for the prompt", human_bytes(bytes)));
        }
    }
    let peak = stats.peak_resident_bytes.map_or("unknown".into(), human_bytes);
    parts.push(format!("peak memory {peak} of {}", human_bytes(stats.memory_budget_bytes)));
    parts.push(format!("lossy: {}", output::lossy(&stats.lossy)));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(stats: RunStats) -> Generation {
        let finish_reason = engine::FinishReason::Cancelled;
        let (prompt, tokens, text) = (vec![1; 1950], Vec::new(), String::new());
        Generation { prompt, tokens, text, finish_reason, seed: 7, stats }
    }

    #[test]
    fn nothing_is_said_of_what_did_not_happen() {
        let stats = RunStats {
            experts_per_token: 4,
            expert_slots: 320,
            prefill_expert_bytes_read: Some(3 << 20),
            ..RunStats::default()
        };
        let stopped = Some(Stopped { share: 0.48, seconds: 2.31 });
        let said = [speed(&generation(stats.clone()), stopped), cost(&stats)].concat().join(" · ");
        assert!(
            said.starts_with("stopped after 48 % of a prompt of 1950 tokens, in 2.3 s · experts 4"),
            "{said}"
        );
        assert!(said.contains("320 slots · 3.00 MiB read for the prompt"), "{said}");
        for word in ["first token", "found", "per token", "/s"] {
            assert!(!said.contains(word), "{word}: {said}");
        }
        // One token has a time but no rate.
        let first = Some(0.25);
        let one = RunStats { prompt_tokens: 9, generated_tokens: 1, time_to_first_token_s: first, ..stats };
        let said = speed(&generation(one), None).join(" · ");
        assert_eq!(said, "prompt 9 tokens · first token after 0.25 s · 1 tokens");
    }

    #[test]
    fn the_summary_says_how_and_from_where_and_the_seed_only_where_it_mattered() {
        let usual = Sampled::of(&SamplingParams::usual(), Vec::new(), false).parts(7).join(" · ");
        assert_eq!(
            usual,
            "sampling temperature 0.8, top-k 40, top-p 0.95, min-p 0.05 · usual defaults, the model names none · seed 7"
        );
        let greedy = Sampled::of(&SamplingParams::greedy(), vec!["--temp"], true).parts(7).join(" · ");
        assert_eq!(greedy, "sampling the likeliest token · --temp given");
        let both = SamplingParams::greedy().with_temperature(0.5);
        let both = Sampled::of(&both, vec!["--temp"], true).parts(7).join(" · ");
        assert_eq!(both, "sampling temperature 0.5 · --temp given, else the model's defaults · seed 7");
    }
}
