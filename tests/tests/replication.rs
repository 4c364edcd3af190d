//! Blocks stay on their R closest nodes while real nodes join, stop, die, come back and lie (`docs/protocol.md` §12).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use dht::PeerAddress;
use e2e::{Acknowledged, Copies, Member, Node, NodeOptions, Stage, eventually};
use rustix::process::Signal;
use std::time::Duration;

const R: usize = 2;
const BLOCK_BYTES: usize = 64 << 10;
/// The grace period of [`NodeOptions::brisk`], and what a loaded machine needs beside it.
const SOON: Duration = Duration::from_secs(90);

struct World {
    stage: Stage,
    nodes: Vec<Node>,
    member: Member,
}

impl World {
    async fn new(count: usize) -> Self {
        Self::with((0..count).map(|_| NodeOptions::brisk()).collect()).await
    }

    async fn with(options: Vec<NodeOptions>) -> Self {
        let platform = Member::platform_key();
        let (stage, nodes) = Stage::with_nodes_and(options, &platform.public_key().to_pem().unwrap()).await;
        let member = Member::new(&stage, platform, R);
        Self { stage, nodes, member }
    }

    fn addresses(&self) -> Vec<PeerAddress> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    async fn put(&self, publication: u8, count: usize) -> Acknowledged {
        let put = self.member.put(&self.addresses(), publication, count, BLOCK_BYTES).await;
        assert_eq!(put.len(), count, "every block was acknowledged");
        put
    }

    async fn until_exact(&self, blocks: &Acknowledged) -> Copies {
        self.until_exact_on(&self.all(), blocks).await
    }

    async fn until_exact_on(&self, nodes: &[&Node], blocks: &Acknowledged) -> Copies {
        Copies::until_exact(nodes, blocks, R, SOON).await
    }

    fn all(&self) -> Vec<&Node> {
        self.nodes.iter().collect()
    }

