//! What Linux and Apple's systems share.

use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

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

/// Tells the system that the contents of the whole pages in this range are not needed.
///
/// # Safety
/// The range belongs to a mapping of [`map_zeroed`] and to one owner, who relies on no contents.
pub(crate) unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
    // On an anonymous private mapping Linux frees the pages at once and shows zeros afterwards;
    // other systems free them when they like. A refusal costs memory only.
    let page = rustix::param::page_size();
    let lead = start.addr().get().next_multiple_of(page) - start.addr().get();
    let whole = bytes.saturating_sub(lead) / page * page;
    if whole > 0 {
        // SAFETY: the pages lie in the range, which the caller owns and relies on no contents of;
        // what is read from them later is initialised.
        let _ = unsafe { rustix::mm::madvise(start.as_ptr().add(lead).cast(), whole, ADVICE_GIVE_BACK) };
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const ADVICE_GIVE_BACK: Advice = Advice::LinuxDontNeed;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const ADVICE_GIVE_BACK: Advice = Advice::DontNeed;
