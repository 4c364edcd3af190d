//! Blocks that a store has acknowledged, and whether it has them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use chunkstore::{Deletion, Room, Store, StoreConfig, StoreError};
use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};

const THREADS: usize = 4;
const NOW: u64 = 1_800_000_000;

/// Ids of acknowledged blocks, with the publications that each is kept for, in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Shelf(pub(crate) BTreeMap<BlockId, Vec<Reference>>);

/// Far more than the disks have, and small segments, so that there are several. The index is flushed often.
pub(crate) fn config() -> StoreConfig {
    StoreConfig { segment_bytes: 16 << 20, write_buffer_bytes: 4 << 20, ..StoreConfig::new(1 << 40) }
}

pub(crate) fn open(folder: &Path) -> Result<Store, StoreError> {
    Store::open(folder, &config())
}

pub(crate) fn reference(number: u8) -> Reference {
    Reference {
        platform: PlatformFingerprint::from_bytes([9; 32]),
        publication: PublicationId::from_bytes([number; 16]),
    }
}

/// A block of so many bytes that depends on the seed.
pub(crate) fn block(seed: u64, length: usize) -> (BlockId, Bytes) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    (BlockId::of(&bytes), bytes.into())
}

pub(crate) fn put(store: &Store, seed: u64, length: usize, publication: Reference) -> Result<BlockId, StoreError> {
    let (id, bytes) = block(seed, length);
    store.put(id, bytes, &[publication], Room::Upload).map(|_| id)
}

pub(crate) fn delete(store: &Store, publication: Reference, sequence: u64) -> Result<bool, StoreError> {
    store.delete(Deletion { publication, sequence, at_seconds: NOW, order: vec![7; 500] })
}

/// Deletes a publication and gives back all room that it took.
pub(crate) fn delete_all(store: &Store, publication: Reference, sequence: u64) -> Result<(), StoreError> {
    delete(store, publication, sequence)?;
    while !store.collect(1_000)?.is_done {}
    while !store.reclaim(u64::MAX)?.is_done {}
    Ok(())
}

impl Shelf {
    /// Four threads put blocks from these seeds until each is refused; each block acknowledged is said besides.
    pub(crate) fn fill(
        &mut self,
        store: &Store,
        seeds: u64,
        publication: Reference,
        say: impl Fn(&BlockId) + Sync,
    ) -> Vec<StoreError> {
        let next = AtomicU64::new(seeds);
        let work = || {
            let mut own = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                match put(store, seed, 1 + (seed as usize * 7_919) % 600_000, publication) {
                    Ok(id) => {
                        say(&id);
                        own.push(id);
                    }
                    Err(error) => return (own, error),
                }
            }
        };
        let done: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (ids, errors): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        ids.into_iter().flatten().for_each(|id| self.add(id, publication));
        errors
    }

    pub(crate) fn add(&mut self, id: BlockId, publication: Reference) {
        let references = self.0.entry(id).or_default();
        if let Err(place) = references.binary_search(&publication) {
            references.insert(place, publication);
        }
    }

    /// A publication was deleted.
    pub(crate) fn drop_publication(&mut self, publication: Reference) {
        self.0.retain(|_, references| {
            references.retain(|one| *one != publication);
            !references.is_empty()
        });
    }

    /// Reads everything. What was not acknowledged may be there too.
    pub(crate) fn check(&self, store: &Store) {
        for (id, references) in &self.0 {
            let bytes = store.read(id).unwrap().unwrap_or_else(|| panic!("{id} was acknowledged and is gone"));
            assert_eq!(BlockId::of(&bytes), *id);
            let there = store.references(id).unwrap();
            let lost: Vec<_> = references.iter().filter(|one| there.binary_search(one).is_err()).collect();
            assert!(lost.is_empty(), "{id} has lost {lost:?}");
        }
    }
}
