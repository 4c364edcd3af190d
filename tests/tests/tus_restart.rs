//! Resumable uploads over the sudden end of the node: the client goes on with the same URL and token.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use control_api::{ErrorKind, Phase, Problem};
use e2e::{Landing, TusUpload, clip, refusal};
use reqwest::Client;

async fn film(landing: &Landing, seconds: u32) -> Vec<u8> {
    tokio::fs::read(clip(&landing.stage.path(""), seconds)).await.unwrap()
}

/// What a client does after a broken connection.
async fn send_rest(upload: &TusUpload, bytes: &[u8]) -> u64 {
    let offset = upload.offset().await;
    let answer = upload.patch(&upload.url, offset, bytes[offset as usize..].to_vec()).await;
    assert_eq!((answer.status().as_u16(), e2e::offset(&answer)), (204, bytes.len() as u64));
    offset
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_a_kill_and_no_acknowledged_byte_is_sent_again() {
    let mut landing = Landing::new(&[]).await;
    let bytes = film(&landing, 30).await;
    let whole = landing.upload(bytes.len() as u64).await;
    assert_eq!(whole.patch(&whole.url, 0, bytes.clone()).await.status(), 204);
    let key = whole.until_ready().await.content_key.unwrap();

    let upload = landing.upload(bytes.len() as u64).await;
    let metadata = [("upload-length", &*bytes.len().to_string()), ("upload-metadata", "filename ZmlsbQ==")];
    assert_eq!(upload.create(&metadata).await.status(), 201);
    assert_eq!(upload.patch(&upload.url, 0, bytes[..1_000].to_vec()).await.status(), 204);
    let half = bytes.len() / 2;
    assert!(half > 512 << 10, "or the kill finds nothing on disk: {half}");
    let open = upload.begin_patch(1_000, bytes.len() - 1_000, "", &bytes[1_000..half]);
    upload.until("half of it", |status| status.received_bytes == half as u64).await;
    landing.kill_and_restart().await;
    drop(open);

    let status = upload.status().await;
    assert_eq!((status.phase, status.size), (Phase::Receiving, bytes.len() as u64));
    let known = upload.request("HEAD", &upload.url).send().await.unwrap();
    assert_eq!(known.headers()["upload-metadata"], "filename ZmlsbQ==");
    let resumed = send_rest(&upload, &bytes).await;
    assert!(resumed > 1_000 && resumed <= half as u64, "{resumed} of {half}");
    assert_eq!(upload.until_ready().await.content_key, Some(key), "byte for byte the same file");

    // What is ready stays so: the platform may not have read it yet.
    landing.kill_and_restart().await;
    assert_eq!(upload.status().await.content_key, Some(key));
    let preview = format!("http://{}/v1/t/{}/files/master.m3u8", landing.node.delivery, upload.token.expose());
    assert_eq!(reqwest::get(preview).await.unwrap().status(), 200);
    assert_eq!(landing.token(upload.publication, 9).await.err().unwrap().kind, ErrorKind::UploadExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_no_checksum_checked_yet_is_gone_after_a_kill() {
    let mut landing = Landing::new(&[]).await;
    let upload = landing.upload(2 << 20).await;
    assert_eq!(upload.patch(&upload.url, 0, vec![1; 1_000]).await.status(), 204);
    let checksum = "upload-checksum: sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\r\n";
    let open = upload.begin_patch(1_000, 1 << 20, checksum, &[2; 800_000]);
    upload.until("most of it", |status| status.received_bytes == 801_000).await;
    landing.kill_and_restart().await;
    drop(open);
    assert_eq!(upload.offset().await, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_processed_is_processed_after_a_kill_whichever_way_it_came() {
    let mut landing = Landing::new(&[]).await;
    let bytes = film(&landing, 20).await;
    let size = bytes.len() as u64;
    let (patched, put) = (landing.upload(size).await, landing.upload(size).await);
    assert_eq!(patched.patch(&patched.url, 0, bytes.clone()).await.status(), 204);
    let answer = Client::new().put(&put.url).bearer_auth(put.token.expose()).body(bytes).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    patched.until("transcoding", |status| status.phase == Phase::Transcoding).await;
    landing.kill_and_restart().await;
    assert_eq!(patched.offset().await, size);
    let keys = (patched.until_ready().await.content_key, put.until_ready().await.content_key);
    assert!(keys.0.is_some() && keys.1.is_some(), "{keys:?}");
    assert!(landing.node.staging().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_processing_is_no_rejection() {
    let mut landing = Landing::new(&[]).await;
    let bytes = film(&landing, 20).await;
    let upload = landing.upload(bytes.len() as u64).await;
    assert_eq!(upload.patch(&upload.url, 0, bytes).await.status(), 204);
    // More often than a file may take the node down with it.
    for _ in 0..4 {
        upload.until("processing", |status| matches!(status.phase, Phase::Probing | Phase::Transcoding)).await;
        landing.node.process.stop(std::time::Duration::from_secs(30));
        landing.node.restart();
        landing.node.wait_for_peers(0).await;
    }
    upload.until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_which_the_node_ends_again_and_again_is_given_up() {
    let mut landing = Landing::new(&[]).await;
    let bytes = film(&landing, 20).await;
    let upload = landing.upload(bytes.len() as u64).await;
    assert_eq!(upload.patch(&upload.url, 0, bytes).await.status(), 204);
    for _ in 0..3 {
        upload.until("processing", |status| matches!(status.phase, Phase::Probing | Phase::Transcoding)).await;
        landing.kill_and_restart().await;
    }
    let error = upload.status().await.error.unwrap();
    assert!(error.kind == ErrorKind::Internal && error.detail.contains("3 times"), "{error}");
    assert!(landing.node.staging().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_upload_stays_ended_and_a_broken_put_begins_anew() {
    let mut landing = Landing::new(&[]).await;
    let bytes = film(&landing, 2).await;
    let (ended, put) = (landing.upload(10).await, landing.upload(bytes.len() as u64).await);
    assert_eq!(ended.patch(&ended.url, 0, "0123").await.status(), 204);
    assert_eq!(ended.request("DELETE", &ended.url).send().await.unwrap().status(), 204);
    let pending = futures::stream::once(std::future::ready(Ok::<_, String>(bytes[..1_000].to_vec())));
    let body = reqwest::Body::wrap_stream(futures::StreamExt::chain(pending, futures::stream::pending()));
    let sending = Client::new().put(&put.url).bearer_auth(put.token.expose()).body(body).send();
    let sending = tokio::spawn(sending);
    put.until("the first bytes", |status| status.phase == Phase::Receiving).await;
    landing.kill_and_restart().await;
    assert!(sending.await.unwrap().is_err());
    assert!(landing.node.staging().is_empty(), "nothing of a broken PUT is kept");
    assert_eq!(refusal(ended.patch(&ended.url, 4, "x").await).await, (410, "upload-terminated"));
    assert_eq!(put.status().await.phase, Phase::Waiting);
    let answer = Client::new().put(&put.url).bearer_auth(put.token.expose()).body(bytes).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    put.until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_token_nor_its_bytes_are_on_disk() {
    let mut landing = Landing::new(&[]).await;
    let upload = landing.upload(10).await;
    assert_eq!(upload.patch(&upload.url, 0, "0123").await.status(), 204);
    let refused = Problem::from_json(&upload.patch(&upload.url, 9, "x").await.bytes().await.unwrap()).unwrap();
    assert!(refused.detail.contains("Upload-Offset: 4"), "{refused}");
    // Its log, its records and what comes lie there, the log of an end and a new start too.
    landing.kill_and_restart().await;
    let folder = landing.node.store().parent().unwrap().to_owned();
    let (mut folders, mut read) = (vec![folder], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let token = upload.token.expose().as_bytes();
            assert!(!bytes.windows(token.len()).any(|window| window == token), "{}", path.display());
            read.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    let has = |name: &str| read.iter().any(|file| file.starts_with(name));
    assert!(has("log") && has("source") && has(&upload.publication.to_string()), "{read:?}");
}

/// README: a stop takes five seconds at most, whoever is connected.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_nobody_who_sends_slowly_or_only_listens() {
    let mut landing = Landing::new(&[]).await;
    let (slow, watched) = (landing.upload(1_000_000).await, landing.upload(10).await);
    let _sending = slow.begin_patch(0, 1_000_000, "", &[7; 1_000]);
    slow.until("the first bytes", |status| status.received_bytes > 0).await;
    let mut events = reqwest::get(format!("{}/events", watched.url)).await.unwrap();
    assert!(events.chunk().await.unwrap().is_some());
    let took = landing.node.process.stop(std::time::Duration::from_secs(30));
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    landing.node.restart();
    landing.node.wait_for_peers(0).await;
    assert_eq!(slow.offset().await, 1_000, "what had come is kept");
}
