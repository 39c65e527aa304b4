//! Hugging Face directories: what opens, and what is said of what does not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use checkpoint::{Checkpoint, Extent, Kind};
use support::{Model, index, raw_shard, shard};
use tensor::Format;

#[test]
fn a_single_file_opens() {
    let model = Model::with_config()
        .file("model.safetensors", shard(&[("b", &[2, 3]), ("a", &[4]), ("scalar", &[]), ("none", &[0, 7])]))
        .file("tokenizer.json", "{}")
        .file("golden.safetensors", "not part of the model");
    let checkpoint = model.open();
    assert_eq!(checkpoint.kind(), Kind::HfDirectory);
    assert_eq!(checkpoint.root(), model.path());
    assert_eq!(checkpoint.files(), [model.join("model.safetensors")]);
    assert_eq!(checkpoint.config()["text_config"]["a"], 1);
    assert_eq!(checkpoint.aux_file("tokenizer.json").unwrap(), Some(model.join("tokenizer.json")));
    assert_eq!(checkpoint.aux_file("chat_template.jinja").unwrap(), None);
    assert_eq!(checkpoint.aux_file("../tokenizer.json").unwrap(), None);
    let names: Vec<&str> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "none", "scalar"]);
    let a = checkpoint.tensor("a").unwrap();
    assert_eq!((a.format, a.shape.as_slice(), a.checksum), (Format::BF16, [4].as_slice(), None));
    let b = checkpoint.tensor("b").unwrap().extent;
    assert_eq!(a.extent, Extent { file: 0, offset: b.offset + 12, bytes: 8 });
    assert_eq!(checkpoint.tensor("scalar").unwrap().extent.bytes, 2);
    assert_eq!(checkpoint.tensor("none").unwrap().weight_count(), Some(0));
    assert_eq!(checkpoint.tensor("c"), None);
    assert!(checkpoint.packed().is_none() && checkpoint.manifest().is_none());
}

#[test]
fn shards_open_and_a_single_shard_with_an_index_too() {
    let model = Model::with_config()
        .file("b.safetensors", shard(&[("x", &[2]), ("z", &[1])]))
        .file("a.safetensors", shard(&[("y", &[3])]))
        .file(
            "model.safetensors.index.json",
            index(&[("x", "b.safetensors"), ("y", "a.safetensors"), ("z", "b.safetensors")]),
        );
    let checkpoint = model.open();
    assert_eq!(checkpoint.files(), [model.join("a.safetensors"), model.join("b.safetensors")]);
    let files: Vec<u32> = checkpoint.tensors().map(|t| t.extent.file).collect();
    assert_eq!(files, [1, 0, 1]);
    let model = Model::with_config()
        .file("model.safetensors", shard(&[("x", &[2])]))
        .file("model.safetensors.index.json", index(&[("x", "model.safetensors")]));
    assert_eq!(model.open().tensors().count(), 1);
}

#[test]
fn the_three_dtypes_have_their_sizes() {
    let header = r#"{"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
        "f":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}   "#;
    let checkpoint = Model::with_config().file("model.safetensors", raw_shard(header, 12)).open();
    assert_eq!(checkpoint.tensor("h").unwrap().format, Format::F16);
    assert_eq!(checkpoint.tensor("f").unwrap().format, Format::F32);
}

/// The error of a model whose only shard has this header and as many bytes of data.
fn header_error(header: &str, data_bytes: usize) -> String {
    Model::with_config().file("model.safetensors", raw_shard(header, data_bytes)).error()
}

#[track_caller]
fn check(got: String, expected: &str) {
    assert_eq!(got, expected);
}

const ONE: &str = r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;

#[test]
fn a_truncated_shard_is_named() {
    check(
        header_error(ONE, 15),
        "DIR/model.safetensors: truncated: tensor w at offset 63 is cut off; expected a file of 79 bytes, got 78; \
         download it again",
    );
    check(
        header_error(ONE, 17),
        "DIR/model.safetensors: data behind the last tensor: expected a file of 79 bytes, got 80; the file is \
         damaged, download it again",
    );
    check(
        Model::with_config().file("model.safetensors", "1234").error(),
        "DIR/model.safetensors: truncated: expected at least 8 bytes of header length, got a file of 4 bytes; \
         download it again",
    );
}

