//! Which nodes are to have what: walks over the blocks here, in order of their positions.
//!
//! The `n` closest holders are the same for all positions of a cell: a prefix one bit longer than what the n-th and the next
//! closest have in common. A walk ranks once for each cell.

use super::{Replicator, Timer};
use crate::entry::Summary;
use crate::{Entry, Output, Position, Prefix, Time};
use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included};
use std::time::Duration;

/// Neighbours at most: pinged every few seconds, and compared with.
pub(super) const MAX_NEIGHBOURS: usize = 64;
/// Lookups under way at a time.
const MAX_LOOKUPS: usize = 4;
/// A lookup that has not ended by then is forgotten.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(60);

impl Replicator {
    /// The `n` closest holders to `target`, and the cell in which they are that.
    fn cell(&self, target: &Position, n: usize) -> (Vec<Position>, Prefix) {
        let mut ranked = self.members.closest(target, n + 1);
        if ranked.len() <= n {
            return (ranked, Prefix::ALL);
        }
        let bits = ranked[n - 1].common_bits(&ranked[n]) + 1;
        ranked.truncate(n);
        (ranked, Prefix::of(target, bits))
    }

    /// Calls `visit` for each cell within `prefix` in which there is a block here: the `n` closest holders, where the blocks begin and
    /// where they may end.
    pub(super) fn walk(&self, prefix: &Prefix, n: usize, mut visit: impl FnMut(&[Position], Position, Position)) {
        let last = prefix.end();
        let mut next = self.held.range(*prefix.start()..=last).next();
        while let Some((first, _)) = next {
            let (ranked, cell) = self.cell(first, n);
            let end = cell.end().min(last);
            visit(&ranked, *first, end);
            next = self.held.range((Excluded(end), Included(last))).next();
        }
    }

    /// The shared set with `peer` within `prefix`, as this node sees it, in ascending order of position.
    pub(super) fn for_each_shared(&self, peer: &Position, prefix: &Prefix, mut visit: impl FnMut(&Position, &Entry)) {
        self.walk(prefix, self.config.replication, |ranked, first, end| {
            if ranked.contains(peer) {
                self.held.range(first..=end).for_each(|(position, entry)| visit(position, entry));
            }
        });
    }

    pub(super) fn summary<'p>(&self, peer: &Position, prefix: &'p Prefix) -> Summary<'p> {
        let mut summary = Summary::new(prefix);
        self.for_each_shared(peer, prefix, |position, entry| summary.add(position, entry));
        summary
    }

    /// Whether this node is to have what is at `target`.
    pub(super) fn is_to_have(&self, target: &Position) -> bool {
        self.members.closest(target, self.config.replication).contains(&self.local)
    }

    /// Looks who the neighbours are now, which copies are surplus, and which regions are not known.
    pub(super) fn survey(&mut self, now: Time) {
        self.choose_neighbours(now);
        self.find_surplus(now);
        self.look_up_regions(now);
        let memory = self.config.sync_interval * 2;
        self.recently_gone.retain(|_, at| now.since(*at) < memory);
        let next = self.jittered(self.config.region_lifetime / 2);
        self.timers.set_no_later(Timer::Survey, now + next);
    }

    /// The nodes that are among the R + 2 closest to a block here, or the closest to this node itself: those that have what is to be here.
    fn choose_neighbours(&mut self, now: Time) {
        let near = self.config.replication + super::SPARE_HOLDERS;
        let mut chosen: BTreeSet<Position> = self.members.closest(&self.local, near + 1).into_iter().collect();
        self.walk(&Prefix::ALL, near, |ranked, _, _| {
            if chosen.len() < MAX_NEIGHBOURS {
                chosen.extend(ranked);
            }
        });
        chosen.remove(&self.local);
        let known: Vec<_> = self.members.iter().map(|(node, member)| (*node, member.is_neighbour)).collect();
        for (node, was) in known {
            let is = chosen.contains(&node);
            if is == was {
                continue;
            }
            if let Some(member) = self.members.get_mut(&node) {
                member.is_neighbour = is;
            }
            if is {
                self.timers.set_once(Timer::Ping(node), now);
                self.timers.set_once(Timer::Sync(node), now);
            } else {
                self.timers.clear(Timer::Sync(node));
            }
        }
    }

    /// Each part of the keyspace in which there is something here is looked up now and then: somebody may be closer who has not
    /// been heard of.
    fn look_up_regions(&mut self, now: Time) {
        self.lookups.retain(|_, since| now.since(*since) < LOOKUP_PATIENCE);
        let mut wanted = Vec::new();
        self.walk(&Prefix::ALL, self.config.replication, |_, first, _| {
            if wanted.len() < MAX_LOOKUPS && self.regions.find(now, &first).is_none() {
                wanted.push(first);
            }
        });
        if self.held.is_empty() && self.regions.find(now, &self.local).is_none() {
            wanted.push(self.local);
        }
        for target in wanted {
            self.look_up(now, target);
        }
    }

    pub(super) fn look_up(&mut self, now: Time, target: Position) {
        if self.lookups.len() < MAX_LOOKUPS && !self.lookups.contains_key(&target) {
            self.lookups.insert(target, now);
            self.counts.lookups += 1;
            self.say(Output::Lookup(target));
        }
    }

    pub(super) fn found(&mut self, now: Time, target: Position, nodes: &[Position]) {
        self.lookups.remove(&target);
        self.regions.learn(now, &target, nodes);
        for node in nodes {
            // What others say of a node makes it worth a ping.
            if self.members.name(now, *node) {
                self.timers.set_once(Timer::Ping(*node), now);
            }
        }
        // The other parts that are not known, a few at a time.
        self.look_up_regions(now);
    }
}
