//! A small HTTP node for what a real one cannot easily be made to do: vanish, and lie. Its tokens are real (encrypted to
//! the key in the request); signatures are the business of control-api's tests and are not checked here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use chunkstore_block::{BlockId, Index, IndexBuilder, Limits, Rendition, RenditionKind, encode};
use control_api::tokens::encrypt_to_jwk;
use control_api::{ErrorKind, Jwk, Problem, Token};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const NETWORK: &str = "000102030405060708090a0b0c0d0e0f";
pub(crate) const PLAYLIST: &str = "#EXTM3U\n720p/index.m3u8\n";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Honest,
    /// Serves the index of another content than the key that it names.
    LiesAboutIndex,
    /// Sends people to somebody else's address.
    PointsElsewhere,
    /// Has forgotten every upload.
    Forgets,
    /// Says that an upload is ready, and cannot read its index the first few times.
    Hesitates,
    /// Finds that the file is no video.
    Rejects,
    /// Every upload breaks off: it is seen coming once, and awaited afterwards.
    Breaks,
    /// The first request that brings bytes breaks off in the middle.
    Stumbles,
    /// No request that brings bytes is ever taken.
    Busy,
}

pub(crate) struct FakeNode {
    pub(crate) url: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Shared {
    url: String,
    peer_id: String,
    temper: Temper,
    load: f64,
    started: AtomicU64,
    received: AtomicBool,
    /// What came by `PATCH`.
    bytes: Mutex<Vec<u8>>,
    hesitated: AtomicUsize,
    tokens: Mutex<Vec<String>>,
    /// Deletion orders as they came.
    orders: Mutex<Vec<String>>,
    /// So many orders are refused before one is taken.
    refusals: AtomicUsize,
    /// How often it was asked which orders it has.
    inquiries: AtomicUsize,
    /// So many requests for tokens are refused as those of a node that was started just now.
    too_early: AtomicUsize,
    /// Whether it has no room for uploads.
    full: AtomicBool,
}

impl FakeNode {
    /// What came by `PATCH`.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.shared.bytes.lock().unwrap().clone()
    }

    pub(crate) async fn start(peer_id: &str, load: f64, temper: Temper) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            url: url.clone(),
            peer_id: peer_id.to_owned(),
            temper,
            load,
            started: AtomicU64::new(1),
            received: AtomicBool::new(false),
            bytes: Mutex::default(),
            hesitated: AtomicUsize::new(0),
            tokens: Mutex::default(),
            orders: Mutex::default(),
            refusals: AtomicUsize::new(0),
            inquiries: AtomicUsize::new(0),
            too_early: AtomicUsize::new(0),
            full: AtomicBool::new(false),
        });
        let (stop, thread) = run(Arc::clone(&shared), listener);
        Self { url, shared, stop, thread: Mutex::new(Some(thread)) }
    }

    /// Is there again, at the same address.
    pub(crate) async fn come_back(&mut self) {
        let address = self.url.trim_start_matches("http://");
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let (stop, thread) = run(Arc::clone(&self.shared), listener);
        (self.stop, self.thread) = (stop, Mutex::new(Some(thread)));
    }

    /// The deletion orders that came and were not refused.
    pub(crate) fn orders(&self) -> Vec<String> {
        self.shared.orders.lock().unwrap().clone()
    }

    pub(crate) fn refuse_orders(&self, count: usize) {
        self.shared.refusals.store(count, Ordering::SeqCst);
    }

    pub(crate) fn find_too_early(&self, count: usize) {
        self.shared.too_early.store(count, Ordering::SeqCst);
    }

    pub(crate) fn fill(&self) {
        self.shared.full.store(true, Ordering::SeqCst);
    }

    pub(crate) fn peer_id(&self) -> &str {
        &self.shared.peer_id
    }

    /// As it says in its status.
    pub(crate) fn started(&self) -> u64 {
        self.shared.started.load(Ordering::SeqCst)
    }

    /// How often it was asked which orders it has.
    pub(crate) fn inquiries(&self) -> usize {
        self.shared.inquiries.load(Ordering::SeqCst)
    }

    /// Is there again after a restart, with those of its orders for which `kept` says so, by their numbers.
    pub(crate) async fn restart_with(&mut self, kept: impl Fn(u64) -> bool) {
        self.vanish();
        self.shared.started.fetch_add(1, Ordering::SeqCst);
        self.shared.orders.lock().unwrap().retain(|order| kept(claims(order)["seq"].as_u64().unwrap()));
        self.come_back().await;
    }

    /// Dies with all its connections.
    pub(crate) fn vanish(&self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.lock().unwrap().take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.thread.lock().unwrap().is_some()
    }

    pub(crate) fn token_count(&self) -> usize {
        self.shared.tokens.lock().unwrap().len()
    }
}

