//! What the HTTP routers ask of this node.

use crate::blocks::Blocks;
use crate::deletions::Deletions;
use crate::housekeeping::Housekeeper;
use crate::ingest::Ingest;
use crate::receipts::Receipts;
use crate::replication::Replication;
use crate::seen::SeenUntil;
use crate::uploads::{Received, Staged, Step, Upload, Uploads, unknown_upload};
use bytes::Bytes;
use chunkstore::Room;
use chunkstore_block::{BlockId, ContentKey, Loader, NetworkId, PlatformFingerprint, PublicationId};
use control_api::signing::{Acknowledgement, VerifiedUpload};
use control_api::tus::{Append, Creation, FileId, FileState};
use control_api::types::{
    LookupsStatus, NodeStatus, NotReady, PeerEntry, Reachability, ReceiptsResponse, RefusedStatus, ReplicasStatus,
    StorageStatus, StoredBlockEntry, TrafficStatus,
};
use control_api::work::WorkStream;
use control_api::{
    Clock, Content, DeletionEntry, DeletionOutcome, ErrorKind, NodeBackend, NodeId, PinnedKeys, Problem, TokenDigest,
    TransferGauge, UploadStatus, VerifiedDeletion,
};
use dht::core::Health;
use dht::{LookupCounts, Reached, Refusals};
use futures::Stream;
use lru::LruCache;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Contents whose index is kept in memory, decoded: a two-hour film of five rungs takes about 4 MB.
const KEPT_CONTENTS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Pages of one index that are read: a film of 1 TB has about 60. Bounds a content in memory to about 0.5 GB, which only an
/// index made for that purpose comes near.
const MAX_PAGES: usize = 128;
/// Fragments of all contents that are kept: about 150 MB.
const KEPT_FRAGMENTS: usize = 2_000_000;
/// The platform waits for its token that long at the most.
const REPLICATION_CHECK: Duration = Duration::from_secs(2);
/// After a restart, uploads wait so long for the network before they are processed at the risk that nobody takes their blocks.
const ACQUAINTANCE: Duration = Duration::from_secs(600);
/// A transfer weighs as much in the load as a sixteenth of an upload (docs/api.md, `load`).
const TRANSFERS_PER_UPLOAD: f64 = 16.0;

/// The running node.
pub(crate) struct Node {
    pub(crate) about: About,
    pub(crate) blocks: Blocks,
    pub(crate) housekeeper: Housekeeper,
    pub(crate) deletions: Arc<Deletions>,
    pub(crate) replication: Replication,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) transfers: TransferGauge,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: TaskTracker,
    pub(crate) seen: SeenUntil,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) contents: Mutex<LruCache<ContentKey, Arc<Content>>>,
}

/// What does not change while the node runs.
pub(crate) struct About {
    pub(crate) peer_id: NodeId,
    pub(crate) network_id: NetworkId,
    pub(crate) started: u64,
    pub(crate) replication: usize,
    pub(crate) delivery_url: String,
    pub(crate) max_upload_bytes: AtomicU64,
    /// The port that other nodes connect to.
    pub(crate) port: u16,
    /// Those of the block plane.
    pub(crate) refused: Arc<Refusals>,
    pub(crate) data: PathBuf,
    /// The platforms that are served; shared with whoever checks their signatures.
    pub(crate) platforms: PinnedKeys,
}

impl Node {
    pub(crate) fn new_contents() -> Mutex<LruCache<ContentKey, Arc<Content>>> {
        Mutex::new(LruCache::new(KEPT_CONTENTS))
    }

    fn load(&self) -> f64 {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // The kernel counts in 1/65,536 (getloadavg and sysinfo(2), SI_LOAD_SHIFT).
        let average = rustix::system::sysinfo().loads[0] as f64 / 65_536.0;
        self.uploads.working() as f64
            + self.transfers.running() as f64 / TRANSFERS_PER_UPLOAD
            + average / processors as f64
    }

    /// Refuses a file that would not fit beside what is stored and what other uploads take. What is made from it comes on top
    /// and meets the quota block by block.
    fn check_room(&self, size: u64, others: Staged) -> Result<(), Problem> {
        if size > self.room_for_uploads(others)? {
            return Err(Problem::new(
                ErrorKind::NoRoom,
                format!("This node has no room for {size} more bytes. Ask the platform for another node."),
            ));
        }
        Ok(())
    }

