//! How far a model's predictions are from a reference's, token by token of a text: Kullback-Leibler
//! divergence and agreement on the likeliest token.
//!
//! Both models are open at once where both fit into the budget; the reference then hands over one
//! window's logits at a time. Otherwise it runs first and alone, and its logits wait for the other
//! in a temporary file. They are the same f32 numbers either way.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::door::{Opened, ResolvedOptions, default_budget_bytes};
use engine::plan::{MemoryPlan, PlanInput};
use engine::{Engine, EngineOptions, Loading};
use ops::KvFormat;
use serde::Serialize;

use crate::LabError;
use crate::eval::{EvalOptions, Prefix, Sums, Window, score};

/// Pieces in which the file is written and read.
const SPILL_BUFFER_BYTES: usize = 1 << 20;
/// Share of a disk's free space that the file leaves alone: 1/16.
const SPILL_RESERVE_SHARE: u64 = 16;

/// What is compared, beside the options of loading.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Windows, the same for both models.
    pub eval: EvalOptions,
    /// Number format of the reference's keys and values; `None`: that of the model.
    pub reference_kv: Option<KvFormat>,
    /// Where the reference's logits wait if both models do not fit into memory.
    pub spill_dir: PathBuf,
}

/// What a comparison is doing.
#[derive(Debug)]
#[non_exhaustive]
pub enum CompareEvent<'a> {
    /// A model is being opened.
    Loading(Loading<'a>),
    /// The models take turns in memory; so many bytes of logits go to a file that is gone
    /// afterwards.
    Spilling(u64),
    /// Tokens computed, by both models together.
    Tokens {
        /// So far.
        done: usize,
        /// Altogether.
        total: usize,
    },
}

/// How far the model is from the reference. Divergences are those of the model from the reference,
/// in nats for each token.
#[derive(Clone, Debug, Serialize)]
pub struct CompareReport {
    /// Mean divergence.
    pub kl_mean_nats: f64,
    /// Standard error of that mean.
    pub kl_error_nats: f64,
    /// Divergence that half of the tokens stay below.
    pub kl_median_nats: f64,
    /// Divergence that 99 % of the tokens stay below.
    pub kl_p99_nats: f64,
    /// Largest divergence.
    pub kl_max_nats: f64,
    /// Share of tokens at which both models think the same token the likeliest.
    pub top1_agreement: f64,
    /// Standard error of that share.
    pub top1_agreement_error: f64,
    /// The model's perplexity.
    pub perplexity: f64,
    /// The model's mean negative log-likelihood of a token.
    pub nll_nats: f64,
    /// Standard error of that mean.
    pub nll_error_nats: f64,
    /// The reference's perplexity.
    pub reference_perplexity: f64,
    /// The reference's mean negative log-likelihood of a token.
    pub reference_nll_nats: f64,
    /// Standard error of that mean.
    pub reference_nll_error_nats: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// Window, tokens.
    pub ctx: usize,
    /// Stride, tokens.
    pub stride: usize,
    /// Number format of the model's keys and values.
    pub kv: String,
    /// Number format of the reference's keys and values.
    pub reference_kv: String,
    /// Lossy options of the model.
    pub lossy: Vec<String>,
    /// Bytes of logits that waited in a temporary file; `None`: both models were in memory.
    pub spilled_bytes: Option<u64>,
    /// Tokens a second and model, everything included.
    pub tokens_per_s: f64,
}

