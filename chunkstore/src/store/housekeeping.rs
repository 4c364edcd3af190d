//! What is done in the background, in small steps: garbage collection, giving space back, the scrub.

use std::collections::BTreeMap;
use std::sync::TryLockError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chunkstore_block::{BlockId, Reference};

use super::catalog::{self, Extent, Kept, Outcome, SegmentBooks};
use super::record::{Head, MAX_IDS, MAX_REFERENCES, Op, PAGE_BYTES, Place, decode_segment_header};
use super::writer::lock;
use super::{Store, StoreError};

/// Dead records that one call of [`Store::reclaim`] gives back at most.
const RECLAIM_RECORDS: usize = 4_096;
/// A segment of which less than one part in so many is needed is emptied, even if its dead pages were given back: else
/// a long-lived store would have ever more files with next to nothing in them.
const SPARSE_PARTS: u64 = 16;
/// Records that are looked up at a time.
const LAYOUT_ENTRIES: usize = 256;
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
        while let Some(publication) = catalog::unswept(index)? {
            let left = limit.saturating_sub(collected.references as usize);
            if left == 0 {
                return Ok(collected);
            }
            let ids = catalog::blocks_of(index, &publication, left.min(MAX_IDS))?;
            if ids.is_empty() {
                lock(&self.0.catalog).swept(&publication)?;
                continue;
            }
            collected.references += ids.len() as u64;
            if let Outcome::Gone(blocks) = self.0.submit(Op::Sweep { publication, ids }).wait()? {
                collected.blocks += blocks;
            }
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
        let dead = catalog::dead(&*self.0.database, Place { segment: 0, page: 0 }, RECLAIM_RECORDS)?;
        let books = self.segment_books();
        let segment_pages = self.0.segment_bytes / PAGE_BYTES;
        let (unneeded, others): (Vec<_>, Vec<_>) = books.into_iter().partition(|(_, books)| books.is_unneeded());
        let sparse = others.into_iter().filter(|(_, books)| books.is_sparse(segment_pages));
        let sparse: Vec<u32> = sparse.map(|(segment, _)| segment).collect();
        if dead.is_empty() && unneeded.is_empty() && sparse.is_empty() {
            return Ok(nothing);
        }
        // A replay must find every record that the index on disk does not have: so it gets them first.
        self.0.database.flush(true)?;
        let given_back = self.punch(&dead)?;
        let mut reclaimed = Reclaimed {
            given_back_bytes: given_back.iter().map(|extent| u64::from(extent.pages) * PAGE_BYTES).sum(),
            moved_bytes: 0,
            is_done: given_back.len() < RECLAIM_RECORDS,
        };
        for (segment, books) in unneeded {
            self.0.segments.remove(segment)?;
            lock(&self.0.catalog).forget_segment(segment)?;
            let punched = given_back.iter().filter(|extent| extent.place.segment == segment);
            let punched: u32 = punched.map(|extent| extent.pages).sum();
            reclaimed.given_back_bytes += u64::from(books.dead.saturating_sub(punched)) * PAGE_BYTES;
        }
        for segment in sparse {
            reclaimed.moved_bytes = self.empty(segment, limit_bytes)?;
            if reclaimed.moved_bytes > 0 {
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
        Ok(scrubbed)
    }

    /// The next scrub begins at the first block.
    pub fn restart_scrub(&self) -> Result<(), StoreError> {
        lock(&self.0.catalog).set_scrub(Place { segment: 0, page: 0 })
    }

    /// The books of the segments that are not written any more.
    fn segment_books(&self) -> BTreeMap<u32, SegmentBooks> {
        let catalog = lock(&self.0.catalog);
        let sealed = catalog.segments().iter().filter(|(segment, _)| self.0.segments.is_sealed(**segment));
        sealed.map(|(segment, books)| (*segment, *books)).collect()
    }

    /// Returns what was given back: nothing where the file system takes no holes.
    fn punch(&self, dead: &[Extent]) -> Result<Vec<Extent>, StoreError> {
        let mut given_back = Vec::with_capacity(dead.len());
        for extent in dead {
            if self.0.segments.punch(*extent)? {
                given_back.push(*extent);
            }
        }
        lock(&self.0.catalog).reclaimed(&given_back)?;
        Ok(given_back)
    }

    /// Writes anew what must stay of a segment, or as much as the limit allows. Returns how many bytes that was.
    fn empty(&self, segment: u32, limit_bytes: u64) -> Result<u64, StoreError> {
        let mut from = Place { segment, page: 0 };
        let mut moved_bytes = 0;
        loop {
            let kept = catalog::layout(&*self.0.database, from, LAYOUT_ENTRIES)?;
            let own: Vec<_> = kept.into_iter().take_while(|kept| kept.place.segment == segment).collect();
            let Some(last) = own.last() else { return Ok(moved_bytes) };
            from = Place { page: last.place.page + last.pages, ..last.place };
            for kept in &own {
                if moved_bytes >= limit_bytes {
                    return Ok(moved_bytes);
                }
                let has_moved = match kept.block {
                    Some(id) => self.relocate(id, kept.place)?,
                    None => self.log_anew(*kept).map(|()| true)?,
                };
                moved_bytes += u64::from(has_moved) * u64::from(kept.pages) * PAGE_BYTES;
            }
        }
    }

    /// Moves a block to the end of the log, unless it is damaged. Says whether it did.
    fn relocate(&self, id: BlockId, from: Place) -> Result<bool, StoreError> {
        let location = self.find(&id)?.filter(|location| location.place == from && !location.is_damaged);
        let Some(location) = location else { return Ok(false) };
        let block = match self.0.read_at(&id, location) {
            Ok(block) => block,
            Err(reason) => {
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
    fn log_anew(&self, kept: Kept) -> Result<(), StoreError> {
        match self.journal_record(kept) {
            Some(Op::Refer { references, ids }) => {
                for id in ids {
                    let all = self.references(&id)?;
                    let still: Vec<_> =
                        references.iter().copied().filter(|reference| all.binary_search(reference).is_ok()).collect();
                    if !still.is_empty() {
                        self.0.submit(Op::Refer { references: still, ids: vec![id] }).wait()?;
                    }
                }
            }
            Some(Op::Delete(deletion)) => {
                // Its tombstone's newest order, which may be another one.
                if let Some(deletion) = catalog::deletion(&*self.0.database, &deletion.publication)? {
                    self.0.submit(Op::Delete(deletion)).wait()?;
                }
            }
            // It cannot be read, or is none of those that must stay: the index has what it said.
            _ => {}
        }
        lock(&self.0.catalog).drop_journal(&[kept])
    }

    fn journal_record(&self, kept: Kept) -> Option<Op> {
        let Place { segment, .. } = kept.place;
        let header = self.0.segments.read(segment, 0, PAGE_BYTES as usize).ok()?;
        let nonce = decode_segment_header(&header, segment)?;
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
        let Some(id) = kept.block else { return Ok(()) };
        let Some(location) = self.find(&id)?.filter(|location| location.place == kept.place) else { return Ok(()) };
        let read = self.0.read_at(&id, location);
        scrubbed.blocks += 1;
        scrubbed.bytes += u64::from(location.length);
        match read {
            Ok(_) if location.is_damaged => self.0.submit_damage(id, location, false).wait().map(|_| ()),
            Ok(_) => Ok(()),
            // It was moved or removed in between.
            Err(_) if self.find(&id)?.is_none_or(|now| now.place != location.place) => Ok(()),
            Err(reason) => {
                tracing::error!(block = %id, reason, "the scrub found a damaged block");
                scrubbed.damaged.push(id);
                self.0.submit_damage(id, location, true).wait().map(|_| ())
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
