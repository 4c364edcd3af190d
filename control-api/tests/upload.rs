//! An upload over real sockets: token, file, status, events, preview.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, dead_code)]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chunkstore_block::PublicationId;
use control_api::{ClientError, ErrorKind, Phase, TemporaryUrl, Token, UploadStatus};
use futures::stream;
use support::{MAX_UPLOAD, Served, serve};

const FILE: &[u8] = b"a film";

fn publication() -> PublicationId {
    PublicationId::from_bytes([4; 16])
}

fn kind(error: &ClientError) -> ErrorKind {
    error.problem().unwrap_or_else(|| panic!("not a problem: {error:?}")).kind
}

async fn put(served: &Served, url: &str, token: &Token, file: &'static [u8]) -> Result<UploadStatus, ClientError> {
    let chunks = file.chunks(2).map(|chunk| Ok::<_, Infallible>(Bytes::from_static(chunk)));
    served.client.delivery().put_upload(url, token, file.len() as u64, stream::iter(chunks), |_| {}).await
}

#[tokio::test]
async fn a_token_that_cannot_be_kept_does_not_end_the_one_before() {
    let served = serve().await;
    let (url, token) = served.upload_token(publication(), FILE.len() as u64).await;
    served.backend.0.disk_fails.store(true, Ordering::SeqCst);
    assert_eq!(served.refusal(&served.upload(publication(), 6)).await, ErrorKind::Internal);
    assert_eq!(put(&served, &url, &token, FILE).await.unwrap().phase, Phase::Probing);
}

#[tokio::test]
async fn a_file_is_taken_once_and_previewed_when_ready() {
    let served = serve().await;
    let (url, token) = served.upload_token(publication(), FILE.len() as u64).await;
    let delivery = served.client.delivery();
    assert_eq!(delivery.upload_status(&url).await.unwrap().phase, Phase::Waiting);
    let sent = Arc::new(AtomicU64::new(0));
    let progress = {
        let sent = Arc::clone(&sent);
        move |bytes| sent.store(bytes, Ordering::SeqCst)
    };
    let body = stream::iter([Ok::<_, Infallible>(Bytes::from_static(FILE))]);
    let status = delivery.put_upload(&url, &token, FILE.len() as u64, body, progress).await.unwrap();
    assert_eq!((status.phase, status.received_bytes, sent.load(Ordering::SeqCst)), (Phase::Probing, 6, 6));
    assert_eq!(served.backend.0.files.lock().unwrap()[&publication()], FILE);
    assert_eq!(kind(&put(&served, &url, &token, FILE).await.unwrap_err()), ErrorKind::UploadExists);
    assert_eq!(served.refusal(&served.upload(publication(), 6)).await, ErrorKind::UploadExists);

    let base = format!("{}/v1/t/", url.split("/v1/").next().unwrap());
    let preview = TemporaryUrl::new(&base, &token).unwrap();
    assert_eq!(kind(&delivery.index(&preview).await.unwrap_err()), ErrorKind::NotReady);
    let key = served.backend.add_content("a.mp4", &[b"a film"]).key();
    served.backend.0.uploads.lock().unwrap()[&publication()].send_modify(|status| {
        status.phase = Phase::Ready;
        status.content_key = Some(key);
    });
    let answer = delivery.get(&preview, "files/a.mp4", false, Default::default()).await.unwrap();
    assert_eq!(answer.bytes(100).await.unwrap(), FILE);
}

#[tokio::test]
async fn a_file_must_have_the_announced_size() {
    let served = serve().await;
    let (url, token) = served.upload_token(publication(), 6).await;
    let send = async |file: &'static [u8]| {
        // Without Content-Length, so that the counting is seen and not the header.
        let chunks = stream::iter(file.chunks(2).map(|chunk| Ok::<_, Infallible>(Bytes::from_static(chunk))));
        let request =
            reqwest::Client::new().put(&url).bearer_auth(token.expose()).body(reqwest::Body::wrap_stream(chunks));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = send(b"seven b").await;
    assert!(status == 413 && text.contains("upload-too-large"), "{status} {text}");
    let (status, text) = send(b"five ").await;
    assert!(status == 400 && text.contains("upload-incomplete"), "{status} {text}");
    let (status, text) = send(b"").await;
    assert!(status == 400 && text.contains("upload-empty"), "{status} {text}");
    let (status, _) = send(b"six by").await;
    assert_eq!(status, 202);
    assert_eq!(served.refusal(&served.upload(publication(), MAX_UPLOAD + 1)).await, ErrorKind::UploadTooLarge);
}

#[tokio::test]
async fn only_the_newest_token_of_this_upload_may_put() {
    let served = serve().await;
    let (url, old) = served.upload_token(publication(), 6).await;
    let (_, new) = served.upload_token(publication(), 6).await;
    let (other_url, _) = served.upload_token(PublicationId::from_bytes([5; 16]), 6).await;
    assert_eq!(kind(&put(&served, &url, &old, FILE).await.unwrap_err()), ErrorKind::TokenUnknown);
    assert_eq!(kind(&put(&served, &other_url, &new, FILE).await.unwrap_err()), ErrorKind::WrongContent);
    let nobody = reqwest::Client::new().put(&url).body(FILE).send().await.unwrap();
    assert_eq!((nobody.status().as_u16(), &nobody.headers()["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
    put(&served, &url, &new, FILE).await.unwrap();
    served.clock.advance(24 * 60 * 60);
    assert_eq!(kind(&put(&served, &url, &new, FILE).await.unwrap_err()), ErrorKind::TokenExpired);
}

#[tokio::test]
async fn events_end_when_the_node_stops() {
    let served = serve().await;
    let (url, _) = served.upload_token(publication(), 6).await;
    let mut answer = reqwest::get(format!("{url}/events")).await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    served.state.end_events();
    // By itself the next bytes would come after 15 s, and the end never.
    let rest = tokio::time::timeout(std::time::Duration::from_secs(10), answer.text()).await;
    assert_eq!(rest.unwrap().unwrap(), "");
}

#[tokio::test]
async fn events_end_with_the_last_phase() {
    let served = serve().await;
    let (url, _) = served.upload_token(publication(), 6).await;
    let mut answer = reqwest::get(format!("{url}/events")).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let first = answer.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: status\ndata: {") || first.starts_with(b"event:status\ndata:{"), "{first:?}");
    for phase in [Phase::Receiving, Phase::Transcoding, Phase::Rejected] {
        served.backend.0.uploads.lock().unwrap()[&publication()].send_modify(|status| status.phase = phase);
    }
    let rest = answer.text().await.unwrap();
    assert!(rest.contains("rejected") && !rest.contains("receiving"), "only the latest of a burst: {rest}");
    let unknown = url.replace("0404", "0505");
    assert_eq!(reqwest::get(format!("{unknown}/events")).await.unwrap().status(), 404);
}
