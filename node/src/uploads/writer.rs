//! Who may write to a file of an upload: one at a time, and for as long as bytes come.

use control_api::{ErrorKind, Problem};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard};
use tokio_util::sync::CancellationToken;

/// A writer by whom nothing has come for so long has to make way: its connection is broken as a rule, and nobody has told yet.
const STALLED: Duration = Duration::from_secs(2);
/// Between two interruptions by whoever has the right to a turn.
const INTERRUPTED_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to sync what it has, then.
const MAKING_WAY: Duration = Duration::from_secs(30);

/// One file that grows.
pub(crate) struct Slot {
    turn: AsyncMutex<()>,
    /// Bytes that are on disk and count.
    offset: AtomicU64,
    /// Those, and what is being written.
    written: AtomicU64,
    running: Mutex<Running>,
    /// Whether somebody is writing.
    taken: AtomicBool,
    /// Whether somebody waits for a silent writer to make way.
    awaited: AtomicBool,
}

/// The writer whose turn it is, or was.
struct Running {
    heard: Instant,
    interrupt: CancellationToken,
}

/// A writer's turn.
pub(crate) struct Turn<'a> {
    slot: &'a Slot,
    /// When it has to make way.
    pub(crate) interrupt: CancellationToken,
    _guard: AsyncMutexGuard<'a, ()>,
}

/// Whoever waits for a turn, until then.
struct Waiting<'a>(&'a AtomicBool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Slot {
    pub(crate) fn new(offset: u64) -> Self {
        let running = Running { heard: Instant::now(), interrupt: CancellationToken::new() };
        let (offset, written) = (AtomicU64::new(offset), AtomicU64::new(offset));
        let (taken, awaited) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { turn: AsyncMutex::new(()), offset, written, running: Mutex::new(running), taken, awaited }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset.load(Ordering::SeqCst)
    }

    /// Bytes that have come, for people.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether somebody is writing.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::SeqCst)
    }

    /// A turn to write.
    ///
    /// Errors: `upload-locked` while bytes come by another one, or somebody waits for that one already.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, Problem> {
        if let Ok(guard) = self.turn.try_lock() {
            return Ok(self.begin(guard));
        }
        if self.running().heard.elapsed() < STALLED || self.awaited.swap(true, Ordering::SeqCst) {
            return Err(locked());
        }
        let _waiting = Waiting(&self.awaited);
        self.interrupt();
        match tokio::time::timeout(MAKING_WAY, self.turn.lock()).await {
            Ok(guard) => Ok(self.begin(guard)),
            Err(_) => Err(locked()),
        }
    }

    /// A turn that whoever is writing has to make way for.
    pub(crate) async fn take_turn(&self) -> Turn<'_> {
        loop {
            self.interrupt();
            // Whoever waited before has the next turn, and has to make way as well.
            if let Ok(guard) = tokio::time::timeout(INTERRUPTED_EVERY, self.turn.lock()).await {
                return self.begin(guard);
            }
        }
    }

    fn begin<'a>(&'a self, guard: AsyncMutexGuard<'a, ()>) -> Turn<'a> {
        let interrupt = CancellationToken::new();
        self.taken.store(true, Ordering::SeqCst);
        *self.running() = Running { heard: Instant::now(), interrupt: interrupt.clone() };
        Turn { slot: self, interrupt, _guard: guard }
    }

    fn interrupt(&self) {
        self.running().interrupt.cancel();
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.slot.taken.store(false, Ordering::SeqCst);
    }
}

impl Turn<'_> {
    /// Bytes have come.
    pub(crate) fn heard(&self) {
        self.slot.running().heard = Instant::now();
    }

    /// So many bytes have been written.
    pub(crate) fn wrote(&self, end: u64) {
        self.slot.written.store(end, Ordering::Relaxed);
    }

    /// So many bytes are on disk and count.
    pub(crate) fn advance(&self, offset: u64) {
        self.wrote(offset);
        self.slot.offset.store(offset, Ordering::SeqCst);
    }
}

fn locked() -> Problem {
    let detail =
        "Bytes of this upload are coming by another request. Wait a moment, then ask with HEAD where to go on.";
    Problem::new(ErrorKind::UploadLocked, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_makes_way_as_well_for_who_has_the_right_to_a_turn() {
        let slot = Slot::new(0);
        let first = slot.turn().await.unwrap();
        slot.running().heard = Instant::now().checked_sub(STALLED).unwrap();
        let (first_ends, second_ends) = (first.interrupt.clone(), CancellationToken::new());
        let second = async {
            let turn = slot.turn().await.unwrap();
            turn.interrupt.cancelled().await;
            second_ends.cancel();
        };
        let right = async {
            tokio::task::yield_now().await;
            drop(slot.take_turn().await);
            assert!(second_ends.is_cancelled());
        };
        let first = async {
            first_ends.cancelled().await;
            tokio::task::yield_now().await;
            drop(first);
        };
        tokio::join!(second, right, first);
        assert!(!slot.is_taken());
    }

    #[tokio::test]
    async fn one_writes_at_a_time_and_who_is_silent_makes_way() {
        let slot = Slot::new(7);
        let first = slot.turn().await.unwrap();
        assert!(slot.is_taken());
        assert_eq!(slot.turn().await.err().map(|problem| problem.kind), Some(ErrorKind::UploadLocked));
        first.advance(9);
        slot.running().heard = Instant::now().checked_sub(STALLED).unwrap();
        let make_way = async {
            first.interrupt.cancelled().await;
            // One waits, and others hear at once that they cannot.
            assert_eq!(slot.turn().await.err().map(|problem| problem.kind), Some(ErrorKind::UploadLocked));
            drop(first);
        };
        let (second, ()) = tokio::join!(slot.turn(), make_way);
        assert!(!second.unwrap().interrupt.is_cancelled());
        assert!(!slot.is_taken() && slot.turn().await.is_ok());
        assert_eq!(slot.offset(), 9);
    }
}
