//! `bench` and `plan` on tiny models: the fields of the contract, what must hold whatever the machine, exit codes. No test
//! here looks at how long anything took.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "what other tests use")]
mod common;

use common::{Dir, copy_fixture, fails, flash_moe, json, ok, packed_fixture};
use serde_json::Value;

const SHORT: [&str; 8] = ["-p", "6", "-n", "4", "--repeat", "2", "--memory", "64MiB"];

fn bench(model: &str, extra: &[&str]) -> Value {
    json(&[&["bench", model, "--json"], &SHORT[..], extra].concat())
}

fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key} in {report}"))
}

#[test]
fn bench_has_every_field_of_the_contract() {
    let dir = Dir::new();
    let model = copy_fixture("flat", dir.path());
    let report = bench(model.to_str().unwrap(), &["--slots", "4"]);
    for key in [
        "decode_tokens_per_s",
        "prefill_tokens_per_s",
        "time_to_first_token_s",
        "expert_bytes_per_token",
        "read_bytes_per_s",
        "read_bytes_per_s_busy",
        "drive_bytes_per_s",
        "memory_bytes_per_s",
        "peak_resident_bytes",
        "roofline_fraction",
        "prefill_roofline_fraction",
        "token_time_s",
        "disk_time_s",
        "memory_time_s",
        "dense_compute_s",
        "expert_compute_s",
    ] {
        assert!(number(&report, key) > 0.0, "{key}: {report}");
    }
    for key in ["hit_rate", "read_wait_s", "fetch_s", "other_s"] {
        assert!(number(&report, key) >= 0.0, "{key}: {report}");
    }
    assert_eq!(report["lossy"], Value::Array(vec![]));
    assert_eq!(
        (number(&report, "experts_per_token"), number(&report, "experts_per_token_model")),
        (2.0, 2.0)
    );
    assert_eq!((number(&report, "layers"), number(&report, "expert_slots")), (4.0, 4.0));
    assert_eq!(report["resident"], Value::Bool(false));
    assert_eq!(report["runs"].as_array().unwrap().len(), 2);
    for key in ["formats", "isa", "threads", "io_mode", "ctx", "memory_budget_bytes", "expert_records"] {
        assert!(!report[key].is_null(), "{key}: {report}");
    }
}

#[test]
fn figures_of_bench_agree_with_each_other() {
    let dir = Dir::new();
    let model = packed_fixture("flat", "q8_0", dir.path());
    let report = bench(model.to_str().unwrap(), &["--slots", "3"]);
    let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-9), "{a} {b}: {report}");
    let least = number(&report, "disk_time_s").max(number(&report, "memory_time_s"));
    near(number(&report, "roofline_fraction"), least * number(&report, "decode_tokens_per_s"));
    near(number(&report, "disk_time_s") * number(&report, "drive_bytes_per_s"), {
        // What was read ahead for nothing is not what the token needed.
        number(&report, "expert_bytes_per_token") - number(&report, "wasted_bytes_per_token")
    });
    for run in report["runs"].as_array().unwrap() {
        let split = run["decode_split"].as_object().unwrap();
        let parts: f64 = split.values().map(|part| part.as_f64().unwrap()).sum();
        let token = run["decode_s"].as_f64().unwrap() / 4.0;
        assert!((parts - token).abs() < 0.02 * token + 2e-6, "the split is the whole: {parts} {token}");
    }
}

#[test]
fn what_is_resident_is_not_read() {
    let dir = Dir::new();
    let model = copy_fixture("flat", dir.path());
    let model = model.to_str().unwrap();
    let report = bench(model, &[]);
    assert_eq!(report["resident"], Value::Bool(true));
    assert_eq!(report["expert_slots"], report["expert_count"]);
    assert_eq!(number(&report, "expert_bytes_per_token"), 0.0);
    assert_eq!((number(&report, "hit_rate"), number(&report, "read_wait_s")), (1.0, 0.0));
    assert_eq!(number(&report, "prefill_expert_bytes"), 0.0);
    let table = ok(&[&["bench", model], &SHORT[..]].concat());
    for part in ["prefill", "decode", "roofline", "2/2", "nothing", "all resident", "2 of 8 a token"] {
        assert!(table.contains(part), "{part} in {table}");
    }
}

#[test]
fn bench_measures_streams_an_arrival_and_turns() {
    let dir = Dir::new();
    let model = copy_fixture("flat", dir.path());
    let model = model.to_str().unwrap();
    let alone = bench(model, &["--slots", "2"]);
    assert_eq!(number(&alone, "parallel"), 1.0);
    assert!(alone.get("total_tokens_per_s").is_none() && alone.get("turns").is_none(), "{alone}");
    let choice = ["--slots", "2", "--ctx", "512", "--parallel", "2", "--arrive", "40", "--turns", "5"];
    let report = bench(model, &choice);
    assert_eq!(number(&report, "parallel"), 2.0);
    assert!(number(&report, "total_tokens_per_s") > 0.0, "{report}");
    assert_eq!(number(&report["arrival"], "prompt_tokens"), 40.0);
    assert_eq!(number(&report["turns"], "second_prompt_tokens"), 15.0);
    let table = ok(&[&["bench", model], &SHORT[..], &choice].concat());
    for part in ["streams    2 together", "arrival    a prompt of 40", "turns      first token"] {
        assert!(table.contains(part), "{part} in {table}");
    }
}

