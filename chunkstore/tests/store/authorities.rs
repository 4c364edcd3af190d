use chunkstore::{Deletion, Room, StoreError};
use chunkstore_block::Block;

use super::{block, new_store, open, put, reclaim_all, reference};

#[test]
fn a_platforms_word_is_kept_until_its_publication_is_deleted() {
    let (folder, store) = new_store();
    store.admit(&reference(1), b"the word").unwrap();
    store.admit(&reference(1), b"another, later").unwrap();
    store.admit(&reference(2), b"of a second").unwrap();
    let kept = |store: &chunkstore::Store, number| store.authority(&reference(number)).unwrap();
    // The segment that they lie in is emptied, and the index is lost.
    for seed in 0..12 {
        let (id, bytes) = block(seed, 1 << 20);
        put(&store, id, &bytes, &[reference(2)]).unwrap();
        store.remove(&id).unwrap();
    }
    reclaim_all(&store);
    drop(store);
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let store = open(&folder);
    assert_eq!(kept(&store, 1).as_deref(), Some(&b"the word"[..]));
    assert_eq!(kept(&store, 2).as_deref(), Some(&b"of a second"[..]));
    assert_eq!(kept(&store, 3), None);
    for number in [1, 2] {
        let publication = reference(number);
        store.delete(Deletion { publication, sequence: number.into(), at_seconds: 1, order: Vec::new() }).unwrap();
        assert!(matches!(store.admit(&reference(3), &[0; 4_097]), Err(StoreError::Order { length: 4_097, .. })));
    }
    while !store.collect(1_000).unwrap().is_done {}
    assert_eq!(kept(&store, 1), None);
    assert!(matches!(store.admit(&reference(1), b"the word"), Err(StoreError::Deleted { .. })));
    assert_eq!(store.prune(2).unwrap(), 2);
    reclaim_all(&store);
    drop(store);
    assert_eq!(open(&folder).usage().used_bytes, 0, "no room is lost for good");
}

#[test]
fn a_copy_goes_only_if_it_has_no_other_reference() {
    let (folder, store) = new_store();
    let (id, bytes) = block(1, 50_000);
    store.put_verified(&Block::of(bytes.clone()), &[reference(1), reference(2)], Room::Repair).unwrap();
    assert!(!store.remove_if_only(&id, &[reference(1)]).unwrap());
    assert_eq!(store.read(&id).unwrap(), Some(bytes));
    assert!(store.remove_if_only(&id, &[reference(2), reference(1), reference(3)]).unwrap());
    assert!(!store.remove_if_only(&id, &[reference(1), reference(2)]).unwrap(), "gone");
    drop(store);
    let store = open(&folder);
    assert!(!store.has(&id).unwrap());
    assert_eq!(store.references(&id).unwrap(), []);
}

/// What is damaged is seen by a checked read only.
#[test]
fn an_unverified_read_gives_what_is_there() {
    let (folder, store) = new_store();
    let (id, bytes) = block(1, 50_000);
    put(&store, id, &bytes, &[reference(1)]).unwrap();
    super::flip_a_bit(&folder, &bytes);
    let read = store.read_unverified(&id).unwrap().unwrap();
    assert_eq!(read.len(), bytes.len());
    assert_ne!(read, bytes);
    assert!(matches!(store.read(&id), Err(StoreError::Corrupt { .. })));
    // From then on it is known, as soon as that is noted.
    while store.read_unverified(&id).is_ok() {}
}
