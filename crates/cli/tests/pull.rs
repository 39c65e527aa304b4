//! `flash-moe pull` against a stand-in hub, by a user who loses patience and connections.
#![allow(clippy::unwrap_used)]

#[path = "../../hub/tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use common::{Hub, Repo, noise};

/// How often something is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(2);
/// What one request asks for; eight of them are under way together, so that of nine one is complete.
const CHUNK: u64 = 8 << 20;
/// Ten chunks and a bit.
const LARGE: usize = 84_000_000;
const FILE: &str = "m-Q4_K_M.gguf";

struct Case {
    hub: Hub,
    home: tempfile::TempDir,
}

impl Case {
    fn new(repo: Repo) -> Self {
        let hub = Hub::start();
        hub.add("org/m", repo);
        Self { hub, home: tempfile::tempdir().unwrap() }
    }

    fn large() -> Self {
        Self::new(Repo::new().license("apache-2.0").file(FILE, noise(LARGE, 1)))
    }

    fn small() -> Self {
        let repo = Repo::new().file(FILE, noise(90_000, 1)).file("m-Q8_0.gguf", noise(99_000, 2));
        Self::new(repo.license("mit"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flash-moe"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("FLASH_MOE_CONFIG", "")
            .env("FLASH_MOE_CACHE", self.home.path().join("own"))
            .env("HF_HOME", self.hf_home())
            .env("HF_ENDPOINT", self.hub.endpoint())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn hf_home(&self) -> PathBuf {
        self.home.path().join("hf")
    }

    fn blobs(&self) -> PathBuf {
        self.hf_home().join("hub/models--org--m/blobs")
    }

    fn start(&self, name: &str) -> Child {
        self.command(&["pull", name]).spawn().unwrap()
    }

    fn pull(&self, name: &str) -> Output {
        self.command(&["pull", name]).output().unwrap()
    }

    /// The path that a pull which succeeds prints.
    fn ok(&self, name: &str) -> PathBuf {
        path_of(&self.pull(name))
    }

    /// The one line of a pull that fails.
    fn error(&self, name: &str) -> String {
        error_of(&self.pull(name))
    }

    /// Starts a pull that stands still after some bytes.
    fn held(&self, bytes: u64) -> Child {
        self.hub.faults(|faults| faults.hold_at = Some(bytes));
        let child = self.start("org/m");
        while self.hub.waiting() == 0 || self.hub.served() < bytes {
            thread::sleep(LOOK);
        }
        child
    }

    /// Waits until the journal has so many chunks.
    fn wait_for_chunks(&self, count: usize) {
        let journal = || {
            let entries = self.blobs().read_dir().into_iter().flatten().flatten();
            let path =
                entries.map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("-journal"));
            path.and_then(|path| fs::read(path).ok()).unwrap_or_default()
        };
        while journal().iter().filter(|byte| **byte == b'#').count() < count {
            thread::sleep(LOOK);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn path_of(output: &Output) -> PathBuf {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).trim_end().into()
}

fn error_of(output: &Output) -> String {
    let errors = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{errors}");
    errors.lines().last().unwrap().to_owned()
}

fn assert_is(path: &Path, expected: &[u8]) {
    assert!(fs::read(path).unwrap() == expected, "{} has other bytes", path.display());
}

#[test]
fn a_pull_says_what_it_got_and_what_to_type_next() {
    let case = Case::small();
    let output = case.pull("hf.co/org/m:q8_0");
    let path = path_of(&output);
    assert_is(&path, &noise(99_000, 2));
    assert!(path.starts_with(case.hf_home().join("hub/models--org--m/snapshots")), "{}", path.display());
    let said = text(&output.stderr);
    for part in ["99.0 kB in 1 file", "licence mit", "checksums are right", "try: flash-moe run org/m:q8_0"] {
        assert!(said.contains(part), "{part} in: {said}");
    }
    let said = text(&case.pull(&format!("{}/org/m/resolve/main/m-Q8_0.gguf", case.hub.endpoint())).stderr);
    assert!(said.contains("99.0 kB are here already"), "{said}");
    // The usual quantisation is named, so that the command can be typed.
    let said = text(&case.pull("org/m").stderr);
    assert!(said.contains("try: flash-moe run org/m:Q4_K_M"), "{said}");
}

#[test]
fn errors_teach() {
    let case = Case::small();
    let error = case.error("org/m:IQ1_S");
    assert!(error.contains("there is no IQ1_S; it has Q4_K_M (90.0 kB), Q8_0 (99.0 kB)"), "{error}");
    assert!(case.error("m").contains("write ORG/NAME"), "{}", case.error("m"));
    let error = case.error("org/n");
    assert!(error.contains("org/n: the hub has no such repository") && error.contains("spelling"), "{error}");
    case.hub.faults(|faults| faults.gated = true);
    let error = case.error("org/m");
    assert!(error.contains("accept its terms at") && error.contains("then set HF_TOKEN"), "{error}");
    let error = error_of(&case.command(&["pull", "org/m"]).env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    let error =
        error_of(&case.command(&["pull", "org/m"]).env("HF_ENDPOINT", "hub.example").output().unwrap());
    assert!(error.contains("HF_ENDPOINT is no http or https address"), "{error}");
    let nobody = ("HF_ENDPOINT", "http://127.0.0.1:9");
    let usage = case.command(&["pull"]).env(nobody.0, nobody.1).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn the_token_comes_from_the_variable_or_a_login() {
    let case = Case::small();
    case.hub.faults(|faults| faults.token = Some("hf_secret".into()));
    assert!(case.error("org/m").contains("401"), "{}", case.error("org/m"));
    let pull = case.command(&["pull", "org/m"]).env("HF_TOKEN", "hf_secret").output().unwrap();
    path_of(&pull);
    fs::write(case.hf_home().join("token"), "hf_secret\n").unwrap();
    case.ok("org/m:Q8_0");
    assert!(
        case.hub.seen().iter().all(|seen| seen.hub || !seen.authorized),
        "the token reached another host"
    );
}

#[test]
fn a_killed_pull_goes_on_and_fetches_the_rest_only() {
    let case = Case::large();
    let mut child = case.held(9 * CHUNK);
    // All that was sent and is a whole chunk has been noted before the kill.
    case.wait_for_chunks(1);
    child.kill().unwrap();
    child.wait().unwrap();
    let journal = case.blobs().read_dir().unwrap().flatten().map(|entry| entry.path());
    let journal =
        fs::read(journal.into_iter().find(|path| path.to_string_lossy().ends_with("-journal")).unwrap());
    let done = journal.unwrap().iter().filter(|byte| **byte == b'#').count() as u64;
    case.hub.faults(|faults| faults.hold_at = None);
    // Connections that the kill cut off send no more.
    while case.hub.waiting() > 0 {
        thread::sleep(LOOK);
    }
    let before = case.hub.seen().len();
    assert_is(&case.ok("org/m"), &noise(LARGE, 1));
    let chunks = case.hub.seen()[before..].iter().filter(|seen| !seen.hub).count() as u64;
    assert_eq!(chunks, (LARGE as u64).div_ceil(CHUNK) - done, "only missing chunks are asked for");
    assert_eq!(case.blobs().read_dir().unwrap().count(), 1, "nothing is left behind");
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_has_arrived() {
    let case = Case::large();
    let child = case.held(9 * CHUNK);
    case.wait_for_chunks(1);
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let error = error_of(&child.wait_with_output().unwrap());
    assert!(error.contains("what has arrived is kept, and the same command goes on"), "{error}");
    case.hub.faults(|faults| faults.hold_at = None);
    let before = case.hub.seen().len();
    assert_is(&case.ok("org/m"), &noise(LARGE, 1));
    let chunks = case.hub.seen()[before..].iter().filter(|seen| !seen.hub).count() as u64;
    assert!(chunks < (LARGE as u64).div_ceil(CHUNK), "{chunks} chunks");
}

#[test]
fn two_processes_fetch_a_file_once() {
    let case = Case::large();
    let first = case.held(CHUNK);
    let second = case.start("org/m");
    // The second one has read the listing and stands before the lock, or soon will.
    while case.hub.seen().iter().filter(|seen| seen.path.contains("/tree/")).count() < 2 {
        thread::sleep(LOOK);
    }
    case.hub.faults(|faults| faults.hold_at = None);
    let paths = [first, second].map(|child| path_of(&child.wait_with_output().unwrap()));
    assert_eq!(paths[0], paths[1]);
    assert_is(&paths[0], &noise(LARGE, 1));
    assert_eq!(case.hub.served(), LARGE as u64, "every byte came once");
}

#[test]
fn broken_connections_and_busy_hubs_are_survived() {
    let case = Case::large();
    case.hub.faults(|faults| {
        faults.broken = (7, CHUNK / 2);
        (faults.busy, faults.retry_after) = ((2, 429), Some(0));
    });
    assert_is(&case.ok("org/m"), &noise(LARGE, 1));
    fs::remove_dir_all(case.hf_home()).unwrap();
    case.hub.faults(|faults| (faults.no_ranges, faults.busy) = (true, (1, 503)));
    assert_is(&case.ok("org/m"), &noise(LARGE, 1));
}

#[test]
fn a_wrong_checksum_is_an_error_that_names_both() {
    let repo = Repo::new().file(FILE, noise(90_000, 1));
    let expected = repo.hash(FILE);
    let case = Case::new(repo);
    case.hub.faults(|faults| faults.corrupt = Some(FILE.into()));
    let error = case.error("org/m");
    assert!(error.contains(&format!("instead of {expected}")) && error.contains("removed"), "{error}");
    assert_eq!(case.blobs().read_dir().unwrap().count(), 0);
    case.hub.faults(|faults| (faults.corrupt, faults.wrong_length) = (None, true));
    let error = case.error("org/m");
    assert!(error.contains("it changed on the hub during the download (size 90000, now 90001)"), "{error}");
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf").join(name)).unwrap()
}

const PLAN: [&str; 5] = ["--probe-size", "4MiB", "-p", "8", "--memory=512MiB"];

#[test]
fn a_plan_by_name_reads_headers_and_says_what_a_plan_of_the_file_says() {
    let mut bytes = fixture("oddheads.gguf");
    bytes.resize(30_000_000, 0);
    let case = Case::new(Repo::new().license("mit").file(FILE, bytes));
    let plan = |name: &str, more: &[&str]| {
        let output = case.command(&[&["plan", name], &PLAN[..], more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        output
    };
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&plan(name, &["--json"]).stdout).unwrap()
    };
    let there = json("org/m");
    assert!(case.hub.take_served() < 300_000, "only headers");
    assert_eq!((&there["download_bytes"], &there["on_disk"]), (&30_000_000.into(), &false.into()));
    assert_eq!((&there["disk_needed_bytes"], &there["model"]), (&30_000_000.into(), &"org/m:Q4_K_M".into()));
    let said = plan("org/m:Q4_K_M", &[]);
    let sentence = text(&said.stdout).replace('\n', " ");
    assert!(sentence.contains("will run here in 512.0 MiB at about"), "{sentence}");
    assert!(sentence.contains("the download is 30.0 MB,"), "{sentence}");
    assert!(
        text(&said.stderr).contains("get it with: flash-moe pull org/m:Q4_K_M"),
        "{}",
        text(&said.stderr)
    );
    let left = case.home.path().join("own").read_dir().unwrap().count();
    assert_eq!((left, case.hf_home().exists()), (0, false), "a plan leaves nothing behind");

    let path = case.ok("org/m");
    let here = json(path.to_str().unwrap());
    for key in
        ["plan", "least_memory_bytes", "dense_bytes", "experts_bytes", "formats", "layers", "architecture"]
    {
        assert_eq!(there[key], here[key], "{key}");
    }
}

#[test]
fn a_plan_by_a_wrong_name_says_what_there_is() {
    let case = Case::small();
    let plan = |name: &str| error_of(&case.command(&[&["plan", name], &PLAN[..]].concat()).output().unwrap());
    assert!(plan("org/m:Q2_K").contains("it has Q4_K_M (90.0 kB), Q8_0 (99.0 kB)"), "{}", plan("org/m:Q2_K"));
    assert!(plan("org/n").contains("no such repository"), "{}", plan("org/n"));
    assert!(plan("org/m").contains("org/m/m-Q4_K_M.gguf: "), "noise is no model: {}", plan("org/m"));
}
