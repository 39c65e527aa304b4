//! Models without experts: every measurement has something to say about them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{dense, gguf, options};
use engine::Format;
use lab::bench::{BenchOptions, bench};
use lab::forecast::{ForecastOptions, Target, forecast};
use lab::inspect::inspect;
use pack::QuantTiers;

#[test]
fn a_packed_model_without_experts_says_that_it_has_none() {
    let directory = tempfile::tempdir().unwrap();
    for (index, source) in [dense("llama"), dense("qwen2"), gguf("llama.gguf")].into_iter().enumerate() {
        let target = directory.path().join(index.to_string());
        let tiers = QuantTiers::of(Format::BF16);
        common::pack(&source, &target, &tiers);
        let found = inspect(&target).unwrap();
        assert_eq!((found.num_experts, found.bytes_per_expert, found.expert_bytes_per_token), (0, 0, 0));
    }
}

#[test]
fn measurements_divide_by_no_expert() {
    let path = gguf("qwen3.gguf");
    let found = inspect(&path).unwrap();
    assert_eq!((found.architecture.as_str(), found.layers, found.attention_layers), ("Qwen3", 2, 2));
    assert!(found.active_weights_per_token > 0 && found.recurrent_state_bytes == 0);
    let choice = BenchOptions { prompt_tokens: 8, decode_tokens: 4, repeats: 1, ..BenchOptions::default() };
    let report = bench(&path, &options(), &choice, &mut |_| ()).unwrap();
    assert_eq!((report.rates.hit_rate, report.rates.expert_bytes_per_token), (1.0, 0.0));
    assert!(report.rates.decode_tokens_per_s > 0.0 && report.limits.roofline_fraction.is_finite());
    no_nulls(&serde_json::to_value(&report).unwrap(), "");
    let choice =
        ForecastOptions { prompt_tokens: 16, disk_dir: std::env::temp_dir(), probe_file_bytes: 1 << 20 };
    let forecast = forecast(&Target::Model(path), &options(), &choice, &mut |_| ()).unwrap();
    assert!(forecast.fits && forecast.prefill_tokens_per_s.unwrap() > 0.0);
    let asked = forecast.asked.unwrap();
    assert_eq!((asked.slots, asked.typical.hit_rate, asked.typical.expert_bytes_per_token), (0, 1.0, 0.0));
    assert!(asked.typical.decode_tokens_per_s.is_finite());
}

/// Numbers that are not finite become nulls in JSON.
fn no_nulls(value: &serde_json::Value, path: &str) {
    match value {
        serde_json::Value::Null => {
            let fine = ["/shared_records", "/synthetic", "/io_fallback", "/peak_resident_bytes"];
            assert!(fine.contains(&path), "{path}");
        }
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| no_nulls(value, &format!("{path}/{key}")));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|value| no_nulls(value, path)),
        _ => {}
    }
}
