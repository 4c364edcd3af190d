//! What goes wrong, and when: drawn from the seed.

use crate::random::Random;
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};

/// One thing that goes wrong. Which node or block it hits is drawn when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A node stops and comes back with its disk, mostly within the grace period.
    Crash,
    /// A node stops for ever, with its disk.
    Death,
    /// A new node.
    Join,
    /// A tenth of the nodes cannot reach the others for a while.
    Partition,
    /// A node's disk loses its blocks and the node goes on naming them; its operator removes it later.
    Liar,
    /// A node's disk is full for a while.
    FullDisk,
    /// One copy is damaged, and the node notices.
    Damage,
    /// One copy rots, and the node notices when it is next read: for a proof, for another node, or by the scrub.
    Rot,
    /// A publication is deleted, by an order that reaches one node.
    Deletion,
    /// A node stops for ever that has a block of which none of the closest has a copy: they are full.
    StandInDeath,
    /// A node answers digests with sums that differ everywhere.
    WrongSums,
    /// A node offers blocks that it does not have to all its neighbours, and names ever more deletion orders.
    Hoarder,
    /// As a liar, and the node gives other bytes than the block's to whoever fetches it.
    WrongBytes,
    /// Power goes, and what a disk had said it had written in the last 30 s is not there when the node comes back.
    LostWrites,
    /// Malicious nodes are in the way of a node's lookups, which leave half of all nodes out.
    Misled,
}

/// How often each happens, in an hour of 1,000 nodes. A network of hobbyists at its worst: a guess.
const PER_HOUR: [(Fault, f64); 15] = [
    (Fault::Crash, 60.0),
    (Fault::Death, 12.0),
    (Fault::Join, 12.0),
    (Fault::Partition, 2.0),
    (Fault::Liar, 2.0),
    (Fault::FullDisk, 6.0),
    (Fault::Damage, 60.0),
    (Fault::Rot, 12.0),
    (Fault::Deletion, 4.0),
    (Fault::StandInDeath, 0.0),
    (Fault::WrongSums, 0.0),
    (Fault::Hoarder, 0.0),
    (Fault::WrongBytes, 2.0),
    (Fault::LostWrites, 12.0),
    (Fault::Misled, 12.0),
];

/// Draws the faults of the time until `end`, in no order. There are the `usual` ones, and `more` of some, in an hour of 1,000 nodes.
pub(crate) fn draw(
    random: &mut Random,
    nodes: usize,
    end: Duration,
    usual: bool,
    more: &BTreeMap<Fault, f64>,
) -> Vec<(Duration, Fault)> {
    let millis = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
    let mut all = Vec::new();
    for (fault, per_hour) in PER_HOUR {
        let per_hour = if usual { per_hour } else { 0.0 } + more.get(&fault).copied().unwrap_or(0.0);
        // Partitions and deletions concern the network as a whole.
        let share = if matches!(fault, Fault::Partition | Fault::Deletion) { 1.0 } else { nodes as f64 / 1_000.0 };
        // At least one of each that there is at all.
        let count = (per_hour * share * end.as_secs_f64() / 3_600.0).ceil() as u64;
        all.extend((0..count).map(|_| (Duration::from_millis(random.next() % millis.max(1)), fault)));
    }
    all
}

/// How long a fault lasts; those that are for ever, for ever.
pub(crate) fn duration(random: &mut Random, fault: Fault) -> Duration {
    let between = |random: &mut Random, from: u64, to: u64| Duration::from_secs(from + random.next() % (to - from));
    match fault {
        // One in ten is longer than the grace period.
        Fault::Crash if random.below(10) == 0 => between(random, 660, 1_800),
        Fault::Crash | Fault::LostWrites => between(random, 5, 300),
        Fault::Partition => between(random, 60, 900),
        Fault::Liar | Fault::WrongBytes | Fault::Misled | Fault::WrongSums | Fault::Hoarder => {
            between(random, 600, 1_800)
        }
        Fault::FullDisk => between(random, 300, 1_800),
        // The daemon reads every block again once a week or so; a run that is to settle cannot wait for that.
        Fault::Rot => between(random, 600, 1_800),
        Fault::Death | Fault::StandInDeath | Fault::Join | Fault::Damage | Fault::Deletion => Duration::MAX,
    }
}