/// Compares the model at `path` with the one at `reference` over `text`.
///
/// # Errors
/// Different vocabularies; a text or windows that [`crate::eval`] would refuse; anything wrong with
/// either model; no room for the temporary file where one is needed.
pub fn compare(
    path: &Path,
    reference: &Path,
    text: &str,
    engine_options: &EngineOptions,
    options: &CompareOptions,
    progress: &mut dyn FnMut(CompareEvent<'_>),
) -> Result<CompareReport, LabError> {
    let started = Instant::now();
    let opened = [Opened::new(path)?, Opened::new(reference)?];
    let tokens = common_tokens([path, reference], &opened, text)?;
    let prefix = |opened: &Opened| Ok::<_, LabError>(opened.tokenizer()?.text_prefix()?);
    let prefixes = [prefix(&opened[0])?, prefix(&opened[1])?];
    let lengths = prefixes.each_ref().map(Vec::len);
    let windows = options.eval.windows(tokens.len(), Prefix::of(&lengths))?;
    let vocab = opened[0].config.vocab_size;
    // The budget is settled once: a default taken again later would be another.
    let budget = engine_options.memory_bytes.unwrap_or_else(default_budget_bytes);
    let choice = EngineOptions { memory_bytes: Some(budget), ..engine_options.clone() };
    let reference_kv = options.reference_kv.or(engine_options.kv);
    let choices = [choice.clone(), EngineOptions { kv: reference_kv, trace: None, ..choice }];
    let input = |i: usize| {
        let (opened, options) = (&opened[i], ResolvedOptions::new(&choices[i], &opened[i].config)?);
        Ok::<_, LabError>(PlanInput::new(&opened.config, opened.sizes(storage::BLOCK_BYTES)?, &options))
    };
    let shares = Shares::new([&input(0)?, &input(1)?], options.eval.ctx, vocab)?;
    let mut run = Run { prefixes: &prefixes, tokens: &tokens, windows: &windows, done: 0, progress };
    let mut scores = Scores::default();
    let spilled_bytes = match shares.at_once(budget) {
        Some(budgets) => {
            run.at_once([path, reference], &choices, budgets, &mut scores)?;
            None
        }
        None => {
            let rows: usize = windows.iter().map(Window::scored).sum();
            let bytes = rows as u64 * vocab as u64 * size_of::<f32>() as u64;
            check_spill(&options.spill_dir, bytes, shares.least_bytes())?;
            (run.progress)(CompareEvent::Spilling(bytes));
            run.one_after_the_other([path, reference], &choices, &options.spill_dir, &mut scores)?;
            Some(bytes)
        }
    };
    let mut report = scores.report(&options.eval, started.elapsed().as_secs_f64());
    report.kv = choices[0].kv().to_string();
    report.reference_kv = choices[1].kv().to_string();
    report.lossy = choices[0].lossy();
    report.spilled_bytes = spilled_bytes;
    Ok(report)
}

/// The text's tokens, which must be the same for both: as many entries, and the same ids.
fn common_tokens(paths: [&Path; 2], opened: &[Opened; 2], text: &str) -> Result<Vec<u32>, LabError> {
    let different = |detail: String| LabError::VocabulariesDiffer {
        model: paths[0].into(),
        reference: paths[1].into(),
        detail,
    };
    let [entries, reference_entries] = [0, 1].map(|i| opened[i].config.vocab_size);
    if entries != reference_entries {
        return Err(different(format!("{entries} and {reference_entries} entries")));
    }
    let encode = |opened: &Opened| Ok::<_, LabError>(opened.tokenizer()?.encode(text, false)?);
    let (tokens, others) = (encode(&opened[0])?, encode(&opened[1])?);
    match tokens.iter().zip(&others).position(|(a, b)| a != b) {
        Some(at) => Err(different(format!("token {at} of the text is {} and {}", tokens[at], others[at]))),
        None if tokens.len() != others.len() => {
            Err(different(format!("the text has {} and {} tokens", tokens.len(), others.len())))
        }
        None => Ok(tokens),
    }
}

/// What each model needs and could use.
struct Shares {
    /// Least budgets.
    least: [u64; 2],
    /// Expert slots for every expert.
    wants: [u64; 2],
    /// Logits of one window.
    rows: u64,
}

impl Shares {
    fn new(inputs: [&PlanInput<'_>; 2], ctx: usize, vocab: usize) -> Result<Self, engine::EngineError> {
        let [first, second] = inputs.map(MemoryPlan::least_budget_bytes);
        Ok(Shares {
            least: [first?, second?],
            wants: inputs.map(|input| (input.sizes.slot_bytes * input.sizes.expert_count as u64).max(1)),
            rows: (ctx * vocab * size_of::<f32>()) as u64,
        })
    }

    /// Least budget for both at once.
    fn least_bytes(&self) -> u64 {
        self.rows + self.least[0] + self.least[1]
    }

    /// A budget for each if both fit: what it needs at least, and of the rest as its experts are
    /// large.
    fn at_once(&self, budget: u64) -> Option<[u64; 2]> {
        let rest = budget.checked_sub(self.least_bytes())?;
        let wants = self.wants[0] as f64 / (self.wants[0] as f64 + self.wants[1] as f64);
        let first = (rest as f64 * wants) as u64;
        Some([self.least[0] + first, self.least[1] + (rest - first.min(rest))])
    }
}

fn check_spill(dir: &Path, needed: u64, least: u64) -> Result<(), LabError> {
    let spill = |source| LabError::Spill { dir: dir.into(), source };
    std::fs::create_dir_all(dir).map_err(spill)?;
    match storage::free_disk_bytes(dir) {
        Some(free) if needed > free - free / SPILL_RESERVE_SHARE => Err(LabError::SpillTooLarge {
            dir: dir.into(),
            needed_bytes: needed,
            free_bytes: free,
            enough_memory_bytes: least,
        }),
        _ => Ok(()),
    }
}

/// A comparison under way.
struct Run<'a> {
    /// What goes before each window, of the model and of the reference.
    prefixes: &'a [Vec<u32>; 2],
    tokens: &'a [u32],
    windows: &'a [Window],
    /// Tokens computed by models that are done.
    done: usize,
    progress: &'a mut dyn FnMut(CompareEvent<'_>),
}

