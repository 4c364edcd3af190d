//! An upload step by step, as a program of one's own would do it: register, send, preview, publish.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Acknowledged, Copies, Node, NodeOptions, Platform, Stage, clip, eventually, noisy_clip};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A registered content: its publication id, and where and with what to send the file.
struct Registered {
    id: String,
    url: String,
    token: String,
}

async fn register(platform: &Platform, size: u64, visibility: &str) -> Registered {
    let body = json!({"title": "A test", "visibility": visibility, "size": size});
    let answer = post(platform, "/api/contents", &body).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["state"], "pending");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Registered { id: text(&answer["id"]), url: text(&answer["upload"]["url"]), token: text(&answer["upload"]["token"]) }
}

async fn post(platform: &Platform, path: &str, body: &Value) -> Response {
    let request = Client::new().post(format!("{}{path}", platform.url)).bearer_auth(&platform.api_key);
    request.json(body).send().await.unwrap()
}

async fn send(registered: &Registered, file: &Path) -> Response {
    let body = tokio::fs::read(file).await.unwrap();
    Client::new().put(&registered.url).bearer_auth(&registered.token).body(body).send().await.unwrap()
}

async fn wait_for_state(platform: &Platform, id: &str, state: &str) -> Value {
    eventually(&format!("state {state}"), Duration::from_secs(120), || async {
        let content = platform.get(&format!("/api/contents/{id}")).await;
        assert!(content["state"] != "rejected" || state == "rejected", "{content}");
        (content["state"] == state).then_some(content)
    })
    .await
}

fn ingest_node<'a>(nodes: &'a [Node], registered: &Registered) -> &'a Node {
    nodes.iter().find(|node| registered.url.contains(&node.delivery.to_string())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_previews_with_the_upload_token_and_others_see_nothing_before_publication() {
    let (stage, nodes, platform) = Stage::with_platform(2).await;
    let file = clip(&stage.path(""), 3);
    let registered = register(&platform, file.metadata().unwrap().len(), "public").await;
    let node = ingest_node(&nodes, &registered);
    let preview = format!("http://{}/v1/t/{}/files/master.m3u8", node.delivery, registered.token);

    assert_eq!(reqwest::get(&preview).await.unwrap().status(), StatusCode::CONFLICT, "nothing has come yet");
    assert_eq!(send(&registered, &file).await.status(), StatusCode::ACCEPTED);
    assert_eq!(send(&registered, &file).await.status(), StatusCode::CONFLICT, "the file has come already");
    let content = wait_for_state(&platform, &registered.id, "ready").await;

    let master = reqwest::get(&preview).await.unwrap();
    assert_eq!(master.status(), StatusCode::OK);
    assert!(master.text().await.unwrap().starts_with("#EXTM3U"));
    let key = content["content_key"].as_str().unwrap();
    let play = format!("{}/play/{key}/files/master.m3u8", platform.url);
    assert_eq!(reqwest::get(&play).await.unwrap().status(), StatusCode::NOT_FOUND, "not published");
    let as_owner = Client::new().get(&play).bearer_auth(&platform.api_key).send().await.unwrap();
    assert_eq!(as_owner.status(), StatusCode::OK);

    let published = post(&platform, &format!("/api/contents/{}/publish", registered.id), &json!({})).await;
    assert_eq!(published.status(), StatusCode::OK);
    assert_eq!(reqwest::get(&play).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_the_owner_only_stays_so_after_publication() {
    let (stage, _nodes, platform) = Stage::with_platform(2).await;
    let file = clip(&stage.path(""), 2);
    let registered = register(&platform, file.metadata().unwrap().len(), "owner").await;
    assert_eq!(send(&registered, &file).await.status(), StatusCode::ACCEPTED);
    wait_for_state(&platform, &registered.id, "ready").await;
    post(&platform, &format!("/api/contents/{}/publish", registered.id), &json!({})).await;
    let play = format!("{}/play/{}/index", platform.url, registered.id);
    assert_eq!(reqwest::get(&play).await.unwrap().status(), StatusCode::NOT_FOUND);
    let as_owner = Client::new().get(&play).bearer_auth(&platform.api_key).send().await.unwrap();
    assert_eq!(as_owner.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_to_disk_as_it_comes_and_is_never_held_in_memory() {
    const SIZE: u64 = 512 << 20;
    let (stage, nodes, platform) = Stage::with_platform(2).await;
    let before: Vec<_> = nodes.iter().map(|node| node.process.peak_memory_bytes()).collect();
    let file = stage.path("large.mp4");
    std::fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
    assert!(!platform.upload(&file, &[]).status.success(), "half a gigabyte of zeros is no video");
    for (node, before) in nodes.iter().zip(before) {
        let grown = node.process.peak_memory_bytes() - before;
        assert!(grown < SIZE / 8, "the node's memory grew by {grown} bytes");
        assert!(node.staging().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_uploaded_is_kept_there_until_its_holders_have_proved_theirs() {
    let mut options: Vec<_> = (0..3).map(|_| NodeOptions::brisk()).collect();
    // Long enough to look.
    options.iter_mut().for_each(|option| option.settings.push(("drop_delay_seconds", "20".into())));
    let (stage, nodes, platform) = Stage::with_platform_and(options).await;
    let file = clip(&stage.path(""), 3);
    let registered = register(&platform, file.metadata().unwrap().len(), "public").await;
    assert_eq!(send(&registered, &file).await.status(), StatusCode::ACCEPTED);
    wait_for_state(&platform, &registered.id, "ready").await;
    let mut blocks = Acknowledged::new();
    for node in &nodes {
        blocks.extend(node.stored().await.iter().map(|stored| stored.id));
    }
    let all: Vec<_> = nodes.iter().collect();
    let copies = Copies::count(&all, &blocks, 2).await;
    assert_eq!((copies.lost, copies.missing), (0, 0), "{copies:?}");
    assert!(copies.surplus > 0, "with three nodes and R = 2 every node is to lack some blocks: {copies:?}");
    assert_eq!(ingest_node(&nodes, &registered).stored().await.len(), blocks.len(), "{copies:?}");
    Copies::until_exact(&all, &blocks, 2, Duration::from_secs(120)).await;
}

/// The creator's command outlives the node's process.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_goes_on_with_its_upload_when_the_node_is_back_from_a_kill() {
    let settings = vec![("replication", "1".to_owned()), ("upload_bytes_per_s", "4000000".to_owned())];
    let (stage, mut nodes, platform) =
        Stage::with_platform_and(vec![NodeOptions { settings, ..NodeOptions::default() }]).await;
    let platform = Arc::new(platform);
    let file = noisy_clip(&stage.path(""), 3);
    assert!(file.metadata().unwrap().len() > 12_000_000, "it takes some seconds");
    let command = tokio::task::spawn_blocking({
        let platform = Arc::clone(&platform);
        move || platform.upload(&file, &[])
    });
    eventually("a third of the file", Duration::from_secs(60), || async {
        let contents = platform.get("/api/contents").await;
        let progress = &contents["contents"][0]["progress"];
        (progress["phase"] == "receiving" && progress["percent"].as_f64()? > 33.0).then_some(())
    })
    .await;
    nodes[0].process.kill();
    nodes[0].restart();
    let output = command.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("trying again in 1 s"), "{said}");
}
