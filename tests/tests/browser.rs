//! The watch page in a real browser against real nodes, most of which lie.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Liar, NodeOptions, Stage, clip, noisy_clip, run_tool};
use serde_json::Value;
use std::path::Path;

/// Two of three nodes lie, and the platform chooses at random: in so many tries the page meets a liar first almost surely
/// (all but 1 in 6,561).
const TRIES: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn changed_blocks_are_refused_and_fetched_from_another_node() {
    let liars = [Liar::start().await, Liar::start().await];
    let mut options: Vec<_> =
        liars.iter().map(|liar| NodeOptions { delivery_url: Some(liar.url()), ..NodeOptions::default() }).collect();
    options.push(NodeOptions::default());
    let (stage, nodes, platform) = Stage::with_platform_and(options).await;
    for (liar, node) in liars.iter().zip(&nodes) {
        liar.stand_before(node.delivery);
        // They blame the honest one: the page must go by what the platform says.
        liar.blame(&nodes[2].address.id.to_base58());
    }
    let published = platform.publish(&clip(&stage.path(""), 5));
    for _ in 0..TRIES {
        let seen = play(&published.watch);
        assert_eq!(seen["ok"], true, "{seen}");
        if seen["blocks_refused"].as_u64().unwrap() > 0 {
            assert!(liars.iter().map(Liar::lies).sum::<u64>() > 0);
            return;
        }
    }
    panic!("the page never met a liar, or never refused a changed block");
}

/// What a browser does by itself with a redirect to a temporary URL (docs/api.md §2): it goes on asking there, where the token has ended. By the
/// proxy it plays and seeks for as long as it likes; our player takes new tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_video_outlives_its_token_by_the_proxy_and_our_player_by_renewal() {
    const SECONDS: u32 = 70;
    let (stage, _nodes, platform) = Stage::with_platform(2).await;
    let published = platform.publish(&noisy_clip(&stage.path(""), SECONDS));
    let plain = |kind: &str| {
        let url = format!("{}/{kind}/{}/files/360p.mp4", platform.url, published.id);
        let origin = format!("{}/healthz", platform.url);
        std::thread::spawn(move || script("plain.mjs", &["--url", &url, "--origin", &origin]))
    };
    let (proxied, redirected) = (plain("proxy"), plain("play"));
    let watched = script("play.mjs", &["--url", &published.watch, "--until", "35", "--min-renewals", "1"]);
    assert_eq!(watched["ok"], true, "{watched}");

    let proxied = proxied.join().unwrap();
    assert!(proxied["played"].as_f64().unwrap() > 25.0 && proxied["media_error"].is_null(), "{proxied}");
    assert!(proxied["after_seek"].as_f64().is_some(), "it does not play after the seek: {proxied}");
    let asked = proxied["requests"].as_array().unwrap();
    assert!(asked.iter().all(|request| request["where"] == "proxy" && request["status"] == 206), "{proxied}");

    let redirected = redirected.join().unwrap();
    let asked = redirected["requests"].as_array().unwrap();
    let at = |place: &str, status: u64| {
        asked.iter().filter(|request| request["where"] == place && request["status"] == status).count()
    };
    assert!(at("play", 307) > 0 && at("node", 206) > 0, "{redirected}");
    assert!(at("node", 401) > 0, "after the token's end it asked the node again: {redirected}");
    assert!(redirected["after_seek"].is_null(), "the film went on without a token: {redirected}");
}

/// Plays a watch page to its end in headless Chromium; what the script says it saw.
fn play(watch: &str) -> Value {
    script("play.mjs", &["--url", watch])
}

/// Runs a script of the web pages' end-to-end tests; the document that it prints last.
fn script(name: &str, arguments: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("platform/web/e2e").join(name);
    let output = run_tool("node", &[&[script.to_str().unwrap()], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line)
        .unwrap_or_else(|error| panic!("{text}{}: {error}", String::from_utf8_lossy(&output.stderr)))
}
