//! GGUF files: what is read from sound ones, and what is said about hostile ones.
#![allow(clippy::unwrap_used)]

mod support;

use checkpoint::gguf::Value;
use checkpoint::{Checkpoint, Extent, Kind};
use support::Model;
use tensor::Format;

/// A GGUF file in the making. Numbers that a test wants wrong can be set apart from what is there.
#[derive(Clone)]
struct Gguf {
    magic: [u8; 4],
    version: u32,
    tensor_count: Option<u64>,
    key_count: Option<u64>,
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    alignment: usize,
    data: Vec<u8>,
}

fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// A key with a value of type `kind`.
fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &kind.to_le_bytes(), value].concat()
}

fn array(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
}

/// A tensor info; `dims` fastest first, as in the file.
fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let rank = (dims.len() / 8) as u32;
    [&text(name)[..], &rank.to_le_bytes(), &dims, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

impl Gguf {
    /// Two tensors and one entry: 2 rows of 32 in q8_0, and 3 numbers in f32.
    fn sound() -> Gguf {
        Gguf {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            entries: vec![entry("general.architecture", 8, &text("test"))],
            tensors: vec![tensor("b", &[32, 2], 8, 0), tensor("a", &[3], 0, 96)],
            alignment: 32,
            data: vec![0; 96 + 12],
        }
    }

    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Gguf {
        self.entries.push(entry(key, kind, value));
        self
    }

    fn tensors(mut self, tensors: &[Vec<u8>]) -> Gguf {
        self.tensors = tensors.to_vec();
        self
    }

    fn header(&self) -> Vec<u8> {
        let count = |given: Option<u64>, len: usize| given.unwrap_or(len as u64).to_le_bytes();
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(count(self.tensor_count, self.tensors.len()));
        bytes.extend(count(self.key_count, self.entries.len()));
        bytes.extend(self.entries.concat());
        bytes.extend(self.tensors.concat());
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }

    fn model(&self) -> Model {
        Model::empty().file("m.gguf", self.bytes())
    }

    fn open(&self) -> Checkpoint {
        Checkpoint::open(&self.model().join("m.gguf")).unwrap()
    }

    fn error(&self) -> String {
        let model = self.model();
        model.error_at(&model.join("m.gguf"))
    }

    /// Says that the header is impossible, where and why.
    #[track_caller]
    fn check(&self, expected: &str) {
        let error = self.error();
        assert!(error.contains(expected), "{error}\nlacks {expected}");
        assert!(error.starts_with("DIR/m.gguf: ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn tensors_and_metadata_are_found() {
    let gguf = Gguf::sound()
        .entry("u8", 0, &[200])
        .entry("i16", 3, &(-2i16).to_le_bytes())
        .entry("u64", 10, &u64::MAX.to_le_bytes())
        .entry("f32", 6, &0.5f32.to_le_bytes())
        .entry("yes", 7, &[1])
        .entry("list", 9, &array(4, 2, &[7, 0, 0, 0, 8, 0, 0, 0]))
        .entry("texts", 9, &array(8, 2, &[text("x"), text("yz")].concat()))
        .entry("none", 9, &array(8, 0, &[]));
    for version in [2, 3] {
        let checkpoint = Gguf { version, ..gguf.clone() }.open();
        assert_eq!(checkpoint.kind(), Kind::Gguf);
        let names: Vec<&str> = checkpoint.tensors().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let data = (gguf.header().len().next_multiple_of(32)) as u64;
        let b = checkpoint.tensor("b").unwrap();
        assert_eq!((b.format, b.shape.as_slice()), (Format::Q8_0, &[2, 32][..]));
        assert_eq!(b.extent, Extent { file: 0, offset: data, bytes: 68 });
        assert_eq!(checkpoint.tensor("a").unwrap().extent, Extent { file: 0, offset: data + 96, bytes: 12 });
        let found = checkpoint.gguf().unwrap();
        assert_eq!(found.version(), version);
        assert_eq!(found.header_bytes(), gguf.header().len() as u64);
        let get = |key: &str| found.metadata().get(key).cloned().unwrap();
        assert_eq!(get("u8"), Value::Unsigned(200));
        assert_eq!(get("i16"), Value::Signed(-2));
        assert_eq!(get("u64"), Value::Unsigned(u64::MAX));
        assert_eq!(get("f32"), Value::Float(0.5));
        assert_eq!(get("yes"), Value::Bool(true));
        let array = |key: &str| found.metadata().array(key).unwrap();
        assert_eq!(array("list").get(1), Some(Value::Unsigned(8)));
        assert_eq!((array("texts").text(1), array("texts").text(2)), (Some("yz"), None));
        assert!(array("none").is_empty());
        assert_eq!(found.metadata().text("general.architecture"), Some("test"));
        assert_eq!(checkpoint.aux_file("m.gguf").unwrap(), None);
    }
}

#[test]
fn alignment_is_obeyed() {
    let gguf = |bytes: u32| Gguf::sound().entry("general.alignment", 4, &bytes.to_le_bytes());
    let mut wide = gguf(1024).tensors(&[tensor("b", &[32, 2], 8, 0), tensor("a", &[3], 0, 1024)]);
    wide.alignment = 1024;
    wide.data = vec![0; 1024 + 12];
    let checkpoint = wide.open();
    assert_eq!(checkpoint.tensor("a").unwrap().extent.offset % 1024, 0);
    for bad in [0, 3, 24, 1 << 21] {
        gguf(bad).check("general.alignment: expected a power of two of at most 1048576, got ");
    }
    let text_alignment = Gguf::sound().entry("general.alignment", 8, &text("32"));
    text_alignment.check("general.alignment: expected a power of two of at most 1048576, got \"32\"");
    let misaligned = Gguf::sound().tensors(&[tensor("a", &[3], 0, 4)]);
    misaligned.check("offset of tensor a: expected a multiple of 32, got 4");
    // Where in the file it says so.
    let sound = Gguf::sound().tensors(&[]).header().len();
    misaligned.check(&format!("at offset {}: offset of tensor a", sound + text("a").len() + 4 + 8 + 4));
    let behind_key = sound + text("general.alignment").len() + 4;
    gguf(3).check(&format!("at offset {behind_key}: general.alignment"));
}

#[test]
fn other_files_and_versions_are_told_apart() {
    let with = |change: &dyn Fn(&mut Gguf)| {
        let mut gguf = Gguf::sound();
        change(&mut gguf);
        gguf
    };
    with(&|g| g.magic = *b"GGML").check("offset 0: magic: expected GGUF, got GGML");
    with(&|g| g.version = 1).check("GGUF version 1 is not supported; expected version 2 or 3");
    with(&|g| g.version = 4).check("GGUF version 4 is not supported");
    with(&|g| g.version = 99).check("version 99 is not supported; expected version 2 or 3 in little-endian");
    with(&|g| g.version = 0).check("GGUF version 0 is not supported");
    let big_endian = "GGUF version 3 in big-endian byte order is not supported";
    with(&|g| g.version = 3u32.swap_bytes()).check(big_endian);
    let model = Model::empty().file("m.gguf", "version https://git-lfs.github.com/spec/v1\n");
    assert!(model.error_at(&model.join("m.gguf")).contains("this is a Git LFS pointer"));
    let error = |content: &str| {
        let model = Model::empty().file("m.gguf", content);
        model.error_at(&model.join("m.gguf"))
    };
    assert!(error("GG").contains("magic: expected 4 more bytes, got the end of the file after 2 of them"));
    assert!(error("").contains("at offset 0: magic: expected GGUF, got an empty file"));
    assert!(error("").ends_with("download it again"));
    // A file is known by its first bytes, too.
    let model = Model::empty().file("renamed", Gguf::sound().bytes());
    assert_eq!(Checkpoint::open(&model.join("renamed")).unwrap().kind(), Kind::Gguf);
}

#[test]
fn counts_beyond_file_or_limit_are_refused() {
    for count in [1000, 1 << 20, 1 << 21, u64::MAX] {
        let error = Gguf { tensor_count: Some(count), ..Gguf::sound() }.error();
        assert!(error.contains("number of tensors: expected at most"), "{error}");
        let error = Gguf { key_count: Some(count), ..Gguf::sound() }.error();
        assert!(error.contains("number of metadata entries: expected at most"), "{error}");
    }
    for count in [1000, 1 << 24, 1 << 25, 1 << 61, u64::MAX] {
        for kind in [0, 5, 8, 12] {
            let gguf = Gguf::sound().entry("k", 9, &array(kind, count, &[0; 8]));
            gguf.check("value of k: expected at most");
        }
    }
    for length in [1u64 << 14, 1 << 32, u64::MAX] {
        Gguf::sound().entry("k", 8, &length.to_le_bytes()).check("value of k: expected ");
        let bytes = [&length.to_le_bytes()[..], b"name"].concat();
        let gguf = Gguf { entries: vec![bytes.clone()], ..Gguf::sound() };
        gguf.check("key: expected ");
        Gguf::sound().tensors(&[bytes]).check("tensor name: expected ");
        let one = array(8, 1, &length.to_le_bytes());
        Gguf::sound().entry("k", 9, &one).check("value of k: expected ");
    }
}

#[test]
fn every_cut_is_an_error() {
    let bytes = Gguf::sound().entry("texts", 9, &array(8, 2, &[text("x"), text("yz")].concat())).bytes();
    for len in 0..bytes.len() {
        let model = Model::empty().file("m.gguf", &bytes[..len]);
        let error = model.error_at(&model.join("m.gguf"));
        assert!(
            error.contains("got the end of the file after")
                || error.contains("truncated: tensor")
                || error.contains("that the rest of the file has room for")
                || error.contains("got an empty file"),
            "{len}: {error}"
        );
    }
}

#[test]
fn dimensions_that_overflow_are_refused() {
    let check =
        |dims: &[u64], expected: &str| Gguf::sound().tensors(&[tensor("t", dims, 0, 0)]).check(expected);
    check(&[u64::MAX], "tensor t: impossible shape [18446744073709551615]");
    check(&[1 << 32, 1 << 32], "tensor t: impossible shape [4294967296, 4294967296]");
    check(&[0, 1 << 40, 1 << 40], "tensor t: impossible shape");
    check(&[1 << 16, 1 << 16, 1 << 16, 1 << 15], "tensor t: impossible shape");
    check(&[1 << 30, 1 << 30], "truncated: tensor t at offset");
    check(&[1, 1, 1, 1, 1], "tensor t: expected at most 4 dimensions, got 5");
    let many = [&text("t")[..], &u32::MAX.to_le_bytes()].concat();
    Gguf::sound().tensors(&[many]).check("tensor t: expected at most 4 dimensions, got 4294967295");
    // Rows that are no whole number of blocks.
    let odd = Gguf::sound().tensors(&[tensor("t", &[33], 8, 0)]);
    odd.check("tensor t: impossible shape [33]");
}

#[test]
fn offsets_outside_the_file_are_refused() {
    let at = |offset: u64| Gguf::sound().tensors(&[tensor("t", &[3], 0, offset)]);
    for offset in [128, 1 << 40] {
        at(offset).check("truncated: tensor t at offset");
    }
    for offset in [u64::MAX - 31, u64::MAX - 63] {
        at(offset).check(&format!(
            "offset of tensor t: expected one within the {} bytes of the file, got {offset}",
            at(offset).bytes().len()
        ));
    }
    // The data ends before the last tensor does; it is named, and the size that the file should have.
    let mut short = Gguf::sound();
    short.data.truncate(100);
    let (got, expected) = (short.bytes().len(), short.bytes().len() + 8);
    short.check(&format!("is cut off; expected a file of {expected} bytes, got {got}; download it again"));
    short.check("truncated: tensor a at offset");
    let shared = Gguf::sound().tensors(&[tensor("b", &[32, 2], 8, 0), tensor("a", &[3], 0, 64)]);
    shared.check("tensor a overlaps b");
}

#[test]
fn unknown_types_are_named() {
    let check = |kind: u32, expected: &str| {
        let gguf = Gguf::sound().tensors(&[tensor("blk.0.x", &[256], kind, 0)]);
        gguf.check(&format!(
            "tensor blk.0.x: ggml type {expected} is not supported; expected one of f32, f16,"
        ));
    };
    check(26, "i32");
    check(31, "q4_0_4_4");
    check(99, "number 99");
    check(u32::MAX, "number 4294967295");
    Gguf::sound().entry("k", 13, &[0; 8]).check("type of k: expected a number from 0 to 12, got 13");
    Gguf::sound().entry("k", u32::MAX, &[0; 8]).check("type of k: expected a number from 0 to 12");
    Gguf::sound().entry("k", 9, &array(13, 0, &[])).check("type of k: expected a number from 0 to 12");
}

#[test]
fn arrays_do_not_nest() {
    // As deep as it may be, it is never followed.
    let mut nested = array(0, 1, &[0]);
    for _ in 0..10_000 {
        nested = array(9, 1, &nested[..nested.len().min(1 << 16)]);
    }
    Gguf::sound()
        .entry("k", 9, &nested)
        .check("value of k: expected an array of plain values, got an array of");
    Gguf::sound()
        .entry("k", 9, &array(9, u64::MAX, &[]))
        .check("value of k: expected an array of plain values");
}

#[test]
fn nothing_is_listed_twice() {
    let twice = Gguf::sound().entry("k", 0, &[1]).entry("k", 0, &[2]);
    twice.check("key k: expected each key once, got it twice; this program does not read such a file");
    // In whatever form, and far from each other.
    let twice = Gguf::sound().entry("k", 8, &text("x")).entry("l", 0, &[0]).entry("k", 9, &array(0, 0, &[]));
    twice.check("key k: expected each key once, got it twice");
    let twice = Gguf::sound().tensors(&[tensor("a", &[3], 0, 0), tensor("a", &[3], 0, 32)]);
    twice.check("tensor a is listed twice");
}

#[test]
fn names_are_shown_in_one_line() {
    let gguf = Gguf::sound().entry("bad\nkey", 13, &[]);
    gguf.check("type of bad\\nkey");
    let not_text = Gguf { entries: vec![entry("", 0, &[0])], ..Gguf::sound() };
    assert_eq!(not_text.open().gguf().unwrap().metadata().get(""), Some(&Value::Unsigned(0)));
    let key = [&text(b"\xff\xfe")[..], &[0; 5]].concat();
    Gguf { entries: vec![key], ..Gguf::sound() }.check("key: expected UTF-8");
    // Values may be anything.
    let value = Gguf::sound().entry("k", 8, &text(b"a\xff")).open();
    assert_eq!(value.gguf().unwrap().metadata().text("k"), Some("a\u{fffd}"));
}

/// Shards of a model with `tensors` in all, each with one of its own.
fn shard(number: u16, count: u16, tensors: i32) -> Gguf {
    let mut gguf = Gguf::sound().tensors(&[tensor(&format!("t{number}"), &[3], 0, 0)]);
    if number > 0 {
        // As llama.cpp writes them: only the first says what it is.
        gguf.entries.clear();
    }
    gguf.entry("split.no", 2, &number.to_le_bytes()).entry("split.count", 2, &count.to_le_bytes()).entry(
        "split.tensors.count",
        5,
        &tensors.to_le_bytes(),
    )
}

fn split(shards: &[(&str, Gguf)]) -> Model {
    shards.iter().fold(Model::empty(), |model, (name, gguf)| model.file(name, gguf.bytes()))
}

const FIRST: &str = "m-00001-of-00003.gguf";
const SECOND: &str = "m-00002-of-00003.gguf";
const THIRD: &str = "m-00003-of-00003.gguf";

#[test]
fn shards_are_found_from_the_first() {
    let model = split(&[(FIRST, shard(0, 3, 3)), (SECOND, shard(1, 3, 3)), (THIRD, shard(2, 3, 3))]);
    let checkpoint = Checkpoint::open(&model.join(FIRST)).unwrap();
    assert_eq!(checkpoint.files(), [FIRST, SECOND, THIRD].map(|name| model.join(name)));
    let files: Vec<u32> = checkpoint.tensors().map(|tensor| tensor.extent.file).collect();
    assert_eq!(files, [0, 1, 2]);
    let error = model.error_at(&model.join(THIRD));
    assert_eq!(
        error,
        format!("DIR/{THIRD}: this is not the first file of a split model; pass DIR/{FIRST} instead")
    );
    let error = model.error();
    assert_eq!(
        error,
        format!("DIR: this directory holds GGUF files; pass one of them, for instance DIR/{FIRST}")
    );
}

#[test]
fn shards_that_do_not_fit_are_refused() {
    let check = |shards: &[(&str, Gguf)], expected: &str| {
        let model = split(shards);
        let error = model.error_at(&model.join(shards[0].0));
        assert!(error.contains(expected), "{error}\nlacks {expected}");
    };
    let (first, second, third) = (shard(0, 3, 3), shard(1, 3, 3), shard(2, 3, 3));
    let missing = format!("DIR/{SECOND}: missing, but DIR/{FIRST} says that the model is split into 3 files");
    check(&[(FIRST, first.clone()), (THIRD, third.clone())], &missing);
    let swapped = &[(FIRST, first.clone()), (SECOND, third.clone()), (THIRD, second.clone())];
    check(
        swapped,
        "m-00002-of-00003.gguf: does not belong to DIR/m-00001-of-00003.gguf: split.no: expected 1, got 2",
    );
    let other = &[(FIRST, first.clone()), (SECOND, shard(1, 4, 3)), (THIRD, third.clone())];
    check(other, "split.count: expected 3, got 4");
    let other = &[(FIRST, first.clone()), (SECOND, shard(1, 3, 9)), (THIRD, third.clone())];
    check(other, "split.tensors.count: expected 3, got 9");
    let named = second.clone().entry("general.architecture", 8, &text("other"));
    let other = &[(FIRST, first.clone()), (SECOND, named), (THIRD, third.clone())];
    check(other, "general.architecture: expected \"test\", got \"other\"");
    let plain = &[(FIRST, first.clone()), (SECOND, Gguf::sound()), (THIRD, third.clone())];
    check(plain, "split.no: expected 1, got nothing");
    let repeated = second.clone().tensors(&[tensor("t0", &[3], 0, 0)]);
    check(&[(FIRST, first.clone()), (SECOND, repeated), (THIRD, third.clone())], "tensor t0 is listed twice");
    let more = shard(0, 3, 4);
    let four = |number| shard(number, 3, 4);
    check(
        &[(FIRST, more), (SECOND, four(1)), (THIRD, four(2))],
        "split.tensors.count: expected 4 tensors in 3 files",
    );
    check(
        &[("m.gguf", first.clone())],
        "m.gguf: this is part 1 of 3 of a split model, under a name that does not tell those of the other parts; \
         expected a name that ends in -00001-of-00003.gguf",
    );
    let negative = Gguf::sound().entry("split.count", 5, &(-1i32).to_le_bytes());
    check(&[("m.gguf", negative)], "split.count: expected a whole number of at most 10000, got -1");
    let endless = Gguf::sound().entry("split.count", 4, &u32::MAX.to_le_bytes());
    check(&[("m.gguf", endless)], "split.count: expected a whole number of at most 10000, got 4294967295");
    // A count of 0 or 1 is no split.
    let single = Gguf::sound().entry("split.count", 2, &[0, 0]);
    assert_eq!(single.open().files().len(), 1);
}
