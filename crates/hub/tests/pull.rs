//! Downloads from the stand-in, whole and with everything going wrong that can.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Hub as Server, Repo, noise};
use hub::{Hub, HubError, Progress, Pulled, RepoName, Settings, Silent, Wanted, Watch};
use tempfile::TempDir;

const CHUNK: u64 = 100_000;
/// Ten chunks and a bit.
const LARGE: usize = 1_000_123;
const COMMIT: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

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
        settings.chunk_bytes = CHUNK;
        settings.connections = 3;
        settings.backoff = Duration::from_millis(1);
        Self { server, settings, dir }
    }

    fn large() -> Self {
        Self::new(Repo::new().file("m-Q4_K_M.gguf", noise(LARGE, 1)))
    }

    fn pull_watched(&self, name: &str, watch: Watch<'_>) -> Result<Pulled, HubError> {
        let name = repo_name(name);
        let hub = Hub::new(&self.settings, &name);
        hub.pull(&hub.look(&name, watch)?, watch)
    }

    fn pull(&self, name: &str) -> Result<Pulled, HubError> {
        self.pull_watched(name, Watch { progress: &Silent, stop: &AtomicBool::new(false) })
    }

    fn error(&self, name: &str) -> String {
        self.pull(name).unwrap_err().to_string()
    }

    fn repo_dir(&self) -> PathBuf {
        self.settings.cache.join("models--org--m")
    }

    /// Names of the files among the blobs.
    fn blobs(&self) -> Vec<String> {
        let Ok(entries) = self.repo_dir().join("blobs").read_dir() else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn repo_name(name: &str) -> RepoName {
    match Wanted::parse(name).unwrap() {
        Wanted::Repo(name) => name,
        Wanted::Url(url) => panic!("{url}"),
    }
}

fn assert_is(path: &Path, expected: &[u8]) {
    assert!(fs::read(path).unwrap() == expected, "{} has other bytes", path.display());
}

/// Writes down all that it is told, and may stop at a position.
#[derive(Default)]
struct Notes {
    remarks: Mutex<Vec<String>>,
    last: Mutex<(u64, u64)>,
    stop_at: u64,
    stop: AtomicBool,
}

impl Notes {
    fn watch(&self) -> Watch<'_> {
        Watch { progress: self, stop: &self.stop }
    }
}

impl Progress for Notes {
    fn begin(&self, total: u64, done: u64) {
        *self.last.lock().unwrap() = (done, total);
    }

    fn file(&self, _: &str) {}

