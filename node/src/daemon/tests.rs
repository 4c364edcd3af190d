//! A node alone in its network, asked without sockets.

mod deletion;

use super::*;
use axum::body::Body;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::any_service;
use bytes::Bytes;
use chunkstore_block::{
    Block, BlockId, ContentKey, IndexBuilder, Limits, MAX_BLOCK_BYTES, PublicationId, Reference, encode,
};
use control_api::signing::VerifiedUpload;
use control_api::types::PlaybackTokenResponse;
use control_api::{
    AuthorityClaims, ErrorKind, NodeBackend, PlatformKey, PlatformKeySize, RequestClaims, TemporaryUrl, TokenRequest,
    UploadGrant, UserKey,
};
use dht::{BlockHandler, Local, Network, Status};
use futures::StreamExt;
use tempfile::TempDir;

const PATH: &str = "film.mp4";

struct Alone {
    node: Arc<Node>,
    state: Arc<AppState<Backend>>,
    parts: Parts,
    stop: CancellationToken,
    tasks: TaskTracker,
    platform: PlatformKey,
    _folder: TempDir,
}

impl Alone {
    async fn start() -> Self {
        Self::with(Config::default()).await
    }

    async fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (network, key) = (folder.path().join("network.toml"), folder.path().join("platform.pub.pem"));
        crate::network::write_network(&network, &Network::generate().unwrap()).unwrap();
        let platform = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
        std::fs::write(&key, platform.public_key().to_pem().unwrap()).unwrap();
        let data = DataDir::create(&folder.path().join("node"), &config, &network, &[key]).unwrap();
        // `init` refuses port 0, since other nodes could not find such a node again. Here are none.
        let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..config };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let parts = Parts::open(&data, &config, &stop).await.unwrap();
        let node = build_node(&data, &config, &parts, &stop, &tasks).unwrap();
        let node = Arc::new(node);
        let state = build_state(&config, &parts, Arc::clone(&node)).unwrap();
        Self { node, state, parts, stop, tasks, platform, _folder: folder }
    }

    /// Puts a block on the node's own disk.
    async fn store(&self, body: Bytes) -> BlockId {
        let block = Block::of(body);
        let id = block.id();
        Local::store(&self.parts.durable, block, &[self.reference(7)]).await.unwrap();
        id
    }

    fn reference(&self, number: u8) -> Reference {
        Reference { platform: self.platform.fingerprint(), publication: PublicationId::from_bytes([number; 16]) }
    }

    fn authority(&self, number: u8) -> String {
        let claims = AuthorityClaims {
            node: self.parts.node_id.clone(),
            network: self.parts.network_id,
            publication: self.reference(number).publication,
            bytes: 1 << 20,
            issued: self.parts.clock.unix_seconds(),
            lifetime: 60,
        };
        self.platform.sign_authority(&claims).unwrap()
    }

    /// An upload of `size` bytes for publication `number`, as the control listener finds it in order.
    fn upload(&self, number: u8, size: u64) -> VerifiedUpload {
        let reference = self.reference(number);
        let authority = control_api::Authority { reference, bytes: 1 << 20, expires: u64::MAX };
        let grant = UploadGrant { reference, size };
        VerifiedUpload { grant, authority_jws: self.authority(number), authority }
    }

    /// Stores a content of one file.
    async fn publish(&self, blocks: &[Bytes]) -> ContentKey {
        let mut builder = IndexBuilder::new();
        let mut orders = Vec::new();
        for block in blocks {
            let id = self.store(block.clone()).await;
            orders.push(builder.push_fragment(id, block.len() as u32).unwrap());
        }
        builder.add_file(PATH, "video/mp4", orders).unwrap();
        let index = builder.finish([0; 32], 1, vec![]).unwrap();
        self.store(encode(&index, &Limits::default()).unwrap().root.bytes.into()).await.into()
    }

    async fn temporary_url(&self, content: ContentKey) -> TemporaryUrl {
        let viewer = UserKey::generate().unwrap();
        let claims = RequestClaims {
            node: self.parts.node_id.clone(),
            network: self.parts.network_id,
            viewer_key: viewer.jwk().unwrap(),
            request: TokenRequest::playback(content),
            issued: self.parts.clock.unix_seconds(),
            lifetime: 30,
        };
        let jws = self.platform.sign_request(&claims).unwrap();
        let request = Request::post("/v1/tokens").header("content-type", "application/jose");
        let response = ask(control_router(Arc::clone(&self.state)), request.body(jws.into()).unwrap()).await;
        let answer: PlaybackTokenResponse =
            serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap();
        TemporaryUrl::new(&answer.temporary_url, &viewer.decrypt(&answer.encrypted_token).unwrap()).unwrap()
    }

    /// What the delivery listener hands to the HTTP server for a GET, piece by piece.
    async fn pieces(&self, url: &TemporaryUrl, path: &str, range: Option<&str>) -> Vec<Bytes> {
        let range = range.map(|range| ("range", range));
        let request = range
            .into_iter()
            .fold(Request::get(url.at(path).unwrap()), |request, (name, value)| request.header(name, value));
        let response = ask(delivery_router(Arc::clone(&self.state)), request.body(Body::empty()).unwrap()).await;
        response.into_body().into_data_stream().map(Result::unwrap).collect().await
    }
}

