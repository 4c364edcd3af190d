//! The responses with blocks that are running: how many there may be, and which one goes when there are too many.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::problem::{ErrorKind, Problem};
use crate::serve::Connection;

/// Responses with blocks that may run at once. Each holds at most four blocks, so this bounds memory to 4 GiB in the worst case.
const MAX_TRANSFERS: usize = 1_024;

/// When there is no room for another transfer, one whose viewer has taken nothing for so long makes some: a player whose buffer is full stops
/// reading and asks again later. A guess; a viewer of 1.7 Mbit/s takes a block of 1 MiB in that time.
const YIELD_AFTER: Duration = Duration::from_secs(5);

/// Counts the responses with blocks or fragment lists that are running, for `load` and against overload. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct TransferGauge(Arc<Mutex<Table>>);

/// A running transfer; ends when dropped.
#[derive(Debug)]
pub(crate) struct RunningTransfer {
    gauge: TransferGauge,
    number: u64,
}

#[derive(Debug)]
struct Table {
    next: u64,
    running: usize,
    /// The one that has moved nothing for longest first.
    transfers: LruCache<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    weight: usize,
    moved: Instant,
    connection: Option<Connection>,
}

impl Default for Table {
    fn default() -> Self {
        // Bounded by MAX_TRANSFERS, since no transfer weighs nothing.
        Self { next: 0, running: 0, transfers: LruCache::unbounded() }
    }
}

impl TransferGauge {
    /// Transfers that are running now.
    pub fn running(&self) -> usize {
        self.table().running
    }

    /// Counts a response as `weight` transfers (1 or more). When too many are running, those end whose viewers have taken nothing for
    /// longest: their `connection` is closed. Refuses with `busy` if that does not make room.
    pub(crate) fn begin(&self, weight: usize, connection: Option<Connection>) -> Result<RunningTransfer, Problem> {
        self.begin_unless(weight, connection, YIELD_AFTER)
    }

    fn begin_unless(
        &self,
        weight: usize,
        connection: Option<Connection>,
        yield_after: Duration,
    ) -> Result<RunningTransfer, Problem> {
        let mut table = self.table();
        while table.running + weight > MAX_TRANSFERS {
            table.cut_one(yield_after)?;
        }
        table.running += weight;
        table.next += 1;
        let number = table.next;
        table.transfers.put(number, Entry { weight, moved: Instant::now(), connection });
        Ok(RunningTransfer { gauge: self.clone(), number })
    }

    /// No change is left half done.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn cut_one(&mut self, yield_after: Duration) -> Result<(), Problem> {
        let stalled = self.transfers.peek_lru().filter(|(_, entry)| entry.moved.elapsed() >= yield_after);
        let cut = stalled.and_then(|(number, entry)| Some((*number, entry.connection.clone()?)));
        let Some((number, connection)) = cut else {
            let detail = format!("{MAX_TRANSFERS} transfers are running here. Ask another node, or this one later.");
            return Err(Problem::new(ErrorKind::Busy, detail));
        };
        connection.close();
        self.remove(number);
        Ok(())
    }

    fn remove(&mut self, number: u64) {
        if let Some(entry) = self.transfers.pop(&number) {
            self.running -= entry.weight;
        }
    }
}

impl RunningTransfer {
    /// The viewer has taken something.
    pub(crate) fn moved(&self) {
        if let Some(entry) = self.gauge.table().transfers.get_mut(&self.number) {
            entry.moved = Instant::now();
        }
    }
}

impl Drop for RunningTransfer {
    fn drop(&mut self) {
        self.gauge.table().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(gauge: &TransferGauge) -> Vec<RunningTransfer> {
        (0..MAX_TRANSFERS).map(|_| gauge.begin(1, Some(Connection::default())).unwrap()).collect()
    }

    #[test]
    fn the_gauge_counts_and_refuses() {
        let gauge = TransferGauge::default();
        let running = full(&gauge);
        assert_eq!(gauge.begin(1, None).unwrap_err().kind, ErrorKind::Busy);
        assert_eq!(gauge.running(), MAX_TRANSFERS);
        drop(running);
        assert_eq!(gauge.running(), 0);
        let large = gauge.begin(MAX_TRANSFERS, None).unwrap();
        assert_eq!(gauge.begin(1, None).unwrap_err().kind, ErrorKind::Busy);
        drop(large);
        assert_eq!(gauge.running(), 0);
    }

    #[test]
    fn a_viewer_who_takes_nothing_makes_room_for_one_who_does() {
        let gauge = TransferGauge::default();
        let running = full(&gauge);
        let connections: Vec<_> = running
            .iter()
            .map(|transfer| gauge.table().transfers.peek(&transfer.number).unwrap().connection.clone())
            .collect();
        // All but the second have moved since.
        running.iter().enumerate().filter(|(place, _)| *place != 1).for_each(|(_, transfer)| transfer.moved());
        let new = gauge.begin_unless(1, None, Duration::ZERO).unwrap();
        let is_closed = |connection: &Option<Connection>| connection.as_ref().unwrap().is_closed();
        let closed: Vec<_> =
            connections.iter().enumerate().filter(|(_, one)| is_closed(one)).map(|(place, _)| place).collect();
        assert_eq!(closed, [1]);
        assert_eq!(gauge.running(), MAX_TRANSFERS);
        // What was cut off is not counted a second time when it goes.
        drop(running);
        assert_eq!(gauge.running(), 1);
        drop(new);
        assert_eq!(gauge.running(), 0);
    }
}
