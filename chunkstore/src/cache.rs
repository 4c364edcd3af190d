use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chunkstore_block::BlockId;
use lru::LruCache;

/// A cache may hold one entry for each so many bytes of its capacity, and `SPARE_ENTRIES` more, so that a flood of
/// tiny blocks cannot cost more memory in entries (about 150 bytes each) than in bodies. A guess: blocks of real
/// content are 32 KiB and up.
const BYTES_PER_ENTRY: u64 = 4_096;
const SPARE_ENTRIES: u64 = 64;

/// The most recently used blocks, in memory, up to a number of bytes. Clones share one cache.
///
/// Its blocks are handed out unverified, so only verified ones may be inserted.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Mutex<Inner>>);

/// What a cache holds and has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Bytes of the blocks in it.
    pub used_bytes: u64,
    /// The most bytes of blocks that it keeps.
    pub capacity_bytes: u64,
    /// Gets that found the block.
    pub hits: u64,
    /// Gets that did not.
    pub misses: u64,
    /// Blocks dropped to make room.
    pub evictions: u64,
    /// Blocks in it.
    pub entries: u64,
}

#[derive(Debug)]
struct Inner {
    blocks: LruCache<BlockId, Bytes>,
    /// `entries` is kept by `blocks` and filled in when asked for.
    stats: CacheStats,
}

impl Cache {
    /// An empty cache for at most `capacity_bytes` of blocks. Zero keeps nothing.
    pub fn new(capacity_bytes: u64) -> Self {
        let stats = CacheStats { capacity_bytes, ..CacheStats::default() };
        Self(Arc::new(Mutex::new(Inner { blocks: LruCache::unbounded(), stats })))
    }

    /// The block, which becomes the most recently used. Nothing is copied.
    pub fn get(&self, id: &BlockId) -> Option<Bytes> {
        let mut inner = self.lock();
        let found = inner.blocks.get(id).cloned();
        match found {
            Some(_) => inner.stats.hits += 1,
            None => inner.stats.misses += 1,
        }
        found
    }

    /// The block if it is there, without a count and without making it the most recently used: for a second look by
    /// one who has been counted.
    pub fn peek(&self, id: &BlockId) -> Option<Bytes> {
        self.lock().blocks.peek(id).cloned()
    }

    /// Keeps a **verified** block, dropping the least recently used ones where room is needed. A block that is larger
    /// than the whole cache is not kept.
    ///
    /// `block` should own its memory alone: a slice of a larger buffer keeps the whole buffer alive, uncounted.
    pub fn insert(&self, id: BlockId, block: Bytes) {
        // To give back the memory of a large block takes the system longer than all else here: that is done when the
        // lock is free again.
        let dropped = self.lock().insert(id, block);
        drop(dropped);
    }

    /// What it holds and has done.
    pub fn stats(&self) -> CacheStats {
        let inner = self.lock();
        CacheStats { entries: inner.blocks.len() as u64, ..inner.stats }
    }

    /// No code of others runs under the lock, so a poisoned cache is still whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives back what is no longer in the cache.
    fn insert(&mut self, id: BlockId, block: Bytes) -> Vec<Bytes> {
        if block.len() as u64 > self.stats.capacity_bytes {
            return vec![block];
        }
        self.stats.used_bytes += block.len() as u64;
        let mut dropped: Vec<Bytes> = self.blocks.put(id, block).into_iter().collect();
        self.stats.used_bytes -= dropped.iter().map(|replaced| replaced.len() as u64).sum::<u64>();
        self.evict(&mut dropped);
        dropped
    }

    fn evict(&mut self, dropped: &mut Vec<Bytes>) {
        while self.is_over() {
            let Some((_, evicted)) = self.blocks.pop_lru() else { return };
            self.stats.used_bytes -= evicted.len() as u64;
            self.stats.evictions += 1;
            dropped.push(evicted);
        }
    }

