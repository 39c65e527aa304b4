//! Packed containers, made here by hand: what opens, and what is said of what does not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use checkpoint::journal::{JOURNAL_FORMAT, JournalHead, journal_line, parse_journal_line};
use checkpoint::manifest::{
    Checksum, DenseEntry, FileEntry, JOURNAL, LayerEntry, MANIFEST, Manifest, PartEntry, VERSION,
};
use checkpoint::{Extent, Kind};
use support::{Model, shard};
use tensor::Format;
use xxhash_rust::xxh3::xxh3_64;

const CONFIG: &str = r#"{"model_type":"test"}"#;

/// Two dense tensors, and layers 0 and 2 with two experts each, all in one file of three records.
fn manifest() -> Manifest {
    let file = |name: &str, bytes, checksum| FileEntry { name: name.to_owned(), bytes, checksum };
    let dense = |name: &str, format: &str, shape: &[u64], offset, bytes| DenseEntry {
        name: name.to_owned(),
        format: format.to_owned(),
        shape: shape.to_vec(),
        offset,
        bytes,
        checksum: Checksum(7),
    };
    let part = |format: &str, rows, cols, offset| PartEntry { format: format.to_owned(), rows, cols, offset };
    let layer = |layer, first_record| LayerEntry {
        layer,
        file: "experts.bin".to_owned(),
        first_record,
        record_bytes: 4096,
        parts: [part("q8_0", 2, 32, 0), part("q8_0", 2, 32, 128), part("f32", 32, 2, 256)],
        checksums: vec![Checksum(1), Checksum(u64::MAX)],
    };
    Manifest {
        created_by: "flash-moe 0".to_owned(),
        description: "test".to_owned(),
        plan: Checksum(5),
        files: vec![
            file("config.json", CONFIG.len() as u64, Some(Checksum(xxh3_64(CONFIG.as_bytes())))),
            file("dense.bin", 8192, None),
            file("experts.bin", 3 * 4096, None),
        ],
        dense: vec![dense("norm", "f32", &[3], 0, 12), dense("embed", "q8_0", &[2, 64], 4096, 136)],
        layers: vec![layer(0, 0), layer(2, 1)],
    }
}

fn container(manifest: &Manifest) -> Model {
    Model::empty()
        .file("config.json", CONFIG)
        .file("dense.bin", [0; 8192])
        .file("experts.bin", [0; 3 * 4096])
        .file(MANIFEST, manifest.to_bytes().unwrap())
}

/// The error of a container whose manifest was changed like this.
fn error(change: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = manifest();
    change(&mut manifest);
    container(&manifest).error()
}

#[track_caller]
fn check(got: String, expected: &str) {
    assert_eq!(got, expected);
}

#[test]
fn a_container_opens() {
    let model = container(&manifest());
    let checkpoint = model.open();
    assert_eq!(checkpoint.kind(), Kind::Packed);
    assert_eq!(checkpoint.files(), [model.join("dense.bin"), model.join("experts.bin")]);
    assert_eq!(checkpoint.config()["model_type"], "test");
    assert_eq!(checkpoint.manifest(), Some(&manifest()));
    let names: Vec<&str> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["embed", "norm"]);
    let embed = checkpoint.tensor("embed").unwrap();
    assert_eq!((embed.format, embed.shape.as_slice()), (Format::Q8_0, [2, 64].as_slice()));
    assert_eq!(embed.extent, Extent { file: 0, offset: 4096, bytes: 136 });
    assert_eq!(embed.checksum, Some(7));

    let table = &checkpoint.packed().unwrap().table;
    assert_eq!(table.layers.len(), 3);
    assert!(table.layers[1].extents.is_empty());
    // Layers 0 and 2 share a record: a container made for benchmarks may do that.
    assert_eq!(table.layers[0].extents[1], table.layers[2].extents[0]);
    let layer = &table.layers[2];
    assert_eq!(layer.extents[1], [Extent { file: 1, offset: 8192, bytes: 4096 }]);
    assert_eq!(layer.checksums, Some(vec![1, u64::MAX]));
    let down = layer.parts[2];
    assert_eq!((down.format, down.rows, down.cols, down.extent, down.offset), (Format::F32, 32, 2, 0, 256));
}

