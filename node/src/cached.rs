//! Blocks that viewers ask for: kept in memory, and fetched once however many ask.

use crate::flights::{BrokenOff, Flights};
use bytes::Bytes;
use chunkstore::Cache;
use chunkstore_block::BlockId;
use control_api::Problem;
use control_api::types::CacheStatus;

/// The cache, with one fetch for many misses.
pub(crate) struct Cached {
    cache: Cache,
    fetches: Flights<Result<Bytes, Problem>>,
}

impl Cached {
    /// An empty one for at most `capacity_bytes`.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self { cache: Cache::new(capacity_bytes), fetches: Flights::new() }
    }

    /// The block from memory, else what `fetch` gives, which must be **verified** and is then kept. Of several who ask at
    /// once for a block that is not here, one fetches, and all get what it got; an error is not kept.
    pub(crate) async fn get_or_fetch<F>(&self, id: BlockId, fetch: impl FnOnce() -> F) -> Result<Bytes, Problem>
    where
        F: Future<Output = Result<Bytes, Problem>> + Send + 'static,
    {
        if let Some(body) = self.cache.get(&id) {
            return Ok(body);
        }
        let work = || fetch_into(self.cache.clone(), id, fetch());
        let outcome = self.fetches.join(id, work).await;
        outcome.unwrap_or_else(|BrokenOff| Err(Problem::internal(&format_args!("the fetch of {id} was broken off"))))
    }

    /// What it holds and has done since the start.
    pub(crate) fn status(&self) -> CacheStatus {
        let cache = self.cache.stats();
        CacheStatus {
            used_bytes: cache.used_bytes,
            capacity_bytes: cache.capacity_bytes,
            hits: cache.hits,
            misses: cache.misses,
            evictions: cache.evictions,
            joined: self.fetches.joined(),
        }
    }
}

async fn fetch_into(
    cache: Cache,
    id: BlockId,
    fetch: impl Future<Output = Result<Bytes, Problem>>,
) -> Result<Bytes, Problem> {
    // Another fetch may have ended between this one's miss and its start.
    if let Some(body) = cache.peek(&id) {
        return Ok(body);
    }
    let body = fetch.await?;
    cache.insert(id, body.clone());
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::ErrorKind;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::oneshot;
    use tokio::task::{JoinSet, yield_now};

    const CAPACITY: u64 = 1 << 20;

    fn block(number: u64) -> (BlockId, Bytes) {
        let body = Bytes::from(number.to_be_bytes().repeat(100));
        (BlockId::of(&body), body)
    }

    fn unavailable() -> Problem {
        Problem::new(ErrorKind::Unavailable, "no holder answers")
    }

    async fn never() -> Result<Bytes, Problem> {
        unreachable!("the block is here")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hundred_misses_at_once_are_one_fetch() {
        let (cached, fetches) = (Arc::new(Cached::new(CAPACITY)), Arc::new(AtomicU64::new(0)));
        let (id, body) = block(1);
        let mut askers = JoinSet::new();
        for _ in 0..100 {
            let (cached, fetches, body) = (Arc::clone(&cached), Arc::clone(&fetches), body.clone());
            let waiting = Arc::clone(&cached);
            let fetch = async move {
                while waiting.status().joined < 99 {
                    yield_now().await;
                }
                fetches.fetch_add(1, Ordering::SeqCst);
                Ok(body)
            };
            askers.spawn(async move { cached.get_or_fetch(id, || fetch).await });
        }
        for answer in askers.join_all().await {
            assert_eq!(answer.unwrap().as_ptr(), body.as_ptr());
        }
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        let status = cached.status();
        assert_eq!((status.hits, status.misses, status.joined), (0, 100, 99));
    }

    #[tokio::test]
    async fn one_who_is_so_late_that_the_block_has_come_fetches_nothing() {
        let (cache, (id, body)) = (Cache::new(CAPACITY), block(1));
        cache.insert(id, body.clone());
        assert_eq!(fetch_into(cache.clone(), id, never()).await, Ok(body));
        assert_eq!(cache.stats().hits, 0);
    }

    #[tokio::test]
    async fn an_error_reaches_all_who_wait_and_is_not_kept() {
        let cached = Arc::new(Cached::new(CAPACITY));
        let (id, body) = block(1);
        let (fail, failure) = oneshot::channel();
        let mut askers = JoinSet::new();
        let first = Arc::clone(&cached);
        askers.spawn(async move { first.get_or_fetch(id, || async { Err(failure.await.unwrap()) }).await });
        for _ in 0..3 {
            let cached = Arc::clone(&cached);
            askers.spawn(async move { cached.get_or_fetch(id, never).await });
        }
        while cached.status().joined < 3 {
            yield_now().await;
        }
        fail.send(unavailable()).unwrap();
        assert_eq!(askers.join_all().await, vec![Err(unavailable()); 4]);
        assert_eq!(cached.get_or_fetch(id, || async { Ok(body) }).await.unwrap(), block(1).1);
        assert_eq!(cached.get_or_fetch(id, never).await.unwrap(), block(1).1);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_fetched_each_time() {
        let cached = Cached::new(0);
        let (id, body) = block(1);
        for _ in 0..2 {
            assert_eq!(cached.get_or_fetch(id, || std::future::ready(Ok(body.clone()))).await.unwrap(), body);
        }
        assert_eq!(cached.status(), CacheStatus { misses: 2, ..CacheStatus::default() });
    }
}
