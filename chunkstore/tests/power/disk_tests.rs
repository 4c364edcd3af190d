//! What the model of a disk keeps and what it drops.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use crate::disk::{Disk, Faults, Honesty, Leaves, ROOT, Refusal};
use crate::worker::chance::Chance;

const SEEDS: u64 = 200;

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn names(disk: &Disk, folder: u64) -> BTreeSet<OsString> {
    disk.entries(folder).unwrap().into_iter().map(|(name, _)| name).collect()
}

fn content(disk: &Disk, path: &str) -> Result<Vec<u8>, Refusal> {
    disk.read(disk.look_up(ROOT, name(path))?, 0, 1 << 20)
}

/// A disk with one file whose content and name are durable.
fn disk_with(path: &str, bytes: &[u8]) -> Disk {
    let mut disk = Disk::new();
    let file = disk.create(ROOT, name(path)).unwrap();
    disk.write(file, 0, bytes).unwrap();
    disk.sync_file(file).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk
}

#[test]
fn a_synced_file_in_a_synced_folder_survives() {
    let mut disk = disk_with("file", b"content");
    for leaves in (0..SEEDS).map(Leaves::Some).chain([Leaves::Nothing]) {
        disk.start_again(leaves);
        assert_eq!(content(&disk, "file").unwrap(), b"content");
    }
}

#[test]
fn a_file_without_its_sync_is_empty_and_without_its_folders_gone() {
    let mut disk = Disk::new();
    let synced = disk.create(ROOT, name("synced")).unwrap();
    let not_synced = disk.create(ROOT, name("not synced")).unwrap();
    disk.write(synced, 0, b"content").unwrap();
    disk.write(not_synced, 0, b"content").unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.sync_file(synced).unwrap();
    let later = disk.create(ROOT, name("later")).unwrap();
    disk.write(later, 0, b"content").unwrap();
    disk.sync_file(later).unwrap();
    disk.start_again(Leaves::Nothing);
    assert_eq!(content(&disk, "synced").unwrap(), b"content");
    assert_eq!(content(&disk, "not synced").unwrap(), b"");
    assert_eq!(content(&disk, "later"), Err(Refusal::NotFound));
}

#[test]
fn a_folder_that_its_parent_does_not_know_is_gone_with_all_in_it() {
    let mut disk = Disk::new();
    let folder = disk.make_folder(ROOT, name("folder")).unwrap();
    let file = disk.create(folder, name("file")).unwrap();
    disk.sync_file(file).unwrap();
    disk.sync_folder(folder).unwrap();
    disk.start_again(Leaves::Nothing);
    assert_eq!(disk.status(folder), Err(Refusal::NotFound));
    assert_eq!(disk.status(file), Err(Refusal::NotFound));
    assert!(names(&disk, ROOT).is_empty());
}

/// The way to replace a file: write another, sync it, rename it, sync the folder.
#[test]
fn a_rename_is_done_or_not_but_never_half() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut disk = disk_with("file", b"old");
        let new = disk.create(ROOT, name("new")).unwrap();
        disk.write(new, 0, b"new").unwrap();
        disk.sync_file(new).unwrap();
        disk.rename((ROOT, name("new")), (ROOT, name("file"))).unwrap();
        disk.start_again(Leaves::Some(seed));
        let (found, left) = (content(&disk, "file").unwrap(), content(&disk, "new").is_ok());
        assert!(found == b"old" || found == b"new" && !left, "seed {seed}");
        seen.insert((found, left));
    }
    assert_eq!(seen.len(), 3, "nothing survived, the new file did, the rename did");
}

#[test]
fn a_synced_rename_between_folders_takes_what_came_before_along() {
    let mut disk = disk_with("file", b"content");
    let folder = disk.make_folder(ROOT, name("folder")).unwrap();
    disk.rename((ROOT, name("file")), (folder, name("file"))).unwrap();
    disk.create(ROOT, name("neighbour")).unwrap();
    disk.sync_folder(folder).unwrap();
    disk.start_again(Leaves::Nothing);
    assert_eq!(names(&disk, ROOT), BTreeSet::from(["folder".into()]));
    assert_eq!(names(&disk, folder), BTreeSet::from(["file".into()]));
}

#[test]
fn changes_of_folders_survive_in_their_order() {
    let mut counts = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut disk = Disk::new();
        for number in 0..5 {
            disk.create(ROOT, name(&number.to_string())).unwrap();
        }
        disk.start_again(Leaves::Some(seed));
        let survived = names(&disk, ROOT);
        assert_eq!(survived, (0..survived.len()).map(|number| number.to_string().into()).collect());
        counts.insert(survived.len());
    }
    assert_eq!(counts, (0..=5).collect());
}

#[test]
fn an_unlinked_file_lives_while_it_is_open_and_comes_back_if_nobody_synced() {
    let mut disk = disk_with("file", b"content");
    let file = disk.look_up(ROOT, name("file")).unwrap();
    disk.unlink(ROOT, name("file")).unwrap();
    assert_eq!(disk.read(file, 0, 100).unwrap(), b"content");
    assert_eq!(disk.status(file).unwrap().links, 0);
    disk.start_again(Leaves::Nothing);
    assert_eq!(content(&disk, "file").unwrap(), b"content");
    disk.unlink(ROOT, name("file")).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.start_again(Leaves::Nothing);
    assert_eq!(disk.status(file), Err(Refusal::NotFound));
}

