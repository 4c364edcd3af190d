//! Routing tables: for each number of leading bits in common with a node, up to 20 others.

use crate::random::Random;
use dht_core::Position;
use std::ops::Range;

/// Kademlia's k, as in libp2p (Maymounkov, Mazières 2002).
pub(super) const K: usize = 20;

/// The tables of all nodes, one behind the other. Nodes are named by their place in the order of positions.
pub(super) struct Tables {
    entries: Vec<u32>,
    ends: Vec<usize>,
}

impl Tables {
    /// Each bucket has [`K`] nodes of those that it is for, or all of them if they are no more.
    pub(super) fn fill(positions: &[Position], random: &mut Random) -> Self {
        let (mut entries, mut ends) = (Vec::new(), Vec::with_capacity(positions.len()));
        for own in positions {
            let mut around = 0..positions.len();
            for bits in 0..=255 {
                // Halves of the subtree that shares `bits` bits: this node's own, and the bucket's.
                let inner = subtree(positions, own, bits + 1);
                let bucket = if inner.start > around.start { around.start..inner.start } else { inner.end..around.end };
                draw(bucket, random, &mut entries);
                around = inner;
                if around.len() <= 1 {
                    break;
                }
            }
            ends.push(entries.len());
        }
        Self { entries, ends }
    }

    pub(super) fn of(&self, node: u32) -> &[u32] {
        let node = node as usize;
        let start = node.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start..self.ends[node]]
    }

    /// The [`K`] of a node's table that are closest to `target`, closest first.
    pub(super) fn closest(&self, positions: &[Position], node: u32, target: &Position) -> Vec<u32> {
        let mut known: Vec<_> =
            self.of(node).iter().map(|one| (positions[*one as usize].distance(target), *one)).collect();
        if known.len() > K {
            known.select_nth_unstable(K);
            known.truncate(K);
        }
        known.sort_unstable();
        known.into_iter().map(|(_, one)| one).collect()
    }
}

/// Where those lie that share the first `bits` bits of `position`.
pub(super) fn subtree(positions: &[Position], position: &Position, bits: u16) -> Range<usize> {
    // Whoever shares fewer bits lies on one side, below or above.
    let start = positions.partition_point(|one| one < position && one.common_bits(position) < bits);
    let end = positions.partition_point(|one| one <= position || one.common_bits(position) >= bits);
    start..end
}

/// Up to [`K`] of a range, each as likely as another (Floyd's sample: Bentley, Programming Pearls 1987).
fn draw(range: Range<usize>, random: &mut Random, entries: &mut Vec<u32>) {
    let begin = entries.len();
    if range.len() <= K {
        entries.extend(range.map(|node| node as u32));
        return;
    }
    for last in range.len() - K..range.len() {
        let drawn = (range.start + random.below(last + 1)) as u32;
        let is_there = entries[begin..].contains(&drawn);
        entries.push(if is_there { (range.start + last) as u32 } else { drawn });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn buckets_have_twenty_of_those_that_they_are_for_or_all_of_them() {
        let mut random = Random::new(9);
        let mut positions: Vec<_> = (0..700).map(|_| Position::from_bytes(random.bytes())).collect();
        positions.sort_unstable();
        let tables = Tables::fill(&positions, &mut random);
        for node in 0..700_u32 {
            let own = positions[node as usize];
            let table: BTreeSet<_> = tables.of(node).iter().copied().collect();
            assert_eq!(table.len(), tables.of(node).len(), "each once");
            assert!(!table.contains(&node));
            for bits in 0..256 {
                let of_bucket = |one: &u32| *one != node && positions[*one as usize].common_bits(&own) == bits;
                let all = (0..700).filter(of_bucket).count();
                assert_eq!(table.iter().copied().filter(of_bucket).count(), all.min(K), "{bits} bits");
            }
        }
    }
}
