//! Made-up folders of every program, whole and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::{HubError, Registry};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";
const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, content).expect("written");
        path
    }

    /// A file of a snapshot as a link to its blob, as Hugging Face's tools make it.
    #[cfg(unix)]
    fn snapshot(&self, repo: &str, commit: &str, file: &str, blob: &str) -> PathBuf {
        let folder = format!("hub/models--{}", repo.replace('/', "--"));
        let target = self.path(&format!("{folder}/blobs/{blob}"));
        if !target.exists() {
            self.write(&format!("{folder}/blobs/{blob}"), format!("GGUF {blob}"));
        }
        let link = self.path(&format!("{folder}/snapshots/{commit}/{file}"));
        fs::create_dir_all(link.parent().expect("a parent")).expect("a folder");
        let ups = "../".repeat(2 + file.matches('/').count());
        std::os::unix::fs::symlink(format!("{ups}blobs/{blob}"), &link).expect("linked");
        link
    }

    fn refer(&self, repo: &str, revision: &str, commit: &str) {
        self.write(&format!("hub/models--{}/refs/{revision}", repo.replace('/', "--")), commit);
    }

    fn ollama(&self, name: &str, digest: &str, size: usize) -> PathBuf {
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": { "digest": format!("sha256:{}", "c".repeat(64)), "mediaType": "x" },
            "layers": [
                { "mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": size },
                { "mediaType": "application/vnd.ollama.image.template", "digest": digest },
            ],
        });
        self.write(&format!("ollama/manifests/{name}"), manifest.to_string())
    }

    fn places(&self) -> Places {
        Places {
            own: Some(self.path("own")),
            hf: vec![self.path("hub")],
            lmstudio: vec![self.path("lms")],
            ollama: vec![self.path("ollama")],
        }
    }

    fn find(&self) -> Local {
        Local::find(&self.places())
    }
}

fn names(local: &Local) -> Vec<&str> {
    local.models.iter().map(|model| model.name.as_str()).collect()
}

fn one<'a>(local: &'a Local, name: &str) -> (&'a str, Way) {
    match local.look_up(name) {
        Match::One(model, way) => (model.name.as_str(), way),
        other => panic!("{name}: {other:?}"),
    }
}

