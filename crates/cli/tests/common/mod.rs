//! Running the binary, and models to spoil.
#![allow(clippy::unwrap_used)] // A test that cannot set itself up should panic.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
pub(crate) use tempfile::TempDir;

/// A shard of the fixture `published`.
pub(crate) const SHARD: &str = "model.safetensors-00002-of-00003.safetensors";

/// A temporary directory.
pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The binary, seeing nothing of the user's: its cache is in the build directory, so that the demo is
/// packed once for all tests, and the folders of models and settings there are empty.
pub(crate) fn command() -> Command {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let nothing = own.join("nothing");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flash-moe"));
    command.env("FLASH_MOE_CACHE", own.join("cache")).env("HOME", &nothing).env("USERPROFILE", &nothing);
    command.env("FLASH_MOE_MODELS", nothing.join("own")).env("OLLAMA_MODELS", nothing.join("ollama"));
    for name in
        ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH"]
    {
        command.env_remove(name);
    }
    for name in ["XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "HF_HUB_OFFLINE"] {
        command.env_remove(name);
    }
    command
}

/// Runs the binary.
pub(crate) fn flash_moe(args: &[&str]) -> Output {
    command().args(args).stdin(Stdio::null()).output().unwrap()
}

/// Runs the binary with `input` on its standard input.
pub(crate) fn piped(args: &[&str], input: &str) -> Output {
    let mut child = command()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Starts the binary with `input` on its standard input and kills it after a while, wherever it is then.
pub(crate) fn killed(args: &[&str], input: &str, after: std::time::Duration) {
    let mut child = command()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Standard output of a run that succeeds.
pub(crate) fn ok(args: &[&str]) -> String {
    let output = flash_moe(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one JSON object of a run that succeeds.
pub(crate) fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(args)).unwrap()
}

/// The error line of a run that fails with exit code 1; it must contain all `parts`.
pub(crate) fn fails(args: &[&str], parts: &[&str]) -> String {
    let output = flash_moe(args);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {errors}");
    assert!(output.stdout.is_empty(), "{args:?}: nothing on stdout");
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{args:?}: one line, not {errors}");
    assert_eq!(errors.lines().last(), Some(lines[0]), "{args:?}: it is the last: {errors}");
    for part in parts {
        assert!(lines[0].contains(part), "{args:?}: `{part}` in: {}", lines[0]);
    }
    lines[0].to_string()
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/qwen35moe").join(name)
}

pub(crate) fn copy_dir(source: &Path, target: &Path) {
    fs::create_dir_all(target).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
    }
}

/// A copy of a fixture without its golden values, to be spoilt.
pub(crate) fn copy_fixture(name: &str, dir: &Path) -> PathBuf {
    let target = dir.join(name);
    copy_dir(&fixture(name), &target);
    fs::remove_file(target.join("golden.safetensors")).unwrap();
    target
}

pub(crate) fn packed_fixture(name: &str, quant: &str, dir: &Path) -> PathBuf {
    let source = copy_fixture(name, dir);
    let target = dir.join(format!("{name}-packed"));
    ok(&["pack", source.to_str().unwrap(), target.to_str().unwrap(), "--quant", quant, "--verify"]);
    target
}

pub(crate) fn truncate(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - bytes).unwrap();
}

pub(crate) fn poke(path: &Path, at: usize, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).unwrap();
}

pub(crate) fn flip_byte(path: &Path, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 0x10;
    fs::write(path, content).unwrap();
}

/// Replaces the first occurrence of `from` by `to`, of the same length.
pub(crate) fn replace(path: &Path, from: &[u8], to: &[u8]) {
    let mut content = fs::read(path).unwrap();
    let at = content.windows(from.len()).position(|window| window == from).unwrap();
    content[at..at + to.len()].copy_from_slice(to);
    fs::write(path, content).unwrap();
}

pub(crate) fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
}

pub(crate) fn largest_file(dir: &Path, prefix: &str) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let matching = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    matching.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Makes a manifest claim the next version of the format, with a checksum that is right (docs/packed-format.md).
pub(crate) fn newer_version(path: &Path) {
    const COVERED: usize = 29;
    let text = fs::read_to_string(path).unwrap();
    let covered = text[COVERED..].replacen("\"version\":1", "\"version\":2", 1);
    let checksum = checkpoint::checksum(covered.as_bytes());
    fs::write(path, format!("{{\"checksum\":\"{checksum:016x}{covered}")).unwrap();
}
