//! Windows: physical memory that is free, or less where the page file leaves less to commit.

use std::ffi::c_void;

use super::MemoryUnknown;

/// `MEMORYSTATUSEX` of sysinfoapi.h.
#[repr(C)]
#[derive(Default)]
struct MemoryStatus {
    length: u32,
    load_percent: u32,
    total_physical: u64,
    available_physical: u64,
    total_commit: u64,
    available_commit: u64,
    total_virtual: u64,
    available_virtual: u64,
    available_extended_virtual: u64,
}

/// `PROCESS_MEMORY_COUNTERS` of psapi.h.
#[repr(C)]
#[derive(Default)]
struct ProcessMemory {
    length: u32,
    page_faults: u32,
    peak_working_set: usize,
    others: [usize; 7],
}

#[link(name = "kernel32")]
unsafe extern "system" {
    fn GlobalMemoryStatusEx(status: *mut MemoryStatus) -> i32;
    fn GetCurrentProcess() -> *mut c_void;
    fn K32GetProcessMemoryInfo(process: *mut c_void, memory: *mut ProcessMemory, length: u32) -> i32;
}

pub(super) fn available_bytes() -> Result<u64, MemoryUnknown> {
    let mut status = MemoryStatus { length: size_of::<MemoryStatus>() as u32, ..MemoryStatus::default() };
    // SAFETY: `status` is a whole structure of the length that it states, ours to write to.
    match unsafe { GlobalMemoryStatusEx(&raw mut status) } {
        0 => Err(MemoryUnknown { system: "Windows", detail: "GlobalMemoryStatusEx failed" }),
        _ => Ok(status.available_physical.min(status.available_commit)),
    }
}

pub(super) fn peak_resident_bytes() -> Option<u64> {
    let length = size_of::<ProcessMemory>() as u32;
    let mut memory = ProcessMemory { length, ..ProcessMemory::default() };
    // SAFETY: the pseudo-handle of this process needs no closing, and `memory` is a whole structure of the
    // length that it states, ours to write to.
    let answer = unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), &raw mut memory, length) };
    (answer != 0).then_some(memory.peak_working_set as u64)
}

/// Windows has no way to reset the peak.
pub(super) fn reset_peak_resident() {}
