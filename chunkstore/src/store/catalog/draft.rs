//! The changes that one record makes.

use std::collections::{BTreeMap, BTreeSet};

use chunkstore_block::{BlockId, Reference};

use super::entries::{
    APPLIED, TOTALS, Tombstone, authority_value, entry, journal_key, order_key, publication_key, reference_key,
    segment_key, unswept_key,
};
use super::lookups::{authority, blocks_of, find, has_reference, journal, kept, references, tombstone};
use super::{Applied, Books, Extent, Holds, Kept, Location, Outcome, SegmentBooks, Totals, Written};
use crate::store::StoreError;
use crate::store::index::{Change, Index, Table};
use crate::store::record::{Deletion, Op, Place, reference_bytes};

/// The changes that one record makes, made together.
pub(super) struct Draft<'a, I> {
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

impl<'a, I: Index> Draft<'a, I> {
    pub(super) fn new(index: &'a I, books: &'a Books, own: Option<Written>, is_rebuilding: bool) -> Self {
        let (totals, applied) = (books.totals, books.applied);
        let (changes, segments) = (Vec::new(), BTreeMap::new());
        Self { index, books, own, is_rebuilding, changes, totals, segments, applied }
    }

    /// Makes the changes of this record.
    pub(super) fn apply(&mut self, op: &Op) -> Result<Outcome, StoreError> {
        match op {
            Op::Put { id, length, references } => self.put(*id, *length, references),
            Op::Move { id, length, from, references } => self.relocate(*id, *length, *from, references),
            Op::Refer { references, ids } => self.refer(references, ids),
            Op::Delete(deletion) => self.delete(deletion),
            Op::Sweep { publication, ids } => self.sweep(publication, ids),
            Op::Remove { ids } => self.remove(ids),
            Op::Prune { publications } => self.prune(publications),
            Op::Damage { id, place, is_damaged } => self.mark(id, *place, *is_damaged),
            Op::Admit { publication, authority } => self.admit(publication, authority),
            Op::Drop { id, references } => self.drop_if_only(*id, references),
        }
    }

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
            self.keep_own_journal(alive.len() as u32); // at most MAX_REFERENCES
            self.name_own_journal(&alive);
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
            self.bury(older.record)?;
            self.erase(Table::Orders, order_key(publication, older.sequence));
        }
        let Some(record) = self.keep_own_journal(0) else { return Ok(Outcome::Ignored) };
        let value = Tombstone { sequence: *sequence, at_seconds: *at_seconds, record }.to_bytes(order);
        self.write(Table::Tombstones, reference_bytes(publication).to_vec(), value);
        self.write(Table::Orders, order_key(publication, *sequence), Vec::new());
        self.write(Table::Meta, unswept_key(publication), Vec::new());
        Ok(Outcome::Done)
    }

    fn admit(&mut self, publication: &Reference, word: &[u8]) -> Result<Outcome, StoreError> {
        if self.alive(&[*publication])?.is_empty() {
            self.bury_own();
            return Ok(Outcome::Deleted);
        }
        if let Some((older, _)) = authority(self.index, publication)? {
            self.bury(older)?;
        }
        let Some(record) = self.keep_own_journal(1) else { return Ok(Outcome::Ignored) };
        self.name_own_journal(&[*publication]);
        self.write(Table::Authorities, reference_bytes(publication).to_vec(), authority_value(record, word));
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

    fn drop_if_only(&mut self, id: BlockId, references: &[Reference]) -> Result<Outcome, StoreError> {
        // While the index is being built, a reference may still come from a record that was written anew behind this one.
        if self.is_rebuilding || !self.are_all(&id, references)? {
            self.bury_own();
            return Ok(Outcome::Ignored);
        }
        self.remove(&[id])
    }

    fn prune(&mut self, publications: &[Reference]) -> Result<Outcome, StoreError> {
        self.bury_own();
        for publication in unique(publications) {
            // What refers to it still, or again, is taken away first.
            let is_gone = blocks_of(self.index, &publication, 1)?.is_empty();
            if let Some(Tombstone { sequence, record, .. }) = tombstone(self.index, &publication)?.filter(|_| is_gone) {
                self.bury(record)?;
                self.erase(Table::Orders, order_key(&publication, sequence));
                self.erase(Table::Tombstones, reference_bytes(&publication).to_vec());
                self.erase(Table::Meta, unswept_key(&publication));
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn mark(&mut self, id: &BlockId, place: Place, is_damaged: bool) -> Result<Outcome, StoreError> {
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
        let kept = kept(self.index, there.place)?.filter(|kept| kept.holds == Holds::Block(*id));
        let Kept { place, pages, .. } = kept.ok_or_else(|| entry(Table::Layout, &there.place.to_bytes()))?;
        self.segment(place.segment).live -= pages;
        self.totals.live_pages -= u64::from(pages);
        self.erase(Table::Layout, place.to_bytes().to_vec());
        self.mark_dead(Extent { place, pages });
        Ok(())
    }

    /// A record without a body that need not stay any more.
    fn bury(&mut self, record: Extent) -> Result<(), StoreError> {
        if kept(self.index, record.place)?.is_none() {
            return Ok(()); // it went with its segment
        }
        self.segment(record.place.segment).journal -= record.pages;
        self.totals.journal_pages -= u64::from(record.pages);
        self.erase(Table::Layout, record.place.to_bytes().to_vec());
        self.mark_dead(record);
        Ok(())
    }

    pub(super) fn bury_own(&mut self) {
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
    pub(super) fn unbury(&mut self, Extent { place, pages }: Extent) -> Result<(), StoreError> {
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
        self.write(Table::Layout, place.to_bytes().to_vec(), Kept { place, pages, holds: Holds::Block(id) }.to_bytes());
    }

    fn keep_own_journal(&mut self, publications: u32) -> Option<Extent> {
        let Written { place, pages, .. } = self.own?;
        self.segment(place.segment).journal += pages;
        self.totals.journal_pages += u64::from(pages);
        self.write(
            Table::Layout,
            place.to_bytes().to_vec(),
            Kept { place, pages, holds: Holds::Journal(publications) }.to_bytes(),
        );
        Some(Extent { place, pages })
    }

    /// Lists this record under each publication that it names.
    fn name_own_journal(&mut self, publications: &[Reference]) {
        let Some(Written { place, .. }) = self.own else { return };
        for publication in publications {
            self.write(Table::Journal, journal_key(publication, place), Vec::new());
        }
    }

    /// Records that name a publication of which nothing is left: each goes when it was the last.
    pub(super) fn sweep_journal(&mut self, publication: &Reference) -> Result<(), StoreError> {
        self.erase(Table::Meta, unswept_key(publication));
        self.erase(Table::Authorities, reference_bytes(publication).to_vec());
        for place in journal(self.index, publication)? {
            self.erase(Table::Journal, journal_key(publication, place));
            let Some(kept) = kept(self.index, place)? else { continue }; // it was written anew elsewhere
            match kept.holds {
                Holds::Journal(publications) if publications > 1 => {
                    let rest = Kept { holds: Holds::Journal(publications - 1), ..kept };
                    self.write(Table::Layout, place.to_bytes().to_vec(), rest.to_bytes());
                }
                Holds::Journal(_) => self.bury(Extent { place, pages: kept.pages })?,
                Holds::Block(_) => {}
            }
        }
        Ok(())
    }

    /// A record without a body need not stay, if it still does.
    pub(super) fn bury_kept(&mut self, record: &Kept) -> Result<(), StoreError> {
        self.bury(Extent { place: record.place, pages: record.pages })
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

    pub(super) fn close(mut self) -> (Vec<Change>, Books) {
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

fn unique<T: Copy + Ord>(items: &[T]) -> BTreeSet<T> {
    items.iter().copied().collect()
}
