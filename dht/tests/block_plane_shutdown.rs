//! A node that stops answers what it has begun, and waits for nobody for long.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;
mod plane;

use bytes::Bytes;
use chunkstore_block::BlockId;
use dht::{Refusal, ServerLimits};
use holders::Holder;
use plane::{block, client, network, serve, serve_with};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Answers when it is told to.
#[derive(Default)]
struct Hesitant {
    asked: Notify,
    answer: Notify,
}

impl Holder for Hesitant {
    async fn get(&self, _id: BlockId) -> Result<Bytes, Refusal> {
        self.asked.notify_one();
        self.answer.notified().await;
        Ok(block(100_000).1)
    }
}

#[tokio::test]
async fn shutdown_answers_what_has_begun() {
    let network = network();
    let served = serve(&network, Hesitant::default()).await;
    let (client, peer) = (client(&network), served.peer);
    let asked = client.clone();
    let fetch = tokio::spawn(async move { asked.get(peer, block(100_000).0).await });
    served.handler.asked.notified().await;
    served.stop.cancel();
    served.handler.answer.notify_one();
    assert_eq!(fetch.await.unwrap().unwrap(), block(100_000).1);
    let begun = Instant::now();
    served.running.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(client.has(peer, vec![block(1).0]).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_what_takes_long() {
    let network = network();
    let limits = ServerLimits { drain: Duration::from_millis(200), ..ServerLimits::default() };
    let served = serve_with(&network, Hesitant::default(), limits).await;
    let (client, peer) = (client(&network), served.peer);
    let fetch = tokio::spawn(async move { client.get(peer, block(100_000).0).await });
    served.handler.asked.notified().await;
    served.stop.cancel();
    let begun = Instant::now();
    served.running.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(fetch.await.unwrap().is_err());
}
