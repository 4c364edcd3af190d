//! Work that many wait for and that is done once.

use chunkstore_block::BlockId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What is being worked out now, by block: whoever asks for the same block meanwhile gets the same outcome. Clones share one table.
///
/// The work is a task of its own. No asker can hold it up by going away; when all of them have, it is dropped. So there are
/// never more entries than askers. An outcome, good or bad, is for those who asked before it was there, and is not kept.
///
/// (`futures::future::Shared`, which its waiters drive, is not enough: a wake-up that comes during a poll is lost to the others when
/// the one that polled goes away.)
pub(crate) struct Flights<V>(Arc<Mutex<Table<V>>>);

/// The work ended without an outcome: it panicked, or the process is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BrokenOff;

struct Table<V> {
    under_way: HashMap<BlockId, Arc<watch::Sender<Option<V>>>>,
    joined: u64,
}

impl<V: Clone + Send + Sync + 'static> Flights<V> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Table { under_way: HashMap::new(), joined: 0 })))
    }

    /// Waits for the outcome of the work that is under way for this block, or starts it.
    pub(crate) async fn join<W>(&self, id: BlockId, work: impl FnOnce() -> W) -> Result<V, BrokenOff>
    where
        W: Future<Output = V> + Send + 'static,
    {
        let (mut landing, new) = self.board(id);
        if let Some(flight) = new {
            tokio::spawn(flight.run(work()));
        }
        let landed = landing.wait_for(Option::is_some).await.map_err(|_| BrokenOff)?;
        landed.clone().ok_or(BrokenOff)
    }

    /// How many found what they wanted under way, since the start.
    pub(crate) fn joined(&self) -> u64 {
        self.lock().joined
    }

    /// A place on the flight to this block; with it the flight itself, to be run, if it is new.
    fn board(&self, id: BlockId) -> (watch::Receiver<Option<V>>, Option<Flight<V>>) {
        let mut table = self.lock();
        if let Some(sender) = table.under_way.get(&id) {
            let landing = sender.subscribe();
            table.joined += 1;
            return (landing, None);
        }
        let (sender, landing) = watch::channel(None);
        let sender = Arc::new(sender);
        table.under_way.insert(id, Arc::clone(&sender));
        (landing, Some(Flight { flights: self.clone(), id, sender }))
    }
}

// Not derived, for that would ask the same of V.
impl<V> Clone for Flights<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Flights<V> {
    /// Every change of the table is a single call, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, Table<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry of the table. It goes when this is dropped, however the task ends.
struct Flight<V> {
    flights: Flights<V>,
    id: BlockId,
    sender: Arc<watch::Sender<Option<V>>>,
}

impl<V: Clone + Send + Sync + 'static> Flight<V> {
    async fn run(self, work: impl Future<Output = V>) {
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = self.abandoned() => return,
        };
        let sender = Arc::clone(&self.sender);
        // First out of the table, then known: nobody can board who would get an old outcome.
        drop(self);
        sender.send_replace(Some(outcome));
    }

    /// Returns when nobody waits any more, and nobody can begin to.
    async fn abandoned(&self) {
        loop {
            self.sender.closed().await;
            if self.leave_unless_awaited() {
                return;
            }
        }
    }

    /// Under the lock, for somebody may have boarded since the last one went.
    fn leave_unless_awaited(&self) -> bool {
        let mut table = self.flights.lock();
        let abandoned = self.sender.receiver_count() == 0;
        if abandoned {
            self.leave(&mut table);
        }
        abandoned
    }
}

impl<V> Flight<V> {
    fn leave(&self, table: &mut Table<V>) {
        // After `leave_unless_awaited` the entry may be that of the next flight to this block.
        if table.under_way.get(&self.id).is_some_and(|sender| Arc::ptr_eq(sender, &self.sender)) {
            table.under_way.remove(&self.id);
        }
    }
}

