use std::fs;

use chunkstore::{Presence, PutOutcome, StoreError};

use super::{block, flip_a_bit, new_store, open, put, reference, segments};

#[test]
fn a_flipped_bit_on_disk_is_an_error_and_never_wrong_bytes() {
    let (folder, store) = new_store();
    let (damaged, whole) = (block(1, 100_000), block(2, 100_000));
    for (id, bytes) in [&damaged, &whole] {
        put(&store, *id, bytes, &[reference(1)]).unwrap();
    }
    flip_a_bit(&folder, &damaged.1);
    for _ in 0..2 {
        let error = store.read(&damaged.0).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { id, .. } if *id == damaged.0), "{error}");
    }
    assert_eq!(store.read(&whole.0).unwrap(), Some(whole.1));
}

#[test]
fn a_damaged_block_counts_as_absent_until_it_is_put_again() {
    let (folder, store) = new_store();
    let (id, bytes) = block(1, 100_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    let usage = store.usage();
    flip_a_bit(&folder, &bytes);
    store.read(&id).unwrap_err();
    assert_eq!(store.add_references(&[id], &[reference(2)]).unwrap(), [Presence::Need]);
    assert!(!store.has(&id).unwrap());
    assert_eq!(store.usage().damaged_blocks, 1);
    drop(store);
    let store = open(&folder); // the mark stays
    assert!(!store.has(&id).unwrap());
    assert_eq!(put(&store, id, &bytes, &[reference(2)]).unwrap(), PutOutcome::Had);
    assert_eq!(store.read(&id).unwrap(), Some(bytes));
    assert_eq!(store.references(&id).unwrap(), [reference(1), reference(2)]);
    super::reclaim_all(&store);
    let after = store.usage();
    assert_eq!((after.blocks, after.block_bytes, after.damaged_blocks, after.dead_bytes), (1, usage.block_bytes, 0, 0));
}

/// A put of a block that is there is acknowledged only if what is there is good.
#[test]
fn a_put_mends_a_damaged_copy_that_nobody_has_noticed() {
    let (folder, store) = new_store();
    let (id, bytes) = block(1, 100_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    flip_a_bit(&folder, &bytes);
    assert_eq!(put(&store, id, &bytes, &[reference(1)]).unwrap(), PutOutcome::Had);
    assert_eq!(store.read(&id).unwrap(), Some(bytes));
}

#[test]
fn a_lost_segment_is_an_error_and_not_an_absent_block() {
    let (folder, store) = new_store();
    let (id, bytes) = block(1, 100_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    drop(store);
    for path in segments(&folder) {
        fs::remove_file(path).unwrap();
    }
    let store = open(&folder);
    assert!(matches!(store.read(&id), Err(StoreError::Corrupt { .. })));
    assert_eq!(put(&store, id, &bytes, &[reference(1)]).unwrap(), PutOutcome::Had);
    assert_eq!(store.read(&id).unwrap(), Some(bytes));
}
