//! How fast packing is on this machine: makes random bf16 experts and packs them.
//!
//! `cargo run --release -p experts --example pack_speed -- DIRECTORY [GIGABYTES] [FORMAT]`
//! needs about one and a half times the size free in `DIRECTORY`, and leaves nothing behind.
#![allow(clippy::print_stdout, reason = "prints its result")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use checkpoint::{ExpertPart, Extent, LayerExperts};
use pack::{LayerItem, NoProgress, PackOptions, PackPlan, pack, verify};
use tensor::Format;

type AnyError = Box<dyn std::error::Error>;

/// Shapes of Qwen3.5-397B-A17B's experts.
const HIDDEN: usize = 4096;
const FFN: usize = 1024;
const EXPERTS: usize = 8;
const EXPERT_BYTES: u64 = 2 * 3 * (HIDDEN * FFN) as u64;

fn main() -> Result<(), AnyError> {
    let mut args = std::env::args().skip(1);
    let directory = PathBuf::from(args.next().ok_or("which directory?")?);
    let gigabytes: f64 = args.next().map_or(Ok(1.0), |arg| arg.parse())?;
    let format = Format::parse(&args.next().unwrap_or_else(|| "q4_K".to_owned()))?;
    let layers = (gigabytes * 1e9 / (EXPERT_BYTES * EXPERTS as u64) as f64).ceil() as u32;

    let (source, target) = (directory.join("pack_speed.bin"), directory.join("pack_speed.packed"));
    make_source(&source, layers)?;
    let plan = plan(&source, layers, format);
    let begin = Instant::now();
    let report = pack(&plan, &target, &PackOptions::default(), &NoProgress)?;
    print_rate("pack", report.bytes_in, begin);
    println!("container: {:.3} GB", report.bytes_out as f64 / 1e9);
    let begin = Instant::now();
    let verified = verify(&target, &NoProgress)?;
    print_rate("verify", verified.bytes, begin);
    println!("peak resident: {} MB", peak_resident_mb().unwrap_or(0));
    std::fs::remove_file(&source)?;
    std::fs::remove_dir_all(&target)?;
    Ok(())
}

fn print_rate(what: &str, bytes: u64, begin: Instant) {
    let seconds = begin.elapsed().as_secs_f64();
    let (rate, gigabytes) = (bytes as f64 / 1e6 / seconds, bytes as f64 / 1e9);
    println!("{what}: {rate:.0} MB/s of input ({gigabytes:.3} GB in {seconds:.1} s)");
}

/// Random bf16 numbers between -0.1 and 0.1.
fn make_source(path: &Path, layers: u32) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..u64::from(layers) * EXPERTS as u64 * EXPERT_BYTES / 2 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let weight = ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.2;
        file.write_all(&weight.to_bits().to_le_bytes()[2..])?;
    }
    file.into_inner()?.sync_all()
}

fn plan(source: &Path, layers: u32, format: Format) -> PackPlan {
    let matrix = (2 * HIDDEN * FFN) as u64;
    let part = |index: u64, rows, cols| ExpertPart {
        format: Format::BF16,
        rows,
        cols,
        extent: 0,
        offset: index * matrix,
    };
    let layer = |layer: u32| LayerItem {
        layer,
        source: LayerExperts {
            parts: [part(0, FFN, HIDDEN), part(1, FFN, HIDDEN), part(2, HIDDEN, FFN)],
            extents: (0..EXPERTS as u64)
                .map(|expert| {
                    let number = u64::from(layer) * EXPERTS as u64 + expert;
                    vec![Extent { file: 0, offset: number * EXPERT_BYTES, bytes: EXPERT_BYTES }]
                })
                .collect(),
            checksums: None,
        },
        formats: [format; 3],
    };
    PackPlan {
        dense: Vec::new(),
        layers: (0..layers).map(layer).collect(),
        aux_files: Vec::new(),
        aux_made: Vec::new(),
        source_files: vec![source.to_path_buf()],
        description: "random experts".to_owned(),
        config: serde_json::json!({}),
    }
}

/// Largest resident size of this process so far, where the system says so.
fn peak_resident_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
