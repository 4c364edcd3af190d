//! What the tests of the block plane share: a holder in memory, and a relay that meddles.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use crate::holders::{Asked, Holder};
use bytes::Bytes;
use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};
use dht::{
    BlockClient, BlockServer, BodyBudget, ClientLimits, Keypair, Network, PeerAddress, PutRequest, Refusal, Refusals,
    ServerLimits, Status, TransferError,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A holder that keeps blocks in memory and accepts the authority `"allowed"` only.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) blocks: Mutex<BTreeMap<BlockId, Bytes>>,
    /// Sent instead of the block, by a holder that lies.
    pub(crate) lie: Option<Bytes>,
}

impl Holder for Memory {
    async fn get(&self, id: BlockId) -> Result<Bytes, Refusal> {
        if let Some(lie) = &self.lie {
            return Ok(lie.clone());
        }
        let found = self.blocks.lock().unwrap().get(&id).cloned();
        found.ok_or_else(|| Refusal::new(Status::NotFound, "no such block"))
    }

    async fn put(&self, request: PutRequest) -> Result<(), Refusal> {
        if request.authority != "allowed" {
            return Err(Refusal::new(Status::Refused, "not the authority of this test"));
        }
        if BlockId::of(&request.body) != request.id {
            return Err(Refusal::new(Status::Mismatch, "the body is another block"));
        }
        self.blocks.lock().unwrap().insert(request.id, request.body);
        Ok(())
    }

    fn has(&self, id: &BlockId) -> bool {
        self.blocks.lock().unwrap().contains_key(id)
    }
}

pub(crate) struct Served<H> {
    pub(crate) peer: PeerAddress,
    pub(crate) handler: Arc<Asked<H>>,
    pub(crate) refused: Arc<Refusals>,
    pub(crate) bodies: Arc<BodyBudget>,
    /// Ends the node, also when dropped.
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<()>,
    _stop: DropGuard,
}

/// A node with this handler, until dropped.
pub(crate) async fn serve<H: Holder>(network: &Arc<Network>, handler: H) -> Served<H> {
    serve_with(network, handler, ServerLimits::default()).await
}

/// The same, with limits of its own.
pub(crate) async fn serve_with<H: Holder>(network: &Arc<Network>, handler: H, limits: ServerLimits) -> Served<H> {
    let keypair = Keypair::generate_ed25519();
    let id = keypair.public().to_peer_id();
    let server = BlockServer::bind("127.0.0.1:0".parse().unwrap(), keypair, Arc::clone(network)).await.unwrap();
    let server = server.with_limits(limits);
    let peer = PeerAddress { id, address: server.local_addr().unwrap() };
    let (refused, bodies, stop) = (server.refused(), server.bodies(), CancellationToken::new());
    let handler = Arc::new(Asked(handler));
    let running = tokio::spawn(server.run(Arc::clone(&handler), stop.clone()));
    Served { peer, handler, refused, bodies, _stop: stop.clone().drop_guard(), stop, running }
}

pub(crate) fn network() -> Arc<Network> {
    Arc::new(Network::generate().unwrap())
}

pub(crate) fn client(network: &Arc<Network>) -> BlockClient {
    client_with(network, ClientLimits::default())
}

pub(crate) fn client_with(network: &Arc<Network>, limits: ClientLimits) -> BlockClient {
    BlockClient::with_limits(Keypair::generate_ed25519(), Arc::clone(network), limits).unwrap()
}

pub(crate) fn references() -> Vec<Reference> {
    vec![Reference {
        platform: PlatformFingerprint::from_bytes([1; 32]),
        publication: PublicationId::from_bytes([2; 16]),
    }]
}

pub(crate) fn block(length: usize) -> (BlockId, Bytes) {
    let body: Bytes = (0..length).map(|i| (i * 31 % 251) as u8).collect();
    (BlockId::of(&body), body)
}

pub(crate) async fn put(
    client: &BlockClient,
    peer: PeerAddress,
    (id, body): (BlockId, Bytes),
) -> Result<(), TransferError> {
    client.put(peer, id, body, references(), "allowed".into()).await
}

