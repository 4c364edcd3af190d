use std::fs;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use chunkstore::{Deletion, Store, StoreConfig};
use chunkstore_block::BlockId;
use tempfile::TempDir;

use super::{MIB, block, fill, open, put, reclaim_all, reference, segments};

/// Segments of 4 MiB.
fn small_segments(folder: &TempDir) -> Store {
    Store::open(folder.path(), &StoreConfig { segment_bytes: 4 * MIB, ..StoreConfig::new(256 * MIB) }).unwrap()
}

fn on_disk(folder: &TempDir) -> u64 {
    segments(folder).iter().map(|path| fs::metadata(path).unwrap().blocks() * 512).sum()
}

#[test]
fn removed_blocks_give_their_pages_back_while_their_neighbours_stay() {
    let folder = TempDir::new().unwrap();
    let store = small_segments(&folder);
    let blocks = fill(&store, 0..40, 500_000);
    let before = on_disk(&folder);
    // Most of them: what is left of each segment is still not moved, since the holes are enough.
    for (id, _) in blocks.iter().filter(|(id, _)| !stays(&blocks, id)) {
        store.remove(id).unwrap();
    }
    assert_eq!(on_disk(&folder), before, "not before it is asked for");
    let reclaimed = store.reclaim(u64::MAX).unwrap();
    assert_eq!(reclaimed.moved_bytes, 0);
    let given_back = before - on_disk(&folder);
    assert!(given_back >= 26 * 500_000, "{given_back}");
    for (id, bytes) in blocks.iter().filter(|(id, _)| stays(&blocks, id)) {
        assert_eq!(store.read(id).unwrap().as_ref(), Some(bytes));
    }
}

/// Every third.
fn stays(blocks: &[(BlockId, Bytes)], id: &BlockId) -> bool {
    blocks.iter().step_by(3).any(|(kept, _)| kept == id)
}

/// A film is published again and again, and each publication is deleted: the room comes back each time.
#[test]
fn publications_that_come_and_go_leave_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let store = small_segments(&folder);
    let blocks: Vec<_> = (0..300).map(|seed| block(seed, 1_000)).collect();
    for (id, bytes) in &blocks {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    let mut used = Vec::new();
    for number in 2..8 {
        for (id, _) in &blocks {
            store.add_references(&[*id], &[reference(number)]).unwrap();
        }
        let deletion =
            Deletion { publication: reference(number), sequence: number.into(), at_seconds: 1, order: Vec::new() };
        store.delete(deletion).unwrap();
        while !store.collect(100).unwrap().is_done {}
        store.prune(2).unwrap();
        reclaim_all(&store);
        used.push(store.usage().used_bytes);
    }
    assert!(used.iter().all(|bytes| *bytes == used[0]), "{used:?}");
    assert!(segments(&folder).len() <= 2, "{} segments", segments(&folder).len());
}

/// Pages that were given back while their segment was still written leave an empty file, which goes, too.
#[test]
fn files_without_records_are_removed() {
    let folder = TempDir::new().unwrap();
    let store = small_segments(&folder);
    for round in 0..40 {
        let (id, bytes) = block(round, 900_000);
        put(&store, id, &bytes, &[reference(1)]).unwrap();
        store.remove(&id).unwrap();
        reclaim_all(&store);
    }
    assert!(segments(&folder).len() <= 2, "{} segments", segments(&folder).len());
}

#[test]
fn a_segment_in_which_nothing_is_left_is_removed() {
    let folder = TempDir::new().unwrap();
    let store = small_segments(&folder);
    let blocks = fill(&store, 0..40, 500_000);
    let before = segments(&folder).len();
    for (id, _) in &blocks {
        store.remove(id).unwrap();
    }
    reclaim_all(&store);
    assert!(before >= 5, "{before}");
    assert_eq!(segments(&folder).len(), 1, "the one that is written");
    assert_eq!(store.usage().used_bytes, 0);
    drop(store);
    assert_eq!(open(&folder).usage().blocks, 0);
}

/// One block in each of many segments: they move together, and every one can still be read, before and after a restart.
#[test]
fn nearly_empty_segments_are_emptied() {
    let folder = TempDir::new().unwrap();
    let store = small_segments(&folder);
    let mut kept = Vec::new();
    for round in 0..10 {
        let small = block(1_000 + round, 10_000);
        put(&store, small.0, &small.1, &[reference(2)]).unwrap();
        store.add_references(&[small.0], &[reference(3)]).unwrap();
        kept.push(small);
        for seed in 0..8 {
            let (id, bytes) = block(round * 100 + seed, 500_000);
            put(&store, id, &bytes, &[reference(1)]).unwrap();
            store.remove(&id).unwrap();
        }
    }
    let before = segments(&folder).len();
    reclaim_all(&store);
    assert!(before >= 10 && segments(&folder).len() <= 2, "{before} segments became {}", segments(&folder).len());
    for _ in 0..2 {
        let store = store.clone();
        for (id, bytes) in &kept {
            assert_eq!(store.read(id).unwrap().as_ref(), Some(bytes));
            assert_eq!(store.references(id).unwrap(), [reference(2), reference(3)]);
        }
    }
    drop(store);
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let store = small_segments(&folder);
    for (id, bytes) in &kept {
        assert_eq!(store.read(id).unwrap().as_ref(), Some(bytes));
        assert_eq!(store.references(id).unwrap(), [reference(2), reference(3)], "the moved records say it too");
    }
}
