//! Where the blocks of an upload are when it is acknowledged: two nodes, of which the other one takes what is put on it, and R = 1.

use super::*;
use crate::uploads::Uploads;
use chunkstore::{Store, StoreConfig};
use chunkstore_block::{PlatformFingerprint, PublicationId};
use control_api::signing::VerifiedUpload;
use control_api::{Authority, UploadGrant};
use dht::{
    BlockClient, BlockHandler, BlockServer, Discovery, DiscoveryConfig, Keypair, Multiaddr, Network, PeerId,
    PutRequest, Status,
};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::DropGuard;

const BLOCKS: u8 = 40;
const LIMIT: Duration = Duration::from_secs(20);

/// Remembers what was put on it, and keeps nothing.
#[derive(Default)]
struct Other(Mutex<BTreeSet<BlockId>>);

impl BlockHandler for Other {
    async fn get(&self, _: BlockId) -> Result<Bytes, Refusal> {
        Err(Refusal::new(Status::NotFound, "it keeps nothing"))
    }

    async fn put(&self, _: PeerId, request: PutRequest) -> Result<(), Refusal> {
        self.0.lock().unwrap().insert(request.id);
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
        Ok(vec![false; ids.len()])
    }
}

/// A node that an upload came to, and the other one.
struct Two {
    ingest: Ingest,
    upload: Arc<Upload>,
    other: Arc<Other>,
    _discovery: Discovery,
    _stop: DropGuard,
    _folder: TempDir,
}

impl Two {
    async fn start(keep_until_proved: bool, quota_bytes: u64) -> Self {
        let network = Arc::new(Network::generate().unwrap());
        let (local, stop) = (SocketAddr::from(([127, 0, 0, 1], 0)), CancellationToken::new());
        let discover = |keypair, listen, bootstrap| {
            let network = Arc::clone(&network);
            Discovery::start(DiscoveryConfig { keypair, network, listen, bootstrap, allow_private_addresses: None })
        };
        let (keypair, other) = (Keypair::generate_ed25519(), Arc::new(Other::default()));
        let id = keypair.public().to_peer_id();
        let server = BlockServer::bind(local, keypair.clone(), Arc::clone(&network)).await.unwrap();
        let listen = server.local_addr().unwrap();
        tokio::spawn(server.run(Arc::clone(&other), stop.clone()));
        let (others, _) = discover(keypair, listen, Vec::new()).await.unwrap();
        let bootstrap: Multiaddr = format!("/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{id}", listen.port()).parse().unwrap();

        let keypair = Keypair::generate_ed25519();
        let client = BlockClient::new(keypair.clone(), Arc::clone(&network)).unwrap();
        let (discovery, _) = discover(keypair, local, vec![bootstrap]).await.unwrap();
        let peers = Peers::new(discovery, client, 1);
        let acquainted = async {
            while !peers.look_up(b"any".to_vec()).await.is_ok_and(|found| !found.peers.is_empty()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, acquainted).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("blocks"), &StoreConfig::new(quota_bytes)).unwrap();
        let ingest = Ingest {
            durable: Durable::new(store),
            peers,
            keep_until_proved,
            limits: transcode::Limits::default(),
            ladder: transcode::Ladder::default(),
            transcodes: Arc::new(Semaphore::new(1)),
            stop: stop.clone(),
        };
        let upload = upload(&folder);
        Self { ingest, upload, other, _discovery: others, _stop: stop.drop_guard(), _folder: folder }
    }

    /// Puts blocks as an upload does; how many of them are to be here and are not.
    async fn put(&self) -> u64 {
        let mut placer = Placer::new(&self.ingest, &self.upload);
        for id in 0..BLOCKS {
            placer.place(Block::of(vec![id; 1_000].into())).await.unwrap();
        }
        placer.drain(|_| {}).await.unwrap();
        placer.tell_what_is_not_kept();
        placer.not_kept.map_or(0, |(blocks, _)| blocks)
    }

