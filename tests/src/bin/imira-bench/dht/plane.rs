//! Our own ends: a holder with blocks in memory, and a client that fetches them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use chunkstore_block::{BlockId, Reference};
use dht::{
    BlockClient, BlockHandler, BlockServer, ClientLimits, Keypair, Network, PeerAddress, PeerId, PutRequest, Refusal,
    Status,
};
use futures::StreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{BODIES, MIB};
use crate::measure::{Run, Stopwatch};

/// Has the blocks of [`BODIES`], and takes what it is given without keeping it.
#[derive(Default)]
pub(super) struct Holder {
    pub(super) taken_bytes: AtomicU64,
}

impl Holder {
    fn find(id: BlockId) -> Result<Bytes, Refusal> {
        let found = BODIES.iter().find(|(known, _)| *known == id);
        found.map(|(_, body)| body.clone()).ok_or_else(|| Refusal::new(Status::NotFound, "no such block"))
    }
}

impl BlockHandler for Holder {
    async fn get(&self, id: BlockId) -> Result<Bytes, Refusal> {
        Self::find(id)
    }

    async fn put(&self, _from: PeerId, request: PutRequest) -> Result<(), Refusal> {
        self.taken_bytes.fetch_add(request.body.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn add_references(
        &self,
        _from: PeerId,
        ids: Vec<BlockId>,
        _references: Vec<Reference>,
        _authority: String,
    ) -> Result<Vec<bool>, Refusal> {
        Ok(vec![false; ids.len()])
    }

    async fn has(&self, ids: Vec<BlockId>) -> Result<Vec<bool>, Refusal> {
        Ok(ids.into_iter().map(|id| Self::find(id).is_ok()).collect())
    }

    async fn pull(&self, _from: PeerId, id: BlockId) -> Result<(Bytes, Vec<Reference>), Refusal> {
        Ok((Self::find(id)?, vec![super::relay::reference()]))
    }
}

/// A holder that listens, until dropped.
pub(super) struct Served {
    pub(super) peer: PeerAddress,
    pub(super) network: Arc<Network>,
    _stop: DropGuard,
}

impl Served {
    pub(super) async fn start() -> Result<Self> {
        let (network, keypair) = (Arc::new(Network::generate()?), Keypair::generate_ed25519());
        let id = keypair.public().to_peer_id();
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let serving = {
            let (network, stop) = (Arc::clone(&network), stop.clone());
            async move {
                let server = BlockServer::bind(([127, 0, 0, 1], 0).into(), keypair, network).await?;
                let address = server.local_addr()?;
                tell.send(address).map_err(|_| anyhow!("nobody waits for the address"))?;
                server.run(Arc::new(Holder::default()), stop).await;
                anyhow::Ok(())
            }
        };
        // A runtime of its own, as the other node has.
        std::thread::spawn(move || super::runtime()?.block_on(serving));
        let peer = PeerAddress { id, address: told.await? };
        Ok(Self { peer, network, _stop: stop.drop_guard() })
    }

    /// A client with a key of its own that opens so many connections, with so many requests under way on each.
    pub(super) fn client(&self, connections_per_peer: usize, under_way: usize) -> Result<BlockClient> {
        let limits = ClientLimits { connections_per_peer, under_way };
        Ok(BlockClient::with_limits(Keypair::generate_ed25519(), Arc::clone(&self.network), limits)?)
    }
}

/// A holder and a client with one connection.
pub(super) struct Pair {
    served: Served,
    client: BlockClient,
}

impl Pair {
    pub(super) async fn start(under_way: usize) -> Result<Self> {
        let served = Served::start().await?;
        let client = served.client(1, under_way)?;
        Ok(Self { served, client })
    }

    /// Fetches blocks, so many at a time.
    pub(super) async fn fetch(&self, fetches: usize, under_way: usize) -> Result<Run> {
        let watch = Stopwatch::start();
        let fetched = futures::stream::iter(0..fetches)
            .map(|at| {
                let (client, peer) = (self.client.clone(), self.served.peer);
                // A task of its own, as in a node: it hashes while others read.
                tokio::spawn(async move { client.get(peer, BODIES[at % BODIES.len()].0).await.map(|body| body.len()) })
            })
            .buffer_unordered(under_way);
        let lengths: Vec<_> = fetched.collect().await;
        let run = watch.stop((fetches * MIB) as u64);
        for length in lengths {
            ensure!(length?? == MIB, "a block of another length came");
        }
        Ok(run)
    }
}
