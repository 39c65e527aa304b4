//! Windows: `FILE_FLAG_NO_BUFFERING`, positioned reads, memory from the allocator.

use std::alloc::{self, Layout};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;

use crate::BLOCK_BYTES;

const FILE_FLAG_NO_BUFFERING: u32 = 0x2000_0000;
const ERROR_NOT_SUPPORTED: i32 = 50;
const ERROR_INVALID_PARAMETER: i32 = 87;
const ERROR_HANDLE_EOF: i32 = 38;

pub(crate) fn open_buffered(path: &Path) -> io::Result<File> {
    File::open(path)
}

pub(crate) fn open_direct(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(FILE_FLAG_NO_BUFFERING).open(path)
}

pub(crate) fn read_at(file: &File, target: &mut [u8], offset: u64) -> io::Result<usize> {
    match file.seek_read(target, offset) {
        Err(error) if error.raw_os_error() == Some(ERROR_HANDLE_EOF) => Ok(0),
        result => result,
    }
}

pub(crate) fn refuses_direct(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ERROR_NOT_SUPPORTED | ERROR_INVALID_PARAMETER))
}

/// Zeroed, block-aligned memory. `bytes` is not 0.
pub(crate) fn map_zeroed(bytes: usize) -> io::Result<NonNull<u8>> {
    let layout = layout(bytes).ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: the layout's size is not 0.
    let start = unsafe { alloc::alloc_zeroed(layout) };
    NonNull::new(start).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Gives memory of [`map_zeroed`] back.
///
/// # Safety
/// `start` and `bytes` are those of one call of `map_zeroed`, and nothing uses the memory any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    if let Some(layout) = layout(bytes) {
        // SAFETY: allocated with this layout by `map_zeroed`, and nobody uses it any more.
        unsafe { alloc::dealloc(start.as_ptr(), layout) };
    }
}

/// Keeps the pages: memory of the allocator cannot be given back in part.
///
/// # Safety
/// None is needed; other systems' needs are in `unix`.
pub(crate) unsafe fn give_back(_start: NonNull<u8>, _bytes: usize) {}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, BLOCK_BYTES).ok()
}
