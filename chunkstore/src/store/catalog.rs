//! What the store holds and why, as a state machine: records in, tables and books out.
//!
//! The same records in the same order always give the same tables, whatever happened in between. That is what makes
//! the records a log. Nothing here touches a file or reads the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};

use super::StoreError;
use super::StoredBlock;
use super::index::{Change, Index, Table};
use super::record::{Deletion, ID_BYTES, Op, PAGE_BYTES, Place, REFERENCE_BYTES};
use super::record::{reference, reference_bytes, take};

/// What a block costs in the index, an estimate: its keys and values in `blocks` and `layout` are 150 bytes, and as much
/// again for what RocksDB has not compacted yet.
pub(super) const INDEX_BYTES_PER_BLOCK: u64 = 256;
/// The same of a reference: 160 bytes in `references` and `publications`.
pub(super) const INDEX_BYTES_PER_REFERENCE: u64 = 224;

const APPLIED: &[u8] = b"applied";
const TOTALS: &[u8] = b"totals";
const SEGMENT: &[u8] = b"segment";
const SCRUB: &[u8] = b"scrub";
/// Publications that were deleted and whose references are still being taken away.
const UNSWEPT: &[u8] = b"unswept";

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) place: Place,
    pub(super) pages: u32,
    pub(super) sequence: u64,
    /// Offset of the body in the segment.
    pub(super) body_at: u32,
}

/// Where a stored block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) place: Place,
    pub(super) body_at: u32,
    pub(super) length: u32,
    pub(super) is_damaged: bool,
}

/// The next record to apply: the one at this place or behind it, with a sequence number above this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) next: Place,
    pub(super) sequence: u64,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
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
pub(super) struct Totals {
    pub(super) blocks: u64,
    pub(super) block_bytes: u64,
    pub(super) references: u64,
    pub(super) damaged: u64,
    /// Pages of records that hold stored blocks, of other records that must stay, and of those that may go.
    pub(super) live_pages: u64,
    pub(super) journal_pages: u64,
    pub(super) dead_pages: u64,
}

/// The books of a segment, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentBooks {
    pub(super) live: u32,
    pub(super) journal: u32,
    pub(super) dead: u32,
}

/// A record that must stay: what [`Catalog::layout`] lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) pages: u32,
    /// The block, if it holds one.
    pub(super) block: Option<BlockId>,
}

/// Pages that may be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) place: Place,
    pub(super) pages: u32,
}

/// A tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tombstone {
    sequence: u64,
    at_seconds: u64,
    record: Extent,
}

/// The state machine. One owner changes it; lookups need only the index.
pub(super) struct Catalog<I> {
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

impl Totals {
    /// Bytes that count against the quota.
    pub(super) fn used_bytes(&self) -> u64 {
        (self.live_pages + self.journal_pages + self.dead_pages) * PAGE_BYTES
            + self.blocks * INDEX_BYTES_PER_BLOCK
            + self.references * INDEX_BYTES_PER_REFERENCE
    }

    fn numbers(&mut self) -> [&mut u64; 7] {
        let Self { blocks, block_bytes, references, damaged, live_pages, journal_pages, dead_pages } = self;
        [blocks, block_bytes, references, damaged, live_pages, journal_pages, dead_pages]
    }

