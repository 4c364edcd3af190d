use chunkstore::{PutOutcome, Store, StoreConfig, StoreError};
use chunkstore_block::BlockId;
use tempfile::TempDir;

use super::{MIB, block, new_store};

#[test]
fn a_block_over_the_quota_is_refused_and_nothing_is_written() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(folder.path(), &StoreConfig::new(250)).unwrap();
    let blocks: Vec<_> = (0..3).map(|seed| block(seed, 100)).collect();
    for (id, bytes) in &blocks[..2] {
        store.put(*id, bytes, &[]).unwrap();
    }
    let (id, bytes) = &blocks[2];
    let error = store.put(*id, bytes, &[]).unwrap_err();
    assert_eq!(error.to_string(), "the store is full: 200 of 250 bytes are used and 100 more are needed");
    assert!(!store.has(id).unwrap());
    assert_eq!(store.put(blocks[0].0, &blocks[0].1, &[]).unwrap(), PutOutcome::Had, "what is there needs no room");
    store.remove(&blocks[0].0).unwrap();
    assert_eq!(store.put(*id, bytes, &[]).unwrap(), PutOutcome::Stored, "room comes back");
}

#[test]
fn a_quota_made_smaller_keeps_what_is_there() {
    let folder = TempDir::new().unwrap();
    let (id, bytes) = block(1, 100);
    Store::open(folder.path(), &StoreConfig::new(100)).unwrap().put(id, &bytes, &[]).unwrap();
    let store = Store::open(folder.path(), &StoreConfig::new(50)).unwrap();
    assert_eq!(store.read(&id).unwrap(), Some(bytes));
    assert_eq!(store.usage().used_bytes, 100);
    let (other, bytes) = block(2, 1);
    assert!(matches!(store.put(other, &bytes, &[]), Err(StoreError::Full { .. })));
}

#[test]
fn bytes_that_are_not_the_block_are_refused() {
    let (_folder, store) = new_store();
    let ((id, _), (other, bytes)) = (block(1, 100), block(2, 100));
    let error = store.put(id, &bytes, &[]).unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { expected, actual } if expected == id && actual == other));
    assert!(!store.has(&id).unwrap() && !store.has(&other).unwrap());
    assert_eq!(store.usage().used_bytes, 0);
}

#[test]
fn a_block_has_1_byte_to_1_mib() {
    let (_folder, store) = new_store();
    for length in [0, MIB as usize + 1] {
        let (id, bytes) = block(1, length);
        assert!(matches!(store.put(id, &bytes, &[]), Err(StoreError::Length { .. })));
    }
    for length in [1, MIB as usize] {
        let (id, bytes) = block(1, length);
        assert_eq!(id, BlockId::of(&bytes));
        assert_eq!(store.put(id, &bytes, &[]).unwrap(), PutOutcome::Stored);
    }
}
