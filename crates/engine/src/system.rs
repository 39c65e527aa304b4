//! What this machine has: memory that is free, within the limits of the control group; cores; the process's own peak.

use std::fs;
use std::path::{Path, PathBuf};

/// Sizes for people: `5.5 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.2} {}", UNITS[unit]),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// Parses a size such as `6GiB`, `800M`, `12g`, `1.5GB` or a plain number of bytes. Units without `B` or with `iB` are
/// binary, with `B` alone decimal. `None` if it is not a size above zero.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let (binary, decimal) = (1024f64, 1000f64);
    let factor = match unit.as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => binary,
        "m" | "mib" => binary.powi(2),
        "g" | "gib" => binary.powi(3),
        "t" | "tib" => binary.powi(4),
        "kb" => decimal,
        "mb" => decimal.powi(2),
        "gb" => decimal.powi(3),
        "tb" => decimal.powi(4),
        _ => return None,
    };
    let bytes = number * factor;
    (bytes >= 1.0 && bytes < 2f64.powi(60)).then_some(bytes as u64)
}

/// Bytes that this process could still take: free and reclaimable memory, or less where a control group says so.
/// `None` where the system does not tell.
pub fn available_memory_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let available = kib_field(&meminfo, "MemAvailable:")?;
    Some(cgroup_room_bytes().map_or(available, |room| room.min(available)))
}

/// Highest resident memory of this process so far, bytes.
pub fn peak_resident_bytes() -> Option<u64> {
    kib_field(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Lets [`peak_resident_bytes`] begin anew with what is resident now, where the system can (Linux).
pub fn reset_peak_resident() {
    // The kernel's code for the high-water mark; without the right to write there the old peak stays.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Cores that this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn kib_field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Room left under the tightest memory limit of the process's control groups, version 1 or 2.
fn cgroup_room_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let rooms = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        match controllers {
            "" => tightest_room(Path::new("/sys/fs/cgroup"), path, "memory.max", "memory.current"),
            list if list.split(',').any(|name| name == "memory") => {
                let root = Path::new("/sys/fs/cgroup/memory");
                tightest_room(root, path, "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => None,
        }
    });
    rooms.min()
}

/// Limits apply from the group up to the root; inside a container the path may not exist, then the root's own files count.
fn tightest_room(root: &Path, path: &str, limit_file: &str, usage_file: &str) -> Option<u64> {
    let group = root.join(path.trim_start_matches('/'));
    let mut groups: Vec<PathBuf> = group.ancestors().map(Path::to_path_buf).collect();
    groups.retain(|group| group.starts_with(root));
    let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let room = |group: PathBuf| {
        let limit = number(group.join(limit_file))?;
        Some(limit.saturating_sub(number(group.join(usage_file)).unwrap_or(0)))
    };
    groups.into_iter().filter_map(room).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("6GiB", 6 << 30),
            ("6g", 6 << 30),
            ("800M", 800 << 20),
            ("1.5GB", 1_500_000_000),
            (" 12 GiB ", 12 << 30),
            ("4096", 4096),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "0", "GiB", "6XB", "-1G", "1e3", "99999999T"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_as_people_read_them() {
        assert_eq!(human_bytes(512), "512 B");
        assert_eq!(human_bytes(5_905_580_032), "5.50 GiB");
        assert_eq!(human_bytes(42 << 20), "42.0 MiB");
    }
}
