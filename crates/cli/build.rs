//! Embeds the demo model, so that the name `demo` works from any directory and from an installed binary, offline.
//!
//! Writes `demo_files.rs`: a table of (file name, bytes) of the files in `models/demo` that a model
//! directory needs, and a number that tells them from other versions.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// Files that the packed demo needs; the model card and the training scripts stay in the repository.
fn is_model_file(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".json") || name.ends_with(".jinja")
}

fn main() -> io::Result<()> {
    tell_version();
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let demo = manifest.join("../../models/demo");
    println!("cargo::rerun-if-changed={}", demo.display());
    let mut names = model_files(&demo)?;
    names.sort();
    // The program would bring all of it into memory to find out.
    let mut hash = DefaultHasher::new();
    for name in &names {
        (name, fs::read(demo.join(name))?).hash(&mut hash);
    }
    let mut table = format!(
        "/// Tells this demo model from others.\npub(crate) const FINGERPRINT: u64 = {:#018x};\n\n",
        hash.finish()
    );
    table.push_str(
        "/// Name and bytes of each file of the demo model.\npub(crate) static FILES: &[(&str, &[u8])] = &[\n",
    );
    for name in names {
        let path = demo.join(&name).canonicalize()?;
        let _ = writeln!(table, "    ({name:?}, include_bytes!({:?})),", path.display().to_string());
    }
    table.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("demo_files.rs"), table)
}

/// Target and, for a release, commit; in development the binary is not linked anew at each commit.
fn tell_version() {
    println!("cargo::rustc-env=BUILD_TARGET={}", env::var("TARGET").unwrap_or_default());
    if env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_string())
    };
    // A source archive has no history: then the version says so.
    let Some(commit) = git(&["describe", "--always", "--dirty", "--abbrev=12"]) else { return };
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
    for file in ["logs/HEAD", "index"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn model_files(demo: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(demo)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && is_model_file(&name) {
            println!("cargo::rerun-if-changed={}", entry.path().display());
            names.push(name);
        }
    }
    Ok(names)
}
