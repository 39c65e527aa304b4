//! Where no ring can be had the pool reads, and it is said. In a process of its own, because it takes the
//! process's file descriptors away.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use storage::{FileStorage, IoEngine, Storage, StorageOptions};

#[test]
fn a_ring_that_cannot_be_had_is_replaced_by_the_pool() {
    let path = std::env::current_exe().unwrap();
    let limit = getrlimit(Resource::Nofile);
    // No descriptor for a ring: the kernel says so in the same place as when it forbids rings.
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: limit.maximum }).unwrap();
    let made = FileStorage::new(StorageOptions { engine: IoEngine::Uring, threads: 2, ..Default::default() });
    setrlimit(Resource::Nofile, limit).unwrap();
    let storage = made.unwrap();
    assert_eq!(storage.engine(), IoEngine::Pread);
    let reason = storage.engine_fallback().unwrap_or_default();
    assert!(reason.contains("io_uring is not available"), "{reason}");
    let file = storage.open(&path).unwrap();
    let (buf, start) = storage.read_range(file, 0, 4).unwrap();
    assert_eq!(buf[start..start + 4], *b"\x7fELF");
}
