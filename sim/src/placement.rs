//! Places drawn blocks on drawn nodes by `dht_core::closest`, lets nodes join and leave without any repair, and compares.

use crate::random::Random;
use chunkstore_block::BlockId;
use dht_core::{Placement, Position, closest};
use std::{collections::BTreeMap, fmt};

/// Bytes of the `PeerId` of an Ed25519 key (`docs/protocol.md` §1).
const PEER_ID_BYTES: usize = 38;

type Node = (u32, Position);

/// What a run found.
#[derive(Debug, PartialEq)]
pub struct Report {
    mean_load: f64,
    max_over_mean: f64,
    idle_nodes: usize,
    joined: u32,
    left: u32,
    exact_share: f64,
    /// Copies that R asks for and that are not there, as a share of all copies.
    missing_share: f64,
    lost_blocks: usize,
}

impl Report {
    /// Blocks on the fullest node, against the mean.
    #[must_use]
    pub const fn max_over_mean(&self) -> f64 {
        self.max_over_mean
    }
}

/// Places `blocks` on `nodes`, lets `churn` nodes join or leave, and counts what that leaves to be done.
#[must_use]
pub fn run(nodes: u32, blocks: u32, replicas: u32, churn: u32, seed: u64) -> Report {
    run_and_tell(nodes, blocks, replicas, churn, seed, || ())
}

/// As [`run`]; `progress` is called twice for each block: when it is placed, and when it is looked at after nodes came and went.
#[must_use]
pub fn run_and_tell(
    nodes: u32,
    blocks: u32,
    replicas: u32,
    churn: u32,
    seed: u64,
    mut progress: impl FnMut(),
) -> Report {
    let mut random = Random::new(seed);
    let mut network: Vec<Node> = (0..nodes).map(|name| (name, draw_node(&mut random))).collect();
    let blocks: Vec<Position> = (0..blocks).map(|_| Position::of_block(&BlockId::from_bytes(random.bytes()))).collect();
    let r = replicas as usize;
    let mut place = |block| {
        progress();
        closest(block, &network, r)
    };
    let holders: Vec<Vec<u32>> = blocks.iter().map(&mut place).collect();

    let loads = loads(&network, &holders);
    let mean_load = loads.values().sum::<usize>() as f64 / loads.len() as f64;
    let max_load = loads.values().copied().max().unwrap_or(0);

    let (joined, left) = join_and_leave(&mut network, nodes, churn, &mut random);
    let mut report = Report {
        mean_load,
        max_over_mean: max_load as f64 / mean_load,
        idle_nodes: loads.values().filter(|load| **load == 0).count(),
        joined,
        left,
        exact_share: 0.0,
        missing_share: 0.0,
        lost_blocks: 0,
    };
    compare(&blocks, &holders, &network, r, &mut report, progress);
    report
}

fn draw_node(random: &mut Random) -> Position {
    Position::of_peer(&random.bytes::<PEER_ID_BYTES>())
}

fn loads(network: &[Node], holders: &[Vec<u32>]) -> BTreeMap<u32, usize> {
    let mut loads: BTreeMap<u32, usize> = network.iter().map(|(name, _)| (*name, 0)).collect();
    for name in holders.iter().flatten() {
        *loads.entry(*name).or_default() += 1;
    }
    loads
}

/// Each change is a join or a leave with equal chance; the last node stays. Names are not used twice.
fn join_and_leave(network: &mut Vec<Node>, first_name: u32, churn: u32, random: &mut Random) -> (u32, u32) {
    let (mut joined, mut left) = (0, 0);
    for _ in 0..churn {
        if network.len() > 1 && random.below(2) == 0 {
            network.swap_remove(random.below(network.len()));
            left += 1;
        } else {
            network.push((first_name + joined, draw_node(random)));
            joined += 1;
        }
    }
    (joined, left)
}

fn compare(
    blocks: &[Position],
    holders: &[Vec<u32>],
    network: &[Node],
    r: usize,
    report: &mut Report,
    mut progress: impl FnMut(),
) {
    let (mut exact, mut missing) = (0_usize, 0_usize);
    for (block, before) in blocks.iter().zip(holders) {
        progress();
        let alive: Vec<u32> =
            before.iter().filter(|name| network.iter().any(|(other, _)| other == *name)).copied().collect();
        let placement = Placement::compare(&closest(block, network, r), &alive);
        exact += usize::from(placement.is_exact());
        missing += placement.missing.len();
        report.lost_blocks += usize::from(alive.is_empty());
    }
    report.exact_share = exact as f64 / blocks.len() as f64;
    report.missing_share = missing as f64 / (blocks.len() * r.min(network.len())) as f64;
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "blocks per node: mean {:.1}, max/mean {:.2}, without any {}",
            self.mean_load, self.max_over_mean, self.idle_nodes
        )?;
        writeln!(f, "after {} joins and {} leaves, nothing repaired:", self.joined, self.left)?;
        writeln!(f, "  on exactly the R closest: {:.2} % of the blocks", self.exact_share * 100.0)?;
        writeln!(f, "  copies to be made:        {:.2} % of all", self.missing_share * 100.0)?;
        write!(f, "  without any copy:         {} blocks", self.lost_blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(run(20, 200, 2, 5, 7), run(20, 200, 2, 5, 7));
        assert_ne!(run(20, 200, 2, 5, 7), run(20, 200, 2, 5, 8));
    }

    #[test]
    fn every_copy_is_counted_and_nothing_moves_without_churn() {
        let report = run(50, 500, 3, 0, 1);
        assert_eq!(report.mean_load, 500.0 * 3.0 / 50.0);
        assert_eq!((report.exact_share, report.missing_share, report.lost_blocks), (1.0, 0.0, 0));
    }

    #[test]
    fn one_change_disturbs_about_r_in_n_blocks() {
        // A join or leave concerns the blocks that have the node among their R closest: R/N of them on average.
        let disturbed = 1.0 - run(100, 5_000, 2, 1, 3).exact_share;
        assert!(disturbed > 0.0 && disturbed < 5.0 * 2.0 / 100.0, "{disturbed}");
    }

    #[test]
    fn fewer_nodes_than_replicas_hold_what_they_can() {
        let report = run(1, 10, 3, 0, 1);
        assert_eq!((report.mean_load, report.exact_share), (10.0, 1.0));
    }
}
