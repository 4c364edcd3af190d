//! Small file systems that only one process and its children see, and that go with it.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::statvfs;
use tempfile::TempDir;

/// What is mounted, and where: set for the process that runs in a mount namespace of its own.
const KIND: &str = "IMIRA_TEST_DISK";
const FOLDER: &str = "IMIRA_TEST_DISK_FOLDER";

const IMAGE: &str = "image";
const MOUNT: &str = "disk";
const FILLER: &str = "filler";

/// Runs a test on each kind of file system that can be had: ext4 as root, since only root mounts an image, and tmpfs.
/// Each time the test program runs again, with this test alone, in a mount namespace that nothing else sees.
pub(crate) fn on_each_disk(test: &str, mib: u64, act: impl Fn(&Path)) {
    if let Ok(kind) = env::var(KIND) {
        return act(&mount(&kind, Path::new(&env::var_os(FOLDER).unwrap()), mib));
    }
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        run_on(test, "ext4", &["--mount"]);
        run_on(test, "tmpfs", &["--mount"]);
    } else {
        eprintln!("not root: on tmpfs alone, without ext4");
        run_on(test, "tmpfs", &["--map-root-user", "--mount"]);
    }
}

fn run_on(test: &str, kind: &str, namespace: &[&str]) {
    let folder = TempDir::with_prefix("imira-full-").unwrap();
    fs::create_dir(folder.path().join(MOUNT)).unwrap();
    let mut command = Command::new("unshare");
    command.args(namespace).arg("--").arg(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    let output = run(command.env(KIND, kind).env(FOLDER, folder.path()));
    assert!(
        output.status.success(),
        "on {kind}: {}\n{}{}\nThis test needs a mount namespace (unshare): root, or user namespaces that are allowed \
         (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fs::read_dir(folder.path().join(MOUNT)).unwrap().count(), 0, "the mount is seen from outside");
}

fn mount(kind: &str, folder: &Path, mib: u64) -> PathBuf {
    let path = folder.join(MOUNT);
    if kind == "tmpfs" {
        must(Command::new("mount").args(["-t", "tmpfs", "-o"]).arg(format!("size={mib}m")).arg("tmpfs").arg(&path));
        return path;
    }
    let image = folder.join(IMAGE);
    File::create(&image).unwrap().set_len(mib << 20).unwrap();
    // Nothing kept for root, so that full is full.
    must(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
    must(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&image).arg(&path));
    path
}

fn must(command: &mut Command) {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {said}\nAs root this test mounts an ext4 image and needs loop devices (/dev/loop-control) and \
         mkfs.ext4 (Debian: e2fsprogs)"
    );
}

fn run(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error} (Debian: util-linux, e2fsprogs; scripts/setup.sh)"))
}

pub(crate) fn free_bytes(disk: &Path) -> u64 {
    let status = statvfs(disk).unwrap();
    status.f_bavail * status.f_frsize
}

/// Somebody else takes all but so many bytes of the disk.
pub(crate) fn fill(disk: &Path, leave_bytes: u64) {
    let mut file = File::options().create(true).append(true).open(disk.join(FILLER)).unwrap();
    let mut piece = vec![1; 1 << 20];
    while !piece.is_empty() {
        let most = free_bytes(disk).saturating_sub(leave_bytes).min(piece.len() as u64);
        match file.write(&piece[..most as usize]) {
            Ok(count) if count > 0 => {}
            Err(error) if error.kind() != ErrorKind::StorageFull => panic!("{error}"),
            // What the file system counts as free may be less than what it gives, or more.
            Ok(_) if leave_bytes > 0 => return,
            _ => piece.truncate(piece.len() / 2),
        }
    }
}

/// Somebody else makes room.
pub(crate) fn clear(disk: &Path) {
    fs::remove_file(disk.join(FILLER)).unwrap();
    // ext4 gives it back when its journal is written.
    File::open(disk).unwrap().sync_all().unwrap();
}