#[test]
fn bench_takes_its_tokens_from_a_text() {
    let dir = Dir::new();
    let model = copy_fixture("flat", dir.path());
    let tokenizer = common::fixture("../tokenizer/tokenizer.json");
    std::fs::copy(tokenizer, model.join("tokenizer.json")).unwrap();
    let text = dir.path().join("text.txt");
    let model = model.to_str().unwrap();
    fails(&["bench", model, "--text", text.to_str().unwrap()], &["text.txt"]);
    // The model's own limit is 4096: no context helps here, and one does there.
    let refused = fails(&["bench", model, "-p", "4000", "-n", "4000"], &["use fewer tokens"]);
    assert!(!refused.contains("--ctx"), "{refused}");
    fails(&["bench", model, "-p", "200", "-n", "200", "--ctx", "256"], &["use --ctx 768"]);
    fails(&["bench", model, "--memory", "20KiB"], &["--memory"]);
    assert_eq!(flash_moe(&["bench", model, "-n", "0"]).status.code(), Some(2));
}

fn plan(model: &str, extra: &[&str]) -> Value {
    json(&[&["plan", model, "--json", "--probe-size", "4MiB", "-p", "8"], extra].concat())
}

fn check_forecast(report: &Value) {
    assert_eq!(report["fits"], Value::Bool(true));
    let budgets = report["budgets"].as_array().unwrap();
    assert!(!budgets.is_empty(), "{report}");
    for pair in budgets.windows(2) {
        let rate = |budget: &Value, kind: &str| budget[kind]["decode_tokens_per_s"].as_f64().unwrap();
        for kind in ["typical", "uniform"] {
            assert!(rate(&pair[0], kind) <= 1.0001 * rate(&pair[1], kind), "{kind}: {report}");
        }
        assert!(rate(&pair[0], "uniform") <= 1.0001 * rate(&pair[0], "typical"), "{report}");
    }
    for key in ["drive_bytes_per_s", "memory_bytes_per_s", "dense_compute_s", "expert_compute_s"] {
        assert!(number(&report["machine"], key) > 0.0, "{key}: {report}");
    }
    assert!(number(report, "prefill_tokens_per_s") > 0.0);
    assert!(number(report, "least_memory_bytes") <= number(report, "memory_budget_bytes"));
}

#[test]
fn plan_forecasts_a_model_on_disk() {
    let dir = Dir::new();
    let model = packed_fixture("flat", "q8_0", dir.path());
    let model = model.to_str().unwrap();
    let report = plan(model, &["--memory", "64MiB"]);
    check_forecast(&report);
    assert_eq!(report["asked"]["slots"], report["plan"]["expert_count"]);
    assert_eq!(report["asked"]["uniform"]["expert_bytes_per_token"], 0.0);
    // The least that it names is enough.
    let least = report["least_memory_bytes"].to_string();
    check_forecast(&plan(model, &["--memory", &least]));
}

#[test]
fn plan_forecasts_streams_that_decode_together() {
    let dir = Dir::new();
    let disk = dir.path().to_str().unwrap();
    let [one, four] = ["1", "4"].map(|streams| {
        plan("tiny", &["--disk-path", disk, "--memory", "256MiB", "--slots", "16", "--parallel", streams])
    });
    check_forecast(&four);
    assert_eq!((number(&one, "parallel"), number(&four, "parallel")), (1.0, 4.0));
    let rate = |report: &Value, name: &str| report["asked"]["uniform"][name].as_f64().unwrap();
    assert_eq!(rate(&one, "total_tokens_per_s"), rate(&one, "decode_tokens_per_s"));
    assert!((rate(&four, "total_tokens_per_s") - 4.0 * rate(&four, "decode_tokens_per_s")).abs() < 1e-3);
    // 4 of 32 each, and all of them read once.
    let shared = rate(&four, "expert_bytes_per_token") / rate(&one, "expert_bytes_per_token");
    let expected = 32.0 * (1.0 - (1.0 - 4.0 / 32.0f64).powi(4)) / 16.0;
    assert!((shared - expected).abs() < 0.02, "{shared} {expected}");
    let kinds = four["machine"]["layer_kinds"].as_array().unwrap();
    let layers: u64 = kinds.iter().map(|kind| kind["layers"].as_u64().unwrap()).sum();
    assert_eq!((kinds.len(), layers), (2, 4));
}

#[test]
fn plan_forecasts_a_preset_and_leaves_nothing_behind() {
    let dir = Dir::new();
    let disk = dir.path().to_str().unwrap();
    let report = plan("tiny", &["--disk-path", disk, "--quant", "q8_0"]);
    check_forecast(&report);
    assert_eq!(report["on_disk"], Value::Bool(false));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the temporary file is gone");
    let huge = ["plan", "tiny", "--disk-path", disk, "--probe-size", "100000TiB"];
    fails(&huge, &["temporary file", "free", "--disk-path"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was written");
    fails(&["plan", "nonesuch"], &["nonesuch", "preset", "qwen3.5-35b-a3b"]);
}

#[test]
fn plan_says_what_does_not_fit() {
    let dir = Dir::new();
    let disk = dir.path().to_str().unwrap();
    let args = ["plan", "tiny", "--disk-path", disk, "--probe-size", "4MiB", "--memory", "1MiB"];
    let output = flash_moe(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("does not fit into 1.00 MiB of memory"));
    // One sentence is the answer; what it is made from is there for those who ask.
    let enough = ["plan", "tiny", "--disk-path", disk, "--probe-size", "4MiB", "--memory", "256MiB"];
    let sentence = ok(&enough).replace('\n', " ");
    for part in ["tiny at q4_K", "will run here in 256.0 MiB", "tokens/s", "of disk", "are free."] {
        assert!(sentence.contains(part), "{part} in {sentence}");
    }
    let details = ok(&[&enough[..], &["--details"]].concat());
    assert!(details.contains("real text") && details.contains("drive "), "{details}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("at least"));
    let output = flash_moe(&[&args[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["fits"], &report["plan"]), (&Value::Bool(false), &Value::Null));
}