#[test]
fn a_header_length_beyond_the_file_allocates_nothing() {
    let with_length = |length: u64| {
        let mut file = raw_shard(ONE, 16);
        file[..8].copy_from_slice(&length.to_le_bytes());
        Model::with_config().file("model.safetensors", file).error()
    };
    check(
        with_length(u64::MAX),
        "DIR/model.safetensors: header length at offset 0 goes beyond the file: expected at most 71 bytes, got \
         18446744073709551615; the file is damaged or truncated, download it again",
    );
    assert!(with_length(72).contains("expected at most 71 bytes, got 72"));
    check(
        with_length(54),
        "DIR/model.safetensors: not a safetensors header at offset 8: EOF while parsing an object at line 1 column \
         54; the file is damaged or of another kind, download it again",
    );
    assert!(with_length(0).contains("expected `{`"));
}

#[test]
fn a_huge_header_is_refused() {
    let model = Model::with_config().file("model.safetensors", 100_000_001u64.to_le_bytes());
    let file = std::fs::File::options().write(true).open(model.join("model.safetensors")).unwrap();
    file.set_len(200_000_000).unwrap();
    check(
        model.error(),
        "DIR/model.safetensors: the safetensors header in bytes is too large: expected at most 100000000, got \
         100000001; refused",
    );
}

#[test]
fn wrong_offsets_are_named() {
    let two = |a: [u64; 2], b: [u64; 2], data| {
        let entry = |name: &str, offsets: [u64; 2]| {
            format!(
                r#""{name}":{{"dtype":"F32","shape":[2],"data_offsets":[{},{}]}}"#,
                offsets[0], offsets[1]
            )
        };
        header_error(&format!("{{{},{}}}", entry("a", a), entry("b", b)), data)
    };
    check(
        two([0, 8], [4, 12], 12),
        "DIR/model.safetensors: tensor b overlaps a: expected an offset of at least 124, got 120; the file is \
         damaged, download it again",
    );
    check(
        two([0, 8], [100, 108], 16),
        "DIR/model.safetensors: tensor b at offset 219 is out of range: expected an end of at most 135, got 227; \
         the file is damaged, download it again",
    );
    check(
        two([0, 8], [12, 20], 20),
        "DIR/model.safetensors: tensor b: expected offset 125 (safetensors has no holes), got 129; the file is \
         damaged, download it again",
    );
    check(
        two([8, 0], [8, 16], 16),
        "DIR/model.safetensors: tensor a: data offsets are reversed: begin 8, end 0; the file is damaged, download \
         it again",
    );
    check(
        two([0, 8], [8, 17], 17),
        "DIR/model.safetensors: tensor b at offset 124: expected 8 bytes for its shape and dtype, got 9; the file \
         is damaged, download it again",
    );
    let max = u64::MAX;
    assert!(
        two([0, 8], [max - 8, max], 16).contains("tensor b at offset 18446744073709551615 is out of range")
    );
    assert!(two([0, 8], [0, 8], 8).contains("overlaps"));
}