async fn ask(router: axum::Router, request: Request) -> Response {
    let response = any_service(router).call(request, ()).await;
    assert!(response.status().is_success(), "{response:?}");
    response
}

fn block(number: u8, length: usize) -> Bytes {
    vec![number; length].into()
}

fn lies_in(piece: &Bytes, whole: &Bytes) -> bool {
    let (piece, whole) = (piece.as_ptr_range(), whole.as_ptr_range());
    whole.start <= piece.start && piece.end <= whole.end
}

/// From the cache to the HTTP server no byte is copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_made_of_the_cache_s_own_memory() {
    let alone = Alone::start().await;
    let blocks = [block(1, MAX_BLOCK_BYTES), block(2, MAX_BLOCK_BYTES), block(3, 70_000)];
    let key = alone.publish(&blocks).await;
    let url = alone.temporary_url(key).await;
    // Read from disk, by the index and then by each block.
    assert_eq!(alone.pieces(&url, &format!("files/{PATH}"), None).await.concat(), blocks.concat());
    let before = alone.node.blocks.cached.status();
    assert_eq!((before.hits, before.misses), (0, 4));

    let mut kept = Vec::new();
    for body in &blocks {
        kept.push(alone.node.blocks.fetch(BlockId::of(body)).await.unwrap());
    }
    let root = alone.node.blocks.fetch(key.block_id()).await.unwrap();
    let block_path = format!("blocks/{}", BlockId::of(&blocks[0]));
    for (path, range, expected) in [
        (format!("files/{PATH}"), None, vec![&kept[0], &kept[1], &kept[2]]),
        (format!("files/{PATH}"), Some("bytes=1000000-2200000"), vec![&kept[0], &kept[1], &kept[2]]),
        (block_path.clone(), None, vec![&kept[0]]),
        (block_path, Some("bytes=5-9"), vec![&kept[0]]),
        ("index".to_owned(), None, vec![&root]),
    ] {
        let pieces = alone.pieces(&url, &path, range).await;
        assert_eq!(pieces.len(), expected.len(), "{path} {range:?}");
        for (piece, whole) in pieces.iter().zip(expected) {
            assert!(!piece.is_empty() && lies_in(piece, whole), "{path} {range:?} was copied");
        }
    }
    assert_eq!(alone.node.blocks.cached.status().misses, before.misses);
}

/// An answer to another node is evidence of a replica: what is only in memory is not offered.
#[tokio::test(flavor = "multi_thread")]
async fn other_nodes_are_never_answered_from_the_cache() {
    let alone = Alone::start().await;
    let (cached, stored) = (block(1, 1_000), block(2, 1_000));
    let id = BlockId::of(&cached);
    let fetched = alone.node.blocks.cached.get_or_fetch(id, || std::future::ready(Ok(cached.clone()))).await;
    assert_eq!(fetched.unwrap(), cached);
    assert_eq!(alone.node.blocks.fetch(id).await.unwrap(), cached);
    assert_eq!(alone.parts.holder.get(id).await.unwrap_err().status, Status::NotFound);
    assert_eq!(alone.parts.holder.has(vec![id]).await.unwrap(), [false]);
    let id = alone.store(stored.clone()).await;
    assert_eq!(alone.parts.holder.get(id).await.unwrap(), stored);
}

