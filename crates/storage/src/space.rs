//! Room on a disk.

use std::path::Path;

/// Bytes that an unprivileged user can still write where `path` lies, if the system says so.
#[cfg(unix)]
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// Bytes that this user can still write where `path` lies, a directory, if the system says so.
#[cfg(windows)]
pub fn free_disk_bytes(path: &Path) -> Option<u64> {
    use std::os::windows::ffi::OsStrExt;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetDiskFreeSpaceExW(
            directory: *const u16,
            available: *mut u64,
            total: *mut u64,
            free: *mut u64,
        ) -> i32;
    }
    let wide: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
    let (mut available, mut total, mut free) = (0, 0, 0);
    // SAFETY: `wide` ends with a zero, and the three numbers are ours to write to.
    let answer =
        unsafe { GetDiskFreeSpaceExW(wide.as_ptr(), &raw mut available, &raw mut total, &raw mut free) };
    (answer != 0).then_some(available)
}

/// Bytes that can still be written where `path` lies: this system does not say.
#[cfg(not(any(unix, windows)))]
pub fn free_disk_bytes(_path: &Path) -> Option<u64> {
    None
}
