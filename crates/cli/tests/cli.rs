//! The command line as scripts see it: streams, exit codes, JSON, and one line for each thing that can be wrong.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "what other tests use")]
mod common;

use std::fs;

use common::{Dir, copy_fixture, edit_json, fails, flash_moe, json, ok, packed_fixture};
use engine::synth::PRESETS;
use engine::{Format, IoEngine, IoMode, Isa, KvFormat, PolicyKind};
use serde_json::Value;

#[test]
fn help_teaches_and_bad_usage_exits_2() {
    let help = ok(&["--help"]);
    for command in ["run", "chat", "pack", "inspect", "logits", "eval", "synth"] {
        assert!(help.contains(command), "{help}");
    }
    for args in [
        &["run"][..],
        &["nonsense"],
        &["run", "demo", "x", "--memory", "6QB"],
        &["run", "demo", "x", "-n", "0"],
        &["run", "demo", "x", "--isa", "mmx"],
        &["pack", "somewhere"],
        &["pack", "a", "b", "--quant", "q9_Z"],
        &["logits", "demo"],
    ] {
        let output = flash_moe(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn demo_speaks_and_streams_the_same_text_whatever_the_memory() {
    let base = ["run", "demo", "Once upon a time", "-n", "48", "--temp", "0"];
    let text = ok(&base);
    assert!(text.split_whitespace().count() > 20, "{text}");
    let report = json(&[&base[..], &["--json"]].concat());
    assert_eq!(report["text"].as_str().map(str::trim_end), Some(text.trim_end()));
    for key in [
        "prompt_tokens",
        "generated_tokens",
        "time_to_first_token_s",
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "expert_bytes_per_token",
        "hit_rate",
        "peak_resident_bytes",
        "experts_per_token",
        "lossy",
    ] {
        assert!(!report[key].is_null(), "{key} in {report}");
    }
    assert_eq!((&report["lossy"], &report["kv"]), (&serde_json::json!([]), &Value::from("f16")));
    let lossy = json(&[&base[..], &["--json", "--kv", "q8_0"]].concat());
    assert_eq!((&lossy["lossy"], &lossy["kv"]), (&serde_json::json!(["kv q8_0"]), &Value::from("q8_0")));
    for extra in [["--slots", "4"], ["--threads", "1"], ["--io", "buffered"]] {
        let args: Vec<&str> = base.iter().chain(&extra).chain(&["--chunk", "4096"]).copied().collect();
        assert_eq!(ok(&args), text, "{extra:?}");
    }
}

#[test]
fn an_instruction_set_can_be_asked_for_if_the_machine_has_it() {
    let logits = |isa: &str| json(&["logits", "demo", "--tokens", "1,2,3", "--json", "--isa", isa]);
    assert!(logits("scalar")["logits"].as_array().unwrap().len() > 256);
    let elsewhere = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let output = flash_moe(&["logits", "demo", "--tokens", "1", "--isa", elsewhere]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("not on this machine; here it can be scalar"), "{message}");
}

#[test]
fn raw_completes_and_sampling_repeats_by_seed() {
    let sampled = |seed: &str| {
        ok(&["run", "demo", "The little dog", "--raw", "-n", "24", "--temp", "1", "--seed", seed])
    };
    assert_eq!(sampled("7"), sampled("7"));
    assert_ne!(sampled("7"), sampled("8"));
}

#[test]
fn inspect_and_eval_print_tables_and_json() {
    let table = ok(&["inspect", "demo"]);
    assert!(table.contains("routed experts") && table.contains("q8_0"), "{table}");
    assert_eq!(json(&["inspect", "demo", "--json"])["kind"], "packed container");
    let dir = Dir::new();
    let text = dir.path().join("text.txt");
    fs::write(&text, "The boy went to the river with his dog. The dog saw a fish and jumped into the water.")
        .unwrap();
    let report =
        json(&["eval", "demo", "--text", text.to_str().unwrap(), "--ctx", "16", "--stride", "8", "--json"]);
    let perplexity = report["perplexity"].as_f64().unwrap();
    assert!((2.0..200.0).contains(&perplexity), "{report}");
    assert_eq!((report["ctx"].as_u64(), report["stride"].as_u64()), (Some(16), Some(8)));
    let against = ["eval", "demo", "--text", text.to_str().unwrap(), "--ctx", "16", "--against", "demo"];
    let report = json(&[&against[..], &["--kv", "q8_0", "--against-kv", "f32", "--json"]].concat());
    for key in
        ["kl_mean_nats", "kl_error_nats", "kl_median_nats", "kl_p99_nats", "kl_max_nats", "top1_agreement"]
    {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}: {report}");
    }
    assert_eq!(report["lossy"], serde_json::json!(["kv q8_0"]));
    assert!((report["perplexity"].as_f64().unwrap() / perplexity - 1.0).abs() < 0.1, "{report} {perplexity}");
    let table = ok(&against);
    assert!(table.contains("divergence  0.000e0 ±") && table.contains("same top 1  100.000"), "{table}");
    let other = copy_fixture("flat", dir.path());
    let error = [&against[..6], &["--against", other.to_str().unwrap()]].concat();
    fails(&error, &["different vocabularies (8192 and 224 entries)", "--against"]);
}

#[test]
fn inspect_says_what_is_left_alone_and_which_rows_fell_back() {
    let dir = Dir::new();
    let model = copy_fixture("published", dir.path());
    let table = ok(&["inspect", model.to_str().unwrap()]);
    assert!(table.contains("left alone: vision tower"), "{table}");
    assert!(table.contains("left alone: multi-token prediction"), "{table}");
    let packed = packed_fixture("blocks256", "q4_K", dir.path());
    let table = ok(&["inspect", packed.to_str().unwrap()]);
    assert!(table.contains("experts' down_proj with rows of 64 are q5_0"), "{table}");
}

#[test]
fn logits_need_no_tokenizer_and_step_to_the_same_place() {
    let dir = Dir::new();
    let model = copy_fixture("flat", dir.path());
    let model = model.to_str().unwrap();
    let logits = |extra: &[&str]| -> Vec<f64> {
        let object = json(&[&["logits", model, "--tokens", "1,2,3,4", "--json"], extra].concat());
        object["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let (whole, stepped) = (logits(&[]), logits(&["--stepwise"]));
    assert_eq!(whole.len(), 224);
    assert!(whole.iter().zip(&stepped).all(|(a, b)| (a - b).abs() < 1e-3));
    fails(&["logits", model, "--tokens", "1,99999"], &["99999", "224"]);
}

#[test]
fn what_does_not_fit_says_what_would() {
    let error =
        fails(&["run", "demo", "Hello", "--memory", "8MiB"], &["--memory", "MiB", "at least", "slots"]);
    // The size it names is enough.
    let suggestion = error.split("--memory ").nth(1).unwrap().split(' ').next().unwrap();
    ok(&["run", "demo", "Hello", "-n", "2", "--memory", suggestion]);
    let long = "word ".repeat(400);
    fails(&["run", "demo", &long, "--ctx", "64"], &["prompt", "64", "--ctx"]);
    fails(&["run", "demo", "Hello", "--ctx", "99999999"], &["limit"]);
}

/// What is done to a checkpoint, how, and what the error line must contain.
type Spoilt = (&'static str, fn(&std::path::Path), &'static [&'static str]);

#[test]
fn broken_checkpoints_are_named() {
    let dir = Dir::new();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    fails(&["run", &path("nowhere"), "x"], &["nowhere"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    fails(&["inspect", &path("empty")], &["empty", "config.json"]);

    let cases: &[Spoilt] = &[
        ("truncated shard", |model| common::truncate(&model.join(common::SHARD), 4096), &[common::SHARD]),
        (
            "header beyond the file",
            |model| common::poke(&model.join(common::SHARD), 0, &u64::MAX.to_le_bytes()),
            &[common::SHARD],
        ),
        (
            "unknown dtype",
            |model| common::replace(&model.join(common::SHARD), b"\"BF16\"", b"\"XF16\""),
            &["XF16"],
        ),
        ("missing shard", |model| fs::remove_file(model.join(common::SHARD)).unwrap(), &[common::SHARD]),
        (
            "index names an absent tensor",
            |model| {
                edit_json(&model.join("model.safetensors.index.json"), |index| {
                    let shard = Value::String(common::SHARD.into());
                    index["weight_map"]["model.language_model.layers.99.bogus"] = shard;
                });
            },
            &["layers.99.bogus"],
        ),
        (
            "config is not JSON",
            |model| fs::write(model.join("config.json"), "{\"model_type\": ").unwrap(),
            &["config.json"],
        ),
        (
            "config without a key",
            |model| {
                edit_json(&model.join("config.json"), |config| {
                    config["text_config"].as_object_mut().unwrap().remove("num_experts");
                });
            },
            &["num_experts"],
        ),
        (
            "absurd value",
            |model| {
                edit_json(&model.join("config.json"), |config| {
                    config["text_config"]["hidden_size"] = (-3).into()
                });
            },
            &["hidden_size", "-3"],
        ),
        (
            "more experts per token than experts",
            |model| {
                edit_json(&model.join("config.json"), |config| {
                    config["text_config"]["num_experts_per_tok"] = 4000.into()
                });
            },
            &["num_experts_per_tok", "4000"],
        ),
        (
            "shape against config",
            |model| {
                edit_json(&model.join("config.json"), |config| {
                    config["text_config"]["vocab_size"] = 1000.into()
                });
            },
            &["embed_tokens.weight", "1000"],
        ),
        (
            "another architecture",
            |model| {
                edit_json(&model.join("config.json"), |config| config["model_type"] = "gpt2".into());
            },
            &["gpt2", "qwen3_5_moe"],
        ),
    ];
    for (what, spoil, parts) in cases {
        let dir = Dir::new();
        // Its name stands in the error line, and so in what a failing test prints.
        let place = dir.path().join(what);
        let model = copy_fixture("published", &place);
        ok(&["logits", model.to_str().unwrap(), "--tokens", "1"]);
        spoil(&model);
        fails(&["logits", model.to_str().unwrap(), "--tokens", "1,2"], parts);
    }
}

#[test]
fn broken_containers_are_named() {
    let dir = Dir::new();
    let whole = packed_fixture("published", "q8_0", dir.path());
    let container = |name: &str| {
        let target = dir.path().join(name);
        common::copy_dir(&whole, &target);
        target
    };
    let logits = |model: &std::path::Path, parts: &[&str]| {
        fails(&["logits", model.to_str().unwrap(), "--tokens", "1,2,3,4,5,6,7,8"], parts);
    };
    let model = container("manifest");
    common::flip_byte(&model.join("manifest.json"), 300);
    logits(&model, &["manifest.json"]);

    let model = container("dense");
    common::flip_byte(&model.join("dense.bin"), 200);
    logits(&model, &["dense.bin", "checksum"]);
    fails(&["pack", "--verify", model.to_str().unwrap()], &["dense.bin"]);

    let model = container("expert");
    let experts = common::largest_file(&model, "experts-");
    for at in (0..fs::metadata(&experts).unwrap().len()).step_by(4096) {
        common::flip_byte(&experts, at as usize + 8);
    }
    logits(&model, &["experts-", "expert", "checksum"]);
    fails(&["pack", "--verify", model.to_str().unwrap()], &["experts-"]);

    let model = container("truncated");
    common::truncate(&common::largest_file(&model, "experts-"), 4096);
    logits(&model, &["experts-"]);

    let model = container("unfinished");
    fs::remove_file(model.join("manifest.json")).unwrap();
    logits(&model, &["unfinished"]);

    let model = container("newer");
    common::newer_version(&model.join("manifest.json"));
    logits(&model, &["newer"]);
}

#[test]
fn a_trace_is_recorded_and_replayed() {
    let dir = Dir::new();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (trace, plot) = (path("run.trace"), path("plot.svg"));
    let run = ["run", "demo", "Once upon a time", "--raw", "-n", "32", "--temp", "0", "--slots", "60"];
    let policy = ["--policy", "lru", "--lookahead", "off", "--trace", &trace, "--json"];
    let report = json(&[&run[..], &policy].concat());
    let simulated = json(&["simulate", &trace, "--slots", "20,60", "--plot", &plot, "--json"]);
    let rows = simulated["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let rate = |index: usize| row["policies"][index]["hit_rate"].as_f64().unwrap();
        assert!(rate(2) >= rate(0) && rate(2) >= rate(1), "{row}");
    }
    assert!((0.0..1.0).contains(&report["hit_rate"].as_f64().unwrap()));
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.matches("<polyline").count() == 3);
    assert!(ok(&["simulate", &trace, "--budgets", "4MiB,8MiB"]).contains("optimum"));
    fails(&["simulate", &plot], &["plot.svg", "not a trace"]);
    fails(&["simulate", &path("none")], &["none"]);
    assert_eq!(flash_moe(&["simulate", &trace, "--budgets", "1"]).status.code(), Some(2));
}

#[test]
fn synth_writes_a_model_that_runs_and_lists_its_presets() {
    let dir = Dir::new();
    let target = dir.path().join("tiny");
    let target = target.to_str().unwrap();
    let report = json(&["synth", "tiny", target, "--disk", "10MiB", "--seed", "3", "--json"]);
    assert_eq!((report["record_files"].as_u64(), report["layers"].as_u64()), (Some(2), Some(4)));
    ok(&["pack", target, "--verify"]);
    let logits = json(&["logits", target, "--tokens", "1,2,3", "--json"]);
    assert_eq!(logits["logits"].as_array().map(Vec::len), Some(1024));
    assert_eq!(json(&["inspect", target, "--json"])["synthetic"]["sharing_factor"], 2.0);
    fails(&["synth", "tiny", target], &[target, "empty"]);
    let other = dir.path().join("other");
    let other = other.to_str().unwrap();
    fails(&["synth", "tiny", other, "--disk", "1MiB"], &["--disk", "or more"]);
    for args in [&["synth", "qwen", other][..], &["synth", "tiny", other, "--skew", "9"]] {
        let output = flash_moe(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    let errors = String::from_utf8(flash_moe(&["synth", "qwen", other]).stderr).unwrap();
    assert!(errors.contains("qwen3.5-397b-a17b"), "{errors}");
}

/// The lists in the help come from the tables of the libraries, so none can be out of date.
#[test]
fn help_lists_all_there_is() {
    let help = |command: &str| ok(&[command, "--help"]);
    let lists = |text: &str, name: &str| {
        text.split([' ', '\n', ',', '[', ']']).any(|word| word.trim_end_matches('.') == name)
    };
    for command in ["pack", "synth", "plan"] {
        let text = help(command);
        for format in Format::ALL {
            assert_eq!(lists(&text, format.name()), format.can_encode(), "{format} in the help of {command}");
        }
        for preset in PRESETS.iter().filter(|_| command != "pack") {
            assert!(lists(&text, preset.name), "{} in the help of {command}", preset.name);
        }
    }
    let text = help("run");
    let all = KvFormat::ALL
        .iter()
        .map(|format| format.name())
        .chain(PolicyKind::ALL.iter().map(|kind| kind.name()));
    let all = all.chain(IoMode::ALL.iter().map(|mode| mode.name()));
    let all = all.chain(IoEngine::ALL.iter().map(|engine| engine.name()));
    for name in all.chain(Isa::ALL.iter().map(|isa| isa.name())) {
        assert!(lists(&text, name), "{name} in the help of run");
    }
}