impl Run<'_> {
    fn open(&mut self, path: &Path, options: &EngineOptions) -> Result<Engine, LabError> {
        let loading = &mut |event: Loading<'_>| (self.progress)(CompareEvent::Loading(event));
        Ok(Engine::open(path, options.clone(), loading)?)
    }

    fn tokens_done(&mut self, more: usize) {
        (self.progress)(CompareEvent::Tokens { done: self.done + more, total: 2 * self.tokens.len() });
    }

    fn at_once(
        &mut self,
        paths: [&Path; 2],
        options: &[EngineOptions; 2],
        budgets: [u64; 2],
        scores: &mut Scores,
    ) -> Result<(), LabError> {
        let [choice, reference_choice] =
            [0, 1].map(|i| EngineOptions { memory_bytes: Some(budgets[i]), ..options[i].clone() });
        let reference = self.open(paths[1], &reference_choice)?;
        let model = self.open(paths[0], &choice)?;
        let vocab = model.config().vocab_size;
        let mut rows: Vec<f32> = Vec::new();
        for window in self.windows {
            rows.clear();
            score(&reference, (&self.prefixes[1], self.tokens), window, &mut |_, logits| {
                rows.extend_from_slice(logits);
            })?;
            let mut expected = rows.chunks_exact(vocab);
            score(&model, (&self.prefixes[0], self.tokens), window, &mut |token, logits| {
                if let Some(expected) = expected.next() {
                    scores.add(expected, logits, token as usize);
                }
            })?;
            self.tokens_done(2 * window.end);
        }
        Ok(())
    }

    fn one_after_the_other(
        &mut self,
        paths: [&Path; 2],
        options: &[EngineOptions; 2],
        dir: &Path,
        scores: &mut Scores,
    ) -> Result<(), LabError> {
        let failed = |source| LabError::Spill { dir: dir.into(), source };
        // It has no name where the system allows that, so that it is gone even if this process is
        // killed.
        let file = tempfile::tempfile_in(dir).map_err(failed)?;
        let file = self.write_reference(paths[1], &options[1], file, dir)?;
        self.done = self.tokens.len();
        let model = self.open(paths[0], &options[0])?;
        let mut file = BufReader::with_capacity(SPILL_BUFFER_BYTES, file);
        let mut bytes = vec![0; model.config().vocab_size * size_of::<f32>()];
        let mut expected = vec![0.0; model.config().vocab_size];
        for window in self.windows {
            let mut result = Ok(());
            score(&model, (&self.prefixes[0], self.tokens), window, &mut |token, logits| {
                if result.is_ok() {
                    result = read_row(&mut file, &mut bytes, &mut expected);
                    scores.add(&expected, logits, token as usize);
                }
            })?;
            result.map_err(failed)?;
            self.tokens_done(window.end);
        }
        Ok(())
    }

    /// Runs the reference alone; the file, at its start again.
    fn write_reference(
        &mut self,
        path: &Path,
        options: &EngineOptions,
        file: File,
        dir: &Path,
    ) -> Result<File, LabError> {
        let failed = |source| LabError::Spill { dir: dir.into(), source };
        let reference = self.open(path, options)?;
        let mut out = BufWriter::with_capacity(SPILL_BUFFER_BYTES, file);
        for window in self.windows {
            let mut result = Ok(());
            score(&reference, (&self.prefixes[1], self.tokens), window, &mut |_, logits| {
                if result.is_ok() {
                    result = logits.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()));
                }
            })?;
            result.map_err(failed)?;
            self.tokens_done(window.end);
        }
        let mut file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.rewind().map_err(failed)?;
        Ok(file)
    }
}

fn read_row(file: &mut impl Read, bytes: &mut [u8], row: &mut [f32]) -> io::Result<()> {
    file.read_exact(bytes)?;
    let (numbers, _) = bytes.as_chunks();
    row.iter_mut().zip(numbers).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
    Ok(())
}

/// What two rows of logits say about a token.
struct Score {
    kl: f64,
    nll: f64,
    reference_nll: f64,
    same_top: bool,
}

impl Score {
    /// With p the softmax of the reference's logits r and q that of the model's m, the divergence
    /// is sum p (ln p - ln q) = sum p (r - m) - ln sum exp r + ln sum exp m.
    fn of(reference: &[f32], model: &[f32], token: usize) -> Score {
        let (top, max) = top(model);
        let (reference_top, reference_max) = self::top(reference);
        let (mut sum, mut reference_sum, mut weighted) = (0.0, 0.0, 0.0);
        for (&r, &m) in reference.iter().zip(model) {
            let p = f64::from(r - reference_max).exp();
            reference_sum += p;
            sum += f64::from(m - max).exp();
            weighted += p * (f64::from(r) - f64::from(m));
        }
        let log_sum = sum.ln() + f64::from(max);
        let reference_log_sum = reference_sum.ln() + f64::from(reference_max);
        Score {
            // Rounding may leave a little less than nothing.
            kl: nonnegative(weighted / reference_sum - reference_log_sum + log_sum),
            nll: log_sum - f64::from(model[token]),
            reference_nll: reference_log_sum - f64::from(reference[token]),
            same_top: top == reference_top,
        }
    }
}

