//! What an operator does at 3 a.m.: finds damage and sees it mended, backs up, restores.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use chunkstore_block::{BlockId, PublicationId, Reference};
use control_api::signing::AuthorityClaims;
use control_api::{PlatformKey, PlatformKeySize};
use dht::{BlockClient, Keypair};
use e2e::{Node, Stage, clip, eventually};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_and_mended_from_another_holder() {
    let (stage, nodes, platform) = Stage::with_platform(3).await;
    platform.publish(&clip(&stage.path(""), 10));
    let reader = BlockClient::new(Keypair::generate_ed25519(), Arc::new(stage.network())).unwrap();
    let node = &nodes[1];
    assert_verified(node, &stage, 0);

    let victim = node.stored().await.into_iter().max_by_key(|block| block.length).unwrap();
    let body = reader.get(node.address, victim.id).await.unwrap();
    flip_a_bit(node, &body);
    let found = assert_verified(node, &stage, 1);
    assert!(found.contains(&victim.id.to_string()) && found.contains("1 DAMAGED"), "{found}");

    eventually("the good copy of another holder", LIMIT, || async {
        let storage = node.client.node().await.unwrap().storage;
        (storage.damaged_blocks == 0).then_some(())
    })
    .await;
    assert_eq!(reader.get(node.address, victim.id).await.unwrap(), body);
    // The block is whole a moment before the line is written.
    let says = || node.process.log().contains("a damaged block was replaced by another node's copy");
    eventually("a line in the log", LIMIT, || async { says().then_some(()) }).await;
    let again = node.stored().await.into_iter().find(|block| block.id == victim.id).unwrap();
    assert_eq!(again.references, victim.references);
    assert_verified(node, &stage, 0);
    assert!(node.client.node().await.unwrap().storage.scrubbed.is_some());
}

