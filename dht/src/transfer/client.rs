//! The asking side of the block plane: a small pool of connections for each peer.

// Of the many kinds of answers one fits a question; all others are the same defect.
#![allow(clippy::wildcard_enum_match_arm)]

use super::TransferError;
use super::connection::Connection;
use super::handshake::{self, HandshakeError, LocalIdentity};
use super::limits::ClientLimits;
use super::message::{DigestAnswer, DigestRequest, OrdersPage, PeerStatus, Reached, Request, Response, check_hello};
use super::pool::PeerPool;
use crate::core::OfferAnswer;
use crate::discovery::PeerAddress;
use crate::{Membership, Network};
use bytes::Bytes;
use chunkstore_block::{Block, BlockId, Reference};
use futures::FutureExt;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Peers whose connections are kept; the one least recently used loses its idle ones.
const POOLED_PEERS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// TCP connect and handshake together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// The handshake alone (protocol §4.1).
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(1);
/// A node that does not answer by then counts as silent (protocol §9).
const PING_DEADLINE: Duration = Duration::from_secs(4);
/// A request with its wait for its turn and for those before it.
const TURN_DEADLINE: Duration = Duration::from_secs(60);

/// Asks other nodes for blocks and gives them blocks. Cheap to clone.
#[derive(Clone)]
pub struct BlockClient {
    shared: Arc<Shared>,
}

struct Shared {
    identity: LocalIdentity,
    network: Arc<Network>,
    limits: ClientLimits,
    pool: Mutex<LruCache<PeerId, Arc<PeerPool>>>,
    received_bytes: AtomicU64,
}

impl BlockClient {
    /// A client that speaks for the node with `keypair`. Needs a Tokio runtime around it.
    ///
    /// # Errors
    /// [`TransferError::Handshake`] when no X25519 key can be made.
    pub fn new(keypair: Keypair, network: Arc<Network>) -> Result<Self, TransferError> {
        Self::with_limits(keypair, network, ClientLimits::default())
    }

    /// The same, with limits of its own.
    ///
    /// # Errors
    /// As [`BlockClient::new`].
    pub fn with_limits(keypair: Keypair, network: Arc<Network>, limits: ClientLimits) -> Result<Self, TransferError> {
        let identity = LocalIdentity::new(keypair)?;
        let (pool, received_bytes) = (Mutex::new(LruCache::new(POOLED_PEERS)), AtomicU64::new(0));
        Ok(Self { shared: Arc::new(Shared { identity, network, limits, pool, received_bytes }) })
    }

