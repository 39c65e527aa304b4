//! Memory that the control groups of this process leave it, version 1, version 2, or both at once.
//!
//! Limits apply from the process's group up to the root of the hierarchy, so the tightest one on
//! the way counts. In version 2 `memory.high` counts as much as `memory.max`: beyond it the kernel
//! slows a process down until it swaps or thrashes. Page cache that the kernel would drop first is
//! not counted as used: a model that was just downloaded inside a container is charged to it, and
//! would leave no room for itself otherwise.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Files of one version's memory controller.
struct Files {
    limits: &'static [&'static str],
    usage: &'static str,
    /// Keys of memory.stat whose sum could be given back at once, for the group with all below it.
    reclaimable: [&'static str; 2],
}

const V1: Files = Files {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: ["total_active_file", "total_inactive_file"],
};
const V2: Files = Files {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    reclaimable: ["active_file", "inactive_file"],
};
/// Where hierarchies are mounted if the system does not say.
const V1_USUAL: &str = "/sys/fs/cgroup/memory";
const V2_USUAL: &str = "/sys/fs/cgroup";

/// Room under the tightest limit, bytes. `root` is `/`, but for tests. `None` where no limit is set
/// or nothing is known.
pub(super) fn room_bytes(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let rooms = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        match controllers {
            "" => tightest_room(root, &mount_of(&mounts, is_v2, V2_USUAL), group, &V2),
            list if list.split(',').any(|name| name == "memory") => {
                tightest_room(root, &mount_of(&mounts, is_v1_memory, V1_USUAL), group, &V1)
            }
            _ => None,
        }
    });
    rooms.min()
}

/// A mounted hierarchy: which group lies where.
#[derive(Debug, PartialEq)]
struct Mount {
    /// The group that is seen at the mount point; `/` but inside containers.
    group: PathBuf,
    point: PathBuf,
}

fn is_v2(kind: &str, _options: &str) -> bool {
    kind == "cgroup2"
}

fn is_v1_memory(kind: &str, options: &str) -> bool {
    kind == "cgroup" && options.split(',').any(|name| name == "memory")
}

/// A line is `id parent device root point options… - type source options` (proc_pid_mountinfo(5)).
fn mount_of(mounts: &str, wanted: fn(&str, &str) -> bool, usual: &str) -> Mount {
    let mut parsed = mounts.lines().filter_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let (mut place, mut system) = (place.split(' ').skip(3), system.split(' '));
        let (group, point) = (place.next()?, place.next()?);
        let (kind, _source, options) = (system.next()?, system.next()?, system.next().unwrap_or(""));
        wanted(kind, options).then(|| Mount { group: unescaped(group), point: unescaped(point) })
    });
    // What was mounted last lies on top.
    parsed.next_back().unwrap_or_else(|| Mount { group: "/".into(), point: usual.into() })
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                path.push(char::from(byte));
                path.push_str(&part[3..]);
            }
            _ => {
                path.push('\\');
                path.push_str(part);
            }
        }
    }
    path.into()
}

/// The least room of the group and those above it that are visible here. A group that does not lie
/// below the mount is one that a container sees from outside: the mount point itself stands for it.
fn tightest_room(root: &Path, mount: &Mount, group: &str, files: &Files) -> Option<u64> {
    let below = Path::new(group).strip_prefix(&mount.group).unwrap_or(Path::new(""));
    // Nothing leads out of the mount, whatever the file says.
    let below: PathBuf = below.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let point = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
    let group = point.join(below);
    let groups = group.ancestors().take_while(|group| group.starts_with(&point));
    groups.filter_map(|group| room(group, files)).min()
}

fn room(group: &Path, files: &Files) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // No limit is "max" in version 2, which is no number, and beyond any machine's memory in version 1.
    let limit = files.limits.iter().filter_map(|name| number(name)).min()?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let field = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        files.reclaimable.contains(&key).then(|| value.trim().parse::<u64>().ok())?
    };
    let reclaimable: u64 = stat.lines().filter_map(field).fold(0, u64::saturating_add);
    let used = number(files.usage).unwrap_or(0).saturating_sub(reclaimable);
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests;
