//! Discovery and the block plane together: fetch a block from its holders, put one where it belongs.

use crate::core::{Position, Regions, Time, closest};
use crate::discovery::{Discovery, DiscoveryError, Found, PeerAddress};
use crate::reach::DialBacks;
use crate::transfer::{BlockClient, Refusal, Status, TransferError};
use bytes::Bytes;
use chunkstore_block::{Block, BlockId, Reference};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use lru::LruCache;
use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// After this long without an answer the next holder is asked as well: ten times what a cold block takes on one machine, and
/// about a round trip around the world.
const HEDGE_AFTER: Duration = Duration::from_millis(100);
/// Whoever did not answer is asked last for so long: a stopped node costs one wait, not one for each block.
const PASSED_OVER_FOR: Duration = Duration::from_secs(5);
/// Until a busy node is asked once more. It has waited 5 s for room itself before it said so.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Nodes whose addresses are kept, those used last: 0.5 MB.
const KNOWN_ADDRESSES: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// A lookup must answer for so many nodes more than R, in case some of the closest are full or silent (protocol §9).
const SPARE_HOLDERS: usize = 2;
/// How long the answer of a lookup is used for other blocks (protocol §9).
const REGION_LIFETIME: Duration = Duration::from_secs(60);

/// This node's own part when a block is put: its durable store.
pub trait Local: Sync {
    /// Stores the block here; on success it is durable.
    fn store(&self, block: Block, references: &[Reference]) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Finds holders and talks to them. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

struct Shared {
    discovery: Discovery,
    client: BlockClient,
    replication: usize,
    begun: Instant,
    view: Mutex<View>,
    on_lie: OnceLock<Box<dyn Fn(PeerId) + Send + Sync>>,
    dial_backs: DialBacks,
}

/// What is known of other nodes beside the routing table.
struct View {
    addresses: LruCache<Position, PeerAddress>,
    regions: Regions,
    /// Those who did not answer, and when that was.
    silent: LruCache<PeerId, Instant>,
    /// Whose copies do not count.
    distrusted: BTreeSet<Position>,
}

impl Peers {
    /// `replication` is R, at least 1.
    #[must_use]
    pub fn new(discovery: Discovery, client: BlockClient, replication: usize) -> Self {
        assert!(replication >= 1, "a replication factor of 0 would lose every block");
        let local = Position::of_peer(&discovery.local_peer_id().to_bytes());
        let view = Mutex::new(View {
            addresses: LruCache::new(KNOWN_ADDRESSES),
            regions: Regions::new(local, replication + SPARE_HOLDERS, REGION_LIFETIME),
            silent: LruCache::new(KNOWN_ADDRESSES),
            distrusted: BTreeSet::new(),
        });
        let (begun, on_lie) = (Instant::now(), OnceLock::new());
        Self(Arc::new(Shared { discovery, client, replication, begun, view, on_lie, dial_backs: DialBacks::new() }))
    }

    /// The handle to discovery.
    #[must_use]
    pub fn discovery(&self) -> &Discovery {
        &self.0.discovery
    }

    /// The block plane.
    #[must_use]
    pub fn client(&self) -> &BlockClient {
        &self.0.client
    }

    pub(crate) fn dial_backs(&self) -> &DialBacks {
        &self.0.dial_backs
    }

    /// Whom to tell of holders that sent wrong bytes. The first one that is given stays.
    pub fn report_liars_to(&self, report: impl Fn(PeerId) + Send + Sync + 'static) {
        drop(self.0.on_lie.set(Box::new(report)));
    }

    /// Nodes at these positions get no new blocks.
    pub fn distrust(&self, positions: BTreeSet<Position>) {
        self.view().distrusted = positions;
    }

    /// Notes where a node is.
    pub fn note(&self, peer: PeerAddress) {
        self.view().addresses.put(position(&peer), peer);
    }

    /// Where the node at a position is, if that is known.
    #[must_use]
    pub fn address(&self, position: &Position) -> Option<PeerAddress> {
        self.view().addresses.get(position).copied()
    }