fn run(shared: Arc<Shared>, listener: tokio::net::TcpListener) -> (CancellationToken, std::thread::JoinHandle<()>) {
    let router = Router::new()
        .route("/v1/node", get(status))
        .route("/openapi.json", get(async || Json(json!({}))))
        .route("/v1/tokens", post(issue))
        .route("/v1/deletions", post(delete).get(deletions))
        .route("/v1/uploads/{id}", put(receive).patch(append).head(offset).get(progress))
        .route("/v1/t/{token}/{*path}", get(deliver))
        .with_state(shared);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let listener = listener.into_std().unwrap();
    // A runtime of its own: when it is dropped, standing connections break, as when a process is killed.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tokio::spawn(async move { axum::serve(listener, router).await });
            stopped.cancelled().await;
        });
    });
    (stop, thread)
}

async fn delete(State(node): State<Arc<Shared>>, order: String) -> Response {
    if is_left(&node.refusals) {
        return Problem::new(ErrorKind::Internal, "The disk is full.").into_response();
    }
    let claims = claims(&order);
    node.orders.lock().unwrap().push(order);
    let (platform, publication) = (&claims["iss"], &claims["pub"]);
    let answer =
        json!({"platform": platform, "publication": publication, "sequence": claims["seq"], "outcome": "applied"});
    Json(answer).into_response()
}

/// Counts down to zero; whether there was anything to count.
fn is_left(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn deletions(State(node): State<Arc<Shared>>, Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    node.inquiries.fetch_add(1, Ordering::SeqCst);
    let (after, limit): (u64, usize) = (query["after"].parse().unwrap(), query["limit"].parse().unwrap());
    let mut entries: Vec<Value> = Vec::new();
    for order in &*node.orders.lock().unwrap() {
        let claims = claims(order);
        if claims["iss"] == query["platform"] && claims["seq"].as_u64().unwrap() > after {
            entries.push(json!({
                "publication": claims["pub"], "sequence": claims["seq"], "received": 1, "order": order,
            }));
        }
    }
    entries.sort_by_key(|entry| entry["sequence"].as_u64());
    let is_all = entries.len() <= limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| !is_all).map(|entry| entry["sequence"].clone());
    Json(json!({"deletions": entries, "next": next}))
}

/// What a signed text says.
fn claims(jws: &str) -> Value {
    let payload = data_encoding::BASE64URL_NOPAD.decode(jws.split('.').nth(1).unwrap().as_bytes()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

pub(crate) fn index() -> (Index, Vec<u8>) {
    let mut builder = IndexBuilder::new();
    let playlist = builder.push_fragment(BlockId::of(b"playlist"), 8).unwrap();
    let video = builder.push_fragment(BlockId::of(b"video"), 5).unwrap();
    builder.add_file("master.m3u8", "application/vnd.apple.mpegurl", [playlist]).unwrap();
    builder.add_file("720p.mp4", "video/mp4", [video]).unwrap();
    builder.add_file("720p/index.m3u8", "application/vnd.apple.mpegurl", [playlist]).unwrap();
    let rendition = Rendition {
        kind: RenditionKind::Video,
        name: "720p".into(),
        codecs: "avc1.64001f".into(),
        peak_bandwidth_bps: 2,
        average_bandwidth_bps: 1,
        width_px: Some(1280),
        height_px: Some(720),
        frame_rate_numerator: Some(24),
        frame_rate_denominator: Some(1),
        channels: None,
        sample_rate_hz: None,
        language: None,
        playlist: "720p/index.m3u8".into(),
        mp4: Some("720p.mp4".into()),
    };
    let index = builder.finish([7; 32], 55_000, vec![rendition]).unwrap();
    let bytes = encode(&index, &Limits::default()).unwrap().root.bytes;
    (index, bytes)
}

async fn status(State(node): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({
        "peer_id": node.peer_id, "network_id": NETWORK, "version": "0.1.0", "replication": 2, "peers": 1,
        "started": node.started.load(Ordering::SeqCst), "load": node.load, "uploads": 0, "storage": {"used_bytes": 0, "quota_bytes": 100, "blocks": 0},
        "cache": {"used_bytes": 0, "capacity_bytes": 1, "hits": 0, "misses": 0, "evictions": 0},
        "delivery_url": node.url, "max_upload_bytes": 1_u64 << 40,
    }))
}

async fn issue(State(node): State<Arc<Shared>>, jws: String) -> Response {
    let claims = claims(&jws);
    assert_eq!((claims["aud"].as_str(), claims["net"].as_str()), (Some(node.peer_id.as_str()), Some(NETWORK)));
    if is_left(&node.too_early) {
        return Problem::new(ErrorKind::RequestBeforeStart, "Ask again.").into_response();
    }
    if node.full.load(Ordering::SeqCst) {
        return Problem::new(ErrorKind::NoRoom, "The quota is used up.").into_response();
    }
    let jwk: Jwk = serde_json::from_value(claims["jwk"].clone()).unwrap();
    let token = Token::generate().unwrap();
    node.tokens.lock().unwrap().push(token.expose().to_owned());
    let url = if node.temper == Temper::PointsElsewhere { "http://127.0.0.1:1" } else { node.url.as_str() };
    let mut answer = json!({"encrypted_token": encrypt_to_jwk(&token, &jwk).unwrap(), "expires_in": 30});
    if claims["act"] == "upload" {
        answer["upload_url"] = json!(format!("{url}/v1/uploads/{}", claims["pub"].as_str().unwrap()));
    } else {
        answer["temporary_url"] = json!(format!("{url}/v1/t/"));
    }
    (StatusCode::CREATED, Json(answer)).into_response()
}

async fn receive(State(node): State<Arc<Shared>>, Path(id): Path<String>, body: Body) -> Response {
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        chunk.unwrap();
    }
    node.received.store(true, Ordering::SeqCst);
    (StatusCode::ACCEPTED, Json(upload_status(&node, &id))).into_response()
}

