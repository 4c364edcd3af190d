//! Deletion orders at this node (`docs/protocol.md` §7 and §10.5): from the platform, from other nodes, and on to them.

use crate::blocks::Durable;
use crate::housekeeping::Housekeeper;
use crate::uploads::Uploads;
use chunkstore::{Deletion, StoreError};
use chunkstore_block::{PlatformFingerprint, Reference};
use control_api::{
    Clock, DeletionEntry, DeletionOutcome, DeletionVerifier, ErrorKind, PinnedKeys, Problem, VerifiedDeletion,
};
use dht::OrdersPage;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Orders that one answer carries at most, and their bytes (protocol §10.5).
const PAGE_ORDERS: usize = 1_024;
const PAGE_BYTES: usize = 1 << 20;
/// An order's length in front of it.
const LENGTH_BYTES: usize = 2;
/// Orders that are read from the store at a time.
const LOAD_STEP: usize = 1_000;
/// Orders that are passed on. Each costs 40 bytes of memory here and 4 KiB of disk in the store; a node with more passes on the first.
const MOST_PASSED_ON: usize = 1_000_000;

/// What an uploader hears.
pub(crate) fn deleted() -> Problem {
    Problem::new(
        ErrorKind::Deleted,
        "The platform has deleted this publication. To publish the film again, register a new content.",
    )
}

/// Why an order that another node brings is not taken.
#[derive(Debug)]
pub(crate) enum OrderError {
    /// It is not one that this node heeds.
    Refused(Problem),
    /// It is, and could not be kept.
    Store(StoreError),
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(problem) => f.write_str(&problem.detail),
            Self::Store(error) => error.fmt(f),
        }
    }
}

/// The orders that this node has, and what they do here.
pub(crate) struct Deletions {
    durable: Durable,
    verifier: DeletionVerifier,
    clock: Arc<dyn Clock>,
    uploads: Arc<Uploads>,
    housekeeper: Housekeeper,
    arrived: Mutex<Arrived>,
}

/// The orders in the order in which they came, so that whoever asks again gets what is new.
struct Arrived {
    /// Made at each start: positions in an earlier list say nothing.
    epoch: u64,
    orders: Vec<(PlatformFingerprint, u64)>,
}

impl Deletions {
    /// `epoch` is random. Lists the orders of the pinned platforms that the store has; blocks while it does.
    pub(crate) fn open(
        durable: Durable,
        (platforms, verifier): (&PinnedKeys, DeletionVerifier),
        clock: Arc<dyn Clock>,
        uploads: Arc<Uploads>,
        housekeeper: Housekeeper,
        epoch: u64,
    ) -> Result<Self, StoreError> {
        let mut orders = Vec::new();
        for platform in platforms.fingerprints() {
            let mut after = 0;
            loop {
                let step = durable.store().deletions(&platform, after, LOAD_STEP)?;
                orders.extend(step.iter().map(|deletion| (platform, deletion.sequence)));
                let Some(last) = step.last().filter(|_| step.len() == LOAD_STEP) else { break };
                after = last.sequence;
            }
        }
        let arrived = Mutex::new(Arrived { epoch, orders });
        Ok(Self { durable, verifier, clock, uploads, housekeeper, arrived })
    }

    /// Takes an order that another node brings.
    pub(crate) async fn take(&self, order: String) -> Result<DeletionOutcome, OrderError> {
        let verified = self.verifier.verify(&order).map_err(OrderError::Refused)?;
        self.keep(verified, order).await.map_err(OrderError::Store)
    }

    /// Takes an order that the platform brings.
    pub(crate) async fn apply(&self, verified: VerifiedDeletion, order: String) -> Result<DeletionOutcome, Problem> {
        self.keep(verified, order).await.map_err(|error| Problem::internal(&error))
    }

    /// Takes an order: durably first, so that nothing new comes in; then ends what is under way, then takes away what is
    /// there, in the background.
    async fn keep(&self, verified: VerifiedDeletion, order: String) -> Result<DeletionOutcome, StoreError> {
        let VerifiedDeletion { publication, sequence } = verified;
        let deletion =
            Deletion { publication, sequence, at_seconds: self.clock.unix_seconds(), order: order.into_bytes() };
        let applied = self.durable.with(move |store| store.delete(deletion)).await?;
        if applied {
            self.pass_on(publication.platform, sequence);
        }
        self.uploads.delete(&publication).await;
        self.housekeeper.wake();
        tracing::info!(
            platform = %publication.platform, publication = %publication.publication, sequence, applied, "deletion order"
        );
        Ok(if applied { DeletionOutcome::Applied } else { DeletionOutcome::Known })
    }

    fn pass_on(&self, platform: PlatformFingerprint, sequence: u64) {
        let mut arrived = self.arrived();
        if arrived.orders.len() < MOST_PASSED_ON {
            arrived.orders.push((platform, sequence));
        }
    }

    /// The epoch of the list and how many orders it has.
    pub(crate) fn position(&self) -> (u64, u64) {
        let arrived = self.arrived();
        (arrived.epoch, arrived.orders.len() as u64)
    }

    /// The orders after the first `after` of the list of `epoch`; from the beginning if that is another one.
    pub(crate) async fn page(&self, epoch: u64, after: u64) -> Result<OrdersPage, StoreError> {
        let (epoch, after, named) = self.named_after(epoch, after);
        self.durable
            .with(move |store| {
                let (mut next, mut bytes, mut orders) = (after, 0, Vec::new());
                for (platform, sequence) in named {
                    // What has been forgotten since is passed over.
                    let found = store.deletions(&platform, sequence - 1, 1)?;
                    if let Some(order) = found.into_iter().find(|found| found.sequence == sequence) {
                        bytes += LENGTH_BYTES + order.order.len();
                        if bytes > PAGE_BYTES {
                            break;
                        }
                        // It was text when it was verified.
                        orders.extend(String::from_utf8(order.order));
                    }
                    next += 1;
                }
                Ok(OrdersPage { epoch, next, orders })
            })
            .await
    }

    fn named_after(&self, epoch: u64, after: u64) -> (u64, u64, Vec<(PlatformFingerprint, u64)>) {
        let arrived = self.arrived();
        let after = if epoch == arrived.epoch { after.min(arrived.orders.len() as u64) } else { 0 };
        let named = arrived.orders.iter().skip(after as usize).take(PAGE_ORDERS).copied().collect();
        (arrived.epoch, after, named)
    }

    /// A platform's orders, for the platform.
    pub(crate) async fn list(
        &self,
        platform: PlatformFingerprint,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeletionEntry>, Problem> {
        let kept = self.durable.with(move |store| store.deletions(&platform, after, limit)).await;
        let kept = kept.map_err(|error| Problem::internal(&error))?;
        kept.into_iter().map(entry).collect()
    }

    /// Refuses what is for a publication that was deleted.
    pub(crate) async fn check_not_deleted(&self, publication: Reference) -> Result<(), Problem> {
        match self.durable.with(move |store| store.is_deleted(&publication)).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(deleted()),
            Err(error) => Err(Problem::internal(&error)),
        }
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(deletion: Deletion) -> Result<DeletionEntry, Problem> {
    Ok(DeletionEntry {
        publication: deletion.publication.publication,
        sequence: deletion.sequence,
        received: deletion.at_seconds,
        order: String::from_utf8(deletion.order).map_err(|error| Problem::internal(&error))?,
    })
}
