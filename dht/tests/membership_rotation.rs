//! A network's key is exchanged while the network works.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod holders;
mod members;

use dht::{Keypair, Multiaddr, Network, TransferError};
use members::{ANY_BLOCK, Node};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Three nodes are restarted one after another, first with the new key beside the old one, then with the new one alone. At
/// every step those that are up talk on both planes, and two that are not being restarted never fail each other.
#[tokio::test]
async fn key_rotation_without_downtime() {
    let old = Network::generate().unwrap();
    let during = old.clone().rotate().unwrap();
    let new = during.clone().retire().unwrap();
    let old = Arc::new(old);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let bootstrap: Vec<&Node> = nodes.iter().map(|(_, node)| node).collect();
        let keypair = Keypair::generate_ed25519();
        let node = Node::start(&old, keypair.clone(), &bootstrap).await;
        nodes.push((keypair, node));
    }
    all_talk(&nodes).await;
    for network in [Arc::new(during), Arc::new(new)] {
        for restarted in 0..nodes.len() {
            let (keypair, node) = nodes.remove(restarted);
            let (address, stop) = (node.peer.address, CancellationToken::new());
            let others = talk_until(&nodes[0].1, &nodes[1].1, stop.clone());
            let restart = restart(node, address, &network, keypair.clone(), &nodes, stop);
            let (asked, node) = tokio::join!(others, restart);
            assert!(asked > 0, "the others said nothing meanwhile");
            nodes.insert(restarted, (keypair, node));
            all_talk(&nodes).await;
        }
    }
}

async fn restart(
    node: Node,
    address: SocketAddr,
    network: &Arc<Network>,
    keypair: Keypair,
    others: &[(Keypair, Node)],
    done: CancellationToken,
) -> Node {
    let bootstrap: Vec<Multiaddr> = others.iter().map(|(_, other)| other.multiaddr()).collect();
    node.stop().await;
    let node = Node::start_on(address, network, keypair, bootstrap).await;
    done.cancel();
    node
}

/// The two ask each other all the time; how often. No request may fail.
async fn talk_until(a: &Node, b: &Node, stop: CancellationToken) -> usize {
    let mut asked = 0;
    while !stop.is_cancelled() || asked == 0 {
        for (from, to) in [(a, b), (b, a)] {
            let answer = from.client.get(to.peer, *ANY_BLOCK).await;
            assert!(matches!(answer, Err(TransferError::Refused(_))), "{answer:?}");
            asked += 1;
        }
        tokio::task::yield_now().await;
    }
    asked
}

async fn all_talk(nodes: &[(Keypair, Node)]) {
    for (_, from) in nodes {
        for (_, to) in nodes.iter().filter(|(_, to)| to.peer != from.peer) {
            let answer = from.client.get(to.peer, *ANY_BLOCK).await;
            assert!(matches!(answer, Err(TransferError::Refused(_))), "{answer:?}");
        }
        let begun = Instant::now();
        while from.discovery().connected().await.unwrap().len() < nodes.len() - 1
            || from.discovery().lookup(*ANY_BLOCK).await.unwrap().peers.len() < nodes.len() - 1
        {
            assert!(begun.elapsed() < Duration::from_secs(20), "a node is not found over UDP");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