    fn position(&self, done: u64) {
        self.last.lock().unwrap().0 = done;
        if self.stop_at > 0 && done >= self.stop_at {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn remark(&self, text: &str) {
        self.remarks.lock().unwrap().push(text.into());
    }
}

#[test]
fn a_file_comes_in_parts_into_the_layout_that_others_share() {
    let case = Case::large();
    case.server.faults(|faults| faults.page = 1);
    let notes = Notes::default();
    let pulled = case.pull_watched("org/m:q4_k_m", notes.watch()).unwrap();
    assert_eq!((pulled.files, pulled.bytes, pulled.fetched_bytes), (1, LARGE as u64, LARGE as u64));
    assert_eq!(*notes.last.lock().unwrap(), (LARGE as u64, LARGE as u64));
    let snapshot = case.repo_dir().join("snapshots").join(COMMIT);
    assert_eq!(pulled.path, snapshot.join("m-Q4_K_M.gguf"));
    assert_is(&pulled.path, &noise(LARGE, 1));
    assert_eq!(fs::read_to_string(case.repo_dir().join("refs/main")).unwrap(), COMMIT);
    assert_eq!(case.blobs().len(), 1, "no part is left: {:?}", case.blobs());
    assert!(fs::symlink_metadata(&pulled.path).unwrap().is_symlink());
    let ranges = case.server.seen().into_iter().filter(|seen| !seen.hub).count();
    assert_eq!((ranges, case.server.take_served()), (11, LARGE as u64), "one request for each chunk");

    let registry = hub::Registry::read(&case.repo_dir()).unwrap();
    assert!(registry.has(COMMIT, "m-Q4_K_M.gguf"), "what was pulled may be removed");
    let again = case.pull("org/m").unwrap();
    assert_eq!((again.fetched_bytes, case.server.served()), (0, 0), "what is here is not fetched again");
    assert_eq!(again.path, pulled.path);
}

#[test]
fn a_directory_brings_all_that_belongs_to_the_model() {
    let repo = Repo::new()
        .license("apache-2.0")
        .file("config.json", b"{}".to_vec())
        .file("generation_config.json", Vec::new())
        .file("tokenizer.json", noise(70_000, 2))
        .file("chat_template.jinja", b"x".to_vec())
        .file("model.safetensors.index.json", b"{}".to_vec())
        .file("model-00001-of-00002.safetensors", noise(LARGE, 3))
        .file("model-00002-of-00002.safetensors", noise(150_000, 4))
        .file("pytorch_model.bin", noise(100, 5));
    let case = Case::new(repo);
    let pulled = case.pull("https://huggingface.co/org/m").unwrap();
    assert_eq!(pulled.files, 7);
    assert_is(&pulled.path.join("model-00001-of-00002.safetensors"), &noise(LARGE, 3));
    assert_is(&pulled.path.join("generation_config.json"), b"");
    assert!(!pulled.path.join("pytorch_model.bin").exists());
}

#[test]
fn split_files_come_together_and_paths_are_kept() {
    let [first, second] = [1, 2].map(|number| format!("BF16/my m-BF16-0000{number}-of-00002.gguf"));
    let repo = Repo::new().file(&first, noise(200_000, 6)).file(&second, noise(90_000, 7));
    let case = Case::new(repo);
    let pulled = case.pull("org/m:BF16@refs/pr/1").unwrap();
    assert_eq!((pulled.files, pulled.bytes), (2, 290_000));
    assert!(pulled.path.ends_with(&first), "{}", pulled.path.display());
    assert_is(&pulled.path.with_file_name("my m-BF16-00002-of-00002.gguf"), &noise(90_000, 7));
}

#[test]
fn an_incomplete_split_and_a_missing_quantisation_are_refused_before_any_byte() {
    let case = Case::new(Repo::new().file("m-Q8_0-00001-of-00002.gguf", noise(100, 1)));
    assert!(case.error("org/m").contains("one of 2 files, of which only 1"), "{}", case.error("org/m"));
    let case = Case::large();
    let error = case.error("org/m:Q2_K");
    assert!(error.contains("there is no Q2_K; it has Q4_K_M (1.0 MB)"), "{error}");
    assert_eq!(case.server.served(), 0);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let mut case = Case::large();
    case.server.faults(|faults| faults.token = Some("hf_secret".into()));
    let error = case.error("org/m");
    let page = format!("{}/org/m", case.server.endpoint());
    assert!(error.contains("401") && error.contains(&page) && error.contains("HF_TOKEN"), "{error}");
    case.settings.token = Some("hf_wrong".into());
    assert!(case.error("org/m").contains("the token is not valid"), "{}", case.error("org/m"));
    case.settings.token = Some("hf_secret".into());
    case.pull("org/m").unwrap();
    let seen = case.server.seen();
    assert!(seen.iter().any(|seen| seen.hub && seen.authorized));
    assert!(seen.iter().all(|seen| seen.hub || !seen.authorized), "the token reached another host");
    let shown = format!("{:?}", case.settings);
    assert!(!shown.contains("hf_secret"), "{shown}");
}

#[test]
fn a_hub_in_the_name_gets_no_token_and_a_place_of_its_own() {
    let mut case = Case::large();
    let name = format!("{}/org/m:Q4_K_M", case.server.endpoint());
    case.settings.endpoint = "http://127.0.0.1:9".into();
    case.settings.token = Some("hf_secret".into());
    let pulled = case.pull(&name).unwrap();
    assert!(pulled.path.starts_with(case.dir.path().join("own/hubs")), "{}", pulled.path.display());
    assert!(case.server.seen().iter().all(|seen| !seen.authorized));
}

#[test]
fn gated_repositories_say_what_to_do() {
    let case = Case::large();
    case.server.faults(|faults| faults.gated = true);
    let error = case.error("org/m");
    let page = format!("accept its terms at {}/org/m, then set HF_TOKEN", case.server.endpoint());
    assert!(error.contains("403: Access to this model is restricted") && error.contains(&page), "{error}");
}

#[test]
fn absent_things_are_named() {
    let case = Case::large();
    let error = case.error("org/other");
    assert!(error.contains("org/other: the hub has no such repository (404"), "{error}");
    assert!(case.error("org/m@v2").contains("no such revision"), "{}", case.error("org/m@v2"));
    let asked = case.server.seen().len();
    let error = case.error("org/m:other.gguf");
    assert!(error.contains("there is no other.gguf; it has Q4_K_M"), "{error}");
    assert!(case.server.seen().len() - asked == 2, "the listing was asked once");
}

#[test]
fn a_busy_hub_is_waited_for_and_given_up_in_the_end() {
    let case = Case::large();
    for status in [429, 503] {
        case.server.faults(|faults| (faults.busy, faults.retry_after) = ((3, status), Some(0)));
        let _ = fs::remove_dir_all(case.repo_dir());
        case.pull("org/m").unwrap();
    }
    case.server.faults(|faults| faults.busy = (100, 503));
    fs::remove_dir_all(case.repo_dir()).unwrap();
    let error = case.error("org/m");
    assert!(error.contains("503: Come back later.") && error.contains("after 6 attempts"), "{error}");
}

#[test]
fn without_ranges_the_file_comes_as_one_stream() {
    let case = Case::large();
    case.server.faults(|faults| (faults.no_ranges, faults.broken) = (true, (2, 450_000)));
    let notes = Notes::default();
    let pulled = case.pull_watched("org/m", notes.watch()).unwrap();
    assert_is(&pulled.path, &noise(LARGE, 1));
    assert_eq!(*notes.last.lock().unwrap(), (LARGE as u64, LARGE as u64));
}

#[test]
fn connections_that_die_are_taken_up_where_they_ended() {
    let case = Case::large();
    case.server.faults(|faults| faults.broken = (9, 70_000));
    let notes = Notes::default();
    let pulled = case.pull_watched("org/m", notes.watch()).unwrap();
    assert_is(&pulled.path, &noise(LARGE, 1));
    assert_eq!(case.server.served(), LARGE as u64, "no byte came twice");
    assert_eq!(*notes.last.lock().unwrap(), (LARGE as u64, LARGE as u64));
    // Without any progress patience ends.
    case.server.faults(|faults| faults.broken = (1000, 0));
    fs::remove_dir_all(case.repo_dir()).unwrap();
    let error = case.error("org/m");
    assert!(error.contains("after 6 attempts") && !error.contains("secret"), "{error}");
}

#[test]
fn an_address_that_has_expired_is_asked_for_anew() {
    let case = Case::large();
    let notes = Notes { stop_at: 1, ..Notes::default() };
    assert!(matches!(case.pull_watched("org/m", notes.watch()), Err(HubError::Cancelled { .. })));
    // The first answer is good; then the address is refused three times.
    case.server.faults(|faults| faults.hold_at = Some(case.server.served()));
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| case.pull("org/m"));
        while case.server.waiting() == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        case.server.faults(|faults| (faults.expired, faults.hold_at) = (3, None));
        assert_is(&pull.join().unwrap().unwrap().path, &noise(LARGE, 1));
    });
}