/// It is not waited for the scrub: whoever reads the block first finds the damage, gets a good copy from elsewhere, and the node
/// mends its own.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_read_finds_is_mended() {
    let (stage, nodes, platform) = Stage::with_platform(3).await;
    platform.publish(&clip(&stage.path(""), 10));
    let reader = BlockClient::new(Keypair::generate_ed25519(), Arc::new(stage.network())).unwrap();
    let node = &nodes[2];
    let victim = node.stored().await.into_iter().max_by_key(|block| block.length).unwrap().id;
    let body = reader.get(node.address, victim).await.unwrap();
    flip_a_bit(node, &body);
    assert!(reader.get(node.address, victim).await.is_err(), "damaged bytes were handed out");
    eventually("the block being whole again", LIMIT, || async { reader.get(node.address, victim).await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_nobody_can_mend_stays_in_sight() {
    let (stage, mut nodes, publisher) = alone().await;
    let node = &mut nodes[0];
    let (id, body) = publisher.put(node, 1).await;
    flip_a_bit(node, &body);
    assert_verified(node, &stage, 1);
    let says = |node: &Node| node.process.log().matches("a damaged block could not be replaced").count();
    eventually("a line in the log", LIMIT, || async { (says(node) > 0).then_some(()) }).await;
    assert_eq!(node.client.node().await.unwrap().storage.damaged_blocks, 1);
    assert!(String::from_utf8(node.command(&stage.path(""), &["verify"]).stdout).unwrap().contains(&id.to_string()));
    // It is known after a restart, too, and the node comes and goes as ever.
    node.process.stop(Duration::from_secs(10));
    assert_verified(node, &stage, 1);
    node.restart();
    eventually("another line in the log", LIMIT, || async { (says(node) > 1).then_some(()) }).await;
    assert_eq!(node.client.node().await.unwrap().storage.damaged_blocks, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_node_is_restored() {
    let (stage, mut nodes, publisher) = alone().await;
    let (home, node) = (stage.path(""), &mut nodes[0]);
    let first = publisher.put(node, 1).await;
    let report = assert_succeeds(&node.command(&home, &["backup", "copy"]));
    assert!(report.contains("is a whole copy"), "{report}");
    assert!(home.join("copy/segments").is_dir(), "relative to where the command was given");
    let second = publisher.put(node, 2).await;
    assert_succeeds(&node.command(&home, &["backup", "copy"]));

    let inside = node.store().join("copy");
    assert_refused(&node.command(&home, &["backup", inside.to_str().unwrap()]), "own folder");
    assert_refused(&node.command(&home, &["backup", "/proc/nowhere"]), "/proc");
    assert_refused(&node.command(&home, &["restore", "copy"]), "not overwritten");
    assert_refused(&node.command(&home, &["restore", "nowhere"]), "no folder");
    node.process.stop(Duration::from_secs(10));
    // The node's own store is lost.
    fs::rename(node.store(), home.join("lost")).unwrap();
    assert_refused(&node.command(&home, &["verify"]), "no store yet");
    let restored = assert_succeeds(&node.command(&home, &["restore", "copy"]));
    assert!(restored.contains("2 blocks") && restored.contains("all are whole"), "{restored}");
    // Also without the node running.
    assert_verified(node, &stage, 0);
    assert_succeeds(&node.command(&home, &["backup", "copy"]));
    node.restart();
    node.wait_for_peers(0).await;
    for (id, body) in [first, second] {
        assert_eq!(publisher.client.get(node.address, id).await.unwrap(), body);
    }
}

/// The backup has the film and not its deletion, and the platform knows that the node had the order.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_after_the_backup_does_not_come_back_with_it() {
    let (stage, mut nodes, platform) = Stage::with_platform(2).await;
    let home = stage.path("");
    let (deleted, kept) = (platform.publish(&clip(&home, 5)), platform.publish(&clip(&home, 8)));
    let (node, only_kept) = (&mut nodes[1], vec![kept.id.parse::<PublicationId>().unwrap()]);
    let with_both = node.stored().await;
    assert_succeeds(&node.command(&home, &["backup", "copy"]));
    assert_eq!(platform.delete(&deleted.id).await, 204);
    let with_one = until_only(node, &only_kept).await;
    assert!(!with_one.is_empty() && with_one.len() < with_both.len());

    node.process.stop(Duration::from_secs(10));
    fs::rename(node.store(), home.join("lost")).unwrap();
    let restored = assert_succeeds(&node.command(&home, &["restore", "copy"]));
    assert!(restored.contains(&format!("{} blocks", with_both.len())), "the deleted film is back: {restored}");
    node.restart();
    node.wait_for_peers(1).await;
    assert_eq!(until_only(node, &only_kept).await, with_one);
    let orders = node.client.deletions(platform.key().fingerprint(), 0, 10).await.unwrap().deletions;
    assert_eq!(orders.iter().map(|order| order.sequence).collect::<Vec<_>>(), [1]);
}

/// Waits until a node holds blocks for no other publications; those that it holds.
async fn until_only(node: &Node, publications: &[PublicationId]) -> Vec<BlockId> {
    eventually("other publications gone", LIMIT, || async {
        let stored = node.stored().await;
        let is_wanted = |reference: &Reference| publications.contains(&reference.publication);
        let only = stored.iter().all(|block| block.references.iter().all(is_wanted));
        only.then(|| stored.iter().map(|block| block.id).collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn long_work_is_not_asked_for_by_a_web_page() {
    let (stage, nodes, _) = alone().await;
    let http = reqwest::Client::new();
    let folder = stage.path("copy");
    let body = format!("{{\"folder\": {folder:?}}}");
    for path in ["verify", "backup"] {
        let url = format!("{}/v1/{path}", nodes[0].control_url);
        // What a page can send anywhere without being asked.
        let refused = http.post(&url).header("content-type", "text/plain").body(body.clone()).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{path}");
        assert_eq!(http.get(&url).send().await.unwrap().status(), 405, "{path}");
    }
    let url = format!("{}/v1/backup", nodes[0].control_url);
    let relative = http.post(&url).header("content-type", "application/json").body(r#"{"folder": "copy"}"#);
    assert_eq!(relative.send().await.unwrap().status(), 400);
    assert!(!folder.exists());
}

/// Puts blocks as another node of the network would.
struct Publisher {
    key: PlatformKey,
    client: BlockClient,
    authority: String,
}

/// A node alone in its network.
async fn alone() -> (Stage, Vec<Node>, Publisher) {
    let key = PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap();
    let (stage, nodes) = Stage::with_nodes(1, &key.public_key().to_pem().unwrap()).await;
    let member = Keypair::generate_ed25519();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = AuthorityClaims {
        node: member.public().to_peer_id().to_base58().parse().unwrap(),
        network: stage.network_id(),
        publication: PublicationId::from_bytes([7; 16]),
        bytes: 100 << 20,
        issued: now,
        lifetime: 3_600,
    };
    let authority = key.sign_authority(&claims).unwrap();
    let client = BlockClient::new(member, Arc::new(stage.network())).unwrap();
    (stage, nodes, Publisher { key, client, authority })
}

impl Publisher {
    async fn put(&self, node: &Node, seed: u8) -> (BlockId, Bytes) {
        let body = Bytes::from(
            (0..1_u32 << 18).flat_map(|word| (word ^ u32::from(seed) << 24).to_be_bytes()).collect::<Vec<_>>(),
        );
        let id = BlockId::of(&body);
        let reference = Reference { platform: self.key.fingerprint(), publication: PublicationId::from_bytes([7; 16]) };
        self.client.put(node.address, id, body.clone(), vec![reference], self.authority.clone()).await.unwrap();
        (id, body)
    }
}

/// In the block's body, wherever it lies in the node's segment files.
fn flip_a_bit(node: &Node, body: &[u8]) {
    for entry in fs::read_dir(node.store().join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let segment = fs::read(&path).unwrap();
        // A record begins on a page, its body soon after.
        let Some(at) = segment.windows(64).position(|bytes| *bytes == body[..64]) else { continue };
        let at = at + body.len() / 2;
        let file = File::options().write(true).open(&path).unwrap();
        return file.write_all_at(&[segment[at] ^ 0x10], at as u64).unwrap();
    }
    panic!("the block is in no segment");
}

/// Runs `imira-node verify`; what it printed.
#[track_caller]
fn assert_verified(node: &Node, stage: &Stage, code: i32) -> String {
    let output = node.command(&stage.path(""), &["verify"]);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[track_caller]
fn assert_succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn assert_refused(output: &Output, word: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(word), "{text}");
}
