//! What differs between operating systems: opening a file past the page cache, reading at an
//! offset, and memory for buffers. Each system's file offers the same functions:
//!
//! * `open_buffered`, `open_direct`: a handle for reading. `open_direct` may succeed on a file
//!   whose reads are then refused, so the caller tries one.
//! * `read_at`: one read at an offset, which may be interrupted or partial.
//! * `refuses_direct`: whether an error means that this file cannot be read directly.
//! * `map_zeroed`, `give_back`, `unmap`: page-aligned memory.
//!
//! The engine on io_uring is a sibling of `pool`, not of these.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::*;

#[cfg(target_vendor = "apple")]
mod macos;
#[cfg(target_vendor = "apple")]
pub(crate) use macos::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::*;

#[cfg(unix)]
mod unix;