impl<V> Drop for Flight<V> {
    fn drop(&mut self) {
        self.leave(&mut self.flights.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::oneshot;
    use tokio::task::{JoinHandle, yield_now};

    /// What nobody gets, since the flight is under way when this work is offered.
    const NOT_RUN: usize = usize::MAX;

    fn id(number: usize) -> BlockId {
        BlockId::of(&number.to_be_bytes())
    }

    /// Asks in a task of its own.
    fn ask<W>(flights: &Flights<usize>, number: usize, work: W) -> JoinHandle<Result<usize, BrokenOff>>
    where
        W: Future<Output = usize> + Send + 'static,
    {
        let flights = flights.clone();
        tokio::spawn(async move { flights.join(id(number), || work).await })
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            yield_now().await;
        }
    }

    fn under_way(flights: &Flights<usize>) -> usize {
        flights.lock().under_way.len()
    }

    /// Work that ends when it is told to.
    fn gated() -> (oneshot::Sender<usize>, impl Future<Output = usize> + Send + 'static) {
        let (open, gate) = oneshot::channel();
        (open, async { gate.await.unwrap() })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hundred_who_ask_at_once_are_one_flight() {
        let (flights, runs) = (Flights::new(), Arc::new(AtomicUsize::new(0)));
        let work = |flights: Flights<usize>, runs: Arc<AtomicUsize>| async move {
            until(|| flights.joined() == 99).await;
            runs.fetch_add(1, Ordering::SeqCst);
            7
        };
        let asked: Vec<_> = (0..100).map(|_| ask(&flights, 1, work(flights.clone(), Arc::clone(&runs)))).collect();
        for asker in asked {
            assert_eq!(asker.await.unwrap(), Ok(7));
        }
        assert_eq!((runs.load(Ordering::SeqCst), under_way(&flights)), (1, 0));
    }

    #[tokio::test]
    async fn the_first_to_ask_may_go_away() {
        let flights = Flights::new();
        let (open, work) = gated();
        let first = ask(&flights, 1, work);
        until(|| under_way(&flights) == 1).await;
        let second = ask(&flights, 1, ready(NOT_RUN));
        until(|| flights.joined() == 1).await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        open.send(7).unwrap();
        assert_eq!(second.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn when_all_have_gone_away_the_work_is_dropped_and_forgotten() {
        let flights = Flights::new();
        let (mut open, work) = gated();
        let (first, second) = (ask(&flights, 1, work), ask(&flights, 1, ready(NOT_RUN)));
        until(|| flights.joined() == 1).await;
        first.abort();
        second.abort();
        open.closed().await;
        assert_eq!(under_way(&flights), 0);
        assert_eq!(ask(&flights, 1, async { 8 }).await.unwrap(), Ok(8));
    }

    #[test]
    fn one_who_boards_when_the_last_has_just_gone_is_not_left_behind() {
        let flights = Flights::new();
        let (first, flight) = flights.board(id(1));
        let flight: Flight<usize> = flight.unwrap();
        drop(first);
        let (second, none) = flights.board(id(1));
        assert!(none.is_none() && !flight.leave_unless_awaited());
        drop(second);
        assert!(flight.leave_unless_awaited());
        // The old flight ends while the next one to the same block is under way, and leaves that alone.
        let (_third, next) = flights.board(id(1));
        assert!(next.is_some());
        drop(flight);
        assert_eq!(under_way(&flights), 1);
    }

    #[tokio::test]
    async fn an_outcome_is_for_those_who_asked_before_it() {
        let flights = Flights::new();
        for outcome in [7, 8] {
            assert_eq!(flights.join(id(1), || async move { outcome }).await, Ok(outcome));
        }
        assert_eq!((under_way(&flights), flights.joined()), (0, 0));
    }

    #[tokio::test]
    async fn a_panic_reaches_those_who_waited_and_nobody_else() {
        let flights = Flights::new();
        let (open, work) = gated();
        let (first, second) = (ask(&flights, 1, work), ask(&flights, 1, ready(NOT_RUN)));
        until(|| flights.joined() == 1).await;
        drop(open); // the work unwraps what will never come
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Err(BrokenOff), Err(BrokenOff)));
        assert_eq!(under_way(&flights), 0);
        assert_eq!(ask(&flights, 1, async { 8 }).await.unwrap(), Ok(8));
    }

    #[tokio::test]
    async fn two_blocks_do_not_wait_for_each_other() {
        let flights = Flights::new();
        let stuck = ask(&flights, 1, pending());
        until(|| under_way(&flights) == 1).await;
        assert_eq!(ask(&flights, 2, async { 2 }).await.unwrap(), Ok(2));
        assert!(!stuck.is_finished());
    }

    /// Work of a few steps, and askers of whom half give up after as many: some leave just when the work ends, some
    /// board just when the last leaves.
    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_stays_gets_the_outcome_whatever_the_others_do() {
        async fn steps(count: usize) {
            for _ in 0..count {
                yield_now().await;
            }
        }
        let flights = Flights::new();
        let asker = |number: usize| {
            let flights = flights.clone();
            let (block, patience) = (number % 3, number % 7);
            async move {
                let work = || async move {
                    steps(number % 5).await;
                    block
                };
                let answer = flights.join(id(block), work);
                if number.is_multiple_of(2) {
                    assert_eq!(answer.await, Ok(block));
                } else {
                    tokio::select! { answer = answer => assert_eq!(answer, Ok(block)), () = steps(patience) => {} }
                }
            }
        };
        for round in 0..200 {
            let asked: Vec<_> = (0..50).map(|number| tokio::spawn(asker(round + number))).collect();
            for asker in asked {
                asker.await.unwrap();
            }
        }
        assert!(flights.joined() > 0);
        until(|| under_way(&flights) == 0).await;
    }
}
