//! The simulator against the real thing: the same nodes, blocks and deaths in both (`sim/README.md`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use dht::PeerAddress;
use dht::core::{Config, Position};
use e2e::{Acknowledged, Copies, Member, Node, NodeOptions, Stage, eventually, ranked};
use imira_sim::replication::{Like, Sample, Settings, watch};
use imira_sim::search;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

const NODES: usize = 20;
const BLOCKS: usize = 600;
const BLOCK_BYTES: usize = 64 << 10;
const R: usize = 2;
/// In the simulation a node comes so long after the deaths; the real one comes when all is repaired.
const JOINS_AFTER: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(180);
const SECOND: Duration = Duration::from_secs(1);

/// For the searches: more than a bucket of a routing table takes.
const SEARCHERS: usize = 40;
const SEARCHES: u64 = 60;

/// Keeps what was measured for the simulator's report, beside its name.
fn note_measured(what: &str, real: f64, simulated: f64, bound: &str) {
    if std::env::var_os("IMIRA_WRITE_VALIDATION").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/validation.csv");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let kept = text.lines().skip(1).filter(|line| !line.starts_with(&format!("{what},"))).map(ToOwned::to_owned);
    let mut lines: Vec<_> = kept.chain([format!("{what},{real:.2},{simulated:.2},{bound}")]).collect();
    lines.sort();
    std::fs::write(path, format!("what,real,simulated,bound\n{}\n", lines.join("\n"))).unwrap();
}

/// What became of a network after some of its nodes died and another came.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    lost: usize,
    /// Bodies moved because of the deaths and of the new node.
    pulled: u64,
    /// From the deaths until all copies are there again.
    repaired: Duration,
}

/// Twenty real nodes, of which three die at once, among them both holders of some block; then another one comes. The simulator says which blocks are lost and how many bodies are moved, to the block; and how long it
/// takes, within a factor of three: it does not model processors that twenty daemons share.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_real_nodes_do_what_the_simulator_says() {
    let platform = Member::platform_key();
    let options = (0..NODES).map(|_| NodeOptions::brisk()).collect();
    let (stage, mut nodes) = Stage::with_nodes_and(options, &platform.public_key().to_pem().unwrap()).await;
    let member = Member::new(&stage, platform, R);
    let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let blocks = member.put(&addresses, 1, BLOCKS, BLOCK_BYTES).await;
    assert_eq!(blocks.len(), BLOCKS);
    Copies::until_exact(&nodes.iter().collect::<Vec<_>>(), &blocks, R, LIMIT).await;

    let holders = ranked(blocks.first().unwrap(), &addresses);
    let index = |peer: &PeerAddress| addresses.iter().position(|address| address.id == peer.id).unwrap();
    let deaths = vec![index(&holders[0]), index(&holders[1]), index(holders.last().unwrap())];
    let (real, newcomer) = real_outcome(&stage, &mut nodes, &blocks, &deaths).await;
    let position = |address: &PeerAddress| Position::of_peer(&address.id.to_bytes());
    let like = Like {
        nodes: addresses.iter().map(position).collect(),
        blocks: blocks.iter().map(|id| (*id, BLOCK_BYTES as u32)).collect(),
        deaths,
        deaths_after: SECOND,
        join: Some((position(&newcomer.address), JOINS_AFTER)),
    };
    let simulated = simulated_outcome(like);
    eprintln!("real: {real:?}\nsimulated: {simulated:?}");
    let numbers = [
        ("blocks lost of 600 when 3 of 20 nodes die", real.lost as f64, simulated.lost as f64, "equal"),
        ("copies made after that and after a node came", real.pulled as f64, simulated.pulled as f64, "equal"),
        (
            "seconds to full R after that",
            real.repaired.as_secs_f64(),
            simulated.repaired.as_secs_f64(),
            "a factor of 3",
        ),
    ];
    numbers.iter().for_each(|(what, real, simulated, bound)| note_measured(what, *real, *simulated, bound));
    assert!(real.lost > 0, "a block whose holders died is there");
    assert_eq!(real.lost, simulated.lost, "which blocks are lost follows from where they are");
    assert_eq!(real.pulled, simulated.pulled, "each missing copy is moved once, in both");
    let (quick, slow) = (simulated.repaired / 3, simulated.repaired * 3);
    assert!((quick..=slow).contains(&real.repaired), "{real:?}, {simulated:?}");
}