    fn without(&self, left_out: usize) -> Vec<&Node> {
        self.nodes.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, node)| node).collect()
    }

    /// Copies that were fetched by all nodes since each was started.
    async fn pulled(&self) -> (u64, u64) {
        let (mut blocks, mut bytes) = (0, 0);
        for node in &self.nodes {
            let replicas = node.client.node().await.unwrap().replicas;
            blocks += replicas.pulled_blocks;
            bytes += replicas.pulled_bytes;
        }
        (blocks, bytes)
    }

    async fn until_acquainted(&self) {
        for node in &self.nodes {
            node.wait_for_peers(self.nodes.len() - 1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_gets_what_is_now_its_and_surplus_copies_go() {
    let mut world = World::new(3).await;
    let blocks = world.put(1, 150).await;
    assert!(Copies::count(&world.all(), &blocks, R).await.are_exact());
    let bootstrap: Vec<_> = world.nodes.iter().map(|node| node.multiaddr.clone()).collect();
    let control = world.stage.free_address();
    world.nodes.push(world.stage.start_node(&NodeOptions::brisk(), control, &bootstrap));
    world.until_acquainted().await;
    world.until_exact(&blocks).await;
    // What it has, it serves.
    let newest = world.nodes.last().unwrap();
    for stored in newest.stored().await {
        assert_eq!(world.member.client.get(newest.address, stored.id).await.unwrap().len(), BLOCK_BYTES);
        assert_eq!(stored.references, [world.member.reference(1)]);
    }
    let (moved, moved_bytes) = world.pulled().await;
    let needed = newest.stored().await.len() as u64;
    assert_eq!((moved, moved_bytes), (needed, needed * BLOCK_BYTES as u64), "each copy was moved once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_replaced_after_its_grace_period_with_as_many_bytes_as_were_missing() {
    let mut world = World::new(4).await;
    let blocks = world.put(1, 200).await;
    let died_with = world.nodes[1].stored().await.len() as u64;
    world.nodes[1].process.kill();
    let left = world.without(1);
    world.until_exact_on(&left, &blocks).await;
    let mut moved_bytes = 0;
    for node in left {
        moved_bytes += node.client.node().await.unwrap().replicas.pulled_bytes;
    }
    let missing_bytes = died_with * BLOCK_BYTES as u64;
    assert!(moved_bytes * 10 <= missing_bytes * 12, "{moved_bytes} bytes moved for {missing_bytes} that were missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_within_the_grace_period_moves_nothing() {
    let mut options = vec![NodeOptions::brisk(), NodeOptions::brisk(), NodeOptions::brisk(), NodeOptions::brisk()];
    for option in &mut options {
        option.settings.push(("grace_seconds", "60".to_owned()));
    }
    let mut world = World::with(options).await;
    let blocks = world.put(1, 100).await;
    for i in 0..world.nodes.len() {
        world.nodes[i].process.kill();
        // Long enough that the others notice.
        let other = &world.nodes[(i + 1) % world.nodes.len()];
        eventually("a silent node", SOON, || async {
            (other.client.node().await.unwrap().replicas.members_silent > 0).then_some(())
        })
        .await;
        world.nodes[i].restart();
        world.until_acquainted().await;
    }
    for node in &world.nodes {
        let before = node.client.node().await.unwrap().replicas.syncs;
        eventually("a comparison", SOON, || async {
            (node.client.node().await.unwrap().replicas.syncs > before + 3).then_some(())
        })
        .await;
    }
    assert_eq!(world.pulled().await, (0, 0));
    assert!(Copies::count(&world.all(), &blocks, R).await.are_exact());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_gets_what_it_missed_and_gives_back_what_is_not_its_any_more() {
    let mut world = World::new(4).await;
    let old = world.put(1, 100).await;
    world.nodes[2].process.kill();
    // It is given up, its blocks have new holders, and new blocks come that would be its.
    world.until_exact_on(&world.without(2), &old).await;
    let addresses: Vec<_> = world.without(2).iter().map(|node| node.address).collect();
    let new = world.member.put(&addresses, 2, 100, BLOCK_BYTES).await;
    assert_eq!(new.len(), 100);
    world.nodes[2].restart();
    world.until_acquainted().await;
    let all = old.union(&new).copied().collect();
    world.until_exact(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_while_a_node_was_away_does_not_return_and_its_neighbours_tell_it() {
    let mut world = World::new(3).await;
    let (kept, deleted) = (world.put(1, 50).await, world.put(2, 50).await);
    world.nodes[0].process.kill();
    // One node alone hears of it: the others have it from there.
    world.nodes[1].client.delete(&world.member.deletion(2, 1)).await.unwrap();
    until_gone(&world.without(0), &deleted).await;
    world.nodes[0].restart();
    world.until_acquainted().await;
    until_gone(&world.all(), &deleted).await;
    world.until_exact(&kept).await;
    for node in &world.nodes {
        let orders = node.client.deletions(world.member.platform.fingerprint(), 0, 10).await.unwrap().deletions;
        assert_eq!(orders.len(), 1);
    }
    assert!(Copies::count(&world.all(), &deleted, R).await.lost == deleted.len(), "it has returned");
}

async fn until_gone(nodes: &[&Node], blocks: &Acknowledged) {
    for node in nodes {
        eventually("the deletion", SOON, || async {
            node.stored().await.iter().all(|stored| !blocks.contains(&stored.id)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_publication_of_a_block_reaches_all_its_holders() {
    let mut world = World::new(3).await;
    let body = e2e::random_block(BLOCK_BYTES);
    let id = chunkstore_block::BlockId::of(&body);
    let holders: Vec<_> = e2e::ranked(&id, &world.addresses()).into_iter().take(R).collect();
    for holder in &holders {
        let (references, authority) = (vec![world.member.reference(1)], world.member.authority(1));
        world.member.client.put(*holder, id, body.clone(), references, authority).await.unwrap();
    }
    // The second one's platform reaches the first holder only.
    let (references, authority) = (vec![world.member.reference(2)], world.member.authority(2));
    world.member.client.add_references(holders[0], vec![id], references, authority).await.unwrap();
    let both = vec![world.member.reference(1), world.member.reference(2)];
    let second = world.nodes.iter().position(|node| node.address.id == holders[1].id).unwrap();
    eventually("both references at both", SOON, || async {
        world.nodes[second].stored().await.iter().any(|stored| stored.references == both).then_some(())
    })
    .await;
    // And outlives the first, at each of them.
    for node in &mut world.nodes {
        node.client.delete(&world.member.deletion(1, 1)).await.unwrap();
        eventually("the first publication gone", SOON, || async {
            node.stored().await.iter().all(|stored| stored.references == both[1..]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_holds_up_nobody_and_what_it_lacks_comes_when_it_goes_on() {
    let world = World::new(4).await;
    let before = world.put(1, 60).await;
    // Frozen: TCP still connects, nobody answers.
    world.nodes[3].process.signal(Signal::STOP);
    let others: Vec<_> = world.without(3).iter().map(|node| node.address).collect();
    let meanwhile = world.member.put(&others, 2, 60, BLOCK_BYTES).await;
    assert_eq!(meanwhile.len(), 60);
    let all: Acknowledged = before.union(&meanwhile).copied().collect();
    world.until_exact_on(&world.without(3), &all).await;
    world.nodes[3].process.signal(Signal::CONT);
    world.until_exact(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_die_at_once_take_only_the_blocks_that_only_they_had() {
    let mut world = World::new(5).await;
    let blocks = world.put(1, 200).await;
    let addresses = world.addresses();
    let dead = [world.nodes[0].address.id, world.nodes[3].address.id];
    let unavoidable: Acknowledged = blocks
        .iter()
        .filter(|id| e2e::ranked(id, &addresses).iter().take(R).all(|holder| dead.contains(&holder.id)))
        .copied()
        .collect();
    for i in [0, 3] {
        world.nodes[i].process.kill();
    }
    let left: Vec<_> = [1, 2, 4].map(|i| &world.nodes[i]).into();
    let saved = blocks.difference(&unavoidable).copied().collect();
    world.until_exact_on(&left, &saved).await;
    assert_eq!(Copies::count(&left, &blocks, R).await.lost, unavoidable.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_blocks_survive_ten_rolling_restarts() {
    let mut world = World::new(4).await;
    let blocks = world.put(1, 1_000).await;
    for round in 0..10 {
        let i = round % world.nodes.len();
        // Every other one without warning.
        if round % 2 == 0 {
            world.nodes[i].process.kill();
        } else {
            world.nodes[i].process.stop(Duration::from_secs(10));
        }
        world.nodes[i].restart();
        world.until_acquainted().await;
        assert_eq!(Copies::count(&world.all(), &blocks, R).await.lost, 0, "round {round}");
    }
    world.until_exact(&blocks).await;
    for node in &world.nodes {
        assert_eq!(node.client.node().await.unwrap().storage.damaged_blocks, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_while_it_is_written_to_and_another_during_repair_lose_nothing_that_was_acknowledged() {
    let mut world = World::new(5).await;
    let addresses = world.addresses();
    let mut acknowledged = world.put(1, 100).await;
    let (member, node) = (&world.member, &mut world.nodes[4]);
    let (put, ()) = tokio::join!(member.put(&addresses, 2, 300, BLOCK_BYTES), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.process.kill();
    });
    assert!(put.len() > 100, "the others take what it does not: {}", put.len());
    acknowledged.extend(put);
    // Repair has begun when somebody has fetched something; then one more is killed, and is back within its grace period.
    eventually("repair", SOON, || async {
        let mut pulled = 0;
        for node in &world.nodes[..4] {
            pulled += node.client.node().await.unwrap().replicas.pulled_blocks;
        }
        (pulled > 0).then_some(())
    })
    .await;
    world.nodes[1].process.kill();
    world.nodes[1].restart();
    let left = world.without(4);
    for node in &left {
        node.wait_for_peers(3).await;
    }
    let copies = world.until_exact_on(&left, &acknowledged).await;
    assert_eq!((copies.lost, copies.missing), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_is_passed_over_and_the_next_closest_keeps_its_copies() {
    let mut options: Vec<_> = (0..4).map(|_| NodeOptions::brisk()).collect();
    options[0].settings.push(("quota_bytes", (40 << 20).to_string()));
    let mut world = World::with(options).await;
    let (count, bytes) = (200, 512 << 10);
    let blocks = world.member.put(&world.addresses(), 1, count, bytes).await;
    assert_eq!(blocks.len(), count, "the next closest take what the full one does not");
    let full = world.nodes[0].client.node().await.unwrap().storage;
    assert!(full.used_bytes <= full.quota_bytes, "{full:?}");
    // One more dies: what it had has two copies again, although one of its heirs is full.
    world.nodes[2].process.kill();
    let left = world.without(2);
    eventually("two copies of everything", SOON, || async {
        // Of each block: one with three copies does not make up for one with a single copy.
        (Copies::count(&left, &blocks, R).await.fewest >= R).then_some(())
    })
    .await;
    let full = world.nodes[0].client.node().await.unwrap().storage;
    assert!(full.used_bytes <= full.quota_bytes, "{full:?}");
}
