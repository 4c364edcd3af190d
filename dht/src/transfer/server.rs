//! The answering side of the block plane.

use super::TransferError;
use super::channel::Channel;
use super::handshake::{self, HandshakeError, LocalIdentity};
use super::message::{
    DigestAnswer, DigestRequest, OfferAnswer, OrdersPage, PeerStatus, Reached, Refusal, Request, Response, Status,
    hello,
};
use crate::{Network, Refusals};
use bytes::Bytes;
use chunkstore_block::{BlockId, Reference};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections of members at a time. Each holds 0.4 MiB, and up to 2.5 MiB while it carries blocks.
const MAX_CONNECTIONS: usize = 512;
/// Connections of one member at a time: twice what our own client opens.
const MAX_CONNECTIONS_PER_PEER: usize = 8;
/// Handshakes at a time: strangers can hold these places, but not those of members.
const MAX_HANDSHAKES: usize = 256;
/// A stranger is gone by then (protocol §4.1).
const HANDSHAKE_DEADLINE: Duration = Duration::from_millis(700);
/// An idle connection is closed after this; the client opens another when it needs one.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// A peer that takes longer to take one answer is too slow to serve: 1 MiB at 35 KB/s.
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// Requests that a peer may send ahead, as the hello says; they wait in TCP and are answered in order.
const UNDER_WAY: u32 = 16;

/// What the block plane asks of the node behind it.
pub trait BlockHandler: Send + Sync + 'static {
    /// A block from the durable store, never from the cache.
    fn get(&self, id: BlockId) -> impl Future<Output = Result<Bytes, Refusal>> + Send;
    /// Stores a block; on success it is durable.
    fn put(&self, from: PeerId, request: PutRequest) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Adds references to the blocks that are there; for each id whether it is.
    fn add_references(
        &self,
        from: PeerId,
        ids: Vec<BlockId>,
        references: Vec<Reference>,
        authority: String,
    ) -> impl Future<Output = Result<Vec<bool>, Refusal>> + Send;
    /// For each id whether the block is in the durable store.
    fn has(&self, ids: Vec<BlockId>) -> impl Future<Output = Result<Vec<bool>, Refusal>> + Send;

    // What follows is for nodes that take part in replication (protocol §10); the others say that they do not.

    /// What this node has of a part of the keyspace, among what the asker is to have too.
    fn digest(
        &self,
        _from: PeerId,
        _request: DigestRequest,
    ) -> impl Future<Output = Result<DigestAnswer, Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// Takes a deletion order.
    fn delete(&self, _from: PeerId, _order: String) -> impl Future<Output = Result<(), Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// SHA-256(nonce || this node's peer id || block), from the durable store.
    fn audit(
        &self,
        _from: PeerId,
        _id: BlockId,
        _nonce: [u8; 32],
    ) -> impl Future<Output = Result<[u8; 32], Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// One answer for each block that is offered.
    fn offer(
        &self,
        _from: PeerId,
        _blocks: Vec<(BlockId, u32)>,
    ) -> impl Future<Output = Result<Vec<OfferAnswer>, Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// How this node is.
    fn ping(&self, _from: PeerId) -> impl Future<Output = Result<PeerStatus, Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// The references of blocks, for each id; what is over a body of 1 MiB is left out.
    fn references(
        &self,
        _from: PeerId,
        _ids: Vec<BlockId>,
    ) -> impl Future<Output = Result<Vec<Vec<Reference>>, Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// A block from the durable store with its references, at most 1,024.
    fn pull(
        &self,
        _from: PeerId,
        _id: BlockId,
    ) -> impl Future<Output = Result<(Bytes, Vec<Reference>), Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// Deletion orders after a place in this node's list.
    fn orders(
        &self,
        _from: PeerId,
        _epoch: u64,
        _after: u64,
    ) -> impl Future<Output = Result<OrdersPage, Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// Connects to the peer anew, at the address that it came from and the port that it names.
    fn reach(&self, _from: PeerId, _at: SocketAddr) -> impl Future<Output = Result<Reached, Refusal>> + Send {
        async { Err(unsupported()) }
    }
    /// The revocation list that is in force here.
    fn revocations(&self, _from: PeerId) -> impl Future<Output = Result<Bytes, Refusal>> + Send {
        async { Err(unsupported()) }
    }
}

