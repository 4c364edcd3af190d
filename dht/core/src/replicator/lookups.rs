//! Looking up the parts of the keyspace that matter here (`docs/protocol.md` §9).

use super::{DEADLINE, Replicator};
use crate::{Output, Position, Prefix, Time, regions::LOOKUP_NODES, timers::Timer};
use std::time::Duration;

/// Lookups under way. A new node finds the network step by step, each lookup telling what the next one is for.
const MAX_LOOKUPS: usize = 2;

/// Between two lookups, so that the nodes that the first one named can answer before the next target is chosen.
const PACE: Duration = Duration::from_secs(1);

/// After a failed lookup.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The longest time until it is seen again whether something must be looked up, and the shortest when nothing had to.
const IDLE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

impl Replicator {
    /// Looks up the next part of the keyspace that matters and of which no fresh region is known.
    pub(super) fn look_up(&mut self, now: Time) {
        self.regions.forget_old(now);
        if self.lookups.len() >= MAX_LOOKUPS {
            self.timers.set(Timer::Lookups, now + AFTER_FAILURE);
            return;
        }
        let target = self.next_target(now);
        let next = match target {
            Some(target) if self.push(Output::Lookup(target)) => {
                self.lookups.insert(target, now + DEADLINE);
                self.counts.lookups += 1;
                now + PACE
            }
            Some(_) => now + PACE,
            None => self.regions.next_expiry(now).unwrap_or(now).clamp(now + IDLE.0, now + IDLE.1),
        };
        self.timers.set(Timer::Lookups, next);
    }

    fn next_target(&mut self, now: Time) -> Option<Position> {
        let own = Prefix::of(&self.local, u16::MAX);
        let prefixes = std::iter::once(&own).chain(self.territory.iter().map(|cell| &cell.prefix));
        let mut uncovered = prefixes.filter_map(|prefix| self.regions.uncovered(now, prefix));
        let target = uncovered.find(|target| !self.lookups.contains_key(target));
        if target.is_some() {
            return target;
        }
        while let Some(target) = self.surplus_lookups.pop_first() {
            if self.regions.find(now, &target).is_none() && !self.lookups.contains_key(&target) {
                return Some(target);
            }
        }
        None
    }

    pub(super) fn found(&mut self, now: Time, target: &Position, near: &Position, nodes: &[Position]) {
        self.lookups.remove(target);
        let nodes = &nodes[..nodes.len().min(LOOKUP_NODES)];
        self.regions.learn(now, near, nodes);
        nodes.iter().for_each(|node| self.heard(now, *node));
        self.timers.set_by(Timer::Lookups, now + PACE);
    }

    pub(super) fn not_found(&mut self, now: Time, target: &Position) {
        self.lookups.remove(target);
        self.timers.set(Timer::Lookups, now + AFTER_FAILURE);
    }

    pub(super) fn give_up_lookups(&mut self, now: Time) {
        self.lookups.retain(|_, until| *until > now);
    }
}