    fn to_bytes(mut self) -> Vec<u8> {
        self.numbers().into_iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut totals = Self::default();
        for number in totals.numbers() {
            *number = u64::from_be_bytes(take(&mut bytes)?);
        }
        bytes.is_empty().then_some(totals)
    }
}

impl<I: Index> Catalog<I> {
    /// The catalog as the index has it; that of an empty store if the index is empty.
    pub(super) fn load(index: Arc<I>) -> Result<Self, StoreError> {
        let totals = match index.get(Table::Meta, TOTALS)? {
            Some(bytes) => Totals::from_bytes(&bytes).ok_or_else(|| entry(Table::Meta, TOTALS))?,
            None => Totals::default(),
        };
        let applied = index.get(Table::Meta, APPLIED)?;
        let is_rebuilding = applied.is_none();
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

    /// All records that were found are applied: from now on they come one by one. `true` if the index was new, and must be
    /// flushed before anything is written.
    pub(super) fn finish_loading(&mut self) -> Result<bool, StoreError> {
        let was_new = std::mem::take(&mut self.is_rebuilding);
        let (changes, books) = self.draft(None).close();
        self.commit(changes, books)?;
        Ok(was_new)
    }

    pub(super) fn totals(&self) -> Totals {
        self.books.totals
    }

    pub(super) fn applied(&self) -> Applied {
        self.books.applied
    }

    pub(super) fn segments(&self) -> &BTreeMap<u32, SegmentBooks> {
        &self.books.segments
    }

    /// Applies a record that is durable, and whose body, if it has one, is what it should be.
    pub(super) fn apply(&mut self, op: &Op, written: Written) -> Result<Outcome, StoreError> {
        let mut draft = self.draft(Some(written));
        let outcome = match op {
            Op::Put { id, length, references } => draft.put(*id, *length, references)?,
            Op::Move { id, length, from, references } => draft.relocate(*id, *length, *from, references)?,
            Op::Refer { references, ids } => draft.refer(references, ids)?,
            Op::Delete(deletion) => draft.delete(deletion)?,
            Op::Sweep { publication, ids } => draft.sweep(publication, ids)?,
            Op::Remove { ids } => draft.remove(ids)?,
            Op::Prune { publications } => draft.prune(publications)?,
            Op::Damage { id, place, is_damaged } => draft.mark(id, *place, *is_damaged)?,
        };
        let (changes, books) = draft.close();
        self.commit(changes, books)?;
        Ok(outcome)
    }

    /// Notes a record that holds nothing: its body proved wrong.
    pub(super) fn discard(&mut self, written: Written) -> Result<(), StoreError> {
        let mut draft = self.draft(Some(written));
        draft.bury_own();
        let (changes, books) = draft.close();
        self.commit(changes, books)
    }

    /// Takes dead pages off the books, after they have been given back.
    pub(super) fn reclaimed(&mut self, extents: &[Extent]) -> Result<(), StoreError> {
        let mut draft = self.draft(None);
        for extent in extents {
            draft.unbury(*extent)?;
        }
        let (changes, books) = draft.close();
        self.commit(changes, books)
    }

    /// Takes a segment off the books in which nothing must stay.
    pub(super) fn forget_segment(&mut self, segment: u32) -> Result<(), StoreError> {
        let all = dead(&*self.index, Place { segment, page: 0 }, usize::MAX)?;
        let own: Vec<_> = all.into_iter().take_while(|extent| extent.place.segment == segment).collect();
        self.reclaimed(&own)
    }

    /// Records without bodies in a segment need not stay: they have been written anew.
    pub(super) fn drop_journal(&mut self, records: &[Kept]) -> Result<(), StoreError> {
        let mut draft = self.draft(None);
        for Kept { place, pages, .. } in records {
            if draft.index.get(Table::Layout, &place.to_bytes())?.is_some() {
                draft.bury(Extent { place: *place, pages: *pages });
            }
        }
        let (changes, books) = draft.close();
        self.commit(changes, books)
    }

    /// Nothing of a deleted publication is left.
    pub(super) fn swept(&mut self, publication: &Reference) -> Result<(), StoreError> {
        self.index.write(vec![(Table::Meta, unswept_key(publication), None)])
    }

    /// Where the scrub goes on.
    pub(super) fn set_scrub(&mut self, next: Place) -> Result<(), StoreError> {
        self.index.write(vec![(Table::Meta, SCRUB.to_vec(), Some(next.to_bytes().to_vec()))])
    }

    fn draft(&self, own: Option<Written>) -> Draft<'_, I> {
        let Self { index, books, is_rebuilding } = self;
        let (totals, applied) = (books.totals, books.applied);
        Draft {
            index,
            books,
            own,
            is_rebuilding: *is_rebuilding,
            changes: Vec::new(),
            totals,
            segments: BTreeMap::new(),
            applied,
        }
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

/// The changes that one record makes, made together.
struct Draft<'a, I> {
    index: &'a I,
    books: &'a Books,
    own: Option<Written>,
    is_rebuilding: bool,
    changes: Vec<Change>,
    totals: Totals,
    /// Those whose books change.
    segments: BTreeMap<u32, SegmentBooks>,
    applied: Applied,
}

impl<I: Index> Draft<'_, I> {
    fn put(&mut self, id: BlockId, length: u32, references: &[Reference]) -> Result<Outcome, StoreError> {
        let alive = self.alive(references)?;
        if alive.is_empty() {
            self.bury_own();
            return Ok(Outcome::Deleted);
        }
        match find(self.index, &id)? {
            None => {
                self.keep_own_block(id, length);
                self.totals.blocks += 1;
                self.totals.block_bytes += u64::from(length);
                self.add_references(&id, &alive)?;
                Ok(Outcome::Stored)
            }
            Some(there) => {
                self.add_references(&id, &alive)?;
                if there.is_damaged {
                    self.exchange(id, length, there)?;
                } else {
                    self.bury_own();
                }
                Ok(Outcome::Had)
            }
        }
    }

