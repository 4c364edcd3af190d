//! A holder that serves wrong bytes: nobody gets them, it is found out, and what it had goes to the next closest.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Copies, LyingHolder, Member, NodeOptions, Reader, Stage, eventually};
use std::time::Duration;

const R: usize = 2;
const SOON: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_serves_wrong_bytes_is_passed_over_found_out_and_replaced() {
    let platform = Member::platform_key();
    let options = (0..3).map(|_| NodeOptions::brisk()).collect();
    let (stage, nodes) = Stage::with_nodes_and(options, &platform.public_key().to_pem().unwrap()).await;
    let honest: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let bootstrap: Vec<_> = nodes.iter().map(|node| node.multiaddr.clone()).collect();
    let liar = LyingHolder::start(&stage, &honest, &bootstrap, R).await;
    for node in &nodes {
        node.wait_for_peers(3).await;
    }
    let all: Vec<_> = honest.iter().copied().chain([liar.address]).collect();
    let member = Member::new(&stage, platform, R);
    let blocks = member.put(&all, 1, 80, 64 << 10).await;
    assert_eq!(blocks.len(), 80);
    assert!(liar.blocks() > 20, "of four, each has half of the blocks on average: {}", liar.blocks());

    // Whoever reads gets the right bytes, also where the liar is the nearest holder: every answer is checked.
    let reader = Reader::join(&stage, &all, &bootstrap, R).await;
    for id in &blocks {
        let body = reader.peers.fetch(*id).await.unwrap();
        assert_eq!(chunkstore_block::BlockId::of(&body), *id);
    }
    assert!(liar.lies() > 0, "it was asked");

    // An audit finds it out, and every block is on the closest two of the others.
    for node in &nodes {
        eventually("the liar being found out", SOON, || async {
            (node.client.node().await.unwrap().replicas.members_distrusted == 1).then_some(())
        })
        .await;
    }
    Copies::until_exact(&nodes.iter().collect::<Vec<_>>(), &blocks, R, SOON).await;
}
