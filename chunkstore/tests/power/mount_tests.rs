//! The mounted disk, as programs see it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::disk::{Disk, Leaves};
use crate::mount::{Drive, Mount};

fn sync_folder(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// Cuts the power of the mount and mounts what is left.
fn cut_power(drive: &Drive, mount: Mount) -> Mount {
    drive.run(Disk::cut_power);
    mount.unmount();
    drive.run(|disk| disk.start_again(Leaves::Nothing));
    Mount::new(drive)
}

#[test]
fn programs_find_after_a_power_cut_what_they_synced() {
    let drive = Drive::new();
    let mount = Mount::new(&drive);
    let folder = mount.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let mut file = File::create(folder.join("new")).unwrap();
    file.write_all(&[7; 3_000_000]).unwrap();
    file.sync_data().unwrap();
    fs::rename(folder.join("new"), folder.join("file")).unwrap();
    sync_folder(&folder);
    sync_folder(mount.path());
    file.write_all(b"not synced").unwrap();
    fs::write(folder.join("not synced"), b"").unwrap();
    drop(file);
    let mount = cut_power(&drive, mount);
    let folder = mount.path().join("folder");
    assert_eq!(fs::read(folder.join("file")).unwrap(), [7; 3_000_000]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    mount.unmount();
}

#[test]
fn without_power_every_change_is_an_error() {
    let drive = Drive::new();
    let mount = Mount::new(&drive);
    let mut file = File::create(mount.path().join("file")).unwrap();
    drive.run(|disk| disk.fail_after(1));
    file.write_all(b"there is power").unwrap();
    let error = file.sync_data().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "EIO, not {error}");
    assert!(file.write_all(b"no more").is_err());
    assert!(fs::write(mount.path().join("other"), b"").is_err());
    drop(file);
    mount.unmount();
}

#[test]
fn programs_read_what_they_wrote() {
    let drive = Drive::new();
    let mount = Mount::new(&drive);
    let path = mount.path().join("file");
    let mut file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"far", 10_000).unwrap();
    file.write_all_at(b"near", 1).unwrap();
    let mut bytes = vec![9; 20_000];
    let length = file.read(&mut bytes).unwrap();
    assert_eq!((length, &bytes[..6], &bytes[10_000..10_003]), (10_003, &b"\0near\0"[..], &b"far"[..]));
    file.set_len(3).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"\0ne");
    fs::hard_link(&path, mount.path().join("other")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    fs::remove_file(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read(mount.path().join("other")).unwrap(), b"\0ne");
    assert_eq!(file.metadata().unwrap().len(), 3);
    file.try_lock().unwrap();
    let other = File::open(mount.path().join("other")).unwrap();
    assert!(other.try_lock().is_err(), "the kernel keeps the locks");
    drop((file, other));
    mount.unmount();
}

#[test]
fn a_folder_of_many_files_is_listed_whole() {
    let drive = Drive::new();
    let mount = Mount::new(&drive);
    for number in 0..500 {
        File::create(mount.path().join(format!("a file with the number {number}"))).unwrap();
    }
    let mut listed = 0;
    for entry in fs::read_dir(mount.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        listed += 1;
    }
    assert_eq!(listed, 500);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
    mount.unmount();
}
