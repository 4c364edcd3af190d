//! A network of real daemons on loopback, and what it costs them to do something.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chunkstore_block::BlockId;
use dht::core::{Entry, EntryDigest, Input, Position, Prefix, Regions, Replicator, Time, closest};
use e2e::{Acknowledged, Copies, Member, Node, NodeOptions, Stage, eventually};

use super::LIMIT;

pub(super) const R: usize = 2;
/// Of the nodes here: a death is noticed soon, and nothing else is in the figures.
const GRACE: Duration = Duration::from_secs(6);
/// How often a node is asked how far it is: it costs the node some of the time that is measured.
const LOOK_EVERY: Duration = Duration::from_millis(15);
const GIB: f64 = (1u64 << 30) as f64;

/// What something took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
}

impl Cost {
    pub(super) fn mib_per_s(&self, bytes: u64) -> f64 {
        bytes as f64 / (1u64 << 20) as f64 / self.seconds
    }

    pub(super) fn cpu_per_gib(&self, bytes: u64) -> f64 {
        self.cpu_seconds / (bytes as f64 / GIB)
    }
}

/// How a death was made good.
pub(super) struct Death {
    /// From the end of the grace period.
    pub(super) seconds: f64,
    pub(super) moved_bytes: u64,
    pub(super) missing_bytes: u64,
}

/// Nodes, and a member that writes to them.
pub(super) struct Network {
    pub(super) stage: Stage,
    pub(super) nodes: Vec<Node>,
    pub(super) member: Member,
    blocks: std::sync::Mutex<Acknowledged>,
}

impl Network {
    pub(super) async fn start(count: usize) -> Self {
        let platform = Member::platform_key();
        let options = (0..count).map(|_| NodeOptions::brisk()).collect();
        let pem = platform.public_key().to_pem().unwrap_or_default();
        let (stage, nodes) = Stage::with_nodes_and(options, &pem).await;
        let member = Member::new(&stage, platform, R);
        Self { stage, nodes, member, blocks: std::sync::Mutex::default() }
    }

    /// Puts blocks on one node alone.
    pub(super) async fn put_on(&self, node: usize, count: usize, bytes: usize) -> Result<()> {
        let (references, authority) = (vec![self.member.reference(1)], self.member.authority(1));
        for _ in 0..count {
            let body = e2e::random_block(bytes);
            let (id, address) = (BlockId::of(&body), self.nodes[node].address);
            self.member.client.put(address, id, body, references.clone(), authority.clone()).await?;
        }
        Ok(())
    }

