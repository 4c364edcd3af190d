//! The block plane over real sockets: what members can do and what strangers cannot.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES, PlatformFingerprint, PublicationId, Reference};
use dht::Refusals;
use dht::{
    BlockClient, BlockHandler, BlockServer, Keypair, Network, NetworkKey, PeerAddress, PeerId, PutRequest, Refusal,
    Status, TransferError,
};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A holder that keeps blocks in memory and accepts the authority `"allowed"` only.
#[derive(Default)]
struct Memory {
    blocks: Mutex<BTreeMap<BlockId, Bytes>>,
    /// Sent instead of the block, by a holder that lies.
    lie: Option<Bytes>,
}

impl BlockHandler for Memory {
    async fn get(&self, id: BlockId) -> Result<Bytes, Refusal> {
        if let Some(lie) = &self.lie {
            return Ok(lie.clone());
        }
        let found = self.blocks.lock().unwrap().get(&id).cloned();
        found.ok_or_else(|| Refusal::new(Status::NotFound, "no such block"))
    }

    async fn put(&self, _from: PeerId, request: PutRequest) -> Result<(), Refusal> {
        if request.authority != "allowed" {
            return Err(Refusal::new(Status::Refused, "not the authority of this test"));
        }
        if BlockId::of(&request.body) != request.id {
            return Err(Refusal::new(Status::Mismatch, "the body is another block"));
        }
        self.blocks.lock().unwrap().insert(request.id, request.body);
        Ok(())
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
        let blocks = self.blocks.lock().unwrap();
        Ok(ids.iter().map(|id| blocks.contains_key(id)).collect())
    }
}

struct Served {
    peer: PeerAddress,
    refused: Arc<Refusals>,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(network: &Arc<Network>, handler: Memory) -> Served {
    let keypair = Keypair::generate_ed25519();
    let id = keypair.public().to_peer_id();
    let server = BlockServer::bind("127.0.0.1:0".parse().unwrap(), keypair, Arc::clone(network)).await.unwrap();
    let peer = PeerAddress { id, address: server.local_addr().unwrap() };
    let (refused, stop) = (server.refused(), CancellationToken::new());
    tokio::spawn(server.run(Arc::new(handler), stop.clone()));
    Served { peer, refused, stop }
}

fn network() -> Arc<Network> {
    Arc::new(Network::generate().unwrap())
}

fn client(network: &Arc<Network>) -> BlockClient {
    BlockClient::new(Keypair::generate_ed25519(), Arc::clone(network)).unwrap()
}

fn references() -> Vec<Reference> {
    vec![Reference {
        platform: PlatformFingerprint::from_bytes([1; 32]),
        publication: PublicationId::from_bytes([2; 16]),
    }]
}

fn block(length: usize) -> (BlockId, Bytes) {
    let body: Bytes = (0..length).map(|i| (i * 31 % 251) as u8).collect();
    (BlockId::of(&body), body)
}

async fn put(client: &BlockClient, peer: PeerAddress, (id, body): (BlockId, Bytes)) -> Result<(), TransferError> {
    client.put(peer, id, body, references(), "allowed".into()).await
}

#[tokio::test]
async fn blocks_of_every_length_go_there_and_back() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let client = client(&network);
    // Around the edges of a Noise message (65,519 bytes of plaintext with the envelope and head in the first).
    for length in [0, 1, 65_000, 65_400, 65_450, 65_519, 131_038, MAX_BLOCK_BYTES - 1, MAX_BLOCK_BYTES] {
        let (id, body) = block(length);
        put(&client, served.peer, (id, body.clone())).await.unwrap();
        assert_eq!(client.get(served.peer, id).await.unwrap(), body, "length {length}");
    }
    let (known, other) = (block(1).0, BlockId::of(b"other"));
    assert_eq!(client.has(served.peer, vec![known, other]).await.unwrap(), [true, false]);
    let marked = client.add_references(served.peer, vec![other, known], references(), "allowed".into()).await.unwrap();
    assert_eq!(marked, [false, true]);
}

#[tokio::test]
async fn many_requests_at_once_share_a_few_connections() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let proxy = Proxy::start(served.peer.address, None).await;
    let through = PeerAddress { address: proxy.address, ..served.peer };
    let client = client(&network);
    let (id, body) = block(300_000);
    put(&client, through, (id, body.clone())).await.unwrap();
    let fetches = (0..64).map(|_| client.get(through, id));
    for fetched in futures::future::join_all(fetches).await {
        assert_eq!(fetched.unwrap(), body);
    }
    assert!(proxy.connections.load(Ordering::Relaxed) <= 4, "a pool of 4 connections for each peer");
}

#[tokio::test]
async fn refusals_carry_their_status() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let client = client(&network);
    let missing = client.get(served.peer, BlockId::of(b"never stored")).await.unwrap_err();
    assert_eq!(missing.status(), Some(Status::NotFound));
    let (id, body) = block(10);
    let unauthorised = client.put(served.peer, id, body.clone(), references(), "forged".into()).await.unwrap_err();
    assert_eq!(unauthorised.status(), Some(Status::Refused));
    let mismatch = put(&client, served.peer, (BlockId::of(b"else"), body)).await.unwrap_err();
    assert_eq!(mismatch.status(), Some(Status::Mismatch));
}

#[tokio::test]
async fn a_lying_holder_is_caught() {
    let network = network();
    let served = serve(&network, Memory { lie: Some(Bytes::from_static(b"not it")), ..Memory::default() }).await;
    let error = client(&network).get(served.peer, BlockId::of(b"it")).await.unwrap_err();
    assert!(matches!(error, TransferError::WrongBytes), "{error}");
}

