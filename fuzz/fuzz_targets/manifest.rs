//! Any text as a packed container's manifest: no panic, every extent lies inside its file, and an accepted manifest
//! says the same after it is written and read again.
//!
//! The input is the manifest behind its checksum, which is computed here: a fuzzer does not guess checksums.
#![no_main]

use std::path::Path;

use checkpoint::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("manifest.json");
    let _ = Manifest::parse(path, bytes);
    let covered = [b"\",", bytes].concat();
    let start = format!("{{\"checksum\":\"{:016x}", checkpoint::checksum(&covered));
    let Ok(manifest) = Manifest::parse(path, &[start.as_bytes(), &covered].concat()) else { return };
    let sizes = |name: &str| manifest.files.iter().find(|file| file.name == name).map(|file| file.bytes);
    for tensor in &manifest.dense {
        let end = tensor.offset.checked_add(tensor.bytes).expect("an end");
        assert!(manifest.files.iter().any(|file| end <= file.bytes), "{tensor:?}");
    }
    for layer in &manifest.layers {
        let records = layer.first_record.checked_add(layer.checksums.len() as u64).expect("a count");
        let end = records.checked_mul(layer.record_bytes).expect("an end");
        assert!(sizes(&layer.file).is_some_and(|bytes| end <= bytes), "{layer:?}");
    }
    let written = manifest.to_bytes().expect("a text");
    assert_eq!(Manifest::parse(path, &written).expect("the manifest again"), manifest);
});
