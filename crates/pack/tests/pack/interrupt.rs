//! Interruptions: stopped after any unit, killed at any moment, torn journals, full disks.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use checkpoint::{Checkpoint, CheckpointError, ErrorKind, PackedError};
use pack::{NoProgress, PackError};

use crate::support::{Recorder, Source, Target, assert_same, message, options, pack, plan_of};

fn is_incomplete(error: &CheckpointError) -> bool {
    matches!(*error.kind, ErrorKind::Packed(PackedError::Incomplete { .. }))
}

/// Packs with a stop after this many units; must not finish.
fn stop_after(plan: &pack::PackPlan, target: &Path, units: u64) {
    let options = options(|o| {
        o.hooks.stop_after_units = Some(units);
        o.commit_bytes = 0;
        o.command = Some("flash-moe pack A B --quant x".to_owned());
    });
    let stopped = pack::pack(plan, target, &options, &NoProgress);
    assert!(matches!(stopped, Err(PackError::Stopped { .. })), "{stopped:?}");
}

#[test]
fn stopping_after_any_unit_changes_nothing() {
    let (source, whole) = (Source::new(11), Target::new());
    let plan = source.plan();
    pack(&plan, &whole.path()).unwrap();
    for units in 0..20 {
        let target = Target::new();
        stop_after(&plan, &target.path(), units);
        let error = Checkpoint::open(&target.path()).unwrap_err();
        assert!(is_incomplete(&error), "{error}");
        let report = pack(&plan, &target.path()).unwrap();
        assert_eq!(report.units_resumed, units);
        assert_same(&whole.path(), &target.path());
    }
    // Unit by unit.
    let target = Target::new();
    for _ in 0..19 {
        stop_after(&plan, &target.path(), 1);
    }
    assert_eq!(pack(&plan, &target.path()).unwrap().units_resumed, 19);
    assert_same(&whole.path(), &target.path());
}

#[test]
fn an_unfinished_directory_names_the_command() {
    let (source, target) = (Source::new(12), Target::new());
    stop_after(&source.plan(), &target.path(), 3);
    let error = Checkpoint::open(&target.path()).unwrap_err();
    assert_eq!(
        message(&error, &[(&target.path(), "DST")]),
        "DST: packing was not finished; run `flash-moe pack A B --quant x` with the same options to resume it, or \
         delete the directory"
    );
    let error = pack::verify(&target.path(), &NoProgress).unwrap_err();
    assert!(error.to_string().contains("packing was not finished"));
}

#[test]
fn progress_of_a_resumed_pack_starts_where_it_stopped() {
    let (source, target) = (Source::new(13), Target::new());
    stop_after(&source.plan(), &target.path(), 7);
    let recorder = Recorder::default();
    pack::pack(&source.plan(), &target.path(), &options(|_| ()), &recorder).unwrap();
    let calls = recorder.calls.into_inner().unwrap();
    let [(total, done)] = calls.started[..] else { panic!("{calls:?}") };
    assert!(done > 0);
    assert_eq!((total, done + calls.advanced), (source.weights.len() as u64, total));
}

#[test]
fn a_journal_torn_anywhere_resumes() {
    let (source, whole) = (Source::new(14), Target::new());
    let plan = source.plan();
    pack(&plan, &whole.path()).unwrap();
    let target = Target::new();
    stop_after(&plan, &target.path(), 4);
    let journal = target.path().join("pack.journal");
    let full = std::fs::read(&journal).unwrap();
    let head_bytes = full.iter().position(|&b| b == b'\n').unwrap() + 1;
    for cut in (head_bytes..full.len()).step_by(13) {
        let target = Target::new();
        stop_after(&plan, &target.path(), 4);
        let journal = target.path().join("pack.journal");
        std::fs::write(&journal, &full[..cut]).unwrap();
        // What is not in the journal may be anything.
        let layer = target.path().join("experts-0003.bin");
        let bytes = std::fs::metadata(&layer).unwrap().len() as usize;
        std::fs::write(&layer, vec![0xa5; bytes]).unwrap();
        pack(&plan, &target.path()).unwrap();
        assert_same(&whole.path(), &target.path());
    }
    // A damaged line ends the journal; the lines behind it do not count.
    let mut damaged = full.clone();
    damaged[head_bytes + 30] ^= 4;
    std::fs::write(&journal, &damaged).unwrap();
    assert_eq!(pack(&plan, &target.path()).unwrap().units_resumed, 0);
    assert_same(&whole.path(), &target.path());
}

#[test]
fn what_a_kill_at_the_start_or_end_leaves_is_tidied_up() {
    let (source, whole) = (Source::new(15), Target::new());
    let plan = source.plan();
    pack(&plan, &whole.path()).unwrap();
    // Killed before the journal got its name.
    let target = Target::new();
    std::fs::create_dir(target.path()).unwrap();
    std::fs::write(target.path().join("pack.journal.partial"), "torn").unwrap();
    pack(&plan, &target.path()).unwrap();
    assert_same(&whole.path(), &target.path());
    // Killed between the manifest and the removal of the journal.
    std::fs::write(target.path().join("pack.journal"), "anything").unwrap();
    std::fs::write(target.path().join("manifest.json.partial"), "torn").unwrap();
    assert!(Checkpoint::open(&target.path()).is_ok());
    let report = pack(&plan, &target.path()).unwrap();
    assert!(report.already_complete);
    assert_same(&whole.path(), &target.path());
}

