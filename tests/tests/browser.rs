//! The watch page in a real browser against real nodes, most of which lie.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Liar, NodeOptions, Stage, clip, run_tool};
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

/// Plays a watch page to its end in headless Chromium; what the script says it saw.
fn play(watch: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("platform/web/e2e/play.mjs");
    let output = run_tool("node", &[script.to_str().unwrap(), "--url", watch]);
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line)
        .unwrap_or_else(|error| panic!("{text}{}: {error}", String::from_utf8_lossy(&output.stderr)))
}
