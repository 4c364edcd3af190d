//! What is to be done when.

use crate::{Position, Time};
use std::collections::{BTreeMap, BTreeSet};

/// One thing that is due at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Ping a node.
    Ping(Position),
    /// Compare with a node.
    Sync(Position),
    /// Compare with a node once more, since its view may have lagged behind.
    SyncAgain(Position),
    /// A silent node's grace period ends.
    Grace(Position),
    /// A node is trusted again.
    Trust(Position),
    /// The rate allows the next pull.
    Pulls,
    /// Look after surplus copies.
    Surplus,
    /// Look who the neighbours are, what is surplus, which regions are to be looked up.
    Survey,
}

/// Each timer is set once.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Time, Timer)>,
    set: BTreeMap<Timer, Time>,
}

impl Timers {
    /// Sets a timer anew.
    pub(super) fn set(&mut self, timer: Timer, at: Time) {
        self.clear(timer);
        self.due.insert((at, timer));
        self.set.insert(timer, at);
    }

    /// Sets a timer unless it is due earlier.
    pub(super) fn set_no_later(&mut self, timer: Timer, at: Time) {
        if self.set.get(&timer).is_none_or(|set| at < *set) {
            self.set(timer, at);
        }
    }

    /// Sets a timer unless it is set.
    pub(super) fn set_once(&mut self, timer: Timer, at: Time) {
        if !self.set.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.set.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    /// Takes the first timer that is due.
    pub(super) fn pop(&mut self, now: Time) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }
}