fn unsupported() -> Refusal {
    Refusal::new(Status::Unsupported, "this node takes no part in replication")
}

/// A `put` as it came; nothing of it is checked yet but its form.
#[derive(Clone, Debug)]
pub struct PutRequest {
    /// What the body should hash to.
    pub id: BlockId,
    /// Why the block is to be kept; 1 to 16.
    pub references: Vec<Reference>,
    /// The platform's signed upload authority, a compact JWS.
    pub authority: String,
    /// At most 1 MiB.
    pub body: Bytes,
}

/// Serves the block plane on a TCP address until told to stop.
pub struct BlockServer {
    listener: TcpListener,
    identity: LocalIdentity,
    network: Arc<Network>,
    refused: Arc<Refusals>,
}

impl BlockServer {
    /// Listens on `address`, the TCP port of the same number as discovery's UDP port.
    ///
    /// # Errors
    /// The system's error when the address cannot be used.
    pub async fn bind(address: SocketAddr, keypair: Keypair, network: Arc<Network>) -> Result<Self, TransferError> {
        let listener = TcpListener::bind(address).await.map_err(TransferError::Listen)?;
        let identity = LocalIdentity::new(keypair)?;
        Ok(Self { listener, identity, network, refused: Arc::default() })
    }

    /// Counts connections whose handshake failed.
    #[must_use]
    pub fn refused(&self) -> Arc<Refusals> {
        Arc::clone(&self.refused)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> Result<SocketAddr, TransferError> {
        Ok(self.listener.local_addr()?)
    }

    /// Accepts and serves until `stop`, then waits for requests under way.
    pub async fn run<H: BlockHandler>(self, handler: Arc<H>, stop: CancellationToken) {
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let context = Arc::new(Context {
            identity: self.identity,
            network: self.network,
            refused: self.refused,
            handler,
            stop: stop.clone(),
            members: Mutex::default(),
        });
        let tasks = TaskTracker::new();
        loop {
            #[allow(clippy::expect_used)] // The semaphore is never closed.
            let handshake = Arc::clone(&handshakes).acquire_owned().await.expect("the semaphore is open");
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let context = Arc::clone(&context);
                    tasks.spawn(async move { context.serve(stream, address, handshake).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                    tracing::warn!(%error, "cannot accept on the block plane");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }
}

struct Context<H> {
    identity: LocalIdentity,
    network: Arc<Network>,
    refused: Arc<Refusals>,
    handler: Arc<H>,
    stop: CancellationToken,
    /// Open connections of each member.
    members: Mutex<HashMap<PeerId, usize>>,
}

impl<H: BlockHandler> Context<H> {
    async fn serve(&self, stream: TcpStream, address: SocketAddr, handshake: OwnedSemaphorePermit) {
        let mut channel = match timeout(HANDSHAKE_DEADLINE, self.greet(stream)).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return self.refuse(address, &error),
            Err(_) => return self.refuse(address, &HandshakeError::TooSlow.into()),
        };
        drop(handshake);
        let Some(_place) = Place::take(&self.members, channel.peer()) else {
            tracing::warn!(peer = %channel.peer(), "a member has too many connections here, or all members together have");
            return;
        };
        let (peer, admission) = (channel.peer(), channel.admission());
        let ended = tokio::select! {
            ended = self.converse(&mut channel, address.ip()) => ended,
            error = self.network.membership().expelled(&admission) => {
                self.refused.note(error.reason());
                tracing::info!(%peer, %error, "disconnected");
                return;
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %channel.peer(), %error, "block plane connection ended");
        }
    }

    fn refuse(&self, address: SocketAddr, error: &TransferError) {
        if let Some(since_last) = self.refused.note(error.reason()) {
            tracing::warn!(%address, %error, since_last, "refused on the block plane");
        }
    }

    async fn greet(&self, stream: TcpStream) -> Result<Channel, TransferError> {
        let mut channel = handshake::respond(stream, &self.identity, &self.network).await?;
        channel.send(&hello(UNDER_WAY)).await?;
        Ok(channel)
    }

    /// Answers one request after another until the peer closes, breaks the protocol or the node stops.
    async fn converse(&self, channel: &mut Channel, source: IpAddr) -> Result<(), TransferError> {
        loop {
            let frame = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                frame = channel.receive(IDLE_DEADLINE) => frame?,
            };
            let Some(frame) = frame else { return Ok(()) };
            let (kind, request_id) = (frame.kind, frame.request_id);
            let response = match Request::from_frame(frame) {
                Ok(request) => self.answer(channel.peer(), source, request).await,
                Err(refusal) => Response::Refused(refusal),
            };
            timeout(SEND_DEADLINE, channel.send(&response.into_frame(kind, request_id)))
                .await
                .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        }
    }

    async fn answer(&self, from: PeerId, source: IpAddr, request: Request) -> Response {
        let answered = match request {
            Request::Get { id } => self.handler.get(id).await.map(Response::Block),
            Request::Put { id, references, authority, body } => {
                let request = PutRequest { id, references, authority, body };
                self.handler.put(from, request).await.map(|()| Response::Done)
            }
            Request::Ref { ids, references, authority } => {
                self.handler.add_references(from, ids, references, authority).await.map(Response::Answers)
            }
            Request::Has { ids } => self.handler.has(ids).await.map(Response::Answers),
            Request::Digest(request) => self.handler.digest(from, request).await.map(Response::Digest),
            Request::Delete { order } => self.handler.delete(from, order).await.map(|()| Response::Done),
            Request::Audit { id, nonce } => self.handler.audit(from, id, nonce).await.map(Response::Proof),
            Request::Offer { blocks } => self.handler.offer(from, blocks).await.map(Response::Offered),
            Request::Ping => self.handler.ping(from).await.map(Response::Status),
            Request::References { ids } => self.handler.references(from, ids).await.map(Response::References),
            Request::Pull { id } => {
                self.handler.pull(from, id).await.map(|(body, references)| Response::Pulled(body, references))
            }
            Request::Orders { epoch, after } => self.handler.orders(from, epoch, after).await.map(Response::Orders),
            Request::Reach { port } => {
                self.handler.reach(from, SocketAddr::new(source.to_canonical(), port)).await.map(Response::Reached)
            }
            Request::Revocations => self.handler.revocations(from).await.map(Response::Revocations),
        };
        answered.unwrap_or_else(Response::Refused)
    }
}

/// One connection's place among the members'; given back when dropped.
struct Place<'a> {
    members: &'a Mutex<HashMap<PeerId, usize>>,
    peer: PeerId,
}

impl<'a> Place<'a> {
    fn take(members: &'a Mutex<HashMap<PeerId, usize>>, peer: PeerId) -> Option<Self> {
        let mut open = lock(members);
        if open.values().sum::<usize>() >= MAX_CONNECTIONS || open.get(&peer).copied() >= Some(MAX_CONNECTIONS_PER_PEER)
        {
            return None;
        }
        *open.entry(peer).or_default() += 1;
        Some(Self { members, peer })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut open = lock(self.members);
        match open.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.peer)),
        }
    }
}

fn lock(members: &Mutex<HashMap<PeerId, usize>>) -> MutexGuard<'_, HashMap<PeerId, usize>> {
    members.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;

    #[test]
    fn a_member_has_a_bounded_number_of_places_and_gives_them_back() {
        let members = Mutex::default();
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let places: Vec<_> = (0..MAX_CONNECTIONS_PER_PEER).map(|_| Place::take(&members, peer).unwrap()).collect();
        assert!(Place::take(&members, peer).is_none());
        let other = Keypair::generate_ed25519().public().to_peer_id();
        assert!(Place::take(&members, other).is_some());
        drop(places);
        assert!(lock(&members).is_empty());
        assert!(Place::take(&members, peer).is_some());
    }
}
