//! What the store needs done in the background: garbage is collected, space is given back, old tombstones are forgotten, every
//! block is read again from time to time, and damaged ones are fetched from other nodes.
//!
//! Each job is a row of turns; a turn is made of small steps and says when the next one is due. Between two steps it looks
//! whether the node is stopping. A turn that fails, or panics, is logged and tried again later.

mod repair;
mod rounds;
mod work;

pub(crate) use work::{VERIFY_STEP_BYTES, add_step, processors};

use crate::blocks::Durable;
use crate::config::Config;
use chunkstore::StoreError;
use chunkstore_block::BlockId;
use control_api::Clock;
use dht::Peers;
use repair::Repairs;
use rounds::{Next, RoundsFile};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// References that one step of the collection takes away.
const COLLECT_STEP: usize = 1_000;
/// Between two such steps: puts and reads go first.
const COLLECT_PAUSE: Duration = Duration::from_millis(20);
/// Bytes that one step may write to empty a segment.
const RECLAIM_STEP_BYTES: u64 = 16 << 20;
const RECLAIM_PAUSE: Duration = Duration::from_millis(100);
/// Without a deletion, space is given back this often.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Tombstones are looked through this often.
const PRUNE_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// One step of the scrub takes about a second, but is never larger.
const SCRUB_STEP_BYTES: u64 = 16 << 20;
/// While somebody verifies, the scrub looks this often whether it may go on.
const SCRUB_WAITS: Duration = Duration::from_secs(10);
/// While it is turned off, it looks this often whether it still is.
const SCRUB_OFF: Duration = Duration::from_secs(60);
/// How often the books are asked for damaged blocks.
const REPAIR_EVERY: Duration = Duration::from_secs(10);
/// After a failed turn, doubled with each further one.
const BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(3_600);
const SECONDS_PER_DAY: u64 = 24 * 3_600;

/// Handle to the background work. Clones are the same.
#[derive(Clone)]
pub(crate) struct Housekeeper(Arc<Inner>);

/// What an operator sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// 0: no scrub.
    pub(crate) scrub_bytes_per_s: u64,
    pub(crate) tombstone_days: u32,
}

impl Rates {
    pub(crate) fn of(config: &Config) -> Self {
        Self { scrub_bytes_per_s: config.scrub_bytes_per_s, tombstone_days: config.tombstone_days }
    }
}

struct Inner {
    durable: Durable,
    peers: Peers,
    clock: Arc<dyn Clock>,
    rates: Mutex<Rates>,
    stop: CancellationToken,
    deleted: Notify,
    damaged: Notify,
    repairs: Mutex<Repairs>,
    /// Held by whoever reads through the store, for a step or for a whole round.
    rounds: Arc<tokio::sync::Mutex<RoundsFile>>,
    /// When the last round was finished, for those who do not want to wait for it.
    scrubbed: Mutex<Option<u64>>,
    backup: Arc<tokio::sync::Mutex<()>>,
}

impl Housekeeper {
    /// `rounds` is the file that remembers the scrub's rounds.
    pub(crate) fn new(
        durable: Durable,
        peers: Peers,
        clock: Arc<dyn Clock>,
        rates: Rates,
        rounds: PathBuf,
        stop: CancellationToken,
    ) -> Self {
        let rounds = RoundsFile::open(rounds);
        Self(Arc::new(Inner {
            durable,
            peers,
            clock,
            rates: Mutex::new(rates),
            stop,
            deleted: Notify::new(),
            damaged: Notify::new(),
            repairs: Mutex::default(),
            scrubbed: Mutex::new(rounds.rounds().finished()),
            rounds: Arc::new(tokio::sync::Mutex::new(rounds)),
            backup: Arc::default(),
        }))
    }

    /// Something was deleted: garbage is collected now and not at the next turn. Calls that come before it began are one.
    pub(crate) fn wake(&self) {
        self.0.deleted.notify_one();
    }

    /// When every block had last been read, seconds since 1970.
    pub(crate) fn scrubbed(&self) -> Option<u64> {
        *lock(&self.0.scrubbed)
    }