/// A deletion is followed by the collection at once, not at the next turn; and the space is given back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_goes_when_the_housekeeping_is_woken() {
    let alone = Alone::start().await;
    alone.node.housekeeper.start(&alone.tasks);
    let id = alone.store(block(1, 300_000)).await;
    let reference = alone.parts.durable.store().references(&id).unwrap()[0];
    let deletion = chunkstore::Deletion { publication: reference, sequence: 1, at_seconds: 1, order: vec![1] };
    assert!(alone.parts.durable.with(|store| store.delete(deletion)).await.unwrap());
    alone.node.housekeeper.wake();
    let is_gone = async {
        while alone.parts.durable.store().usage().blocks > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // A turn without being woken comes after a minute.
    tokio::time::timeout(Duration::from_secs(20), is_gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_housekeeping_ends_when_the_node_stops() {
    let alone = Alone::start().await;
    alone.store(block(1, 300_000)).await;
    alone.node.housekeeper.start(&alone.tasks);
    // The first round of the scrub is over when its end is known.
    let is_scrubbed = async {
        while alone.node.housekeeper.scrubbed().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_scrubbed).await.unwrap();
    assert!(alone.node.housekeeper.scrubbed() >= Some(alone.node.about.started));
    alone.stop.cancel();
    alone.tasks.close();
    tokio::time::timeout(Duration::from_secs(2), alone.tasks.wait()).await.unwrap();
}

/// The reserve is for repair: an upload that would need it is refused before it begins, and what fits without it is not.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_leave_the_reserve_for_repair() {
    let quota_bytes = 100 << 20;
    // Alone, the node is as many as R asks for.
    let config = Config { quota_bytes, repair_reserve_percent: 20, replication: 1, ..Config::default() };
    let alone = Alone::with(config).await;
    alone.store(block(1, 300_000)).await;
    let backend = Backend(Arc::clone(&alone.node));
    let status = backend.status().await.unwrap().storage;
    assert!(status.repair_reserve_bytes == 20 << 20 && status.used_bytes > 300_000);
    let room = status.free_for_uploads();
    assert_eq!(room, (80 << 20) - status.used_bytes);

    // Most of what it asks for is free, but not for uploads.
    let refused = backend.register_upload(alone.upload(1, room + 1)).await.unwrap_err();
    assert_eq!((refused.kind, refused.status), (ErrorKind::NoRoom, 507));
    backend.register_upload(alone.upload(2, room)).await.unwrap();
    // Blocks that have come since count, too, when the file itself comes.
    alone.store(block(2, 300_000)).await;
    let upload = alone.reference(2).publication;
    let refused = backend.receive_upload(upload, futures::stream::pending()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NoRoom);
    assert_eq!(std::fs::read_dir(&alone.node.about.data).unwrap().count(), 0, "nothing is left of it");
}

/// 23 blocks with 1,024 references each are 1.13 MB, more than a frame carries.
#[tokio::test]
async fn references_are_answered_for_as_many_blocks_as_fit_and_for_the_others_when_asked_again() {
    let alone = Alone::start().await;
    let mut ids = Vec::new();
    for number in 0..23_u8 {
        ids.push(alone.store(vec![number; 100].into()).await);
    }
    let references: Vec<_> = (0..1_023_u128)
        .map(|number| Reference { publication: PublicationId::from_bytes(number.to_be_bytes()), ..alone.reference(7) })
        .collect();
    for portion in references.chunks(chunkstore::MAX_REFERENCES) {
        alone.parts.durable.store().add_references(&ids, portion).unwrap();
    }
    let peer = alone.parts.peers.discovery().local_peer_id();
    let first = alone.parts.holder.references(peer, ids.clone()).await.unwrap().into_inner();
    assert_eq!(first.len(), 21);
    let rest = alone.parts.holder.references(peer, ids[21..].to_vec()).await.unwrap().into_inner();
    assert_eq!(rest.len(), 2);
    assert!(first.iter().chain(&rest).all(|of_block| of_block.len() == 1_024));
}
