//! What lookups have told of parts of the keyspace (`docs/protocol.md` §9).

use crate::{Position, Prefix, Time};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A lookup names at most so many nodes (libp2p's k). Fewer: they are all there are.
pub(crate) const LOOKUP_NODES: usize = 20;

/// Regions remembered; the oldest goes. Each has up to 21 positions: 3 MiB in all.
const MAX_REGIONS: usize = 4_096;

/// A region is remembered for so many lifetimes, and until then tells at least that the nodes there are mostly known.
const MEMORY: u32 = 5;

/// Regions of the keyspace in which the nodes closest to any position are known from one lookup.
///
/// If a lookup named `k` nodes, the farthest at distance `D` and the j-th closest at `d`, then for each position that has
/// `cpl(d, D) + 1` leading bits in common with the target the j closest nodes are among those named.
#[derive(Clone, Debug)]
pub struct Regions {
    local: Position,
    closest: usize,
    lifetime: Duration,
    known: BTreeMap<Prefix, Region>,
    oldest: BTreeSet<(Time, Prefix)>,
    /// How many regions have so many bits, so that a search tries no others.
    lengths: BTreeMap<u16, usize>,
}

#[derive(Clone, Debug)]
struct Region {
    learnt: Time,
    nodes: Vec<Position>,
}

impl Regions {
    /// Regions good for the `closest` (R + 2) closest nodes, for `lifetime` after the lookup. `local` is this node, which
    /// lookups leave out.
    #[must_use]
    pub const fn new(local: Position, closest: usize, lifetime: Duration) -> Self {
        Self { local, closest, lifetime, known: BTreeMap::new(), oldest: BTreeSet::new(), lengths: BTreeMap::new() }
    }

    /// Nodes among which are the `closest` closest to `target` (fewer if the network is smaller), this node included where it
    /// belongs; in no particular order. `None`: look it up.
    #[must_use]
    pub fn find(&self, now: Time, target: &Position) -> Option<&[Position]> {
        self.region(now, target).map(|(_, region)| region.nodes.as_slice())
    }

    /// Whether a lookup told of the surroundings of `target` not long ago; it need not be fresh.
    pub(crate) fn is_known(&self, now: Time, target: &Position) -> bool {
        self.region_within(now, target, self.lifetime * MEMORY).is_some()
    }

    /// The first position in `prefix` that no fresh region is good for.
    pub(crate) fn uncovered(&self, now: Time, prefix: &Prefix) -> Option<Position> {
        let (mut position, end) = (*prefix.start(), prefix.end());
        loop {
            let Some((region, _)) = self.region(now, &position) else { return Some(position) };
            position = region.end().next().filter(|next| *next <= end)?;
        }
    }

    /// Takes the result of a lookup: `nodes` closest to `target`, without this node, at most 20.
    pub fn learn(&mut self, now: Time, target: &Position, nodes: &[Position]) {
        let mut nodes: Vec<_> = nodes.iter().filter(|node| **node != self.local).copied().collect();
        nodes.sort_by_key(|node| target.distance(node));
        nodes.dedup();
        nodes.truncate(LOOKUP_NODES);
        let Some(bits) = self.bits(target, &mut nodes) else { return };
        self.insert(Prefix::of(target, bits), Region { learnt: now, nodes });
    }

    pub(crate) fn forget_old(&mut self, now: Time) {
        while let Some((learnt, prefix)) = self.oldest.first().copied()
            && now.since(learnt) >= self.lifetime * MEMORY
        {
            self.remove(learnt, &prefix);
        }
    }

    /// When the next region ends.
    pub(crate) fn next_expiry(&self, now: Time) -> Option<Time> {
        let ends = self.oldest.iter().map(|(learnt, _)| *learnt + self.lifetime);
        ends.into_iter().find(|end| *end > now)
    }

    /// Bits that a position must have in common with `target`; adds this node to `nodes` where it belongs.
    fn bits(&self, target: &Position, nodes: &mut Vec<Position>) -> Option<u16> {
        if nodes.len() < LOOKUP_NODES {
            nodes.push(self.local);
            return Some(0);
        }
        // This node was not looked for: if it is farther than all that were named, it says nothing about who else is there.
        let farthest = *nodes.last()?;
        if target.distance(&self.local) < target.distance(&farthest) {
            nodes.push(self.local);
            nodes.sort_by_key(|node| target.distance(node));
        }
        let last_sure = nodes.get(self.closest.checked_sub(1)?)?;
        let bits = last_sure.common_bits(&farthest) + 1;
        (*last_sure != farthest).then_some(bits)
    }

    fn insert(&mut self, prefix: Prefix, region: Region) {
        if let Some(before) = self.known.get(&prefix) {
            self.remove(before.learnt, &prefix);
        }
        self.oldest.insert((region.learnt, prefix));
        self.known.insert(prefix, region);
        *self.lengths.entry(prefix.bits()).or_default() += 1;
        if self.known.len() > MAX_REGIONS
            && let Some((learnt, oldest)) = self.oldest.first().copied()
        {
            self.remove(learnt, &oldest);
        }
    }

    fn remove(&mut self, learnt: Time, prefix: &Prefix) {
        self.oldest.remove(&(learnt, *prefix));
        self.known.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.bits()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.bits());
            }
        }
    }

    /// The largest fresh region with `target`.
    fn region(&self, now: Time, target: &Position) -> Option<(Prefix, &Region)> {
        self.region_within(now, target, self.lifetime)
    }

    /// The largest region with `target` that is not older than `age`.
    fn region_within(&self, now: Time, target: &Position, age: Duration) -> Option<(Prefix, &Region)> {
        let prefixes = self.lengths.keys().map(|bits| Prefix::of(target, *bits));
        let mut known = prefixes.filter_map(|prefix| self.known.get(&prefix).map(|region| (prefix, region)));
        known.find(|(_, region)| now.since(region.learnt) < age)
    }
}
