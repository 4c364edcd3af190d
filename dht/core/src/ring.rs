//! Nodes in order of position, and what follows from their positions alone.

use crate::{Position, Prefix, prefix::POSITION_BITS};
use std::collections::{BTreeSet, VecDeque};

/// Prefixes visited to find a node's territory; below it, a cell stands for all that is left in it. Of 1,000 random nodes half need
/// ten, one in ten thirty, the worst some 2,000; positions that somebody chose may need any number. 5 ms at most.
const MAX_TERRITORY_VISITS: usize = 4_096;

/// Nodes ranked beyond R that decide what the territory is: two that are named in its cells, and the one that says where these end.
pub(crate) const TERRITORY_RANKS: usize = 3;

/// Positions of nodes, ascending and without duplicates.
#[derive(Clone, Debug, Default)]
pub struct Ring(Vec<Position>);

/// Positions of the keyspace with the same closest nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) prefix: Prefix,
    /// Closest first at one position in the cell; the same set, in any order, at all others.
    pub(crate) closest: Vec<Position>,
}

impl Ring {
    /// False if it was there.
    pub fn insert(&mut self, position: Position) -> bool {
        self.0.binary_search(&position).map_err(|at| self.0.insert(at, position)).is_err()
    }

    /// False if it was not there.
    pub fn remove(&mut self, position: &Position) -> bool {
        self.0.binary_search(position).map(|at| self.0.remove(at)).is_ok()
    }

    pub(crate) fn contains(&self, position: &Position) -> bool {
        self.0.binary_search(position).is_ok()
    }

    /// The `n` closest to `target`, closest first. Costs `n` times the logarithm of the ring.
    #[must_use]
    pub fn closest(&self, target: &Position, n: usize) -> Vec<Position> {
        let mut found = Vec::with_capacity(n.min(self.0.len()));
        collect(&self.0, target, n, &mut found);
        found
    }

    /// The `n` closest to `target`, and how far around it they are the same `n`.
    ///
    /// If the n-th and the next first differ in bit `b`, then for all positions with the same `b + 1` leading bits the
    /// distances to all nodes change in later bits only, which do not decide between these two sides.
    pub(crate) fn cell(&self, target: &Position, n: usize) -> Cell {
        let mut closest = self.closest(target, n + 1);
        let bits = boundary(&closest, n);
        closest.truncate(n);
        Cell { prefix: Prefix::of(target, bits), closest }
    }

    /// The cells of which `local`, a node of the ring, is among the `r` closest, each with the `r + 2` closest; large ones first.
    ///
    /// A node with exactly `i` bits in common with `local` is closer to a position than `local` if and only if the position
    /// differs from `local` in bit `i`. So `local` is among the `r` closest where fewer than `r` nodes are in the levels in
    /// which the position differs from it.
    pub(crate) fn territory(&self, local: &Position, r: usize) -> Vec<Cell> {
        self.territory_in(local, r, MAX_TERRITORY_VISITS)
    }

    fn territory_in(&self, local: &Position, r: usize, most_visits: usize) -> Vec<Cell> {
        let levels = self.levels(local);
        let mut cells = Vec::new();
        // With each prefix the smallest subtree around it that has as many nodes as are ranked: the closest to all that is in the prefix are there.
        let mut queue = VecDeque::from([(Prefix::ALL, 0, self.0.as_slice())]);
        let mut visits = 0;
        while let Some((prefix, closer, around)) = queue.pop_front() {
            visits += 1;
            let mut closest = Vec::with_capacity(r + TERRITORY_RANKS);
            collect(around, &prefix.continued_as(local), r + TERRITORY_RANKS, &mut closest);
            let bits = boundary(&closest, r).max(boundary(&closest, r + 2));
            if let Some(halves) = prefix.halves().filter(|_| prefix.bits() < bits && visits < most_visits) {
                let level = prefix.bits();
                for half in halves {
                    let differs = half.start().bit(level) != local.bit(level);
                    let closer = closer + if differs { levels[usize::from(level)] } else { 0 };
                    if closer < r {
                        let inner = within(around, &half);
                        queue.push_back((half, closer, if inner.len() < r + TERRITORY_RANKS { around } else { inner }));
                    }
                }
            } else if closest.iter().take(r).any(|node| node == local) {
                closest.truncate(r + 2);
                cells.push(Cell { prefix, closest });
            }
        }
        cells
    }

    /// For each number of leading bits that others have in common with `local`, the closest of these. Whoever follows such links from
    /// anywhere comes to any node in as many steps as there are levels: each step agrees in one more bit at least.
    pub(crate) fn links(&self, local: &Position) -> BTreeSet<Position> {
        self.by_level(local).filter_map(|(_, nodes)| first(nodes, local)).collect()
    }