#[test]
fn every_flipped_bit_of_the_manifest_is_found() {
    let model = container(&manifest());
    let sound = std::fs::read(model.join(MANIFEST)).unwrap();
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let message = Manifest::parse(&model.join(MANIFEST), &bytes).unwrap_err().to_string();
        let named =
            message.contains("manifest is damaged") || message.contains("not a manifest of flash-moe");
        assert!(named, "bit {bit}: {message}");
    }
    for bytes in 0..sound.len() {
        assert!(Manifest::parse(&model.join(MANIFEST), &sound[..bytes]).is_err(), "cut at {bytes}");
    }
}

#[test]
fn a_damaged_manifest_is_named() {
    let sound = manifest().to_bytes().unwrap();
    let (sum, got) = {
        let mut bytes = sound.clone();
        bytes[100] ^= 1;
        (String::from_utf8(sound[13..29].to_vec()).unwrap(), Checksum(xxh3_64(&bytes[29..])))
    };
    let mut bytes = sound.clone();
    bytes[100] ^= 1;
    check(
        container(&manifest()).file(MANIFEST, &bytes).error(),
        &format!(
            "DIR/manifest.json: manifest is damaged: expected checksum {sum}, got {got} over the bytes from offset \
             29; pack the model again or restore the file"
        ),
    );
    check(
        container(&manifest()).file(MANIFEST, "{}").error(),
        "DIR/manifest.json: not a manifest of flash-moe at offset 0: expected `{\"checksum\":\"` and 16 \
         hexadecimal digits, got `{}`; pack the model again or restore the file",
    );
    assert!(Model::empty().file(MANIFEST, "{}").error().contains("not a model: found manifest.json;"));
    // A model that happens to have a file of this name is still one.
    let model = Model::with_config().file("model.safetensors", shard(&[])).file(MANIFEST, "{}");
    assert_eq!(model.open().kind(), Kind::HfDirectory);
}

/// A manifest with this text behind the checksum, which is right.
fn signed(rest: &str) -> Vec<u8> {
    let rest = format!("\",{rest}");
    format!("{{\"checksum\":\"{}{rest}", Checksum(xxh3_64(rest.as_bytes()))).into_bytes()
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let newer = r#""format":"flash-moe-packed","version":2,"surprise":[1,2],"container":7}"#;
    check(
        container(&manifest()).file(MANIFEST, signed(newer)).error(),
        "DIR/manifest.json: packed format version 2 is newer than this flash-moe, which reads up to version 1; \
         update flash-moe",
    );
    let older = r#""format":"flash-moe-packed","version":0,"container":7}"#;
    assert!(
        container(&manifest()).file(MANIFEST, signed(older)).error().contains("version: expected 1, got 0")
    );
    let other = r#""format":"something","version":1,"container":7}"#;
    assert!(
        container(&manifest())
            .file(MANIFEST, signed(other))
            .error()
            .contains("format: expected flash-moe-packed, got something")
    );
    let text = String::from_utf8(manifest().to_bytes().unwrap()).unwrap();
    let unknown = text[31..].replace("\"created_by\"", "\"extra\":1,\"created_by\"");
    let message = container(&manifest()).file(MANIFEST, signed(&unknown)).error();
    assert!(message.contains("not valid manifest: unknown field `extra`"), "{message}");
}

#[test]
fn missing_and_resized_files_are_named() {
    let model = container(&manifest()).file("experts.bin", [0; 4096]);
    check(
        model.error(),
        "DIR/experts.bin: size differs from the manifest: expected 12288 bytes, got 4096; copy the file again or \
         pack the model again",
    );
    std::fs::remove_file(model.join("experts.bin")).unwrap();
    check(
        model.error(),
        "DIR/experts.bin: missing; the manifest lists it; copy the whole container or pack the model again",
    );
    let model = container(&manifest()).file("config.json", CONFIG.replace("test", "tesu"));
    let message = model.error();
    assert!(message.starts_with("DIR/config.json: damaged: expected checksum "), "{message}");
}

