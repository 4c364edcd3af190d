//! What the store holds and why, as a state machine: records in, tables and books out.
//!
//! The same records in the same order always give the same tables, whatever happened in between. That is what makes
//! the records a log. Nothing here touches a file or reads the clock.

mod draft;
mod entries;
mod lookups;

use std::collections::BTreeMap;
use std::sync::Arc;

use chunkstore_block::{BlockId, Reference};

use super::StoreError;
use super::index::{Change, Index, Table};
use super::record::{Op, PAGE_BYTES, Place};
use draft::Draft;
use entries::{APPLIED, REBUILDING, SCRUB, SEGMENT, TOTALS, entry, segment_entry};
use lookups::dead_in;

pub(super) use lookups::{
    authority, blocks_of, dead, deletion, deletions, find, has_reference, is_deleted, layout, list, prunable,
    references, scrub, unswept,
};

/// What a block costs in the index, an estimate: its keys and values in `blocks` and `layout` are 150 bytes, and as much
/// again for what RocksDB has not compacted yet.
pub(in crate::store) const INDEX_BYTES_PER_BLOCK: u64 = 256;
/// The same of a reference: 160 bytes in `references` and `publications`.
pub(in crate::store) const INDEX_BYTES_PER_REFERENCE: u64 = 224;

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Written {
    pub(in crate::store) place: Place,
    pub(in crate::store) pages: u32,
    pub(in crate::store) sequence: u64,
    /// Offset of the body in the segment.
    pub(in crate::store) body_at: u32,
}

/// Where a stored block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Location {
    pub(in crate::store) place: Place,
    pub(in crate::store) body_at: u32,
    pub(in crate::store) length: u32,
    pub(in crate::store) is_damaged: bool,
}

/// The next record to apply: the one at this place or behind it, with a sequence number above this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Applied {
    pub(in crate::store) next: Place,
    pub(in crate::store) sequence: u64,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Outcome {
    /// The block is stored here.
    Stored,
    /// It was there; it has the references now.
    Had,
    /// Of the references none is alive.
    Deleted,
    /// For each block whether it is there.
    Present(Vec<bool>),
    /// So many blocks went.
    Gone(u64),
    /// It changed nothing.
    Ignored,
    /// It is done.
    Done,
}

/// The books of the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Totals {
    pub(in crate::store) blocks: u64,
    pub(in crate::store) block_bytes: u64,
    pub(in crate::store) references: u64,
    pub(in crate::store) damaged: u64,
    /// Pages of records that hold stored blocks, of other records that must stay, and of those that may go.
    pub(in crate::store) live_pages: u64,
    pub(in crate::store) journal_pages: u64,
    pub(in crate::store) dead_pages: u64,
}

/// The books of a segment, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct SegmentBooks {
    pub(in crate::store) live: u32,
    pub(in crate::store) journal: u32,
    pub(in crate::store) dead: u32,
}

/// A record that must stay: what [`Catalog::layout`] lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Kept {
    pub(in crate::store) place: Place,
    pub(in crate::store) pages: u32,
    pub(in crate::store) holds: Holds,
}

/// Why a record must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Holds {
    /// It is the stored copy of a block.
    Block(BlockId),
    /// It names so many publications that are not gone, or none and deletes one: the index could not be built without it.
    Journal(u32),
}

/// Pages that may be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Extent {
    pub(in crate::store) place: Place,
    pub(in crate::store) pages: u32,
}

/// The state machine. One owner changes it; lookups need only the index.
pub(in crate::store) struct Catalog<I> {
    index: Arc<I>,
    books: Books,
    /// The index is being built from all segments. What was dead may be gone from them or not: so a moved block may be met
    /// without any put of it, and marks of damage count for nothing.
    is_rebuilding: bool,
}

/// Everything of the catalog that is kept in memory besides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Books {
    totals: Totals,
    segments: BTreeMap<u32, SegmentBooks>,
    applied: Applied,
}

impl<I: Index> Catalog<I> {
    /// The catalog as the index has it; that of an empty store if the index is empty.
    pub(in crate::store) fn load(index: Arc<I>) -> Result<Self, StoreError> {
        let totals = match index.get(Table::Meta, TOTALS)? {
            Some(bytes) => Totals::from_bytes(&bytes).ok_or_else(|| entry(Table::Meta, TOTALS))?,
            None => Totals::default(),
        };
        let applied = index.get(Table::Meta, APPLIED)?;
        let is_rebuilding = applied.is_none();
        if is_rebuilding {
            // Before anything else: a start that is broken off must begin again, and not go on as if it had all.
            index.write(vec![(Table::Meta, REBUILDING.to_vec(), Some(Vec::new()))])?;
        }
        let applied = match applied {
            Some(bytes) => Applied::from_bytes(&bytes).ok_or_else(|| entry(Table::Meta, APPLIED))?,
            None => Applied { next: Place { segment: 1, page: 0 }, sequence: 0 },
        };
        let mut segments = BTreeMap::new();
        for (key, value) in index.scan(Table::Meta, SEGMENT, SEGMENT, usize::MAX)? {
            let (number, books) = segment_entry(&key, &value).ok_or_else(|| entry(Table::Meta, &key))?;
            segments.insert(number, books);
        }
        Ok(Self { index, books: Books { totals, segments, applied }, is_rebuilding })
    }

