//! Headers of models on the stand-in: enough to open them, and hardly any byte more.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use checkpoint::Checkpoint;
use common::{Hub as Server, Repo, noise};
use hub::{Headers, Hub, HubError, Settings, Silent, Wanted, Watch};
use tempfile::TempDir;

/// What a file is asked for at first.
const FIRST: u64 = 64 << 10;

struct Case {
    server: Server,
    settings: Settings,
    dir: TempDir,
}

impl Case {
    fn new(repo: Repo) -> Self {
        let server = Server::start();
        server.add("org/m", repo);
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(server.endpoint(), dir.path().join("hub"), dir.path().join("own"));
        settings.backoff = Duration::from_millis(1);
        Self { server, settings, dir }
    }

    fn headers(&self, name: &str) -> Result<Headers, HubError> {
        let Wanted::Repo(name) = Wanted::parse(name).unwrap() else { panic!("{name}") };
        let hub = Hub::new(&self.settings, &name);
        let watch = Watch { progress: &Silent, stop: &AtomicBool::new(false) };
        hub.headers(&hub.look(&name, watch)?, watch)
    }
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(path)
}

/// Names, formats, shapes and places of all tensors.
fn tensors(path: &Path) -> Vec<String> {
    let checkpoint = Checkpoint::open(path).unwrap();
    checkpoint.tensors().map(|tensor| format!("{tensor:?}")).collect()
}

#[test]
fn a_large_gguf_file_costs_its_header_only() {
    let mut bytes = fs::read(fixture("gguf/oddheads.gguf")).unwrap();
    // Nothing forbids more behind the last tensor.
    bytes.resize(40_000_000, 0);
    let case = Case::new(Repo::new().file("m-Q4_K_M.gguf", bytes));
    let headers = case.headers("org/m").unwrap();
    assert_eq!(tensors(&headers.path), tensors(&fixture("gguf/oddheads.gguf")));
    assert_eq!(headers.path.metadata().unwrap().len(), 40_000_000, "the length is the real one");
    assert_eq!(headers.fetched_bytes, case.server.served());
    assert!(headers.fetched_bytes <= 4 * FIRST, "{} bytes", headers.fetched_bytes);
    let dir = headers.dir().to_path_buf();
    drop(headers);
    assert!(!dir.exists() && !case.settings.cache.exists(), "nothing stays");
}

#[test]
fn all_parts_of_a_split_file_are_read() {
    let part = |number: usize| format!("published-0000{number}-of-00003.gguf");
    let repo = (1..=3).fold(Repo::new(), |repo, number| {
        repo.file(&format!("Q8_0/{}", part(number)), fs::read(fixture("gguf").join(part(number))).unwrap())
    });
    let case = Case::new(repo);
    case.server.faults(|faults| (faults.broken, faults.busy) = ((2, 1000), (1, 503)));
    let headers = case.headers("org/m:Q8_0").unwrap();
    assert_eq!(tensors(&headers.path), tensors(&fixture("gguf").join(part(1))));
}

#[test]
fn a_directory_costs_its_headers_and_its_configuration() {
    let directory = fixture("qwen35moe/published");
    let case = Case::new(Repo::of_directory(&directory));
    for no_ranges in [false, true] {
        case.server.faults(|faults| faults.no_ranges = no_ranges);
        let headers = case.headers("org/m").unwrap();
        assert_eq!(tensors(&headers.path), tensors(&directory));
        let shards = directory.read_dir().unwrap().flatten().map(|entry| entry.path());
        let shards =
            shards.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).count() as u64;
        assert!(headers.fetched_bytes <= (shards + 2) * FIRST, "{} bytes", headers.fetched_bytes);
        let tokenizer = headers.path.join("tokenizer.json");
        let expected = directory.join("tokenizer.json").metadata().map_or(0, |file| file.len());
        assert_eq!(tokenizer.metadata().map_or(0, |file| file.len()), expected);
    }
}

#[test]
fn what_is_no_model_is_named_with_its_repository() {
    let safetensors = |header: u64| [&header.to_le_bytes()[..], &noise(100, 2)].concat();
    for (path, bytes, expected) in [
        ("m-Q8_0.gguf", noise(200_000, 1), "org/m/m-Q8_0.gguf: "),
        ("model.safetensors", safetensors(u64::MAX), "org/m/model.safetensors: not a safetensors file"),
        ("model.safetensors", vec![1, 2, 3], "model.safetensors"),
    ] {
        let case = Case::new(Repo::new().file("config.json", b"{}".to_vec()).file(path, bytes));
        let error = case.headers("org/m").map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(case.dir.path().join("own").read_dir().unwrap().count(), 0);
    }
    let case = Case::new(Repo::new().file("m-Q8_0.gguf", noise(200_000, 1)));
    case.server.faults(|faults| faults.gated = true);
    let error = case.headers("org/m").map(drop).unwrap_err();
    assert!(matches!(error, HubError::Refused { status: 403, .. }), "{error}");
}

#[test]
fn directories_of_killed_processes_are_removed_and_others_are_not() {
    let case = Case::new(Repo::new().file("m-Q8_0.gguf", fs::read(fixture("gguf/qwen3.gguf")).unwrap()));
    let left = case.dir.path().join("own/headers-1-0");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("flash-moe.lock"), "").unwrap();
    let first = case.headers("org/m").unwrap();
    assert!(!left.exists());
    let second = case.headers("org/m").unwrap();
    assert!(first.path.exists() && second.path.exists());
}