    /// Puts blocks on their R closest nodes, `writers` at a time. Bodies are made before the clock starts.
    pub(super) async fn put(&self, count: usize, bytes: usize, writers: usize) -> Result<Cost> {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address).collect();
        let bodies = (0..count).map(|_| e2e::random_block(bytes)).collect();
        let (begun, cpu) = (Instant::now(), self.cpu_seconds());
        let put = self.member.put_bodies(&addresses, 1, bodies, writers).await;
        let cost = Cost { seconds: begun.elapsed().as_secs_f64(), cpu_seconds: self.cpu_seconds() - cpu };
        ensure!(put.len() == count, "{} of {count} blocks were acknowledged", put.len());
        self.blocks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(put);
        Ok(cost)
    }

    /// Starts one node more.
    pub(super) fn join(&mut self) {
        let bootstrap: Vec<_> = self.nodes.iter().map(|node| node.multiaddr.clone()).collect();
        let control = self.stage.free_address();
        self.nodes.push(self.stage.start_node(&NodeOptions::brisk(), control, &bootstrap));
    }

    /// Waits until a node has pulled so many blocks; what it took from the moment it knew of the first.
    pub(super) async fn until_pulled(&self, node: usize, blocks: u64) -> Result<Cost> {
        let client = &self.nodes[node].client;
        let deadline = Instant::now() + LIMIT;
        let mut begun = None;
        loop {
            ensure!(Instant::now() < deadline, "the blocks did not come");
            if let Ok(status) = client.node().await {
                let (replicas, cpu) = (status.replicas, self.cpu_seconds());
                if replicas.wanted_blocks > 0 || replicas.pulled_blocks > 0 {
                    let (since, cpu_before) = *begun.get_or_insert((Instant::now(), cpu));
                    if replicas.pulled_blocks == blocks {
                        let seconds = since.elapsed().as_secs_f64();
                        return Ok(Cost { seconds, cpu_seconds: cpu - cpu_before });
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Kills a node and waits until every block has R copies again.
    pub(super) async fn kill(&mut self, node: usize) -> Result<Death> {
        let missing_bytes = self.nodes[node].stored().await.iter().map(|block| block.length).sum();
        let blocks = self.blocks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        self.nodes[node].process.kill();
        let left: Vec<_> = self.nodes.iter().enumerate().filter(|(i, _)| *i != node).map(|(_, node)| node).collect();
        // The grace period runs from the moment when somebody notices.
        eventually("the death being noticed", LIMIT, || async {
            let status = left[0].client.node().await.ok()?;
            (status.replicas.members_silent > 0).then_some(())
        })
        .await;
        tokio::time::sleep(GRACE).await;
        let begun = Instant::now();
        Copies::until_exact(&left, &blocks, R, LIMIT).await;
        let seconds = begun.elapsed().as_secs_f64();
        let mut moved_bytes = 0;
        for node in left {
            moved_bytes += node.client.node().await?.replicas.pulled_bytes;
        }
        Ok(Death { seconds, moved_bytes, missing_bytes })
    }

    /// Restarts a node so that the others notice; how many blocks were moved for it.
    pub(super) async fn restart(&mut self, node: usize) -> Result<u64> {
        self.nodes[node].process.kill();
        self.nodes[node].restart();
        for node in &self.nodes {
            node.wait_for_peers(self.nodes.len() - 1).await;
        }
        for node in &self.nodes {
            let before = node.client.node().await?.replicas.syncs;
            eventually("comparisons", LIMIT, || async {
                (node.client.node().await.ok()?.replicas.syncs > before + 3).then_some(())
            })
            .await;
        }
        let mut moved = 0;
        for node in &self.nodes {
            moved += node.client.node().await?.replicas.pulled_blocks;
        }
        Ok(moved)
    }

    /// The highest peak among the nodes.
    pub(super) fn peak_memory_bytes(&self) -> u64 {
        self.nodes.iter().map(|node| node.process.peak_memory_bytes()).max().unwrap_or_default()
    }

    fn cpu_seconds(&self) -> f64 {
        self.nodes.iter().map(|node| node.process.cpu_seconds()).sum()
    }
}

/// How many lookups it takes to know the R closest of each block, with the regions that daemons use.
pub(super) fn lookups_to_place(blocks: usize, nodes: usize, replication: usize) -> usize {
    let position = |kind: &str, i: usize| Position::of_peer(format!("{kind} {i}").as_bytes());
    let all: Vec<_> = (0..nodes).map(|i| position("node", i)).map(|node| (node, node)).collect();
    let mut regions = Regions::new(all[0].0, replication + 2, Duration::from_secs(60));
    let mut lookups = 0;
    for block in (0..blocks).map(|i| position("block", i)) {
        if regions.find(Time::ZERO, &block).is_none() {
            lookups += 1;
            regions.learn(Time::ZERO, &block, &closest(&block, &all[1..], 20));
        }
    }
    lookups
}

/// How long the core sums up a store that it shares with one other node: the root of every comparison.
pub(super) fn digest_seconds(blocks: u32) -> f64 {
    let (local, peer) = (Position::of_peer(b"local"), Position::of_peer(b"peer"));
    let mut replicator = Replicator::new(dht::core::Config::new(R), local, Time::ZERO);
    replicator.handle_input(Time::ZERO, Input::Seen(peer));
    for number in 0..blocks {
        let id = BlockId::of(&number.to_be_bytes());
        let entry = Entry { id, length: 1 << 20, digest: EntryDigest::of(&id, &[]) };
        replicator.handle_input(Time::ZERO, Input::Held(entry));
    }
    let begun = Instant::now();
    std::hint::black_box(replicator.summarize(&peer, &Prefix::ALL));
    begun.elapsed().as_secs_f64()
}