#[tokio::test]
async fn another_network_key_is_refused_within_a_second() {
    let ours = network();
    let served = serve(&ours, Memory::default()).await;
    let stranger = Arc::new(Network::new(ours.id(), vec![NetworkKey::generate().unwrap()]).unwrap());
    let begun = Instant::now();
    assert!(client(&stranger).get(served.peer, BlockId::of(b"x")).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(served.refused.count(), 1);
}

#[tokio::test]
async fn a_silent_stranger_is_disconnected_within_a_second_and_is_told_nothing() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let mut stranger = TcpStream::connect(served.peer.address).await.unwrap();
    let begun = Instant::now();
    let mut heard = Vec::new();
    stranger.read_to_end(&mut heard).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(heard.is_empty());
}

#[tokio::test]
async fn rotation_works_with_the_previous_key() {
    let old = Network::generate().unwrap();
    let during = Network::new(old.id(), vec![NetworkKey::generate().unwrap(), old.keys()[0].clone()]).unwrap();
    let (old, during) = (Arc::new(old), Arc::new(during));
    let served_old = serve(&old, Memory::default()).await;
    let served_during = serve(&during, Memory::default()).await;
    put(&client(&during), served_old.peer, block(5)).await.unwrap();
    put(&client(&old), served_during.peer, block(5)).await.unwrap();
}

#[tokio::test]
async fn the_wrong_peer_at_the_right_address_is_noticed() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let elsewhere = PeerAddress { id: Keypair::generate_ed25519().public().to_peer_id(), ..served.peer };
    let error = client(&network).get(elsewhere, BlockId::of(b"x")).await.unwrap_err();
    assert!(matches!(error, TransferError::Handshake(_)), "{error}");
}

#[tokio::test]
async fn a_dead_pooled_connection_is_replaced() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let proxy = Proxy::start(served.peer.address, None).await;
    let through = PeerAddress { address: proxy.address, ..served.peer };
    let client = client(&network);
    put(&client, through, block(7)).await.unwrap();
    proxy.cut_all();
    assert_eq!(client.get(through, block(7).0).await.unwrap(), block(7).1);
}

/// Flips one bit at every byte of what the dialler sends: handshake, request, block.
#[tokio::test]
async fn a_changed_byte_anywhere_on_the_wire_is_never_accepted() {
    let network = network();
    let served = serve(&network, Memory::default()).await;
    let clean = Proxy::start(served.peer.address, None).await;
    let through = PeerAddress { address: clean.address, ..served.peer };
    put(&client(&network), through, block(40)).await.unwrap();
    let total = clean.forwarded.load(Ordering::Relaxed);
    assert!(total > 300, "the proxy saw only {total} bytes");
    let target = served.peer.address;
    let attempts = (0..total).map(|at| {
        let network = Arc::clone(&network);
        async move {
            let proxy = Proxy::start(target, Some(at)).await;
            let tampered = PeerAddress { address: proxy.address, ..through };
            let unique = block(1000 + at as usize);
            let outcome = put(&client(&network), tampered, unique.clone()).await;
            (at, outcome, unique.0)
        }
    });
    // The attempts wait for deadlines, so they run side by side.
    let mut outcomes: Vec<_> = futures::stream::iter(attempts).buffer_unordered(128).collect().await;
    outcomes.sort_by_key(|(at, ..)| *at);
    let check = client(&network);
    for (at, outcome, id) in outcomes {
        assert!(outcome.is_err(), "accepted with byte {at} changed");
        assert_eq!(check.has(served.peer, vec![id]).await.unwrap(), [false], "stored with byte {at} changed");
    }
}

/// A TCP relay that can change one byte of what the dialler sends, and cut its connections.
struct Proxy {
    address: SocketAddr,
    forwarded: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    cut: Arc<Mutex<CancellationToken>>,
}

impl Proxy {
    async fn start(target: SocketAddr, change: Option<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let forwarded = Arc::new(AtomicU64::new(0));
        let connections = Arc::new(AtomicU64::new(0));
        let accepted = Arc::clone(&connections);
        let cut = Arc::new(Mutex::new(CancellationToken::new()));
        let (counter, token) = (Arc::clone(&forwarded), Arc::clone(&cut));
        tokio::spawn(async move {
            while let Ok((dialler, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let stop = token.lock().unwrap().clone();
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = relay(dialler, target, change, counter) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        });
        Self { address, forwarded, connections, cut }
    }

    fn cut_all(&self) {
        let mut token = self.cut.lock().unwrap();
        token.cancel();
        *token = CancellationToken::new();
    }
}

async fn relay(
    dialler: TcpStream,
    target: SocketAddr,
    change: Option<u64>,
    counter: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let (mut from_dialler, mut to_dialler) = dialler.into_split();
    let (mut from_target, mut to_target) = TcpStream::connect(target).await?.into_split();
    let forth = async {
        let mut buffer = vec![0; 65_536];
        let mut position = 0_u64;
        loop {
            let count = from_dialler.read(&mut buffer).await?;
            if count == 0 {
                return to_target.shutdown().await;
            }
            if let Some(at) = change.filter(|at| (position..position + count as u64).contains(at)) {
                buffer[(at - position) as usize] ^= 0x04;
            }
            position += count as u64;
            counter.fetch_add(count as u64, Ordering::Relaxed);
            to_target.write_all(&buffer[..count]).await?;
        }
    };
    let back = async {
        tokio::io::copy(&mut from_target, &mut to_dialler).await?;
        to_dialler.shutdown().await
    };
    tokio::try_join!(forth, back).map(|_| ())
}