/// What a relay does to what it passes on.
#[derive(Clone, Copy, Default)]
pub(crate) struct Meddling {
    /// Flips a bit of the byte at this place, forth or back.
    pub(crate) change_forth: Option<u64>,
    pub(crate) change_back: Option<u64>,
    /// Passes on so much and then hardly anything: a byte now and then forth, and nothing back.
    pub(crate) dribble_forth_after: Option<u64>,
    pub(crate) stall_back_after: Option<u64>,
}

/// A TCP relay that can change one byte of what it passes on, slow it down, and cut its connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// Bytes passed on from the dialler, and to it.
    pub(crate) forth: Arc<Way>,
    pub(crate) back: Arc<Way>,
    pub(crate) connections: Arc<AtomicU64>,
    cut: Arc<Mutex<CancellationToken>>,
}

/// One direction of all connections.
#[derive(Default)]
pub(crate) struct Way {
    pub(crate) bytes: AtomicU64,
    pub(crate) recorded: Mutex<Vec<u8>>,
}

/// What is kept of a conversation.
const RECORDED_BYTES: usize = 16 << 10;

impl Way {
    fn note(&self, passed: &[u8]) {
        self.bytes.fetch_add(passed.len() as u64, Ordering::Relaxed);
        let mut recorded = self.recorded.lock().unwrap();
        let kept = passed.len().min(RECORDED_BYTES - recorded.len());
        recorded.extend_from_slice(&passed[..kept]);
    }
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr, meddling: Meddling) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            forth: Arc::default(),
            back: Arc::default(),
            connections: Arc::default(),
            cut: Arc::default(),
        };
        let (forth, back) = (Arc::clone(&proxy.forth), Arc::clone(&proxy.back));
        let (accepted, token) = (Arc::clone(&proxy.connections), Arc::clone(&proxy.cut));
        tokio::spawn(async move {
            while let Ok((dialler, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let stop = token.lock().unwrap().clone();
                let (forth, back) = (Arc::clone(&forth), Arc::clone(&back));
                tokio::spawn(stop.run_until_cancelled_owned(async move {
                    let (from_dialler, to_dialler) = dialler.into_split();
                    let (from_target, to_target) = TcpStream::connect(target).await?.into_split();
                    let Meddling { change_forth, change_back, dribble_forth_after, stall_back_after } = meddling;
                    tokio::try_join!(
                        pass_on(
                            from_dialler,
                            to_target,
                            &forth,
                            change_forth,
                            dribble_forth_after.map(|at| (at, true))
                        ),
                        pass_on(from_target, to_dialler, &back, change_back, stall_back_after.map(|at| (at, false))),
                    )
                }));
            }
        });
        proxy
    }

    /// The same peer by way of this relay.
    pub(crate) fn in_front_of(&self, peer: PeerAddress) -> PeerAddress {
        PeerAddress { address: self.address, ..peer }
    }

    pub(crate) fn cut_all(&self) {
        let mut token = self.cut.lock().unwrap();
        token.cancel();
        *token = CancellationToken::new();
    }
}

/// From `slow.0` on, a byte every now and then, or nothing any more but the end.
async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: &Way,
    change: Option<u64>,
    slow: Option<(u64, bool)>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 65_536];
    let mut position = 0_u64;
    loop {
        let room = match slow {
            Some((after, _)) if position < after => (after - position).min(65_536) as usize,
            Some((_, false)) => return until_closed(&from).await,
            Some((_, true)) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                1
            }
            None => 65_536,
        };
        let count = from.read(&mut buffer[..room]).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        if let Some(at) = change.filter(|at| (position..position + count as u64).contains(at)) {
            buffer[(at - position) as usize] ^= 0x04;
        }
        position += count as u64;
        way.note(&buffer[..count]);
        to.write_all(&buffer[..count]).await?;
    }
}

/// Reads nothing, and notices only that the other end has given up.
async fn until_closed(from: &OwnedReadHalf) -> std::io::Result<()> {
    while !from.ready(Interest::ERROR).await?.is_error() {}
    Err(std::io::ErrorKind::ConnectionReset.into())
}