    /// Whether a start began to build the index and was broken off: it must be thrown away.
    pub(in crate::store) fn is_unfinished(index: &I) -> Result<bool, StoreError> {
        Ok(index.get(Table::Meta, REBUILDING)?.is_some())
    }

    /// All records that were found are applied: from now on they come one by one. `true` if the index was new, and must be
    /// flushed before anything is written.
    pub(in crate::store) fn finish_loading(&mut self) -> Result<bool, StoreError> {
        let was_new = std::mem::take(&mut self.is_rebuilding);
        let (mut changes, books) = self.draft(None).close();
        changes.push((Table::Meta, REBUILDING.to_vec(), None));
        self.commit(changes, books)?;
        Ok(was_new)
    }

    pub(in crate::store) fn totals(&self) -> Totals {
        self.books.totals
    }

    pub(in crate::store) fn applied(&self) -> Applied {
        self.books.applied
    }

    pub(in crate::store) fn segments(&self) -> &BTreeMap<u32, SegmentBooks> {
        &self.books.segments
    }

    /// Applies a record that is durable, and whose body, if it has one, is what it should be.
    pub(in crate::store) fn apply(&mut self, op: &Op, written: Written) -> Result<Outcome, StoreError> {
        let mut draft = self.draft(Some(written));
        let outcome = draft.apply(op)?;
        let (changes, books) = draft.close();
        self.commit(changes, books)?;
        Ok(outcome)
    }

    /// Notes a record that holds nothing: its body proved wrong.
    pub(in crate::store) fn discard(&mut self, written: Written) -> Result<(), StoreError> {
        let mut draft = self.draft(Some(written));
        draft.bury_own();
        let (changes, books) = draft.close();
        self.commit(changes, books)
    }

    /// The copy of a block cannot be read.
    pub(in crate::store) fn note_damaged(&mut self, id: &BlockId, place: Place) -> Result<(), StoreError> {
        let mut draft = self.draft(None);
        draft.mark(id, place, true)?;
        let (changes, books) = draft.close();
        self.commit(changes, books)
    }

    /// Takes dead pages off the books, after they have been given back.
    pub(in crate::store) fn reclaimed(&mut self, extents: &[Extent]) -> Result<(), StoreError> {
        let mut draft = self.draft(None);
        for extent in extents {
            draft.unbury(*extent)?;
        }
        let (changes, books) = draft.close();
        self.commit(changes, books)
    }

    /// Takes a segment off the books in which nothing must stay.
    pub(in crate::store) fn forget_segment(&mut self, segment: u32) -> Result<(), StoreError> {
        self.reclaimed(&dead_in(&*self.index, segment)?)
    }

    /// A record without a body need not stay: it has been written anew.
    pub(in crate::store) fn drop_journal(&mut self, record: &Kept) -> Result<(), StoreError> {
        let mut draft = self.draft(None);
        draft.bury_kept(record)?;
        let (changes, books) = draft.close();
        self.commit(changes, books)
    }

    /// If nothing of a deleted publication is left, records that name it and no other need not stay either.
    pub(in crate::store) fn swept(&mut self, publication: &Reference) -> Result<(), StoreError> {
        // It was deleted once more since the caller looked, or forgotten and has come again.
        if !blocks_of(&*self.index, publication, 1)?.is_empty() || !is_deleted(&*self.index, publication)? {
            return Ok(());
        }
        let mut draft = self.draft(None);
        draft.sweep_journal(publication)?;
        let (changes, books) = draft.close();
        self.commit(changes, books)
    }

    /// Where the scrub goes on.
    pub(in crate::store) fn set_scrub(&mut self, next: Place) -> Result<(), StoreError> {
        self.index.write(vec![(Table::Meta, SCRUB.to_vec(), Some(next.to_bytes().to_vec()))])
    }

    fn draft(&self, own: Option<Written>) -> Draft<'_, I> {
        Draft::new(&self.index, &self.books, own, self.is_rebuilding)
    }

    fn commit(&mut self, changes: Vec<Change>, changed: Books) -> Result<(), StoreError> {
        self.index.write(changes)?;
        let Books { totals, segments, applied } = changed;
        self.books.totals = totals;
        self.books.applied = applied;
        for (number, books) in segments {
            if books == SegmentBooks::default() {
                self.books.segments.remove(&number);
            } else {
                self.books.segments.insert(number, books);
            }
        }
        Ok(())
    }
}

impl Totals {
    /// Bytes that count against the quota.
    pub(in crate::store) fn used_bytes(&self) -> u64 {
        (self.live_pages + self.journal_pages + self.dead_pages) * PAGE_BYTES
            + self.blocks * INDEX_BYTES_PER_BLOCK
            + self.references * INDEX_BYTES_PER_REFERENCE
    }
}