#[test]
fn a_wrong_checksum_leaves_nothing_and_names_both() {
    for (path, bytes, kind) in [("m-Q4_K_M.gguf", LARGE, "SHA-256"), ("m-Q8_0.gguf", 500, "git")] {
        let repo = Repo::new().file(path, noise(bytes, 1));
        let expected = repo.hash(path);
        let case = Case::new(repo);
        case.server.faults(|faults| faults.corrupt = Some(path.into()));
        let error = case.pull("org/m").unwrap_err();
        let HubError::Checksum { got, .. } = &error else { panic!("{error}") };
        assert_ne!(*got, expected);
        let text = error.to_string();
        let expected = format!("the {kind} checksum is {got} instead of {expected}");
        assert!(text.contains(&expected) && text.contains(path), "{text}");
        assert_eq!(case.blobs(), [""; 0]);
        case.server.faults(|faults| faults.corrupt = None);
        case.pull("org/m").unwrap();
    }
}

#[test]
fn files_that_change_meanwhile_are_noticed() {
    let case = Case::large();
    case.server.faults(|faults| faults.wrong_length = true);
    assert!(case.error("org/m").contains("size 1000123, now 1000124"), "{}", case.error("org/m"));
    case.server.faults(|faults| faults.no_ranges = true);
    assert!(case.error("org/m").contains("size 1000123, now 1000124"), "{}", case.error("org/m"));
    case.server.faults(|faults| (faults.wrong_length, faults.other_commit) = (false, true));
    assert!(case.error("org/m").contains("it changed on the hub"), "{}", case.error("org/m"));
}

