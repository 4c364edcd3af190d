//! The node's blocks: cache, durable store and network behind one door.

use crate::cached::Cached;
use crate::replication::Replication;
use anyhow::Result;
use bytes::Bytes;
use chunkstore::{Presence, Room, Store, StoreError};
use chunkstore_block::{Block, BlockId, Reference};
use control_api::{Authority, AuthorityVerifier, Clock, ErrorKind, NodeId, Problem};
use dht::core::OfferAnswer;
use dht::{
    BlockHandler, DigestAnswer, DigestRequest, Local, OrdersPage, PeerId, PeerStatus, Peers, PeersError, PutRequest,
    Reached, ReferencesPage, Refusal, Status,
};
use lru::LruCache;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

/// Publications whose allowance is being counted. One that was forgotten starts at nothing again; its authority
/// ends after at most 7 days.
const COUNTED_PUBLICATIONS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// This node's durable store, for callers that must not block. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Durable(Store);

impl Durable {
    pub(crate) fn new(store: Store) -> Self {
        Self(store)
    }

    /// Runs a call that may wait for the disk on a thread that may.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.0.clone();
        match tokio::task::spawn_blocking(move || call(&store)).await {
            Ok(outcome) => outcome,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and takes up no more work.
                Err(_) => Err(StoreError::Stopped),
            },
        }
    }

    /// The store itself, for what does not touch the disk.
    pub(crate) fn store(&self) -> &Store {
        &self.0
    }
}

/// The ingest node's own share of an upload: it needs no authority to store at home.
impl Local for Durable {
    async fn store(&self, block: Block, references: &[Reference]) -> Result<(), Refusal> {
        let references = references.to_vec();
        let put = self.with(move |store| store.put_verified(&block, &references, Room::Upload)).await;
        put.map(|_| ()).map_err(|error| refusal(&error))
    }
}

/// Reads for viewers: cache, then store, then the network.
pub(crate) struct Blocks {
    pub(crate) cached: Cached,
    pub(crate) durable: Durable,
    pub(crate) peers: Peers,
}

impl Blocks {
    /// A block whose SHA-256 was checked.
    pub(crate) async fn fetch(&self, id: BlockId) -> Result<Bytes, Problem> {
        self.cached.get_or_fetch(id, || read_or_fetch(self.durable.clone(), self.peers.clone(), id)).await
    }
}

async fn read_or_fetch(durable: Durable, peers: Peers, id: BlockId) -> Result<Bytes, Problem> {
    match durable.with(move |store| store.read(&id)).await {
        Ok(Some(body)) => return Ok(body),
        Ok(None) => {}
        // A copy that went bad here is still good on another holder.
        Err(error) => tracing::error!(block = %id, %error, "this node's copy cannot be read"),
    }
    peers.fetch(id).await.map_err(|error| unavailable(&error))
}

fn unavailable(error: &PeersError) -> Problem {
    Problem::new(ErrorKind::Unavailable, format!("{error}. Try again, or ask the platform for another node."))
}

/// What other nodes may do here.
pub(crate) struct Holder {
    durable: Durable,
    authorities: Arc<AuthorityVerifier>,
    replication: Replication,
    clock: Arc<dyn Clock>,
    /// Bytes that each reference newly has here (docs/protocol.md §6).
    counted: Mutex<LruCache<Reference, u64>>,
}

impl Holder {
    pub(crate) fn new(
        durable: Durable,
        authorities: Arc<AuthorityVerifier>,
        replication: Replication,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { durable, authorities, replication, clock, counted: Mutex::new(LruCache::new(COUNTED_PUBLICATIONS)) }
    }

    /// Checks that the peer may write these references.
    fn authorize(&self, from: PeerId, references: &[Reference], jws: &str) -> Result<Authority, Refusal> {
        let shown_by: NodeId =
            from.to_base58().parse().map_err(|_| Refusal::new(Status::Internal, "a peer id is not base58"))?;
        let authority = self
            .authorities
            .verify(jws, &shown_by, self.clock.unix_seconds())
            .map_err(|problem| Refusal::new(Status::Refused, problem.detail))?;
        if references.iter().any(|reference| *reference != authority.reference) {
            return Err(Refusal::new(Status::Refused, "the authority is for another publication"));
        }
        Ok(authority)
    }

    /// Takes `length` bytes of the allowance, before they are written.
    fn reserve(&self, authority: &Authority, length: u64) -> Result<(), Refusal> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let used = counted.get_or_insert_mut(authority.reference, || 0);
        if used.saturating_add(length) > authority.bytes {
            let allowance = authority.bytes;
            return Err(Refusal::new(
                Status::Refused,
                format!("the authority's allowance of {allowance} bytes is used up"),
            ));
        }
        *used += length;
        Ok(())
    }

    /// Gives back what was not written.
    fn release(&self, authority: &Authority, length: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = counted.get_mut(&authority.reference) {
            *used = used.saturating_sub(length);
        }
    }

    /// Bytes of those of the blocks that are here without this reference: what a `ref` newly gives it.
    async fn newly_referenced(&self, ids: &[BlockId], reference: Reference) -> Result<u64, Refusal> {
        let ids = ids.to_vec();
        let sum = self.durable.with(move |store| {
            let mut sum = 0;
            for id in ids {
                if let Some(length) = store.length(&id)?
                    && !store.has_reference(&id, &reference)?
                {
                    sum += u64::from(length);
                }
            }
            Ok(sum)
        });
        sum.await.map_err(|error| refusal(&error))
    }
}

impl BlockHandler for Holder {
    async fn get(&self, id: BlockId) -> Result<Bytes, Refusal> {
        match self.durable.with(move |store| store.read(&id)).await {
            Ok(Some(body)) => Ok(body),
            Ok(None) => Err(Refusal::new(Status::NotFound, "this node does not hold the block")),
            Err(error) => Err(refusal(&error)),
        }
    }