    /// Whether it matters to `local`, a node of the ring, that `other`, another one, is in it: whether any position has both among its `n` closest, or
    /// `other` is one of the links of `local`.
    ///
    /// The two differ first in some bit. A position is either closer to all who have that bit, and those before, as `local` does, than to `other`, or
    /// closer to all who have them as `other` does than to `local`. So `n` nodes on each side are enough to keep them apart.
    pub(crate) fn matters(&self, local: &Position, other: &Position, n: usize) -> bool {
        let bits = local.common_bits(other) + 1;
        let side = |node| within(&self.0, &Prefix::of(node, bits));
        let (near, far) = (side(local), side(other));
        near.len() < n || far.len() < n || first(far, local).as_ref() == Some(other)
    }

    /// For each number of leading bits, how many nodes have just so many in common with `local`.
    fn levels(&self, local: &Position) -> Vec<usize> {
        let mut levels = vec![0; usize::from(POSITION_BITS)];
        self.by_level(local).for_each(|(bit, nodes)| levels[usize::from(bit)] = nodes.len());
        levels
    }

    /// The nodes that have just so many leading bits in common with `local`, where there are any.
    fn by_level<'a>(&'a self, local: &'a Position) -> impl Iterator<Item = (u16, &'a [Position])> {
        let mut near = self.0.as_slice();
        (0..POSITION_BITS)
            .map_while(move |bit| {
                let (zeros, ones) = near.split_at(near.partition_point(|node| !node.bit(bit)));
                let far;
                (near, far) = if local.bit(bit) { (ones, zeros) } else { (zeros, ones) };
                (!near.is_empty() || !far.is_empty()).then_some((bit, far))
            })
            .filter(|(_, nodes)| !nodes.is_empty())
    }
}

/// Leading bits that decide which nodes are the `n` closest, if `ranked` are more of the closest, closest first.
fn boundary(ranked: &[Position], n: usize) -> u16 {
    match (n.checked_sub(1).and_then(|last| ranked.get(last)), ranked.get(n)) {
        (Some(last), Some(next)) => last.common_bits(next) + 1,
        _ => 0,
    }
}

/// Those of `nodes` that are in `prefix`.
fn within<'a>(nodes: &'a [Position], prefix: &Prefix) -> &'a [Position] {
    let (start, end) = prefix.range();
    let from = nodes.partition_point(|node| *node < start);
    let behind = nodes[from..].partition_point(|node| *node <= end);
    &nodes[from..from + behind]
}

/// The closest to `target`.
fn first(nodes: &[Position], target: &Position) -> Option<Position> {
    let mut found = Vec::with_capacity(1);
    collect(nodes, target, 1, &mut found);
    found.pop()
}

