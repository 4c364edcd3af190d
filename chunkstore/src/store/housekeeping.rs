//! What is done in the background, in small steps: garbage collection, giving space back, the scrub.

use std::collections::BTreeMap;
use std::sync::TryLockError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chunkstore_block::{BlockId, Reference};

use super::catalog::{self, Extent, Holds, Kept, Outcome, SegmentBooks};
use super::record::{Head, MAX_IDS, MAX_REFERENCES, Op, PAGE_BYTES, Place};
use super::writer::{WithoutSpare, lock};
use super::{ReadError, Store, StoreError};

/// Dead records that one call of [`Store::reclaim`] gives back at most.
const RECLAIM_RECORDS: usize = 4_096;
/// A segment of which less than one part in so many is needed is emptied, even if its dead pages were given back: else
/// a long-lived store would have ever more files with next to nothing in them.
const SPARSE_PARTS: u64 = 16;
/// Records that are looked up at a time.
const LAYOUT_ENTRIES: usize = 256;
/// After so many bytes the scrub's place is made durable, so that a node that is killed every day comes to the end, too.
const SCRUB_SAVED_BYTES: u64 = 1 << 30;
/// Tombstones that are looked at at a time.
const PRUNE_ENTRIES: usize = 500;

/// What a call of [`Store::collect`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// References taken away.
    pub references: u64,
    /// Blocks that went, because no reference was left.
    pub blocks: u64,
    /// Nothing is left of any deleted publication.
    pub is_done: bool,
}

/// What a call of [`Store::reclaim`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Bytes given back to the file system.
    pub given_back_bytes: u64,
    /// Bytes of records written anew, so that their segment could go.
    pub moved_bytes: u64,
    /// Nothing is left to do at present.
    pub is_done: bool,
}

/// What a call of [`Store::scrub`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blocks read.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are damaged. They are marked, and count as absent until they are put again.
    pub damaged: Vec<BlockId>,
    /// The end was reached: the next call begins anew.
    pub is_round_complete: bool,
}

