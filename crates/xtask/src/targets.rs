//! Other systems from this one: type checks for all, tests by emulation where there is an emulator.
//!
//! A target needs its standard library (`rustup target add`); where that is missing, a nightly compiler
//! with `rust-src` builds it. A dependency compiles C. Where the target's C compiler is missing, a stand-in
//! that writes empty objects takes its place: a type check links nothing, so the Rust code is checked all
//! the same, and the step says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::root;
use crate::step::{Line, Outcome, Step, works};

/// A system that the workspace is checked for.
struct Target {
    triple: &'static str,
    /// Its C compiler and archiver on a Debian host; the archiver of the host does where none is named.
    cc: &'static str,
    ar: &'static str,
}

const TARGETS: [Target; 6] = [
    Target { triple: "aarch64-unknown-linux-gnu", cc: "aarch64-linux-gnu-gcc", ar: "aarch64-linux-gnu-ar" },
    Target { triple: "x86_64-unknown-linux-musl", cc: "musl-gcc", ar: "ar" },
    Target { triple: "aarch64-apple-darwin", cc: "aarch64-apple-darwin-clang", ar: "ar" },
    Target { triple: "aarch64-apple-ios", cc: "aarch64-apple-ios-clang", ar: "ar" },
    Target { triple: "aarch64-linux-android", cc: "aarch64-linux-android-clang", ar: "ar" },
    Target { triple: "x86_64-pc-windows-gnu", cc: "x86_64-w64-mingw32-gcc", ar: "x86_64-w64-mingw32-ar" },
];

/// Crates whose tests are run by emulation: files, headers, block formats, kernels.
const TESTED: &str = "-p storage -p checkpoint -p tensor -p kernels-cpu -p pack";

/// The stand-in for a C compiler: an empty file in the place of each object.
const STAND_IN: &str = "#!/bin/sh\nwhile [ $# -gt 0 ]; do\n  [ \"$1\" = -o ] && : > \"$2\"\n  shift\ndone\n";

/// A check for each target, then the tests by emulation.
pub(crate) fn steps() -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = TARGETS.iter().map(check).collect::<anyhow::Result<_>>()?;
    let windows =
        Line::new(&format!("cargo test --locked --no-fail-fast --target x86_64-pc-windows-gnu {TESTED}"))
            .with("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", "wine")
            .with("CARGO_PROFILE_DEV_DEBUG", "0")
            .with("WINEDEBUG", "-all");
    steps.push(emulated("windows-tests", windows, &TARGETS[5], "wine --version", "wine64 wine"));
    let arm =
        Line::new(&format!("cargo test --locked --no-fail-fast --target aarch64-unknown-linux-gnu {TESTED}"))
            .with("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "qemu-aarch64 -L /usr/aarch64-linux-gnu")
            .with("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", TARGETS[0].cc)
            .with("CARGO_PROFILE_DEV_DEBUG", "0");
    let packages = "qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross";
    steps.push(emulated("arm-tests", arm, &TARGETS[0], "qemu-aarch64 --version", packages));
    Ok(steps)
}

fn check(target: &Target) -> anyhow::Result<Step> {
    let triple = target.triple;
    let fix = format!("correct what does not compile for {triple}");
    let arguments = format!("check --workspace --all-targets --locked --target {triple}");
    let line = if has_std(triple) {
        Line::new(&format!("cargo {arguments}"))
    } else if works("cargo +nightly --version") && has_source() {
        Line::new(&format!("cargo +nightly {arguments} -Zbuild-std"))
    } else {
        let advice = format!("no standard library for it: `rustup target add {triple}`");
        return Ok(Step::new(triple, fix, move || Ok(Outcome::Skipped(advice.clone()))));
    };
    if works(&format!("{} --version", target.cc)) {
        return Ok(Step::command(triple, fix, line));
    }
    let cc = stand_in(&root().join("target/xtask"))?;
    let variable = format!("CC_{}", triple.replace('-', "_"));
    let line =
        line.with(&variable, cc.display().to_string()).with(&variable.replace("CC_", "AR_"), target.ar);
    let missing = format!("no {}: the C code of dependencies is left out of this check", target.cc);
    Ok(Step::new(triple, fix, move || {
        println!("{missing}");
        line.run().map(|()| Outcome::Passed)
    }))
}

/// Tests that an emulator runs.
fn emulated(name: &str, line: Line, target: &Target, emulator: &str, packages: &str) -> Step {
    let fix = format!("run it again with a filter: {}", line.shown());
    let there = has_std(target.triple) && works(emulator) && works(&format!("{} --version", target.cc));
    let advice = format!(
        "needs `rustup target add {}` and Debian's packages {packages} and {}",
        target.triple, target.cc
    );
    Step::command(name, fix, line).if_there(there, &advice)
}

/// Whether the compiler has a standard library for `triple`.
fn has_std(triple: &str) -> bool {
    let printed = printed("rustc", &["--print", "target-libdir", "--target", triple]);
    let entries = printed.and_then(|directory| fs::read_dir(directory).ok());
    entries
        .into_iter()
        .flatten()
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// Whether the nightly compiler has the source of the standard library.
fn has_source() -> bool {
    let sysroot = printed("rustc", &["+nightly", "--print", "sysroot"]);
    sysroot.is_some_and(|root| Path::new(&root).join("lib/rustlib/src/rust/library/std").is_dir())
}

fn printed(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// Writes the stand-in for a C compiler and says where it is.
fn stand_in(directory: &Path) -> anyhow::Result<PathBuf> {
    let path = directory.join("no-cc");
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    fs::write(&path, STAND_IN).with_context(|| path.display().to_string())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| path.display().to_string())?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_step() {
        let steps = steps().unwrap();
        let names = TARGETS.iter().map(|target| target.triple).chain(["windows-tests", "arm-tests"]);
        let names: Vec<&str> = names.collect();
        assert_eq!(crate::step::only(steps, &names).unwrap().len(), names.len());
    }

    #[cfg(unix)]
    #[test]
    fn the_stand_in_writes_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let cc = stand_in(directory.path()).unwrap();
        let object = directory.path().join("a.o");
        let status = Command::new(cc).args(["-O2", "-c", "a.c", "-o"]).arg(&object).status().unwrap();
        assert!(status.success() && object.exists());
    }
}
