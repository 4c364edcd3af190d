//! The blocks of this node, in order of position.

use crate::{Entry, Position, ring::Ring};
use std::{
    collections::{BTreeMap, btree_map::Range},
    ops::Bound::{Excluded, Included, Unbounded},
};

/// The blocks this node has, undamaged: 84 bytes each, about 110 with the tree around them (100,000 blocks: 11 MB).
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    entries: BTreeMap<Position, Entry>,
    bytes: u64,
}

impl Holdings {
    /// What was there before.
    pub(crate) fn insert(&mut self, position: Position, entry: Entry) -> Option<Entry> {
        let before = self.entries.insert(position, entry);
        self.bytes = self.bytes + u64::from(entry.length) - before.map_or(0, |before| u64::from(before.length));
        before
    }

    pub(crate) fn remove(&mut self, position: &Position) -> Option<Entry> {
        let entry = self.entries.remove(position)?;
        self.bytes -= u64::from(entry.length);
        Some(entry)
    }

    pub(crate) fn get(&self, position: &Position) -> Option<&Entry> {
        self.entries.get(position)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Up to `limit` behind `after`, by position.
    pub(crate) fn after(&self, after: Option<Position>, limit: usize) -> impl Iterator<Item = (&Position, &Entry)> {
        let from = after.map_or(Unbounded, Excluded);
        self.entries.range((from, Unbounded)).take(limit)
    }

    /// Those from position `start` to `end` for which `wanted` holds of the `n` closest nodes. It is asked once for each cell, and cells of which
    /// it does not hold are skipped whole: the cost is that of the blocks found and of the cells, not of all blocks.
    pub(crate) fn select<'a, F: Fn(&[Position]) -> bool>(
        &'a self,
        ring: &'a Ring,
        n: usize,
        (start, end): (Position, Position),
        wanted: F,
    ) -> Selection<'a, F> {
        let range = self.entries.range((Included(start), Included(end)));
        Selection { entries: &self.entries, ring, n, end, range, cell_end: None, wanted }
    }
}

/// See [`Holdings::select`].
pub(crate) struct Selection<'a, F> {
    entries: &'a BTreeMap<Position, Entry>,
    ring: &'a Ring,
    n: usize,
    end: Position,
    range: Range<'a, Position, Entry>,
    /// The last position of the cell that is being read.
    cell_end: Option<Position>,
    wanted: F,
}

impl<F> Selection<'_, F> {
    fn skip_to_after(&mut self, position: Position) {
        self.range = if position < self.end {
            self.entries.range((Excluded(position), Included(self.end)))
        } else {
            Range::default()
        };
    }
}

impl<'a, F: Fn(&[Position]) -> bool> Iterator for Selection<'a, F> {
    type Item = (&'a Position, &'a Entry);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (position, entry) = self.range.next()?;
            if self.cell_end.is_some_and(|end| *position <= end) {
                return Some((position, entry));
            }
            let cell = self.ring.cell(position, self.n);
            if (self.wanted)(&cell.closest) {
                self.cell_end = Some(cell.prefix.end());
                return Some((position, entry));
            }
            self.skip_to_after(cell.prefix.end());
        }
    }
}
