//! Parsers against random damage: no panic, and what is accepted is within bounds.

use std::path::Path;

use proptest::prelude::*;

use crate::hf::parse_index;
use crate::manifest::{Checksum, Manifest};
use crate::read::parse_config;
use crate::safetensors::parse_header;

const HEADER: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},
"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},"c":{"dtype":"F16","shape":[0],"data_offsets":[16,16]}}"#;
const INDEX: &str = r#"{"metadata":{"total_size":4},"weight_map":{"a":"x.safetensors","b":"y.safetensors"}}"#;
const CONTAINER: &str = concat!(
    r#""format":"flash-moe-packed","version":1,"container":{"created_by":"x","description":"y","#,
    r#""plan":"0000000000000001","files":[{"name":"dense.bin","bytes":4096,"checksum":null},"#,
    r#"{"name":"e.bin","bytes":8192,"checksum":null}],"#,
    r#""dense":[{"name":"n","format":"f32","shape":[3],"offset":0,"bytes":12,"checksum":"0000000000000002"}],"#,
    r#""layers":[{"layer":0,"file":"e.bin","first_record":0,"record_bytes":4096,"#,
    r#""parts":[{"format":"f32","rows":1,"cols":2,"offset":0},{"format":"f32","rows":1,"cols":2,"offset":64},"#,
    r#"{"format":"f32","rows":2,"cols":1,"offset":128}],"checksums":["0000000000000003","0000000000000004"]}]}}"#
);

/// One change to a text: bytes overwritten, removed or repeated, or a number put in.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Remove(usize, usize),
    Repeat(usize, usize),
    Number(usize, u64),
    Insert(usize, &'static str),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let number = prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(1 << 63), Just(1 << 32), any::<u64>()];
    let token = prop_oneof![
        Just("["),
        Just("{"),
        Just("\""),
        Just("}"),
        Just("]"),
        Just(","),
        Just("null"),
        Just("-1"),
        Just("1e400"),
        Just("0.5"),
        Just("\\u0000")
    ];
    let change = prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<usize>(), 0..40usize).prop_map(|(at, n)| Change::Remove(at, n)),
        (any::<usize>(), 0..80usize).prop_map(|(at, n)| Change::Repeat(at, n)),
        (any::<usize>(), number).prop_map(|(at, n)| Change::Number(at, n)),
        (any::<usize>(), token).prop_map(|(at, text)| Change::Insert(at, text)),
    ];
    prop::collection::vec(change, 1..4)
}

fn apply(text: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for change in changes {
        let len = bytes.len();
        let at = |position: &usize| position % (len + 1);
        match change {
            Change::Set(position, byte) if len > 0 => bytes[position % len] = *byte,
            Change::Set(..) => {}
            Change::Remove(position, n) => drop(bytes.drain(at(position)..len.min(at(position) + n))),
            Change::Repeat(position, n) => {
                let piece = bytes[at(position)..len.min(at(position) + n)].to_vec();
                bytes.splice(at(position)..at(position), piece);
            }
            // In place of the next run of digits, so that the structure often survives.
            Change::Number(position, number) => {
                let digit = |i: &usize| bytes[*i].is_ascii_digit();
                let Some(from) = (at(position)..len).find(digit) else { continue };
                let to = (from..len).find(|i| !digit(i)).unwrap_or(len);
                bytes.splice(from..to, number.to_string().into_bytes());
            }
            Change::Insert(position, text) => drop(bytes.splice(at(position)..at(position), text.bytes())),
        }
    }
    bytes
}

