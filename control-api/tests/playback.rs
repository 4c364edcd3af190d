//! From a signed request to the bytes of a file, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod support;

use std::sync::Arc;

use chunkstore_block::{BlockId, ContentKey, Fragment, Index, NetworkId};
use control_api::{
    ClientError, Content, DeliveryClient, ErrorKind, FileResponse, PlatformKey, PlatformKeySize, RequestClaims,
    TemporaryUrl,
};
use support::{ORIGIN, Served, serve};

const PATH: &str = "720p/a film.mp4";
const BLOCKS: [&[u8]; 4] = [b"01234", b"56789", b"abc", b"defghij"];
const WHOLE: &[u8] = b"0123456789abcdefghij";

fn kind(error: &ClientError) -> ErrorKind {
    error.problem().unwrap_or_else(|| panic!("not a problem: {error:?}")).kind
}

async fn opened() -> (Served, TemporaryUrl, ContentKey) {
    let served = serve().await;
    let key = served.backend.add_content(PATH, &BLOCKS).key();
    let url = served.temporary_url(key).await;
    (served, url, key)
}

async fn get_range(delivery: &DeliveryClient, url: &TemporaryUrl, range: &str) -> Result<FileResponse, ClientError> {
    let headers = [(reqwest::header::RANGE, range.parse().unwrap())].into_iter().collect();
    delivery.get(url, &format!("files/{PATH}"), false, headers).await
}

/// Status, body and `Content-Range` of a file with this `Range`.
async fn ranged(served: &Served, url: &TemporaryUrl, range: &str) -> (u16, Vec<u8>, Option<String>) {
    let answer = get_range(&served.client.delivery(), url, range).await.unwrap();
    let content_range = answer.headers.get("content-range").map(|value| value.to_str().unwrap().to_owned());
    (answer.status, answer.bytes(1_000).await.unwrap().to_vec(), content_range)
}

#[tokio::test]
async fn index_pages_fragments_and_blocks() {
    let (served, url, key) = opened().await;
    let delivery = served.client.delivery();
    assert_eq!(BlockId::of(&delivery.index(&url).await.unwrap()), key.block_id());
    let fragments = delivery.fragments(&url).await.unwrap();
    assert_eq!(fragments.content_key, key);
    assert_eq!(fragments.fragments.iter().map(|fragment| fragment.order).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (fragment, bytes) in fragments.fragments.iter().zip(BLOCKS) {
        let answer =
            delivery.get(&url, &format!("blocks/{}", fragment.sha256), false, Default::default()).await.unwrap();
        assert_eq!(answer.headers["etag"], format!("\"{}\"", fragment.sha256));
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        assert_eq!(answer.bytes(100).await.unwrap(), bytes);
    }
    // The refusal's body was thrown away with the one that there would have been.
    for path in ["index", "fragments"] {
        let headers =
            reqwest::header::HeaderMap::from_iter([(reqwest::header::RANGE, "bytes=100000-".parse().unwrap())]);
        let answer = delivery.get(&url, path, false, headers).await.unwrap();
        assert_eq!(
            (answer.status, &answer.headers["content-type"]),
            (416, &control_api::PROBLEM_MEDIA_TYPE.parse().unwrap())
        );
        let problem = control_api::Problem::from_json(&answer.bytes(1_000).await.unwrap()).unwrap();
        assert_eq!(problem.kind, ErrorKind::RangeNotSatisfiable);
    }
    let page = BlockId::of(b"page");
    let answer = delivery.get(&url, &format!("pages/{page}"), false, Default::default()).await.unwrap();
    assert_eq!(answer.bytes(100).await.unwrap(), b"page".as_slice());
}

#[tokio::test]
async fn a_file_in_every_range() {
    let (served, url, key) = opened().await;
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=3-11", 3, 12),
        ("bytes=10-", 10, 20),
        ("bytes=-4", 16, 20),
        ("bytes=5-999", 5, 20),
    ] {
        let expected = (206, WHOLE[start..end].to_vec(), Some(format!("bytes {start}-{}/20", end - 1)));
        assert_eq!(ranged(&served, &url, range).await, expected, "{range}");
    }
    assert_eq!(ranged(&served, &url, "bytes=0-1,5-6").await, (200, WHOLE.to_vec(), None));
    let (status, _, content_range) = ranged(&served, &url, "bytes=20-").await;
    assert_eq!((status, content_range.as_deref()), (416, Some("bytes */20")));
    let whole = served.client.delivery().get(&url, &format!("files/{PATH}"), false, Default::default()).await.unwrap();
    assert_eq!(whole.headers["etag"], format!("\"{key}/720p/a%20film.mp4\""));
    assert_eq!(whole.headers["accept-ranges"], "bytes");
    assert_eq!(whole.headers["content-type"], "video/mp4");
    assert_eq!(whole.headers["imira-token-remaining"], "30");
    assert_eq!(whole.headers["cache-control"], "private, max-age=30");
    assert_eq!(whole.headers["imira-node"], "12D3KooWNode");
    assert_eq!(whole.bytes(100).await.unwrap(), WHOLE);
}

