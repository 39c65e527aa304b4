//! Models that are here: names in commands, `list` and `rm`, on made-up folders of all programs.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

#[allow(dead_code, reason = "what other tests use")]
mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use common::{Dir, command};
use serde_json::Value;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn gguf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf").join(name).canonicalize().unwrap()
}

/// A fixture of 64 tokens with a tokenizer put before its other metadata.
fn with_tokenizer(fixture: &str) -> Vec<u8> {
    const START: usize = 24;
    const ENTRIES: std::ops::Range<usize> = 16..24;
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let entry =
        |key: &str, kind: u32, value: Vec<u8>| [text(key), kind.to_le_bytes().to_vec(), value].concat();
    let array = |kind: u32, count: u64, items: Vec<u8>| {
        [&kind.to_le_bytes()[..], &count.to_le_bytes()[..], &items[..]].concat()
    };
    let letters = ('a'..='z').chain('A'..='Z').chain("0123456789".chars());
    let tokens: Vec<String> = letters.map(String::from).chain(["\u{120}".into(), "th".into()]).collect();
    assert_eq!(tokens.len(), 64);
    let texts: Vec<u8> = tokens.iter().flat_map(|token| text(token)).collect();
    let types: Vec<u8> = [1i32; 64].iter().flat_map(|kind| kind.to_le_bytes()).collect();
    let mut added = [
        entry("tokenizer.ggml.model", 8, text("gpt2")),
        entry("tokenizer.ggml.pre", 8, text("qwen2")),
        entry("tokenizer.ggml.tokens", 9, array(8, 64, texts)),
        entry("tokenizer.ggml.token_type", 9, array(5, 64, types)),
        entry("tokenizer.ggml.merges", 9, array(8, 1, text("t h"))),
        entry("tokenizer.ggml.eos_token_id", 4, 9u32.to_le_bytes().to_vec()),
    ]
    .concat();
    // Weights stay where they are in relation to the alignment.
    let empty = entry("filler", 8, text("")).len();
    let filler = "x".repeat(32 - (added.len() + empty) % 32);
    added.extend(entry("filler", 8, text(&filler)));
    let mut bytes = fs::read(gguf(fixture)).unwrap();
    let entries = u64::from_le_bytes(bytes[ENTRIES].try_into().unwrap());
    bytes[ENTRIES].copy_from_slice(&(entries + 7).to_le_bytes());
    bytes.splice(START..START, added);
    bytes
}

/// A home with models of several programs.
struct Home(Dir);

