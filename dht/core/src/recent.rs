//! What lately happened to blocks that are not here.

use crate::{Position, Time};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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

#[derive(Debug, Default)]
pub(crate) struct Recent {
    blocks: BTreeMap<Position, (Time, Why)>,
    oldest: BTreeSet<(Time, Position)>,
}

impl Recent {
    pub(crate) fn note(&mut self, now: Time, position: Position, why: Why) {
        self.forget(&position);
        self.blocks.insert(position, (now, why));
        self.oldest.insert((now, position));
        if self.blocks.len() > MAX_RECENT
            && let Some((_, oldest)) = self.oldest.pop_first()
        {
            self.blocks.remove(&oldest);
        }
    }

    pub(crate) fn forget(&mut self, position: &Position) {
        if let Some((time, _)) = self.blocks.remove(position) {
            self.oldest.remove(&(time, *position));
        }
    }

    pub(crate) fn get(&self, now: Time, position: &Position) -> Option<(Time, Why)> {
        self.blocks.get(position).copied().filter(|(time, _)| now.since(*time) < MEMORY)
    }
}