    fn relocate(
        &mut self,
        id: BlockId,
        length: u32,
        from: Place,
        references: &[Reference],
    ) -> Result<Outcome, StoreError> {
        if self.is_rebuilding {
            return self.put(id, length, references); // the copy that it replaced may be gone, or not
        }
        match find(self.index, &id)? {
            // The record must name every reference, since the one that did is going.
            Some(there) if there.place == from && self.are_all(&id, references)? => self.exchange(id, length, there)?,
            _ => {
                self.bury_own();
                return Ok(Outcome::Ignored);
            }
        }
        Ok(Outcome::Done)
    }

    fn refer(&mut self, references: &[Reference], ids: &[BlockId]) -> Result<Outcome, StoreError> {
        let alive = self.alive(references)?;
        let mut present = BTreeSet::new();
        let mut is_needed = false;
        for id in unique(ids) {
            let Some(location) = find(self.index, &id)? else { continue };
            if location.is_damaged {
                // It gets none, but may have them already: then this is their record written anew.
                is_needed |= self.has_any(&id, &alive)?;
                continue;
            }
            self.add_references(&id, &alive)?;
            present.insert(id);
            is_needed |= !alive.is_empty();
        }
        // It must stay, so that the index can be built again.
        if is_needed {
            self.keep_own_journal();
        } else {
            self.bury_own();
        }
        if alive.is_empty() {
            return Ok(Outcome::Deleted);
        }
        Ok(Outcome::Present(ids.iter().map(|id| present.contains(id)).collect()))
    }

    fn delete(&mut self, deletion: &Deletion) -> Result<Outcome, StoreError> {
        let Deletion { publication, sequence, at_seconds, order } = deletion;
        if let Some(older) = tombstone(self.index, publication)? {
            // One of the same number is the same order, written anew because its segment is emptied.
            if older.sequence > *sequence {
                self.bury_own();
                return Ok(Outcome::Ignored);
            }
            self.bury(older.record);
            self.erase(Table::Orders, order_key(publication, older.sequence));
        }
        let Some(record) = self.keep_own_journal() else { return Ok(Outcome::Ignored) };
        let value = Tombstone { sequence: *sequence, at_seconds: *at_seconds, record }.to_bytes(order);
        self.write(Table::Tombstones, reference_bytes(publication).to_vec(), value);
        self.write(Table::Orders, order_key(publication, *sequence), Vec::new());
        self.write(Table::Meta, unswept_key(publication), Vec::new());
        Ok(Outcome::Done)
    }

    fn sweep(&mut self, publication: &Reference, ids: &[BlockId]) -> Result<Outcome, StoreError> {
        self.bury_own();
        // If it was pruned meanwhile, what is there now came after. And while the index is being built, a block that loses its
        // last reference here may get another from a record that was written anew behind this one: it is collected afterwards.
        if self.is_rebuilding || tombstone(self.index, publication)?.is_none() {
            return Ok(Outcome::Ignored);
        }
        let before = self.totals.blocks;
        for id in unique(ids) {
            if !has_reference(self.index, &id, publication)? {
                continue;
            }
            self.drop_reference(&id, publication);
            // One that stays, besides the one that goes.
            if references(self.index, &id, 2)?.len() < 2 {
                self.drop_block(&id)?;
            }
        }
        Ok(Outcome::Gone(before - self.totals.blocks))
    }

