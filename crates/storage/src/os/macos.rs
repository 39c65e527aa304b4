//! macOS and iOS: `F_NOCACHE` on a handle of its own, `pread`.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;

pub(crate) use super::unix::{give_back, map_zeroed, read_at, unmap};

pub(crate) fn open_buffered(path: &Path) -> io::Result<File> {
    File::open(path)
}

pub(crate) fn open_direct(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    rustix::fs::fcntl_nocache(&file, true)?;
    Ok(file)
}

pub(crate) fn refuses_direct(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOTSUP, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