    /// Bytes that one more upload may have: of the quota without the reserve for repair, and of the disk.
    pub(crate) fn room_for_uploads(&self, others: Staged) -> Result<u64, Problem> {
        let quota = self.blocks.durable.store().free_bytes(Room::Upload).saturating_sub(others.bytes);
        let disk = rustix::fs::statvfs(&self.about.data).map_err(|error| Problem::internal(&error))?;
        let disk = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(others.still_coming);
        Ok(quota.min(disk))
    }

    /// Refuses an upload that could not be kept on R nodes: better now than after an hour of transcoding.
    async fn check_replication(&self) -> Result<(), Problem> {
        // Peers that do not answer are left out of a lookup, and any key does. While it waits for one that may have died,
        // nothing is known for certain, and the upload gets its chance.
        let lookup = self.blocks.peers.discovery().lookup(BlockId::of(&[]));
        let Ok(found) = tokio::time::timeout(REPLICATION_CHECK, lookup).await else { return Ok(()) };
        let found = found.map_err(|error| Problem::internal(&error))?;
        let nodes = found.peers.len() + 1;
        if found.is_complete && nodes < self.about.replication {
            return Err(Problem::new(
                ErrorKind::NotReplicated,
                format!(
                    "{nodes} of the network's nodes answer, and each block is kept on {}. Try again when more are up.",
                    self.about.replication
                ),
            ));
        }
        Ok(())
    }

    fn upload(&self, publication: PublicationId) -> Result<Arc<Upload>, Problem> {
        self.uploads.get(publication).ok_or_else(|| unknown_upload("Ask the platform for a new token."))
    }

    /// Runs what changes an upload, also when the client that asked for it goes.
    async fn to_its_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        match self.tasks.spawn(change).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Problem::internal(&error)),
        }
    }

    /// Processes a file if it is whole now.
    fn go_on<T>(&self, upload: Arc<Upload>, step: Step<T>) -> T {
        if let Some(received) = step.received {
            self.process(upload, received);
        }
        step.answer
    }

    fn process(&self, upload: Arc<Upload>, received: Received) {
        let ingest = Arc::clone(&self.ingest);
        self.tasks.spawn(async move { ingest.run(&upload, received).await });
    }

    /// Processes what an earlier run had received, as soon as there are nodes to place blocks on.
    pub(crate) fn process_again(self: &Arc<Self>, uploads: Vec<(Arc<Upload>, Received)>) {
        for (upload, received) in uploads {
            let node = Arc::clone(self);
            self.tasks.spawn(async move {
                let acquainted = async {
                    while node.check_replication().await.is_err() {
                        tokio::time::sleep(REPLICATION_CHECK).await;
                    }
                };
                tokio::select! {
                    // Whether it goes on or ends is for the processing to say.
                    _ = tokio::time::timeout(ACQUAINTANCE, acquainted) => {}
                    _ = upload.ended() => {}
                    () = node.ingest.stop.cancelled() => {}
                }
                node.ingest.run(&upload, received).await;
            });
        }
    }

    fn kept_content(&self, key: ContentKey) -> Option<Arc<Content>> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// Keeps a decoded index; those not used for longest go when there are too many fragments.
    fn keep_content(&self, key: ContentKey, content: Arc<Content>) {
        let mut kept = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        kept.put(key, content);
        let mut fragments: usize = kept.iter().map(|(_, content)| content.index().fragments.len()).sum();
        while fragments > KEPT_FRAGMENTS {
            let Some((_, oldest)) = kept.pop_lru() else { return };
            fragments -= oldest.index().fragments.len();
        }
    }

    async fn load_content(&self, key: ContentKey) -> Result<Content, Problem> {
        let not_an_index =
            |error| Problem::new(ErrorKind::NotFound, format!("{key} names no index block that can be read: {error}."));
        let root = self.blocks.fetch(key.block_id()).await?;
        let mut loader = Loader::new(key, &root).map_err(not_an_index)?;
        let mut pages = 0;
        while let Some(page) = loader.wanted() {
            pages += 1;
            if pages > MAX_PAGES {
                return Err(Problem::new(
                    ErrorKind::NotFound,
                    format!("The index of {key} is larger than this node reads."),
                ));
            }
            let bytes = self.blocks.fetch(page.id).await?;
            loader.supply(page.id, &bytes).map_err(not_an_index)?;
        }
        let loaded = loader.finish().map_err(not_an_index)?;
        Ok(Content::new(key, root, loaded.index, loaded.pages))
    }
}

