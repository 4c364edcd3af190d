//! Resumable uploads (docs/api.md §4) at a real node, request by request.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use control_api::{ErrorKind, Phase};
use e2e::{Landing, TusUpload, clip, offset, refusal};
use reqwest::{Client, Method, Response};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const OFFSETS: &str = "application/offset+octet-stream";

async fn film(landing: &Landing, seconds: u32) -> (PathBuf, Vec<u8>) {
    let path = clip(&landing.stage.path(""), seconds);
    let bytes = tokio::fs::read(&path).await.unwrap();
    (path, bytes)
}

async fn head(upload: &TusUpload, url: &str) -> Response {
    upload.request("HEAD", url).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no {name}: {response:?}")).to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spoken_is_told_and_pages_of_the_platform_may_speak_it() {
    let landing = Landing::new(&[("cors_origins", r#"["http://pages.example"]"#), ("max_upload_bytes", "1000")]).await;
    let upload = landing.upload(10).await;
    let any = format!("http://{}/v1/uploads", landing.node.delivery);
    for url in [&any, &upload.url] {
        let told = Client::new().request(Method::OPTIONS, url).send().await.unwrap();
        assert_eq!(told.status(), 204);
        assert_eq!((header(&told, "tus-version"), header(&told, "tus-max-size")), ("1.0.0", "1000"));
        assert_eq!(header(&told, "tus-checksum-algorithm"), "sha256,sha1");
        let extensions = header(&told, "tus-extension");
        assert_eq!(extensions, "creation,creation-with-upload,expiration,checksum,termination,concatenation");
    }
    let preflight = Client::new()
        .request(Method::OPTIONS, &upload.url)
        .header("origin", "http://pages.example")
        .header("access-control-request-method", "PATCH")
        .header("access-control-request-headers", "authorization,tus-resumable,upload-offset,upload-checksum")
        .send()
        .await
        .unwrap();
    assert_eq!(header(&preflight, "access-control-allow-origin"), "http://pages.example");
    assert!(header(&preflight, "access-control-allow-methods").contains("PATCH"));
    for name in
        ["tus-resumable", "upload-offset", "upload-length", "upload-metadata", "upload-concat", "upload-checksum"]
    {
        assert!(header(&preflight, "access-control-allow-headers").contains(name), "{name}");
    }
    let answer = upload.request("HEAD", &upload.url).header("origin", "http://pages.example").send().await.unwrap();
    for name in ["location", "upload-offset", "upload-length", "upload-expires", "tus-resumable"] {
        assert!(header(&answer, "access-control-expose-headers").contains(name), "{name}");
    }
    let stranger = upload.request("HEAD", &upload.url).header("origin", "http://else.example").send().await.unwrap();
    assert!(!stranger.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_needs_the_version_and_the_token_of_its_upload() {
    let landing = Landing::new(&[]).await;
    let (upload, other) = (landing.upload(10).await, landing.upload(10).await);
    for version in [None, Some("0.2.2")] {
        let request = Client::new().patch(&upload.url).bearer_auth(upload.token.expose()).body("0123456789");
        let request = version.into_iter().fold(request, |request, version| request.header("tus-resumable", version));
        let answer = request.send().await.unwrap();
        assert_eq!(header(&answer, "tus-version"), "1.0.0");
        assert_eq!(refusal(answer).await, (412, "tus-version"));
    }
    let nobody = Client::new().post(&upload.url).header("tus-resumable", "1.0.0").send().await.unwrap();
    assert_eq!(refusal(nobody).await, (401, "token-unknown"));
    assert_eq!(refusal(other.patch(&upload.url, 0, "0123456789").await).await, (403, "wrong-content"));
    assert_eq!(head(&other, &upload.url).await.status(), 403);
    assert_eq!(upload.offset().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_created_once_and_with_the_size_of_its_token() {
    let landing = Landing::new(&[]).await;
    let upload = landing.upload(10).await;
    let length = ("upload-length", "10");
    for (headers, refused) in [
        (vec![], (400, "invalid")),
        (vec![("upload-length", "ten")], (400, "invalid")),
        (vec![("upload-length", "9")], (400, "upload-incomplete")),
        (vec![("upload-length", "11")], (413, "upload-too-large")),
        (vec![("upload-defer-length", "1")], (400, "invalid")),
        (vec![length, ("upload-metadata", "filename no base64")], (400, "invalid")),
        (vec![length, ("upload-checksum", "crc32 AAAA")], (400, "invalid")),
        (vec![("upload-concat", "half"), length], (400, "invalid")),
    ] {
        assert_eq!(refusal(upload.create(&headers).await).await, refused, "{headers:?}");
        assert_eq!(upload.status().await.phase, Phase::Waiting);
    }
    // To the address of all, too: the token says which upload it is.
    let any = format!("http://{}/v1/uploads", landing.node.delivery);
    let request = upload.request("POST", &any).header("upload-length", 10);
    let created = request.header("upload-metadata", "filename ZmlsbS5tcDQ=,b").send().await.unwrap();
    assert_eq!(created.status(), 201);
    assert_eq!((header(&created, "location"), offset(&created)), (upload.url.as_str(), 0));
    assert!(header(&created, "upload-expires").ends_with("GMT"));
    assert_eq!(upload.status().await.phase, Phase::Receiving);
    assert_eq!(offset(&upload.patch(&upload.url, 0, "0123").await), 4);
    let again = upload.create(&[length]).await;
    assert_eq!((again.status().as_u16(), offset(&again)), (201, 4), "what is there stays");
    let known = head(&upload, &upload.url).await;
    assert_eq!((known.status().as_u16(), offset(&known), header(&known, "upload-length")), (200, 4, "10"));
    assert_eq!(header(&known, "upload-metadata"), "filename ZmlsbS5tcDQ=,b");
    assert_eq!(header(&known, "cache-control"), "no-store");
    let put =
        Client::new().put(&upload.url).bearer_auth(upload.token.expose()).body("0123456789").send().await.unwrap();
    assert_eq!(refusal(put).await, (409, "upload-exists"));
    assert_eq!(refusal(upload.create(&[("upload-concat", "partial"), ("upload-length", "5")]).await).await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_in_order_and_are_processed_when_all_are_there() {
    let landing = Landing::new(&[]).await;
    let (path, bytes) = film(&landing, 3).await;
    let size = bytes.len() as u64;
    let upload = landing.upload(size).await;
    let first = upload.request("POST", &upload.url).header("upload-length", size).header("content-type", OFFSETS);
    let created = first.body(bytes[..1_000].to_vec()).send().await.unwrap();
    assert_eq!((created.status().as_u16(), offset(&created)), (201, 1_000));

    assert_eq!(refusal(upload.patch(&upload.url, 999, "x").await).await, (409, "wrong-offset"));
    assert_eq!(refusal(upload.patch(&upload.url, 1_001, "x").await).await, (409, "wrong-offset"));
    let untyped = upload.request("PATCH", &upload.url).header("upload-offset", 1_000).body("x").send().await.unwrap();
    assert_eq!(refusal(untyped).await, (415, "unsupported-media-type"));
    let nowhere = upload.request("PATCH", &upload.url).header("content-type", OFFSETS).body("x").send().await.unwrap();
    assert_eq!(refusal(nowhere).await, (400, "invalid"));
    let too_much = bytes[1_000..].iter().copied().chain(*b"more").collect::<Vec<_>>();
    assert_eq!(refusal(upload.patch(&upload.url, 1_000, too_much.clone()).await).await, (413, "upload-too-large"));
    let unannounced =
        futures::stream::iter(too_much.chunks(500).map(|chunk| Ok::<_, String>(chunk.to_vec())).collect::<Vec<_>>());
    let unannounced = upload.patch(&upload.url, 1_000, reqwest::Body::wrap_stream(unannounced)).await;
    assert_eq!(refusal(unannounced).await, (413, "upload-too-large"));
    assert_eq!(upload.offset().await, 1_000, "nothing of a refused request is kept");

    let overridden = upload.request("POST", &upload.url).header("x-http-method-override", "PATCH");
    let overridden = overridden.header("upload-offset", 1_000).header("content-type", OFFSETS);
    let overridden = overridden.body(bytes[1_000..2_000].to_vec()).send().await.unwrap();
    assert_eq!((overridden.status().as_u16(), offset(&overridden)), (204, 2_000));
    let status = upload.status().await;
    assert_eq!((status.phase, status.received_bytes, status.remaining_seconds), (Phase::Receiving, 2_000, None));
    let last = upload.patch(&upload.url, 2_000, bytes[2_000..].to_vec()).await;
    assert_eq!((last.status().as_u16(), offset(&last)), (204, size));
    assert!(!last.headers().contains_key("upload-expires"), "there is nothing left to send");
    assert_eq!(refusal(upload.patch(&upload.url, 0, bytes).await).await, (409, "upload-exists"));
    assert_eq!(upload.patch(&upload.url, size, "").await.status(), 204, "as a client asks that missed the last answer");

    let ready = upload.until_ready().await;
    assert_eq!(upload.offset().await, size);
    assert!(landing.node.staging().is_empty());
    let deleted = upload.request("DELETE", &upload.url).send().await.unwrap();
    assert_eq!(refusal(deleted).await, (409, "upload-exists"), "what is stored is deleted at the platform");
    assert_eq!(ready.content_key, put_whole(&landing, &path).await, "the file came as it was");
}

/// The content key of a file that is sent in one piece.
async fn put_whole(landing: &Landing, path: &PathBuf) -> Option<chunkstore_block::ContentKey> {
    let bytes = tokio::fs::read(path).await.unwrap();
    let upload = landing.upload(bytes.len() as u64).await;
    let put = Client::new().put(&upload.url).bearer_auth(upload.token.expose()).body(bytes).send().await.unwrap();
    assert_eq!(put.status(), 202);
    upload.until_ready().await.content_key
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_connection_broke_is_kept_and_an_ended_upload_leaves_nothing() {
    let landing = Landing::new(&[]).await;
    let upload = landing.upload(1_000_000).await;
    drop(upload.begin_patch(0, 1_000_000, "", &[7; 300_000]));
    e2e::eventually("the bytes being kept", Duration::from_secs(30), || async {
        (upload.offset().await == 300_000).then_some(())
    })
    .await;
    assert_eq!(upload.patch(&upload.url, 300_000, vec![7; 1_000]).await.status(), 204);
    assert_eq!(landing.node.staging().len(), 1);

    let ended = upload.request("DELETE", &upload.url).send().await.unwrap();
    assert_eq!(ended.status(), 204);
    assert!(landing.node.staging().is_empty());
    let status = upload.status().await;
    assert_eq!(
        (status.phase, status.error.map(|error| error.kind)),
        (Phase::Rejected, Some(ErrorKind::UploadTerminated))
    );
    assert_eq!(head(&upload, &upload.url).await.status(), 410);
    assert_eq!(refusal(upload.patch(&upload.url, 301_000, "x").await).await, (410, "upload-terminated"));
    assert_eq!(refusal(upload.create(&[("upload-length", "1000000")]).await).await, (410, "upload-terminated"));
    let again = upload.request("DELETE", &upload.url).send().await.unwrap();
    assert_eq!(refusal(again).await, (410, "upload-terminated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn processing_ends_with_its_upload() {
    let landing = Landing::new(&[]).await;
    let (_, bytes) = film(&landing, 20).await;
    let upload = landing.upload(bytes.len() as u64).await;
    assert_eq!(upload.patch(&upload.url, 0, bytes).await.status(), 204);
    upload.until("transcoding", |status| status.phase == Phase::Transcoding).await;
    assert_eq!(upload.request("DELETE", &upload.url).send().await.unwrap().status(), 204);
    assert!(landing.node.staging().is_empty());
    assert_eq!(upload.status().await.error.map(|error| error.kind), Some(ErrorKind::UploadTerminated));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_writes_at_a_time_and_one_that_is_silent_makes_way() {
    let landing = Landing::new(&[]).await;
    let upload = landing.upload(1_000_000).await;
    let mut first = upload.begin_patch(0, 1_000_000, "", &[1; 10]);
    upload.until("the first bytes", |status| status.phase == Phase::Receiving).await;
    first.write_all(&[1; 10]).unwrap();
    assert_eq!(refusal(upload.patch(&upload.url, 0, vec![2; 100]).await).await, (423, "upload-locked"));
    // Nothing more comes by the first: as when a laptop was closed. A client asks, is refused, and tries again.
    let resumed = e2e::eventually("the second one's turn", Duration::from_secs(30), || async {
        let offset = upload.offset().await;
        let answer = upload.patch(&upload.url, offset, vec![2; 100]).await;
        (answer.status() == 204).then(|| e2e::offset(&answer))
    })
    .await;
    assert_eq!(resumed, 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn room_for_the_whole_is_set_aside_before_the_first_byte() {
    let landing = Landing::new(&[("quota_bytes", "10000000"), ("repair_reserve_percent", "0")]).await;
    let free = landing.node.client.node().await.unwrap().storage.free_for_uploads();
    let size = free * 2 / 3;
    // Both are promised a place while nothing has been taken.
    let (first, second) = (landing.upload(size).await, landing.upload(size).await);
    assert_eq!(first.create(&[("upload-length", &size.to_string())]).await.status(), 201);
    assert_eq!(refusal(second.create(&[("upload-length", &size.to_string())]).await).await, (507, "no-room"));
    assert_eq!(refusal(second.patch(&second.url, 0, "x").await).await, (507, "no-room"));
    assert_eq!(second.status().await.phase, Phase::Waiting);
    assert_eq!(first.request("DELETE", &first.url).send().await.unwrap().status(), 204);
    assert_eq!(second.create(&[("upload-length", &size.to_string())]).await.status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_goes_on_with_what_is_there() {
    let landing = Landing::new(&[]).await;
    let upload = landing.upload(10).await;
    assert_eq!(upload.patch(&upload.url, 0, "0123").await.status(), 204);
    let renewed = landing.token(upload.publication, 10).await.unwrap();
    assert_eq!(refusal(upload.patch(&upload.url, 4, "x").await).await, (401, "token-unknown"));
    assert_eq!(renewed.offset().await, 4);
    let other_size = landing.token(upload.publication, 11).await.err().unwrap();
    assert_eq!(other_size.kind, ErrorKind::UploadExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_uploads_together_keep_to_the_operators_rate() {
    let landing = Landing::new(&[("upload_bytes_per_s", "1000000")]).await;
    let (patched, put) = (landing.upload(2_000_000).await, landing.upload(1_000_000).await);
    let begun = Instant::now();
    let send_put = Client::new().put(&put.url).bearer_auth(put.token.expose()).body(vec![0; 1_000_000]).send();
    let (first, second) = tokio::join!(patched.patch(&patched.url, 0, vec![0; 1_500_000]), send_put);
    assert_eq!((first.status().as_u16(), second.unwrap().status().as_u16()), (204, 202));
    // 2.5 MB, of which a tenth of a second's worth may come at once.
    assert!(begun.elapsed() >= Duration::from_millis(2_300), "{:?}", begun.elapsed());
}
