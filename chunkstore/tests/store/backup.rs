use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;

use bytes::Bytes;
use chunkstore::{BackupProgress, Store, StoreConfig, StoreError, restore};
use chunkstore_block::BlockId;
use tempfile::TempDir;

use super::{MIB, block, fill, put, reference};

fn config() -> StoreConfig {
    StoreConfig { segment_bytes: 4 * MIB, ..StoreConfig::new(256 * MIB) }
}

fn go_on(_: BackupProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn assert_has(path: &Path, blocks: &[(BlockId, Bytes)]) {
    let store = Store::open(path, &config()).unwrap();
    for (id, bytes) in blocks {
        assert_eq!(store.read(id).unwrap().as_ref(), Some(bytes));
        assert_eq!(store.references(id).unwrap(), [reference(1)]);
    }
    assert_eq!(store.usage().blocks, blocks.len() as u64);
}

#[test]
fn a_backup_is_restored_in_another_place() {
    let folder = TempDir::new().unwrap();
    let (home, copy, new) = (folder.path().join("home"), folder.path().join("copy"), folder.path().join("new"));
    let store = Store::open(&home, &config()).unwrap();
    let blocks = fill(&store, 0..20, 500_000);
    let mut seen = Vec::new();
    store
        .backup(&copy, |progress| {
            seen.push(progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    let last = seen.last().unwrap();
    assert!(last.copied_bytes == last.total_bytes && last.total_bytes >= 10_000_000, "{last:?}");
    drop(store);
    fs::remove_dir_all(&home).unwrap();
    restore(&copy, &new, go_on).unwrap();
    assert_has(&new, &blocks);
    assert!(matches!(restore(&copy, &new, go_on), Err(StoreError::Target { .. })), "never over a store");
    assert_has(&copy, &blocks);
}

/// The second backup copies what is new only, and forgets what is gone.
#[test]
fn a_second_backup_adds_what_is_new() {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy");
    let store = Store::open(folder.path().join("home"), &config()).unwrap();
    let mut blocks = fill(&store, 0..20, 500_000);
    store.backup(&copy, go_on).unwrap();
    let first = copy.join("segments/0000000001.seg");
    let written = fs::metadata(&first).unwrap().modified().unwrap();
    blocks.extend(fill(&store, 20..30, 500_000));
    for (id, _) in &blocks[..3] {
        store.remove(id).unwrap();
    }
    super::reclaim_all(&store);
    store.backup(&copy, go_on).unwrap();
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), written, "not copied again");
    assert_has(&copy, &blocks[3..]);
}

/// Blocks come and go while the backup is made: what was there before and stays is in it, and nothing in it is damaged.
#[test]
fn a_backup_is_whole_while_the_store_is_in_use() {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy");
    let store = Store::open(folder.path().join("home"), &config()).unwrap();
    let stays = fill(&store, 0..20, 300_000);
    let goes = fill(&store, 100..120, 300_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            for (seed, (id, _)) in goes.iter().enumerate() {
                store.remove(id).unwrap();
                store.reclaim(u64::MAX).unwrap();
                let (id, bytes) = block(200 + seed as u64, 300_000);
                put(&store, id, &bytes, &[reference(1)]).unwrap();
            }
        });
        store.backup(&copy, go_on).unwrap();
    });
    let copied = Store::open(&copy, &config()).unwrap();
    for (id, bytes) in &stays {
        assert_eq!(copied.read(id).unwrap().as_ref(), Some(bytes));
    }
    let scrubbed = copied.scrub(u64::MAX, 2).unwrap();
    assert_eq!(scrubbed.damaged, []);
    assert!(scrubbed.blocks >= 20);
}

/// What a killed or full backup needs: a target that cannot be right is refused before anything is written there.
#[test]
fn a_folder_that_cannot_be_right_is_refused() {
    let folder = TempDir::new().unwrap();
    let (home, other) = (folder.path().join("home"), folder.path().join("other"));
    let store = Store::open(&home, &config()).unwrap();
    let (id, bytes) = block(1, 500_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    let inside = home.join("segments/copy");
    for wrong in [&home, &inside] {
        let refused = store.backup(wrong, go_on).unwrap_err().to_string();
        assert!(refused.contains("own folder"), "{refused}");
    }
    assert!(!inside.exists());
    let strangers = Store::open(&other, &config()).unwrap();
    let (theirs, their_bytes) = block(2, 500_000);
    put(&strangers, theirs, &their_bytes, &[reference(1)]).unwrap();
    assert!(matches!(store.backup(&other, go_on), Err(StoreError::InUse { .. })));
    drop(strangers);
    let refused = store.backup(&other, go_on).unwrap_err().to_string();
    assert!(refused.contains("another store"), "{refused}");
    assert_has(&other, &[(theirs, their_bytes)]);
    let files = folder.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("letter"), "dear").unwrap();
    let refused = store.backup(&files, go_on).unwrap_err().to_string();
    assert!(refused.contains("something else"), "{refused}");
}

#[test]
fn a_backup_that_was_broken_off_goes_on_later() {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy");
    let store = Store::open(folder.path().join("home"), &config()).unwrap();
    let blocks = fill(&store, 0..30, 500_000);
    let after_two = |progress: BackupProgress| match progress.copied_bytes > 9_000_000 {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    assert!(matches!(store.backup(&copy, after_two), Err(StoreError::Interrupted)));
    let refused = restore(&copy, &folder.path().join("new"), go_on).unwrap_err().to_string();
    assert!(refused.contains("not whole"), "{refused}");
    let rest = store.backup(&copy, go_on).unwrap();
    assert!(rest.kept_bytes > 0 && rest.total_bytes < 13_000_000, "{rest:?}");
    assert_has(&copy, &blocks);
}

/// The room of what was deleted is not taken again on the backup's disk.
#[test]
fn holes_are_not_copied() {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy");
    let store = Store::open(folder.path().join("home"), &config()).unwrap();
    let blocks = fill(&store, 0..30, 500_000);
    for (id, _) in blocks.iter().step_by(3) {
        store.remove(id).unwrap();
    }
    super::reclaim_all(&store);
    let copied = store.backup(&copy, go_on).unwrap();
    assert!(copied.total_bytes < 12_000_000, "{copied:?}");
    let left: Vec<_> =
        blocks.into_iter().enumerate().filter(|(place, _)| place % 3 != 0).map(|(_, block)| block).collect();
    assert_has(&copy, &left);
}

/// The segment that is being written is preallocated: its copy may be as long as it will be when it is full.
#[test]
fn a_segment_that_was_copied_half_full_is_copied_again() {
    let folder = TempDir::new().unwrap();
    let (home, copy) = (folder.path().join("home"), folder.path().join("copy"));
    let store = Store::open(&home, &config()).unwrap();
    let mut blocks = fill(&store, 0..1, 500_000);
    store.backup(&copy, go_on).unwrap();
    blocks.extend(fill(&store, 1..10, 500_000));
    let name = "segments/0000000001.seg";
    let full = fs::metadata(home.join(name)).unwrap().len();
    fs::File::options().write(true).open(copy.join(name)).unwrap().set_len(full).unwrap();
    store.backup(&copy, go_on).unwrap();
    assert_has(&copy, &blocks);
}