    /// Asks the network for the nodes closest to the hash of `key`, and notes where they are. Without this node.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn look_up(&self, key: Vec<u8>) -> Result<Found, DiscoveryError> {
        let found = self.0.discovery.lookup_key(key).await?;
        let mut view = self.view();
        for peer in &found.peers {
            view.addresses.put(position(peer), *peer);
        }
        Ok(found)
    }

    /// Fetches a block that is not here: from the closest peers this node knows, then from those the network
    /// knows. The bytes have the SHA-256 that `id` says.
    ///
    /// # Errors
    /// [`PeersError::Unavailable`] when no peer has it or answers.
    pub async fn fetch(&self, id: BlockId) -> Result<Bytes, PeersError> {
        let known = self.rank(id, self.0.discovery.known_closest(id).await?);
        if let Some(body) = self.fetch_from(id, &known).await {
            return Ok(body);
        }
        let mut found = self.rank(id, self.look_up(id.as_bytes().to_vec()).await?.peers);
        found.retain(|peer| !known.contains(peer));
        self.fetch_from(id, &found).await.ok_or(PeersError::Unavailable(id))
    }

    /// Asks the peers in order, the next one when one fails or is slow, until one gives the block.
    async fn fetch_from(&self, id: BlockId, peers: &[PeerAddress]) -> Option<Bytes> {
        let mut waiting = peers.iter();
        let mut asked = FuturesUnordered::new();
        let mut last = None;
        loop {
            if asked.is_empty() {
                let peer = waiting.next()?;
                last = Some(peer.id);
                asked.push(self.get(*peer, id));
            }
            match tokio::time::timeout(HEDGE_AFTER, asked.next()).await {
                Ok(Some(Some(body))) => return Some(body),
                // One failed or all are slow: the next is asked as well.
                outcome => {
                    if outcome.is_err() {
                        last.into_iter().for_each(|slow| self.pass_over(slow));
                    }
                    if let Some(peer) = waiting.next() {
                        last = Some(peer.id);
                        asked.push(self.get(*peer, id));
                    }
                }
            }
        }
    }

    async fn get(&self, peer: PeerAddress, id: BlockId) -> Option<Bytes> {
        match self.0.client.get(peer, id).await {
            Ok(body) => Some(body),
            Err(error @ TransferError::WrongBytes) => {
                tracing::warn!(peer = %peer.id, block = %id, %error, "a holder lies or its disk is bad");
                if let Some(report) = self.0.on_lie.get() {
                    report(peer.id);
                }
                None
            }
            Err(error) => {
                tracing::debug!(peer = %peer.id, block = %id, %error, "no block from this peer");
                if error.status().is_none() {
                    self.pass_over(peer.id);
                }
                None
            }
        }
    }