fn several<'a>(local: &'a Local, name: &str) -> Vec<&'a str> {
    match local.look_up(name) {
        Match::Several(models) => models.iter().map(|model| model.name.as_str()).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

fn near<'a>(local: &'a Local, name: &str) -> Vec<&'a str> {
    match local.look_up(name) {
        Match::None(near) => near,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn no_folders_are_no_models_and_no_remarks() {
    let local = Home::new().find();
    assert!(local.models.is_empty() && local.remarks.is_empty(), "{local:?}");
}

#[cfg(unix)]
#[test]
fn the_hugging_face_cache_is_read_with_all_its_kinds_of_models() {
    let home = Home::new();
    home.refer("org/m-GGUF", "main", COMMIT);
    home.snapshot("org/m-GGUF", COMMIT, "m-Q4_K_M.gguf", "aa");
    home.snapshot("org/m-GGUF", COMMIT, "Q8_0/m-Q8_0-00001-of-00002.gguf", "ab");
    home.snapshot("org/m-GGUF", COMMIT, "Q8_0/m-Q8_0-00002-of-00002.gguf", "ac");
    home.snapshot("org/m-GGUF", COMMIT, "m-Q2_K-00001-of-00003.gguf", "ad");
    home.snapshot("org/m-GGUF", COMMIT, "mmproj-F16.gguf", "ae");
    home.snapshot("org/m-GGUF", COMMIT, "README.md", "af");
    home.refer("org/a--b", "main", COMMIT);
    for file in ["config.json", "tokenizer.json", "model-00001-of-00001.safetensors"] {
        home.snapshot("org/a--b", COMMIT, file, &format!("b{}", file.len()));
    }
    home.snapshot("gpt2", COMMIT, "model.gguf", "ba");
    home.write("hub/datasets--x--y/snapshots/z/a.gguf", "GGUF");
    home.write("hub/version.txt", "1");
    let local = home.find();
    assert_eq!(
        names(&local),
        ["gpt2", "org/a--b", "org/m-GGUF:Q2_K", "org/m-GGUF:Q4_K_M", "org/m-GGUF:Q8_0"]
    );
    let directory = &local.models[1];
    assert_eq!((directory.quant.as_deref(), directory.files.len()), (Some("safetensors"), 3));
    assert!(directory.path.ends_with(COMMIT));
    let split = &local.models[4];
    assert_eq!((split.files.len(), split.bytes, split.problem.as_deref()), (2, 14, None));
    assert!(split.path.ends_with("Q8_0/m-Q8_0-00001-of-00002.gguf"));
    assert_eq!(local.models[2].problem.as_deref(), Some("only 1 of its 3 files are here"));
    assert_eq!(local.remarks, []);
}

#[cfg(unix)]
#[test]
fn revisions_of_a_cache_are_told_apart_and_counted_once() {
    let home = Home::new();
    home.refer("org/m", "main", OTHER);
    home.snapshot("org/m", COMMIT, "m-Q4_K_M.gguf", "aa");
    home.snapshot("org/m", COMMIT, "m-Q8_0.gguf", "ab");
    home.snapshot("org/m", OTHER, "m-Q4_K_M.gguf", "ac");
    home.snapshot("org/m", OTHER, "m-Q6_K.gguf", "ad");
    home.refer("org/n", "main", OTHER);
    home.refer("org/n", "v1", COMMIT);
    home.snapshot("org/n", COMMIT, "n-Q4_K_M.gguf", "aa");
    home.snapshot("org/n", OTHER, "n-Q4_K_M.gguf", "aa");
    let local = home.find();
    let old = "org/m:Q4_K_M@01234567";
    assert_eq!(names(&local), ["org/m:Q4_K_M", old, "org/m:Q6_K", "org/m:Q8_0", "org/n:Q4_K_M"]);
    assert!(local.models[0].path.to_string_lossy().contains(OTHER));
    assert_eq!(one(&local, "org/m@0123456789"), (old, Way::Usual), "of this commit the usual quantisation");
    assert_eq!(one(&local, old), (old, Way::Exact));
    assert_eq!(one(&local, "ORG/m:q4_k_m").0, "org/m:Q4_K_M");
    assert_eq!(one(&local, "org/m"), ("org/m:Q4_K_M", Way::Usual));
}

#[cfg(unix)]
#[test]
fn links_to_nothing_and_out_of_the_cache_do_no_harm() {
    let home = Home::new();
    let link = home.snapshot("org/m", COMMIT, "m-Q4_K_M.gguf", "aa");
    fs::remove_file(home.path("hub/models--org--m/blobs/aa")).expect("removed");
    let local = home.find();
    assert!(local.models[0].problem.as_deref().is_some_and(|problem| problem.contains("not there")));
    // A folder that links to itself is not gone round in.
    std::os::unix::fs::symlink(".", link.with_file_name("round")).expect("linked");
    std::os::unix::fs::symlink("/", link.with_file_name("root")).expect("linked");
    std::os::unix::fs::symlink("/dev/zero", link.with_file_name("z-Q8_0.gguf")).expect("linked");
    assert_eq!(names(&home.find()), ["org/m:Q4_K_M"], "neither folders behind links nor devices");
    home.write("hub/models--../snapshots/x", "");
    home.write("hub/models--org--..--x/snapshots/x", "");
    home.write("hub/models--org--e/refs/main", "../../../etc");
    home.write("hub/models--org--e/snapshots/main/e.gguf", "GGUF");
    assert_eq!(names(&home.find()), ["org/m:Q4_K_M"], "a snapshot is called by a commit");
}

#[cfg(unix)]
#[test]
fn folders_that_may_not_be_read_and_odd_names_are_remarked() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home.write("lms/pub/with space/m-Q8_0.gguf", "GGUF");
    home.write("lms/pub/line\nbreak/m.gguf", "GGUF");
    let raw = std::ffi::OsStr::from_bytes(b"\xff");
    fs::create_dir(home.path("lms").join(raw)).expect("a folder");
    home.write("lms/closed/m/m.gguf", "GGUF");
    let closed = home.path("lms/closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("closed");
    let local = home.find();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("opened");
    assert!(names(&local).contains(&"pub/with space:Q8_0"));
    let reasons: Vec<&str> = local.remarks.iter().map(|remark| remark.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("line\\nbreak")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("UTF-8")), "{reasons:?}");
    // Who may read everything sees no closed folder.
    assert!(
        names(&local).contains(&"closed/m") || reasons.iter().any(|reason| reason.contains("cannot be read"))
    );
}