/// Not `max`, which would drop a NaN.
fn nonnegative(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// The likeliest token, the first of several, and its logit.
fn top(logits: &[f32]) -> (usize, f32) {
    let start = (0, f32::NEG_INFINITY);
    logits.iter().enumerate().fold(start, |top, (i, &x)| if x > top.1 { (i, x) } else { top })
}

/// Scores of all tokens.
#[derive(Default)]
struct Scores {
    divergences: Vec<f64>,
    kl: Sums,
    nll: Sums,
    reference_nll: Sums,
    same_top: Sums,
}

impl Scores {
    fn add(&mut self, reference: &[f32], model: &[f32], token: usize) {
        let score = Score::of(reference, model, token);
        self.divergences.push(score.kl);
        self.kl.add(score.kl);
        self.nll.add(score.nll);
        self.reference_nll.add(score.reference_nll);
        self.same_top.add(if score.same_top { 1.0 } else { 0.0 });
    }

    fn report(mut self, eval: &EvalOptions, seconds: f64) -> CompareReport {
        self.divergences.sort_by(f64::total_cmp);
        let sorted = &self.divergences;
        // The least value that this share of all does not exceed.
        let quantile = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
        };
        let (kl_mean_nats, kl_error_nats) = self.kl.mean_and_error();
        let (nll_nats, nll_error_nats) = self.nll.mean_and_error();
        let (reference_nll_nats, reference_nll_error_nats) = self.reference_nll.mean_and_error();
        let (top1_agreement, top1_agreement_error) = self.same_top.mean_and_error();
        CompareReport {
            kl_mean_nats,
            kl_error_nats,
            kl_median_nats: quantile(0.5),
            kl_p99_nats: quantile(0.99),
            kl_max_nats: quantile(1.0),
            top1_agreement,
            top1_agreement_error,
            perplexity: nll_nats.exp(),
            nll_nats,
            nll_error_nats,
            reference_perplexity: reference_nll_nats.exp(),
            reference_nll_nats,
            reference_nll_error_nats,
            tokens: self.kl.count,
            ctx: eval.ctx,
            stride: eval.stride,
            kv: String::new(),
            reference_kv: String::new(),
            lossy: Vec::new(),
            spilled_bytes: None,
            tokens_per_s: self.kl.count as f64 / seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divergence_is_what_its_definition_says() {
        let (reference, model) = ([1.0f32, 2.0, 4.0, -3.0], [2.0f32, 1.5, 3.0, -30.0]);
        let softmax = |logits: &[f32]| {
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            logits.iter().map(|x| f64::from(*x).exp() / sum).collect::<Vec<_>>()
        };
        let (p, q) = (softmax(&reference), softmax(&model));
        let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        let score = Score::of(&reference, &model, 1);
        assert!((score.kl - expected).abs() < 1e-12, "{} {expected}", score.kl);
        assert!((score.nll + q[1].ln()).abs() < 1e-12 && (score.reference_nll + p[1].ln()).abs() < 1e-12);
        assert!(score.same_top);
        assert!(!Score::of(&reference, &[5.0, 0.0, 0.0, 0.0], 1).same_top);
        // A shift of all logits changes nothing.
        assert!(Score::of(&reference, &reference.map(|x| x + 8.0), 0).kl < 1e-12);
        assert_eq!(Score::of(&model, &model, 3).kl, 0.0);
        assert!(Score::of(&model, &[f32::NAN, 0.0, 0.0, 0.0], 3).kl.is_nan());
    }

    #[test]
    fn quantiles_are_by_rank() {
        let mut scores = Scores::default();
        for i in (0..200).rev() {
            scores.divergences.push(f64::from(i));
            scores.kl.add(f64::from(i));
        }
        let report = scores.report(&EvalOptions { ctx: 4, stride: 2 }, 1.0);
        assert_eq!((report.kl_median_nats, report.kl_p99_nats, report.kl_max_nats), (99.0, 197.0, 199.0));
        assert_eq!((report.kl_mean_nats, report.tokens), (99.5, 200));
    }

    #[test]
    fn a_budget_is_shared_by_need_or_not_at_all() {
        let shares = Shares { least: [100, 200], wants: [300, 900], rows: 50 };
        assert_eq!(shares.at_once(349), None);
        assert_eq!(shares.at_once(350), Some([100, 200]));
        assert_eq!(shares.at_once(750), Some([200, 500]));
    }
}
