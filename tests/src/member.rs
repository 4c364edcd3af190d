//! A member of the network that is no node: it puts blocks as an ingest node would, under the authority of a platform of its own, and
//! remembers what was acknowledged.

use crate::stage::{Node, Stage};
use bytes::Bytes;
use chunkstore_block::{BlockId, NetworkId, PublicationId, Reference};
use control_api::signing::{AuthorityClaims, DeletionClaims};
use control_api::{PlatformKey, PlatformKeySize};
use dht::core::{Position, closest};
use dht::{BlockClient, Keypair, PeerAddress, PeerId, TransferError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// More than any test puts.
const ALLOWANCE_BYTES: u64 = 64 << 30;
const LIFETIME: u64 = 24 * 3600;
/// Puts under way at a time.
const AT_A_TIME: usize = 8;
/// A node that was stopped a moment ago may not be known to be.
const TRIES: usize = 3;

/// The platform's key, a node key, and the block plane.
pub struct Member {
    /// The platform whose word it has.
    pub platform: PlatformKey,
    /// For what the tests do themselves.
    pub client: BlockClient,
    id: PeerId,
    pub(crate) network: NetworkId,
    replication: usize,
}

/// Blocks that were acknowledged by R nodes.
pub type Acknowledged = BTreeSet<BlockId>;

impl Member {
    /// A platform key, before there is a stage that pins it.
    pub fn platform_key() -> PlatformKey {
        PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap()
    }

    /// A member of the stage's network, whose nodes pin `platform`.
    pub fn new(stage: &Stage, platform: PlatformKey, replication: usize) -> Self {
        let keypair = Keypair::generate_ed25519();
        let id = keypair.public().to_peer_id();
        let client = BlockClient::new(keypair, Arc::new(stage.network())).unwrap();
        Self { platform, client, id, network: stage.network_id(), replication }
    }

    /// The publication with a number.
    pub fn reference(&self, publication: u8) -> Reference {
        Reference { platform: self.platform.fingerprint(), publication: PublicationId::from_bytes([publication; 16]) }
    }

    /// The platform's word for a publication.
    pub fn authority(&self, publication: u8) -> String {
        let claims = AuthorityClaims {
            node: self.id.to_base58().parse().unwrap(),
            network: self.network,
            publication: self.reference(publication).publication,
            bytes: ALLOWANCE_BYTES,
            issued: now(),
            lifetime: LIFETIME,
        };
        self.platform.sign_authority(&claims).unwrap()
    }

    /// The platform's order to delete a publication.
    pub fn deletion(&self, publication: u8, sequence: u64) -> String {
        let publication = self.reference(publication).publication;
        let claims = DeletionClaims { network: self.network, publication, sequence, issued: now() };
        self.platform.sign_deletion(&claims).unwrap()
    }

    /// Puts `count` new random blocks of `bytes` bytes, each on the R closest of `nodes` that take it; which were acknowledged.
    pub async fn put(&self, nodes: &[PeerAddress], publication: u8, count: usize, bytes: usize) -> Acknowledged {
        self.put_bodies(nodes, publication, (0..count).map(|_| random_block(bytes)).collect(), AT_A_TIME).await
    }

    /// Puts these blocks, `writers` at a time.
    pub async fn put_bodies(
        &self,
        nodes: &[PeerAddress],
        publication: u8,
        bodies: Vec<Bytes>,
        writers: usize,
    ) -> Acknowledged {
        let authority = self.authority(publication);
        let puts = bodies.into_iter().map(|body| self.put_one(nodes, publication, &authority, body));
        let put: Vec<_> = futures::stream::iter(puts).buffer_unordered(writers).collect().await;
        put.into_iter().flatten().collect()
    }

    /// `None` if fewer than R nodes took it: it is not acknowledged then.
    async fn put_one(&self, nodes: &[PeerAddress], publication: u8, authority: &str, body: Bytes) -> Option<BlockId> {
        let id = BlockId::of(&body);
        let mut waiting = ranked(&id, nodes).into_iter();
        let (mut holders, mut under_way) = (0, FuturesUnordered::new());
        loop {
            let wanted = self.replication - holders - under_way.len();
            under_way
                .extend(waiting.by_ref().take(wanted).map(|node| self.put_on(node, publication, authority, id, &body)));
            match under_way.next().await {
                Some(true) => holders += 1,
                Some(false) => {}
                None => return (holders == self.replication).then_some(id),
            }
        }
    }

    async fn put_on(&self, node: PeerAddress, publication: u8, authority: &str, id: BlockId, body: &Bytes) -> bool {
        for _ in 0..TRIES {
            let references = vec![self.reference(publication)];
            match self.client.put(node, id, body.clone(), references, authority.to_owned()).await {
                Ok(()) => return true,
                Err(TransferError::Refused(_)) => return false,
                Err(_) => {}
            }
        }
        false
    }
}

/// Where acknowledged blocks are, against where they belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Blocks that were looked for.
    pub blocks: usize,
    /// Of them, those of which no node has a copy.
    pub lost: usize,
    /// Of them, those on exactly the R closest nodes and nowhere else.
    pub exact: usize,
    /// Copies that are lacking on one of the R closest.
    pub missing: usize,
    /// Copies elsewhere.
    pub surplus: usize,
    /// Copies of the block that has the fewest.
    pub fewest: usize,
}

