//! A film is deleted: from the owner's request to the freed disks of all nodes, also of one that was away.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chunkstore_block::{BlockId, PublicationId};
use control_api::types::UploadStatus;
use control_api::{ErrorKind, Phase};
use e2e::{Node, Platform, Published, Stage, clip, eventually, run_tool};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SECONDS: u32 = 10;

/// Seconds, on a loaded machine of two cores.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_film_lives_as_long_as_one_of_its_publications_and_then_its_space_is_free() {
    let (stage, mut nodes, platform) = Stage::with_platform(3).await;
    let file = clip(&stage.path(""), SECONDS);
    let (first, second) = (platform.publish(&file), platform.publish(&file));
    assert_eq!(first.key, second.key);
    let stored = blocks(&nodes).await;
    assert!(stored.values().all(|references| *references == publications(&[&first, &second])), "{stored:?}");

    // The first of two: the blocks stay for the second.
    assert_eq!(platform.delete(&first.id).await, 204);
    assert_eq!(play(&platform, &first.id).await, StatusCode::NOT_FOUND);
    until_kept_for(&nodes, &publications(&[&second])).await;
    assert!(blocks(&nodes).await.keys().eq(stored.keys()));
    assert_plays(&second.hls);

    // The second, while a node is away.
    let stored_bytes = stored_bytes(&nodes).await;
    let (here, away) = nodes.split_at_mut(2);
    away[0].process.stop(Duration::from_secs(10));
    assert_eq!(platform.delete(&second.id).await, 204);
    until_empty(here).await;
    away[0].restart();
    away[0].wait_for_peers(2).await;
    until_empty(away).await;
    for node in &nodes {
        let platform = platform.key().fingerprint();
        let orders = node.client.deletions(platform, 0, 10).await.unwrap().deletions;
        assert_eq!(orders.iter().map(|order| order.sequence).collect::<Vec<_>>(), [1, 2]);
    }

    // What is preallocated is given back at the end; a page for each reference that was added later and for each order stays.
    let mut left = 0;
    for node in &mut nodes {
        node.process.stop(Duration::from_secs(10));
        left += node.disk_bytes();
        node.restart();
    }
    assert!(left < stored_bytes / 3, "{left} bytes are left where {stored_bytes} bytes of blocks were");
    for node in &nodes {
        node.wait_for_peers(2).await;
    }

    // Once more: a publication of its own, and nothing is in its way.
    let third = platform.publish(&file);
    assert_eq!(third.key, first.key);
    assert!(blocks(&nodes).await.keys().eq(stored.keys()));
    until_kept_for(&nodes, &publications(&[&third])).await;
    assert_plays(&third.hls);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_deleted_while_it_is_processed_leaves_nothing() {
    let (stage, nodes, platform) = Stage::with_platform(2).await;
    let file = clip(&stage.path(""), 30);
    let body = json!({"title": "A test", "visibility": "public", "size": file.metadata().unwrap().len()});
    let post = Client::new().post(format!("{}/api/contents", platform.url)).bearer_auth(&platform.api_key);
    let answer: Value = post.json(&body).send().await.unwrap().json().await.unwrap();
    let (url, token) = (answer["upload"]["url"].as_str().unwrap(), answer["upload"]["token"].as_str().unwrap());
    let put = Client::new().put(url).bearer_auth(token).body(tokio::fs::read(&file).await.unwrap());
    assert_eq!(put.send().await.unwrap().status(), StatusCode::ACCEPTED);
    until_phase(url, |phase| phase == Phase::Transcoding).await;

    assert_eq!(platform.delete(answer["id"].as_str().unwrap()).await, 204);
    let status = until_phase(url, Phase::is_final).await;
    assert_eq!(status.error.map(|error| error.kind), Some(ErrorKind::Deleted), "{:?}", status.phase);
    for node in &nodes {
        assert!(node.staging().is_empty(), "left in staging: {:?}", node.staging());
    }
    until_empty(&nodes).await;
    let again = Client::new().put(url).bearer_auth(token).body("again").send().await.unwrap();
    assert!(again.status().is_client_error(), "{}", again.status());
}

async fn until_phase(url: &str, wanted: impl Fn(Phase) -> bool) -> UploadStatus {
    eventually("the phase", Duration::from_secs(60), || async {
        let status: UploadStatus = reqwest::get(url).await.unwrap().json().await.unwrap();
        wanted(status.phase).then_some(status)
    })
    .await
}

/// All blocks of all nodes, and for which publications.
async fn blocks(nodes: &[Node]) -> BTreeMap<BlockId, BTreeSet<PublicationId>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for node in nodes {
        for block in node.stored().await {
            found.entry(block.id).or_default().extend(block.references.iter().map(|reference| reference.publication));
        }
    }
    found
}

/// Bytes of all blocks of all nodes.
async fn stored_bytes(nodes: &[Node]) -> u64 {
    let mut bytes = 0;
    for node in nodes {
        bytes += node.stored().await.iter().map(|block| block.length).sum::<u64>();
    }
    bytes
}

fn publications(published: &[&Published]) -> BTreeSet<PublicationId> {
    published.iter().map(|published| published.id.parse().unwrap()).collect()
}

async fn until_kept_for(nodes: &[Node], expected: &BTreeSet<PublicationId>) {
    eventually("other references gone", SOON, || async {
        blocks(nodes).await.values().all(|references| references == expected).then_some(())
    })
    .await;
}

/// Waits until no block is left, and no space of one.
async fn until_empty(nodes: &[Node]) {
    for node in nodes {
        eventually(&format!("{} empty", node.control_url), SOON, || async {
            let storage = node.client.node().await.ok()?.storage;
            (storage.blocks == 0 && storage.dead_bytes == 0).then_some(())
        })
        .await;
        assert!(node.stored().await.is_empty());
    }
}

async fn play(platform: &Platform, name: &str) -> StatusCode {
    reqwest::get(format!("{}/play/{name}/files/master.m3u8", platform.url)).await.unwrap().status()
}

/// Decodes everything with the real FFmpeg, without a complaint.
fn assert_plays(url: &str) {
    let decode =
        ["-nostdin", "-v", "error", "-xerror", "-http_persistent", "0", "-i", url, "-map", "0", "-f", "null", "-"];
    let decoded = run_tool("ffmpeg", &decode);
    let complaints = String::from_utf8_lossy(&decoded.stderr);
    assert!(decoded.status.success() && complaints.is_empty(), "{url}: {complaints}");
}
