//! `compare`: divergence between models, in memory or through a file, and what cannot be compared.
#![allow(clippy::unwrap_used, clippy::result_large_err)]

mod common;

use std::path::{Path, PathBuf};

use common::{fixture, open, options};
use engine::{EngineError, EngineOptions, Format, KvFormat};
use lab::{CompareEvent, CompareOptions, CompareReport, EvalOptions, LabError, compare, eval};
use pack::QuantTiers;

/// The demo model's text, and the model, packed.
struct Demo {
    dir: tempfile::TempDir,
    text: String,
}

const EVAL: EvalOptions = EvalOptions { ctx: 64, stride: 32 };

impl Demo {
    fn new() -> Demo {
        let text = std::fs::read_to_string(demo().join("heldout.txt")).unwrap();
        Demo { dir: tempfile::tempdir().unwrap(), text: text.chars().take(600).collect() }
    }

    fn packed(&self, format: Format) -> PathBuf {
        let target = self.dir.path().join(format.name());
        common::pack(&demo(), &target, &QuantTiers::of(format));
        target
    }

    fn compare(&self, model: &Path, reference: &Path, memory: u64) -> Result<CompareReport, LabError> {
        let choice = EngineOptions { memory_bytes: Some(memory), ..fixed() };
        let spill_dir = self.dir.path().join("spill");
        let (mut spilled, mut last) = (false, 0);
        let how = CompareOptions { eval: EVAL, reference_kv: None, spill_dir: spill_dir.clone() };
        let report = compare(model, reference, &self.text, &choice, &how, &mut |event| match event {
            CompareEvent::Spilling(_) => spilled = true,
            CompareEvent::Tokens { done, total } => {
                assert!(last < done && done <= total, "{last} {done} {total}");
                last = done;
            }
            _ => {}
        })?;
        assert_eq!(spilled, report.spilled_bytes.is_some());
        let left = std::fs::read_dir(&spill_dir).map_or(0, Iterator::count);
        assert_eq!(left, 0, "the temporary file is gone");
        Ok(report)
    }
}

/// With one chunk size, so that the budget changes no rounding.
fn fixed() -> EngineOptions {
    EngineOptions { ctx: Some(EVAL.ctx), chunk_tokens: Some(EVAL.ctx), slots: Some(40), ..options() }
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

#[test]
fn a_model_is_at_distance_0_from_itself_and_coarser_formats_are_farther() {
    let demo_model = Demo::new();
    let same = demo_model.compare(&demo(), &demo(), 2 << 30).unwrap();
    assert_eq!((same.kl_mean_nats, same.kl_max_nats, same.top1_agreement), (0.0, 0.0, 1.0));
    assert_eq!(same.perplexity.to_bits(), same.reference_perplexity.to_bits());
    let [fine, coarse] = [Format::Q8_0, Format::Q4K].map(|format| {
        let report = demo_model.compare(&demo_model.packed(format), &demo(), 2 << 30).unwrap();
        assert_eq!(report.reference_perplexity.to_bits(), same.perplexity.to_bits(), "{format}");
        assert!(report.kl_median_nats <= report.kl_p99_nats && report.kl_p99_nats <= report.kl_max_nats);
        assert!(report.tokens > 100 && report.spilled_bytes.is_none());
        report
    });
    assert!(0.0 < fine.kl_mean_nats && 4.0 * fine.kl_mean_nats < coarse.kl_mean_nats, "{fine:?} {coarse:?}");
    assert!(fine.kl_mean_nats < 0.01 && coarse.kl_mean_nats < 0.5, "{fine:?} {coarse:?}");
    assert!(0.5 < coarse.top1_agreement && coarse.top1_agreement < fine.top1_agreement);
}

/// Perplexities are those of `eval`, and the way of the reference's logits changes nothing.
#[test]
fn a_file_gives_the_bits_of_memory() {
    let demo_model = Demo::new();
    let model = demo_model.packed(Format::Q8_0);
    let at_once = demo_model.compare(&model, &demo(), 2 << 30).unwrap();
    // Enough for each, but not for both.
    let need = |path: &Path| open(path, fixed()).plan().total_bytes();
    let apart = demo_model.compare(&model, &demo(), need(&model).max(need(&demo()))).unwrap();
    assert_eq!(apart.spilled_bytes, Some(at_once.tokens as u64 * 8192 * 4));
    let figures = |report: &CompareReport| {
        [report.kl_mean_nats, report.kl_error_nats, report.kl_max_nats, report.perplexity]
            .into_iter()
            .chain([report.reference_perplexity, report.top1_agreement])
            .map(f64::to_bits)
            .collect::<Vec<_>>()
    };
    assert_eq!(figures(&at_once), figures(&apart));
    let alone = eval(&open(&model, fixed()), &demo_model.text, &EVAL, &mut |_, _| ()).unwrap();
    assert!((alone.nll_nats - at_once.nll_nats).abs() < 1e-6, "{alone:?} {at_once:?}");
    assert!((alone.nll_error_nats - at_once.nll_error_nats).abs() < 1e-6);
    assert_eq!(alone.tokens, at_once.tokens);
}

#[test]
fn cache_formats_can_be_compared() {
    let demo_model = Demo::new();
    let against_exact = |kv| {
        let choice = EngineOptions { kv: Some(kv), ctx: Some(EVAL.ctx), ..options() };
        let spill_dir = demo_model.dir.path().to_path_buf();
        let how = CompareOptions { eval: EVAL, reference_kv: Some(KvFormat::F32), spill_dir };
        compare(&demo(), &demo(), &demo_model.text, &choice, &how, &mut |_| ()).unwrap()
    };
    let [f16, q8_0] = [KvFormat::F16, KvFormat::Q8_0].map(against_exact);
    assert!(0.0 < f16.kl_mean_nats && f16.kl_mean_nats < q8_0.kl_mean_nats, "{f16:?} {q8_0:?}");
    assert!(q8_0.kl_mean_nats < 1e-2, "{q8_0:?}");
    assert_eq!((q8_0.kv.as_str(), q8_0.reference_kv.as_str()), ("q8_0", "f32"));
    assert_eq!((f16.lossy.len(), q8_0.lossy), (0, vec!["kv q8_0".to_string()]));
}

#[test]
fn what_cannot_be_compared_is_named() {
    let demo_model = Demo::new();
    let error = demo_model.compare(&demo(), &fixture("published"), 1 << 30).unwrap_err().to_string();
    assert!(error.contains("different vocabularies (8192 and "), "{error}");
    // As many entries, but others.
    let other = demo_model.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    for entry in std::fs::read_dir(demo()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), other.join(entry.file_name())).unwrap();
        }
    }
    let path = other.join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let (a, b) = (vocab["Ġthe"].clone(), vocab["Ġa"].clone());
    vocab.insert("Ġthe".into(), b);
    vocab.insert("Ġa".into(), a);
    std::fs::write(&path, serde_json::to_vec(&tokenizer).unwrap()).unwrap();
    let error = demo_model.compare(&demo(), &other, 1 << 30).unwrap_err().to_string();
    assert!(error.contains("different vocabularies (token "), "{error}");
    let error = demo_model.compare(&demo(), &demo(), 20 << 20).unwrap_err();
    assert!(matches!(error, LabError::Engine(EngineError::BudgetTooSmall { .. })), "{error}");
}