#[test]
fn impossible_shapes_are_named() {
    let shaped = |shape: &str, end: u64| {
        header_error(&format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#), 16)
    };
    check(
        shaped("[4294967296,4294967296]", 16),
        "DIR/model.safetensors: tensor w: impossible shape [4294967296, 4294967296]: its size does not fit in 64 \
         bits; the file is damaged",
    );
    check(
        shaped("[1,1,1,1,1,1,1,1,4]", 16),
        "DIR/model.safetensors: tensor w: expected at most 8 dimensions, got 9",
    );
    assert!(shaped("[-4]", 16).contains("tensor w: invalid value: integer `-4`, expected u64"));
    assert!(shaped("[4.5]", 16).contains("tensor w: invalid type: floating point"));
    assert!(shaped("[]", 16).contains("expected 4 bytes for its shape and dtype, got 16"));
}

#[test]
fn unknown_and_unsupported_dtypes_are_told_apart() {
    let of = |dtype: &str| {
        header_error(&format!(r#"{{"w":{{"dtype":"{dtype}","shape":[4],"data_offsets":[0,16]}}}}"#), 16)
    };
    check(
        of("F8_E4M3"),
        "DIR/model.safetensors: tensor w: dtype F8_E4M3 is not supported; expected F32, F16 or BF16; use the \
         model's original 16-bit release instead of an FP8, GPTQ, AWQ or MLX conversion",
    );
    check(
        of("Q99"),
        "DIR/model.safetensors: tensor w: unknown dtype Q99; expected F32, F16 or BF16; the file is damaged or \
         needs a newer flash-moe",
    );
    // A hostile name cannot break the line.
    check(
        of("A\\nB\\u001b[2J"),
        "DIR/model.safetensors: tensor w: unknown dtype A\\nB\\u{1b}[2J; expected F32, F16 or BF16; the file is \
         damaged or needs a newer flash-moe",
    );
}

#[test]
fn duplicate_long_and_malformed_entries_are_refused() {
    let entry = r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#;
    check(
        header_error(&format!(r#"{{"w":{entry},"w":{entry}}}"#), 16),
        "DIR/model.safetensors: tensor w is listed twice; the file is damaged, download it again",
    );
    let long = header_error(&format!(r#"{{"{}":{entry}}}"#, "n".repeat(1025)), 16);
    assert!(long.ends_with("n…: name too long: expected at most 1024 bytes, got 1025"), "{long}");
    assert!(
        header_error(r#"{"w":{"shape":[4],"data_offsets":[0,16]}}"#, 16).contains("missing field `dtype`")
    );
    assert!(header_error(&format!(r#"{{"w":{entry}}} x"#), 16).contains("trailing characters"));
    assert!(header_error(r#"{"__metadata__":{"a":1}}"#, 0).contains("expected a string"));
    assert!(header_error("[1]", 0).contains("expected `{`"));
    let nested = format!(r#"{{"w":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(header_error(&nested, 0).contains("not a safetensors header"));
}

#[test]
fn a_git_lfs_pointer_is_recognised() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    check(
        Model::with_config().file("model.safetensors", pointer).error(),
        "DIR/model.safetensors: this is a Git LFS pointer, not the file itself; run `git lfs pull` in its \
         directory or download the file again",
    );
    let model = Model::empty().file("model.safetensors", shard(&[])).file("config.json", pointer);
    assert!(model.error().starts_with("DIR/config.json: this is a Git LFS pointer"));
}

#[test]
fn index_and_shards_must_agree() {
    let model = |entries: &[(&str, &str)]| {
        Model::with_config()
            .file("a.safetensors", shard(&[("x", &[1]), ("y", &[1])]))
            .file("model.safetensors.index.json", index(entries))
            .error()
    };
    let (x, y) = (("x", "a.safetensors"), ("y", "a.safetensors"));
    check(
        model(&[x, y, ("z", "a.safetensors")]),
        "DIR/a.safetensors: tensor z is absent, but DIR/model.safetensors.index.json says that it is in this file; \
         index and shards are of different downloads, download both again",
    );
    check(
        model(&[x]),
        "DIR/a.safetensors: tensor y is in this file, but DIR/model.safetensors.index.json says nothing about it; \
         index and shards are of different downloads, download both again",
    );
    check(
        model(&[x, y, ("z", "b.safetensors")]),
        "DIR/b.safetensors: shard is missing, but DIR/model.safetensors.index.json says that it holds tensor z; \
         download the missing file into the same directory",
    );
    check(
        model(&[x, ("y", "b.safetensors")]),
        "DIR/a.safetensors: tensor y is in this file, but DIR/model.safetensors.index.json says that it is in \
         b.safetensors; index and shards are of different downloads, download both again",
    );
    check(
        model(&[x, y, y]),
        "DIR/model.safetensors.index.json: tensor y is listed twice; the file is damaged, download it again",
    );
    for name in [
        "../a.safetensors",
        "/etc/passwd",
        "sub/a.safetensors",
        "a.bin",
        "",
        ".safetensors",
        "C:a.safetensors",
    ] {
        let message = model(&[x, ("y", name)]);
        assert!(message.contains("expected a plain file name ending in .safetensors, got"), "{message}");
    }
    assert!(model(&[]).contains("weight_map names no tensor"));
}

#[test]
fn a_broken_index_or_config_is_named() {
    let model = Model::with_config().file("model.safetensors.index.json", "{\"weight_map\": 3}");
    check(
        model.error(),
        "DIR/model.safetensors.index.json: not valid safetensors index: invalid type: integer `3`, expected a map \
         of tensor names to file names at line 1 column 16; download it again",
    );
    let model = Model::empty().file("model.safetensors", shard(&[])).file("config.json", "{\"a\": }");
    check(
        model.error(),
        "DIR/config.json: not valid model configuration (a JSON object): expected value at line 1 column 7; \
         download it again",
    );
    let model = model.file("config.json", "");
    assert!(model.error().contains("EOF while parsing a value"));
    let model = model.file("config.json", "[1,2]");
    assert!(model.error().contains("expected an object, got an array"));
    let model = model.file("config.json", [0xff, 0xfe, b'{', b'}']);
    assert!(model.error().contains("DIR/config.json: not valid model configuration"));
}

#[test]
fn what_is_no_model_is_said_in_words() {
    let model = Model::empty();
    check(
        model.error_at(&model.join("absent")),
        "DIR/absent: no such file or directory; pass a GGUF file, a directory that holds config.json and safetensors files, or \
         one that `flash-moe pack` made",
    );
    check(
        model.error(),
        "DIR: not a model: found an empty directory; expected a GGUF file, config.json with model.safetensors or \
         model.safetensors.index.json, or a directory that `flash-moe pack` made",
    );
    let model = model.file("d", "").file("c", "").file("b", "").file("a.txt", "");
    assert!(model.error().contains("found a.txt, b, c, …; expected"));
    assert!(model.error_at(&model.join("d")).contains("found a file that is no model"));
    let model = Model::with_config();
    assert!(
        model.error().starts_with("DIR/model.safetensors: missing; the directory has config.json but no")
    );
    let model = model.file("model-00001-of-00002.safetensors", "");
    assert!(
        model.error().starts_with("DIR/model.safetensors.index.json: missing; the shards need their index")
    );
    let model = Model::empty().file("model.safetensors", shard(&[]));
    check(model.error(), "DIR/config.json: missing; download it from where the safetensors files came from");
}

#[test]
fn gguf_and_single_files_get_a_hint() {
    let model = Model::empty().file("model-q4.gguf", "GGUF....");
    check(
        model.error(),
        "DIR: this directory holds GGUF files; pass one of them, for instance DIR/model-q4.gguf",
    );
    let model = Model::with_config().file("model.safetensors", shard(&[]));
    check(
        model.error_at(&model.join("model.safetensors")),
        "DIR/model.safetensors: this is one file of a model; pass its directory DIR instead",
    );
    assert!(model.error_at(&model.join("config.json")).contains("pass its directory DIR instead"));
}

#[test]
fn real_tiny_checkpoints_open() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/qwen35moe");
    for (name, shards) in [("flat", 1), ("published", 3)] {
        let checkpoint = Checkpoint::open(&fixtures.join(name)).unwrap();
        assert_eq!(checkpoint.files().len(), shards, "{name}");
        assert!(checkpoint.tensors().any(|t| t.name.ends_with("embed_tokens.weight")), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_not_the_absence_of_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let nothing = directory.path().join("nothing");
    for name in ["config.json", "model.safetensors", "model.safetensors.index.json", "pack.json"] {
        let model = directory.path().join(name.replace('.', "-"));
        std::fs::create_dir(&model).unwrap();
        let link = model.join(name);
        std::os::unix::fs::symlink(&nothing, &link).unwrap();
        let error = checkpoint::file_exists(&link).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("its target is not there"), "{error}");
    }
    let link = directory.path().join("model.gguf");
    std::os::unix::fs::symlink(&nothing, &link).unwrap();
    let error = checkpoint::Checkpoint::open(&link).unwrap_err().to_string();
    assert!(error.contains("a link to") && error.contains("cp -rL"), "{error}");
    assert!(!checkpoint::file_exists(&nothing).unwrap());
}
