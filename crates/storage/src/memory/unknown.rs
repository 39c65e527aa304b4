//! A system that nobody has written a probe for.

use super::MemoryUnknown;

pub(super) fn available_bytes() -> Result<u64, MemoryUnknown> {
    Err(MemoryUnknown { system: std::env::consts::OS, detail: "this program has no probe for it" })
}

pub(super) fn peak_resident_bytes() -> Option<u64> {
    None
}

pub(super) fn reset_peak_resident() {}
