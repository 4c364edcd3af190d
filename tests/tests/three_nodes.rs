//! Three daemons find one another, and blocks go over the wire between processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use chunkstore_block::{BlockId, PublicationId, Reference};
use control_api::signing::AuthorityClaims;
use control_api::{PlatformKey, PlatformKeySize};
use dht::{BlockClient, Keypair, PeerId, Status};
use e2e::{NodeOptions, Stage, eventually};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The platform's part in a put: it signs an authority for one node and one publication.
struct Signer {
    key: PlatformKey,
    publication: PublicationId,
}

impl Signer {
    fn new() -> Self {
        Self {
            key: PlatformKey::generate(PlatformKeySize::Rsa2048).unwrap(),
            publication: PublicationId::from_bytes([7; 16]),
        }
    }

    fn reference(&self) -> Reference {
        Reference { platform: self.key.fingerprint(), publication: self.publication }
    }

    fn authority(&self, stage: &Stage, node: PeerId, bytes: u64) -> String {
        let claims = AuthorityClaims {
            node: node.to_base58().parse().unwrap(),
            network: stage.network_id(),
            publication: self.publication,
            bytes,
            issued: now(),
            lifetime: 60,
        };
        self.key.sign_authority(&claims).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_put_and_got_over_the_wire_and_survive_kill_9() {
    let signer = Signer::new();
    let (stage, mut nodes) = Stage::with_nodes(3, &signer.key.public_key().to_pem().unwrap()).await;
    let member = Keypair::generate_ed25519();
    let authority = signer.authority(&stage, member.public().to_peer_id(), 3 << 20);
    let client = BlockClient::new(member, Arc::new(stage.network())).unwrap();
    let body = Bytes::from(vec![42; 1 << 20]);
    let id = BlockId::of(&body);
    for node in &nodes {
        client.put(node.address, id, body.clone(), vec![signer.reference()], authority.clone()).await.unwrap();
        assert_eq!(client.get(node.address, id).await.unwrap(), body);
        let stored = node.stored().await;
        assert_eq!(stored.len(), 1);
        assert_eq!((stored[0].id, stored[0].references.clone()), (id, vec![signer.reference()]));
    }
    // Acknowledged means durable.
    nodes[1].process.kill();
    nodes[1].restart();
    nodes[1].wait_for_peers(2).await;
    assert_eq!(client.get(nodes[1].address, id).await.unwrap(), body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_without_the_right_authority_is_refused() {
    let signer = Signer::new();
    let (stage, nodes) = Stage::with_nodes(1, &signer.key.public_key().to_pem().unwrap()).await;
    let member = Keypair::generate_ed25519();
    let me = member.public().to_peer_id();
    let client = BlockClient::new(member, Arc::new(stage.network())).unwrap();
    let body = Bytes::from_static(b"a block");
    let id = BlockId::of(&body);
    let stranger = Signer::new();
    let other_publication = Reference { publication: PublicationId::from_bytes([8; 16]), ..signer.reference() };
    for (what, authority, reference) in [
        ("nonsense", "a.b.c".to_owned(), signer.reference()),
        ("platform not pinned", stranger.authority(&stage, me, 1 << 20), stranger.reference()),
        ("made for another node", signer.authority(&stage, nodes[0].address.id, 1 << 20), signer.reference()),
        ("too small", signer.authority(&stage, me, 3), signer.reference()),
        ("another publication", signer.authority(&stage, me, 1 << 20), other_publication),
    ] {
        let refused = client.put(nodes[0].address, id, body.clone(), vec![reference], authority).await.unwrap_err();
        assert_eq!(refused.status(), Some(Status::Refused), "{what}: {refused}");
    }
    assert!(nodes[0].stored().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_another_network_key_cannot_join() {
    let signer = Signer::new();
    let (stage, nodes) = Stage::with_nodes(2, &signer.key.public_key().to_pem().unwrap()).await;
    let options = NodeOptions { network: Some(stage.foreign_network_file()), ..NodeOptions::default() };
    let stranger = stage.start_node(&options, stage.free_address(), &[nodes[0].multiaddr.clone()]);
    eventually("a refusal in the member's log", Duration::from_secs(20), || async {
        nodes[0].process.log().contains("refused at the gate").then_some(())
    })
    .await;
    let strangers_id = stranger.address.id.to_base58();
    for node in &nodes {
        let peers = node.client.peers().await.unwrap();
        assert_eq!(peers.len(), 1, "{peers:?}");
        assert!(peers.iter().all(|peer| peer.peer_id.as_str() != strangers_id));
    }
    // Both sides say why, each in its own log.
    assert!(nodes[0].process.log().contains("has none of this network's keys"), "{}", nodes[0].process.log());
    assert!(stranger.process.log().contains("or has none of our keys"), "{}", stranger.process.log());
    // It dialled a member, but never got as far as a conversation: nobody told it of the second one.
    let told = stranger.client.peers().await.unwrap();
    assert!(told.iter().all(|peer| peer.peer_id.as_str() == nodes[0].address.id.to_base58()), "{told:?}");
    // Nor does it get blocks over TCP.
    let foreign = dht::Network::new(stage.network_id(), vec![dht::NetworkKey::generate().unwrap()]).unwrap();
    let client = BlockClient::new(Keypair::generate_ed25519(), Arc::new(foreign)).unwrap();
    let begun = std::time::Instant::now();
    assert!(client.get(nodes[0].address, BlockId::of(b"x")).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(1));
    // No key in anybody's log.
    let network = stage.network();
    let secret = network.keys()[0].to_secret_hex();
    assert!(nodes.iter().all(|node| !node.process.log().contains(secret.as_str())));
}
