use chunkstore::{PutOutcome, Room, Store, StoreConfig, StoreError};
use chunkstore_block::BlockId;
use tempfile::TempDir;

use super::{MIB, block, new_store, put, reference, used_by};

#[test]
fn a_block_over_the_quota_is_refused_and_nothing_is_written() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path(), &quota(2 * used_by(100, 1) + 50)).unwrap();
    let blocks: Vec<_> = (0..3).map(|seed| block(seed, 100)).collect();
    for (id, bytes) in &blocks[..2] {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    let (id, bytes) = &blocks[2];
    let error = put(&store, *id, bytes, &[reference(1)]).unwrap_err();
    let one = used_by(100, 1);
    let expected = format!(
        "the store is full: {} of {} bytes for uploads are used and {one} more are needed",
        2 * one,
        2 * one + 50
    );
    assert_eq!(error.to_string(), expected);
    assert!(!store.has(id).unwrap());
    assert_eq!(
        put(&store, blocks[0].0, &blocks[0].1, &[reference(1)]).unwrap(),
        PutOutcome::Had,
        "what is there needs no room"
    );
    store.remove(&blocks[0].0).unwrap();
    super::reclaim_all(&store);
    assert_eq!(put(&store, *id, bytes, &[reference(1)]).unwrap(), PutOutcome::Stored, "room comes back");
}

#[test]
fn a_quota_made_smaller_keeps_what_is_there() {
    let folder = TempDir::new().unwrap();
    let (id, bytes) = block(1, 100);
    put(&Store::open(folder.path(), &quota(10_000)).unwrap(), id, &bytes, &[reference(1)]).unwrap();
    let store = Store::open(folder.path(), &quota(50)).unwrap();
    assert_eq!(store.read(&id).unwrap(), Some(bytes));
    assert_eq!(store.usage().used_bytes, used_by(100, 1));
    let (other, bytes) = block(2, 1);
    assert!(matches!(put(&store, other, &bytes, &[reference(1)]), Err(StoreError::Full { .. })));
}

#[test]
fn bytes_that_are_not_the_block_are_refused() {
    let (_folder, store) = new_store();
    let ((id, _), (other, bytes)) = (block(1, 100), block(2, 100));
    let error = put(&store, id, &bytes, &[reference(1)]).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { expected, actual } if expected == id && actual == other));
    assert!(!store.has(&id).unwrap() && !store.has(&other).unwrap());
    super::reclaim_all(&store);
    assert_eq!(store.usage().used_bytes, 0);
}

#[test]
fn uploads_leave_the_reserve_to_repair() {
    let folder = TempDir::new().unwrap();
    let config = StoreConfig { repair_reserve_bytes: used_by(100, 1), ..quota(2 * used_by(100, 1)) };
    let store = Store::open(folder.path(), &config).unwrap();
    let blocks: Vec<_> = (0..3).map(|seed| block(seed, 100)).collect();
    put(&store, blocks[0].0, &blocks[0].1, &[reference(1)]).unwrap();
    let repair = |block: &(BlockId, bytes::Bytes), room| store.put(block.0, block.1.clone(), &[reference(1)], room);
    assert!(matches!(repair(&blocks[1], Room::Upload), Err(StoreError::Full { .. })));
    assert_eq!(repair(&blocks[1], Room::Repair).unwrap(), PutOutcome::Stored);
    assert!(matches!(repair(&blocks[2], Room::Repair), Err(StoreError::Full { .. })));
    assert_eq!((store.free_bytes(Room::Upload), store.free_bytes(Room::Repair)), (0, 0));
}

#[test]
fn a_block_is_kept_for_1_to_600_publications_at_a_time() {
    let (_folder, store) = new_store();
    let (id, bytes) = block(1, 100);
    for count in [0, 601] {
        let references = vec![reference(1); count];
        let error = put(&store, id, &bytes, &references).unwrap_err();
        assert_eq!(error.to_string(), format!("a block is kept for 1 to 600 publications at a time, not {count}"));
        assert!(matches!(store.add_references(&[id], &references), Err(StoreError::References { .. })));
    }
    assert!(!store.has(&id).unwrap());
}

/// What references take counts, too, and they may use the reserve: what they keep is there already.
#[test]
fn references_stop_at_the_quota() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path(), &quota(100_000)).unwrap();
    let (id, bytes) = block(1, 100);
    put(&store, id, &bytes, &[reference(0)]).unwrap();
    let refused = (1..=255).find(|number| store.add_references(&[id], &[reference(*number)]).is_err());
    let refused = refused.expect("the quota is never reached");
    assert!(matches!(store.add_references(&[id], &[reference(refused)]), Err(StoreError::Full { .. })));
    assert_eq!(store.references(&id).unwrap().len(), usize::from(refused));
    assert!((90_000..=100_000).contains(&store.usage().used_bytes), "{:?}", store.usage());
}

#[test]
fn a_block_has_1_byte_to_1_mib() {
    let (_folder, store) = new_store();
    for length in [0, MIB as usize + 1] {
        let (id, bytes) = block(1, length);
        assert!(matches!(put(&store, id, &bytes, &[reference(1)]), Err(StoreError::Length { .. })));
    }
    for length in [1, MIB as usize] {
        let (id, bytes) = block(1, length);
        assert_eq!(id, BlockId::of(&bytes));
        assert_eq!(put(&store, id, &bytes, &[reference(1)]).unwrap(), PutOutcome::Stored);
    }
}

/// A quota of which nothing is reserved.
fn quota(bytes: u64) -> StoreConfig {
    StoreConfig { repair_reserve_bytes: 0, ..StoreConfig::new(bytes) }
}