impl Store {
    /// Takes up to `limit` references of deleted publications away, and the blocks that have none left.
    pub fn collect(&self, limit: usize) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let index = &*self.0.database;
        let (mut left, mut after) = (limit, None);
        while let Some(publication) = catalog::unswept(index, after)? {
            if left == 0 {
                return Ok(collected);
            }
            let ids = catalog::blocks_of(index, &publication, left.min(MAX_IDS))?;
            left -= ids.len().max(1); // a publication without blocks is work, too
            if ids.is_empty() {
                lock(&self.0.catalog).swept(&publication)?;
                after = Some(publication); // not to walk over those that are done
                continue;
            }
            collected.references += ids.len() as u64;
            if let Outcome::Gone(blocks) = self.0.submit(Op::Sweep { publication, ids }).wait()? {
                collected.blocks += blocks;
            }
        }
        if after.is_some() && catalog::unswept(index, None)?.is_some() {
            return Ok(collected); // one came in before those that were looked at
        }
        Ok(Collected { is_done: true, ..collected })
    }

    /// Forgets deletions that this node learnt of before a time, in seconds since 1970, and of whose publications nothing is
    /// left. Returns how many. Whoever brings such a publication after that brings it back.
    pub fn prune(&self, before_seconds: u64) -> Result<u64, StoreError> {
        let (mut pruned, mut after) = (0, None);
        loop {
            let (old, next) = catalog::prunable(&*self.0.database, after, before_seconds, PRUNE_ENTRIES)?;
            if !old.is_empty() {
                pruned += old.len() as u64;
                self.0.submit(Op::Prune { publications: old }).wait()?;
            }
            match next {
                Some(_) => after = next,
                None => return Ok(pruned),
            }
        }
    }

    /// Gives dead pages back to the file system, removes segments in which nothing is left, and empties one of which too
    /// little is, writing at most about `limit_bytes` for that.
    pub fn reclaim(&self, limit_bytes: u64) -> Result<Reclaimed, StoreError> {
        let nothing = Reclaimed { is_done: true, ..Reclaimed::default() };
        let _housekeeping = match self.0.housekeeping.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(nothing), // a backup is being made, which needs the pages
        };
        self.0.queue.catch_up()?; // what is late would not be flushed
        let dead = catalog::dead(&*self.0.database, Place { segment: 0, page: 0 }, RECLAIM_RECORDS)?;
        let books = self.segment_books()?;
        let unneeded = books.into_iter().filter(|(_, books)| books.is_unneeded());
        let unneeded: BTreeMap<u32, SegmentBooks> =
            unneeded.filter(|(segment, books)| books.dead > 0 || self.is_understood(*segment)).collect();
        if dead.is_empty() && unneeded.is_empty() && self.sparse()?.is_empty() {
            return Ok(nothing);
        }
        // A replay must find every record that the index on disk does not have: so it gets them first.
        let without_spare = self.flush_at_all_costs()?;
        let mut reclaimed = Reclaimed::default();
        for (segment, books) in &unneeded {
            self.0.segments.remove(*segment)?;
            lock(&self.0.catalog).forget_segment(*segment)?;
            reclaimed.given_back_bytes += u64::from(books.dead) * PAGE_BYTES;
        }
        let rest: Vec<_> = dead.into_iter().filter(|extent| !unneeded.contains_key(&extent.place.segment)).collect();
        let punched = self.punch(&rest)?;
        reclaimed.given_back_bytes += punched * PAGE_BYTES;
        reclaimed.is_done = rest.len() < RECLAIM_RECORDS || punched == 0;
        drop(without_spare);
        // After the holes: where those are taken, few segments need to be emptied.
        for segment in self.sparse()? {
            let moved = match self.empty(segment, limit_bytes) {
                // What could be given back without writing anything anew was.
                Err(StoreError::DiskFull { .. }) => None,
                moved => moved?,
            };
            if let Some(moved_bytes) = moved {
                reclaimed.moved_bytes = moved_bytes;
                reclaimed.is_done = false; // it may be unneeded now
                break;
            }
        }
        Ok(reclaimed)
    }

    /// Reads about `limit_bytes` of stored blocks, on so many threads, from where the last call stopped, and marks those that
    /// are damaged.
    pub fn scrub(&self, limit_bytes: u64, threads: usize) -> Result<Scrubbed, StoreError> {
        let index = &*self.0.database;
        let mut next = catalog::scrub(index)?;
        let mut scrubbed = Scrubbed::default();
        while scrubbed.bytes < limit_bytes {
            let kept = catalog::layout(index, next, LAYOUT_ENTRIES)?;
            let Some(last) = kept.last() else {
                scrubbed.is_round_complete = true;
                next = Place { segment: 0, page: 0 };
                break;
            };
            let taken = take_bytes(&kept, limit_bytes - scrubbed.bytes);
            let last = taken.last().unwrap_or(last);
            next = Place { page: last.place.page + last.pages, ..last.place };
            self.scrub_all(taken, threads.max(1), &mut scrubbed)?;
        }
        lock(&self.0.catalog).set_scrub(next)?;
        let unsaved = self.0.scrubbed_bytes.fetch_add(scrubbed.bytes, Ordering::Relaxed) + scrubbed.bytes;
        if unsaved >= SCRUB_SAVED_BYTES || scrubbed.is_round_complete {
            self.0.scrubbed_bytes.store(0, Ordering::Relaxed);
            self.0.database.flush(false)?;
        }
        Ok(scrubbed)
    }

    /// The next scrub begins at the first block.
    pub fn restart_scrub(&self) -> Result<(), StoreError> {
        lock(&self.0.catalog).set_scrub(Place { segment: 0, page: 0 })
    }

    /// Flushes the index, on a full disk in the room that is kept for deletions: it comes back with what is reclaimed.
    fn flush_at_all_costs(&self) -> Result<Option<WithoutSpare<'_>>, StoreError> {
        match self.0.database.flush(true) {
            Err(StoreError::DiskFull { .. }) => {
                let without_spare = self.0.queue.give_up_spare()?;
                self.0.database.flush(true)?;
                Ok(Some(without_spare))
            }
            outcome => outcome.map(|()| None),
        }
    }

    /// Segments that are worth emptying.
    fn sparse(&self) -> Result<Vec<u32>, StoreError> {
        let segment_pages = self.0.segment_bytes / PAGE_BYTES;
        let books = self.segment_books()?;
        let sparse = books.iter().filter(|(_, books)| !books.is_unneeded() && books.is_sparse(segment_pages));
        Ok(sparse.map(|(segment, _)| *segment).collect())
    }

    /// The books of the segments that are not written any more, and of which every record is in the books: the log runs
    /// ahead of them, and a segment in which nothing lives so far may still hold the record that is applied next. Segment
    /// files of that kind that are in no books are listed with empty ones.
    fn segment_books(&self) -> Result<BTreeMap<u32, SegmentBooks>, StoreError> {
        let files = self.0.segments.list()?;
        let catalog = lock(&self.0.catalog); // both from one moment
        let reached = catalog.applied().next.segment;
        let is_done = |segment: &u32| *segment < reached && self.0.segments.is_sealed(*segment);
        let books = |segment| catalog.segments().get(&segment).copied().unwrap_or_default();
        Ok(files.into_iter().filter(is_done).map(|segment| (segment, books(segment))).collect())
    }

    /// Whether a file in no books may go: one whose header cannot be read may hold records that were passed over.
    fn is_understood(&self, segment: u32) -> bool {
        self.0.segments.nonce(segment).is_ok_and(|nonce| nonce.is_some())
    }

    /// Returns how many pages were given back: none where the file system takes no holes.
    fn punch(&self, dead: &[Extent]) -> Result<u64, StoreError> {
        for extent in joined(dead) {
            if !self.0.segments.punch(extent)? {
                return Ok(0);
            }
        }
        lock(&self.0.catalog).reclaimed(dead)?;
        Ok(dead.iter().map(|extent| u64::from(extent.pages)).sum())
    }

    /// Writes anew what must stay of a segment, or as much as the limit allows. `None` if nothing could be done.
    fn empty(&self, segment: u32, limit_bytes: u64) -> Result<Option<u64>, StoreError> {
        let mut from = Place { segment, page: 0 };
        let mut moved_bytes = None;
        loop {
            let kept = catalog::layout(&*self.0.database, from, LAYOUT_ENTRIES)?;
            let own: Vec<_> = kept.into_iter().take_while(|kept| kept.place.segment == segment).collect();
            let Some(last) = own.last() else { return Ok(moved_bytes) };
            from = Place { page: last.place.page + last.pages, ..last.place };
            for kept in &own {
                if moved_bytes.unwrap_or(0) >= limit_bytes {
                    return Ok(moved_bytes);
                }
                let moved = match kept.holds {
                    Holds::Block(id) => self.relocate(id, kept.place)?.then_some(u64::from(kept.pages) * PAGE_BYTES),
                    Holds::Journal(_) => self.log_anew(kept)?,
                };
                if let Some(moved) = moved {
                    moved_bytes = Some(moved_bytes.unwrap_or(0) + moved);
                }
            }
        }
    }

    /// Moves a block to the end of the log, unless it is damaged. Says whether it did.
    fn relocate(&self, id: BlockId, from: Place) -> Result<bool, StoreError> {
        let location = self.find(&id)?.filter(|location| location.place == from && !location.is_damaged);
        let Some(location) = location else { return Ok(false) };
        let block = match self.0.read_at(&id, location) {
            Ok(block) => block,
            Err(ReadError::Failed(error)) => return Err(error),
            Err(ReadError::Damaged(reason)) => {
                tracing::error!(block = %id, reason, "a block is damaged");
                self.0.submit_damage(id, location, true).wait()?;
                return Ok(false);
            }
        };
        let references = self.references(&id)?;
        if references.len() > MAX_REFERENCES {
            return Ok(false); // one record cannot name them all: the block, and its segment, stay
        }
        // It is ignored if the block gets another reference meanwhile, and moves the next time.
        let op = Op::Move { id, length: location.length, from, references };
        Ok(self.0.queue.submit(op, &block).wait()? == Outcome::Done)
    }

    /// Appends again what is still true of a record without a body, so that the index can be built anew without the old one.
    /// Returns how many bytes that took; `None` if it cannot be read.
    fn log_anew(&self, kept: &Kept) -> Result<Option<u64>, StoreError> {
        let ops = match self.journal_record(kept) {
            Some(Op::Refer { references, ids }) => self.still_referred(&references, &ids)?,
            // Its tombstone's newest order, which may be another one.
            Some(Op::Delete(deletion)) => {
                let newest = catalog::deletion(&*self.0.database, &deletion.publication)?;
                newest.map(Op::Delete).into_iter().collect()
            }
            Some(Op::Admit { publication, .. }) => {
                let newest = catalog::authority(&*self.0.database, &publication)?;
                newest.map(|(_, authority)| Op::Admit { publication, authority }).into_iter().collect()
            }
            // It cannot be read: it stays where it is, and its segment with it.
            _ => return Ok(None),
        };
        let mut bytes = 0;
        for op in ops {
            bytes += u64::from(op.pages()) * PAGE_BYTES;
            self.0.submit(op).wait()?;
        }
        lock(&self.0.catalog).drop_journal(kept)?;
        Ok(Some(bytes))
    }

    /// Which of the blocks still have which of the references: a record for each set of references.
    fn still_referred(&self, references: &[Reference], ids: &[BlockId]) -> Result<Vec<Op>, StoreError> {
        let mut still: BTreeMap<Vec<Reference>, Vec<BlockId>> = BTreeMap::new();
        for id in ids {
            let all = self.references(id)?;
            let is_still = |reference: &&Reference| all.binary_search(reference).is_ok();
            still.entry(references.iter().filter(is_still).copied().collect()).or_default().push(*id);
        }
        still.remove(&Vec::new());
        Ok(still.into_iter().map(|(references, ids)| Op::Refer { references, ids }).collect())
    }

    fn journal_record(&self, kept: &Kept) -> Option<Op> {
        let Place { segment, .. } = kept.place;
        let nonce = self.0.segments.nonce(segment).ok()??;
        let bytes = self.0.segments.read(segment, kept.place.offset(), kept.pages as usize * PAGE_BYTES as usize);
        Head::decode(&bytes.ok()?, &nonce).map(|head| head.op)
    }

    fn scrub_all(&self, kept: &[Kept], threads: usize, scrubbed: &mut Scrubbed) -> Result<(), StoreError> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut own = Scrubbed::default();
            while let Some(kept) = kept.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.scrub_one(*kept, &mut own)?;
            }
            Ok::<_, StoreError>(own)
        };
        let found: Result<Vec<_>, _> = match threads {
            1 => work().map(|own| vec![own]),
            _ => thread::scope(|scope| {
                let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                all.into_iter().map(|thread| thread.join().unwrap_or(Err(StoreError::Stopped))).collect()
            }),
        };
        for own in found? {
            scrubbed.blocks += own.blocks;
            scrubbed.bytes += own.bytes;
            scrubbed.damaged.extend(own.damaged);
        }
        Ok(())
    }

    fn scrub_one(&self, kept: Kept, scrubbed: &mut Scrubbed) -> Result<(), StoreError> {
        let Holds::Block(id) = kept.holds else { return Ok(()) };
        let Some(location) = self.find(&id)?.filter(|location| location.place == kept.place) else { return Ok(()) };
        let read = self.0.read_at(&id, location);
        scrubbed.blocks += 1;
        scrubbed.bytes += u64::from(location.length);
        match read {
            Ok(_) if location.is_damaged => self.0.submit_damage(id, location, false).wait().map(|_| ()),
            Ok(_) => Ok(()),
            // It was moved or removed in between.
            Err(_) if self.find(&id)?.is_none_or(|now| now.place != location.place) => Ok(()),
            Err(ReadError::Failed(error)) => Err(error),
            Err(ReadError::Damaged(reason)) => {
                tracing::error!(block = %id, reason, "the scrub found a damaged block");
                scrubbed.damaged.push(id);
                // On a full disk it cannot be marked; it is told all the same, and the scrub goes on.
                if let Err(error) = self.0.submit_damage(id, location, true).wait() {
                    tracing::error!(block = %id, %error, "a damaged block cannot be marked");
                }
                Ok(())
            }
        }
    }

    /// Takes a block in as it is, whatever the quota says: from a store that is being converted.
    pub(super) fn adopt(&self, id: BlockId, block: &[u8], references: &[Reference]) -> Result<(), StoreError> {
        let (first, more) = references.split_at(references.len().min(MAX_REFERENCES));
        let op = Op::Put { id, length: block.len() as u32, references: first.to_vec() };
        self.0.queue.submit(op, block).wait()?;
        for references in more.chunks(MAX_REFERENCES) {
            self.refer(&[id], references)?;
        }
        Ok(())
    }
}

impl SegmentBooks {
    /// Nothing in it must stay.
    fn is_unneeded(self) -> bool {
        self.live == 0 && self.journal == 0
    }

    /// Less in it must stay than could go, or next to nothing.
    fn is_sparse(self, segment_pages: u64) -> bool {
        let needed = u64::from(self.live) + u64::from(self.journal);
        u64::from(self.dead) > needed || needed < segment_pages / SPARSE_PARTS
    }
}

/// Neighbours made one: fewer calls, and no page between two records is left.
fn joined(extents: &[Extent]) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        match joined.last_mut() {
            Some(last)
                if last.place.segment == extent.place.segment && last.place.page + last.pages == extent.place.page =>
            {
                last.pages += extent.pages;
            }
            _ => joined.push(*extent),
        }
    }
    joined
}

/// As many as have about so many bytes, but at least one.
fn take_bytes(kept: &[Kept], limit_bytes: u64) -> &[Kept] {
    let mut bytes = 0;
    let count = kept.iter().take_while(|kept| {
        let has_room = bytes < limit_bytes;
        bytes += u64::from(kept.pages) * PAGE_BYTES;
        has_room
    });
    let count = count.count().max(1);
    kept.get(..count).unwrap_or(kept)
}