    fn here(&self) -> BTreeSet<BlockId> {
        all().into_iter().filter(|id| self.ingest.durable.store().has(id).unwrap()).collect()
    }

    fn there(&self) -> BTreeSet<BlockId> {
        self.other.0.lock().unwrap().clone()
    }
}

fn upload(folder: &TempDir) -> Arc<Upload> {
    let reference = Reference {
        platform: PlatformFingerprint::from_bytes([1; 32]),
        publication: PublicationId::from_bytes([2; 16]),
    };
    let uploads =
        Uploads::new(folder.path().join("staging"), folder.path().join("uploads"), 0, CancellationToken::new());
    let authority = Authority { reference, bytes: 1 << 20, expires: u64::MAX };
    let grant = UploadGrant { reference, size: 1 << 20 };
    uploads.register(VerifiedUpload { grant, authority_jws: "a.b.c".into(), authority }).unwrap();
    uploads.get(reference.publication).unwrap()
}

fn all() -> BTreeSet<BlockId> {
    (0..BLOCKS).map(|number| BlockId::of(&[number; 1_000])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_are_to_have_is_kept_here_too() {
    let two = Two::start(true, 1 << 30).await;
    assert_eq!(two.put().await, 0);
    assert!(!two.there().is_empty() && two.there().len() < all().len(), "each is the closest to some");
    assert_eq!(two.here(), all());
    let store = two.ingest.durable.store();
    let reference = two.upload.verified().authority.reference;
    assert!(all().iter().all(|id| store.references(id).unwrap() == [reference]), "or a deletion would leave it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_are_to_have_is_on_them_alone_where_the_operator_wants_it_so() {
    let two = Two::start(false, 1 << 30).await;
    assert_eq!(two.put().await, 0);
    assert!(!two.there().is_empty());
    assert_eq!(two.here(), &all() - &two.there());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_there_is_no_room_for_copies_of_its_own() {
    let two = Two::start(true, 0).await;
    assert_eq!(two.put().await, u64::from(BLOCKS));
    assert_eq!((two.there(), two.here()), (all(), BTreeSet::new()));
}

/// What is seen while a film of 40 blocks is placed: once all are on their way, how many are left.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_blocks_have_a_phase_of_their_own_that_ends_when_all_are_durable() {
    let two = Two::start(false, 1 << 30).await;
    let mut status = two.upload.status.subscribe();
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while status.changed().await.is_ok() {
            let now = status.borrow_and_update();
            seen.push((now.phase, now.percent));
            if seen.last() == Some(&(Phase::Replicating, 100.0)) {
                break;
            }
        }
        seen
    });
    let parts: Vec<_> = (0..BLOCKS).map(|id| Part::Bytes(vec![id; 1_000])).collect();
    let file =
        transcode::LayoutFile { path: "a.mp4".into(), media_type: "video/mp4", parts: (0..parts.len()).collect() };
    let layout = Layout { duration_ms: 1, renditions: Vec::new(), parts, files: vec![file] };
    two.upload.enter(Phase::Storing);
    let done = two.ingest.store(&two.upload, layout, [0; 32]).await.unwrap();
    assert_eq!(done.blocks, u64::from(BLOCKS));
    let index = done.key.block_id();
    assert!(
        two.here().len() + two.there().len() >= usize::from(BLOCKS)
            && (two.there().contains(&index) || two.ingest.durable.store().has(&index).unwrap())
    );

    let seen = tokio::time::timeout(LIMIT, seen).await.unwrap().unwrap();
    let (storing, replicating): (Vec<_>, Vec<_>) =
        seen.iter().copied().partition(|(phase, _)| *phase == Phase::Storing);
    assert!(
        storing.len() + replicating.len() == seen.len()
            && seen.is_sorted_by_key(|(phase, percent)| (*phase == Phase::Replicating, *percent)),
        "{seen:?}"
    );
}
