//! What an oracle would move that knows at once who comes and who has gone for longer than the grace period, to keep every block on exactly its R closest
//! nodes and nowhere else. Not the least: it drops what stood in for a node as soon as that returns, and copies it again when it goes again.

use dht_core::{Position, Ring};
use std::collections::BTreeSet;

pub(crate) struct Oracle {
    replication: usize,
    ring: Ring,
    members: BTreeSet<Position>,
    /// Nodes that count and whose disks are lost: they are given nothing.
    lost: BTreeSet<Position>,
    blocks: Vec<Block>,
    known: BTreeSet<Position>,
    /// Bytes that it has moved.
    pub(crate) moved_bytes: u64,
    /// Bytes of copies that were destroyed for good: all that an oracle moves which does not mind where copies lie (Chun et al.:
    /// Efficient replica maintenance for distributed storage systems, 2006).
    pub(crate) destroyed_bytes: u64,
}

struct Block {
    position: Position,
    length: u32,
    /// Whose disks have it.
    disks: BTreeSet<Position>,
}

impl Oracle {
    pub(crate) fn new(replication: usize) -> Self {
        Self {
            replication,
            ring: Ring::default(),
            members: BTreeSet::new(),
            lost: BTreeSet::new(),
            blocks: Vec::new(),
            known: BTreeSet::new(),
            moved_bytes: 0,
            destroyed_bytes: 0,
        }
    }

    /// A node that counts before anything is stored.
    pub(crate) fn begin_with(&mut self, node: Position) {
        self.ring.insert(node);
        self.members.insert(node);
    }

    /// A block that is uploaded: that costs what it costs, and is not counted. Of a second publication it is the same block.
    pub(crate) fn publish(&mut self, position: Position, length: u32) {
        if !self.known.insert(position) {
            return;
        }
        let disks = self.ring.closest(&position, self.replication).into_iter().collect();
        self.blocks.push(Block { position, length, disks });
    }

    /// A node comes, or comes back, with what is on its disk.
    pub(crate) fn join(&mut self, node: Position) {
        if self.members.insert(node) {
            self.lost.remove(&node);
            self.ring.insert(node);
            self.place();
        }
    }

    /// A node does not count any more.
    pub(crate) fn leave(&mut self, node: &Position) {
        if self.members.remove(node) {
            self.ring.remove(node);
            self.place();
        }
    }

    /// What is on the disk of a node will not come back.
    pub(crate) fn destroy(&mut self, node: &Position) {
        self.lost.insert(*node);
        for block in &mut self.blocks {
            if block.disks.remove(node) {
                self.destroyed_bytes += u64::from(block.length);
            }
        }
    }

    fn place(&mut self) {
        for block in &mut self.blocks {
            let homes = self.ring.closest(&block.position, self.replication);
            for home in homes.iter().filter(|home| !self.lost.contains(home)) {
                if block.disks.insert(*home) {
                    self.moved_bytes += u64::from(block.length);
                }
            }
            // Those that count and are not its homes drop it; a disk that is away keeps what it has.
            let members = &self.members;
            block.disks.retain(|disk| homes.contains(disk) || !members.contains(disk));
        }
    }
}

/// The least that a network must move for each byte that it stores when a node stays for so long: each node that leaves for good takes
/// its bytes along, and each that comes is given as many (Blake, Rodrigues: High availability, scalable storage, dynamic peer networks:
/// pick two, 2003). In bytes per second for one node.
pub(crate) fn least_bandwidth(stored_bytes: f64, lifetime_seconds: f64) -> f64 {
    2.0 * stored_bytes / lifetime_seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_a_copy_when_somebody_goes_and_gives_it_back_to_who_returns_with_it() {
        let node = |number: u8| Position::of_peer(&[number]);
        let mut oracle = Oracle::new(2);
        (0..3).for_each(|number| oracle.begin_with(node(number)));
        let blocks: Vec<_> = (0..100_u8).map(|number| Position::of_peer(&[7, number])).collect();
        blocks.iter().chain(&blocks).for_each(|block| oracle.publish(*block, 10));
        let of = |oracle: &Oracle, number| {
            oracle.blocks.iter().filter(|block| block.disks.contains(&node(number))).count() as u64
        };
        let had = of(&oracle, 0);
        oracle.leave(&node(0));
        assert_eq!(oracle.moved_bytes, had * 10, "what it had is copied once");
        oracle.join(node(0));
        assert_eq!(oracle.moved_bytes, had * 10, "it has its own still");
        assert_eq!(of(&oracle, 0) + of(&oracle, 1) + of(&oracle, 2), 200, "nothing is kept twice");
        oracle.leave(&node(0));
        oracle.destroy(&node(0));
        assert_eq!(oracle.destroyed_bytes, had * 10);
        assert_eq!(oracle.moved_bytes, 2 * had * 10);
        oracle.join(node(0));
        assert_eq!(oracle.moved_bytes, 3 * had * 10, "an empty disk is filled");
    }

    #[test]
    fn a_dead_disk_is_given_nothing_until_its_node_does_not_count() {
        let node = |number: u8| Position::of_peer(&[number]);
        let mut oracle = Oracle::new(1);
        (0..3).for_each(|number| oracle.begin_with(node(number)));
        let blocks = (0..100_u8).map(|number| Position::of_peer(&[7, number]));
        blocks.for_each(|block| oracle.publish(block, 10));
        oracle.destroy(&node(0));
        let lost = oracle.destroyed_bytes;
        oracle.leave(&node(1));
        oracle.join(node(1));
        let moved = oracle.moved_bytes;
        oracle.leave(&node(0));
        assert!(
            lost > 0 && oracle.moved_bytes - moved == lost,
            "each lost block is copied once, to who is to have it then"
        );
    }

    #[test]
    fn the_bound_is_two_bytes_for_each_byte_and_lifetime() {
        assert_eq!(least_bandwidth(1e12, 1e6), 2e6);
    }
}
