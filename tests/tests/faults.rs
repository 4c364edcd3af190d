//! Films are uploaded and watched while nodes stop answering and die.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chunkstore_block::BlockId;
use e2e::{Acknowledged, Copies, Node, NodeOptions, Stage, clip, eventually, run_tool};
use rustix::process::Signal;
use std::time::Duration;

const R: usize = 2;
const SECONDS: u32 = 10;
const SOON: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_film_plays_while_any_node_is_stopped_and_another_is_uploaded_while_one_dies() {
    let options = (0..4).map(|_| NodeOptions::brisk()).collect();
    let (stage, mut nodes, platform) = Stage::with_platform_and(options).await;
    let first = platform.publish(&clip(&stage.path(""), SECONDS));
    for i in 0..nodes.len() {
        nodes[i].process.signal(Signal::STOP);
        assert_plays(&first.hls);
        nodes[i].process.signal(Signal::CONT);
        // The next one is stopped when this one is back.
        for other in &nodes {
            other.wait_for_peers(nodes.len() - 1).await;
        }
    }

    // An upload is under way: a node that only keeps copies is killed, and watched without it.
    let file = clip(&stage.path(""), 40);
    let killer = tokio::spawn(async move {
        let victim = kill_a_holder(&mut nodes).await;
        (nodes, victim)
    });
    let second = tokio::task::block_in_place(|| platform.publish(&file));
    let (nodes, victim) = killer.await.unwrap();
    assert_plays(&second.hls);
    assert_plays(&first.hls);
    // Everything that was stored has its copies on the three that are left.
    let left: Vec<&Node> = nodes.iter().enumerate().filter(|(i, _)| *i != victim).map(|(_, node)| node).collect();
    let mut blocks = Acknowledged::new();
    for node in &left {
        blocks.extend(node.stored().await.iter().map(|stored| stored.id).collect::<Vec<BlockId>>());
    }
    let copies = Copies::until_exact(&left, &blocks, R, SOON).await;
    eprintln!("after a death during an upload: {copies:?}");
}

/// Kills a node that does not process the upload, once one does; which.
async fn kill_a_holder(nodes: &mut [Node]) -> usize {
    let busy = eventually("an upload", SOON, || async {
        for (i, node) in nodes.iter().enumerate() {
            if node.client.node().await.is_ok_and(|status| status.uploads > 0) {
                return Some(i);
            }
        }
        None
    })
    .await;
    let victim = (busy + 1) % nodes.len();
    nodes[victim].process.kill();
    victim
}

fn assert_plays(url: &str) {
    // Segments come by 307 from other hosts than the playlist, whose connection cannot be kept for them.
    let decode = ["-nostdin", "-v", "error", "-http_persistent", "0", "-i", url, "-f", "null", "-"];
    let output = run_tool("ffmpeg", &decode);
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
}
