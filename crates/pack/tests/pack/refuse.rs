//! What packing refuses, and that a refusal leaves everything as it was.

use pack::{NoProgress, PackError};
use tensor::Format;

use crate::support::{Source, Target, files, message, options, pack};

#[test]
fn a_directory_with_other_files_is_left_alone() {
    let (source, target) = (Source::new(21), Target::new());
    let before = files(source.path());
    let error = pack(&source.plan(), source.path()).unwrap_err();
    let text = message(&error, &[(source.path(), "SRC")]);
    assert!(text.starts_with("SRC: expected an empty or new directory, got one with "), "{text}");
    assert!(text.ends_with("nothing was written, choose another target or delete it"), "{text}");
    assert!(before == files(source.path()));
    std::fs::create_dir(target.path()).unwrap();
    std::fs::write(target.path().join("manifest.json"), "{}").unwrap();
    let text = message(pack(&source.plan(), &target.path()).unwrap_err(), &[(&target.path(), "DST")]);
    assert!(text.contains("got one with a manifest.json that cannot be read in it; nothing was"), "{text}");
    std::fs::remove_dir_all(target.path()).unwrap();
    std::fs::write(target.path(), "a file").unwrap();
    let error = pack(&source.plan(), &target.path()).unwrap_err();
    assert_eq!(
        message(&error, &[(&target.path(), "DST")]),
        "DST: expected a directory to pack into, got a file; choose another target"
    );
}

#[test]
fn another_plan_does_not_resume_or_replace() {
    let (source, other_weights) = (Source::new(22), Source::new(23));
    let plan = source.plan();
    let mut other_format = plan.clone();
    other_format.dense[0].format = Format::BF16;
    let mut other_text = plan.clone();
    other_text.description = "another".to_owned();
    let others = [other_format, other_text, other_weights.plan()];
    let stop = options(|o| {
        o.hooks.stop_after_units = Some(3);
        o.commit_bytes = 0;
    });
    for finished in [false, true] {
        let target = Target::new();
        let _ = pack::pack(&plan, &target.path(), &stop, &NoProgress);
        if finished {
            pack(&plan, &target.path()).unwrap();
        }
        let before = files(&target.path());
        for other in &others {
            let text = message(pack(other, &target.path()).unwrap_err(), &[(&target.path(), "DST")]);
            let what = if finished { "a container" } else { "an unfinished container" };
            let start = format!(
                "DST: holds {what} of another model, other options or another version: expected plan "
            );
            assert!(text.starts_with(&start), "{text}");
        }
        assert!(before == files(&target.path()));
    }
}

