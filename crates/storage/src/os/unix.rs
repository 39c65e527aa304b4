//! What Linux and Apple's systems share.

use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags};

pub(crate) fn read_at(file: &File, target: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(rustix::io::pread(file, target, offset)?)
}

/// Zeroed, page-aligned memory that takes no physical page until it is touched. `bytes` is not 0.
pub(crate) fn map_zeroed(bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new private anonymous mapping at an address of the kernel's choice aliases nothing.
    let start = unsafe {
        rustix::mm::mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }?;
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave the address 0"))
}

/// Gives memory of [`map_zeroed`] back.
///
/// # Safety
/// `start` and `bytes` are those of one call of `map_zeroed`, and nothing uses the memory any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller passes a whole mapping of ours that nobody uses any more.
    let result = unsafe { rustix::mm::munmap(start.as_ptr().cast(), bytes) };
    debug_assert!(result.is_ok(), "munmap of {bytes} bytes: {result:?}");
}
