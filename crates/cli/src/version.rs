//! The text of `--version`, which tells two builds and two machines apart in a bug report.

use engine::Isa;

/// Version, commit, target, and the instruction sets that this machine has.
pub(crate) fn long() -> String {
    let sets: Vec<&str> = Isa::ALL.iter().filter(|isa| isa.is_available()).map(|isa| isa.name()).collect();
    let commit = option_env!("BUILD_COMMIT").unwrap_or("unknown");
    format!(
        "{}\ncommit: {commit}\ntarget: {}\nbuild: {}\ninstruction sets here: {}",
        env!("CARGO_PKG_VERSION"),
        env!("BUILD_TARGET"),
        if cfg!(debug_assertions) { "debug" } else { "release" },
        sets.join(" ")
    )
}
