//! Two hundred slow connections, and what their tests measure. The memory is the process's, so each test is a program of its own.

use crate::holders::Holder;
use crate::plane::{Meddling, Proxy, client_with};
use bytes::Bytes;
use chunkstore_block::BlockId;
use dht::{BlockClient, ClientLimits, PeerAddress, PutRequest, Refusal};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

pub(crate) const MEMBERS: usize = 25;
pub(crate) const CONNECTIONS_EACH: usize = 8;
pub(crate) const MIB: usize = 1 << 20;
/// Handshake and hello are more, a handshake alone is less.
pub(crate) const GREETED_BYTES: u64 = 230;
/// Requests of a member that reads and writes, while the others do not.
pub(crate) const FAST_REQUESTS: usize = 20;
/// For one of them, on a machine that does other things besides.
pub(crate) const PROMPT: Duration = Duration::from_secs(2);
/// After so long a slow member is cut off; much later than [`PROMPT`], so that nobody fast has waited for it.
pub(crate) const SLOW: Duration = Duration::from_secs(8);
/// For what must come to pass.
const LIMIT: Duration = Duration::from_secs(100);

/// Reads a block from disk, so to speak: each answer has memory of its own.
pub(crate) struct Disk(pub(crate) Bytes);

impl Holder for Disk {
    async fn get(&self, _id: BlockId) -> Result<Bytes, Refusal> {
        Ok(Bytes::copy_from_slice(&self.0))
    }

    async fn put(&self, request: PutRequest) -> Result<(), Refusal> {
        assert_eq!(request.body, self.0);
        Ok(())
    }
}

/// All of the members' requests, each over a connection of its own through a relay that is slow. They are made member by
/// member, since handshakes have a deadline.
pub(crate) async fn besiege<A>(
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

pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "{what} did not come to pass");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A value of `/proc/self/status`, in bytes.
pub(crate) fn memory(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}
