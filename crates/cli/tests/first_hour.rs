//! What a person meets in the first hour: advice that works, input that is used, true figures.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "what other tests use")]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::*;
use serde_json::Value;

/// Commands that refuse a prompt, and what they advise is tried.
#[test]
fn a_context_that_is_advised_is_accepted_and_none_is_where_none_would_be() {
    let prompt = "Once upon a time there was a dog. ".repeat(12);
    let short = ["run", "demo", &prompt, "-n", "1", "--temp", "0", "--ctx", "64"];
    let refused = fails(&short, &["prompt", "64", "--ctx"]);
    let ctx = refused.split("--ctx ").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap();
    ok(&[&short[..7], &["--ctx", ctx]].concat());
    // Within a budget that has no room for it, the memory is advised too, and that works.
    let least = fails(&["run", "demo", "x", "--memory", "8MiB", "--ctx", "32"], &["--memory"]);
    let memory = least.split("--memory ").nth(1).unwrap().split(' ').next().unwrap();
    let tight = ["run", "demo", &prompt, "-n", "1", "--temp", "0", "--ctx", "32", "--memory", memory];
    let refused = fails(&tight, &["prompt"]);
    if let Some(advice) = refused.split("; use ").nth(1).and_then(|advice| advice.split(", or").next()) {
        ok(&[&tight[..7], &advice.split(' ').collect::<Vec<_>>()].concat());
    }
    // The model's own limit is 2048: no context helps.
    let long = "dog ".repeat(3000);
    let refused = fails(&["run", "demo", &long, "--ctx", "64"], &["2048", "a shorter prompt"]);
    assert!(!refused.contains("--ctx"), "{refused}");
    fails(&["run", "demo", "x", "--ctx", "99999"], &["use --ctx 2048 or less"]);
}

fn prompt_tokens(output: &Output) -> u64 {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["prompt_tokens"].as_u64().unwrap()
}

#[test]
fn text_on_standard_input_is_context_of_the_prompt_argument() {
    let run = ["run", "demo", "Tell more", "-n", "1", "--temp", "0", "--json"];
    let alone = prompt_tokens(&flash_moe(&run));
    assert_eq!(prompt_tokens(&piped(&run, "")), alone);
    assert!(prompt_tokens(&piped(&run, "The dog ran home.")) >= alone + 4);
    let without = ["run", "demo", "-n", "1", "--temp", "0", "--json"];
    assert!(prompt_tokens(&piped(&without, "The dog ran home.")) > 4);
}

#[test]
fn empty_input_is_said_and_not_invented_on() {
    let empty = |output: Output| {
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("empty"));
    };
    empty(flash_moe(&["run", "demo", ""]));
    empty(flash_moe(&["run", "demo"]));
    empty(piped(&["run", "demo", " "], "\n"));
    empty(piped(&["run", "demo", "--raw", "-"], ""));
}

#[test]
fn a_budget_beyond_the_machine_is_warned_about() {
    let output = flash_moe(&["run", "demo", "x", "-n", "1", "--memory", "900TiB"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("warning: --memory"));
}

#[test]
fn what_was_sampled_and_from_where_is_said() {
    let run = |more: &[&str]| {
        let output = flash_moe(&[&["run", "demo", "Once", "-n", "4"], more].concat());
        String::from_utf8(output.stderr).unwrap()
    };
    let random = run(&["--temp", "0.7", "--top-k", "9"]);
    for part in ["temperature 0.7, top-k 9", "--temp, --top-k given", "seed "] {
        assert!(random.contains(part), "{part}: {random}");
    }
    let greedy = run(&["--temp", "0"]);
    assert!(greedy.contains("the likeliest token · --temp given") && !greedy.contains("seed"), "{greedy}");
}

/// Starts a slow prompt and sends SIGINT when it is under way.
#[cfg(unix)]
fn interrupted_in_prompt(options: &[&str]) -> Output {
    use std::io::Write;

    let prompt = "Once upon a time there was a small dragon who lived in a village. ".repeat(130);
    let mut delay = Duration::from_millis(700);
    loop {
        let mut child = command()
            .args(["run", "demo", "-n", "5", "--threads", "1", "--isa", "scalar"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(prompt.as_bytes()).unwrap();
        std::thread::sleep(delay);
        let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(signal.success());
        let output = child.wait_with_output().unwrap();
        // Without a code it was still loading.
        if output.status.code().is_some() || delay > Duration::from_secs(20) {
            return output;
        }
        delay *= 2;
    }
}

#[test]
#[cfg(unix)]
fn an_interrupted_prompt_has_no_figures_of_what_did_not_happen() {
    ok(&["inspect", "demo"]);
    let output = interrupted_in_prompt(&["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["finish_reason"], "cancelled");
    for key in [
        "time_to_first_token_s",
        "decode_expert_bytes_read",
        "hit_rate",
        "expert_bytes_per_token",
        "decode_tokens_per_s",
    ] {
        assert_eq!(found[key], Value::Null, "{key}");
    }
    assert!(found["prefill_expert_bytes_read"].as_u64().unwrap() > 0);
    let said = String::from_utf8(interrupted_in_prompt(&[]).stderr).unwrap();
    assert!(said.contains("stopped after") && said.contains("% of a prompt of"), "{said}");
    assert!(!said.contains("first token") && !said.contains("per token"), "{said}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.collect()
}

/// However a measurement of the drive ends, its file is gone.
#[test]
fn a_killed_plan_leaves_no_file() {
    let dir = Dir::new();
    let mut child = command()
        .args(["plan", "qwen3.5-35b-a3b", "--disk-path"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        // It may have a name for the moment in which it is opened.
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

/// The budget bounds the process also on the first run, which has to make the demo model.
#[test]
#[cfg(target_os = "linux")]
fn the_demo_stays_within_its_budget_also_on_its_first_run() {
    let cache = Dir::new();
    // A directory of a process that was killed.
    let left = cache.path().join("demo-work-77");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("lock"), "").unwrap();
    let run = |memory: &str| {
        let args =
            ["run", "demo", "Once upon a time", "-n", "8", "--temp", "0", "--json", "--memory", memory];
        let mut command = command();
        command.args(args).env("FLASH_MOE_CACHE", cache.path()).stdin(Stdio::null()).output().unwrap()
    };
    for memory in [48u64 << 20, 60 << 20] {
        let output = run(&memory.to_string());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let peak = report["peak_resident_bytes"].as_u64().unwrap();
        assert!(peak <= memory, "a peak of {peak} bytes with a budget of {memory}");
    }
    assert!(!left.exists(), "what a killed process left is removed");
    assert_eq!(files(cache.path()).len(), 1, "only the model is left");
}

#[test]
fn a_head_of_the_checkpoint_counts_whatever_a_flag_says() {
    let dir = Dir::new();
    let [own, tied] = ["own", "tied"].map(|name| dir.path().join(name));
    for path in [&own, &tied] {
        copy_dir(&fixture("../dense/llama"), path);
    }
    let logits = |path: &std::path::Path| {
        common::json(&["logits", path.to_str().unwrap(), "--tokens", "1,2,3", "--json"])["logits"].clone()
    };
    common::edit_json(&tied.join("config.json"), |config| config["tie_word_embeddings"] = true.into());
    let has_head = common::ok(&["inspect", own.to_str().unwrap(), "--json"]).contains("head");
    assert!(has_head);
    assert_eq!(logits(&tied), logits(&own));
}
