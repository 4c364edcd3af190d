//! What members that read slowly can take from a node, and what is left for the others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;
mod plane;
mod siege;

use chunkstore_block::MAX_BLOCK_BYTES;
use dht::ServerLimits;
use plane::{Meddling, block, client, network, serve_with};
use siege::{
    CONNECTIONS_EACH, Disk, FAST_REQUESTS, GREETED_BYTES, MEMBERS, MIB, PROMPT, SLOW, besiege, eventually, memory,
};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_slow_readers_stay_within_the_budget() {
    let network = network();
    let (id, body) = block(MAX_BLOCK_BYTES);
    let limits = ServerLimits { send: SLOW, room: Duration::from_secs(5), ..ServerLimits::default() };
    let served = serve_with(&network, Disk(body.clone()), limits.clone()).await;
    let before = memory("VmRSS");
    let stalling = Meddling { stall_back_after: Some(GREETED_BYTES + 1_000), ..Meddling::default() };
    let slow =
        besiege(served.peer, &network, stalling, |client, peer| async move { client.get(peer, id).await.is_ok() });
    let slow = slow.await;
    eventually("the siege", || served.bodies.held_bytes() > MEMBERS * MIB).await;

    let fast = client(&network);
    for at in 0..FAST_REQUESTS {
        let begun = Instant::now();
        assert_eq!(fast.get(served.peer, id).await.unwrap(), body);
        assert!(begun.elapsed() < PROMPT, "fetch {at} took {:?}", begun.elapsed());
    }

    let outcomes = slow.join_all().await;
    assert_eq!(outcomes, [false; MEMBERS * CONNECTIONS_EACH], "a slow reader is cut off");
    eventually("everything given back", || served.bodies.held_bytes() == 0).await;
    let (most, grown) = (served.bodies.most_held_bytes(), memory("VmHWM").saturating_sub(before));
    eprintln!("at most {most} bytes of bodies, memory grew by {grown}");
    assert!(most <= limits.body_bytes);
    assert!(grown < 2 * limits.body_bytes, "memory grew by {grown} bytes");
}