#[test]
fn a_linked_file_has_two_names_and_one_content() {
    let mut disk = disk_with("file", b"content");
    let file = disk.look_up(ROOT, name("file")).unwrap();
    disk.link(file, ROOT, name("other")).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.unlink(ROOT, name("file")).unwrap();
    assert_eq!(disk.status(file).unwrap().links, 1);
    disk.start_again(Leaves::Nothing);
    assert_eq!(disk.status(file).unwrap().links, 2);
    assert_eq!(content(&disk, "other").unwrap(), b"content");
}

#[test]
fn names_are_refused_as_posix_has_it() {
    let mut disk = disk_with("file", b"");
    let folder = disk.make_folder(ROOT, name("folder")).unwrap();
    disk.create(folder, name("inner")).unwrap();
    assert_eq!(disk.create(ROOT, name("file")), Err(Refusal::Exists));
    assert_eq!(disk.remove_folder(ROOT, name("folder")), Err(Refusal::NotEmpty));
    assert_eq!(disk.remove_folder(ROOT, name("file")), Err(Refusal::NotAFolder));
    assert_eq!(disk.unlink(ROOT, name("folder")), Err(Refusal::IsAFolder));
    assert_eq!(disk.rename((ROOT, name("folder")), (ROOT, name("file"))), Err(Refusal::NotAFolder));
    assert_eq!(disk.rename((ROOT, name("file")), (ROOT, name("folder"))), Err(Refusal::IsAFolder));
    assert_eq!(disk.look_up(ROOT, name("missing")), Err(Refusal::NotFound));
    disk.unlink(folder, name("inner")).unwrap();
    disk.remove_folder(ROOT, name("folder")).unwrap();
}

#[test]
fn the_power_fails_at_the_change_it_was_told_and_then_for_everything() {
    let mut disk = disk_with("file", b"content");
    let file = disk.look_up(ROOT, name("file")).unwrap();
    disk.fail_after(2);
    disk.write(file, 0, b"1").unwrap();
    assert_eq!(disk.read(file, 0, 1).unwrap(), b"1", "reading is no change");
    disk.sync_file(file).unwrap();
    assert!(disk.has_power());
    assert_eq!(disk.write(file, 0, b"2"), Err(Refusal::PowerIsOff));
    assert!(!disk.has_power());
    assert_eq!(disk.read(file, 0, 1), Err(Refusal::PowerIsOff));
    assert_eq!(disk.sync_folder(ROOT), Err(Refusal::PowerIsOff));
    assert_eq!(disk.entries(ROOT), Err(Refusal::PowerIsOff));
    disk.start_again(Leaves::Nothing);
    assert_eq!(content(&disk, "file").unwrap(), b"1ontent");
}

#[test]
fn a_disk_that_lies_keeps_what_it_had_before() {
    let mut disk = disk_with("file", b"content");
    let file = disk.look_up(ROOT, name("file")).unwrap();
    disk.set_honesty(Honesty::LiesAboutFiles);
    disk.write(file, 0, b"lost").unwrap();
    disk.sync_file(file).unwrap();
    disk.start_again(Leaves::Nothing);
    assert_eq!(content(&disk, "file").unwrap(), b"content");
    disk.set_honesty(Honesty::LiesAboutFolders);
    disk.create(ROOT, name("new")).unwrap();
    disk.sync_folder(ROOT).unwrap();
    disk.start_again(Leaves::Nothing);
    assert_eq!(names(&disk, ROOT), BTreeSet::from(["file".into()]));
}

#[test]
fn what_a_failed_sync_has_lost_no_later_sync_brings_back() {
    let mut disk = disk_with("file.seg", b"content");
    let file = disk.look_up(ROOT, name("file.seg")).unwrap();
    let other = disk.create(ROOT, name("other")).unwrap();
    disk.write(file, 0, b"lost").unwrap();
    disk.set_faults(Some(Faults { chance: Chance::new(1), one_of: 1, suffix: ".seg" }));
    disk.sync_file(file).unwrap_err();
    disk.write(file, 0, b"no").unwrap_err();
    disk.extend(file, 9_000).unwrap_err();
    disk.write(other, 0, b"yes").unwrap();
    disk.set_faults(None);
    assert_eq!(content(&disk, "file.seg").unwrap(), b"lostent");
    disk.write(file, 5_000, b"later").unwrap();
    disk.sync_file(file).unwrap();
    disk.start_again(Leaves::Nothing);
    assert_eq!(content(&disk, "file.seg").unwrap()[..7], *b"content");
    assert_eq!(content(&disk, "file.seg").unwrap()[5_000..], *b"later");
}

#[test]
fn the_same_seed_leaves_the_same() {
    let after = |seed| {
        let mut disk = disk_with("file", &[1; 30_000]);
        let file = disk.look_up(ROOT, name("file")).unwrap();
        disk.write(file, 5_000, &[2; 40_000]).unwrap();
        disk.start_again(Leaves::Some(seed));
        content(&disk, "file").unwrap()
    };
    assert!((0..SEEDS).all(|seed| after(seed) == after(seed)));
    assert!((0..SEEDS).map(after).collect::<BTreeSet<_>>().len() > 50);
}
