//! Keeps each block on the nodes it belongs on (`docs/protocol.md` §9 and §10): drives the core of `dht`, which decides, with this
//! node's store, its peers and its clock.
//!
//! The core is behind a lock that is held for one call at a time. Whoever tells it something wakes the one task that
//! looks what it wants now, and has that done.

mod answers;
mod copies;
mod work;

use crate::blocks::Durable;
use crate::deletions::Deletions;
use chunkstore::{Changed, Room, StoreError, StoredBlock};
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};
use control_api::AuthorityVerifier;
use dht::core::{Entry, EntryDigest, Health, Input, Output, Position, Replicator, Time};
use dht::{PeerAddress, PeerEvent, PeerId, Peers};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Blocks that are read from the books at a time.
const STEP: usize = 1_000;
/// After the store's books could not be read.
const BACKOFF: Duration = Duration::from_secs(5);
/// How often it is looked whether the store has room.
const ROOM_EVERY: Duration = Duration::from_secs(2);
/// How long a full disk is left alone.
const DISK_FULL_FOR: Duration = Duration::from_secs(60);
/// The room that a node must have to say that it has some: its pulls under way, and as many again.
const LEAST_ROOM_BYTES: u64 = 16 * MAX_BLOCK_BYTES as u64;

/// Handle to the node's part in replication. Clones are the same.
#[derive(Clone)]
pub(crate) struct Replication(Arc<Inner>);

