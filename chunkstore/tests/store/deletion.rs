use chunkstore::{Deletion, Store, StoreError};
use chunkstore_block::Reference;

use super::{block, flip_a_bit, new_store, open, put, reclaim_all, reference};

const NOW: u64 = 1_800_000_000;

#[test]
fn a_deleted_publication_takes_the_blocks_that_only_it_needs() {
    let (folder, store) = new_store();
    let (own, shared) = (block(1, 50_000), block(2, 50_000));
    put(&store, own.0, &own.1, &[reference(1)]).unwrap();
    put(&store, shared.0, &shared.1, &[reference(1)]).unwrap();
    put(&store, shared.0, &shared.1, &[reference(2)]).unwrap();
    assert!(delete(&store, reference(1), 7));
    collect_all(&store);
    assert!(!store.has(&own.0).unwrap());
    assert_eq!(store.references(&shared.0).unwrap(), [reference(2)]);
    assert_eq!(store.read(&shared.0).unwrap(), Some(shared.1));
    drop(store);
    let store = open(&folder);
    assert!(!store.has(&own.0).unwrap());
    assert_eq!(store.usage().blocks, 1);
}

#[test]
fn what_was_deleted_is_refused_and_a_new_publication_of_the_same_bytes_lives() {
    let (_folder, store) = new_store();
    let (id, bytes) = block(1, 50_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    assert!(delete(&store, reference(1), 1));
    // Before and after the collection alike.
    for _ in 0..2 {
        let error = put(&store, id, &bytes, &[reference(1)]).unwrap_err();
        assert!(matches!(error, StoreError::Deleted { publication } if publication == reference(1)), "{error}");
        assert!(matches!(store.add_references(&[id], &[reference(1)]), Err(StoreError::Deleted { .. })));
        collect_all(&store);
    }
    assert!(!store.has(&id).unwrap());
    put(&store, id, &bytes, &[reference(2)]).unwrap();
    // Of several references those that are alive are taken.
    put(&store, id, &bytes, &[reference(1), reference(3)]).unwrap();
    assert_eq!(store.references(&id).unwrap(), [reference(2), reference(3)]);
    // Another platform's publication of the same number is another one.
    let other = Reference { platform: reference(16).platform, ..reference(1) };
    put(&store, id, &bytes, &[other]).unwrap();
}

#[test]
fn orders_are_listed_by_the_platforms_own_numbers() {
    let (folder, store) = new_store();
    for (publication, sequence) in [(1, 30), (2, 10), (3, 20)] {
        assert!(delete(&store, reference(publication), sequence));
    }
    assert!(!delete(&store, reference(1), 30), "known");
    assert!(!delete(&store, reference(1), 29), "older");
    assert!(delete(&store, reference(2), 40), "newer");
    assert!(delete(&store, reference(16), 1), "another platform's");
    drop(store);
    let store = open(&folder);
    let listed = |after, limit| -> Vec<_> {
        let orders = store.deletions(&reference(1).platform, after, limit).unwrap();
        orders.into_iter().map(|order| (order.publication, order.sequence, order.order)).collect()
    };
    let order =
        |publication, sequence: u64| (reference(publication), sequence, format!("order {sequence}").into_bytes());
    assert_eq!(listed(0, 10), [order(3, 20), order(1, 30), order(2, 40)]);
    assert_eq!(listed(20, 10), [order(1, 30), order(2, 40)]);
    assert_eq!(listed(0, 1), [order(3, 20)]);
    assert_eq!(listed(u64::MAX, 10), []);
}

#[test]
fn tombstones_are_kept_for_their_time_and_until_nothing_is_left() {
    let (_folder, store) = new_store();
    let (id, bytes) = block(1, 5_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    delete(&store, reference(1), 1);
    delete(&store, reference(2), 2);
    collect_all_but_nothing(&store);
    assert_eq!(store.prune(NOW).unwrap(), 0, "too young");
    assert_eq!(store.prune(NOW + 1).unwrap(), 0, "not collected yet");
    collect_all(&store);
    assert_eq!(store.prune(NOW + 1).unwrap(), 2);
    assert_eq!(store.deletions(&reference(1).platform, 0, 10).unwrap(), []);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    store.remove(&id).unwrap();
    reclaim_all(&store);
    assert_eq!(store.usage().dead_bytes, 0, "the orders' records went with them");
}

#[test]
fn an_order_that_is_too_long_is_refused() {
    let (_folder, store) = new_store();
    let deletion = Deletion { publication: reference(1), sequence: 1, at_seconds: NOW, order: vec![0; 4_097] };
    assert!(matches!(store.delete(deletion), Err(StoreError::Order { length: 4_097, .. })));
    assert!(!store.is_deleted(&reference(1)).unwrap());
}

#[test]
fn the_collection_goes_on_in_steps() {
    let (_folder, store) = new_store();
    for seed in 0..25 {
        let (id, bytes) = block(seed, 100);
        put(&store, id, &bytes, &[reference(1)]).unwrap();
    }
    delete(&store, reference(1), 1);
    let steps: Vec<_> = (0..3).map(|_| store.collect(10).unwrap()).collect();
    assert_eq!(steps.iter().map(|step| step.blocks).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(steps.iter().map(|step| step.is_done).collect::<Vec<_>>(), [false, false, true]);
}

/// Deletions of what this node never had are collected step by step, too.
#[test]
fn empty_publications_are_collected_in_steps() {
    let (_folder, store) = new_store();
    for number in 0..50 {
        delete(&store, reference(number), 1);
    }
    let steps = (1..).find(|_| store.collect(20).unwrap().is_done);
    assert_eq!(steps, Some(3));
    assert_eq!(store.prune(NOW + 1).unwrap(), 50);
}

/// The record of an order is damaged on disk. Its segment stays, and when the tombstone goes, so does the rest.
#[test]
fn a_damaged_order_does_no_harm() {
    let (folder, store) = new_store();
    let order = bytes::Bytes::from(vec![0x5a; 4_000]);
    let deletion = Deletion { publication: reference(1), sequence: 1, at_seconds: NOW, order: order.to_vec() };
    store.delete(deletion).unwrap();
    flip_a_bit(&folder, &order);
    for seed in 0..12 {
        let (id, bytes) = block(seed, 1 << 20);
        put(&store, id, &bytes, &[reference(2)]).unwrap();
        store.remove(&id).unwrap();
    }
    reclaim_all(&store);
    assert!(store.is_deleted(&reference(1)).unwrap());
    collect_all(&store);
    assert_eq!(store.prune(NOW + 1).unwrap(), 1);
    reclaim_all(&store);
    drop(store);
    assert_eq!(open(&folder).usage().used_bytes, 0);
}

fn delete(store: &Store, publication: Reference, sequence: u64) -> bool {
    let order = format!("order {sequence}").into_bytes();
    store.delete(Deletion { publication, sequence, at_seconds: NOW, order }).unwrap()
}

fn collect_all(store: &Store) {
    while !store.collect(1_000).unwrap().is_done {}
}

/// A step that has no budget.
fn collect_all_but_nothing(store: &Store) {
    assert!(!store.collect(0).unwrap().is_done);
}