    /// Starts the jobs; they end within a step when the node stops.
    pub(crate) fn start(&self, tasks: &TaskTracker) {
        let (own, stop) = (self.clone(), self.0.stop.clone());
        tasks.spawn(keep_doing("garbage collection", stop, own.clone(), Some(deletions), |own| own.sweep()));
        let stop = self.0.stop.clone();
        tasks.spawn(keep_doing("forgetting old deletions", stop, own.clone(), None, |own| own.prune()));
        let stop = self.0.stop.clone();
        tasks.spawn(keep_doing("repair of damaged blocks", stop, own.clone(), Some(damages), |own| own.repair()));
        let stop = self.0.stop.clone();
        tasks.spawn(keep_doing("scrub", stop, own, None, |own| own.scrub()));
        self.warn_without_scrub();
    }

    /// From now on at these rates; the scrub heeds it within a minute.
    pub(crate) fn set_rates(&self, rates: Rates) {
        *lock(&self.0.rates) = rates;
        self.warn_without_scrub();
    }

    fn rates(&self) -> Rates {
        *lock(&self.0.rates)
    }

    fn warn_without_scrub(&self) {
        if self.rates().scrub_bytes_per_s == 0 {
            tracing::warn!("scrub_bytes_per_s is 0: damage on this disk is found only when a block is read");
        }
    }

    /// Takes the references of deleted publications away, then gives space back, until nothing is left to do.
    async fn sweep(self) -> Result<Duration, StoreError> {
        let (mut blocks, mut given_back_bytes) = (0, 0);
        loop {
            let collected = self.0.durable.with(|store| store.collect(COLLECT_STEP)).await?;
            blocks += collected.blocks;
            if collected.is_done || self.stops_within(COLLECT_PAUSE).await {
                break;
            }
        }
        while !self.0.stop.is_cancelled() {
            let reclaimed = self.0.durable.with(|store| store.reclaim(RECLAIM_STEP_BYTES)).await?;
            given_back_bytes += reclaimed.given_back_bytes;
            let is_idle = reclaimed.given_back_bytes == 0 && reclaimed.moved_bytes == 0;
            if reclaimed.is_done || is_idle || self.stops_within(RECLAIM_PAUSE).await {
                break;
            }
        }
        if blocks > 0 {
            tracing::info!(blocks, given_back_bytes, "deleted blocks are gone");
        }
        Ok(SWEEP_EVERY)
    }

    async fn prune(self) -> Result<Duration, StoreError> {
        let before = prune_before(self.0.clock.unix_seconds(), self.rates().tombstone_days);
        let pruned = self.0.durable.with(move |store| store.prune(before)).await?;
        if pruned > 0 {
            tracing::info!(pruned, days = self.rates().tombstone_days, "old deletions are forgotten");
        }
        Ok(PRUNE_EVERY)
    }

    /// One step of the scrub.
    async fn scrub(self) -> Result<Duration, StoreError> {
        let rate = self.rates().scrub_bytes_per_s;
        if rate == 0 {
            return Ok(SCRUB_OFF);
        }
        let Ok(mut rounds) = self.0.rounds.try_lock() else { return Ok(SCRUB_WAITS) };
        let now = self.0.clock.unix_seconds();
        match rounds.rounds().next(now) {
            Next::GoOn => {}
            Next::Begin => self.begin_round(&mut rounds, now),
            Next::Wait(wait) => return Ok(wait.min(Duration::from_secs(SECONDS_PER_DAY))),
        }
        let begun = Instant::now();
        let step = rate.min(SCRUB_STEP_BYTES);
        let scrubbed = self.0.durable.with(move |store| store.scrub(step, 1)).await?;
        self.note_damaged(&scrubbed.damaged);
        if scrubbed.is_round_complete {
            self.finish_round(&mut rounds);
        }
        Ok(pause_after(scrubbed.bytes, rate, begun.elapsed()))
    }

    fn begin_round(&self, rounds: &mut RoundsFile, now: u64) {
        rounds.begin(now);
        // What nobody has is said once in each round.
        lock(&self.0.repairs).report_again();
    }