#[test]
fn a_full_disk_keeps_what_is_done() {
    let (source, whole) = (Source::new(16), Target::new());
    let plan = source.plan();
    pack(&plan, &whole.path()).unwrap();
    let target = Target::new();
    let full = options(|o| o.hooks.disk_bytes = Some(600_000));
    let error = pack::pack(&plan, &target.path(), &full, &NoProgress).unwrap_err();
    let text = message(&error, &[(&target.path(), "DST")]);
    assert!(text.starts_with("DST/experts-000"), "{text}");
    assert!(text.contains(": the disk became full at offset "), "{text}");
    assert!(text.ends_with("free that much and run the same command again to resume"), "{text}");
    assert!(is_incomplete(&Checkpoint::open(&target.path()).unwrap_err()));
    let report = pack(&plan, &target.path()).unwrap();
    assert!(report.units_resumed > 0);
    assert_same(&whole.path(), &target.path());
}

/// A real file system that fills up. Needs the right to mount; without it there is nothing to test.
#[test]
#[cfg(target_os = "linux")]
fn a_really_full_disk_is_refused_or_reported() {
    struct Mounted(tempfile::TempDir);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.path()).status();
        }
    }
    let directory = tempfile::TempDir::new().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=500k", "tmpfs"]).arg(directory.path());
    if !mount.output().is_ok_and(|output| output.status.success()) {
        return;
    }
    let disk = Mounted(directory);
    let (source, whole) = (Source::new(17), Target::new());
    let plan = source.plan();
    let report = pack(&plan, &whole.path()).unwrap();
    assert!(report.bytes_out > 512_000, "{report:?}");
    let target = disk.0.path().join("packed");
    let error = pack(&plan, &target).unwrap_err();
    assert!(matches!(error, PackError::NoSpace { missing: 1.., .. }), "{error}");
    assert!(!target.exists());
    // Pretend that it was empty when it was asked: then the reservation fails.
    let optimist = options(|o| o.hooks.free_bytes = Some(u64::MAX));
    let error = pack::pack(&plan, &target, &optimist, &NoProgress).unwrap_err();
    assert!(matches!(error, PackError::DiskFull { missing: 1.., .. }), "{error}");
    assert!(is_incomplete(&Checkpoint::open(&target).unwrap_err()));
    let grown = Command::new("mount").args(["-o", "remount,size=8m"]).arg(disk.0.path()).status();
    assert!(grown.unwrap().success());
    pack(&plan, &target).unwrap();
    assert_same(&whole.path(), &target);
}

/// Environment of the child process that `kills_at_any_moment_lose_nothing` starts.
const CHILD_SOURCE: &str = "PACK_TEST_CHILD_SOURCE";
const CHILD_TARGET: &str = "PACK_TEST_CHILD_TARGET";

/// Not a test by itself: the child that packs until it is killed.
#[test]
fn child() {
    let (Some(source), Some(target)) = (std::env::var_os(CHILD_SOURCE), std::env::var_os(CHILD_TARGET))
    else {
        return;
    };
    let options = options(|o| {
        o.threads = 3;
        o.commit_bytes = 0;
    });
    pack::pack(&plan_of(Path::new(&source)), Path::new(&target), &options, &NoProgress).unwrap();
}

#[test]
fn kills_at_any_moment_lose_nothing() {
    let (source, whole) = (Source::new(18), Target::new());
    pack(&source.plan(), &whole.path()).unwrap();
    let mut interrupted = 0;
    for round in 0..6u64 {
        let target = Target::new();
        for kill in 0..200u64 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "interrupt::child"])
                .env(CHILD_SOURCE, source.path())
                .env(CHILD_TARGET, target.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // A different moment each time; later ones when it is slow to get anywhere.
            std::thread::sleep(Duration::from_micros(
                500 + 1373 * ((7 * round + 3 * kill) % 17) + 300 * kill,
            ));
            child.kill().unwrap();
            let status = child.wait().unwrap();
            let opened = Checkpoint::open(&target.path());
            if status.success() {
                opened.unwrap();
                break;
            }
            // Killed: whatever opens is complete.
            match opened {
                Ok(_) => assert!(target.path().join("manifest.json").exists()),
                Err(e) => assert!(!target.path().join("manifest.json").exists(), "{e}"),
            }
            interrupted += 1;
        }
        // Goes on after the last kill, or finds it finished.
        pack(&source.plan(), &target.path()).unwrap();
        assert_same(&whole.path(), &target.path());
    }
    assert!(interrupted > 0, "no child was killed in time");
}
