//! What lately happened to blocks that are not here.

use crate::{Position, Time, bounded::Bounded};
use std::time::Duration;

/// Blocks remembered; the oldest goes. About 150 bytes each.
const MAX_RECENT: usize = 65_536;

/// How long a block that was dropped or not wanted is not taken from those who merely offer it: it would come and go for ever
/// where views differ, or where peers have publications that this node does not store. A guess.
const MEMORY: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A surplus copy was dropped.
    Dropped,
    /// It was pulled, and nothing that is pinned and not deleted refers to it.
    Unwanted,
    /// The store lost it: deleted, or damaged.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Recent(Bounded<Position, (Time, Why)>);

impl Recent {
    pub(crate) fn new() -> Self {
        Self(Bounded::new(MAX_RECENT))
    }

    pub(crate) fn note(&mut self, now: Time, position: Position, why: Why) {
        self.0.insert(position, (now, why));
    }

    pub(crate) fn forget(&mut self, position: &Position) {
        self.0.remove(position);
    }

    pub(crate) fn get(&self, now: Time, position: &Position) -> Option<(Time, Why)> {
        self.0.get(position).copied().filter(|(time, _)| now.since(*time) < MEMORY)
    }
}
