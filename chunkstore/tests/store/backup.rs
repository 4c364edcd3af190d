use std::fs;
use std::path::Path;
use std::thread;

use bytes::Bytes;
use chunkstore::{Store, StoreConfig, StoreError, restore};
use chunkstore_block::BlockId;
use tempfile::TempDir;

use super::{MIB, block, put, reference};

fn config() -> StoreConfig {
    StoreConfig { segment_bytes: 4 * MIB, ..StoreConfig::new(256 * MIB) }
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
    let blocks: Vec<_> = (0..20).map(|seed| block(seed, 500_000)).collect();
    for (id, bytes) in &blocks {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    let mut seen = Vec::new();
    store.backup(&copy, |progress| seen.push(progress)).unwrap();
    let last = seen.last().unwrap();
    assert!(last.copied_bytes == last.total_bytes && last.total_bytes >= 10_000_000, "{last:?}");
    drop(store);
    fs::remove_dir_all(&home).unwrap();
    restore(&copy, &new, |_| {}).unwrap();
    assert_has(&new, &blocks);
    assert!(matches!(restore(&copy, &new, |_| {}), Err(StoreError::Folder { .. })), "never over a store");
    assert_has(&copy, &blocks);
}

/// The second backup copies what is new only, and forgets what is gone.
#[test]
fn a_second_backup_adds_what_is_new() {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy");
    let store = Store::open(folder.path().join("home"), &config()).unwrap();
    let blocks: Vec<_> = (0..30).map(|seed| block(seed, 500_000)).collect();
    for (id, bytes) in &blocks[..20] {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    store.backup(&copy, |_| {}).unwrap();
    let first = copy.join("segments/0000000001.seg");
    let written = fs::metadata(&first).unwrap().modified().unwrap();
    for (id, bytes) in &blocks[20..] {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    for (id, _) in &blocks[..3] {
        store.remove(id).unwrap();
    }
    super::reclaim_all(&store);
    store.backup(&copy, |_| {}).unwrap();
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), written, "not copied again");
    assert_has(&copy, &blocks[3..]);
}

/// Blocks come and go while the backup is made: what was there before and stays is in it, and nothing in it is damaged.
#[test]
fn a_backup_is_whole_while_the_store_is_in_use() {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("copy");
    let store = Store::open(folder.path().join("home"), &config()).unwrap();
    let stays: Vec<_> = (0..20).map(|seed| block(seed, 300_000)).collect();
    let goes: Vec<_> = (100..120).map(|seed| block(seed, 300_000)).collect();
    for (id, bytes) in stays.iter().chain(&goes) {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            for (seed, (id, _)) in goes.iter().enumerate() {
                store.remove(id).unwrap();
                store.reclaim(u64::MAX).unwrap();
                let (id, bytes) = block(200 + seed as u64, 300_000);
                put(&store, id, &bytes, &[reference(1)]).unwrap();
            }
        });
        store.backup(&copy, |_| {}).unwrap();
    });
    let copied = Store::open(&copy, &config()).unwrap();
    for (id, bytes) in &stays {
        assert_eq!(copied.read(id).unwrap().as_ref(), Some(bytes));
    }
    let scrubbed = copied.scrub(u64::MAX, 2).unwrap();
    assert_eq!(scrubbed.damaged, []);
    assert!(scrubbed.blocks >= 20);
}
