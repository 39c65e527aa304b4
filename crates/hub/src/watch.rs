//! Who looks on while something is fetched, and may end it.

use std::sync::atomic::{AtomicBool, Ordering};

/// Is told how a download gets on. Called from several threads at once.
pub trait Progress: Sync {
    /// A download begins: bytes in all, and those that are here already.
    fn begin(&self, total_bytes: u64, done_bytes: u64);
    /// A file is under way.
    fn file(&self, path: &str);
    /// Bytes that are here now. They become fewer when something has to be fetched again.
    fn position(&self, done_bytes: u64);
    /// Something out of the ordinary happens, such as a wait for a busy hub.
    fn remark(&self, text: &str);
}

/// Looks on in silence.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: u64, _: u64) {}
    fn file(&self, _: &str) {}
    fn position(&self, _: u64) {}
    fn remark(&self, _: &str) {}
}

/// An onlooker, and a flag that ends everything soon when it is set.
#[derive(Copy, Clone)]
pub struct Watch<'a> {
    /// Is told.
    pub progress: &'a dyn Progress,
    /// Ends.
    pub stop: &'a AtomicBool,
}

impl Watch<'_> {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