    /// Puts a block on the R nodes closest to it, this one among them if it is one. A node that has no room or
    /// does not answer is passed over for the next closest.
    ///
    /// # Errors
    /// [`PeersError::TooFewHolders`] when fewer than R nodes took it; what they took stays there.
    pub async fn place(
        &self,
        local: &impl Local,
        block: Block,
        reference: Reference,
        authority: &str,
    ) -> Result<(), PeersError> {
        let id = block.id();
        let (mut holders, want) = (0, self.0.replication);
        let mut waiting = self.candidates(id).await?.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while holders + under_way.len() < want {
                let Some(candidate) = waiting.next() else { break };
                under_way.push(self.put_on(local, candidate, &block, reference, authority));
            }
            match under_way.next().await {
                Some((_, Ok(()))) => holders += 1,
                Some((peer, Err(reason))) => {
                    tracing::warn!(%peer, block = %id, %reason, "a node did not take its block");
                }
                None if holders == want => return Ok(()),
                None => return Err(PeersError::TooFewHolders { have: holders, want }),
            }
        }
    }

    async fn put_on(
        &self,
        local: &impl Local,
        candidate: Candidate,
        block: &Block,
        reference: Reference,
        authority: &str,
    ) -> (PeerId, Result<(), TransferError>) {
        match candidate {
            Candidate::Myself => {
                let stored = local.store(block.clone(), &[reference]).await.map_err(TransferError::Refused);
                (self.0.discovery.local_peer_id(), stored)
            }
            Candidate::Peer(peer) => (peer.id, self.put_on_peer(peer, block, reference, authority).await),
        }
    }

    /// Tries twice where the first failure need not last, such as a handshake that a loaded machine was too slow for, or a node
    /// that is busy: passing a node over puts the block on one that is not among the closest.
    async fn put_on_peer(
        &self,
        peer: PeerAddress,
        block: &Block,
        reference: Reference,
        authority: &str,
    ) -> Result<(), TransferError> {
        let put = || self.0.client.put(peer, block.id(), block.bytes().clone(), vec![reference], authority.to_owned());
        let is_silent = self.is_passed_over(peer.id);
        let outcome = match put().await {
            Err(TransferError::Io(_) | TransferError::Handshake(_) | TransferError::Unreachable(_)) if !is_silent => {
                put().await
            }
            Err(error) if error.status() == Some(Status::Busy) => {
                tokio::time::sleep(BUSY_PAUSE).await;
                put().await
            }
            outcome => outcome,
        };
        if outcome.as_ref().is_err_and(|error| error.status().is_none()) {
            self.pass_over(peer.id);
        }
        outcome
    }

    /// Everybody the network names for this block and this node itself, closest first; those that did not answer lately
    /// come last.
    async fn candidates(&self, id: BlockId) -> Result<Vec<Candidate>, PeersError> {
        let target = Position::of_block(&id);
        let known = self.known_region(&target);
        let peers = match known {
            Some(peers) => peers,
            None => self.learn_region(id, target).await?,
        };
        let local = (Candidate::Myself, Position::of_peer(&self.0.discovery.local_peer_id().to_bytes()));
        let others = peers.into_iter().map(|peer| (Candidate::Peer(peer), position(&peer)));
        let all: Vec<_> = others.chain([local]).collect();
        let mut ranked = closest(&target, &all, all.len());
        ranked.sort_by_key(|candidate| match candidate {
            Candidate::Myself => false,
            Candidate::Peer(peer) => self.is_passed_over(peer.id),
        });
        Ok(ranked)
    }

    /// The nodes of the region of a position (protocol §9), if a lookup of before answers for it.
    fn known_region(&self, target: &Position) -> Option<Vec<PeerAddress>> {
        let now = self.now();
        let mut view = self.view();
        let named = view.regions.find(now, target)?.to_vec();
        let trusted: Vec<_> = named.into_iter().filter(|node| !view.distrusted.contains(node)).collect();
        Some(trusted.iter().filter_map(|node| view.addresses.get(node).copied()).collect())
    }

    async fn learn_region(&self, id: BlockId, target: Position) -> Result<Vec<PeerAddress>, PeersError> {
        let found = self.look_up(id.as_bytes().to_vec()).await?;
        let now = self.now();
        let mut view = self.view();
        // What a lookup that was cut off names is good for this block only.
        if let Some(nodes) = found.closest() {
            view.regions.learn(now, &target, &nodes);
        }
        Ok(found.peers.into_iter().filter(|peer| !view.distrusted.contains(&position(peer))).collect())
    }

    fn rank(&self, id: BlockId, peers: Vec<PeerAddress>) -> Vec<PeerAddress> {
        let all: Vec<_> = peers.into_iter().map(|peer| (peer, position(&peer))).collect();
        let mut ranked = closest(&Position::of_block(&id), &all, all.len());
        ranked.sort_by_key(|peer| self.is_passed_over(peer.id));
        ranked
    }

    fn pass_over(&self, peer: PeerId) {
        self.view().silent.put(peer, Instant::now());
    }

    fn is_passed_over(&self, peer: PeerId) -> bool {
        self.view().silent.peek(&peer).is_some_and(|since| since.elapsed() < PASSED_OVER_FOR)
    }

    fn now(&self) -> Time {
        // 584 million years fit.
        Time::from_millis(self.0.begun.elapsed().as_millis() as u64)
    }

    /// No foreign code runs under the lock.
    fn view(&self) -> MutexGuard<'_, View> {
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn position(peer: &PeerAddress) -> Position {
    Position::of_peer(&peer.id.to_bytes())
}