fn replicas(health: &Health) -> ReplicasStatus {
    ReplicasStatus {
        held_blocks: health.held,
        surplus_blocks: health.surplus,
        wanted_blocks: health.wanted,
        wanted_bytes: health.wanted_bytes,
        pulling_blocks: health.pulling,
        members_up: health.members_up,
        members_silent: health.members_silent,
        members_distrusted: health.distrusted,
        neighbours: health.neighbours,
        pulled_blocks: health.pulled_blocks,
        pulled_bytes: health.pulled_bytes,
        dropped_blocks: health.dropped,
        audits: health.audits,
        failed_audits: health.failed_audits,
        syncs: health.syncs,
    }
}

fn lookups(counts: &LookupCounts) -> LookupsStatus {
    LookupsStatus { ended: counts.ended(), requests: counts.requests() }
}

fn by_reason(refusals: &Refusals) -> BTreeMap<String, u64> {
    refusals.by_reason().map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}

/// The routers' handle to the node.
#[derive(Clone)]
pub(crate) struct Backend(pub(crate) Arc<Node>);

impl NodeBackend for Backend {
    async fn status(&self) -> Result<NodeStatus, Problem> {
        let node = &*self.0;
        let peers = node.blocks.peers.discovery().peers().await.map_err(|error| Problem::internal(&error))?;
        let usage = node.blocks.durable.store().usage();
        Ok(NodeStatus {
            peer_id: node.about.peer_id.clone(),
            network_id: node.about.network_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: node.about.started,
            replication: node.about.replication as u32,
            peers: peers.len() as u32,
            load: node.load(),
            uploads: node.uploads.working() as u32,
            storage: StorageStatus {
                used_bytes: usage.used_bytes,
                quota_bytes: usage.quota_bytes,
                blocks: usage.blocks,
                repair_reserve_bytes: usage.repair_reserve_bytes,
                upload_free_bytes: Some(node.room_for_uploads(node.uploads.staged()).unwrap_or(0)),
                damaged_blocks: usage.damaged_blocks,
                dead_bytes: usage.dead_bytes,
                scrubbed: node.housekeeper.scrubbed(),
            },
            replicas: replicas(&node.replication.health()),
            lookups: lookups(node.blocks.peers.discovery().lookup_counts()),
            refused: RefusedStatus {
                udp: by_reason(node.blocks.peers.discovery().refusals()),
                tcp: by_reason(&node.about.refused),
            },
            cache: node.blocks.cached.status(),
            delivery_url: node.about.delivery_url.clone(),
            max_upload_bytes: node.about.max_upload_bytes.load(Ordering::Relaxed),
            // The listeners count it.
            traffic: TrafficStatus::default(),
            uploads_by_phase: node.uploads.by_phase(),
        })
    }

    async fn not_ready(&self) -> Vec<NotReady> {
        self.0.not_ready().await
    }

    async fn peers(&self) -> Result<Vec<PeerEntry>, Problem> {
        let peers = self.0.blocks.peers.discovery().peers().await.map_err(|error| Problem::internal(&error))?;
        peers
            .into_iter()
            .map(|(peer, address)| {
                let peer_id = peer.to_base58().parse().map_err(|error| Problem::internal(&error))?;
                let address = address.to_string();
                let bare = address.split("/p2p/").next().unwrap_or(&address).to_owned();
                Ok(PeerEntry { peer_id, address: bare })
            })
            .collect()
    }

    async fn receipts(
        &self,
        platform: PlatformFingerprint,
        log: Option<String>,
        after: u64,
        limit: usize,
    ) -> Result<ReceiptsResponse, Problem> {
        let receipts = Arc::clone(&self.0.receipts);
        let listed = tokio::task::spawn_blocking(move || receipts.list(&platform, log.as_deref(), after, limit)).await;
        let listed = listed.map_err(|error| Problem::internal(&error))?;
        listed.map_err(|error| Problem::internal(&format_args!("{error:#}")))
    }

    async fn acknowledge_receipts(&self, platform: PlatformFingerprint, said: Acknowledgement) -> Result<(), Problem> {
        let receipts = Arc::clone(&self.0.receipts);
        let done = tokio::task::spawn_blocking(move || receipts.acknowledge(&platform, &said)).await;
        done.map_err(|error| Problem::internal(&error))?
    }

    async fn reachability(&self) -> Result<Reachability, Problem> {
        let node = &*self.0;
        Ok(match node.blocks.peers.reached_from_outside(node.about.port).await {
            Ok((asked, Reached { tcp, udp })) => {
                Reachability { asked: asked.to_base58().parse().ok(), tcp: Some(tcp), udp: Some(udp), reason: None }
            }
            Err(error) => Reachability { asked: None, tcp: None, udp: None, reason: Some(error.to_string()) },
        })
    }

