//! A member of the network that takes blocks, says that it has them, and hands out other bytes.

use crate::stage::Stage;
use bytes::Bytes;
use chunkstore_block::{BlockId, Reference};
use dht::core::{EntryDigest, OfferAnswer, Position, closest};
use dht::{
    BlockHandler, BlockServer, DigestAnswer, DigestRequest, Discovery, DiscoveryConfig, Keypair, PeerAddress, PeerId,
    PeerStatus, PutRequest, ReferencesPage, Refusal, Status, WireEntry,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// A holder that lies.
pub struct LyingHolder {
    /// Who it is and where its block plane is.
    pub address: PeerAddress,
    handler: Arc<Handler>,
    _discovery: Discovery,
    stop: CancellationToken,
}

struct Handler {
    own: PeerId,
    replication: usize,
    /// Whom it takes for members, itself included.
    members: Vec<PeerAddress>,
    blocks: Mutex<BTreeMap<BlockId, (Bytes, Vec<Reference>)>>,
    lies: AtomicU64,
}

impl LyingHolder {
    /// Joins `others`, by their `bootstrap` addresses.
    pub async fn start(stage: &Stage, others: &[PeerAddress], bootstrap: &[String], replication: usize) -> Self {
        let (keypair, network) = (Keypair::generate_ed25519(), Arc::new(stage.network()));
        let listen = stage.free_address();
        let address = PeerAddress { id: keypair.public().to_peer_id(), address: listen };
        let config = DiscoveryConfig {
            keypair: keypair.clone(),
            network: Arc::clone(&network),
            listen,
            bootstrap: bootstrap.iter().map(|text| text.parse().unwrap()).collect(),
            allow_private_addresses: None,
        };
        let (discovery, _) = Discovery::start(config).await.unwrap();
        let handler = Arc::new(Handler {
            own: address.id,
            replication,
            members: others.iter().copied().chain([address]).collect(),
            blocks: Mutex::default(),
            lies: AtomicU64::new(0),
        });
        let (server, stop) = (BlockServer::bind(listen, keypair, network).await.unwrap(), CancellationToken::new());
        tokio::spawn(server.run(Arc::clone(&handler), stop.clone()));
        Self { address, handler, _discovery: discovery, stop }
    }

    /// How many blocks it says it has.
    pub fn blocks(&self) -> usize {
        self.handler.blocks.lock().unwrap().len()
    }

    /// How often it handed out wrong bytes, or proved something with them.
    pub fn lies(&self) -> u64 {
        self.handler.lies.load(Ordering::Relaxed)
    }
}

impl Drop for LyingHolder {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Handler {
    fn wrong(&self, id: &BlockId) -> Result<(Bytes, Vec<Reference>), Refusal> {
        let (body, references) =
            self.blocks.lock().unwrap().get(id).cloned().ok_or_else(|| Refusal::new(Status::NotFound, "not here"))?;
        self.lies.fetch_add(1, Ordering::Relaxed);
        let mut wrong = body.to_vec();
        wrong[0] ^= 1;
        Ok((wrong.into(), references))
    }
}

impl BlockHandler for Handler {
    async fn get(&self, id: BlockId) -> Result<Bytes, Refusal> {
        self.wrong(&id).map(|(body, _)| body)
    }

    async fn put(&self, _: PeerId, request: PutRequest) -> Result<(), Refusal> {
        self.blocks.lock().unwrap().insert(request.id, (request.body, request.references));
        Ok(())
    }

    async fn add_references(
        &self,
        _: PeerId,
        ids: Vec<BlockId>,
        _: Vec<Reference>,
        _: String,
    ) -> Result<Vec<bool>, Refusal> {
        self.has(ids).await
    }

    async fn has(&self, ids: Vec<BlockId>) -> Result<Vec<bool>, Refusal> {
        Ok(ids.iter().map(|id| self.blocks.lock().unwrap().contains_key(id)).collect())
    }

    /// As an honest node that knows the same members, so that nobody finds a difference.
    async fn digest(&self, from: PeerId, request: DigestRequest) -> Result<DigestAnswer, Refusal> {
        let prefix = dht::core::Prefix::of(&Position::from_bytes(request.prefix), request.bits);
        let all: Vec<_> =
            self.members.iter().map(|member| (member.id, Position::of_peer(&member.id.to_bytes()))).collect();
        let mut entries = BTreeMap::new();
        for (id, (body, references)) in self.blocks.lock().unwrap().iter() {
            let position = Position::of_block(id);
            if prefix.contains(&position) && closest(&position, &all, self.replication).contains(&from) {
                let digest = *EntryDigest::of(id, references).as_bytes();
                entries.insert(position, WireEntry { id: *id, digest, length: body.len() as u32 });
            }
        }
        assert!(entries.len() <= 256, "so many would have to be summed");
        Ok(DigestAnswer::Entries(entries.into_values().collect()))
    }

    async fn audit(&self, _: PeerId, id: BlockId, nonce: [u8; 32]) -> Result<[u8; 32], Refusal> {
        let (body, _) = self.wrong(&id)?;
        let hash = Sha256::new().chain_update(nonce).chain_update(self.own.to_bytes()).chain_update(body);
        Ok(hash.finalize().into())
    }

    async fn offer(&self, _: PeerId, blocks: Vec<(BlockId, u32)>) -> Result<Vec<OfferAnswer>, Refusal> {
        Ok(vec![OfferAnswer::Have; blocks.len()])
    }

    async fn ping(&self, _: PeerId) -> Result<PeerStatus, Refusal> {
        Ok(PeerStatus { room: true, epoch: 1, orders: 0, revocations: 0, revocations_digest: None })
    }

    async fn references(&self, _: PeerId, ids: Vec<BlockId>) -> Result<ReferencesPage, Refusal> {
        let (blocks, mut page) = (self.blocks.lock().unwrap(), ReferencesPage::default());
        let of = |id| blocks.get(id).map(|(_, references)| references.clone()).unwrap_or_default();
        // What does not fit is asked for again.
        let _ = ids.iter().all(|id| page.push(of(id)));
        Ok(page)
    }

    async fn pull(&self, _: PeerId, id: BlockId) -> Result<(Bytes, Vec<Reference>), Refusal> {
        self.wrong(&id)
    }
}
