//! A node in memory behind real sockets on loopback.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chunkstore_block::{
    BlockId, ContentKey, Fragment, Index, IndexBuilder, NetworkId, PlatformFingerprint, PublicationId, Rendition,
    RenditionKind,
};
use control_api::{
    Acknowledgement, AppConfig, AppState, AuthorityClaims, CacheStatus, Content, DeletionEntry, DeletionOutcome,
    ErrorKind, LookupsStatus, ManualClock, NodeBackend, NodeClient, NodeId, NodeStatus, NotReady, PeerEntry, Phase,
    PinnedKeys, PlatformKey, PlatformKeySize, PlaybackRequest, Problem, RefusedStatus, ReplicasStatus, RequestClaims,
    RequestVerifier, Scope, ServeOptions, StorageStatus, StoredBlockEntry, TemporaryUrl, Token, TokenDigest,
    TokenRequest, TrafficStatus, TransferGauge, UploadStatus, UserKey, VerifiedDeletion, VerifiedUpload,
    control_router, delivery_router,
};
use futures::{Stream, StreamExt};
use tokio::sync::watch;

pub const STARTED: u64 = 1_700_000_000;
pub const ORIGIN: &str = "https://video.example";
pub const MAX_UPLOAD: u64 = 1_000;

/// Blocks of a content in memory, and what was uploaded.
#[derive(Default)]
pub struct Memory {
    /// Blocks that never come, as from a holder that does not answer.
    pub stuck: Mutex<std::collections::HashSet<BlockId>>,
    /// No token can be kept.
    pub disk_fails: std::sync::atomic::AtomicBool,
    pub blocks: Mutex<BTreeMap<BlockId, Bytes>>,
    pub contents: Mutex<HashMap<ContentKey, Arc<Content>>>,
    pub uploads: Mutex<HashMap<PublicationId, watch::Sender<UploadStatus>>>,
    pub files: Mutex<HashMap<PublicationId, Vec<u8>>>,
    pub seen_until: AtomicU64,
    pub acknowledged: Mutex<Vec<Acknowledgement>>,
    pub not_ready: Mutex<Vec<NotReady>>,
    pub deletions: Mutex<BTreeMap<(PlatformFingerprint, u64), DeletionEntry>>,
}

#[derive(Clone, Default)]
pub struct Backend(pub Arc<Memory>);

impl Backend {
    fn put(&self, bytes: Bytes) -> BlockId {
        let id = BlockId::of(&bytes);
        self.0.blocks.lock().unwrap().insert(id, bytes);
        id
    }

    /// A content with one file of these blocks; the index block is a stand-in, for nothing here reads it.
    pub fn add_content(&self, path: &str, blocks: &[&[u8]]) -> Arc<Content> {
        let mut builder = IndexBuilder::new();
        let mut fragments = Vec::new();
        let mut orders = Vec::new();
        for block in blocks {
            let id = self.put(Bytes::copy_from_slice(block));
            orders.push(builder.push_fragment(id, block.len() as u32).unwrap());
            fragments.push(Fragment { id, length: block.len() as u32 });
        }
        builder.add_file(path, "video/mp4", orders).unwrap();
        let index_block = Bytes::from(format!("index of {path} {blocks:?}"));
        let key = ContentKey::from(self.put(index_block.clone()));
        let page = self.put(Bytes::from_static(b"page"));
        let file =
            chunkstore_block::File { path: path.to_owned(), media_type: "video/mp4".to_owned(), runs: runs(blocks) };
        let index = Index {
            source_sha256: [0; 32],
            duration_ms: 1,
            renditions: vec![],
            fragments: fragments.into(),
            files: vec![file],
        };
        let content = Arc::new(Content::new(key, index_block, index, [page]));
        self.0.contents.lock().unwrap().insert(key, Arc::clone(&content));
        content
    }
}

/// A film of three renditions, 720p, 480p and audio, whose segments of `SEGMENT_SECONDS` are one block each.
pub const SEGMENT_SECONDS: u64 = 4;

impl Backend {
    /// Its files are `master.m3u8`, and for each rendition `playlist.m3u8`, `init.mp4` and `seg00000.m4s` on; `720p.mp4` is the header and
    /// the segments of 720p. `block` gives the bytes of a segment.
    pub fn add_film(&self, segments: u32, block: impl Fn(&str, u32) -> Vec<u8>) -> Arc<Content> {
        let mut film = Film::default();
        film.file(self, "master.m3u8", "#EXTM3U\n");
        let mut mp4 = vec![film.block(self, Bytes::from_static(b"the header of 720p.mp4"))];
        for name in RENDITIONS {
            let mut playlist = String::from("#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n");
            film.file(self, &format!("{name}/init.mp4"), &format!("the header of {name}"));
            for segment in 0..segments {
                let order = film.block(self, block(name, segment).into());
                film.add(&format!("{name}/seg{segment:05}.m4s"), &[order]);
                playlist += &format!("#EXTINF:{SEGMENT_SECONDS}.000,\nseg{segment:05}.m4s\n");
                if name == "720p" {
                    mp4.push(order);
                }
            }
            film.file(self, &format!("{name}/playlist.m3u8"), &playlist);
        }
        film.add("720p.mp4", &mp4);
        self.add(film.index(segments))
    }

