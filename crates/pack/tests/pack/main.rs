//! Packing: the bytes that come out, interruptions, refusals and verification.
#![allow(clippy::unwrap_used, reason = "tests")]

mod document;
mod interrupt;
mod refuse;
mod support;
mod verify;

use checkpoint::{Checkpoint, Extent, Kind, LayerExperts};
use pack::{NoProgress, PackOptions};
use support::{Recorder, Source, Target, assert_same, files, options, pack};
use tensor::Format;
use xxhash_rust::xxh3::xxh3_64;

/// What the codec makes of bf16 bytes, row by row.
fn encoded(source: &[u8], cols: usize, format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in source.chunks(2 * cols) {
        let mut weights = vec![0.0; cols];
        Format::BF16.decode_row(row, &mut weights).unwrap();
        let mut target = vec![0; format.row_bytes(cols).unwrap()];
        format.encode_row(&weights, &mut target).unwrap();
        bytes.extend(target);
    }
    bytes
}

/// A record has the three matrices (weights per row, bf16 bytes) at their places, and zeros between.
fn check_record<'a>(record: &[u8], layer: &LayerExperts, matrices: impl Iterator<Item = (usize, &'a [u8])>) {
    let mut end = 0;
    for (part, (cols, weights)) in layer.parts.iter().zip(matrices) {
        let expected = encoded(weights, cols, part.format);
        let offset = part.offset as usize;
        assert_eq!(offset % 64, 0);
        assert!(record[end..offset].iter().all(|&byte| byte == 0));
        end = offset + expected.len();
        assert_eq!(record[offset..end], expected);
    }
    assert!(record[end..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_packed_model_has_every_weight_where_it_says() {
    let (source, target) = (Source::new(1), Target::new());
    let plan = source.plan();
    let report = pack(&plan, &target.path()).unwrap();
    assert_eq!((report.units, report.units_resumed, report.already_complete), (20, 0, false));
    assert_eq!(report.bytes_in, source.weights.len() as u64);

    let packed = Checkpoint::open(&target.path()).unwrap();
    assert_eq!(packed.kind(), Kind::Packed);
    let files = files(&target.path());
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let expected = [
        "config.json",
        "dense.bin",
        "experts-0000.bin",
        "experts-0001.bin",
        "experts-0003.bin",
        "manifest.json",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(files["config.json"], b"{ \"model_type\": \"test\" }\n", "copied, not rewritten");
    assert_eq!(report.bytes_out, files.values().map(|bytes| bytes.len() as u64).sum::<u64>());

    let bytes_of = |extent: &Extent| {
        let name = packed.files()[extent.file as usize].file_name().unwrap().to_str().unwrap();
        let start = extent.offset as usize;
        &files[name][start..start + extent.bytes as usize]
    };
    let source_of = |extent: &Extent| {
        let start = extent.offset as usize;
        &source.weights[start..start + extent.bytes as usize]
    };
    for item in &plan.dense {
        let info = packed.tensor(&item.name).unwrap();
        assert_eq!((info.format, &info.shape), (item.format, &item.shape));
        assert_eq!(info.extent.offset % 4096, 0);
        let cols = item.shape.last().copied().unwrap_or(1);
        assert_eq!(
            bytes_of(&info.extent),
            encoded(source_of(&item.source), cols, item.format),
            "{}",
            item.name
        );
        assert_eq!(info.checksum, Some(xxh3_64(bytes_of(&info.extent))));
    }
    let table = &packed.packed().unwrap().table;
    assert_eq!(table.layers.len(), 4);
    assert!(table.layers[2].extents.is_empty());
    for item in &plan.layers {
        let layer = &table.layers[item.layer as usize];
        for (expert, extents) in layer.extents.iter().enumerate() {
            let [extent] = extents.as_slice() else { panic!("one record an expert") };
            assert_eq!((extent.offset % 4096, extent.bytes % 4096), (0, 0));
            let record = bytes_of(extent);
            assert_eq!(layer.checksums.as_ref().unwrap()[expert], xxh3_64(record));
            let extents = &item.source.extents[expert];
            let matrices = item.source.parts.iter().map(|from| {
                let start = from.offset as usize;
                (from.cols, &source_of(&extents[from.extent])[start..start + 2 * from.rows * from.cols])
            });
            check_record(record, layer, matrices);
        }
    }
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_commits() {
    let (source, one) = (Source::new(2), Target::new());
    let plan = source.plan();
    let single = options(|o| o.threads = 1);
    pack::pack(&plan, &one.path(), &single, &NoProgress).unwrap();
    for (threads, commit_bytes) in [(2, 0), (7, 1 << 16), (0, u64::MAX)] {
        let target = Target::new();
        let options = options(|o| {
            o.threads = threads;
            o.commit_bytes = commit_bytes;
        });
        pack::pack(&plan, &target.path(), &options, &NoProgress).unwrap();
        assert_same(&one.path(), &target.path());
    }
    // Nor on where the source lies.
    let (copy, target) = (Source::new(2), Target::new());
    pack(&copy.plan(), &target.path()).unwrap();
    assert_same(&one.path(), &target.path());
}

#[test]
fn progress_adds_up() {
    let (source, target) = (Source::new(3), Target::new());
    let recorder = Recorder::default();
    let options = PackOptions::default();
    pack::pack(&source.plan(), &target.path(), &options, &recorder).unwrap();
    let calls = recorder.calls.into_inner().unwrap();
    let total = source.weights.len() as u64;
    assert_eq!(calls, support::Calls { started: vec![(total, 0)], advanced: total, finished: 1 });
}

#[test]
fn a_packed_model_can_be_packed_again_from_the_container() {
    let (source, first, second) = (Source::new(4), Target::new(), Target::new());
    let plan = source.plan();
    pack(&plan, &first.path()).unwrap();
    let packed = Checkpoint::open(&first.path()).unwrap();
    let mut again = plan.clone();
    again.source_files = packed.files().to_vec();
    for item in &mut again.dense {
        let info = packed.tensor(&item.name).unwrap();
        (item.source, item.source_format) = (info.extent, info.format);
    }
    for item in &mut again.layers {
        item.source = packed.packed().unwrap().table.layers[item.layer as usize].clone();
    }
    pack(&again, &second.path()).unwrap();
    let (mut a, mut b) = (files(&first.path()), files(&second.path()));
    // Only the identity of the plan differs.
    a.remove("manifest.json");
    b.remove("manifest.json");
    assert!(a == b);
    // And from q8_0 to f32, which decodes whole rows.
    again.dense[0].format = Format::F32;
    again.layers[0].formats = [Format::F32; 3];
    let third = Target::new();
    pack(&again, &third.path()).unwrap();
    assert!(pack::verify(&third.path(), &NoProgress).unwrap().is_ok());
}

#[test]
fn a_configuration_that_only_the_plan_has_is_written() {
    let (source, target) = (Source::new(5), Target::new());
    let mut plan = source.plan();
    plan.aux_files.clear();
    pack(&plan, &target.path()).unwrap();
    assert_eq!(Checkpoint::open(&target.path()).unwrap().config(), &plan.config);
}