#[tokio::test]
async fn head_says_the_length_and_fetches_nothing() {
    let (served, url, _) = opened().await;
    served.backend.0.blocks.lock().unwrap().clear();
    let answer = served.client.delivery().get(&url, &format!("files/{PATH}"), true, Default::default()).await.unwrap();
    assert_eq!((answer.status, &answer.headers["content-length"]), (200, &"20".parse().unwrap()));
    assert!(answer.bytes(0).await.unwrap().is_empty());
    assert_eq!(served.transfers.running(), 0);
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let (served, url, _) = opened().await;
    let delivery = served.client.delivery();
    let path = format!("files/{PATH}");
    let etag = delivery.get(&url, &path, false, Default::default()).await.unwrap().headers["etag"].clone();
    let headers = [(reqwest::header::IF_NONE_MATCH, etag)].into_iter().collect();
    assert_eq!(delivery.get(&url, &path, false, headers).await.unwrap().status, 304);
}

#[tokio::test]
async fn a_token_ends_after_30_seconds() {
    let (served, url, _) = opened().await;
    served.clock.advance(29);
    let answer = served.client.delivery().get(&url, "index", false, Default::default()).await.unwrap();
    assert_eq!(answer.headers["imira-token-remaining"], "1");
    served.clock.advance(1);
    let error = served.client.delivery().index(&url).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::TokenExpired);
    assert!(!format!("{error:?}").contains("/v1/t/"));
}

#[tokio::test]
async fn a_stranger_token_and_a_stranger_block_are_refused() {
    let (served, url, _) = opened().await;
    let other = served.backend.add_content("b.mp4", &[b"another"]);
    let delivery = served.client.delivery();
    let get = async |path: String| kind(&delivery.get(&url, &path, false, Default::default()).await.err().unwrap());
    let foreign = other.index().fragments[0].id;
    assert_eq!(get(format!("blocks/{foreign}")).await, ErrorKind::WrongContent);
    assert_eq!(get(format!("pages/{foreign}")).await, ErrorKind::WrongContent);
    assert_eq!(get("files/b.mp4".to_owned()).await, ErrorKind::NotFound);
    assert_eq!(get("blocks/xyz".to_owned()).await, ErrorKind::NotFound);
    assert_eq!(get("elsewhere".to_owned()).await, ErrorKind::NotFound);
    let unknown = url.at("index").unwrap().replace("/v1/t/", "/v1/t/A").replace("/index", "");
    let unknown = format!("{}/index", &unknown[..unknown.len() - 1]);
    let answer = reqwest::get(unknown).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (401, &"application/problem+json".parse().unwrap())
    );
    assert!(answer.text().await.unwrap().contains("urn:imira:error:token-unknown"));
}

