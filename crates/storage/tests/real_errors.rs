//! Input/output errors that the kernel itself reports: a file system on a loop device whose backing file has lost
//! its second half. Needs root, loop devices and mkfs.ext4; elsewhere there is nothing to test and it says so.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use storage::{FileStorage, IoEngine, IoMode, Storage, StorageError, StorageOptions};

const BYTES: usize = 24 << 20;

/// A mounted image; unmounted and detached when dropped.
struct Mounted {
    dir: tempfile::TempDir,
    device: String,
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

impl Mounted {
    fn new() -> Option<Mounted> {
        let dir = tempfile::tempdir().unwrap();
        let (image, point) = (dir.path().join("image"), dir.path().join("mounted"));
        fs::create_dir(&point).unwrap();
        OpenOptions::new().write(true).create_new(true).open(&image).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", image.to_str()?])?;
        let device = run("losetup", &["--find", "--show", image.to_str()?])?;
        let mounted = Mounted { dir, device };
        run("mount", &["-o", "errors=continue", &mounted.device, point.to_str()?])?;
        Some(mounted)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("mounted/file")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let point = self.dir.path().join("mounted");
        let _ = run("umount", &["-l", point.to_str().unwrap()]);
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

fn read_all(storage: &dyn Storage, path: &Path) -> (usize, usize) {
    let file = storage.open(path).unwrap();
    let (mut whole, mut failed) = (0, 0);
    for offset in (0..BYTES).step_by(1 << 20) {
        match storage.read_range(file, offset as u64, 1 << 20) {
            Ok((buf, start)) => {
                assert!(buf[start..start + (1 << 20)].iter().all(|byte| *byte == 0x5A));
                whole += 1;
            }
            Err(StorageError::Read { path: named, source, .. }) => {
                assert_eq!((named.as_path(), source.raw_os_error()), (path, Some(5)));
                failed += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (whole, failed)
}

#[test]
fn an_input_output_error_of_the_kernel_is_reported_with_its_place() {
    let Some(mounted) = Mounted::new() else {
        eprintln!("no loop device can be mounted here: nothing is tested");
        return;
    };
    fs::write(mounted.path(), vec![0x5A; BYTES]).unwrap();
    run("sync", &[]);
    let image = OpenOptions::new().write(true).open(mounted.image()).unwrap();
    for engine in [IoEngine::Pread, IoEngine::Uring] {
        let options = StorageOptions { mode: IoMode::Direct, threads: 4, engine };
        let storage = FileStorage::new(options).unwrap();
        let (whole, failed) = read_all(storage.as_ref(), &mounted.path());
        assert_eq!((whole, failed), (BYTES >> 20, 0), "{engine:?}: before");
    }
    // What the file system has put there is gone: the device reads beyond its backing file.
    image.set_len(16 << 20).unwrap();
    for engine in [IoEngine::Pread, IoEngine::Uring] {
        let (done, watch) = std::sync::mpsc::channel();
        let path = mounted.path();
        std::thread::spawn(move || {
            let options = StorageOptions { mode: IoMode::Direct, threads: 4, engine };
            let storage = FileStorage::new(options).unwrap();
            let first = read_all(storage.as_ref(), &path);
            let _ = done.send((first, read_all(storage.as_ref(), &path)));
        });
        let (first, again) = watch.recv_timeout(Duration::from_secs(60)).expect("an end");
        assert!(first.1 > 0, "{engine:?}: no error came: {first:?}");
        assert_eq!(first, again, "{engine:?}: the same reads fail, the others still work");
    }
}