    async fn blocks(&self, after: Option<BlockId>, limit: usize) -> Result<Vec<StoredBlockEntry>, Problem> {
        let listed = self.0.blocks.durable.with(move |store| store.list(after, limit)).await;
        let entry = |block: chunkstore::StoredBlock| StoredBlockEntry {
            id: block.id,
            length: block.length.into(),
            references: block.references,
        };
        Ok(listed.map_err(|error| Problem::internal(&error))?.into_iter().map(entry).collect())
    }

    async fn store_seen_until(&self, seen_until: u64) -> Result<(), Problem> {
        self.0.seen.raise(seen_until).map_err(|error| Problem::internal(&error))
    }

    async fn verify(&self) -> Result<WorkStream, Problem> {
        self.0.housekeeper.verify().await
    }

    async fn backup(&self, folder: PathBuf) -> Result<WorkStream, Problem> {
        self.0.housekeeper.backup(folder)
    }

    async fn delete(&self, deletion: VerifiedDeletion, order: String) -> Result<DeletionOutcome, Problem> {
        let node = Arc::clone(&self.0);
        self.0.to_its_end(async move { node.deletions.apply(deletion, order).await }).await
    }

    async fn deletions(
        &self,
        platform: PlatformFingerprint,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeletionEntry>, Problem> {
        self.0.deletions.list(platform, after, limit).await
    }

    async fn register_upload(&self, upload: VerifiedUpload) -> Result<(), Problem> {
        self.0.deletions.check_not_deleted(upload.grant.reference).await?;
        let others = self.0.uploads.staged_beside(upload.grant.reference.publication);
        self.0.check_room(upload.grant.size, others)?;
        self.0.check_replication().await?;
        self.0.uploads.register(upload)
    }

    async fn keep_upload_token(
        &self,
        publication: PublicationId,
        token: TokenDigest,
        expires: u64,
    ) -> Result<(), Problem> {
        let node = Arc::clone(&self.0);
        let now = node.clock.unix_seconds();
        self.0.to_its_end(async move { node.uploads.keep_token(publication, token, (now, expires)).await }).await
    }

    async fn receive_upload<S>(&self, publication: PublicationId, body: S) -> Result<UploadStatus, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin + 'static,
    {
        let (node, upload) = (Arc::clone(&self.0), self.0.upload(publication)?);
        let receive = async move {
            let check_room = |size, others| node.check_room(size, others);
            let received = node.uploads.receive(&upload, check_room, body).await?;
            let status = upload.status.borrow().clone();
            node.process(upload, received);
            Ok(status)
        };
        self.0.to_its_end(receive).await
    }

    async fn create_upload(
        &self,
        publication: PublicationId,
        creation: Creation,
        metadata: String,
    ) -> Result<FileId, Problem> {
        let (node, upload) = (Arc::clone(&self.0), self.0.upload(publication)?);
        let create = async move {
            let check_room = |size, others| node.check_room(size, others);
            let step = node.uploads.create(&upload, creation, metadata, check_room).await?;
            Ok(node.go_on(upload, step))
        };
        self.0.to_its_end(create).await
    }

    async fn append_upload<S>(&self, publication: PublicationId, append: Append, body: S) -> Result<u64, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin + 'static,
    {
        let (node, upload) = (Arc::clone(&self.0), self.0.upload(publication)?);
        let append = async move {
            let check_room = |size, others| node.check_room(size, others);
            let step = node.uploads.append(&upload, append, check_room, body).await?;
            Ok(node.go_on(upload, step))
        };
        self.0.to_its_end(append).await
    }

    async fn upload_file(&self, publication: PublicationId, file: FileId) -> Result<FileState, Problem> {
        self.0.uploads.file(&*self.0.upload(publication)?, file).await
    }

    async fn terminate_upload(&self, publication: PublicationId, file: FileId) -> Result<(), Problem> {
        let (node, upload) = (Arc::clone(&self.0), self.0.upload(publication)?);
        self.0.to_its_end(async move { node.uploads.terminate(&upload, file).await }).await
    }

    fn upload_status(&self, publication: PublicationId) -> Option<watch::Receiver<UploadStatus>> {
        self.0.uploads.get(publication).map(|upload| upload.status.subscribe())
    }

    async fn content(&self, key: ContentKey) -> Result<Arc<Content>, Problem> {
        if let Some(content) = self.0.kept_content(key) {
            return Ok(content);
        }
        let content = Arc::new(self.0.load_content(key).await?);
        self.0.keep_content(key, Arc::clone(&content));
        Ok(content)
    }

    async fn block(&self, id: BlockId) -> Result<Bytes, Problem> {
        self.0.blocks.fetch(id).await
    }
}