async fn append(State(node): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut bytes = node.bytes.lock().unwrap();
    assert_eq!(headers["upload-offset"], bytes.len().to_string());
    if node.temper == Temper::Stumbles && bytes.is_empty() {
        bytes.extend(&body[..body.len() / 2]);
        return Problem::new(ErrorKind::Busy, "The node is shutting down.").into_response();
    }
    if node.temper == Temper::Busy {
        return Problem::new(ErrorKind::Busy, "The node takes no more bytes.").into_response();
    }
    bytes.extend(&body);
    node.received.store(true, Ordering::SeqCst);
    (StatusCode::NO_CONTENT, [("upload-offset", bytes.len().to_string())]).into_response()
}

async fn offset(State(node): State<Arc<Shared>>) -> Response {
    [("upload-offset", node.bytes.lock().unwrap().len().to_string())].into_response()
}

async fn progress(State(node): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    if node.temper == Temper::Forgets {
        return Problem::new(ErrorKind::NotFound, "This node knows no upload with this id.").into_response();
    }
    Json(upload_status(&node, &id)).into_response()
}

fn upload_status(node: &Shared, id: &str) -> Value {
    let phase = match (node.received.load(Ordering::SeqCst), node.temper) {
        (false, Temper::Breaks) if node.hesitated.fetch_add(1, Ordering::SeqCst) == 0 => "receiving",
        (false, _) => "waiting",
        (true, Temper::Rejects) => "rejected",
        (true, _) => "ready",
    };
    let error = (phase == "rejected").then(|| Problem::new(ErrorKind::NotAVideo, "It is a text. Upload a video."));
    let key = (phase == "ready").then(|| BlockId::of(&index().1));
    json!({
        "upload_id": id, "phase": phase, "percent": 100.0, "remaining_seconds": null, "received_bytes": 9, "size": 9,
        "content_key": key, "duration_ms": 55_000, "blocks": 2, "error": error,
    })
}

async fn deliver(
    State(node): State<Arc<Shared>>,
    Path((token, path)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    if !node.tokens.lock().unwrap().contains(&token) {
        return Problem::new(ErrorKind::TokenUnknown, "Ask the platform for one.").into_response();
    }
    assert!(uri.query().is_none(), "the viewer's wishes stay with the platform");
    match path.as_str() {
        "index" if hesitates(&node) => Problem::new(ErrorKind::Unavailable, "Ask again.").into_response(),
        "index" => index_bytes(&node).into_response(),
        "files/master.m3u8" => ([(header::CONTENT_TYPE, "application/vnd.apple.mpegurl")], PLAYLIST).into_response(),
        "files/720p.mp4" => video(&headers),
        "files/page.html" => ([(header::CONTENT_TYPE, "text/html")], "<script>alert(1)</script>").into_response(),
        "files/elsewhere" => Redirect::temporary("http://192.0.2.1/").into_response(),
        "files/endless.mp4" => endless(),
        // The connection breaks.
        "files/broken.mp4" => std::panic::resume_unwind(Box::new(())),
        _ => Problem::new(ErrorKind::NotFound, "No such file in the index.").into_response(),
    }
}

fn index_bytes(node: &Shared) -> Vec<u8> {
    let mut bytes = index().1;
    if node.temper == Temper::LiesAboutIndex {
        bytes.push(0);
    }
    bytes
}

fn hesitates(node: &Shared) -> bool {
    node.temper == Temper::Hesitates && node.hesitated.fetch_add(1, Ordering::SeqCst) < 5
}

fn video(headers: &HeaderMap) -> Response {
    let kind = (header::CONTENT_TYPE, "video/mp4");
    match headers.get(header::RANGE).map(|range| range.to_str().unwrap()) {
        Some("bytes=1-2") => {
            let range = (header::CONTENT_RANGE, "bytes 1-2/5");
            (StatusCode::PARTIAL_CONTENT, [kind, range, (header::ETAG, "\"e\"")], "id").into_response()
        }
        Some(_) => {
            let range = (header::CONTENT_RANGE, "bytes */5");
            (StatusCode::RANGE_NOT_SATISFIABLE, [range]).into_response()
        }
        None => ([kind, (header::ETAG, "\"e\"")], "video").into_response(),
    }
}

fn endless() -> Response {
    let chunks = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Ok::<_, std::io::Error>("more"), ()))
    });
    ([(header::CONTENT_TYPE, "video/mp4")], Body::from_stream(chunks)).into_response()
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
