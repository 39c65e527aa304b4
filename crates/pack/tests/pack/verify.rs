//! Verification: every damaged byte is found, and all of them at once.

use std::path::Path;

use checkpoint::Checkpoint;
use pack::{NoProgress, PackError, verify};

use crate::support::{Recorder, Source, Target, assert_same, message, options, pack};

fn flip(path: &Path, offset: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset as usize] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_sound_container_passes() {
    let (source, target) = (Source::new(31), Target::new());
    let options = options(|o| o.verify = true);
    let report = pack::pack(&source.plan(), &target.path(), &options, &NoProgress).unwrap();
    let recorder = Recorder::default();
    let found = verify(&target.path(), &recorder).unwrap();
    assert!(found.is_ok());
    assert_eq!(report.verified_bytes, Some(found.bytes));
    let manifest_bytes = std::fs::metadata(target.path().join("manifest.json")).unwrap().len();
    assert_eq!(found.bytes + manifest_bytes, report.bytes_out, "every byte is read");
    let calls = recorder.calls.into_inner().unwrap();
    assert_eq!((calls.started, calls.advanced), (vec![(found.bytes, 0)], found.bytes));
}

#[test]
fn all_damage_is_listed_at_once() {
    let (source, target) = (Source::new(32), Target::new());
    pack(&source.plan(), &target.path()).unwrap();
    let opened = Checkpoint::open(&target.path()).unwrap();
    let file = |name: &str| target.path().join(name);
    let embed = opened.tensor("embed.weight").unwrap().extent;
    let record = opened.packed().unwrap().table.layers[1].extents[3][0];
    flip(&file("dense.bin"), embed.offset + 17);
    flip(&file("dense.bin"), embed.offset + embed.bytes);
    flip(&file("experts-0001.bin"), record.offset + record.bytes - 1);
    flip(&file("tokenizer.json"), 3);
    let cut = std::fs::metadata(file("experts-0003.bin")).unwrap().len() - 1;
    std::fs::File::options().write(true).open(file("experts-0003.bin")).unwrap().set_len(cut).unwrap();
    let found = verify(&target.path(), &NoProgress).unwrap();
    let found: Vec<String> = found.bad.iter().map(|bad| message(bad, &[(&target.path(), "DST")])).collect();
    let starts = [
        "DST/tokenizer.json: file at offset 0: expected checksum ",
        "DST/experts-0003.bin: file at offset 0: expected ",
        "DST/dense.bin: tensor embed.weight at offset 0: expected checksum ",
        "DST/dense.bin: padding at offset 10880: expected zeros, got other bytes",
        "DST/experts-0001.bin: layer 1 expert 3 at offset ",
        "DST/experts-0003.bin: layer 3 expert 4 at offset ",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (text, start) in found.iter().zip(starts) {
        assert!(text.starts_with(start), "{text}\nexpected: {start}");
    }
    std::fs::remove_file(file("experts-0000.bin")).unwrap();
    assert_eq!(verify(&target.path(), &NoProgress).unwrap().bad.len(), 6 + 1 + crate::support::EXPERTS);
}

#[test]
fn a_damaged_manifest_is_an_error() {
    let (source, target) = (Source::new(33), Target::new());
    pack(&source.plan(), &target.path()).unwrap();
    flip(&target.path().join("manifest.json"), 200);
    let text = message(verify(&target.path(), &NoProgress).unwrap_err(), &[(&target.path(), "DST")]);
    assert!(text.starts_with("DST/manifest.json: manifest is damaged: expected checksum "), "{text}");
    let text = message(verify(source.path(), &NoProgress).unwrap_err(), &[(source.path(), "SRC")]);
    assert!(text.starts_with("SRC/model.safetensors: missing; "), "{text}");
}

#[test]
fn damage_found_before_the_end_is_written_anew_by_the_same_command() {
    let (source, whole, target) = (Source::new(34), Target::new(), Target::new());
    pack(&source.plan(), &whole.path()).unwrap();
    let damaged = options(|o| {
        o.verify = true;
        o.hooks.damage_unit = Some(7);
    });
    let error = pack::pack(&source.plan(), &target.path(), &damaged, &NoProgress).unwrap_err();
    assert!(matches!(error, PackError::VerifyFailed { count: 1, .. }), "{error}");
    let text = message(&error, &[(&target.path(), "DST")]);
    assert!(
        text.starts_with("DST: 1 damaged after writing, first DST/experts-0000.bin: layer 0 expert 2 at")
    );
    assert!(Checkpoint::open(&target.path()).is_err(), "not complete");
    let again = options(|o| o.verify = true);
    let report = pack::pack(&source.plan(), &target.path(), &again, &NoProgress).unwrap();
    assert_eq!((report.units, report.units_resumed), (20, 19));
    assert_same(&whole.path(), &target.path());
}