    fn remove(&mut self, ids: &[BlockId]) -> Result<Outcome, StoreError> {
        self.bury_own();
        let before = self.totals.blocks;
        for id in unique(ids) {
            for reference in references(self.index, &id, usize::MAX)? {
                self.drop_reference(&id, &reference);
            }
            self.drop_block(&id)?;
        }
        Ok(Outcome::Gone(before - self.totals.blocks))
    }

    fn prune(&mut self, publications: &[Reference]) -> Result<Outcome, StoreError> {
        self.bury_own();
        for publication in unique(publications) {
            // What refers to it still, or again, is taken away first.
            let is_gone = blocks_of(self.index, &publication, 1)?.is_empty();
            if let Some(Tombstone { sequence, record, .. }) = tombstone(self.index, &publication)?.filter(|_| is_gone) {
                self.bury(record);
                self.erase(Table::Orders, order_key(&publication, sequence));
                self.erase(Table::Tombstones, reference_bytes(&publication).to_vec());
                self.erase(Table::Meta, unswept_key(&publication));
            }
        }
        Ok(Outcome::Done)
    }

    fn mark(&mut self, id: &BlockId, place: Place, is_damaged: bool) -> Result<Outcome, StoreError> {
        self.bury_own();
        match find(self.index, id)? {
            Some(there) if there.place == place && there.is_damaged != is_damaged && !self.is_rebuilding => {
                self.write(Table::Blocks, id.as_bytes().to_vec(), Location { is_damaged, ..there }.to_bytes());
                if is_damaged {
                    self.totals.damaged += 1;
                } else {
                    self.totals.damaged -= 1;
                }
                Ok(Outcome::Done)
            }
            _ => Ok(Outcome::Ignored),
        }
    }

    /// Those of the references that were not deleted, each once. All of them while the index is being built: a block whose
    /// own record names a deleted publication only may have got others later. What is deleted is collected afterwards.
    fn alive(&self, references: &[Reference]) -> Result<Vec<Reference>, StoreError> {
        let mut alive = Vec::new();
        for reference in unique(references) {
            if self.is_rebuilding || tombstone(self.index, &reference)?.is_none() {
                alive.push(reference);
            }
        }
        Ok(alive)
    }

    /// Whether a block has no reference besides these.
    fn are_all(&self, id: &BlockId, named: &[Reference]) -> Result<bool, StoreError> {
        let all = references(self.index, id, named.len() + 1)?;
        Ok(all.iter().all(|reference| named.contains(reference)))
    }

