//! A plain `<video>` of real Chromium, which knows nothing of tokens, by way of the platform and by a 307 (docs/api.md §2).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Stage, noisy_clip, run_tool};
use serde_json::Value;
use std::path::Path;

/// Longer than a token lives.
const OVER_SECONDS: u32 = 35;

/// Of such length that what a transfer may send after its token's end, 30 s, does not bring the rest of the film.
const FILM_SECONDS: u32 = 75;

/// What Chromium says of a film at `url`.
async fn watch(url: String, further: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("platform/web/e2e/video.mjs");
    let arguments = [&[script.to_str().unwrap(), "--url", &url], further].concat();
    let arguments: Vec<_> = arguments.into_iter().map(ToOwned::to_owned).collect();
    let output = tokio::task::spawn_blocking(move || {
        run_tool("node", &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{text}{}: {error}", String::from_utf8_lossy(&output.stderr)))
}

/// Status, host and Range of each answer that came before or after the wait.
fn answers<'a>(seen: &'a Value, when: &str) -> Vec<(u64, &'a str, Option<&'a str>)> {
    let answer = |answer: &'a Value| {
        (answer["status"].as_u64().unwrap(), answer["host"].as_str().unwrap(), answer["range"].as_str())
    };
    seen[when].as_array().unwrap().iter().map(answer).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_video_plays_by_proxy_after_a_pause_and_by_a_redirect_within_its_token() {
    let (stage, nodes, platform) = Stage::with_platform(2).await;
    let published = platform.publish(&noisy_clip(&stage.path(""), FILM_SECONDS));
    let url = |area: &str| format!("{}/{area}/{}/files/720p.mp4", platform.url, published.key);
    let coordinator = platform.url.strip_prefix("http://").unwrap();
    let is_of_a_node = |answer: (u64, &str, Option<&str>)| {
        answer.0 == 206 && nodes.iter().any(|node| node.delivery.to_string() == answer.1)
    };
    let wait = OVER_SECONDS.to_string();
    let (pause, slow) = (["--pause", &wait], ["--slow", &wait]);
    let (proxied, at_once, under_way, paused) = tokio::join!(
        watch(url("proxy"), &pause),
        watch(url("play"), &["--last", "3"]),
        watch(url("play"), &slow),
        watch(url("play"), &pause),
    );

    // Each request takes a token of its own, so the film goes on where it was.
    assert_eq!(proxied["error"], Value::Null, "{proxied:#}");
    let later = answers(&proxied, "after");
    assert!(!later.is_empty() && later.iter().all(|answer| (answer.0, answer.1) == (206, coordinator)), "{proxied:#}");

    // The browser goes on at the address that it was led to.
    assert_eq!(at_once["error"], Value::Null, "{at_once:#}");
    for seen in [&at_once, &under_way, &paused] {
        let first = answers(seen, "before");
        assert_eq!((first[0].0, first[0].1), (307, coordinator), "{seen:#}");
        let mut others = first[1..].iter().copied().chain(answers(seen, "after"));
        assert!(others.all(is_of_a_node), "{seen:#}");
    }

    // What was begun in time comes, as much as 30 s of film have besides what was sent before; then it ends.
    let second = under_way["second"].as_f64().unwrap();
    assert!(under_way["error"].is_string() && (30.0..f64::from(FILM_SECONDS)).contains(&second), "{under_way:#}");

    // A browser that waits holds no transfer open, and the address is worth nothing any more.
    let second = paused["second"].as_f64().unwrap();
    assert!(paused["error"].is_string() && second < 30.0, "{paused:#}");
}