#[tokio::test]
async fn a_missing_block_is_unavailable_at_the_start_and_breaks_off_later() {
    let (served, url, _) = opened().await;
    let delivery = served.client.delivery();
    served.backend.0.blocks.lock().unwrap().remove(&BlockId::of(BLOCKS[3]));
    let answer = get_range(&delivery, &url, "bytes=0-12").await.unwrap();
    assert_eq!(answer.bytes(100).await.unwrap(), &WHOLE[..13]);
    let answer = delivery.get(&url, &format!("files/{PATH}"), false, Default::default()).await.unwrap();
    assert!(matches!(answer.bytes(100).await, Err(ClientError::Transport(_))));
    let error = get_range(&delivery, &url, "bytes=-1").await.err().unwrap();
    assert_eq!(kind(&error), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_request_is_refused_by_name() {
    let (served, _, key) = opened().await;
    let good = served.playback(key);
    let replay = served.platform.sign_request(&good).unwrap();
    served.client.request_playback(&replay).await.unwrap();
    assert_eq!(kind(&served.client.request_playback(&replay).await.unwrap_err()), ErrorKind::RequestReplayed);
    let foreign = RequestClaims { network: NetworkId::from_bytes([9; 16]), ..good.clone() };
    assert_eq!(served.refusal(&foreign).await, ErrorKind::WrongNetwork);
    let elsewhere = RequestClaims { node: "12D3KooWother".parse().unwrap(), ..good.clone() };
    assert_eq!(served.refusal(&elsewhere).await, ErrorKind::WrongAudience);
    let stranger = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap().sign_request(&good).unwrap();
    assert_eq!(kind(&served.client.request_playback(&stranger).await.unwrap_err()), ErrorKind::PlatformNotPinned);
    let long = "a".repeat(20_000);
    assert_eq!(kind(&served.client.request_playback(&long).await.unwrap_err()), ErrorKind::MalformedRequest);
    served.clock.advance(60);
    assert_eq!(served.refusal(&good).await, ErrorKind::RequestExpired);
}

#[tokio::test]
async fn the_node_has_written_down_what_it_accepted() {
    let (served, _, key) = opened().await;
    let ahead = served.playback(key);
    let ahead = RequestClaims { issued: ahead.issued + 10, ..ahead };
    served.client.request_playback(&served.platform.sign_request(&ahead).unwrap()).await.unwrap();
    assert_eq!(served.backend.0.seen_until.load(std::sync::atomic::Ordering::SeqCst), ahead.issued);
}

/// The fragment list of a long film has 20 MB, and was not counted.
#[tokio::test]
async fn a_fragment_list_counts_as_a_transfer() {
    let served = serve().await;
    let key = ContentKey::from_bytes([4; 32]);
    let fragment = Fragment { id: BlockId::of(b""), length: 1 << 20 };
    let index = Index {
        source_sha256: [0; 32],
        duration_ms: 1,
        renditions: vec![],
        fragments: vec![fragment; 150_000].into(),
        files: vec![],
    };
    let content = Content::new(key, Default::default(), index, []);
    served.backend.0.contents.lock().unwrap().insert(key, Arc::new(content));
    let url = served.temporary_url(key).await;
    // 16 MB do not fit into the sockets' buffers: the response runs while its body is not read.
    let answer = served.client.delivery().get(&url, "fragments", false, Default::default()).await.unwrap();
    assert_eq!(served.transfers.running(), 5);
    answer.bytes(64 << 20).await.unwrap();
    // A new request is answered after the body of the last one is gone, as it is on the same connection.
    served.client.delivery().index(&url).await.unwrap();
    assert_eq!(served.transfers.running(), 0);
}

#[tokio::test]
async fn cors_is_for_the_configured_origin_also_on_errors() {
    let (served, url, _) = opened().await;
    let http = reqwest::Client::new();
    let file = url.at(&format!("files/{PATH}")).unwrap();
    let allowed = http.get(&file).header("origin", ORIGIN).send().await.unwrap();
    assert_eq!(allowed.headers()["access-control-allow-origin"], ORIGIN);
    assert!(allowed.headers()["access-control-expose-headers"].to_str().unwrap().contains("imira-token-remaining"));
    let refused = http.get(&file).header("origin", "https://evil.example").send().await.unwrap();
    assert!(!refused.headers().contains_key("access-control-allow-origin"));
    served.clock.advance(31);
    let expired = http.get(&file).header("origin", ORIGIN).send().await.unwrap();
    assert_eq!(
        (expired.status().as_u16(), &expired.headers()["access-control-allow-origin"]),
        (401, &ORIGIN.parse().unwrap())
    );
    let preflight = http.request(reqwest::Method::OPTIONS, &file).header("origin", ORIGIN);
    let preflight =
        preflight.header("access-control-request-method", "GET").header("access-control-request-headers", "range");
    let preflight = preflight.send().await.unwrap();
    assert!(preflight.status().is_success());
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("range"));
}

#[tokio::test]
async fn the_operator_reads_status_peers_and_blocks() {
    let (served, _, _) = opened().await;
    assert_eq!(served.client.node().await.unwrap().replication, 2);
    assert_eq!(served.client.peers().await.unwrap().len(), 1);
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let answer = served.client.blocks(after, 4).await.unwrap();
        seen.extend(answer.blocks.iter().map(|block| block.id));
        after = answer.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 6);
    assert!(seen.is_sorted());
    assert_eq!(kind(&served.client.blocks(None, 0).await.unwrap_err()), ErrorKind::Invalid);
    assert_eq!(reqwest::get(format!("{}/healthz", served.control)).await.unwrap().status(), 200);
}
