//! What members that announce blocks and dribble can take from a node, and what is left for the others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;
mod plane;
mod siege;

use chunkstore_block::MAX_BLOCK_BYTES;
use dht::ServerLimits;
use plane::{Meddling, block, client, network, put, serve_with};
use siege::{CONNECTIONS_EACH, Disk, FAST_REQUESTS, MEMBERS, MIB, PROMPT, SLOW, besiege, eventually, memory};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_writers_that_announce_blocks_and_dribble_stay_within_the_budget() {
    let network = network();
    let (id, body) = block(MAX_BLOCK_BYTES);
    let limits = ServerLimits { frame: SLOW, room: Duration::from_secs(5), ..ServerLimits::default() };
    let served = serve_with(&network, Disk(body.clone()), limits.clone()).await;
    let before = memory("VmRSS");
    // Enough for the first message with the announcement, and a little of the block.
    let dribbling = Meddling { dribble_forth_after: Some(80_000), ..Meddling::default() };
    let announced = body.clone();
    let slow = besiege(served.peer, &network, dribbling, |client, peer| {
        let block = (id, announced.clone());
        async move { put(&client, peer, block).await.is_ok() }
    });
    let slow = slow.await;
    eventually("the siege", || served.bodies.held_bytes() > MEMBERS * MIB).await;

    let fast = client(&network);
    for at in 0..FAST_REQUESTS {
        let begun = Instant::now();
        put(&fast, served.peer, (id, body.clone())).await.unwrap();
        assert!(begun.elapsed() < PROMPT, "put {at} took {:?}", begun.elapsed());
    }
    let outcomes = slow.join_all().await;
    assert_eq!(outcomes, [false; MEMBERS * CONNECTIONS_EACH], "a writer that dribbles is cut off");
    eventually("everything given back", || served.bodies.held_bytes() == 0).await;
    let (most, grown) = (served.bodies.most_held_bytes(), memory("VmHWM").saturating_sub(before));
    eprintln!("at most {most} bytes of bodies announced, memory grew by {grown}");
    assert!(most <= limits.body_bytes);
    assert!(grown < 2 * limits.body_bytes, "memory grew by {grown} bytes");
}
