#![allow(clippy::unwrap_used)]

use super::*;

const GIB: u64 = 1 << 30;

/// A tree of files in place of `/`.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn room(&self) -> Option<u64> {
        room_bytes(self.0.path())
    }
}

const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

fn gib(count: u64) -> String {
    format!("{}\n", count * GIB)
}

#[test]
fn without_groups_or_limits_nothing_is_known() {
    assert_eq!(Tree::new(&[]).room(), None);
    let tree =
        Tree::new(&[("proc/self/cgroup", "0::/user.slice/a.scope\n"), ("proc/self/mountinfo", V2_MOUNT)]);
    assert_eq!(tree.room(), None);
    tree.write("sys/fs/cgroup/user.slice/a.scope/memory.max", "max\n");
    tree.write("sys/fs/cgroup/user.slice/a.scope/memory.high", "max\n");
    tree.write("sys/fs/cgroup/user.slice/a.scope/memory.current", &gib(1));
    assert_eq!(tree.room(), None);
}

#[test]
fn the_tightest_limit_on_the_way_up_counts() {
    let tree = Tree::new(&[("proc/self/cgroup", "0::/a/b/c\n"), ("proc/self/mountinfo", V2_MOUNT)]);
    let group =
        |group: &str, file: &str, text: &str| tree.write(&format!("sys/fs/cgroup/{group}/{file}"), text);
    group("a/b/c", "memory.max", &gib(8));
    group("a/b/c", "memory.current", &gib(1));
    assert_eq!(tree.room(), Some(7 * GIB));
    // Neighbours use most of what the group above may have.
    group("a/b", "memory.max", &gib(10));
    group("a/b", "memory.current", &gib(7));
    assert_eq!(tree.room(), Some(3 * GIB));
    group("a", "memory.high", &gib(9));
    group("a", "memory.max", "max\n");
    group("a", "memory.current", &gib(7));
    assert_eq!(tree.room(), Some(2 * GIB));
    // Used beyond the limit: no room, and no wrap-around.
    group("a", "memory.current", &gib(12));
    assert_eq!(tree.room(), Some(0));
}

#[test]
fn memory_high_counts_as_memory_max() {
    let tree = Tree::new(&[("proc/self/cgroup", "0::/a\n"), ("proc/self/mountinfo", V2_MOUNT)]);
    tree.write("sys/fs/cgroup/a/memory.max", &gib(8));
    tree.write("sys/fs/cgroup/a/memory.high", &gib(6));
    assert_eq!(tree.room(), Some(6 * GIB));
}

#[test]
fn page_cache_is_not_counted_as_used() {
    let tree = Tree::new(&[("proc/self/cgroup", "0::/a\n"), ("proc/self/mountinfo", V2_MOUNT)]);
    tree.write("sys/fs/cgroup/a/memory.max", &gib(8));
    tree.write("sys/fs/cgroup/a/memory.current", &gib(8));
    let stat = format!("anon {}\nfile {}\ninactive_file {}\nactive_file {}\n", GIB, 7 * GIB, 5 * GIB, GIB);
    tree.write("sys/fs/cgroup/a/memory.stat", &stat);
    assert_eq!(tree.room(), Some(6 * GIB));
}

#[test]
fn version_1_has_its_own_files_and_place() {
    let tree = Tree::new(&[
        ("proc/self/cgroup", "12:cpuset:/\n4:memory,hugetlb:/docker/abc\n1:name=systemd:/x\n0::/x\n"),
        (
            "proc/self/mountinfo",
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             35 31 0:32 / /sys/fs/cgroup/mem rw,relatime shared:9 - cgroup cgroup rw,memory,hugetlb\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        ),
    ]);
    let unlimited = "9223372036854771712\n";
    tree.write("sys/fs/cgroup/mem/memory.limit_in_bytes", unlimited);
    tree.write("sys/fs/cgroup/mem/docker/memory.limit_in_bytes", &gib(6));
    tree.write("sys/fs/cgroup/mem/docker/memory.usage_in_bytes", &gib(2));
    tree.write(
        "sys/fs/cgroup/mem/docker/memory.stat",
        &format!("inactive_file 5\ntotal_inactive_file {GIB}\n"),
    );
    tree.write("sys/fs/cgroup/mem/docker/abc/memory.limit_in_bytes", unlimited);
    assert_eq!(tree.room(), Some(5 * GIB));
    // Both versions at once: the second one's limit lies where it is mounted.
    tree.write("sys/fs/cgroup/unified/x/memory.max", &gib(4));
    assert_eq!(tree.room(), Some(4 * GIB));
}

/// A container sees its own group at the mount point, and knows the group by its name outside or as `/`.
#[test]
fn inside_a_container_the_mount_point_is_the_group() {
    let outside = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
    for (group, mounts) in [
        ("0::/docker/abc/inner\n", outside),
        ("0::/inner\n", V2_MOUNT),
        ("0::/../abc/inner\n", V2_MOUNT),
        ("0::/inner\n", ""),
    ] {
        let tree = Tree::new(&[("proc/self/cgroup", group), ("proc/self/mountinfo", mounts)]);
        tree.write("sys/fs/cgroup/memory.max", &gib(3));
        assert_eq!(tree.room(), Some(3 * GIB), "{group}");
        if !group.contains("..") {
            tree.write("sys/fs/cgroup/inner/memory.max", &gib(2));
            assert_eq!(tree.room(), Some(2 * GIB), "{group}");
        }
    }
    let tree = Tree::new(&[("proc/self/cgroup", "0::/elsewhere\n"), ("proc/self/mountinfo", outside)]);
    tree.write("sys/fs/cgroup/memory.max", &gib(3));
    assert_eq!(tree.room(), Some(3 * GIB));
}

#[test]
fn strange_files_are_no_limit() {
    let tree = Tree::new(&[
        ("proc/self/cgroup", "nonsense\n:::\n0::\n0::/a\n"),
        (
            "proc/self/mountinfo",
            "x - \n - - -\n1 2 3 4 - cgroup2\n1 2 3 / /sys/fs/my\\040group rw - cgroup2 c\n",
        ),
    ]);
    assert_eq!(tree.room(), None);
    tree.write("sys/fs/my group/a/memory.max", "-3\n");
    tree.write("sys/fs/my group/memory.max", &gib(1));
    tree.write("sys/fs/my group/memory.current", "x\n");
    tree.write("sys/fs/my group/memory.stat", "inactive_file\nactive_file x\n");
    assert_eq!(tree.room(), Some(GIB));
    assert_eq!(unescaped("/a\\040b\\134c\\9"), PathBuf::from("/a b\\c\\9"));
}
