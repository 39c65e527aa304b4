//! Linux and Android: `/proc`, and the control groups of this process.

use std::fs;
use std::path::Path;

use super::MemoryUnknown;
use super::cgroup;

pub(super) fn available_bytes() -> Result<u64, MemoryUnknown> {
    available_below(Path::new("/"))
        .ok_or(MemoryUnknown { system: "Linux", detail: "/proc/meminfo has no MemAvailable" })
}

fn available_below(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok();
    let available = meminfo.and_then(|meminfo| kib_field(&meminfo, "MemAvailable:"));
    // The lesser of those that are known.
    [available, cgroup::room_bytes(root), address_room(root)].into_iter().flatten().min()
}

/// What a limit on the process's address space (`ulimit -v`) leaves; `None` without one.
fn address_room(root: &Path) -> Option<u64> {
    let limits = fs::read_to_string(root.join("proc/self/limits")).ok()?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    Some(limit.saturating_sub(kib_field(&status, "VmSize:")?))
}

pub(super) fn peak_resident_bytes() -> Option<u64> {
    kib_field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

pub(super) fn reset_peak_resident() {
    // The kernel's code for the high-water mark; without the right to write there the old peak stays.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn kib_field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_the_least_of_all_that_is_known() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(available_below(root.path()), None);
        write("proc/meminfo", "MemTotal:       16384 kB\nMemAvailable:    8192 kB\n");
        assert_eq!(available_below(root.path()), Some(8 << 20));
        write("proc/self/cgroup", "0::/a\n");
        write("sys/fs/cgroup/a/memory.max", "5242880\n");
        assert_eq!(available_below(root.path()), Some(5 << 20));
        write("proc/meminfo", "MemAvailable:    1024 kB\n");
        assert_eq!(available_below(root.path()), Some(1 << 20));
        write("proc/self/status", "VmPeak:\t 900 kB\nVmSize:\t 512 kB\n");
        write("proc/self/limits", "Max address space         unlimited   unlimited   bytes\n");
        assert_eq!(available_below(root.path()), Some(1 << 20));
        write("proc/self/limits", "Max address space         1048576     unlimited   bytes\n");
        assert_eq!(available_below(root.path()), Some(512 << 10));
    }
}