    /// Who is a member.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.shared.network.membership()
    }

    /// Bytes of blocks that came so far, wanted or not.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.shared.received_bytes.load(Ordering::Relaxed)
    }

    /// Fetches a block from a holder. The bytes returned have the SHA-256 that `id` says.
    ///
    /// # Errors
    /// [`TransferError::WrongBytes`] when the holder lies; otherwise as the variant says.
    pub async fn get(&self, peer: PeerAddress, id: BlockId) -> Result<Bytes, TransferError> {
        let body = match self.ask(peer, Request::Get { id }).await? {
            Response::Block(body) => body,
            other => return Err(unexpected(&other)),
        };
        if BlockId::of(&body) == id { Ok(body) } else { Err(TransferError::WrongBytes) }
    }

    /// Puts a block on a holder; on success it is durable there.
    ///
    /// # Errors
    /// As the variant says; [`TransferError::status`] tells a refusal's reason.
    pub async fn put(
        &self,
        peer: PeerAddress,
        id: BlockId,
        body: Bytes,
        references: Vec<Reference>,
        authority: String,
    ) -> Result<(), TransferError> {
        self.ask(peer, Request::Put { id, references, authority, body }).await.map(|_| ())
    }

    /// Adds references to the blocks that the holder has; for each id whether it has the block.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn add_references(
        &self,
        peer: PeerAddress,
        ids: Vec<BlockId>,
        references: Vec<Reference>,
        authority: String,
    ) -> Result<Vec<bool>, TransferError> {
        self.ask_each(peer, Request::Ref { ids, references, authority }).await
    }

    /// For each id (at most 1,024) whether the holder has the block.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn has(&self, peer: PeerAddress, ids: Vec<BlockId>) -> Result<Vec<bool>, TransferError> {
        self.ask_each(peer, Request::Has { ids }).await
    }

    /// What the holder has of a part of the keyspace, among what this node is to have too.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn digest(&self, peer: PeerAddress, request: DigestRequest) -> Result<DigestAnswer, TransferError> {
        match self.ask(peer, Request::Digest(request)).await? {
            Response::Digest(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        }
    }

    /// Hands a deletion order on.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn delete(&self, peer: PeerAddress, order: String) -> Result<(), TransferError> {
        self.ask(peer, Request::Delete { order }).await.map(|_| ())
    }

    /// What the holder gives as proof that it has a block: SHA-256(nonce || its peer id || block), if it is honest.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn audit(&self, peer: PeerAddress, id: BlockId, nonce: [u8; 32]) -> Result<[u8; 32], TransferError> {
        match self.ask(peer, Request::Audit { id, nonce }).await? {
            Response::Proof(proof) => Ok(proof),
            other => Err(unexpected(&other)),
        }
    }

    /// Offers blocks (at most 1,024) with their lengths; one answer for each.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn offer(
        &self,
        peer: PeerAddress,
        blocks: Vec<(BlockId, u32)>,
    ) -> Result<Vec<OfferAnswer>, TransferError> {
        match self.ask(peer, Request::Offer { blocks }).await? {
            Response::Offered(answers) => Ok(answers),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks whether the peer is there and how it is. Gives up after 4 s.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn ping(&self, peer: PeerAddress) -> Result<PeerStatus, TransferError> {
        let late = |_| TransferError::Unreachable(format!("{} does not answer", peer.address));
        match timeout(PING_DEADLINE, self.ask(peer, Request::Ping)).await.map_err(late)?? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// The references of blocks (at most 256), for each id; none for one that the peer does not have. Of the ids, in their order, as
    /// many are answered as an answer has room for, one at least: the others are to be asked for again.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn references(&self, peer: PeerAddress, ids: Vec<BlockId>) -> Result<Vec<Vec<Reference>>, TransferError> {
        match self.ask(peer, Request::References { ids }).await? {
            Response::References(page) => Ok(page.into_inner()),
            other => Err(unexpected(&other)),
        }
    }

    /// Fetches a block with its references, for a copy. The holder need not have checked its bytes, as for [`BlockClient::get`].
    ///
    /// # Errors
    /// As [`BlockClient::get`].
    pub async fn pull(&self, peer: PeerAddress, id: BlockId) -> Result<(Block, Vec<Reference>), TransferError> {
        let (body, references) = match self.ask(peer, Request::Pull { id }).await? {
            Response::Pulled(body, references) => (body, references),
            other => return Err(unexpected(&other)),
        };
        Ok((Block::check(id, body).ok_or(TransferError::WrongBytes)?, references))
    }

    /// The peer's deletion orders after the first `after` of its list of `epoch`.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn orders(&self, peer: PeerAddress, epoch: u64, after: u64) -> Result<OrdersPage, TransferError> {
        match self.ask(peer, Request::Orders { epoch, after }).await? {
            Response::Orders(page) => Ok(page),
            other => Err(unexpected(&other)),
        }
    }

    /// The upload authorities of publications (at most 16), not verified: one for each, empty where the peer has none.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn authorities(
        &self,
        peer: PeerAddress,
        references: Vec<Reference>,
    ) -> Result<Vec<String>, TransferError> {
        match self.ask(peer, Request::Authorities { references }).await? {
            Response::Authorities(authorities) => Ok(authorities),
            other => Err(unexpected(&other)),
        }
    }

    /// The peer's revocation list, not verified.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn revocations(&self, peer: PeerAddress) -> Result<Bytes, TransferError> {
        match self.ask(peer, Request::Revocations).await? {
            Response::Revocations(list) => Ok(list),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the peer to connect to this node anew, at the address from which it sees this node and a port.
    ///
    /// # Errors
    /// As the variant says.
    pub async fn ask_to_reach(&self, peer: PeerAddress, port: u16) -> Result<Reached, TransferError> {
        let Response::Reached(reached) = self.ask(peer, Request::Reach { port }).await? else {
            return Err(TransferError::Protocol("not an answer to reach"));
        };
        Ok(reached)
    }

    /// Whether a new connection with a peer comes to stand. It is not kept.
    pub(crate) async fn can_reach(&self, peer: PeerAddress) -> bool {
        self.connect(peer, Arc::default()).await.is_ok()
    }

    async fn ask_each(&self, peer: PeerAddress, request: Request) -> Result<Vec<bool>, TransferError> {
        match self.ask(peer, request).await? {
            Response::Answers(answers) => Ok(answers),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, peer: PeerAddress, request: Request) -> Result<Response, TransferError> {
        let pool = self.pool_of(peer.id);
        let connect = |freed| self.connect(peer, freed).boxed();
        let response = timeout(TURN_DEADLINE, pool.ask(request, self.membership(), &connect))
            .await
            .map_err(|_| TransferError::Unreachable(format!("{} is too slow", peer.address)))?;
        match self.counted(response?) {
            Response::Refused(refusal) => Err(TransferError::Refused(refusal)),
            answer => Ok(answer),
        }
    }

    fn counted(&self, response: Response) -> Response {
        if let Response::Block(body) | Response::Pulled(body, _) = &response {
            self.shared.received_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        }
        response
    }

    /// Connects with the current network key, then with the previous one if there is one.
    async fn connect(&self, peer: PeerAddress, freed: Arc<Notify>) -> Result<Connection, TransferError> {
        let mut last = TransferError::Unreachable("no network key".into());
        for index in 0..self.shared.network.keys().len() {
            match timeout(CONNECT_DEADLINE, self.connect_with_key(peer, index, Arc::clone(&freed))).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error @ TransferError::Unreachable(_))) => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => return Err(TransferError::Unreachable(format!("{} does not answer", peer.address))),
            }
        }
        Err(last)
    }

    async fn connect_with_key(
        &self,
        peer: PeerAddress,
        index: usize,
        freed: Arc<Notify>,
    ) -> Result<Connection, TransferError> {
        let stream = TcpStream::connect(peer.address)
            .await
            .map_err(|error| TransferError::Unreachable(format!("{}: {error}", peer.address)))?;
        let Shared { identity, network, .. } = &*self.shared;
        let greeted = async {
            let mut channel = handshake::initiate(stream, identity, network, &network.keys()[index], peer.id).await?;
            let hello = channel.receiver.receive(HANDSHAKE_DEADLINE).await?;
            let allowed = check_hello(&hello.ok_or(TransferError::Protocol("closed before its hello"))?)?;
            Ok(Connection::new(channel, Arc::clone(network), allowed, freed))
        };
        timeout(HANDSHAKE_DEADLINE, greeted).await.map_err(|_| TransferError::Handshake(HandshakeError::TooSlow))?
    }

    fn pool_of(&self, peer: PeerId) -> Arc<PeerPool> {
        let mut pool = self.shared.pool.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pool.get_or_insert(peer, || Arc::new(PeerPool::new(&self.shared.limits))))
    }
}

/// The decoder gives each kind its own answer, so this is a defect of ours.
fn unexpected(answer: &Response) -> TransferError {
    tracing::error!(?answer, "an answer of another kind");
    TransferError::Protocol("an answer of another kind")
}
