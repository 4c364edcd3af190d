//! What lately happened to blocks that are not here.

use crate::{Position, Prefix, Time, bounded::Bounded};
use std::time::Duration;

/// Blocks remembered, and blocks of holders; the oldest goes. About 150 bytes each.
const MAX_RECENT: usize = 65_536;

/// How long a block that was unwanted from a holder is not taken from it: it would come and go for ever where peers have publications
/// that this node does not store. A guess.
const UNWANTED: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A surplus copy was dropped.
    Dropped,
    /// The store lost it: deleted, or damaged.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Recent {
    blocks: Bounded<Position, (Time, Why)>,
    /// Blocks that were pulled from a holder of which nothing refers to them that is pinned here and not deleted. Other holders may have
    /// other references.
    unwanted: Bounded<(Position, Position), Time>,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self { blocks: Bounded::new(MAX_RECENT), unwanted: Bounded::new(MAX_RECENT) }
    }

    pub(crate) fn note(&mut self, now: Time, position: Position, why: Why) {
        self.blocks.insert(position, (now, why));
    }

    pub(crate) fn note_unwanted(&mut self, now: Time, position: Position, holder: Position) {
        self.unwanted.insert((position, holder), now);
    }

    /// The block is here.
    pub(crate) fn forget(&mut self, position: &Position) {
        self.blocks.remove(position);
        let [first, last] = [Prefix::ALL.start(), &Prefix::ALL.end()].map(|holder| (*position, *holder));
        self.unwanted.remove_range(first..=last);
    }

    pub(crate) fn get(&self, position: &Position) -> Option<(Time, Why)> {
        self.blocks.get(position).copied()
    }

    /// Whether it was not long ago unwanted from the holder.
    pub(crate) fn is_unwanted(&self, now: Time, position: &Position, holder: &Position) -> bool {
        self.unwanted.get(&(*position, *holder)).is_some_and(|time| now.since(*time) < UNWANTED)
    }
}
