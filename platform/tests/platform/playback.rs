//! `/play` and `/proxy`: who may watch, where they are sent, and what happens when a node fails.

use reqwest::{Method, StatusCode};

use crate::fake_node::{FakeNode, PLAYLIST, Temper};
use crate::{Platform, problem};

#[tokio::test]
async fn the_owner_previews_and_strangers_wait_for_publication() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (id, key) = platform.ready("unlisted").await;
    let path = format!("/play/{key}/files/720p.mp4");
    let preview = platform.as_ada(Method::GET, &path).send().await.unwrap();
    assert_eq!(preview.status(), StatusCode::TEMPORARY_REDIRECT);
    for stranger in [platform.get(&path), platform.get(&path).bearer_auth(platform.eve.expose())] {
        assert_eq!(problem(stranger.send().await.unwrap()).await, (404, "not-found".into()));
    }
    let not_theirs = platform.request(Method::POST, &format!("/api/contents/{id}/publish"));
    let refused = not_theirs.bearer_auth(platform.eve.expose()).send().await.unwrap();
    assert_eq!(problem(refused).await, (404, "not-found".into()));
    platform.as_ada(Method::POST, &format!("/api/contents/{id}/publish")).send().await.unwrap();
    assert_eq!(platform.get(&path).send().await.unwrap().status(), StatusCode::TEMPORARY_REDIRECT);
    let listed: serde_json::Value = platform.get("/api/contents").send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["contents"], serde_json::json!([]), "unlisted");
}

#[tokio::test]
async fn what_is_for_its_owner_stays_so() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (id, key) = platform.published("owner").await;
    for path in [format!("/play/{key}/index"), format!("/proxy/{id}/index"), format!("/api/contents/{key}")] {
        assert_eq!(platform.get(&path).send().await.unwrap().status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn each_redirect_has_a_fresh_token_that_opens_the_node() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (id, key) = platform.published("public").await;
    let mut seen = Vec::new();
    for name in [&key, &id] {
        let path = format!("/play/{name}/files/720p.mp4?near=48.8,2.3");
        let answer = platform.get(&path).send().await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["imira-node"], "12D3a");
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let bytes = platform.http.get(&location).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, "video");
        assert!(!seen.contains(&location));
        seen.push(location);
    }
}

/// A node refuses requests of the second in which it was started. When all were, nobody else can be asked: the viewer and the
/// uploader wait for the next second. A node that goes on refusing, its clock being ahead, is not asked for ever.
#[tokio::test]
async fn a_node_that_was_started_just_now_is_asked_once_more() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (_, key) = platform.published("public").await;
    let path = format!("/play/{key}/files/720p.mp4");
    node.find_too_early(1);
    assert_eq!(platform.get(&path).send().await.unwrap().status(), StatusCode::TEMPORARY_REDIRECT);
    node.find_too_early(1);
    assert_eq!(platform.register("public").await["upload"]["node"], "12D3a");
    node.find_too_early(1_000);
    assert_eq!(problem(platform.get(&path).send().await.unwrap()).await, (409, "request-before-start".into()));
}

#[tokio::test]
async fn the_platform_says_whose_address_it_is() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (id, key) = platform.published("public").await;
    for (path, bytes) in [(format!("{key}/files/720p.mp4"), "video"), (format!("{id}/files/master.m3u8"), PLAYLIST)] {
        let answer = platform.get(&format!("/play/{path}")).header("accept", "application/json").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["vary"], "accept");
        let answer: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(answer["node"], "12D3a");
        let url = answer["url"].as_str().unwrap();
        assert!(url.starts_with(&node.url), "{url}");
        assert_eq!(platform.http.get(url).send().await.unwrap().text().await.unwrap(), bytes);
        let plain = platform.get(&format!("/play/{path}")).header("accept", "*/*").send().await.unwrap();
        assert_eq!(plain.headers()["vary"], "accept");
    }
    let hidden = platform.get(&format!("/play/{}/index", "0".repeat(64))).header("accept", "application/json");
    assert_eq!(problem(hidden.send().await.unwrap()).await, (404, "not-found".into()));
}