    async fn put(&self, from: PeerId, request: PutRequest) -> Result<(), Refusal> {
        let PutRequest { id, references, authority, body } = request;
        let jws = authority;
        let authority = self.authorize(from, &references, &jws)?;
        let reference = authority.reference;
        let had = self.durable.with(move |store| store.has_reference(&id, &reference)).await;
        // What is counted already is not counted again, also when the allowance is used up: its answer may have been lost.
        let length = if had.map_err(|error| refusal(&error))? { 0 } else { body.len() as u64 };
        self.reserve(&authority, length)?;
        let stored = self.durable.with(move |store| {
            store.admit(&reference, jws.as_bytes())?;
            store.put(id, body, &references, Room::Upload)
        });
        let stored = stored.await;
        // What was a lie is counted: it has been written before it was known.
        if !matches!(stored, Ok(_) | Err(StoreError::Mismatch { .. })) {
            self.release(&authority, length);
        }
        stored.map(|_| ()).map_err(|error| refusal(&error))
    }

    async fn add_references(
        &self,
        from: PeerId,
        ids: Vec<BlockId>,
        references: Vec<Reference>,
        authority: String,
    ) -> Result<Vec<bool>, Refusal> {
        let jws = authority;
        let authority = self.authorize(from, &references, &jws)?;
        let reference = authority.reference;
        let length = self.newly_referenced(&ids, authority.reference).await?;
        self.reserve(&authority, length)?;
        let marked = self.durable.with(move |store| {
            store.admit(&reference, jws.as_bytes())?;
            store.add_references(&ids, &references)
        });
        let marked = marked.await;
        if marked.is_err() {
            self.release(&authority, length);
        }
        let had = |presence: &Presence| *presence == Presence::Have;
        marked.map(|answers| answers.iter().map(had).collect()).map_err(|error| refusal(&error))
    }

    async fn has(&self, ids: Vec<BlockId>) -> Result<Vec<bool>, Refusal> {
        self.durable
            .with(move |store| ids.iter().map(|id| store.has(id)).collect())
            .await
            .map_err(|error| refusal(&error))
    }

    async fn digest(&self, from: PeerId, request: DigestRequest) -> Result<DigestAnswer, Refusal> {
        self.replication.digest(from, request)
    }

    async fn delete(&self, _: PeerId, order: String) -> Result<(), Refusal> {
        self.replication.delete(order).await
    }

    async fn audit(&self, _: PeerId, id: BlockId, nonce: [u8; 32]) -> Result<[u8; 32], Refusal> {
        self.replication.prove(id, nonce).await
    }

    async fn offer(&self, from: PeerId, offered: Vec<(BlockId, u32)>) -> Result<Vec<OfferAnswer>, Refusal> {
        self.replication.offered(from, &offered)
    }

    async fn ping(&self, from: PeerId) -> Result<PeerStatus, Refusal> {
        Ok(self.replication.status(from))
    }

    async fn references(&self, _: PeerId, ids: Vec<BlockId>) -> Result<ReferencesPage, Refusal> {
        self.replication.references(ids).await
    }

    async fn pull(&self, _: PeerId, id: BlockId) -> Result<(Bytes, Vec<Reference>), Refusal> {
        self.replication.pulled(id).await
    }

    async fn authorities(&self, _: PeerId, references: Vec<Reference>) -> Result<Vec<String>, Refusal> {
        self.replication.authorities(references).await
    }

    async fn reach(&self, from: PeerId, at: SocketAddr) -> Result<Reached, Refusal> {
        self.replication.reach(from, at).await
    }

    async fn revocations(&self, _: PeerId) -> Result<Bytes, Refusal> {
        Ok(self.replication.revocations())
    }

    async fn orders(&self, _: PeerId, epoch: u64, after: u64) -> Result<OrdersPage, Refusal> {
        self.replication.orders(epoch, after).await
    }
}

/// A store's error as a peer may read it; the operator reads the whole in the log.
pub(crate) fn refusal(error: &StoreError) -> Refusal {
    let status = match error {
        StoreError::Full { .. } | StoreError::DiskFull { .. } => Status::Full,
        StoreError::Mismatch { .. } => Status::Mismatch,
        StoreError::Length { .. } | StoreError::Order { .. } => Status::TooLarge,
        StoreError::References { .. } => Status::Malformed,
        StoreError::Deleted { .. } => Status::Refused,
        // What is damaged counts as absent (protocol §10.4), and the asker goes to another holder.
        StoreError::Corrupt { .. } => Status::NotFound,
        StoreError::InUse { .. }
        | StoreError::Format { .. }
        | StoreError::Folder { .. }
        | StoreError::Target { .. }
        | StoreError::Interrupted
        | StoreError::Database(_)
        | StoreError::Entry { .. }
        | StoreError::Stopped => Status::Internal,
    };
    if matches!(error, StoreError::DiskFull { .. }) {
        tracing::error!(%error, "a block was refused");
        return Refusal::new(status, "this node's disk is full");
    }
    if status == Status::NotFound {
        tracing::error!(%error, "a copy is damaged");
        return Refusal::new(status, "this node's copy is damaged");
    }
    if status == Status::Internal {
        tracing::error!(%error, "the store failed");
        return Refusal::new(status, "this node's store failed");
    }
    Refusal::new(status, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_copy_is_not_there() {
        let damaged =
            StoreError::Corrupt { id: BlockId::of(b"x"), reason: "its bytes hash to something else".to_owned() };
        assert_eq!(refusal(&damaged).status, Status::NotFound);
        assert_eq!(refusal(&StoreError::Stopped).status, Status::Internal);
    }
}