struct Inner {
    core: Mutex<Replicator>,
    /// What the core is told has changed.
    told: Notify,
    /// The store's books have changed.
    changed: Arc<Notify>,
    begun: Instant,
    durable: Durable,
    peers: Peers,
    deletions: Arc<Deletions>,
    /// Of the platforms whose references are taken from other nodes.
    authorities: Arc<AuthorityVerifier>,
    /// Whether the core knows all that the store has: before, this node says nothing of what it has.
    is_loaded: AtomicBool,
    has_room: AtomicBool,
    /// In milliseconds of [`Replication::now`].
    disk_full_until: AtomicU64,
    looking: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Replication {
    /// `core` is new, `remembered` are the nodes that it knew when it ran last.
    pub(crate) fn new(
        core: Replicator,
        durable: Durable,
        peers: Peers,
        deletions: Arc<Deletions>,
        authorities: Arc<AuthorityVerifier>,
        remembered: Vec<PeerAddress>,
        stop: CancellationToken,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let is_first = durable.store().watch(move || wake.notify_one());
        debug_assert!(is_first, "the store has one watcher");
        let own = Self(Arc::new(Inner {
            core: Mutex::new(core),
            told: Notify::new(),
            changed,
            begun: Instant::now(),
            durable,
            peers,
            deletions,
            authorities,
            is_loaded: AtomicBool::new(false),
            has_room: AtomicBool::new(true),
            disk_full_until: AtomicU64::new(0),
            looking: tokio::sync::Mutex::new(()),
            stop,
            tasks: TaskTracker::new(),
        }));
        let inner = Arc::downgrade(&own.0);
        for peer in remembered {
            own.0.peers.note(peer);
            own.tell(Input::Known(position(peer.id)));
        }
        own.0.peers.report_liars_to(move |peer| {
            if let Some(inner) = inner.upgrade() {
                Self(inner).tell(Input::Wrong(position(peer)));
            }
        });
        own
    }

    /// Runs until the node stops.
    pub(crate) async fn run(self) {
        let stop = self.0.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.clone().work() => {}
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn work(self) {
        let events = self.0.peers.discovery().subscribe();
        self.load().await;
        tokio::join!(self.follow_store(), self.follow_peers(events), self.follow_room(), self.obey());
    }

    /// What the core says of itself.
    pub(crate) fn health(&self) -> Health {
        self.core().health()
    }

    /// Whether the orders of all neighbours that answer are in force here, and one answers unless this node knows of none.
    pub(crate) fn knows_what_was_deleted(&self) -> bool {
        let Health { known, members_up, behind, .. } = self.health();
        behind == 0 && (members_up > 0 || known == 0)
    }

    /// Tells the core of everything that the store has, and that it has nothing else.
    async fn load(&self) {
        while let Err(error) = self.try_load().await {
            tracing::error!(%error, "the store's books cannot be read; nothing is replicated until they can");
            tokio::time::sleep(BACKOFF).await;
        }
        self.0.is_loaded.store(true, Ordering::Release);
    }

    async fn try_load(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let _looking = self.0.looking.lock().await;
            let blocks = self.0.durable.with(move |store| store.list(after, STEP));
            let blocks = blocks.await?;
            let ids = blocks.iter().map(|block| block.id).collect();
            self.look(ids).await?;
            match blocks.last() {
                Some(last) if blocks.len() == STEP => after = Some(last.id),
                _ => break,
            }
        }
        let mut after = None;
        loop {
            let held = self.core().held_after(after, STEP);
            let Some((last, _)) = held.last() else { return Ok(()) };
            after = Some(*last);
            self.look_at(held.into_iter().map(|(_, id)| id).collect()).await?;
        }
    }

    /// Tells the core what changes in the store.
    async fn follow_store(&self) {
        loop {
            match self.0.durable.store().changes(STEP) {
                Changed::TooMany => self.load().await,
                Changed::Blocks(ids) if ids.is_empty() => self.0.changed.notified().await,
                Changed::Blocks(ids) => {
                    if let Err(error) = self.look_at(ids).await {
                        tracing::error!(%error, "the store's books cannot be read");
                        tokio::time::sleep(BACKOFF).await;
                        self.load().await;
                    }
                }
            }
        }
    }

    /// Tells the core how these blocks are now. One at a time looks, or the core could be told last what was looked at first.
    async fn look_at(&self, ids: Vec<BlockId>) -> Result<(), StoreError> {
        let _looking = self.0.looking.lock().await;
        self.look(ids).await
    }

    /// What is known to be damaged counts as absent. The caller has [`Inner::looking`].
    async fn look(&self, ids: Vec<BlockId>) -> Result<(), StoreError> {
        let looked = self.0.durable.with(move |store| {
            let look = |id| {
                Ok(match store.look(&id)? {
                    Some(block) => Input::Held(entry(&block)),
                    None => Input::Gone(id),
                })
            };
            ids.into_iter().map(look).collect::<Result<Vec<_>, StoreError>>()
        });
        for input in looked.await? {
            self.tell(input);
        }
        Ok(())
    }

    /// Tells the core who comes. That somebody goes, it finds out by asking: a closed connection need not mean that.
    async fn follow_peers(&self, mut events: tokio::sync::broadcast::Receiver<PeerEvent>) {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            match events.recv().await {
                Ok(PeerEvent::Up(peer)) => self.see(peer),
                Ok(PeerEvent::Down(_)) => {}
                Err(RecvError::Lagged(_)) => {
                    let Ok(connected) = self.0.peers.discovery().connected().await else { return };
                    connected.into_iter().for_each(|peer| self.see(peer));
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn see(&self, peer: PeerAddress) {
        self.0.peers.note(peer);
        self.tell(Input::Seen(position(peer.id)));
    }

    /// The disk has no room, whatever the quota says. It is tried again after a while.
    fn disk_is_full(&self) {
        self.0.has_room.store(false, Ordering::Relaxed);
        let until = self.now() + DISK_FULL_FOR;
        self.0.disk_full_until.store(until.as_millis(), Ordering::Relaxed);
    }

    async fn follow_room(&self) {
        loop {
            let is_full = self.0.durable.store().free_bytes(Room::Repair) < LEAST_ROOM_BYTES;
            let has_room = !is_full && self.now().as_millis() >= self.0.disk_full_until.load(Ordering::Relaxed);
            self.0.has_room.store(has_room, Ordering::Relaxed);
            // Also unchanged: the core may think otherwise since a copy did not fit.
            self.tell(Input::Room(has_room));
            tokio::time::sleep(ROOM_EVERY).await;
        }
    }

    /// Has done what the core wants, and gives it its turns.
    async fn obey(&self) {
        loop {
            let told = self.0.told.notified();
            let (outputs, next) = self.turn();
            for output in outputs {
                self.start(output);
            }
            let next =
                next.map(|next| tokio::time::Instant::from_std(self.0.begun + Duration::from_millis(next.as_millis())));
            tokio::select! {
                () = told => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(far_off)) => {}
            }
        }
    }

    fn turn(&self) -> (Vec<Output>, Option<Time>) {
        let mut core = self.core();
        core.handle_timeout(self.now());
        let outputs = std::iter::from_fn(|| core.poll_output()).collect();
        self.0.peers.distrust(core.distrusted().collect());
        (outputs, core.poll_timeout())
    }

    /// The core bounds what is under way by what it asks for before it is answered.
    fn start(&self, output: Output) {
        let (own, stop) = (self.clone(), self.0.stop.clone());
        self.0.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = own.carry_out(output) => {}
            }
        });
    }

    fn tell(&self, input: Input) {
        self.core().handle_input(self.now(), input);
        self.0.told.notify_one();
    }

    fn now(&self) -> Time {
        // The node will not run for 584 million years.
        Time::from_millis(self.0.begun.elapsed().as_millis() as u64)
    }

    /// No foreign code runs under the lock.
    fn core(&self) -> MutexGuard<'_, Replicator> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn far_off() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(24 * 3600)
}

fn position(peer: PeerId) -> Position {
    Position::of_peer(&peer.to_bytes())
}

fn entry(block: &StoredBlock) -> Entry {
    Entry { id: block.id, length: block.length, digest: EntryDigest::of(&block.id, &block.references) }
}