    fn finish_round(&self, rounds: &mut RoundsFile) {
        let now = self.0.clock.unix_seconds();
        rounds.finish(now);
        *lock(&self.0.scrubbed) = Some(now);
        let usage = self.0.durable.store().usage();
        tracing::info!(blocks = usage.blocks, damaged = usage.damaged_blocks, "every stored block has been read again");
    }

    /// Damaged blocks are fetched from other nodes at once.
    fn note_damaged(&self, damaged: &[BlockId]) {
        if !damaged.is_empty() {
            lock(&self.0.repairs).add(damaged);
            self.0.damaged.notify_one();
        }
    }

    /// Waits; `true` at once when the node is stopping.
    async fn stops_within(&self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.0.stop.cancelled()).await.is_ok()
    }
}

type Woken = fn(&Inner) -> &Notify;

fn deletions(inner: &Inner) -> &Notify {
    &inner.deleted
}

fn damages(inner: &Inner) -> &Notify {
    &inner.damaged
}

/// One turn after another until `stop`: each says when the next is due, `woken` brings it forward.
async fn keep_doing<F>(
    what: &'static str,
    stop: CancellationToken,
    own: Housekeeper,
    woken: Option<Woken>,
    turn: impl Fn(Housekeeper) -> F,
) where
    F: Future<Output = Result<Duration, StoreError>> + Send + 'static,
{
    let mut failures = 0;
    while !stop.is_cancelled() {
        // In a task of its own: a panic ends the turn and no more.
        let error = match tokio::spawn(turn(own.clone())).await {
            Ok(Ok(pause)) => {
                failures = 0;
                wait(pause, &stop, woken.map(|woken| woken(&own.0))).await;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        let pause = backoff(failures);
        failures += 1;
        tracing::error!(what, error, again_in_seconds = pause.as_secs(), "housekeeping failed");
        // Not woken: what fails is not made to fail more often.
        wait(pause, &stop, None).await;
    }
}

async fn wait(pause: Duration, stop: &CancellationToken, woken: Option<&Notify>) {
    let woken = async {
        match woken {
            Some(woken) => woken.notified().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = woken => {}
        () = tokio::time::sleep(pause) => {}
    }
}

/// How long to wait after a turn that followed so many others that failed.
fn backoff(failures: u32) -> Duration {
    BACKOFF.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_BACKOFF)
}

/// How long to wait after reading so many bytes, so that a rate is kept.
fn pause_after(bytes: u64, bytes_per_s: u64, took: Duration) -> Duration {
    let due = bytes as f64 / bytes_per_s.max(1) as f64;
    Duration::from_secs_f64(due.min(SECONDS_PER_DAY as f64)).saturating_sub(took)
}

/// Deletions that were learnt of before this time, in seconds since 1970, are forgotten.
fn prune_before(now: u64, tombstone_days: u32) -> u64 {
    now.saturating_sub(u64::from(tombstone_days) * SECONDS_PER_DAY)
}

/// No code of others runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_more_seldom() {
        let seconds: Vec<_> = [0, 1, 2, 8, 9, 40].map(|failures| backoff(failures).as_secs()).into();
        assert_eq!(seconds, [10, 20, 40, 2_560, 3_600, 3_600]);
    }

    #[test]
    fn the_scrub_keeps_its_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(pause_after(8 << 20, 8 << 20, Duration::from_millis(100)), second - Duration::from_millis(100));
        // A disk slower than the rate is read without pause; a block larger than the rate is paid for afterwards.
        assert_eq!(pause_after(8 << 20, 8 << 20, 2 * second), Duration::ZERO);
        assert_eq!(pause_after(1 << 20, 1 << 10, Duration::ZERO), 1_024 * second);
        assert_eq!(pause_after(0, 1, Duration::ZERO), Duration::ZERO);
        assert_eq!(pause_after(u64::MAX, 1, Duration::ZERO), Duration::from_secs(SECONDS_PER_DAY));
    }

    #[test]
    fn tombstones_are_kept_for_their_days() {
        assert_eq!(prune_before(100 * SECONDS_PER_DAY, 90), 10 * SECONDS_PER_DAY);
        assert_eq!(prune_before(5, u32::MAX), 0);
    }
}