impl Home {
    fn new() -> Self {
        Self(Dir::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn copy(&self, fixture: &str, name: &str) -> PathBuf {
        self.write(name, fs::read(gguf(fixture)).unwrap())
    }

    /// A file in the Hugging Face cache.
    fn hf(&self, repo: &str, file: &str, fixture: &str) -> PathBuf {
        let folder = format!(".cache/huggingface/hub/models--{}", repo.replace('/', "--"));
        self.copy(fixture, &format!("{folder}/blobs/{file}"));
        self.write(&format!("{folder}/refs/main"), COMMIT);
        let link = self.path(&format!("{folder}/snapshots/{COMMIT}/{file}"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(format!("../../blobs/{file}"), &link).unwrap();
        self.path(&folder)
    }

    fn ollama(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let blob = self.write(&format!("ollama/blobs/sha256-{DIGEST}"), content);
        let layer = |kind: &str| {
            serde_json::json!({
                "mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": format!("sha256:{DIGEST}"),
                "size": blob.metadata().unwrap().len(),
            })
        };
        let manifest = serde_json::json!({ "layers": [layer("model"), layer("params")] });
        self.write(&format!("ollama/manifests/registry.ollama.ai/library/{name}"), manifest.to_string());
        blob
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = command();
        command.args(args).env("HOME", self.0.path()).env("OLLAMA_MODELS", self.path("ollama"));
        command.env("FLASH_MOE_MODELS", self.path("own")).current_dir(self.0.path());
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(0), "{args:?}: {err}");
        (out, err)
    }

    fn list(&self) -> Value {
        serde_json::from_str(&self.ok(&["list", "--json"]).0).unwrap()
    }

    /// The error line of a command that fails with `code`.
    fn fails(&self, code: i32, args: &[&str], parts: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        let line = errors.lines().last().unwrap_or_default().to_owned();
        for part in parts {
            assert!(line.contains(part), "{args:?}: `{part}` in {line}");
        }
        line
    }
}

/// What a command says of a model that has no tokenizer: its logits, for comparisons.
fn logits(home: &Home, model: &str) -> (String, String) {
    home.ok(&["logits", model, "--tokens", "1,2,3", "--json"])
}

#[test]
fn without_models_list_teaches_pull() {
    let home = Home::new();
    let (out, err) = home.ok(&["list"]);
    assert!(out.starts_with("NAME") && out.contains("demo"), "{out}");
    assert!(err.contains("flash-moe pull"), "{err}");
    assert_eq!(home.list()["models"].as_array().unwrap().len(), 1);
    assert_eq!(home.ok(&["ls"]).0, out);
}

#[test]
fn models_of_all_programs_are_listed_and_run_by_name_in_place() {
    let home = Home::new();
    home.hf("org/m-GGUF", "m-Q8_0.gguf", "qwen3.gguf");
    home.hf("org/m-GGUF", "m-Q4_0.gguf", "llama.gguf");
    home.copy("mixtral.gguf", ".lmstudio/models/pub/mix/mix-F32.gguf");
    let blob = home.ollama("tiny/latest", fs::read(gguf("qwen3moe.gguf")).unwrap());
    home.copy("qwen3.gguf", "own/mine.gguf");
    let list = home.list();
    let rows = list["models"].as_array().unwrap();
    let shown: Vec<(&str, &str, &str)> = rows
        .iter()
        .map(|row| {
            (row["name"].as_str().unwrap(), row["source"].as_str().unwrap(), row["family"].as_str().unwrap())
        })
        .collect();
    assert_eq!(shown[0], ("mine", "own", "Qwen3"));
    assert_eq!(shown[1], ("org/m-GGUF:Q4_0", "hf", "Llama"));
    assert_eq!(shown[2], ("org/m-GGUF:Q8_0", "hf", "Qwen3"));
    assert_eq!(shown[3], ("pub/mix:F32", "lmstudio", "Mixtral"));
    assert_eq!((shown[4].0, shown[4].1), ("tiny:latest", "ollama"));
    assert_eq!((shown[5].0, rows.len()), ("demo", 6));
    assert!(rows.iter().all(|row| row["runs"] == true && row["pulled"] == false), "{list}");
    assert_eq!(rows[4]["bytes"], fs::metadata(&blob).unwrap().len());
    let same = |name: &str, fixture: &str| {
        let (out, err) = logits(&home, name);
        assert_eq!(out, logits(&home, gguf(fixture).to_str().unwrap()).0, "{name}");
        err
    };
    same("org/m-GGUF:q8_0", "qwen3.gguf");
    same("hf.co/org/m-gguf:Q4_0", "llama.gguf");
    same("pub/mix", "mixtral.gguf");
    same("mine", "qwen3.gguf");
    assert!(same("tiny", "qwen3moe.gguf").contains("Ollama adds are not used"));
    // The usual one of several is taken, and said.
    let said = same("org/m-GGUF", "llama.gguf");
    assert!(said.contains("using org/m-GGUF:Q4_0; Q8_0 is here too"), "{said}");
    assert!(same("pub/mi", "mixtral.gguf").contains("using pub/mix:F32"));
    for command in ["inspect", "list"] {
        assert!(!home.ok(&[command, "tiny"][..if command == "list" { 1 } else { 2 }]).0.is_empty());
    }
}

#[test]
fn an_ollama_blob_gives_the_text_of_the_file() {
    let home = Home::new();
    let blob = home.ollama("tiny/1b", with_tokenizer("qwen3.gguf"));
    let file = home.write("files/some.gguf", with_tokenizer("qwen3.gguf"));
    let text = |model: &str| {
        let args = ["run", model, "Once upon the time", "--raw", "-n", "12", "--temp", "0", "--json"];
        let report: Value = serde_json::from_str(&home.ok(&args).0).unwrap();
        (report["text"].clone(), report["tokens"].clone())
    };
    let expected = text(file.to_str().unwrap());
    assert_eq!(expected.1.as_array().unwrap().len(), 12);
    assert_eq!(text("tiny:1b"), expected);
    assert_eq!(text(blob.to_str().unwrap()), expected, "by its path, without an extension");
    home.fails(1, &["run", "tiny:7b", "x"], &["no such model here", "did you mean tiny:1b?"]);
    // Every command finds it.
    home.write("text.txt", "Once upon the time there was a dog ".repeat(8));
    home.ok(&["eval", "tiny:1b", "--text", "text.txt", "--ctx", "16", "--against", "tiny"]);
    home.ok(&["pack", "tiny:1b", "own/packed"]);
    home.ok(&["pack", "packed", "--verify"]);
    let rows = home.list();
    assert_eq!(rows["models"][0]["source"], "packed");
    assert_eq!(text("packed"), expected, "in the folder of own models");
    home.ok(&["inspect", "tiny:1b", "--json"]);
}

#[test]
fn a_name_that_is_not_here_is_answered_with_pull_and_a_path_with_the_file() {
    let home = Home::new();
    home.hf("org/m-GGUF", "m-Q8_0.gguf", "qwen3.gguf");
    home.hf("org/n-GGUF", "n-Q8_0.gguf", "qwen3.gguf");
    let pull = "flash-moe pull org/other:Q4_K_M";
    home.fails(1, &["inspect", "org/other:Q4_K_M"], &["no such model here", pull]);
    home.fails(
        1,
        &["bench", "hf.co/org/m-GGUF:Q2_K"],
        &["pull org/m-GGUF:Q2_K`", "did you mean org/m-GGUF:Q8_0?"],
    );
    home.fails(1, &["logits", "org/x-GGUF:Q8_0", "--tokens", "1"], &["did you mean org/m-GGUF:Q8_0"]);
    home.fails(1, &["inspect", "org"], &["several models here", "org/m-GGUF:Q8_0, org/n-GGUF:Q8_0"]);
    home.fails(1, &["inspect", "nothing"], &["flash-moe list", "pull ORG/NAME:QUANT"]);
    home.fails(1, &["plan", "nothing"], &["presets are"]);
    fs::create_dir(home.path("models")).unwrap();
    for path in ["./m", "~/m.gguf", "/m/x", "m.gguf", "models/dmeo", "a/b/c.gguf", "../org/m", "org/m/", ".."]
    {
        let line = home.fails(1, &["inspect", path], &[]);
        assert!(!line.contains("pull") && line.contains(path.trim_end_matches('/')), "{line}");
    }
    let odd = home.fails(1, &["inspect", "a\u{1b}[31mb"], &["no such model"]);
    assert!(!odd.contains('\u{1b}'), "{odd}");
}

#[test]
fn what_exists_goes_before_names_unless_it_is_no_model() {
    let home = Home::new();
    home.hf("org/m", "m-Q8_0.gguf", "qwen3.gguf");
    home.copy("llama.gguf", "org/m");
    assert!(home.ok(&["inspect", "org/m"]).0.contains("Llama"), "the file");
    fs::remove_file(home.path("org/m")).unwrap();
    home.write("org/m/notes.txt", "");
    let (_, err) = home.ok(&["inspect", "org/m:Q8_0"]);
    assert_eq!(err, "");
    fs::create_dir(home.path("demo")).unwrap();
    assert!(home.ok(&["inspect", "demo"]).0.contains("packed container"), "a folder that is no model");
}

#[test]
fn folders_of_gguf_files_and_files_without_extension_are_models() {
    let home = Home::new();
    home.copy("qwen3.gguf", "one/x.gguf");
    home.write("one/config.json", "{}");
    assert_eq!(logits(&home, "one").0, logits(&home, gguf("qwen3.gguf").to_str().unwrap()).0);
    for part in
        ["published-00001-of-00003.gguf", "published-00002-of-00003.gguf", "published-00003-of-00003.gguf"]
    {
        home.copy(part, &format!("split/{part}"));
    }
    assert_eq!(
        logits(&home, "split").0,
        logits(&home, gguf("published-00001-of-00003.gguf").to_str().unwrap()).0
    );
    home.copy("llama.gguf", "one/y.gguf");
    home.fails(1, &["inspect", "one"], &["several GGUF models", "x.gguf (", "y.gguf ("]);
    home.copy("qwen3.gguf", "blob");
    home.copy("qwen3.gguf", "picture.png");
    home.ok(&["inspect", "blob"]);
    home.ok(&["inspect", "picture.png"]);
    home.write("text.gguf", "not a model");
    home.fails(1, &["inspect", "text.gguf"], &["text.gguf"]);
}

#[test]
fn damaged_models_are_listed_with_the_reason_and_refused_by_name() {
    let home = Home::new();
    let repo = home.hf("org/m", "m-Q8_0.gguf", "qwen3.gguf");
    fs::remove_file(repo.join("blobs/m-Q8_0.gguf")).unwrap();
    home.write(".lmstudio/models/pub/text/t.gguf", "not a model");
    home.write(".lmstudio/models/pub/mlx/config.json", r#"{"model_type":"qwen3","quantization":{"bits":4}}"#);
    home.write(".lmstudio/models/pub/mlx/model.safetensors", "x");
    home.write("ollama/manifests/registry.ollama.ai/library/bad/latest", "{");
    let list = home.list();
    let reason = |name: &str| {
        let rows = list["models"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        assert_eq!(row["runs"], false);
        row["reason"].as_str().unwrap().to_owned()
    };
    assert!(reason("org/m:Q8_0").contains("a file that is not there"));
    assert!(reason("pub/text").contains("GGUF"));
    assert_eq!(reason("pub/mlx"), "safetensors quantised by mlx 4 bit");
    assert!(list["remarks"][0]["path"].as_str().unwrap().ends_with("bad/latest"));
    let (out, err) = home.ok(&["list"]);
    assert!(out.lines().all(|line| line.chars().count() < 80), "{out}");
    assert!(err.contains("is not a manifest"), "{err}");
    home.fails(1, &["run", "org/m", "x"], &["a file that is not there"]);
}

#[test]
fn rm_removes_what_was_pulled_and_refuses_the_rest() {
    let home = Home::new();
    let repo = home.hf("org/m", "m-Q8_0.gguf", "qwen3.gguf");
    home.hf("org/m", "m-Q4_0.gguf", "llama.gguf");
    home.ollama("tiny/latest", "GGUF");
    home.fails(1, &["rm", "org/m:Q8_0", "--yes"], &["another program", "snapshots"]);
    home.fails(1, &["rm", "tiny", "--yes"], &["ollama rm tiny:latest"]);
    home.fails(1, &["rm", "demo", "--yes"], &["part of the program"]);
    home.fails(1, &["rm", "nothing", "--yes"], &["no such model is here"]);
    fs::write(
        repo.join("flash-moe.json"),
        format!(r#"{{"version":1,"pulled":{{"{COMMIT}":["m-Q8_0.gguf"]}}}}"#),
    )
    .unwrap();
    home.fails(2, &["rm", "org/m:Q8_0"], &["--yes"]);
    home.fails(1, &["rm", "org/m", "--yes"], &["several models", "org/m:Q4_0, org/m:Q8_0"]);
    home.fails(1, &["rm", "org/m:Q8_0", "tiny", "--yes"], &["ollama rm"]);
    assert!(repo.join("blobs/m-Q8_0.gguf").exists(), "nothing is removed where one name is refused");
    let pulled = |list: &Value| list["models"][1]["pulled"].clone();
    assert_eq!((pulled(&home.list()), &home.list()["models"][0]["pulled"]), (true.into(), &false.into()));
    let bytes = fs::metadata(gguf("qwen3.gguf")).unwrap().len();
    let (out, err) = home.ok(&["rm", "org/m:Q8_0", "--yes", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["removed"][0]["bytes_freed"], bytes);
    assert!(err.contains("removed org/m:Q8_0"), "{err}");
    assert!(!repo.join("blobs/m-Q8_0.gguf").exists() && repo.join("blobs/m-Q4_0.gguf").exists());
}