    fn add(&self, index: Index) -> Arc<Content> {
        let key = ContentKey::from(self.put(Bytes::from(format!("the index of {:?}", index.fragments.first()))));
        let content = Arc::new(Content::new(key, Bytes::from_static(b"index"), index, []));
        self.0.contents.lock().unwrap().insert(key, Arc::clone(&content));
        content
    }
}

const RENDITIONS: [&str; 3] = ["720p", "480p", "audio"];

#[derive(Default)]
struct Film {
    fragments: Vec<Fragment>,
    files: Vec<chunkstore_block::File>,
}

impl Film {
    fn block(&mut self, backend: &Backend, bytes: Bytes) -> u32 {
        self.fragments.push(Fragment { length: bytes.len() as u32, id: backend.put(bytes) });
        self.fragments.len() as u32
    }

    fn file(&mut self, backend: &Backend, path: &str, text: &str) {
        let order = self.block(backend, Bytes::from(format!("{text}# {path}")));
        self.add(path, &[order]);
    }

    fn add(&mut self, path: &str, orders: &[u32]) {
        let run = |order: &u32| chunkstore_block::Run {
            first_order: *order,
            blocks: 1,
            bytes: u64::from(self.fragments[*order as usize - 1].length),
        };
        let runs = orders.iter().map(run).collect();
        self.files.push(chunkstore_block::File { path: path.to_owned(), media_type: "video/mp4".to_owned(), runs });
    }

    fn index(mut self, segments: u32) -> Index {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        Index {
            source_sha256: [0; 32],
            duration_ms: u64::from(segments) * SEGMENT_SECONDS * 1_000,
            renditions: RENDITIONS.map(rendition).into(),
            fragments: self.fragments.into(),
            files: self.files,
        }
    }
}

fn rendition(name: &str) -> Rendition {
    let kind = if name == "audio" { RenditionKind::Audio } else { RenditionKind::Video };
    Rendition {
        kind,
        name: name.to_owned(),
        codecs: String::new(),
        // A segment of 1,000 bytes plays for its four seconds.
        peak_bandwidth_bps: 4_000,
        average_bandwidth_bps: 2_000,
        width_px: None,
        height_px: None,
        frame_rate_numerator: None,
        frame_rate_denominator: None,
        channels: None,
        sample_rate_hz: None,
        language: None,
        playlist: format!("{name}/playlist.m3u8"),
        mp4: (name == "720p").then(|| "720p.mp4".to_owned()),
    }
}

fn runs(blocks: &[&[u8]]) -> Vec<chunkstore_block::Run> {
    let bytes = blocks.iter().map(|block| block.len() as u64).sum();
    vec![chunkstore_block::Run { first_order: 1, blocks: blocks.len() as u32, bytes }]
}

impl NodeBackend for Backend {
    async fn status(&self) -> Result<NodeStatus, Problem> {
        Ok(NodeStatus {
            peer_id: node_id(),
            network_id: network(),
            version: "0.1.0".to_owned(),
            started: STARTED,
            replication: 2,
            peers: 1,
            load: 0.25,
            uploads: 0,
            storage: StorageStatus::default(),
            lookups: LookupsStatus { ended: 12, requests: 240 },
            refused: RefusedStatus::default(),
            replicas: ReplicasStatus::default(),
            cache: CacheStatus::default(),
            delivery_url: "http://unused".to_owned(),
            max_upload_bytes: MAX_UPLOAD,
            traffic: TrafficStatus::default(),
            uploads_by_phase: [("ready".to_owned(), 3)].into(),
        })
    }

    async fn not_ready(&self) -> Vec<NotReady> {
        self.0.not_ready.lock().unwrap().clone()
    }

    async fn peers(&self) -> Result<Vec<PeerEntry>, Problem> {
        Ok(vec![PeerEntry { peer_id: node_id(), address: "/ip4/127.0.0.1/udp/7101/quic-v1".to_owned() }])
    }

