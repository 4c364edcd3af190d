//! What discovery tells of members that come and go.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use dht::{Discovery, DiscoveryConfig, Keypair, Multiaddr, Network, PeerAddress, PeerEvent};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;

struct Node {
    discovery: Discovery,
    address: Multiaddr,
    peer: PeerAddress,
    task: JoinHandle<()>,
}

async fn node(network: &Arc<Network>, bootstrap: &[&Node], allow_private_addresses: Option<bool>) -> Node {
    let keypair = Keypair::generate_ed25519();
    let id = keypair.public().to_peer_id();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    let config = DiscoveryConfig {
        keypair,
        network: Arc::clone(network),
        listen,
        bootstrap: bootstrap.iter().map(|node| node.address.clone()).collect(),
        allow_private_addresses,
    };
    let (discovery, task) = Discovery::start(config).await.unwrap();
    let address = format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{id}").parse().unwrap();
    Node { discovery, address, peer: PeerAddress { id, address: listen }, task }
}

async fn next(events: &mut Receiver<PeerEvent>) -> PeerEvent {
    tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("no event came").unwrap()
}

#[tokio::test]
async fn a_subscriber_hears_who_comes_and_who_goes() {
    let network = Arc::new(Network::generate().unwrap());
    let first = node(&network, &[], None).await;
    let mut events = first.discovery.subscribe();
    assert!(first.discovery.connected().await.unwrap().is_empty());
    let second = node(&network, &[&first], None).await;
    assert_eq!(next(&mut events).await, PeerEvent::Up(second.peer));
    assert_eq!(first.discovery.connected().await.unwrap(), [second.peer]);
    second.task.abort();
    assert_eq!(next(&mut events).await, PeerEvent::Down(second.peer.id));
    assert!(first.discovery.connected().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_node_that_refuses_private_addresses_dials_none_and_enters_none() {
    let network = Arc::new(Network::generate().unwrap());
    let first = node(&network, &[], Some(false)).await;
    let second = node(&network, &[&first], None).await;
    // The second reaches the first, which hears its address and does not take it.
    let mut events = second.discovery.subscribe();
    if second.discovery.connected().await.unwrap().is_empty() {
        assert_eq!(next(&mut events).await, PeerEvent::Up(first.peer));
    }
    assert!(first.discovery.lookup_key(b"any key".to_vec()).await.unwrap().peers.is_empty());
    assert!(first.discovery.peers().await.unwrap().is_empty());
    assert!(first.discovery.connected().await.unwrap().is_empty());
    // Nor does it dial what it is told to dial at the start.
    let third = node(&network, &[&second], Some(false)).await;
    assert!(third.discovery.lookup_key(b"any key".to_vec()).await.unwrap().peers.is_empty());
    assert!(second.discovery.connected().await.unwrap().iter().all(|peer| peer.id != third.peer.id));
}
