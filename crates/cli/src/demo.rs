//! The model called `demo`: embedded in the binary, packed once into the user's cache directory.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::Context;
use checkpoint::Checkpoint;
use engine::Format;
use pack::{PackOptions, QuantTiers};

use crate::output::{self, PackBar};

include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));

/// Where the cache is, instead of the user's cache directory.
const CACHE_VARIABLE: &str = "FLASH_MOE_CACHE";
/// Half the bytes of bf16 at a loss of perplexity that is too small to notice; see the model card.
const FORMAT: Format = Format::Q8_0;

/// The packed demo model, made on first use.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    anyhow::ensure!(
        !FILES.is_empty(),
        "this binary was built without the demo model; build it from the repository"
    );
    let cache = cache_dir();
    let container = cache.join(format!("demo-{:016x}-{FORMAT}", fingerprint()));
    if Checkpoint::open(&container).is_err() {
        make(&cache, &container)
            .with_context(|| format!("{}: cannot make the demo model", cache.display()))?;
    }
    Ok(container)
}

/// Where this program keeps what it makes by itself.
pub(crate) fn cache_dir() -> PathBuf {
    let chosen = env::var_os(CACHE_VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let usual =
        || directories::ProjectDirs::from("", "", "flash-moe").map(|dirs| dirs.cache_dir().to_path_buf());
    chosen.or_else(usual).unwrap_or_else(|| env::temp_dir().join("flash-moe"))
}

/// Another demo model gets another directory, so that a new binary never runs an old one's.
fn fingerprint() -> u64 {
    FILES.iter().fold(0, |sum, (name, bytes)| {
        let name = checkpoint::checksum(name.as_bytes());
        sum.rotate_left(1) ^ name ^ checkpoint::checksum(bytes)
    })
}

/// Writes the embedded files, packs them beside the target and moves the result into place in one
/// step, so that two processes may do it at once and a kill leaves nothing that looks complete.
fn make(cache: &Path, container: &Path) -> anyhow::Result<()> {
    output::note(&format!("packing the demo model once into {}", container.display()));
    let work = cache.join(format!("demo-work-{}", std::process::id()));
    let source = work.join("source");
    fs::create_dir_all(&source)?;
    for (name, bytes) in FILES {
        fs::write(source.join(name), bytes)?;
    }
    let packed = work.join("packed");
    let tiers = QuantTiers::of(FORMAT);
    let plan = pack::plan_model(&source, &tiers, Vec::new());
    let result = plan
        .and_then(|plan| pack::pack(&plan, &packed, &PackOptions::default(), &PackBar::new("packing")))
        .map_err(anyhow::Error::from)
        .and_then(|_| Ok(replace(&packed, container)?));
    let _ = fs::remove_dir_all(&work);
    result
}

/// Moves `packed` to `container`; what was there is damaged, or another process has just made the same.
fn replace(packed: &Path, container: &Path) -> io::Result<()> {
    if container.exists() && Checkpoint::open(container).is_err() {
        fs::remove_dir_all(container)?;
    }
    match fs::rename(packed, container) {
        Err(_) if Checkpoint::open(container).is_ok() => Ok(()),
        result => result,
    }
}