impl Copies {
    /// Asks each node for its list, and counts. `nodes` must answer.
    pub async fn count(nodes: &[&Node], blocks: &Acknowledged, replication: usize) -> Self {
        let mut holders: BTreeMap<BlockId, BTreeSet<PeerId>> = BTreeMap::new();
        for node in nodes {
            for stored in node.stored().await {
                holders.entry(stored.id).or_default().insert(node.address.id);
            }
        }
        let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
        let mut copies = Self { blocks: blocks.len(), fewest: nodes.len(), ..Self::default() };
        for id in blocks {
            let belongs: BTreeSet<_> =
                ranked(id, &addresses).into_iter().take(replication).map(|peer| peer.id).collect();
            let has = holders.remove(id).unwrap_or_default();
            copies.lost += usize::from(has.is_empty());
            copies.fewest = copies.fewest.min(has.len());
            copies.exact += usize::from(has == belongs);
            copies.missing += belongs.difference(&has).count();
            copies.surplus += has.difference(&belongs).count();
        }
        copies
    }

    /// Whether every block is on exactly its R closest nodes.
    pub fn are_exact(&self) -> bool {
        self.exact == self.blocks
    }

    /// For `scripts/counts.sh`: one line of what was counted, after the name of the test.
    #[expect(clippy::print_stderr, reason = "the test runner keeps it unless the script asks")]
    fn tell(self, nodes: usize, waited: Duration) {
        let Self { blocks, lost, exact, missing, surplus, fewest } = self;
        let test = std::thread::current().name().map_or_else(String::new, |name| name.replace('_', " "));
        eprintln!(
            "counts: {blocks} blocks on {nodes} nodes: {lost} lost, {fewest} copies at least, {exact} on exactly their closest, \
             {missing} missing, {surplus} surplus, after {:.1} s ({test})",
            waited.as_secs_f64()
        );
    }

    /// Waits until they are, and says how it went if they never are.
    pub async fn until_exact(nodes: &[&Node], blocks: &Acknowledged, replication: usize, limit: Duration) -> Self {
        let begun = std::time::Instant::now();
        loop {
            let copies = Self::count(nodes, blocks, replication).await;
            if copies.are_exact() {
                copies.tell(nodes.len(), begun.elapsed());
                return copies;
            }
            if begun.elapsed() > limit {
                let mut states = Vec::new();
                for node in nodes {
                    states.push((node.address.id, node.client.node().await.map(|status| status.replicas)));
                }
                panic!("not on the {replication} closest within {limit:?}: {copies:?}; {states:#?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Nodes by their distance to a block, closest first.
pub fn ranked(id: &BlockId, nodes: &[PeerAddress]) -> Vec<PeerAddress> {
    let all: Vec<_> = nodes.iter().map(|node| (*node, Position::of_peer(&node.id.to_bytes()))).collect();
    closest(&Position::of_block(id), &all, all.len())
}

/// A block of random bytes.
pub fn random_block(bytes: usize) -> Bytes {
    let mut body = vec![0; bytes];
    rand::RngExt::fill(&mut rand::rng(), body.as_mut_slice());
    body.into()
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}
