use chunkstore::{Changed, Presence, PutOutcome, StoredBlock};

use super::{block, new_store, open, put, reference, used_by};

#[test]
fn a_put_is_there_after_the_store_is_opened_again() {
    let (folder, store) = new_store();
    let (large, small) = (block(1, 1 << 20), block(2, 10));
    for (id, bytes) in [&large, &small] {
        assert_eq!(put(&store, *id, bytes, &[reference(1)]).unwrap(), PutOutcome::Stored);
        assert_eq!(put(&store, *id, bytes, &[reference(2)]).unwrap(), PutOutcome::Had);
    }
    let before = store.usage();
    drop(store);
    let store = open(&folder);
    for (id, bytes) in [&large, &small] {
        assert_eq!(store.read(id).unwrap().as_ref(), Some(bytes));
        assert_eq!(store.references(id).unwrap(), [reference(1), reference(2)]);
    }
    assert_eq!(store.usage(), before);
    assert_eq!((before.block_bytes, before.blocks), ((1 << 20) + 10, 2));
}

#[test]
fn a_block_that_is_not_stored_is_none() {
    let (_folder, store) = new_store();
    let (id, _) = block(1, 100);
    assert_eq!(store.read(&id).unwrap(), None);
    assert!(!store.has(&id).unwrap());
    assert!(!store.remove(&id).unwrap());
    assert!(store.references(&id).unwrap().is_empty());
}

#[test]
fn references_are_added_to_the_blocks_that_are_there() {
    let (_folder, store) = new_store();
    let ((there, bytes), (missing, _)) = (block(1, 100), block(2, 100));
    put(&store, there, &bytes, &[reference(1)]).unwrap();
    let ids = [missing, there, there];
    let presences = store.add_references(&ids, &[reference(3), reference(40)]).unwrap();
    assert_eq!(presences, [Presence::Need, Presence::Have, Presence::Have]);
    assert_eq!(store.references(&there).unwrap(), [reference(1), reference(3), reference(40)]);
    assert!(store.references(&missing).unwrap().is_empty());
}

#[test]
fn a_removed_block_takes_its_references_and_its_room_with_it() {
    let (_folder, store) = new_store();
    let (id, bytes) = block(1, 5_000);
    let neighbour = block(2, 5_000);
    put(&store, id, &bytes, &[reference(1), reference(2)]).unwrap();
    put(&store, neighbour.0, &neighbour.1, &[reference(1)]).unwrap();
    assert!(store.remove(&id).unwrap());
    assert!(!store.has(&id).unwrap());
    assert_eq!(store.read(&id).unwrap(), None);
    assert!(store.references(&id).unwrap().is_empty());
    assert_eq!(store.references(&neighbour.0).unwrap(), [reference(1)]);
    super::reclaim_all(&store);
    assert_eq!((store.usage().block_bytes, store.usage().blocks, store.usage().dead_bytes), (5_000, 1, 0));
    assert_eq!(store.usage().used_bytes, used_by(5_000, 1));
}

#[test]
fn a_list_in_pages_shows_every_block_once_in_order() {
    let (_folder, store) = new_store();
    let mut expected = Vec::new();
    for seed in 0..25 {
        let (id, bytes) = block(seed, 10 + seed as usize);
        let references = vec![reference(seed as u8)];
        put(&store, id, &bytes, &references).unwrap();
        expected.push(StoredBlock { id, length: bytes.len() as u32, references });
    }
    expected.sort_by_key(|stored| stored.id);
    let mut listed = Vec::new();
    loop {
        let page = store.list(listed.last().map(|stored: &StoredBlock| stored.id), 10).unwrap();
        listed.extend_from_slice(&page);
        if page.len() < 10 {
            break;
        }
    }
    assert_eq!(listed, expected);
}

#[test]
fn a_watcher_is_told_which_blocks_have_changed() {
    let (_folder, store) = new_store();
    let (first, second) = (block(1, 50_000), block(2, 60_000));
    put(&store, first.0, &first.1, &[reference(1)]).unwrap();
    let (wake, woken) = std::sync::mpsc::sync_channel(100);
    assert!(store.watch(move || wake.try_send(()).unwrap()));
    assert_eq!(store.changes(9), Changed::Blocks(vec![]), "what was there before is listed, not told");
    put(&store, second.0, &second.1, &[reference(1)]).unwrap();
    woken.recv().unwrap();
    assert_eq!(store.changes(9), Changed::Blocks(vec![second.0]));
    let seen = store.look(&second.0).unwrap().unwrap();
    assert_eq!((seen.length, seen.references), (60_000, vec![reference(1)]));
    store.add_references(&[first.0], &[reference(2)]).unwrap();
    assert_eq!(store.changes(9), Changed::Blocks(vec![first.0]));
    store.remove(&first.0).unwrap();
    assert_eq!(store.changes(9), Changed::Blocks(vec![first.0]));
    assert_eq!(store.look(&first.0).unwrap(), None);
    // A put that changes nothing is no change.
    put(&store, second.0, &second.1, &[reference(1)]).unwrap();
    assert_eq!(store.changes(9), Changed::Blocks(vec![]));
}
