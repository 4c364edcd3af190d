//! Discovery and the block plane together: fetch a block from its holders, put one where it belongs.

use crate::core::{Position, closest};
use crate::discovery::{Discovery, DiscoveryError, PeerAddress};
use crate::transfer::{BlockClient, Refusal, TransferError};
use bytes::Bytes;
use chunkstore_block::{BlockId, Reference};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use std::future::Future;
use std::time::Duration;

/// After this long without an answer the next holder is asked as well (DESIGN §5: about 100 ms).
const HEDGE_AFTER: Duration = Duration::from_millis(100);

/// This node's own part when a block is put: its durable store.
pub trait Local: Sync {
    /// Stores the block here; on success it is durable.
    fn store(
        &self,
        id: BlockId,
        body: Bytes,
        references: &[Reference],
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Finds holders and talks to them. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    discovery: Discovery,
    client: BlockClient,
    replication: usize,
}

impl Peers {
    /// `replication` is R, at least 1.
    #[must_use]
    pub fn new(discovery: Discovery, client: BlockClient, replication: usize) -> Self {
        assert!(replication >= 1, "a replication factor of 0 would lose every block");
        Self { discovery, client, replication }
    }

    /// The handle to discovery.
    #[must_use]
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Fetches a block that is not here: from the closest peers this node knows, then from those the network
    /// knows. The bytes have the SHA-256 that `id` says.
    ///
    /// # Errors
    /// [`PeersError::Unavailable`] when no peer has it or answers.
    pub async fn fetch(&self, id: BlockId) -> Result<Bytes, PeersError> {
        let known = self.rank(id, self.discovery.known_closest(id).await?);
        if let Some(body) = self.fetch_from(id, &known).await {
            return Ok(body);
        }
        let mut found = self.rank(id, self.discovery.lookup(id).await?);
        found.retain(|peer| !known.contains(peer));
        self.fetch_from(id, &found).await.ok_or(PeersError::Unavailable(id))
    }

    /// Asks the peers in order, the next one when one fails or is slow, until one gives the block.
    async fn fetch_from(&self, id: BlockId, peers: &[PeerAddress]) -> Option<Bytes> {
        let mut waiting = peers.iter();
        let mut asked = FuturesUnordered::new();
        loop {
            if asked.is_empty() {
                asked.push(self.get(*waiting.next()?, id));
            }
            match tokio::time::timeout(HEDGE_AFTER, asked.next()).await {
                Ok(Some(Some(body))) => return Some(body),
                // One failed or all are slow: the next is asked as well.
                Ok(_) | Err(_) => asked.extend(waiting.next().map(|peer| self.get(*peer, id))),
            }
        }
    }

    async fn get(&self, peer: PeerAddress, id: BlockId) -> Option<Bytes> {
        match self.client.get(peer, id).await {
            Ok(body) => Some(body),
            Err(error @ TransferError::WrongBytes) => {
                tracing::warn!(peer = %peer.id, block = %id, %error, "a holder lies or its disk is bad");
                None
            }
            Err(error) => {
                tracing::debug!(peer = %peer.id, block = %id, %error, "no block from this peer");
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
        id: BlockId,
        body: Bytes,
        reference: Reference,
        authority: &str,
    ) -> Result<(), PeersError> {
        let mut holders = 0;
        let mut waiting = self.candidates(id).await?.into_iter();
        let mut under_way = FuturesUnordered::new();
        loop {
            while holders + under_way.len() < self.replication {
                let Some(candidate) = waiting.next() else { break };
                under_way.push(self.put_on(local, candidate, id, body.clone(), reference, authority));
            }
            match under_way.next().await {
                Some((_, Ok(()))) => holders += 1,
                Some((peer, Err(reason))) => {
                    tracing::warn!(%peer, block = %id, %reason, "a node did not take its block");
                }
                None if holders == self.replication => return Ok(()),
                None => return Err(PeersError::TooFewHolders { have: holders, want: self.replication }),
            }
        }
    }

    async fn put_on(
        &self,
        local: &impl Local,
        candidate: Candidate,
        id: BlockId,
        body: Bytes,
        reference: Reference,
        authority: &str,
    ) -> (PeerId, Result<(), TransferError>) {
        match candidate {
            Candidate::Myself => {
                let stored = local.store(id, body, &[reference]).await.map_err(TransferError::Refused);
                (self.discovery.local_peer_id(), stored)
            }
            Candidate::Peer(peer) => (peer.id, self.put_on_peer(peer, id, body, reference, authority).await),
        }
    }

    /// Tries twice where the first failure need not last, such as a handshake that a loaded machine was too slow for:
    /// passing a node over puts the block on one that is not among the closest.
    async fn put_on_peer(
        &self,
        peer: PeerAddress,
        id: BlockId,
        body: Bytes,
        reference: Reference,
        authority: &str,
    ) -> Result<(), TransferError> {
        let put = || self.client.put(peer, id, body.clone(), vec![reference], authority.to_owned());
        match put().await {
            Err(TransferError::Io(_) | TransferError::Handshake(_) | TransferError::Unreachable(_)) => put().await,
            outcome => outcome,
        }
    }

    /// Everybody the network names for this block and this node itself, closest first.
    async fn candidates(&self, id: BlockId) -> Result<Vec<Candidate>, PeersError> {
        let peers = self.discovery.lookup(id).await?;
        let local = (Candidate::Myself, Position::of_peer(&self.discovery.local_peer_id().to_bytes()));
        let others = peers.into_iter().map(|peer| (Candidate::Peer(peer), Position::of_peer(&peer.id.to_bytes())));
        let all: Vec<_> = others.chain([local]).collect();
        Ok(closest(&Position::of_block(&id), &all, all.len()))
    }

    fn rank(&self, id: BlockId, peers: Vec<PeerAddress>) -> Vec<PeerAddress> {
        let all: Vec<_> = peers.into_iter().map(|peer| (peer, Position::of_peer(&peer.id.to_bytes()))).collect();
        closest(&Position::of_block(&id), &all, all.len())
    }
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
