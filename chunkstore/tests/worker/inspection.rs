//! The child that says what a store holds, and tries it out.

use std::collections::BTreeSet;

use chunkstore::{Store, StoreError, StoredBlock};
use chunkstore_block::BlockId;

use super::event::Event;
use super::promises::Holding;
use super::publication::Publication;
use super::{body, put};

/// References that are collected at a time.
const COLLECT_STEP: usize = 7;

/// Panics on damaged blocks, wrong books and what does not work.
pub(super) fn inspect(store: &Store, seed: u64) {
    while !store.collect(COLLECT_STEP).unwrap().is_done {}
    let deleted = deleted(store);
    deleted.iter().for_each(|publication| Event::Deleted(*publication).say());
    holdings(store).into_iter().for_each(|holding| Event::Holds(holding).say());
    assert_usable(store, seed);
    if let Some(publication) = deleted.first() {
        assert_refused(store, *publication, seed);
    }
    Event::Sound.say();
}

/// What was deleted, by the orders that the platforms' other nodes would get.
fn deleted(store: &Store) -> BTreeSet<Publication> {
    let orders = Publication::platforms().flat_map(|platform| store.deletions(&platform, 0, usize::MAX).unwrap());
    orders
        .map(|order| {
            assert!(store.is_deleted(&order.publication).unwrap());
            let publication = Publication::of(&order.publication);
            assert_eq!(order, publication.deletion());
            publication
        })
        .collect()
}

/// Reads everything that the store says it has.
fn holdings(store: &Store) -> Vec<Holding> {
    let listed = store.list(None, usize::MAX).unwrap();
    let usage = store.usage();
    assert_eq!((usage.blocks, usage.damaged_blocks), (listed.len() as u64, 0));
    assert_eq!(usage.block_bytes, listed.iter().map(|stored| u64::from(stored.length)).sum::<u64>());
    listed.iter().map(|stored| holding(store, stored)).collect()
}

fn holding(store: &Store, stored: &StoredBlock) -> Holding {
    let id = stored.id;
    let body = store.read(&id).unwrap().unwrap_or_else(|| panic!("{id} is listed and not there"));
    assert_eq!((BlockId::of(&body), body.len()), (id, stored.length as usize));
    assert_eq!(store.references(&id).unwrap(), stored.references);
    Holding { id, length: body.len(), publications: stored.references.iter().map(Publication::of).collect() }
}

/// A store that came through is one that can be used.
fn assert_usable(store: &Store, seed: u64) {
    let body = body(!seed, 70_000);
    let id = BlockId::of(&body);
    put(store, id, &body, &[Publication::permanent(1).reference()]).unwrap();
    assert_eq!(store.read(&id).unwrap(), Some(body));
    assert!(store.remove(&id).unwrap());
}

fn assert_refused(store: &Store, deleted: Publication, seed: u64) {
    let body = body(!seed, 70_000);
    let refused = put(store, BlockId::of(&body), &body, &[deleted.reference()]);
    assert!(matches!(refused, Err(StoreError::Deleted { .. })), "{refused:?}");
}
