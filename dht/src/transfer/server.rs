//! The answering side of the block plane.

use super::TransferError;
use super::budget::{BodyBudget, Share};
use super::buffers::SCRATCH_BYTES;
use super::channel::{Channel, Receiver};
use super::handshake::{self, HandshakeError, LocalIdentity};
use super::limits::ServerLimits;
use super::message::{
    DigestAnswer, DigestRequest, MAX_UNDER_WAY, OrdersPage, PeerStatus, Reached, ReferencesPage, Refusal, Request,
    Response, Status, hello,
};
use crate::core::OfferAnswer;
use crate::{Network, Refusals};
use bytes::Bytes;
use chunkstore_block::{BlockId, Reference};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Handshakes at a time: strangers can hold these places, but not those of members.
const MAX_HANDSHAKES: usize = 256;
/// A stranger is gone by then (protocol §4.1).
const HANDSHAKE_DEADLINE: Duration = Duration::from_millis(700);
/// How long a peer has at shutdown to close its end, so that it reads what was still sent to it.
const LINGER: Duration = Duration::from_millis(500);
/// Requests and answers up to this size are not counted in the budget: ids and references, a few for each connection.
const UNCOUNTED_BYTES: usize = 16 * 1024;

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
    /// The references of blocks, for as many of the ids, in their order, as an answer has room for.
    fn references(
        &self,
        _from: PeerId,
        _ids: Vec<BlockId>,
    ) -> impl Future<Output = Result<ReferencesPage, Refusal>> + Send {
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
    /// The upload authority of each publication, as its platform signed it; an empty text where none is kept.
    fn authorities(
        &self,
        _from: PeerId,
        _references: Vec<Reference>,
    ) -> impl Future<Output = Result<Vec<String>, Refusal>> + Send {
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
    limits: ServerLimits,
    bodies: Arc<BodyBudget>,
}

impl BlockServer {
    /// Listens on `address`, the TCP port of the same number as discovery's UDP port.
    ///
    /// # Errors
    /// The system's error when the address cannot be used.
    pub async fn bind(address: SocketAddr, keypair: Keypair, network: Arc<Network>) -> Result<Self, TransferError> {
        let listener = TcpListener::bind(address).await.map_err(TransferError::Listen)?;
        let identity = LocalIdentity::new(keypair)?;
        let limits = ServerLimits::default();
        Ok(Self { listener, identity, network, refused: Arc::default(), bodies: budget(&limits), limits })
    }

    /// The same with limits of its own.
    #[must_use]
    pub fn with_limits(self, limits: ServerLimits) -> Self {
        Self { bodies: budget(&limits), limits, ..self }
    }

    /// How many bytes of bodies it holds for its peers.
    #[must_use]
    pub fn bodies(&self) -> Arc<BodyBudget> {
        Arc::clone(&self.bodies)
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

    /// Accepts and serves until `stop`, then waits a little for requests under way.
    pub async fn run<H: BlockHandler>(self, handler: Arc<H>, stop: CancellationToken) {
        let drain = self.limits.drain;
        let context = Arc::new(Context {
            identity: self.identity,
            network: self.network,
            refused: self.refused,
            limits: self.limits,
            bodies: self.bodies,
            handler,
            stop,
            members: Mutex::default(),
        });
        let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
        accept(self.listener, context, &tasks, &cut).await;
        tasks.close();
        if timeout(drain, tasks.wait()).await.is_err() {
            tracing::info!(connections = tasks.len(), "closing on peers that are slow");
        }
        cut.cancel();
        tasks.wait().await;
    }
}

fn budget(limits: &ServerLimits) -> Arc<BodyBudget> {
    Arc::new(BodyBudget::new(limits.body_bytes, limits.body_bytes_per_member))
}

/// Gives each connection a task, until told to stop. Whoever comes later is told by the system that nobody listens.
async fn accept<H: BlockHandler>(
    listener: TcpListener,
    context: Arc<Context<H>>,
    tasks: &TaskTracker,
    cut: &CancellationToken,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        #[allow(clippy::expect_used)] // The semaphore is never closed.
        let handshake = Arc::clone(&handshakes).acquire_owned().await.expect("the semaphore is open");
        let accepted = tokio::select! {
            () = context.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let (context, cut) = (Arc::clone(&context), cut.clone());
                tasks.spawn(async move {
                    cut.run_until_cancelled(context.serve(stream, address, handshake)).await;
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                tracing::warn!(%error, "cannot accept on the block plane");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Who asks, and from where.
#[derive(Clone, Copy)]
struct Asker {
    peer: PeerId,
    source: IpAddr,
}

/// A frame that came.
struct Received {
    kind: u8,
    request_id: u32,
    /// What it asks, or what to answer instead.
    request: Result<Request, Refusal>,
    share: Option<Share>,
}

struct Context<H> {
    identity: LocalIdentity,
    network: Arc<Network>,
    refused: Arc<Refusals>,
    limits: ServerLimits,
    bodies: Arc<BodyBudget>,
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
        let Some(_place) = Place::take(&self.members, channel.peer(), &self.limits) else {
            tracing::warn!(peer = %channel.peer(), "a member has too many connections here, or all members together have");
            return;
        };
        let (peer, admission) = (channel.peer(), channel.admission);
        let ended = tokio::select! {
            ended = self.converse(&mut channel, Asker { peer, source: address.ip() }) => ended,
            error = self.network.membership().expelled(&admission) => {
                self.refused.note(error.reason());
                tracing::info!(%peer, %error, "disconnected");
                return;
            }
        };
        if let Err(error) = ended {
            channel.abandon();
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
        // What a peer sends ahead waits in TCP and is answered in order.
        channel.sender.send(&hello(MAX_UNDER_WAY)).await?;
        Ok(channel)
    }

    /// Answers one request after another until the peer closes, breaks the protocol or the node stops.
    async fn converse(&self, channel: &mut Channel, asker: Asker) -> Result<(), TransferError> {
        loop {
            let received = tokio::select! {
                () = self.stop.cancelled() => return farewell(channel).await,
                received = self.receive(&mut channel.receiver, asker.peer) => received?,
            };
            let Some(Received { kind, request_id, request, share }) = received else { return Ok(()) };
            let (response, _share) = match request {
                Ok(request) => self.answer_within_budget(asker, request, share).await,
                Err(refusal) => (Response::Refused(refusal), share),
            };
            timeout(self.limits.send, channel.sender.send(&response.into_frame(kind, request_id)))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
    }

    /// The next request, with its share of the budget. `None` when the peer has closed or asks for nothing.
    async fn receive(&self, receiver: &mut Receiver, member: PeerId) -> Result<Option<Received>, TransferError> {
        let is_open = timeout(self.limits.idle, receiver.ready()).await.unwrap_or(Ok(false))?;
        if !is_open {
            return Ok(None);
        }
        let mut begun = receiver.begin(self.limits.frame).await?;
        let (kind, request_id) = begun.request();
        let mut share = None;
        if begun.payload_bytes() > UNCOUNTED_BYTES {
            // All that was announced, at once: connections that each wait for a little more would wait for one another.
            // Nothing is read meanwhile, so the peer notices.
            let waiting = Instant::now();
            share = self.bodies.reserve(member, begun.payload_bytes(), self.limits.room).await;
            begun.allow(waiting.elapsed());
            if share.is_none() {
                // Read all the same, so that the peer hears of it and can tell an overload from a crash.
                receiver.skip(&begun).await?;
                let request = Err(Refusal::new(Status::Busy, "too many requests with bodies are under way"));
                return Ok(Some(Received { kind, request_id, request, share }));
            }
        }
        let request = Request::from_frame(receiver.finish(begun).await?);
        Ok(Some(Received { kind, request_id, request, share }))
    }

    /// The answer, with its share of the budget or that of the request.
    async fn answer_within_budget(
        &self,
        asker: Asker,
        request: Request,
        share: Option<Share>,
    ) -> (Response, Option<Share>) {
        let answer_bytes = request.answer_bytes();
        if answer_bytes == 0 {
            return (self.answer(asker, request).await, share);
        }
        // Nobody holds one share while waiting for another.
        drop(share);
        let Some(mut share) = self.bodies.reserve(asker.peer, answer_bytes + SCRATCH_BYTES, self.limits.room).await
        else {
            return (Response::Refused(Refusal::new(Status::Busy, "too many answers are under way")), None);
        };
        let response = self.answer(asker, request).await;
        share.shrink_to(response.counted_bytes());
        (response, Some(share))
    }

    async fn answer(&self, asker: Asker, request: Request) -> Response {
        let Asker { peer: from, source } = asker;
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
            Request::Authorities { references } => {
                self.handler.authorities(from, references).await.map(Response::Authorities)
            }
            Request::Revocations => self.handler.revocations(from).await.map(Response::Revocations),
        };
        answered.unwrap_or_else(Response::Refused)
    }
}

/// Lets the peer read what was sent to it.
async fn farewell(channel: &mut Channel) -> Result<(), TransferError> {
    channel.sender.shutdown().await?;
    // The peer closes, too, as a rule.
    drop(timeout(LINGER, channel.receiver.discard()).await);
    Ok(())
}

/// One connection's place among the members'; given back when dropped.
struct Place<'a> {
    members: &'a Mutex<HashMap<PeerId, usize>>,
    peer: PeerId,
}

impl<'a> Place<'a> {
    fn take(members: &'a Mutex<HashMap<PeerId, usize>>, peer: PeerId, limits: &ServerLimits) -> Option<Self> {
        let mut open = lock(members);
        let of_member = open.get(&peer).copied().unwrap_or_default();
        if open.values().sum::<usize>() >= limits.connections || of_member >= limits.connections_per_member {
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
        let (members, limits) = (Mutex::default(), ServerLimits::default());
        let take = |peer| Place::take(&members, peer, &limits);
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let places: Vec<_> = (0..limits.connections_per_member).map(|_| take(peer).unwrap()).collect();
        assert!(take(peer).is_none());
        let other = Keypair::generate_ed25519().public().to_peer_id();
        assert!(take(other).is_some());
        drop(places);
        assert!(lock(&members).is_empty());
        assert!(take(peer).is_some());
    }
}