#[test]
fn a_stopped_pull_goes_on_where_it_ended() {
    let case = Case::large();
    let notes = Notes { stop_at: 550_000, ..Notes::default() };
    let error = case.pull_watched("org/m", notes.watch()).unwrap_err();
    assert!(matches!(error, HubError::Cancelled { .. }), "{error}");
    assert!(!case.blobs().is_empty() && !case.repo_dir().join("refs/main").exists());
    let before = case.server.take_served();
    let hub = Hub::new(&case.settings, &repo_name("org/m"));
    let watch = Watch { progress: &Silent, stop: &AtomicBool::new(false) };
    let missing = hub.look(&repo_name("org/m"), watch).unwrap().missing_bytes();
    assert!(missing < LARGE as u64 && missing % CHUNK == LARGE as u64 % CHUNK, "{missing}");
    let pulled = case.pull("org/m").unwrap();
    assert_is(&pulled.path, &noise(LARGE, 1));
    assert_eq!((case.server.served(), pulled.fetched_bytes), (missing, missing));
    // At most the chunks under way came twice.
    assert!(before + missing <= LARGE as u64 + 3 * CHUNK);
}

#[test]
fn damage_of_an_earlier_attempt_is_repaired() {
    let case = Case::large();
    let notes = Notes { stop_at: 550_000, ..Notes::default() };
    case.pull_watched("org/m", notes.watch()).unwrap_err();
    let part = case.blobs().into_iter().find(|name| name.ends_with("-part")).unwrap();
    let part = case.repo_dir().join("blobs").join(part);
    let length = part.metadata().unwrap().len();
    fs::write(&part, vec![0; length as usize]).unwrap();
    let notes = Notes::default();
    assert_is(&case.pull_watched("org/m", notes.watch()).unwrap().path, &noise(LARGE, 1));
    assert!(notes.remarks.lock().unwrap()[0].contains("damaged; fetching it anew"));
    assert_eq!(*notes.last.lock().unwrap(), (LARGE as u64, LARGE as u64));
}

#[test]
fn two_pulls_at_once_fetch_once() {
    let case = Case::large();
    case.server.faults(|faults| faults.hold_at = Some(1));
    let notes = [Notes::default(), Notes::default()];
    std::thread::scope(|scope| {
        let pulls = notes.each_ref().map(|notes| scope.spawn(|| case.pull_watched("org/m", notes.watch())));
        let waits = |notes: &Notes| notes.remarks.lock().unwrap().iter().any(|text| text.contains("waiting"));
        while !notes.iter().any(waits) {
            std::thread::sleep(Duration::from_millis(2));
        }
        case.server.faults(|faults| faults.hold_at = None);
        let pulled = pulls.map(|pull| pull.join().unwrap().unwrap());
        assert_eq!(pulled[0].path, pulled[1].path);
        assert_is(&pulled[0].path, &noise(LARGE, 1));
    });
    assert_eq!(case.server.served(), LARGE as u64);
    assert!(notes.iter().all(|notes| *notes.last.lock().unwrap() == (LARGE as u64, LARGE as u64)));
}

#[test]
fn a_small_disk_is_seen_before_any_byte() {
    let mut case = Case::large();
    case.settings.free_disk_bytes = |_| Some(999_999);
    let error = case.error("org/m");
    assert!(error.contains("1.0 MB more are needed and 999.9 kB are free"), "{error}");
    assert!(error.contains(case.repo_dir().to_str().unwrap()), "{error}");
    assert_eq!(case.server.served(), 0);
}

#[test]
fn names_that_lead_out_of_the_directory_write_nothing() {
    let case = Case::large();
    for path in ["../../evil.gguf", "/evil.gguf", "a/../../evil.gguf", "a\\..\\evil.gguf"] {
        case.server.faults(|faults| faults.listed = Some(path.into()));
        assert!(matches!(case.pull("org/m"), Err(HubError::UnsafePath { .. })), "{path}");
    }
    assert!(!case.settings.cache.exists());
}

#[test]
fn offline_nothing_is_asked() {
    let mut case = Case::large();
    case.settings.offline = true;
    assert!(matches!(case.pull("org/m"), Err(HubError::Offline { .. })));
    assert!(case.server.seen().is_empty());
}