#[derive(Clone, Copy)]
enum Candidate {
    Myself,
    Peer(PeerAddress),
}

/// Why a block could not be fetched or placed.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// Nobody who answers has the block.
    #[error("no node that answers now has block {0}")]
    Unavailable(BlockId),
    /// Fewer than R nodes took the block; who refused and why is in the log.
    #[error("a block found {have} of {want} nodes to keep it; the network needs more nodes, or more room on them")]
    TooFewHolders {
        /// Nodes that took it.
        have: usize,
        /// R.
        want: usize,
    },
    /// Discovery could not answer.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockHandler, BlockServer, DiscoveryConfig, Keypair, Network, PutRequest};
    use chunkstore_block::{PlatformFingerprint, PublicationId};
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio_util::sync::CancellationToken;

    /// Is busy for so many puts.
    struct Busy {
        times: usize,
        puts: AtomicUsize,
    }

    impl BlockHandler for Busy {
        async fn get(&self, _id: BlockId) -> Result<Bytes, Refusal> {
            Err(Refusal::new(Status::NotFound, "it keeps nothing"))
        }

        async fn put(&self, _from: PeerId, _request: PutRequest) -> Result<(), Refusal> {
            let before = self.puts.fetch_add(1, Ordering::Relaxed);
            if before < self.times { Err(Refusal::new(Status::Busy, "busy")) } else { Ok(()) }
        }

        async fn add_references(
            &self,
            _from: PeerId,
            ids: Vec<BlockId>,
            _references: Vec<Reference>,
            _authority: String,
        ) -> Result<Vec<bool>, Refusal> {
            self.has(ids).await
        }

        async fn has(&self, ids: Vec<BlockId>) -> Result<Vec<bool>, Refusal> {
            Ok(vec![false; ids.len()])
        }
    }

    #[tokio::test]
    async fn a_busy_node_is_asked_once_more_before_it_is_passed_over() {
        let (network, listen) = (Arc::new(Network::generate().unwrap()), SocketAddr::from(([127, 0, 0, 1], 0)));
        let keypair = Keypair::generate_ed25519();
        let client = BlockClient::new(keypair.clone(), Arc::clone(&network)).unwrap();
        let config = DiscoveryConfig {
            keypair,
            network: Arc::clone(&network),
            listen,
            bootstrap: Vec::new(),
            allow_private_addresses: None,
        };
        let peers = Peers::new(Discovery::start(config).await.unwrap().0, client, 1);
        let block = Block::of(Bytes::from_static(b"a block"));
        let reference = Reference {
            platform: PlatformFingerprint::from_bytes([1; 32]),
            publication: PublicationId::from_bytes([2; 16]),
        };
        for (times, is_put) in [(1, true), (2, false)] {
            let holder = Keypair::generate_ed25519();
            let id = holder.public().to_peer_id();
            let server = BlockServer::bind(listen, holder, Arc::clone(&network)).await.unwrap();
            let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
            let _stop = stop.clone().drop_guard();
            let handler = Arc::new(Busy { times, puts: AtomicUsize::new(0) });
            tokio::spawn(server.run(Arc::clone(&handler), stop));
            let put = peers.put_on_peer(PeerAddress { id, address }, &block, reference, "a.b.c").await;
            assert_eq!(put.is_ok(), is_put, "{put:?}");
            assert_eq!(handler.puts.load(Ordering::Relaxed), 2);
            assert!(!peers.is_passed_over(id), "it answers");
        }
    }
}
