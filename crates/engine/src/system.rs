//! This machine: free memory, within the limits of the control group; cores; the
//! process's own peak.

use storage::{MemoryProbe, SystemMemory};

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

/// Parses a size such as `6GiB`, `800M`, `12g`, `1.5GB` or a plain number of bytes. Units without
/// `B` or with `iB` are binary, with `B` alone decimal. `None` if it is not a size above zero.
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

/// Bytes that this process could still take: free and reclaimable memory, or less where a control
/// group says so. `None` where the system does not tell.
pub fn available_memory_bytes() -> Option<u64> {
    SystemMemory::default().available_bytes().ok()
}

/// Highest resident memory of this process so far, bytes.
pub fn peak_resident_bytes() -> Option<u64> {
    SystemMemory::default().peak_resident_bytes()
}

/// Lets [`peak_resident_bytes`] begin anew with what is resident now, where the system can (Linux).
pub fn reset_peak_resident() {
    SystemMemory::default().reset_peak_resident();
}

/// Cores that this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
