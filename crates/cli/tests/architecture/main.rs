//! The structure that ARCHITECTURE.md promises: who may depend on whom, and which things are absent where.
#![allow(clippy::unwrap_used)]

mod circles;
mod rules;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Longest source file, lines. Tests are not counted.
const FILE_LINES_MAX: usize = 1000;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Rows of the dependency table: `| crate | job | may depend on | unsafe |`.
pub(crate) fn table() -> BTreeMap<String, (BTreeSet<String>, String)> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let may = cells[2].split(',').map(str::trim).filter(|name| *name != "–").map(String::from);
        (cells[0].to_string(), (may.collect(), cells[3].to_string()))
    })
    .collect()
}

#[test]
fn crates_depend_only_on_those_in_their_row() {
    let table = table();
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let members: BTreeSet<String> =
        metadata.packages.iter().map(|package| package.name.to_string()).collect();
    assert_eq!(
        members,
        table.keys().cloned().collect(),
        "ARCHITECTURE.md has a row for each crate and no other"
    );
    for package in &metadata.packages {
        let folder = package.manifest_path.parent().and_then(|dir| dir.file_name());
        assert_eq!(folder, Some(package.name.as_str()), "a folder has the name of its crate");
        let (may, _) = &table[package.name.as_str()];
        let normal =
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        for dependency in normal.filter(|dependency| members.contains(&dependency.name)) {
            assert!(may.contains(&dependency.name), "{} may not depend on {}", package.name, dependency.name);
        }
    }
}

/// Source files of a crate, tests and examples left out.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, PathBuf, String)> {
    let mut found = Vec::new();
    for name in table().keys() {
        let mut files = Vec::new();
        sources(&root().join("crates").join(name).join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            found.push((name.clone(), file, text));
        }
    }
    assert!(found.len() > 40);
    found
}

#[test]
fn unsafe_code_is_only_where_the_table_allows_it() {
    let table = table();
    for (name, file, text) in all_sources() {
        if file.ends_with("src/lib.rs") || file.ends_with("src/main.rs") {
            let forbids = text.contains("#![forbid(unsafe_code)]");
            assert_eq!(table[&name].1 == "forbid", forbids, "{}: unsafe code", file.display());
        }
        if name == "kernels-cpu"
            && !["arch/", "pool"].iter().any(|part| file.to_string_lossy().contains(part))
        {
            assert!(
                !text.contains(concat!("unsafe", " {")),
                "{}: unsafe outside arch and pool",
                file.display()
            );
        }
    }
}

/// Rows of the table of unsafe blocks: `| where | blocks | what for |`.
#[test]
fn unsafe_blocks_are_no_more_than_the_table_says() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| where | blocks |")).skip(2);
    let mut stated: BTreeMap<String, usize> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            (cells[0].to_string(), cells[1].parse().unwrap())
        })
        .collect();
    assert!(!stated.is_empty());
    for (_, file, text) in all_sources() {
        let blocks = text.matches(concat!("unsafe", " {")).count();
        let path = file.to_string_lossy();
        let place = stated.iter_mut().find(|(place, _)| path.contains(place.as_str()));
        match place {
            Some((_, left)) => {
                *left = left
                    .checked_sub(blocks)
                    .unwrap_or_else(|| panic!("{}: more than stated", file.display()));
            }
            None => assert_eq!(blocks, 0, "{}: unsafe in a place that is not stated", file.display()),
        }
    }
}

#[test]
fn absences_hold() {
    for (name, file, text) in all_sources() {
        let path = file.to_string_lossy().into_owned();
        let shown = file.display();
        if !path.contains("kernels-cpu/src/arch") {
            let intrinsics = text.contains("std::arch::") || text.contains("core::arch::");
            assert!(!intrinsics, "{shown}: intrinsics belong below kernels-cpu/src/arch");
        }
        if !["models", "tokenizer"].contains(&name.as_str()) {
            let names = text.contains("qwen3_5") || text.contains("linear_attn.");
            assert!(!names, "{shown}: architecture names belong in models");
        }
        if name == "kernels-cpu" {
            assert!(!text.contains("ExpertId"), "{shown}: kernels know no expert store");
        }
        assert!(text.lines().count() <= FILE_LINES_MAX, "{shown}: more than {FILE_LINES_MAX} lines");
    }
}
