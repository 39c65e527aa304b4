//! The worked example of `docs/packed-format.md` is a real container: the bytes in the document
//! open, verify, and are what `pack` makes.

use std::collections::BTreeMap;

use checkpoint::manifest::Manifest;
use checkpoint::{Checkpoint, ExpertPart, Extent, LayerExperts};
use pack::{DenseItem, LayerItem, NoProgress, PackPlan, verify};
use tensor::Format;

use crate::support::{files, pack};

const DOCUMENT: &str = include_str!("../../../../docs/packed-format.md");

/// The model of the example: hidden size 32, one layer, two experts of width 1.
fn plan(source: &std::path::Path) -> PackPlan {
    let counting: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let weights = [
        vec![1.0, -2.0],
        [counting.clone(), vec![1.0; 32], vec![0.5; 32]].concat(),
        [vec![-2.0; 32], counting, vec![-1.0; 32]].concat(),
    ];
    let bytes: Vec<u8> =
        weights.concat().iter().flat_map(|w: &f32| w.to_bits().to_le_bytes()[2..].to_vec()).collect();
    std::fs::write(source.join("weights.bin"), bytes).unwrap();
    let part = |rows, cols, offset| ExpertPart { format: Format::BF16, rows, cols, extent: 0, offset };
    let expert = |expert: u64| vec![Extent { file: 0, offset: 4 + expert * 192, bytes: 192 }];
    PackPlan {
        dense: vec![DenseItem {
            name: "model.norm.weight".to_owned(),
            shape: vec![2],
            source: Extent { file: 0, offset: 0, bytes: 4 },
            source_format: Format::BF16,
            format: Format::F32,
        }],
        layers: vec![LayerItem {
            layer: 0,
            source: LayerExperts {
                parts: [part(1, 32, 0), part(1, 32, 64), part(32, 1, 128)],
                extents: vec![expert(0), expert(1)],
                checksums: None,
            },
            formats: [Format::Q8_0, Format::Q8_0, Format::BF16],
        }],
        aux_files: Vec::new(),
        aux_made: Vec::new(),
        source_files: vec![source.join("weights.bin")],
        description: "worked example".to_owned(),
        config: serde_json::json!({}),
    }
}

/// The files that the example shows. A block is headed by "`name`, N bytes:"; a manifest is broken
/// into lines, other files are dumps of the lines that are not all zeros.
fn documented() -> BTreeMap<String, Vec<u8>> {
    let (_, example) = DOCUMENT.split_once("## Worked example").unwrap();
    let mut files = BTreeMap::new();
    let mut lines = example.lines();
    while let Some(line) = lines.next() {
        let head = line.strip_prefix('`').and_then(|head| head.strip_suffix(" bytes:"));
        let Some((name, bytes)) = head.and_then(|head| head.split_once("`, ")) else { continue };
        let fenced = lines.by_ref().skip_while(|line| *line != "```text").skip(1);
        let text: Vec<&str> = fenced.take_while(|line| *line != "```").collect();
        let content = match name {
            "manifest.json" => text.iter().map(|line| line.trim_start()).collect::<String>().into_bytes(),
            _ => dump(&text, bytes.parse().unwrap()),
        };
        files.insert(name.to_owned(), content);
    }
    files.get_mut("manifest.json").unwrap().push(b'\n');
    files
}

fn dump(text: &[&str], bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    for line in text {
        let mut words = line.split_whitespace();
        let offset = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        for (i, byte) in words.enumerate() {
            content[offset + i] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    content
}

#[test]
fn the_worked_example_is_what_pack_makes() {
    let directory = tempfile::TempDir::new().unwrap();
    let target = directory.path().join("packed");
    pack(&plan(directory.path()), &target).unwrap();
    let mut made = files(&target);
    if std::env::var_os("SHOW_EXAMPLE").is_some() {
        show(&made);
    }
    let documented = documented();
    let made_manifest = Manifest::parse(&target, &made.remove("manifest.json").unwrap()).unwrap();
    let mut manifest = Manifest::parse(&target, &documented["manifest.json"]).unwrap();
    // These two change with the version of the program.
    manifest.created_by = made_manifest.created_by.clone();
    manifest.plan = made_manifest.plan;
    assert_eq!(manifest, made_manifest);
    for (name, bytes) in &made {
        assert!(bytes == &documented[name], "{name}");
    }
}

#[test]
fn the_worked_example_opens_and_verifies() {
    let directory = tempfile::TempDir::new().unwrap();
    for (name, bytes) in documented() {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let opened = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(opened.packed().unwrap().table.layers[0].extents.len(), 2);
    let report = verify(directory.path(), &NoProgress).unwrap();
    assert_eq!(report.bad, []);
}

/// Prints the blocks for the document.
#[allow(clippy::print_stdout, reason = "asked for")]
fn show(files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        println!("`{name}`, {} bytes:\n\n```text", bytes.len());
        if name == "manifest.json" {
            print!("{}", String::from_utf8_lossy(bytes));
        } else {
            for (index, line) in bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|&b| b != 0))
            {
                let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                println!("{:08x}  {}", index * 16, hex.join(" "));
            }
        }
        println!("```\n");
    }
}
