//! What a node sent is counted once at the platform, whoever is killed in between.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use chunkstore_block::BlockId;
use control_api::signing::{PlaybackRequest, RequestClaims, TokenRequest};
use control_api::{PlatformKey, Scope, TemporaryUrl, UserKey};
use e2e::{Node, Platform, Published, Stage, clip, eventually};
use std::time::{Duration, SystemTime};

/// A node writes receipts every 10 s, and the platform asks every 5 s; the machine may be busy.
const COUNTED: Duration = Duration::from_secs(60);
/// So long after the last byte, a node has written its receipt.
const WRITTEN: Duration = Duration::from_secs(11);

struct Scene {
    stage: Stage,
    nodes: Vec<Node>,
    platform: Platform,
    published: Published,
    signer: PlatformKey,
    viewer: UserKey,
    blocks: Vec<(String, u64)>,
}

impl Scene {
    async fn new() -> Self {
        let (stage, nodes, platform) = Stage::with_platform(2).await;
        let published = platform.publish(&clip(&stage.path(""), 2));
        let listed = platform.get(&format!("/api/contents/{}/fragments", published.id)).await;
        let block = |fragment: &serde_json::Value| {
            (format!("blocks/{}", fragment["sha256"].as_str().unwrap()), fragment["length"].as_u64().unwrap())
        };
        let blocks = listed["fragments"].as_array().unwrap().iter().map(block).collect();
        let signer = platform.key();
        Self { stage, nodes, platform, published, signer, viewer: UserKey::generate().unwrap(), blocks }
    }

    /// A temporary URL of the first node, as the platform gets it.
    async fn url(&self) -> TemporaryUrl {
        let node = &self.nodes[0];
        let request = PlaybackRequest {
            content: self.published.key,
            publication: Some(self.published.id.parse().unwrap()),
            scope: Scope::default(),
        };
        eventually("a token", Duration::from_secs(20), || async {
            let claims = RequestClaims {
                node: node.address.id.to_base58().parse().unwrap(),
                network: self.stage.network_id(),
                viewer_key: self.viewer.jwk().unwrap(),
                request: TokenRequest::Playback(request.clone()),
                issued: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(),
                lifetime: 30,
            };
            // In the second of its start a node refuses.
            let answer = node.client.request_playback(&self.signer.sign_request(&claims).unwrap()).await.ok()?;
            let token = self.viewer.decrypt(&answer.encrypted_token).unwrap();
            Some(TemporaryUrl::new(&answer.temporary_url, &token).unwrap())
        })
        .await
    }

    /// Fetches every block `times` times over; how many bytes came.
    async fn watch(&self, times: usize) -> u64 {
        let (url, delivery, mut bytes) = (self.url().await, self.nodes[0].client.delivery(), 0);
        for _ in 0..times {
            for (path, length) in &self.blocks {
                let block = delivery.get(&url, path, false, Default::default()).await.unwrap();
                let block = block.bytes(chunkstore_block::MAX_BLOCK_BYTES).await.unwrap();
                assert_eq!((block.len() as u64, format!("blocks/{}", BlockId::of(&block))), (*length, path.clone()));
                bytes += block.len() as u64;
            }
        }
        bytes
    }

    /// What the platform tells the owner.
    async fn served(&self, member: &str) -> u64 {
        let shown = self.platform.get(&format!("/api/contents/{}", self.published.id)).await;
        shown["served"][member].as_u64().unwrap_or_else(|| panic!("{shown}"))
    }

    async fn until_served(&self, bytes: u64) {
        eventually("the receipts being counted", COUNTED, || async {
            (self.served("bytes").await >= bytes).then_some(())
        })
        .await;
        assert_eq!(self.served("bytes").await, bytes);
    }

    async fn restart_node(&mut self) {
        self.nodes[0].restart();
        self.nodes[0].wait_for_peers(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_counted_once_whoever_is_killed() {
    let mut scene = Scene::new().await;
    // The platform itself has read the index.
    tokio::time::sleep(WRITTEN + Duration::from_secs(10)).await;
    let own = scene.served("bytes").await;
    assert!(own > 0 && scene.served("views").await == 0, "{own}");

    // Nobody is killed.
    let mut sent = own + scene.watch(3).await;
    scene.until_served(sent).await;
    assert_eq!(scene.served("views").await, 1, "one token began the film, three times");
    let seconds = scene.served("seconds").await;
    // Two seconds of film in two renditions, three times over, and headers, which are large for so short a film.
    assert!((12..=18).contains(&seconds), "{seconds}");
    let shown = reqwest::get(format!("{}/api/contents/{}", scene.platform.url, scene.published.id)).await.unwrap();
    assert!(!shown.text().await.unwrap().contains("served"), "it is the owner's to know");

    // The platform is killed while it counts, again and again.
    for _ in 0..4 {
        sent += scene.watch(1).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        scene.platform.kill();
        scene.platform.restart().await;
    }
    scene.until_served(sent).await;

    // The node is killed after it wrote, and before anybody fetched what it wrote; then the platform as well.
    scene.platform.kill();
    sent += scene.watch(2).await;
    tokio::time::sleep(WRITTEN).await;
    scene.nodes[0].process.kill();
    scene.restart_node().await;
    scene.platform.restart().await;
    scene.until_served(sent).await;

    // The node is killed at once: what went out since it last wrote is lost, and no more than that.
    let lost = scene.watch(1).await;
    scene.nodes[0].process.kill();
    scene.restart_node().await;
    let later = scene.watch(1).await;
    eventually("the receipts being counted", COUNTED, || async {
        (scene.served("bytes").await >= sent + later).then_some(())
    })
    .await;
    let counted = scene.served("bytes").await;
    assert!(counted == sent + later || counted == sent + later + lost, "{counted} of {sent}, {later} and {lost}");

    // A node that is stopped loses nothing.
    let last = scene.watch(1).await;
    scene.nodes[0].process.stop(Duration::from_secs(5));
    scene.restart_node().await;
    scene.until_served(counted + last).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(scene.served("bytes").await, counted + last, "nothing is counted again");
}