/// The bytes of a manifest with a right checksum, so that the checks behind it are reached.
fn signed(container: &[u8]) -> Vec<u8> {
    let covered = [b"\",", container].concat();
    let checksum = Checksum(xxhash_rust::xxh3::xxh3_64(&covered));
    [format!("{{\"checksum\":\"{checksum}").as_bytes(), &covered].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn headers(changes in changes(), data in prop_oneof![Just(16u64), any::<u64>()]) {
        let header = apply(HEADER, &changes);
        let file_bytes = (8 + header.len() as u64).saturating_add(data);
        if let Ok(tensors) = parse_header(Path::new("x"), 0, &header, file_bytes) {
            for t in &tensors {
                prop_assert!(t.extent.offset + t.extent.bytes <= file_bytes);
                let bytes = t.weight_count().unwrap() * t.format.block_bytes();
                prop_assert_eq!(bytes as u64, t.extent.bytes);
            }
        }
    }

    #[test]
    fn manifests(changes in changes()) {
        if let Ok(manifest) = Manifest::parse(Path::new("x"), &signed(&apply(CONTAINER, &changes))) {
            let resolved = crate::resolve::resolve(&manifest, Path::new("x")).unwrap();
            let sizes: Vec<u64> = manifest.files.iter().map(|file| file.bytes).collect();
            let experts = resolved.experts.table.layers.iter().flat_map(|layer| layer.extents.iter().flatten());
            for extent in resolved.tensors.iter().map(|t| &t.extent).chain(experts) {
                prop_assert!(sizes.iter().any(|&bytes| extent.offset + extent.bytes <= bytes));
            }
        }
    }

    #[test]
    fn indexes_and_configs(changes in changes(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_index(Path::new("x"), &apply(INDEX, &changes));
        let _ = parse_config(Path::new("x"), &apply(INDEX, &changes));
        let _ = parse_index(Path::new("x"), &noise);
        let _ = parse_config(Path::new("x"), &noise);
        let _ = parse_header(Path::new("x"), 0, &noise, 1 << 20);
        let _ = Manifest::parse(Path::new("x"), &noise);
    }
}

/// A GGUF file with every kind of value and two tensors.
fn gguf() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let entry = |key: &str, kind: u32, value: &[u8]| [&text(key)[..], &kind.to_le_bytes(), value].concat();
    let array = |kind: u32, count: u64, values: &[u8]| {
        [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
    };
    let tensor = |name: &str, dims: [u64; 2], kind: u32, offset: u64| {
        let dims = [dims[0].to_le_bytes(), dims[1].to_le_bytes()].concat();
        [&text(name)[..], &2u32.to_le_bytes(), &dims, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
    };
    let entries = [
        entry("general.alignment", 4, &32u32.to_le_bytes()),
        entry("a", 8, &text("some text")),
        entry("b", 9, &array(8, 2, &[text("x"), text("yz")].concat())),
        entry("c", 9, &array(5, 2, &[0; 8])),
        entry("d", 12, &[0; 8]),
        entry("e", 7, &[1]),
    ];
    let tensors = [tensor("q", [32, 2], 8, 0), tensor("f", [3, 1], 0, 96)];
    let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &2u64.to_le_bytes(), &6u64.to_le_bytes()].concat();
    bytes.extend(entries.concat());
    bytes.extend(tensors.concat());
    bytes.resize(bytes.len().next_multiple_of(32) + 108, 0);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn gguf_headers(
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), any::<bool>()), 1..6),
        cut in prop_oneof![Just(None), any::<usize>().prop_map(Some)],
    ) {
        let mut bytes = gguf();
        for (at, byte, tiny) in changes {
            // Small and large numbers reach further than any: they keep the structure or break it.
            let byte = if tiny { byte % 14 } else { byte };
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut % (bytes.len() + 1));
        }
        if let Ok((_, tensors)) = crate::gguf::parse_bytes(Path::new("x"), &bytes) {
            for t in &tensors {
                prop_assert!(t.extent.offset + t.extent.bytes <= bytes.len() as u64);
                prop_assert!(t.weight_count().is_some());
            }
        }
    }

    #[test]
    fn gguf_noise(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = crate::gguf::parse_bytes(Path::new("x"), &noise);
        let _ = crate::gguf::parse_bytes(Path::new("x"), &[&gguf()[..24], &noise].concat());
    }
}

#[test]
fn the_gguf_seed_is_sound() {
    let (found, tensors) = crate::gguf::parse_bytes(Path::new("x"), &gguf()).unwrap();
    assert_eq!((tensors.len(), found.metadata().iter().count()), (2, 6));
}

#[test]
fn the_seeds_are_sound() {
    let file_bytes = 8 + HEADER.len() as u64 + 16;
    assert_eq!(parse_header(Path::new("x"), 0, HEADER.as_bytes(), file_bytes).unwrap().len(), 3);
    assert_eq!(parse_index(Path::new("x"), INDEX.as_bytes()).unwrap().len(), 2);
    Manifest::parse(Path::new("x"), &signed(CONTAINER.as_bytes())).unwrap();
}