#[test]
fn ollama_models_are_found_by_manifest_and_used_in_place() {
    let home = Home::new();
    let blob = home.write(&format!("ollama/blobs/sha256-{DIGEST}"), "GGUF");
    home.write(&format!("ollama/blobs/sha256-{}", "c".repeat(64)), r#"{"file_type":"Q4_K_M"}"#);
    let digest = format!("sha256:{DIGEST}");
    home.ollama("registry.ollama.ai/library/qwen3/30b-a3b", &digest, 4);
    home.ollama("registry.ollama.ai/library/qwen3/latest", &digest, 4);
    home.ollama("registry.ollama.ai/someone/m/v1", &digest, 4);
    home.ollama("hf.co/org/M-GGUF/Q8_0", &digest, 4);
    home.ollama("registry.ollama.ai/library/cut/latest", &digest, 99);
    home.ollama("registry.ollama.ai/library/gone/latest", &format!("sha256:{}", "d".repeat(64)), 4);
    let local = home.find();
    assert_eq!(
        names(&local),
        [
            "cut:latest",
            "gone:latest",
            "hf.co/org/M-GGUF:Q8_0",
            "qwen3:30b-a3b",
            "qwen3:latest",
            "someone/m:v1"
        ]
    );
    let model = &local.models[3];
    assert_eq!((&model.path, model.bytes, model.quant.as_deref()), (&blob, 4, Some("Q4_K_M")));
    assert!(model.has_extras);
    assert!(
        local.models[0].problem.as_deref().is_some_and(|problem| problem.contains("4 bytes instead of 99"))
    );
    assert!(local.models[1].problem.is_some());
    for (name, found) in [
        ("qwen3", "qwen3:latest"),
        ("Qwen3:30B-a3b", "qwen3:30b-a3b"),
        ("library/qwen3", "qwen3:latest"),
        ("registry.ollama.ai/library/qwen3:30b-a3b", "qwen3:30b-a3b"),
        ("someone/m", "someone/m:v1"),
        ("hf.co/org/M-GGUF:Q8_0", "hf.co/org/M-GGUF:Q8_0"),
        ("org/m-gguf", "hf.co/org/M-GGUF:Q8_0"),
    ] {
        assert_eq!(one(&local, name), (found, Way::Exact), "{name}");
    }
    assert_eq!(near(&local, "qwen3:30b"), ["qwen3:30b-a3b", "qwen3:latest"], "another tag is another model");
}

#[test]
fn broken_manifests_are_remarked_and_never_leave_the_folder() {
    let home = Home::new();
    home.write("secret", "GGUF");
    let library = "ollama/manifests/registry.ollama.ai/library";
    for (name, text) in [("a", ""), ("b", "[]"), ("c", "{\"layers\": 3}"), ("d", "{}"), ("e", "\u{0}\u{1}")] {
        home.write(&format!("{library}/{name}/latest"), text);
    }
    for (name, digest) in [
        ("f", "sha256:../../secret"),
        ("g", "sha256:"),
        ("h", "../secret"),
        ("i", &format!("sha256:{}", "A".repeat(64))),
        ("j", &format!("md5:{DIGEST}")),
    ] {
        home.ollama(&format!("registry.ollama.ai/library/{name}/latest"), digest, 4);
    }
    let local = home.find();
    assert_eq!(names(&local), Vec::<&str>::new());
    assert_eq!(local.remarks.len(), 10, "{:?}", local.remarks);
}

#[test]
fn own_models_have_the_names_of_their_folders_and_files() {
    let home = Home::new();
    home.write("own/q35-q4/manifest.json", "{}");
    home.write("own/q35-q4/dense.bin", "1234");
    home.write("own/Some-Q8_0.gguf", "GGUF");
    home.write("own/both/b-Q8_0.gguf", "GGUF");
    home.write("own/both/b-Q4_0.gguf", "GGUF");
    home.write("own/notes.txt", "x");
    let local = home.find();
    assert_eq!(names(&local), ["both:Q4_0", "both:Q8_0", "q35-q4", "Some-Q8_0"]);
    assert_eq!((local.models[2].bytes, local.models[3].quant.as_deref()), (6, Some("Q8_0")));
    assert_eq!(one(&local, "both"), ("both:Q4_0", Way::Usual));
}

#[test]
fn names_mean_one_model_or_say_which_there_are() {
    let home = Home::new();
    for file in [
        "SmolLM2-135M/s-Q8_0.gguf",
        "SmolLM2-135M/s-F16.gguf",
        "SmolLM2-360M/t-Q8_0.gguf",
        "Odd/a.gguf",
        "Odd/b.gguf",
    ] {
        home.write(&format!("lms/HF/{file}"), "GGUF");
    }
    let local = home.find();
    assert_eq!(one(&local, "HF/SmolLM2-360M"), ("HF/SmolLM2-360M:Q8_0", Way::Exact));
    assert_eq!(one(&local, "smollm2-3"), ("HF/SmolLM2-360M:Q8_0", Way::Prefix));
    assert_eq!(one(&local, "smollm2-135m:f16"), ("HF/SmolLM2-135M:F16", Way::Prefix));
    assert_eq!(one(&local, "hf/smollm2-135m:s-f16.gguf"), ("HF/SmolLM2-135M:F16", Way::Exact));
    assert_eq!(
        several(&local, "smollm2"),
        ["HF/SmolLM2-135M:F16", "HF/SmolLM2-135M:Q8_0", "HF/SmolLM2-360M:Q8_0"]
    );
    assert_eq!(several(&local, "HF/Odd"), ["HF/Odd:a.gguf", "HF/Odd:b.gguf"]);
    assert_eq!(near(&local, "HF/SmolLM-135M:Q8_0")[0], "HF/SmolLM2-135M:Q8_0");
    assert_eq!(
        near(&local, "HF/SmolLM2-360M:Q4_K_M"),
        ["HF/SmolLM2-360M:Q8_0"],
        "another quantisation is near"
    );
    assert_eq!(near(&local, "od"), ["HF/Odd:a.gguf", "HF/Odd:b.gguf"], "two letters mean no model");
    assert_eq!(near(&local, "llama"), Vec::<&str>::new());
    assert_eq!(near(&local, ""), Vec::<&str>::new());
}

#[cfg(unix)]
#[test]
fn a_name_in_two_folders_means_the_cache_and_the_other_keeps_its_path() {
    let home = Home::new();
    home.snapshot("org/m", COMMIT, "m-Q8_0.gguf", "aa");
    let path = home.write("lms/org/m/m-Q8_0.gguf", "GGUF");
    let local = home.find();
    assert_eq!(names(&local), ["org/m:Q8_0", &path.display().to_string()]);
    assert_eq!(local.models[0].source, Source::HuggingFace);
    assert_eq!(one(&local, "org/m"), ("org/m:Q8_0", Way::Exact));
    assert_eq!(one(&local, "hf.co/org/m:q8_0"), ("org/m:Q8_0", Way::Exact));
}

#[test]
fn a_thousand_models_are_all_found() {
    let home = Home::new();
    for number in 0..1000 {
        home.write(&format!("lms/pub{}/m{number}/m-Q8_0.gguf", number % 10), "GGUF");
    }
    let local = home.find();
    assert_eq!(local.models.len(), 1000);
    assert_eq!(one(&local, "pub7/m997"), ("pub7/m997:Q8_0", Way::Exact));
    assert_eq!(several(&local, "m99").len(), 11);
}

#[test]
fn a_folder_of_one_gguf_model_stands_for_it() {
    let home = Home::new();
    home.write("one/m-00001-of-00002.gguf", "GGUF");
    home.write("one/m-00002-of-00002.gguf", "GGUF");
    home.write("one/mmproj-m.gguf", "GGUF");
    home.write("one/config.json", "{}");
    assert!(gguf_in(&home.path("one")).is_ok_and(|path| path.ends_with("one/m-00001-of-00002.gguf")));
    home.write("one/n.gguf", "GGUF");
    let several = gguf_in(&home.path("one")).expect_err("two").expect("named");
    assert!(several.contains("m-00001-of-00002.gguf (8 B)") && several.contains("n.gguf (4 B)"), "{several}");
    home.write("none/a.txt", "");
    assert_eq!(gguf_in(&home.path("none")), Err(None));
}

#[cfg(unix)]
fn removal(home: &Home, name: &str) -> Result<Removal, HubError> {
    let local = home.find();
    let model = local.models.iter().find(|model| model.name == name).expect("a model");
    Removal::plan(model)
}

#[cfg(unix)]
#[test]
fn only_files_that_were_pulled_are_removed() {
    let home = Home::new();
    home.refer("org/m", "main", COMMIT);
    let own = home.snapshot("org/m", COMMIT, "m-Q8_0.gguf", "aa");
    let other = home.snapshot("org/m", COMMIT, "m-Q4_0.gguf", "ab");
    let repo = home.path("hub/models--org--m");
    assert!(matches!(removal(&home, "org/m:Q8_0"), Err(HubError::NotOurs { .. })), "nothing was pulled yet");
    Registry::add(&repo, COMMIT, ["m-Q8_0.gguf"]).expect("recorded");
    assert!(matches!(removal(&home, "org/m:Q4_0"), Err(HubError::NotOurs { .. })));
    let planned = removal(&home, "org/m:Q8_0").expect("ours");
    assert_eq!((planned.bytes(), planned.files()), (7, 1));
    assert_eq!(planned.run().expect("removed"), 7);
    assert!(own.symlink_metadata().is_err() && !repo.join("blobs/aa").exists());
    assert!(other.exists() && repo.join("refs/main").exists());
    assert!(Registry::read(&repo).expect("a record").is_empty());
    assert_eq!(names(&home.find()), ["org/m:Q4_0"]);
}

#[cfg(unix)]
#[test]
fn a_blob_that_another_snapshot_needs_stays() {
    let home = Home::new();
    let repo = home.path("hub/models--org--m");
    home.refer("org/m", "main", COMMIT);
    home.snapshot("org/m", COMMIT, "sub/m-Q8_0.gguf", "aa");
    let other = home.snapshot("org/m", OTHER, "renamed-Q8_0.gguf", "aa");
    Registry::add(&repo, COMMIT, ["sub/m-Q8_0.gguf"]).expect("recorded");
    let planned = removal(&home, "org/m:Q8_0").expect("ours");
    assert_eq!(planned.bytes(), 0, "nothing is freed");
    assert_eq!(planned.run().expect("removed"), 0);
    assert!(other.exists() && !repo.join("snapshots").join(COMMIT).exists());
}

#[cfg(unix)]
#[test]
fn the_last_model_takes_the_folder_of_its_repository_along() {
    let home = Home::new();
    let repo = home.path("hub/models--org--m");
    home.refer("org/m", "main", COMMIT);
    home.refer("org/m", "refs/pr/1", COMMIT);
    let outside = home.write("outside.gguf", "GGUF");
    home.snapshot("org/m", COMMIT, "m-Q8_0-00001-of-00002.gguf", "aa");
    let link = repo.join("snapshots").join(COMMIT).join("m-Q8_0-00002-of-00002.gguf");
    std::os::unix::fs::symlink(&outside, &link).expect("linked");
    Registry::add(&repo, COMMIT, ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"])
        .expect("recorded");
    assert_eq!(removal(&home, "org/m:Q8_0").expect("ours").run().expect("removed"), 7);
    assert!(outside.exists(), "a link's target outside of the cache stays");
    assert!(!repo.exists());
    // What somebody else keeps there stays with its folder.
    home.snapshot("org/n", COMMIT, "n-Q8_0.gguf", "ba");
    home.write("hub/models--org--n/blobs/bb.incomplete", "half");
    let repo = home.path("hub/models--org--n");
    Registry::add(&repo, COMMIT, ["n-Q8_0.gguf"]).expect("recorded");
    removal(&home, "org/n:Q8_0").expect("ours").run().expect("removed");
    assert!(repo.join("blobs/bb.incomplete").exists() && !repo.join("blobs/ba").exists());
}

#[test]
fn models_of_other_programs_are_refused_with_their_place() {
    let home = Home::new();
    home.write("lms/org/m/m-Q8_0.gguf", "GGUF");
    home.write(&format!("ollama/blobs/sha256-{DIGEST}"), "GGUF");
    home.ollama("registry.ollama.ai/library/qwen3/latest", &format!("sha256:{DIGEST}"), 4);
    let local = home.find();
    let refused = |index: usize| Removal::plan(&local.models[index]).expect_err("refused").to_string();
    assert!(refused(0).contains("LM Studio") && refused(0).contains("m-Q8_0.gguf"), "{}", refused(0));
    assert!(refused(1).contains("ollama rm qwen3:latest"), "{}", refused(1));
    let path = |path: &Path| path.exists();
    assert!(local.models.iter().all(|model| path(&model.path)));
}