    async fn blocks(&self, after: Option<BlockId>, limit: usize) -> Result<Vec<StoredBlockEntry>, Problem> {
        let blocks = self.0.blocks.lock().unwrap();
        let entry = |(id, bytes): (&BlockId, &Bytes)| StoredBlockEntry {
            id: *id,
            length: bytes.len() as u64,
            references: vec![],
        };
        Ok(blocks.iter().filter(|(id, _)| after.is_none_or(|after| **id > after)).take(limit).map(entry).collect())
    }

    async fn store_seen_until(&self, seen_until: u64) -> Result<(), Problem> {
        self.0.seen_until.fetch_max(seen_until, Ordering::SeqCst);
        Ok(())
    }

    async fn delete(&self, deletion: VerifiedDeletion, order: String) -> Result<DeletionOutcome, Problem> {
        let VerifiedDeletion { publication, sequence } = deletion;
        let entry = DeletionEntry { publication: publication.publication, sequence, received: STARTED, order };
        match self.0.deletions.lock().unwrap().insert((publication.platform, sequence), entry) {
            None => Ok(DeletionOutcome::Applied),
            Some(_) => Ok(DeletionOutcome::Known),
        }
    }

    async fn deletions(
        &self,
        platform: PlatformFingerprint,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeletionEntry>, Problem> {
        let deletions = self.0.deletions.lock().unwrap();
        let of_platform = deletions.iter().filter(|((owner, sequence), _)| *owner == platform && *sequence > after);
        Ok(of_platform.map(|(_, entry)| entry.clone()).take(limit).collect())
    }

    async fn register_upload(&self, upload: VerifiedUpload) -> Result<(), Problem> {
        let publication = upload.grant.reference.publication;
        if self.0.files.lock().unwrap().contains_key(&publication) {
            return Err(Problem::new(ErrorKind::UploadExists, "it has its file"));
        }
        let status = UploadStatus::waiting(publication, upload.grant.size);
        self.0.uploads.lock().unwrap().entry(publication).or_insert_with(|| watch::channel(status).0);
        Ok(())
    }

    async fn keep_upload_token(&self, _: PublicationId, _: TokenDigest, _: u64) -> Result<(), Problem> {
        let fails = self.0.disk_fails.load(Ordering::SeqCst);
        if fails { Err(Problem::internal(&"the disk fails")) } else { Ok(()) }
    }

    async fn receive_upload<S>(&self, publication: PublicationId, mut body: S) -> Result<UploadStatus, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin + 'static,
    {
        if self.0.files.lock().unwrap().contains_key(&publication) {
            return Err(Problem::new(ErrorKind::UploadExists, "it has its file"));
        }
        let mut file = Vec::new();
        while let Some(chunk) = body.next().await {
            file.extend_from_slice(&chunk?);
        }
        let uploads = self.0.uploads.lock().unwrap();
        let sender = uploads.get(&publication).unwrap();
        sender.send_modify(|status| {
            status.phase = Phase::Probing;
            status.received_bytes = file.len() as u64;
        });
        self.0.files.lock().unwrap().insert(publication, file);
        Ok(sender.borrow().clone())
    }

    fn upload_status(&self, publication: PublicationId) -> Option<watch::Receiver<UploadStatus>> {
        self.0.uploads.lock().unwrap().get(&publication).map(watch::Sender::subscribe)
    }

    async fn acknowledge_receipts(&self, _: PlatformFingerprint, said: Acknowledgement) -> Result<(), Problem> {
        self.0.acknowledged.lock().unwrap().push(said);
        Ok(())
    }

    async fn content(&self, key: ContentKey) -> Result<Arc<Content>, Problem> {
        let contents = self.0.contents.lock().unwrap();
        contents.get(&key).cloned().ok_or_else(|| Problem::new(ErrorKind::NotFound, "no such content"))
    }

    async fn block(&self, id: BlockId) -> Result<Bytes, Problem> {
        let stuck = self.0.stuck.lock().unwrap().contains(&id);
        if stuck {
            std::future::pending::<()>().await;
        }
        let blocks = self.0.blocks.lock().unwrap();
        blocks.get(&id).cloned().ok_or_else(|| Problem::new(ErrorKind::Unavailable, "no holder answers"))
    }
}

pub fn node_id() -> NodeId {
    "12D3KooWNode".parse().unwrap()
}

pub fn network() -> NetworkId {
    NetworkId::from_bytes([1; 16])
}

/// A served node, its platform and its user.
pub struct Served {
    pub backend: Backend,
    pub clock: Arc<ManualClock>,
    pub platform: PlatformKey,
    pub user: UserKey,
    pub client: NodeClient,
    pub control: String,
    pub delivery: String,
    /// Of the delivery listener.
    pub address: std::net::SocketAddr,
    pub transfers: TransferGauge,
    pub state: Arc<AppState<Backend>>,
}

pub async fn serve() -> Served {
    serve_delivery(ServeOptions::default()).await
}

/// The delivery listener with these options.
pub async fn serve_delivery(options: ServeOptions) -> Served {
    let platform = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let pinned = PinnedKeys::new([platform.public_key().clone()]);
    let verifier = RequestVerifier::new(pinned, node_id(), network(), STARTED, MAX_UPLOAD);
    let control = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let delivery = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |listener: &tokio::net::TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let address = delivery.local_addr().unwrap();
    let delivery_url = match options.certificate {
        Some(_) => format!("https://localhost:{}", address.port()),
        None => url(&delivery),
    };
    let config = AppConfig { node_id: node_id(), delivery_url, allowed_origins: vec![ORIGIN.to_owned()] };
    let (backend, transfers) = (Backend::default(), TransferGauge::default());
    let clock = Arc::new(ManualClock::new(STARTED + 100));
    let state = Arc::new(AppState::new(&config, backend.clone(), verifier, clock.clone(), transfers.clone()).unwrap());
    let control_url = url(&control);
    let routers = (control_router(Arc::clone(&state)), delivery_router(Arc::clone(&state)));
    tokio::spawn(control_api::serve(control, routers.0, std::future::pending()));
    tokio::spawn(control_api::serve_with(options, delivery, routers.1, std::future::pending()));
    let client = NodeClient::new(&control_url).unwrap();
    let user = UserKey::generate().unwrap();
    Served {
        backend,
        clock,
        platform,
        user,
        client,
        control: control_url,
        delivery: config.delivery_url,
        address,
        transfers,
        state,
    }
}

impl Served {
    pub fn claims(&self, request: TokenRequest) -> RequestClaims {
        let issued = control_api::Clock::unix_seconds(self.clock.as_ref());
        RequestClaims {
            node: node_id(),
            network: network(),
            viewer_key: self.user.jwk().unwrap(),
            request,
            issued,
            lifetime: 30,
        }
    }

