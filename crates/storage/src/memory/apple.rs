//! macOS and iOS. The system tells an iOS app what is left before it is killed; on macOS that number has
//! no meaning, and free and inactive pages are counted as other monitors do.

use std::ffi::{c_int, c_long};

use super::MemoryUnknown;

#[cfg(target_os = "macos")]
pub(super) fn available_bytes() -> Result<u64, MemoryUnknown> {
    use std::ffi::c_uint;
    use std::sync::OnceLock;

    /// `HOST_VM_INFO64` of mach/host_info.h.
    const HOST_VM_INFO64: c_int = 4;
    /// `KERN_SUCCESS`.
    const SUCCESS: c_int = 0;

    /// `vm_statistics64` of mach/vm_statistics.h: counts are pages.
    #[repr(C, align(8))]
    #[derive(Default)]
    struct VmStatistics64 {
        free: u32,
        active: u32,
        inactive: u32,
        wired: u32,
        events: [u64; 9],
        purgeable: u32,
        speculative: u32,
        compression: [u64; 4],
        compressor: u32,
        throttled: u32,
        external: u32,
        internal: u32,
        compressed: u64,
    }
    const WORDS: u32 = (size_of::<VmStatistics64>() / 4) as u32;
    const _: () = assert!(WORDS == 38);

    unsafe extern "C" {
        fn mach_host_self() -> c_uint;
        fn host_statistics64(host: c_uint, flavor: c_int, out: *mut VmStatistics64, count: *mut u32)
        -> c_int;
    }
    // Each call of `mach_host_self` takes another reference to the port; one for the process is enough.
    static HOST: OnceLock<c_uint> = OnceLock::new();
    // SAFETY: the function takes nothing and gives a port name.
    let host = *HOST.get_or_init(|| unsafe { mach_host_self() });
    let (mut statistics, mut words) = (VmStatistics64::default(), WORDS);
    // SAFETY: `out` has room for `count` words, and the kernel writes no more than that.
    let answer = unsafe { host_statistics64(host, HOST_VM_INFO64, &raw mut statistics, &raw mut words) };
    if answer != SUCCESS {
        return Err(MemoryUnknown { system: "macOS", detail: "host_statistics64 failed" });
    }
    let pages = u64::from(statistics.free) + u64::from(statistics.inactive);
    Ok(pages * rustix::param::page_size() as u64)
}

#[cfg(not(target_os = "macos"))]
pub(super) fn available_bytes() -> Result<u64, MemoryUnknown> {
    unsafe extern "C" {
        // os/proc.h, iOS 13 and later.
        fn os_proc_available_memory() -> usize;
    }
    // SAFETY: the function takes nothing and gives a number.
    match unsafe { os_proc_available_memory() } {
        // Also the answer for a process that has no limit, which no app is.
        0 => Err(MemoryUnknown { system: "iOS", detail: "os_proc_available_memory is 0" }),
        bytes => Ok(bytes as u64),
    }
}

/// `rusage` of sys/resource.h on 64-bit systems.
#[repr(C)]
#[derive(Default)]
struct Usage {
    /// Seconds and microseconds, of user and system time.
    times: [i64; 4],
    max_resident_bytes: c_long,
    others: [c_long; 13],
}

pub(super) fn peak_resident_bytes() -> Option<u64> {
    /// `RUSAGE_SELF`.
    const SELF: c_int = 0;
    unsafe extern "C" {
        fn getrusage(who: c_int, usage: *mut Usage) -> c_int;
    }
    let mut usage = Usage::default();
    // SAFETY: `usage` is a whole `rusage` that is ours to write to.
    let answer = unsafe { getrusage(SELF, &raw mut usage) };
    (answer == 0).then(|| u64::try_from(usage.max_resident_bytes).ok()).flatten()
}

/// Apple's systems have no way to reset the peak.
pub(super) fn reset_peak_resident() {}