/// All nodes of a slice have the same bits before the first in which its ends differ, so that bit alone says which are closer.
fn collect(nodes: &[Position], target: &Position, n: usize, found: &mut Vec<Position>) {
    let (Some(first), Some(last)) = (nodes.first(), nodes.last()) else { return };
    if found.len() >= n {
        return;
    }
    if nodes.len() == 1 {
        found.push(*first);
        return;
    }
    let bit = first.common_bits(last);
    let (zeros, ones) = nodes.split_at(nodes.partition_point(|node| !node.bit(bit)));
    let (near, far) = if target.bit(bit) { (ones, zeros) } else { (zeros, ones) };
    collect(near, target, n, found);
    collect(far, target, n, found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Regions, Time, closest, regions::LOOKUP_NODES};
    use proptest::prelude::*;
    use std::time::Duration;

    /// Positions drawn evenly, or all within a few bits of each other, which is where off-by-one errors show.
    fn positions(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Position>> {
        let even = prop::collection::vec(any::<[u8; 32]>(), count.clone());
        let clustered = (any::<[u8; 32]>(), prop::collection::vec((0_usize..256, any::<[u8; 32]>()), count))
            .prop_map(|(base, ends)| ends.iter().map(|(bits, end)| mix(&base, *bits, end)).collect());
        let small = prop::collection::vec(
            any::<u8>().prop_map(|byte| {
                let mut p = [0; 32];
                p[0] = byte;
                p
            }),
            1..60,
        );
        prop_oneof![even, clustered, small].prop_map(|all: Vec<[u8; 32]>| {
            let all: BTreeSet<_> = all.into_iter().map(Position::from_bytes).collect();
            all.into_iter().collect()
        })
    }

    fn mix(base: &[u8; 32], bits: usize, end: &[u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| {
            let keep = bits.saturating_sub(i * 8).min(8);
            let mask = if keep == 0 { 0 } else { 0xff_u8 << (8 - keep) };
            base[i] & mask | end[i] & !mask
        })
    }

    fn ring(nodes: &[Position]) -> Ring {
        let mut ring = Ring::default();
        nodes.iter().for_each(|node| assert!(ring.insert(*node)));
        ring
    }

    fn brute(nodes: &[Position], target: &Position, n: usize) -> Vec<Position> {
        let named: Vec<_> = nodes.iter().map(|node| (*node, *node)).collect();
        closest(target, &named, n)
    }

    fn set(nodes: &[Position]) -> BTreeSet<Position> {
        nodes.iter().copied().collect()
    }

    proptest! {
        #[test]
        fn the_closest_are_those_of_brute_force(nodes in positions(1..60), target: [u8; 32], n in 1_usize..8) {
            let target = Position::from_bytes(target);
            prop_assert_eq!(ring(&nodes).closest(&target, n), brute(&nodes, &target, n));
        }

        #[test]
        fn a_cell_has_the_same_closest_everywhere(
            nodes in positions(1..60), target: [u8; 32], ends in prop::collection::vec(any::<[u8; 32]>(), 20), n in 1_usize..6,
        ) {
            let cell = ring(&nodes).cell(&Position::from_bytes(target), n);
            for end in &ends {
                let inside = Position::from_bytes(mix(&target, cell.prefix.bits().into(), end));
                prop_assert!(cell.prefix.contains(&inside));
                prop_assert_eq!(set(&cell.closest), set(&brute(&nodes, &inside, n)));
            }
        }

        #[test]
        fn territory_is_where_the_node_is_among_the_closest(
            nodes in prop::collection::vec(any::<[u8; 32]>(), 1..50), targets in prop::collection::vec(any::<[u8; 32]>(), 50), r in 1_usize..5,
        ) {
            let nodes: Vec<_> = nodes.into_iter().map(Position::from_bytes).collect();
            // One case in some thousands needs more visits than are made, and is then only roughly right.
            let cells = ring(&nodes).territory_in(&nodes[0], r, usize::MAX);
            for target in targets.into_iter().map(Position::from_bytes).chain([nodes[0]]) {
                let inside: Vec<_> = cells.iter().filter(|cell| cell.prefix.contains(&target)).collect();
                prop_assert_eq!(brute(&nodes, &target, r).contains(&nodes[0]), inside.len() == 1);
                for cell in inside {
                    prop_assert_eq!(set(&cell.closest), set(&brute(&nodes, &target, r + 2)));
                }
            }
        }

        #[test]
        fn links_are_the_closest_of_each_level(nodes in positions(1..90)) {
            let local = nodes[0];
            let level = |bits| nodes.iter().filter(move |node| local.common_bits(node) == bits);
            let closest = (0..256).filter_map(|bits| level(bits).min_by_key(|node| local.distance(node)).copied());
            prop_assert_eq!(ring(&nodes).links(&local), closest.collect::<BTreeSet<_>>());
        }

        #[test]
        fn whoever_shares_a_position_or_is_a_link_matters(
            nodes in positions(2..60), base in 0_usize..60, ends in prop::collection::vec(any::<[u8; 32]>(), 20), n in 1_usize..6,
        ) {
            let (local, all) = (nodes[0], ring(&nodes));
            let base = nodes[base % nodes.len()];
            let near = (0..=256).map(|bits| mix(base.as_bytes(), bits, &ends[0]));
            for position in ends.iter().copied().chain(near).map(Position::from_bytes) {
                let closest = brute(&nodes, &position, n);
                for other in closest.iter().filter(|other| closest.contains(&local) && **other != local) {
                    prop_assert!(all.matters(&local, other, n));
                }
            }
            prop_assert!(all.links(&local).iter().all(|link| all.matters(&local, link, n)));
        }

        #[test]
        fn who_does_not_matter_changes_nothing(nodes in prop::collection::vec(any::<[u8; 32]>(), 2..60), r in 1_usize..4) {
            let nodes: Vec<_> = nodes.into_iter().map(Position::from_bytes).collect();
            let (local, all) = (nodes[0], ring(&nodes));
            let (territory, links) = (all.territory(&local, r), all.links(&local));
            for other in nodes[1..].iter().filter(|other| !all.matters(&local, other, r + TERRITORY_RANKS)) {
                let mut without = all.clone();
                without.remove(other);
                prop_assert_eq!(&territory, &without.territory(&local, r));
                prop_assert_eq!(&links, &without.links(&local));
            }
        }

        #[test]
        fn a_region_names_the_closest_of_every_position_in_it(
            nodes in positions(2..90), target: [u8; 32], ends in prop::collection::vec(any::<[u8; 32]>(), 30), r in 1_usize..5,
        ) {
            let (target, local) = (Position::from_bytes(target), nodes[0]);
            let mut regions = Regions::new(local, r + 2, Duration::from_secs(60));
            let others: Vec<_> = nodes[1..].to_vec();
            regions.learn(Time::ZERO, &target, &brute(&others, &target, LOOKUP_NODES));
            let near = (0..=256).flat_map(|bits| ends.first().map(|end| mix(target.as_bytes(), bits, end)));
            for position in ends.iter().copied().chain(near).map(Position::from_bytes) {
                if let Some(named) = regions.find(Time::ZERO, &position) {
                    prop_assert_eq!(brute(named, &position, r + 2), brute(&nodes, &position, r + 2));
                }
            }
            prop_assert!(regions.find(Time::ZERO, &target).is_some() || nodes.len() > LOOKUP_NODES);
            prop_assert_eq!(regions.find(Time::from_millis(60_000), &target), None);
        }
    }
}
