//! Options from the environment and a config file, completions, manual pages, the version, and the log.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "what other tests use")]
mod common;

use std::fs;
use std::process::Output;

use common::{Dir, command, ok};

fn with(variables: &[(&str, &str)], args: &[&str]) -> Output {
    command().args(args).envs(variables.iter().copied()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn options_come_from_the_file_the_environment_and_the_command_line() {
    let dir = Dir::new();
    let config = dir.path().join("config.toml");
    fs::write(&config, "memory = \"1MiB\"\n\n[run]\nmax_tokens = 3\n").unwrap();
    let config = config.to_str().unwrap();
    let run = ["run", "demo", "Once", "--temp", "0", "--json"];

    let too_small = with(&[("FLASH_MOE_CONFIG", config)], &run);
    assert_eq!(too_small.status.code(), Some(1));
    assert!(stderr(&too_small).contains("budget of 1.00 MiB"), "{}", stderr(&too_small));

    let output = with(&[("FLASH_MOE_CONFIG", config), ("FLASH_MOE_MEMORY", "200MiB")], &run);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["generated_tokens"], 3, "from the file's table for `run`");
    assert_eq!(report["memory_budget_bytes"], 200 << 20, "the variable beats the file");
}

#[test]
fn a_bad_value_from_elsewhere_says_where_it_comes_from() {
    let output = with(&[("FLASH_MOE_MEMORY", "6QB")], &["run", "demo", "Once"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("FLASH_MOE_MEMORY"), "{}", stderr(&output));

    let output = with(&[("FLASH_MOE_MEMROY", "6GiB")], &["run", "demo", "Once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("FLASH_MOE_MEMROY belongs to no option"), "{}", stderr(&output));

    let output = with(&[("FLASH_MOE_CONFIG", "/nowhere/config.toml")], &["run", "demo", "Once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/config.toml"), "{}", stderr(&output));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = ok(&["completions", shell]);
        assert!(["simulate", "io-threads"].iter().all(|word| script.contains(word)), "{shell}");
    }
    assert!(ok(&["man"]).contains(".TH flash-moe"));
    let dir = Dir::new();
    ok(&["man", dir.path().to_str().unwrap()]);
    let page = fs::read_to_string(dir.path().join("flash-moe-run.1")).unwrap();
    assert!(page.contains("\\-\\-memory"), "{page}");
    assert!(dir.path().join("flash-moe.1").exists());
}

#[test]
fn the_version_tells_builds_and_machines_apart() {
    let long = ok(&["--version"]);
    for part in [env!("CARGO_PKG_VERSION"), "commit:", "target:", "build:", "instruction sets here: "] {
        assert!(long.contains(part), "{long}");
    }
    assert!(ok(&["-V"]).lines().count() == 1);
}

#[test]
fn the_log_shows_passes_and_reads_and_is_silent_unless_asked() {
    let run = ["run", "demo", "Once", "-n", "2", "--temp", "0"];
    assert!(!stderr(&with(&[], &run)).contains("read_wait_us"));
    let shown = stderr(&with(&[], &[&run[..], &["-vv"]].concat()));
    assert!(shown.contains("pass") && shown.contains("read_wait_us"), "{shown}");
    let shown = stderr(&with(&[("RUST_LOG", "experts=trace")], &run));
    assert!(shown.contains("fetch") && !shown.contains("read_wait_us"), "{shown}");
}