    pub fn playback(&self, content: ContentKey) -> RequestClaims {
        self.claims(TokenRequest::playback(content))
    }

    /// A temporary URL for a part of a content.
    pub async fn confined(&self, content: ContentKey, scope: Scope) -> TemporaryUrl {
        let request = PlaybackRequest { content, publication: None, scope };
        let claims = self.claims(TokenRequest::Playback(request));
        self.ask(&self.platform.sign_request(&claims).unwrap()).await.unwrap()
    }

    pub fn upload(&self, publication: PublicationId, size: u64) -> RequestClaims {
        let issued = control_api::Clock::unix_seconds(self.clock.as_ref());
        let authority =
            AuthorityClaims { node: node_id(), network: network(), publication, bytes: 9_000, issued, lifetime: 3_600 };
        let authority = self.platform.sign_authority(&authority).unwrap();
        self.claims(TokenRequest::Upload { publication, size, authority })
    }

    /// A temporary URL for a content, as the platform gets it.
    pub async fn temporary_url(&self, content: ContentKey) -> TemporaryUrl {
        let jws = self.platform.sign_request(&self.playback(content)).unwrap();
        let answer = self.client.request_playback(&jws).await.unwrap();
        assert_eq!(answer.expires_in, 30);
        TemporaryUrl::new(&answer.temporary_url, &self.user.decrypt(&answer.encrypted_token).unwrap()).unwrap()
    }

    /// An upload URL with its token.
    pub async fn upload_token(&self, publication: PublicationId, size: u64) -> (String, Token) {
        let jws = self.platform.sign_request(&self.upload(publication, size)).unwrap();
        let answer = self.client.request_upload(&jws).await.unwrap();
        (answer.upload_url, self.user.decrypt(&answer.encrypted_token).unwrap())
    }

    /// What a signed request for a playback token gives.
    pub async fn ask(&self, jws: &str) -> Result<TemporaryUrl, ErrorKind> {
        let answer = self.client.request_playback(jws).await.map_err(|error| error.problem().unwrap().kind)?;
        let token = self.user.decrypt(&answer.encrypted_token).unwrap();
        Ok(TemporaryUrl::new(&answer.temporary_url, &token).unwrap())
    }

    pub async fn refusal(&self, claims: &RequestClaims) -> ErrorKind {
        self.refusal_of(&self.platform, claims).await
    }

    pub async fn refusal_of(&self, platform: &PlatformKey, claims: &RequestClaims) -> ErrorKind {
        self.ask(&platform.sign_request(claims).unwrap()).await.unwrap_err()
    }
}