#[test]
fn impossible_manifests_are_refused() {
    type Case = (fn(&mut Manifest), &'static str);
    let cases: [Case; 24] = [
        (|m| m.files[2].name = "../experts.bin".to_owned(), "files: expected plain file names"),
        (|m| m.files[2].name = "dense.bin".to_owned(), "files: expected plain file names"),
        (|m| m.files[0].name = "manifest.json".to_owned(), "files: expected plain file names"),
        (|m| m.files[1].checksum = Some(Checksum(0)), "files: expected dense.bin without a checksum"),
        (
            |m| m.dense[0].format = "Q8_0".to_owned(),
            "tensor norm format: expected a known weight format, got Q8_0",
        ),
        (|m| m.dense[0].bytes = 13, "tensor norm bytes: expected 12, got 13"),
        (|m| m.dense[0].shape = vec![u64::MAX, u64::MAX], "tensor norm: expected rows of whole f32 blocks"),
        (|m| m.dense[0].shape = vec![1 << 40, 1 << 40, 3], "tensor norm: expected a size of 64 bits"),
        (|m| m.dense[0].shape = vec![1; 9], "tensor norm: expected name of 1024 bytes, 8 dimensions at most"),
        (|m| m.dense[1].shape = vec![2, 63], "tensor embed: expected rows of whole q8_0 blocks"),
        (
            |m| m.dense[1].offset = 64,
            "tensor embed offset: expected a multiple of 4096 of at least 12, got 64",
        ),
        (|m| m.dense[1].offset = 0, "tensor embed offset: expected a multiple of 4096 of at least 12, got 0"),
        (|m| m.dense[1].offset = 8192, "tensor embed: expected a range within dense.bin of 8192 bytes"),
        (|m| m.dense[1].offset = u64::MAX - 1, "tensor embed: expected a range within dense.bin"),
        (|m| m.dense[1].name = "norm".to_owned(), "tensor norm is listed twice"),
        (|m| m.layers[1].layer = 0, "layers: expected rising numbers below 4096, got 0"),
        (|m| m.layers[1].layer = u32::MAX, "layers: expected rising numbers below 4096, got 4294967295"),
        (
            |m| m.layers[0].file = "dense.bin".to_owned(),
            "layer 0: expected a file with records, got dense.bin",
        ),
        (|m| m.layers[0].record_bytes = 4095, "layer 0 record_bytes: expected a multiple of 4096, got 4095"),
        (|m| m.layers[1].first_record = 2, "layer 2: expected records within experts.bin of 12288 bytes"),
        (|m| m.layers[1].first_record = u64::MAX, "layer 2: expected records within experts.bin"),
        (
            |m| m.layers[0].parts[1].offset = 100,
            "layer 0 part offset: expected a multiple of 64 of at least 68",
        ),
        (
            |m| m.layers[0].parts[1].offset = 0,
            "layer 0 part offset: expected a multiple of 64 of at least 68",
        ),
        (
            |m| m.layers[0].parts[2].offset = 3904,
            "layer 0: expected a part within 4096 bytes, got 256 bytes at 3904",
        ),
    ];
    for (change, expected) in cases {
        let message = error(change);
        assert!(message.contains(expected), "{message}\nexpected: {expected}");
    }
}

#[test]
fn an_unfinished_container_says_how_to_go_on() {
    let head = JournalHead {
        format: JOURNAL_FORMAT.to_owned(),
        version: VERSION,
        created_by: "flash-moe 0".to_owned(),
        plan: Checksum(1),
        resume: "flash-moe pack src dst --quant q4_K".to_owned(),
    };
    let line = journal_line(&head).unwrap();
    assert_eq!(parse_journal_line(line.trim_end().as_bytes()), Some(head));
    let model = Model::empty().file("config.json", CONFIG).file("dense.bin", "").file(JOURNAL, &line);
    check(
        model.error(),
        "DIR: packing was not finished; run `flash-moe pack src dst --quant q4_K` with the same options to resume \
         it, or delete the directory",
    );
    let model = model.file(JOURNAL, &line[1..]);
    assert!(model.error().contains("run `flash-moe pack SRC DIR` with"), "{}", model.error());
}

#[test]
fn checksums_have_one_spelling() {
    assert_eq!(Checksum::parse("00000000000000ff"), Some(Checksum(255)));
    for text in ["", "ff", "00000000000000FF", "+0000000000000ff", "00000000000000fg", "000000000000000ff"] {
        assert_eq!(Checksum::parse(text), None, "{text}");
    }
}
