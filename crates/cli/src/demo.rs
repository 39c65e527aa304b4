//! The model called `demo`: embedded in the binary, packed once into the user's cache directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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

/// Set for a process that is to make the demo model itself.
const MAKER_VARIABLE: &str = "FLASH_MOE_DEMO_MAKER";
/// How the names of directories begin that the model is made in.
const WORK_PREFIX: &str = "demo-work-";
/// A file there that is locked as long as somebody works in the directory.
const LOCK: &str = "lock";

/// The packed demo model, made on first use.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    anyhow::ensure!(
        !FILES.is_empty(),
        "this binary was built without the demo model; build it from the repository"
    );
    let cache = cache_dir();
    let container = container(&cache);
    if Checkpoint::open(&container).is_err() {
        let made = match env::var_os(MAKER_VARIABLE) {
            Some(_) => make(&cache, &container),
            None => have_made(&container),
        };
        made.with_context(|| format!("{}: cannot make the demo model", cache.display()))?;
    }
    Ok(container)
}

/// What a list says of the model, whether it has been packed or not.
pub(crate) struct About {
    /// Where it is or will be.
    pub(crate) path: PathBuf,
    /// Its own files, in the binary.
    pub(crate) bytes: u64,
    /// The format that it is packed in.
    pub(crate) quant: String,
    /// Its configuration.
    pub(crate) config: serde_json::Value,
}

/// The model in this binary, if it was built with one.
pub(crate) fn about() -> Option<About> {
    let (_, config) = FILES.iter().find(|(name, _)| *name == checkpoint::manifest::CONFIG)?;
    Some(About {
        path: container(&cache_dir()),
        bytes: FILES.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
        quant: FORMAT.to_string(),
        config: serde_json::from_slice(config).unwrap_or_default(),
    })
}

fn container(cache: &Path) -> PathBuf {
    cache.join(format!("demo-{FINGERPRINT:016x}-{FORMAT}"))
}

/// Has another process make the model: this one may have a budget, which the model in the executable
/// and the packing of it would exceed.
fn have_made(container: &Path) -> anyhow::Result<()> {
    output::note(&format!("packing the demo model once into {}", container.display()));
    let maker = Command::new(env::current_exe()?)
        .args(["inspect", "demo"])
        .env(MAKER_VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()?;
    if !maker.status.success() {
        let errors = String::from_utf8_lossy(&maker.stderr);
        let said = errors.lines().last().unwrap_or("the process that makes it was ended");
        anyhow::bail!("{}", said.trim_start_matches("error: "));
    }
    Ok(())
}

/// Where this program keeps what it makes by itself.
pub(crate) fn cache_dir() -> PathBuf {
    let chosen = env::var_os(CACHE_VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let usual =
        || directories::ProjectDirs::from("", "", "flash-moe").map(|dirs| dirs.cache_dir().to_path_buf());
    chosen.or_else(usual).unwrap_or_else(|| env::temp_dir().join("flash-moe"))
}

/// Writes the embedded files, packs them beside the target and moves the result into place in one
/// step, so that two processes may do it at once and a kill leaves nothing that looks complete.
fn make(cache: &Path, container: &Path) -> anyhow::Result<()> {
    remove_left(cache);
    let work = cache.join(format!("{WORK_PREFIX}{}", std::process::id()));
    let source = work.join("source");
    fs::create_dir_all(&source)?;
    let lock = File::create(work.join(LOCK))?;
    // Without locks others wait with their cleaning until the lock's file is gone.
    let _ = lock.try_lock();
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

/// Removes directories of processes that were killed while they worked there.
fn remove_left(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(WORK_PREFIX) {
            let lock = File::open(entry.path().join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
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
