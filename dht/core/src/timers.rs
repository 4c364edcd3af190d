//! What is to be done when.

use crate::{Position, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Something that is done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Ping a node.
    Ping(Position),
    /// Compare with a node.
    Sync(Position),
    /// A comparison has made no progress.
    SyncStuck(Position),
    /// The state of a node changes by itself.
    State(Position),
    /// Positions of nodes changed: find the neighbours and the surplus anew.
    Neighbours,
    /// See what has to be looked up.
    Lookups,
    /// See what can be pulled.
    Pulls,
    /// See to surplus copies.
    Surplus,
    /// Give up on what was asked and never answered.
    Deadlines,
}

/// At most one time for each timer.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Time, Timer)>,
    times: BTreeMap<Timer, Time>,
    /// The first of the queue: asked for after each input.
    next: Option<Time>,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, time: Time) {
        if let Some(before) = self.times.insert(timer, time) {
            self.queue.remove(&(before, timer));
        }
        self.queue.insert((time, timer));
        self.find_next();
    }

    /// Sets it unless it is set to an earlier time.
    pub(crate) fn set_by(&mut self, timer: Timer, time: Time) {
        if self.times.get(&timer).is_none_or(|before| *before > time) {
            self.set(timer, time);
        }
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some(before) = self.times.remove(&timer) {
            self.queue.remove(&(before, timer));
            self.find_next();
        }
    }

    pub(crate) fn pop(&mut self, now: Time) -> Option<Timer> {
        self.next.filter(|next| *next <= now)?;
        let (_, timer) = *self.queue.first()?;
        self.cancel(timer);
        Some(timer)
    }

    pub(crate) const fn next(&self) -> Option<Time> {
        self.next
    }

    fn find_next(&mut self) {
        self.next = self.queue.first().map(|(time, _)| *time);
    }
}
