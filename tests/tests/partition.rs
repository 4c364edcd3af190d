//! A network that falls into two parts and heals, on hosts of its own (`docs/protocol.md` §12).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Acknowledged, Copies, Hosts, Member, Node, NodeOptions, Stage, eventually};
use std::time::Duration;

const R: usize = 2;
const SOON: Duration = Duration::from_secs(120);
const BLOCK_BYTES: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn two_parts_go_on_by_themselves_and_are_one_network_again_when_they_can() {
    let hosts = Hosts::new(3);
    let platform = Member::platform_key();
    let options =
        hosts.all().into_iter().map(|host| NodeOptions { host: Some(host), ..NodeOptions::brisk() }).collect();
    let (stage, nodes) = Stage::with_nodes_and(options, &platform.public_key().to_pem().unwrap()).await;
    let member = Member::new(&stage, platform, R);
    let all: Vec<&Node> = nodes.iter().collect();
    let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let before = member.put(&addresses, 1, 60, BLOCK_BYTES).await;
    let doomed = member.put(&addresses, 2, 60, BLOCK_BYTES).await;
    assert_eq!((before.len(), doomed.len()), (60, 60));

    hosts.part(&[2]);
    for node in &nodes {
        eventually("the other part being given up", SOON, || async {
            let replicas = node.client.node().await.unwrap().replicas;
            let others = if node.address.id == nodes[2].address.id { 0 } else { 1 };
            (replicas.members_up == others && replicas.members_silent == 0).then_some(())
        })
        .await;
    }
    // The two go on: they have two copies of everything, take new blocks, and hear of a deletion.
    let two = &all[..2];
    Copies::until_exact(two, &before, R, SOON).await;
    let meanwhile = member.put(&addresses[..2], 3, 60, BLOCK_BYTES).await;
    assert_eq!(meanwhile.len(), 60);
    nodes[0].client.delete(&member.deletion(2, 1)).await.unwrap();
    until_gone(two, &doomed).await;
    // The third still has what it had.
    assert!(nodes[2].stored().await.iter().any(|stored| doomed.contains(&stored.id)));

    hosts.heal(&[2]);
    let kept: Acknowledged = before.union(&meanwhile).copied().collect();
    let copies = Copies::until_exact(&all, &kept, R, SOON).await;
    assert_eq!((copies.lost, copies.missing, copies.surplus), (0, 0, 0));
    until_gone(&all, &doomed).await;
    eprintln!("after the partition: {copies:?}; {} deleted blocks are gone everywhere", doomed.len());
}

async fn until_gone(nodes: &[&Node], blocks: &Acknowledged) {
    for node in nodes {
        eventually("the deletion", SOON, || async {
            node.stored().await.iter().all(|stored| !blocks.contains(&stored.id)).then_some(())
        })
        .await;
    }
}
