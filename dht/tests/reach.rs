//! A node learns from another one whether it can be reached.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;

use dht::{
    BlockClient, BlockServer, Discovery, DiscoveryConfig, Keypair, Multiaddr, Network, PeerEvent, PeerId, Peers,
    ReachError, Reached, Refusal, Status, TransferError,
};
use holders::{Asked, Holder};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A node that dials back and does nothing else.
#[derive(Default)]
struct DialsBack(OnceLock<Peers>);

impl Holder for DialsBack {
    async fn reach(&self, from: PeerId, at: SocketAddr) -> Result<Reached, Refusal> {
        self.0.get().unwrap().dial_back(from, at).await
    }
}

struct Node {
    peers: Peers,
    address: SocketAddr,
    bootstrap: Multiaddr,
    _stop: tokio_util::sync::DropGuard,
}

async fn node(network: &Arc<Network>, bootstrap: &[&Node]) -> Node {
    let keypair = Keypair::generate_ed25519();
    let id = keypair.public().to_peer_id();
    let server = BlockServer::bind("127.0.0.1:0".parse().unwrap(), keypair.clone(), Arc::clone(network)).await.unwrap();
    let (address, stop) = (server.local_addr().unwrap(), CancellationToken::new());
    let handler = Arc::new(Asked(DialsBack::default()));
    tokio::spawn(server.run(Arc::clone(&handler), stop.clone()));
    let client = BlockClient::new(keypair.clone(), Arc::clone(network)).unwrap();
    let config = DiscoveryConfig {
        keypair,
        network: Arc::clone(network),
        listen: address,
        bootstrap: bootstrap.iter().map(|node| node.bootstrap.clone()).collect(),
        allow_private_addresses: None,
    };
    let (discovery, _swarm) = Discovery::start(config).await.unwrap();
    let peers = Peers::new(discovery, client, 1);
    assert!(handler.0.0.set(peers.clone()).is_ok());
    let bootstrap = format!("/ip4/127.0.0.1/udp/{}/quic-v1/p2p/{id}", address.port()).parse().unwrap();
    Node { peers, address, bootstrap, _stop: stop.drop_guard() }
}

async fn met(node: &Node) {
    let mut events = node.peers.discovery().subscribe();
    if node.peers.discovery().connected().await.unwrap().is_empty() {
        let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("nobody came").unwrap();
        assert!(matches!(event, PeerEvent::Up(_)));
    }
}

#[tokio::test]
async fn a_node_is_told_that_it_can_be_reached_and_asks_once_in_ten_seconds() {
    let network = Arc::new(Network::generate().unwrap());
    let first = node(&network, &[]).await;
    let alone = first.peers.reached_from_outside(first.address.port()).await;
    assert!(matches!(alone, Err(ReachError::Alone)), "{alone:?}");
    let second = node(&network, &[&first]).await;
    met(&second).await;
    let (asked, reached) = second.peers.reached_from_outside(second.address.port()).await.unwrap();
    assert_eq!(asked, first.peers.discovery().local_peer_id());
    assert_eq!(reached, Reached { tcp: true, udp: true });
    let again = second.peers.reached_from_outside(second.address.port()).await.unwrap_err();
    let ReachError::NoAnswer(TransferError::Refused(refusal)) = again else { panic!("{again}") };
    assert_eq!(refusal.status, Status::Busy);
    // They are connected as before.
    assert_eq!(second.peers.discovery().connected().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_whose_port_is_shut_is_told_so() {
    let network = Arc::new(Network::generate().unwrap());
    let first = node(&network, &[]).await;
    let second = node(&network, &[&first]).await;
    met(&second).await;
    // Nobody listens there, over either.
    let shut = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_, reached) = second.peers.reached_from_outside(shut).await.unwrap();
    assert_eq!(reached, Reached { tcp: false, udp: false });
}

#[tokio::test]
async fn another_node_at_the_port_is_not_this_one() {
    let network = Arc::new(Network::generate().unwrap());
    let first = node(&network, &[]).await;
    let second = node(&network, &[&first]).await;
    let third = node(&network, &[&first]).await;
    met(&second).await;
    let (_, reached) = second.peers.reached_from_outside(third.address.port()).await.unwrap();
    assert_eq!(reached, Reached { tcp: false, udp: false });
}