async fn real_outcome(stage: &Stage, nodes: &mut [Node], blocks: &Acknowledged, deaths: &[usize]) -> (Outcome, Node) {
    let left: Vec<_> = (0..NODES).filter(|node| !deaths.contains(node)).collect();
    // One holder may have fetched a block from the other while it was on its way to both.
    let before = pulled(left.iter().map(|node| &nodes[*node])).await;
    deaths.iter().for_each(|node| nodes[*node].process.kill());
    let died = Instant::now();
    let mut living: Vec<_> = left.iter().map(|node| &nodes[*node]).collect();
    // What only dead nodes had is lost; the rest is to be whole again.
    let mut held = BTreeSet::new();
    for node in &living {
        held.extend(node.stored().await.iter().map(|block| block.id));
    }
    let kept: Acknowledged = blocks.iter().filter(|id| held.contains(*id)).copied().collect();
    Copies::until_exact(&living, &kept, R, LIMIT).await;
    let repaired = died.elapsed();

    let bootstrap = [living[0].multiaddr.clone()];
    let newcomer = stage.start_node(&NodeOptions::brisk(), stage.free_address(), &bootstrap);
    newcomer.wait_for_peers(left.len()).await;
    living.push(&newcomer);
    Copies::until_exact(&living, &kept, R, LIMIT).await;
    let pulled = pulled(living.into_iter()).await - before;
    (Outcome { lost: blocks.len() - kept.len(), pulled, repaired }, newcomer)
}

/// Bodies that these nodes have fetched since they started.
async fn pulled(nodes: impl Iterator<Item = &Node>) -> u64 {
    let mut pulled = 0;
    for node in nodes {
        pulled += node.client.node().await.unwrap().replicas.pulled_blocks;
    }
    pulled
}

fn simulated_outcome(like: Like) -> Outcome {
    // As the brisk nodes are configured.
    let config = Config {
        grace: 6 * SECOND,
        ping_interval: SECOND,
        sync_interval: 3 * SECOND,
        minimum_age: 4 * SECOND,
        drop_delay: SECOND,
        ..Config::new(R)
    };
    let died = like.deaths_after;
    let settings = Settings::like(like, config, 1);
    let (samples, counts) = watch(&settings, LIMIT, SECOND, |_| ()).unwrap();
    let is_whole = |sample: &&Sample| sample.time > died && sample.with_all_copies == sample.acknowledged;
    let repaired = samples.iter().find(is_whole).expect("it is repaired in time").time - died;
    Outcome { lost: counts.excused as usize, pulled: counts.pulls, repaired }
}

/// Libp2p does not tell hops, but requests, which are what hops are made of.
#[tokio::test(flavor = "multi_thread")]
async fn forty_real_nodes_search_with_as_many_requests_as_the_simulator_says() {
    let platform = Member::platform_key().public_key().to_pem().unwrap();
    let (stage, nodes) = Stage::with_nodes(3, &platform).await;
    let bootstrap: Vec<_> = nodes.iter().map(|node| node.multiaddr.clone()).collect();
    let more: Vec<_> = (nodes.len()..SEARCHERS)
        .map(|_| stage.start_node(&NodeOptions::default(), stage.free_address(), &bootstrap))
        .collect();
    let nodes: Vec<_> = nodes.iter().chain(&more).collect();
    // A table of 39 others is full when it has 20 of those in the farthest half.
    for node in &nodes {
        node.wait_for_peers(30).await;
    }
    let begun = lookups(&nodes).await;
    let ended = eventually("enough searches", LIMIT, || async {
        let now = lookups(&nodes).await;
        (now.0 >= begun.0 + SEARCHES).then_some(now)
    })
    .await;
    let real = (ended.1 - begun.1) as f64 / (ended.0 - begun.0) as f64;
    let simulated = search::run(&search::Settings::quiet(SEARCHERS, 1_000, 20, 1), |_| ()).requests.mean;
    eprintln!("requests of a search, real: {real:.2}, simulated: {simulated:.2}");
    note_measured("requests of a search among 40 nodes", real, simulated, "a fifth");
    assert!((real / simulated - 1.0).abs() <= 0.2, "{real} against {simulated}");
}

/// Searches that ended, and their requests, of all nodes.
async fn lookups(nodes: &[&Node]) -> (u64, u64) {
    let mut sum = (0, 0);
    for node in nodes {
        let status = node.client.node().await.unwrap().lookups;
        sum = (sum.0 + status.ended, sum.1 + status.requests);
    }
    sum
}
