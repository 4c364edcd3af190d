//! What slow and malicious members can take from a node, and what is left for the others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod plane;

use bytes::Bytes;
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES, Reference};
use dht::{BlockClient, BlockHandler, ClientLimits, PeerAddress, PeerId, PutRequest, Refusal, ServerLimits};
use plane::{Meddling, Proxy, block, client, client_with, network, put, serve_with};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const MEMBERS: usize = 25;
const CONNECTIONS_EACH: usize = 8;
const MIB: usize = 1 << 20;
/// Handshake and hello are more, a handshake alone is less.
const GREETED_BYTES: u64 = 230;
/// Requests of a member that reads and writes, while the others do not.
const FAST_REQUESTS: usize = 20;
/// For one of them, on a machine that does other things besides.
const PROMPT: Duration = Duration::from_secs(2);
/// After so long a slow member is cut off; much later than [`PROMPT`], so that nobody fast has waited for it.
const SLOW: Duration = Duration::from_secs(8);
/// For what must come to pass.
const LIMIT: Duration = Duration::from_secs(100);

/// Reads a block from disk, so to speak: each answer has memory of its own.
struct Disk(Bytes);

impl BlockHandler for Disk {
    async fn get(&self, _id: BlockId) -> Result<Bytes, Refusal> {
        Ok(Bytes::copy_from_slice(&self.0))
    }

    async fn put(&self, _from: PeerId, request: PutRequest) -> Result<(), Refusal> {
        assert_eq!(request.body, self.0);
        Ok(())
    }

    async fn add_references(
        &self,
        _from: PeerId,
        ids: Vec<BlockId>,
        _references: Vec<Reference>,
        _authority: String,
    ) -> Result<Vec<bool>, Refusal> {
        Ok(vec![true; ids.len()])
    }

    async fn has(&self, ids: Vec<BlockId>) -> Result<Vec<bool>, Refusal> {
        Ok(vec![true; ids.len()])
    }
}

/// All of the members' requests, each over a connection of its own through a relay that is slow. They are made member by
/// member, since handshakes have a deadline.
async fn besiege<A>(
    peer: PeerAddress,
    network: &Arc<dht::Network>,
    meddling: Meddling,
    ask: impl Fn(BlockClient, PeerAddress) -> A,
) -> JoinSet<bool>
where
    A: Future<Output = bool> + Send + 'static,
{
    let mut asking = JoinSet::new();
    for _ in 0..MEMBERS {
        let limits = ClientLimits { connections_per_peer: CONNECTIONS_EACH, under_way: 1 };
        let (client, mut relays) = (client_with(network, limits), Vec::new());
        for _ in 0..CONNECTIONS_EACH {
            let relay = Proxy::start(peer.address, meddling).await;
            asking.spawn(ask(client.clone(), relay.in_front_of(peer)));
            relays.push(relay);
        }
        eventually("the handshakes", || relays.iter().all(|r| r.back.bytes.load(Ordering::Relaxed) > GREETED_BYTES))
            .await;
    }
    asking
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "{what} did not come to pass");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A value of `/proc/self/status`, in bytes.
fn memory(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_slow_readers_stay_within_the_budget() {
    let network = network();
    let (id, body) = block(MAX_BLOCK_BYTES);
    let limits = ServerLimits { send: SLOW, room: Duration::from_secs(5), ..ServerLimits::default() };
    let served = serve_with(&network, Disk(body.clone()), limits.clone()).await;
    let before = memory("VmRSS");
    let stalling = Meddling { stall_back_after: Some(GREETED_BYTES + 1_000), ..Meddling::default() };
    let slow =
        besiege(served.peer, &network, stalling, |client, peer| async move { client.get(peer, id).await.is_ok() });
    let slow = slow.await;
    eventually("the siege", || served.bodies.held_bytes() > MEMBERS * MIB).await;

    let fast = client(&network);
    for at in 0..FAST_REQUESTS {
        let begun = Instant::now();
        assert_eq!(fast.get(served.peer, id).await.unwrap(), body);
        assert!(begun.elapsed() < PROMPT, "fetch {at} took {:?}", begun.elapsed());
    }

    let outcomes = slow.join_all().await;
    assert_eq!(outcomes, [false; MEMBERS * CONNECTIONS_EACH], "a slow reader is cut off");
    eventually("everything given back", || served.bodies.held_bytes() == 0).await;
    let (most, grown) = (served.bodies.most_held_bytes(), memory("VmHWM").saturating_sub(before));
    eprintln!("at most {most} bytes of bodies, memory grew by {grown}");
    assert!(most <= limits.body_bytes);
    assert!(grown < 2 * limits.body_bytes, "memory grew by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_writers_that_announce_blocks_and_dribble_stay_within_the_budget() {
    let network = network();
    let (id, body) = block(MAX_BLOCK_BYTES);
    let limits = ServerLimits { frame: SLOW, room: Duration::from_secs(5), ..ServerLimits::default() };
    let served = serve_with(&network, Disk(body.clone()), limits.clone()).await;
    let before = memory("VmRSS");
    // Enough for the first message with the announcement, and a little of the block.
    let dribbling = Meddling { dribble_forth_after: Some(80_000), ..Meddling::default() };
    let announced = body.clone();
    let slow = besiege(served.peer, &network, dribbling, |client, peer| {
        let block = (id, announced.clone());
        async move { put(&client, peer, block).await.is_ok() }
    });
    let slow = slow.await;
    eventually("the siege", || served.bodies.held_bytes() > MEMBERS * MIB).await;

    let fast = client(&network);
    for at in 0..FAST_REQUESTS {
        let begun = Instant::now();
        put(&fast, served.peer, (id, body.clone())).await.unwrap();
        assert!(begun.elapsed() < PROMPT, "put {at} took {:?}", begun.elapsed());
    }
    let outcomes = slow.join_all().await;
    assert_eq!(outcomes, [false; MEMBERS * CONNECTIONS_EACH], "a writer that dribbles is cut off");
    eventually("everything given back", || served.bodies.held_bytes() == 0).await;
    let (most, grown) = (served.bodies.most_held_bytes(), memory("VmHWM").saturating_sub(before));
    eprintln!("at most {most} bytes of bodies announced, memory grew by {grown}");
    assert!(most <= limits.body_bytes);
    assert!(grown < 2 * limits.body_bytes, "memory grew by {grown} bytes");
}