    fn is_over(&self) -> bool {
        let most_entries = self.stats.capacity_bytes / BYTES_PER_ENTRY + SPARE_ENTRIES;
        self.stats.used_bytes > self.stats.capacity_bytes || self.blocks.len() as u64 > most_entries
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> BlockId {
        BlockId::of(&[number])
    }

    fn block(length: usize) -> Bytes {
        Bytes::from(vec![7; length])
    }

    #[test]
    fn a_hit_shares_the_memory() {
        let cache = Cache::new(100);
        let stored = block(60);
        cache.insert(id(1), stored.clone());
        assert_eq!(cache.get(&id(1)).unwrap().as_ptr(), stored.as_ptr());
    }

    #[test]
    fn a_block_larger_than_the_cache_is_not_kept_and_drops_nothing() {
        let cache = Cache::new(100);
        cache.insert(id(1), block(100));
        cache.insert(id(2), block(101));
        assert!(cache.get(&id(1)).is_some());
        assert!(cache.get(&id(2)).is_none());
        let expected =
            CacheStats { used_bytes: 100, capacity_bytes: 100, hits: 1, misses: 1, evictions: 0, entries: 1 };
        assert_eq!(cache.stats(), expected);
    }

    /// What the lock is held for does not grow with the blocks, since nobody gets a copy.
    #[test]
    fn readers_at_the_same_time_share_one_memory() {
        let cache = Cache::new(8 << 20);
        let stored: Vec<_> = (0..8).map(|number| (id(number), block(1 << 20))).collect();
        for (id, block) in &stored {
            cache.insert(*id, block.clone());
        }
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for (id, block) in stored.iter().cycle().take(8_000) {
                        let got = cache.get(id).unwrap();
                        assert_eq!((got.as_ptr(), got.len()), (block.as_ptr(), block.len()));
                    }
                });
            }
        });
        assert_eq!((cache.stats().hits, cache.stats().misses), (64_000, 0));
    }

    #[test]
    fn a_peek_neither_counts_nor_uses() {
        let cache = Cache::new(100);
        cache.insert(id(1), block(50));
        cache.insert(id(2), block(50));
        assert!(cache.peek(&id(1)).is_some() && cache.peek(&id(3)).is_none());
        cache.insert(id(3), block(50));
        assert!(cache.peek(&id(1)).is_none());
        assert_eq!((cache.stats().hits, cache.stats().misses), (0, 0));
    }

    /// A block whose memory says, when it is given back, whether the cache was free.
    struct Watched(Cache, Arc<Mutex<Vec<bool>>>);

    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &[7; 60]
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0.0.try_lock().is_ok());
        }
    }

    #[test]
    fn memory_is_given_back_when_the_cache_is_free() {
        let (cache, seen) = (Cache::new(100), Arc::default());
        let watched = || Bytes::from_owner(Watched(cache.clone(), Arc::clone(&seen)));
        cache.insert(id(1), watched());
        cache.insert(id(1), watched()); // replaces
        cache.insert(id(2), watched()); // evicts
        cache.insert(id(3), block(101)); // is not kept
        cache.insert(id(3), block(90)); // evicts
        assert_eq!(*seen.lock().unwrap(), [true; 3]);
    }

    #[test]
    fn tiny_blocks_cannot_pile_up() {
        let cache = Cache::new(1_000_000);
        for number in 0..2_000_u32 {
            cache.insert(BlockId::of(&number.to_be_bytes()), block(1));
        }
        assert_eq!(cache.stats().entries, 1_000_000 / BYTES_PER_ENTRY + SPARE_ENTRIES);
    }

    /// The model: the most recently used first.
    #[derive(Default)]
    struct Model(Vec<(BlockId, Bytes)>);

    impl Model {
        fn get(&mut self, wanted: BlockId) -> Option<Bytes> {
            let place = self.0.iter().position(|(id, _)| *id == wanted)?;
            let entry = self.0.remove(place);
            self.0.insert(0, entry);
            Some(self.0[0].1.clone())
        }

        fn insert(&mut self, new: BlockId, block: Bytes, capacity: usize) {
            if block.len() <= capacity {
                self.0.retain(|(id, _)| *id != new);
                self.0.insert(0, (new, block));
                while self.used() > capacity {
                    self.0.pop();
                }
            }
        }

        fn used(&self) -> usize {
            self.0.iter().map(|(_, block)| block.len()).sum()
        }
    }

    proptest! {
        #[test]
        fn it_does_what_the_model_does(
            capacity in 0..200_usize,
            steps in prop::collection::vec((any::<bool>(), 0..12_u8, 0..80_usize), 0..200),
        ) {
            let (cache, mut model) = (Cache::new(capacity as u64), Model::default());
            for (is_get, number, length) in steps {
                if is_get {
                    prop_assert_eq!(cache.get(&id(number)), model.get(id(number)));
                } else {
                    cache.insert(id(number), block(length));
                    model.insert(id(number), block(length), capacity);
                }
                prop_assert_eq!(cache.stats().used_bytes, model.used() as u64);
                prop_assert_eq!(cache.stats().entries, model.0.len() as u64);
            }
        }
    }
}