#[tokio::test]
async fn playlists_and_proxied_files_pass_through() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (_, key) = platform.published("public").await;
    let playlist = platform.get(&format!("/play/{key}/files/master.m3u8")).send().await.unwrap();
    assert_eq!(playlist.status(), StatusCode::OK);
    assert_eq!(playlist.headers()["content-type"], "application/vnd.apple.mpegurl");
    assert_eq!(playlist.text().await.unwrap(), PLAYLIST);
    let video = format!("/proxy/{key}/files/720p.mp4");
    let part = platform.get(&video).header("range", "bytes=1-2").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 1-2/5");
    assert_eq!(
        (&part.headers()["etag"], &part.headers()["imira-node"]),
        (&"\"e\"".parse().unwrap(), &"12D3a".parse().unwrap())
    );
    assert_eq!(part.text().await.unwrap(), "id");
    let beyond = platform.get(&video).header("range", "bytes=9-").send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers()["content-range"], "bytes */5");
    let head = platform.request(Method::HEAD, &video).send().await.unwrap();
    assert_eq!((head.status(), &head.headers()["content-length"]), (StatusCode::OK, &"5".parse().unwrap()));
    assert_eq!(head.bytes().await.unwrap(), "");
}

#[tokio::test]
async fn a_node_cannot_put_a_page_on_the_platforms_origin() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (_, key) = platform.published("public").await;
    let page = platform.get(&format!("/proxy/{key}/files/page.html")).send().await.unwrap();
    assert_eq!(page.headers()["content-type"], "application/octet-stream");
    assert!(page.headers()["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let elsewhere = platform.get(&format!("/proxy/{key}/files/elsewhere")).send().await.unwrap();
    assert!(!elsewhere.headers().contains_key("location"));
    let missing = platform.get(&format!("/proxy/{key}/files/none")).send().await.unwrap();
    assert_eq!(problem(missing).await, (404, "not-found".into()));
    for escape in ["files/%2e%2e/x", "uploads/x", "files/a%2fb"] {
        let answer = platform.get(&format!("/proxy/{key}/{escape}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{escape}");
    }
}

#[tokio::test]
async fn viewers_are_sent_to_a_node_that_answers() {
    let gone = FakeNode::start("12D3gone", 0.9, Temper::Honest).await;
    let there = FakeNode::start("12D3here", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&gone, &there]).await;
    let (_, key) = platform.published("public").await;
    gone.vanish();
    for mode in ["play", "proxy"] {
        for _ in 0..4 {
            let answer = platform.get(&format!("/{mode}/{key}/files/720p.mp4?avoid=12D3gone")).send().await.unwrap();
            assert_eq!(answer.headers()["imira-node"], "12D3here");
        }
    }
    let path = format!("/play/{key}/files/720p.mp4?avoid=12D3gone&avoid=12D3here");
    assert_eq!(problem(platform.get(&path).send().await.unwrap()).await, (503, "no-node".into()));
    let path = format!("/play/{key}/files/720p.mp4?near=everywhere");
    assert_eq!(problem(platform.get(&path).send().await.unwrap()).await, (400, "invalid".into()));
}

#[tokio::test]
async fn a_node_that_vanished_since_the_last_poll_is_passed_over() {
    let there = FakeNode::start("12D3here", 0.1, Temper::Honest).await;
    let gone = FakeNode::start("12D3gone", 0.9, Temper::Honest).await;
    let platform = Platform::start(&[&gone, &there]).await;
    let (_, key) = platform.published("public").await;
    // The list still has both.
    gone.vanish();
    for _ in 0..8 {
        let answer = platform.get(&format!("/proxy/{key}/files/720p.mp4")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_node_that_breaks_off_is_asked_once() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let platform = Platform::start(&[&node]).await;
    let (_, key) = platform.published("public").await;
    let before = node.token_count();
    let answer = platform.get(&format!("/proxy/{key}/files/broken.mp4")).send().await.unwrap();
    assert_eq!(problem(answer).await, (503, "no-node".into()));
    assert_eq!(node.token_count(), before + 1);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_an_endless_transfer() {
    let node = FakeNode::start("12D3a", 0.1, Temper::Honest).await;
    let mut platform = Platform::start(&[&node]).await;
    let (_, key) = platform.published("public").await;
    let mut transfer = platform.get(&format!("/proxy/{key}/files/endless.mp4")).send().await.unwrap();
    transfer.chunk().await.unwrap().unwrap();
    let took = platform.shut_down().await;
    assert!(took.as_secs_f64() < 5.0, "{took:?}");
}