    fn has_any(&self, id: &BlockId, references: &[Reference]) -> Result<bool, StoreError> {
        for reference in references {
            if has_reference(self.index, id, reference)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// This record's copy takes the place of another one.
    fn exchange(&mut self, id: BlockId, length: u32, there: Location) -> Result<(), StoreError> {
        self.bury_block(&id, there)?;
        self.keep_own_block(id, length);
        self.totals.damaged -= u64::from(there.is_damaged);
        Ok(())
    }

    fn add_references(&mut self, id: &BlockId, references: &[Reference]) -> Result<(), StoreError> {
        for reference in references {
            if !has_reference(self.index, id, reference)? {
                self.write(Table::References, reference_key(id, reference), Vec::new());
                self.write(Table::Publications, publication_key(reference, id), Vec::new());
                self.totals.references += 1;
            }
        }
        Ok(())
    }

    /// A reference that is there.
    fn drop_reference(&mut self, id: &BlockId, reference: &Reference) {
        self.erase(Table::References, reference_key(id, reference));
        self.erase(Table::Publications, publication_key(reference, id));
        self.totals.references -= 1;
    }

    fn drop_block(&mut self, id: &BlockId) -> Result<(), StoreError> {
        if let Some(there) = find(self.index, id)? {
            self.bury_block(id, there)?;
            self.erase(Table::Blocks, id.as_bytes().to_vec());
            self.totals.blocks -= 1;
            self.totals.block_bytes -= u64::from(there.length);
            self.totals.damaged -= u64::from(there.is_damaged);
        }
        Ok(())
    }

    fn bury_block(&mut self, id: &BlockId, there: Location) -> Result<(), StoreError> {
        let key = there.place.to_bytes();
        let value = self.index.get(Table::Layout, &key)?;
        let kept = value.and_then(|value| kept_entry(&key, &value)).filter(|kept| kept.block == Some(*id));
        let Kept { place, pages, .. } = kept.ok_or_else(|| entry(Table::Layout, &key))?;
        self.segment(place.segment).live -= pages;
        self.totals.live_pages -= u64::from(pages);
        self.erase(Table::Layout, key.to_vec());
        self.mark_dead(Extent { place, pages });
        Ok(())
    }

    /// A record without a body that need not stay any more.
    fn bury(&mut self, record: Extent) {
        self.segment(record.place.segment).journal -= record.pages;
        self.totals.journal_pages -= u64::from(record.pages);
        self.erase(Table::Layout, record.place.to_bytes().to_vec());
        self.mark_dead(record);
    }

    fn bury_own(&mut self) {
        if let Some(Written { place, pages, .. }) = self.own {
            self.mark_dead(Extent { place, pages });
        }
    }

    fn mark_dead(&mut self, Extent { place, pages }: Extent) {
        self.segment(place.segment).dead += pages;
        self.totals.dead_pages += u64::from(pages);
        self.write(Table::Dead, place.to_bytes().to_vec(), pages.to_be_bytes().to_vec());
    }

    /// Dead pages that are no longer there, if they are still listed.
    fn unbury(&mut self, Extent { place, pages }: Extent) -> Result<(), StoreError> {
        if self.index.get(Table::Dead, &place.to_bytes())?.is_some() {
            self.segment(place.segment).dead -= pages;
            self.totals.dead_pages -= u64::from(pages);
            self.erase(Table::Dead, place.to_bytes().to_vec());
        }
        Ok(())
    }

    fn keep_own_block(&mut self, id: BlockId, length: u32) {
        let Some(Written { place, pages, body_at, .. }) = self.own else { return };
        self.segment(place.segment).live += pages;
        self.totals.live_pages += u64::from(pages);
        let location = Location { place, body_at, length, is_damaged: false };
        self.write(Table::Blocks, id.as_bytes().to_vec(), location.to_bytes());
        self.write(Table::Layout, place.to_bytes().to_vec(), Kept { place, pages, block: Some(id) }.to_bytes());
    }

    fn keep_own_journal(&mut self) -> Option<Extent> {
        let Written { place, pages, .. } = self.own?;
        self.segment(place.segment).journal += pages;
        self.totals.journal_pages += u64::from(pages);
        self.write(Table::Layout, place.to_bytes().to_vec(), Kept { place, pages, block: None }.to_bytes());
        Some(Extent { place, pages })
    }

    fn segment(&mut self, number: u32) -> &mut SegmentBooks {
        let before = self.books.segments.get(&number).copied().unwrap_or_default();
        self.segments.entry(number).or_insert(before)
    }

    fn write(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((table, key, Some(value)));
    }

    fn erase(&mut self, table: Table, key: Vec<u8>) {
        self.changes.push((table, key, None));
    }

    fn close(mut self) -> (Vec<Change>, Books) {
        for (number, books) in self.segments.clone() {
            let value = (books != SegmentBooks::default()).then(|| books.to_bytes());
            self.changes.push((Table::Meta, segment_key(number), value));
        }
        if let Some(Written { place, pages, sequence, .. }) = self.own {
            self.applied = Applied { next: Place { page: place.page + pages, ..place }, sequence };
        }
        self.write(Table::Meta, APPLIED.to_vec(), self.applied.to_bytes());
        self.write(Table::Meta, TOTALS.to_vec(), self.totals.to_bytes());
        (self.changes, Books { totals: self.totals, segments: self.segments, applied: self.applied })
    }
}

/// Where a block lies.
pub(super) fn find(index: &impl Index, id: &BlockId) -> Result<Option<Location>, StoreError> {
    let value = index.get(Table::Blocks, id.as_bytes())?;
    value.map(|value| Location::from_bytes(&value).ok_or_else(|| entry(Table::Blocks, id.as_bytes()))).transpose()
}

/// Up to `limit` of a block's references, in ascending order.
pub(super) fn references(index: &impl Index, id: &BlockId, limit: usize) -> Result<Vec<Reference>, StoreError> {
    let keys = index.scan(Table::References, id.as_bytes(), id.as_bytes(), limit)?;
    keys.iter().map(|(key, _)| parse_reference(Table::References, key, ID_BYTES)).collect()
}

pub(super) fn has_reference(index: &impl Index, id: &BlockId, reference: &Reference) -> Result<bool, StoreError> {
    Ok(index.get(Table::References, &reference_key(id, reference))?.is_some())
}

/// Up to `limit` blocks with an id above `after`.
pub(super) fn list(index: &impl Index, after: Option<BlockId>, limit: usize) -> Result<Vec<StoredBlock>, StoreError> {
    let mut from = after.map_or(Vec::new(), |after| after.as_bytes().to_vec());
    if after.is_some() {
        from.push(0); // the least key above
    }
    let found = index.scan(Table::Blocks, &[], &from, limit)?;
    let blocks = found.into_iter().map(|(key, value)| {
        let id = parse_id(Table::Blocks, &key)?;
        let location = Location::from_bytes(&value).ok_or_else(|| entry(Table::Blocks, &key))?;
        Ok(StoredBlock { id, length: location.length, references: references(index, &id, usize::MAX)? })
    });
    blocks.collect()
}

/// Up to `limit` records that must stay, in the order in which they lie.
pub(super) fn layout(index: &impl Index, from: Place, limit: usize) -> Result<Vec<Kept>, StoreError> {
    let found = index.scan(Table::Layout, &[], &from.to_bytes(), limit)?;
    found.iter().map(|(key, value)| kept_entry(key, value).ok_or_else(|| entry(Table::Layout, key))).collect()
}

/// Up to `limit` dead records, in the order in which they lie.
pub(super) fn dead(index: &impl Index, from: Place, limit: usize) -> Result<Vec<Extent>, StoreError> {
    let found = index.scan(Table::Dead, &[], &from.to_bytes(), limit)?;
    found.iter().map(|(key, value)| dead_entry(key, value).ok_or_else(|| entry(Table::Dead, key))).collect()
}

/// Whether the publication was deleted and its tombstone is still there.
pub(super) fn is_deleted(index: &impl Index, publication: &Reference) -> Result<bool, StoreError> {
    Ok(tombstone(index, publication)?.is_some())
}

/// A deleted publication of which blocks may be left.
pub(super) fn unswept(index: &impl Index) -> Result<Option<Reference>, StoreError> {
    let found = index.scan(Table::Meta, UNSWEPT, UNSWEPT, 1)?;
    found.first().map(|(key, _)| parse_reference(Table::Meta, key, UNSWEPT.len())).transpose()
}

/// Up to `limit` blocks of a publication.
pub(super) fn blocks_of(index: &impl Index, publication: &Reference, limit: usize) -> Result<Vec<BlockId>, StoreError> {
    let prefix = reference_bytes(publication);
    let found = index.scan(Table::Publications, &prefix, &prefix, limit)?;
    found.iter().map(|(key, _)| parse_id(Table::Publications, key.get(REFERENCE_BYTES..).unwrap_or_default())).collect()
}

/// Up to `limit` orders of a platform with a sequence number above `after`, in their order.
pub(super) fn deletions(
    index: &impl Index,
    platform: &PlatformFingerprint,
    after: u64,
    limit: usize,
) -> Result<Vec<Deletion>, StoreError> {
    let prefix = platform.as_bytes();
    let Some(above) = after.checked_add(1) else { return Ok(Vec::new()) };
    let from = [prefix.as_slice(), &above.to_be_bytes()].concat();
    let found = index.scan(Table::Orders, prefix, &from, limit)?;
    let mut deletions = Vec::with_capacity(found.len());
    for (key, _) in found {
        let publication = order_entry(&key).ok_or_else(|| entry(Table::Orders, &key))?;
        deletions.extend(deletion(index, &publication)?);
    }
    Ok(deletions)
}

/// Of up to `limit` tombstones behind `after`: those that are older than `before_seconds` and of whose publications
/// nothing is left; and where to go on, if there are more.
pub(super) fn prunable(
    index: &impl Index,
    after: Option<Reference>,
    before_seconds: u64,
    limit: usize,
) -> Result<(Vec<Reference>, Option<Reference>), StoreError> {
    let mut from = after.map_or(Vec::new(), |after| reference_bytes(&after).to_vec());
    if after.is_some() {
        from.push(0);
    }
    let found = index.scan(Table::Tombstones, &[], &from, limit)?;
    let (mut old, mut last) = (Vec::new(), None);
    for (key, value) in &found {
        let publication = parse_reference(Table::Tombstones, key, 0)?;
        let (tombstone, _) = Tombstone::from_bytes(value).ok_or_else(|| entry(Table::Tombstones, key))?;
        let is_swept = index.get(Table::Meta, &unswept_key(&publication))?.is_none();
        if tombstone.at_seconds < before_seconds && is_swept {
            old.push(publication);
        }
        last = Some(publication);
    }
    Ok((old, last.filter(|_| found.len() == limit)))
}

/// The order by which a publication was deleted.
pub(super) fn deletion(index: &impl Index, publication: &Reference) -> Result<Option<Deletion>, StoreError> {
    let key = reference_bytes(publication);
    let Some(value) = index.get(Table::Tombstones, &key)? else { return Ok(None) };
    let (tombstone, order) = Tombstone::from_bytes(&value).ok_or_else(|| entry(Table::Tombstones, &key))?;
    let Tombstone { sequence, at_seconds, .. } = tombstone;
    Ok(Some(Deletion { publication: *publication, sequence, at_seconds, order }))
}

/// Where the scrub goes on.
pub(super) fn scrub(index: &impl Index) -> Result<Place, StoreError> {
    let bytes = index.get(Table::Meta, SCRUB)?;
    let place = bytes.and_then(|bytes| Some(Place::from_bytes(bytes.try_into().ok()?)));
    Ok(place.unwrap_or(Place { segment: 0, page: 0 }))
}

fn tombstone(index: &impl Index, publication: &Reference) -> Result<Option<Tombstone>, StoreError> {
    let key = reference_bytes(publication);
    let Some(value) = index.get(Table::Tombstones, &key)? else { return Ok(None) };
    let (tombstone, _) = Tombstone::from_bytes(&value).ok_or_else(|| entry(Table::Tombstones, &key))?;
    Ok(Some(tombstone))
}

fn unique<T: Copy + Ord>(items: &[T]) -> BTreeSet<T> {
    items.iter().copied().collect()
}

impl Location {
    fn to_bytes(self) -> Vec<u8> {
        let Self { place, body_at, length, is_damaged } = self;
        [&place.to_bytes()[..], &body_at.to_be_bytes(), &length.to_be_bytes(), &[is_damaged.into()]].concat()
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let place = Place::from_bytes(take(&mut bytes)?);
        let body_at = u32::from_be_bytes(take(&mut bytes)?);
        let length = u32::from_be_bytes(take(&mut bytes)?);
        let [flags] = take(&mut bytes)?;
        bytes.is_empty().then_some(Self { place, body_at, length, is_damaged: flags & 1 != 0 })
    }
}

impl Applied {
    fn to_bytes(self) -> Vec<u8> {
        [self.next.to_bytes(), self.sequence.to_be_bytes()].concat()
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let next = Place::from_bytes(take(&mut bytes)?);
        let sequence = u64::from_be_bytes(take(&mut bytes)?);
        bytes.is_empty().then_some(Self { next, sequence })
    }
}

impl Tombstone {
    fn to_bytes(self, order: &[u8]) -> Vec<u8> {
        let Self { sequence, at_seconds, record } = self;
        let numbers = [sequence.to_be_bytes(), at_seconds.to_be_bytes(), record.place.to_bytes()].concat();
        [&numbers, record.pages.to_be_bytes().as_slice(), order].concat()
    }

    fn from_bytes(mut bytes: &[u8]) -> Option<(Self, Vec<u8>)> {
        let sequence = u64::from_be_bytes(take(&mut bytes)?);
        let at_seconds = u64::from_be_bytes(take(&mut bytes)?);
        let place = Place::from_bytes(take(&mut bytes)?);
        let pages = u32::from_be_bytes(take(&mut bytes)?);
        Some((Self { sequence, at_seconds, record: Extent { place, pages } }, bytes.to_vec()))
    }
}

impl SegmentBooks {
    fn to_bytes(self) -> Vec<u8> {
        [self.live, self.journal, self.dead].into_iter().flat_map(u32::to_be_bytes).collect()
    }
}

impl Kept {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.pages.to_be_bytes().to_vec();
        match self.block {
            Some(id) => {
                bytes.push(1);
                bytes.extend(id.as_bytes());
            }
            None => bytes.push(2),
        }
        bytes
    }
}

fn kept_entry(key: &[u8], mut value: &[u8]) -> Option<Kept> {
    let place = Place::from_bytes(key.try_into().ok()?);
    let pages = u32::from_be_bytes(take(&mut value)?);
    let block = match take(&mut value)? {
        [1] => Some(BlockId::from_bytes(take(&mut value)?)),
        [2] => None,
        _ => return None,
    };
    value.is_empty().then_some(Kept { place, pages, block })
}

fn dead_entry(key: &[u8], value: &[u8]) -> Option<Extent> {
    Some(Extent { place: Place::from_bytes(key.try_into().ok()?), pages: u32::from_be_bytes(value.try_into().ok()?) })
}

fn segment_entry(key: &[u8], mut value: &[u8]) -> Option<(u32, SegmentBooks)> {
    let number = u32::from_be_bytes(key.strip_prefix(SEGMENT)?.try_into().ok()?);
    let mut next = || Some(u32::from_be_bytes(take(&mut value)?));
    let books = SegmentBooks { live: next()?, journal: next()?, dead: next()? };
    value.is_empty().then_some((number, books))
}

fn segment_key(number: u32) -> Vec<u8> {
    [SEGMENT, &number.to_be_bytes()].concat()
}

fn unswept_key(publication: &Reference) -> Vec<u8> {
    [UNSWEPT, &reference_bytes(publication)].concat()
}

fn reference_key(id: &BlockId, reference: &Reference) -> Vec<u8> {
    [id.as_bytes().as_slice(), &reference_bytes(reference)].concat()
}

fn publication_key(reference: &Reference, id: &BlockId) -> Vec<u8> {
    [&reference_bytes(reference), id.as_bytes().as_slice()].concat()
}

/// Platform, sequence number, publication id: so that a platform's orders lie in their order.
fn order_key(publication: &Reference, sequence: u64) -> Vec<u8> {
    let Reference { platform, publication } = publication;
    [platform.as_bytes().as_slice(), &sequence.to_be_bytes(), publication.as_bytes()].concat()
}

fn order_entry(mut key: &[u8]) -> Option<Reference> {
    let platform: [u8; 32] = take(&mut key)?;
    let _sequence: [u8; 8] = take(&mut key)?;
    let publication: [u8; 16] = take(&mut key)?;
    let platform = PlatformFingerprint::from_bytes(platform);
    key.is_empty().then(|| Reference { platform, publication: PublicationId::from_bytes(publication) })
}

fn parse_id(table: Table, key: &[u8]) -> Result<BlockId, StoreError> {
    key.try_into().map(BlockId::from_bytes).map_err(|_| entry(table, key))
}

/// The reference at the end of a key.
fn parse_reference(table: Table, key: &[u8], offset: usize) -> Result<Reference, StoreError> {
    let bytes = key.get(offset..).and_then(|bytes| bytes.try_into().ok());
    bytes.map(reference).ok_or_else(|| entry(table, key))
}

fn entry(table: Table, key: &[u8]) -> StoreError {
    StoreError::Entry { table: table.name(), entry: data_encoding::HEXLOWER.encode(key) }
}