#[test]
fn a_finished_container_stays_as_it_is() {
    let (source, target) = (Source::new(24), Target::new());
    pack(&source.plan(), &target.path()).unwrap();
    let before = files(&target.path());
    let verify = options(|o| o.verify = true);
    let report = pack::pack(&source.plan(), &target.path(), &verify, &NoProgress).unwrap();
    assert!(report.already_complete && report.verified_bytes.is_some());
    assert!(before == files(&target.path()));
    // Unless it is damaged: that is said, and nothing is repaired silently.
    std::fs::write(target.path().join("tokenizer.json"), "{}").unwrap();
    let text = message(pack(&source.plan(), &target.path()).unwrap_err(), &[(&target.path(), "DST")]);
    assert!(text.starts_with("DST/tokenizer.json: size differs from the manifest: expected 13 bytes, got 2"));
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_anything_is_written() {
    let (source, target) = (Source::new(25), Target::new());
    let small = options(|o| o.hooks.free_bytes = Some(100_000));
    let error = pack::pack(&source.plan(), &target.path(), &small, &NoProgress).unwrap_err();
    let PackError::NoSpace { needed, free: 100_000, missing, .. } = error else { panic!("{error}") };
    assert_eq!(missing, needed - 100_000);
    assert_eq!(
        message(&error, &[(&target.path(), "DST")]),
        format!(
            "DST: the disk is too small for the result: expected {needed} free bytes, got 100000; free {missing} \
             more bytes or choose another disk, nothing was written"
        )
    );
    assert!(!target.path().exists());
    // What is there already is not needed again.
    let stop = options(|o| o.hooks.stop_after_units = Some(5));
    let _ = pack::pack(&source.plan(), &target.path(), &stop, &NoProgress);
    pack::pack(&source.plan(), &target.path(), &small, &NoProgress).unwrap();
}

#[test]
#[cfg(unix)]
fn two_packs_into_one_directory_do_not_meet() {
    let (source, target) = (Source::new(26), Target::new());
    std::fs::create_dir(target.path()).unwrap();
    let handle = std::fs::File::open(target.path()).unwrap();
    rustix::fs::flock(&handle, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let error = pack(&source.plan(), &target.path()).unwrap_err();
    assert!(matches!(error, PackError::Busy { .. }), "{error}");
    rustix::fs::flock(&handle, rustix::fs::FlockOperation::Unlock).unwrap();
    pack(&source.plan(), &target.path()).unwrap();
}

#[test]
fn a_source_that_changed_under_the_plan_is_named() {
    let (source, target) = (Source::new(27), Target::new());
    let weights = source.path().join("weights.bin");
    std::fs::write(&weights, &source.weights[..source.weights.len() - 5]).unwrap();
    let text = message(
        pack(&source.plan(), &target.path()).unwrap_err(),
        &[(source.path(), "SRC"), (&target.path(), "DST")],
    );
    let bytes = source.weights.len();
    let expected = format!(
        "cannot pack layer 3 expert 4 down: expected an end within SRC/weights.bin of {} bytes, got {bytes}",
        bytes - 5
    );
    assert_eq!(text, expected);
    std::fs::remove_file(&weights).unwrap();
    let text = message(pack(&source.plan(), &target.path()).unwrap_err(), &[(source.path(), "SRC")]);
    assert!(text.starts_with("SRC/weights.bin: cannot find the size: "), "{text}");
    assert!(!target.path().exists());
}

#[test]
fn a_weight_that_no_block_can_hold_stops_the_pack() {
    let source = Source::new(28);
    let plan = source.plan();
    let offset = plan.layers[1].source.extents[2][1].offset as usize + 2 * 1000;
    let mut weights = source.weights.clone();
    for (bits, name) in [(0x7fc0u16, "NaN"), (0x7f80, "inf"), (0x5000, "8589935000")] {
        let target = Target::new();
        weights[offset..offset + 2].copy_from_slice(&bits.to_le_bytes());
        std::fs::write(source.path().join("weights.bin"), &weights).unwrap();
        let text = message(pack(&plan, &target.path()).unwrap_err(), &[(source.path(), "SRC")]);
        let row_bytes = 2 * crate::support::FFN as u64;
        let near = plan.layers[1].source.extents[2][1].offset + 2000 / row_bytes * row_bytes;
        let expected = format!(
            "SRC/weights.bin: layer 1 expert 2 down near offset {near}: weight {name} does not fit q5_0, expected a \
             finite value of at most 65504; the file is damaged, or pack with f32 or bf16"
        );
        assert_eq!(text, expected);
    }
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let source = Source::new(29);
    let check = |change: &dyn Fn(&mut pack::PackPlan), expected: &str| {
        let target = Target::new();
        let mut plan = source.plan();
        change(&mut plan);
        let text = message(pack(&plan, &target.path()).unwrap_err(), &[(source.path(), "SRC")]);
        assert!(text.contains(expected), "{text}\nexpected: {expected}");
        assert!(!target.path().exists());
    };
    check(&|p| p.dense[1].name = "embed.weight".to_owned(), "tensor embed.weight: expected each name once");
    check(&|p| p.dense[0].source.file = 1, "tensor embed.weight: expected one of 1 files, got 1");
    check(&|p| p.dense[0].source.offset = u64::MAX, "tensor embed.weight: expected a size of 63 bits");
    check(&|p| p.dense[0].source.bytes += 2, "tensor embed.weight: expected 20480, got 20482");
    check(
        &|p| p.dense[0].shape = vec![usize::MAX, 2, 256],
        "tensor embed.weight: expected a size of 64 bits",
    );
    check(&|p| p.layers[1].layer = 0, "layers: expected rising numbers below 4096, got 0");
    check(&|p| p.layers[0].source.extents.clear(), "layer 0: expected at least one expert, got none");
    check(&|p| p.layers[0].source.parts[2].extent = 2, "layer 0 expert 0 down: expected extent 2, got none");
    check(
        &|p| p.layers[0].source.parts[1].offset += 1,
        "layer 0 expert 0 up: expected an end within 98304 bytes",
    );
    check(&|p| p.layers[0].formats[2] = Format::Q4K, "cannot encode layer 0: q4_K stores blocks of 256");
    let aux = |name: &str| {
        let path = source.path().join(name);
        std::fs::write(&path, "x").unwrap();
        path
    };
    let (manifest, data) = (aux("manifest.json"), aux("experts-0000.bin"));
    check(&|p| p.aux_files.push(manifest.clone()), "expected a name that the container does not use");
    check(&|p| p.aux_files.push(data.clone()), "expected a name that the container does not use");
    check(
        &|p| p.aux_files.push(p.aux_files[0].clone()),
        "tokenizer.json: expected each name once, got twice",
    );
    check(&|p| p.aux_files.push("SRC/absent".into()), "SRC/absent: cannot read the file");
}
