//! The durable block store: segment files and an index (`docs/store.md`).

mod backup;
mod buffers;
mod catalog;
mod changes;
mod config;
mod error;
mod folder;
mod hasher;
mod housekeeping;
mod index;
#[cfg(test)]
mod interleavings;
mod log;
mod migration;
mod record;
mod replay;
mod segments;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use chunkstore_block::{Block, BlockId, MAX_BLOCK_BYTES, PlatformFingerprint, Reference};

use catalog::{Catalog, Location, Outcome};
use hasher::Hasher;
use index::Database;
use log::Log;
use record::{HEADER_BYTES, MAX_IDS, MAX_ORDER_BYTES, Op, PAGE_BYTES, REFERENCE_BYTES};
use segments::{Segments, is_want};
use writer::{Queue, Writer, lock};

pub use backup::{BackupProgress, restore};
pub use changes::Changed;
pub use config::StoreConfig;
pub use error::StoreError;
pub use housekeeping::{Collected, Reclaimed, Scrubbed};
pub use record::{Deletion, MAX_REFERENCES};

/// Blocks on disk with the reasons why they are kept. Clones share one store; the last one that goes closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    segments: Arc<Segments>,
    database: Arc<Database>,
    catalog: Arc<Mutex<Catalog<Database>>>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    hasher: Hasher,
    /// Bytes that puts under way will need.
    reserved_bytes: Mutex<u64>,
    /// Bytes that the scrub has read since its place was last made durable.
    scrubbed_bytes: AtomicU64,
    /// Held while dead pages are given back, and during a backup, which needs them to stay.
    housekeeping: Mutex<()>,
    segment_bytes: u64,
    quota_bytes: AtomicU64,
    repair_reserve_bytes: AtomicU64,
    _lock: File,
}

/// What a block is put for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// New content: refused before the reserve for repair is touched.
    Upload,
    /// A copy that another node has lost or is losing.
    Repair,
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The block was not there; now it is, durably, with the references.
    Stored,
    /// The block was there already; now it has the references, durably.
    Had,
}

/// Whether the store has a block: what is asked of the sender of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    Have,
    /// It is not; send it.
    Need,
}

/// A block as [`Store::list`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// Its id.
    pub id: BlockId,
    /// Its length in bytes.
    pub length: u32,
    /// Why it is kept, in ascending order.
    pub references: Vec<Reference>,
}

/// What is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What counts against the quota: blocks with their records, dead records, the index; those being written included.
    pub used_bytes: u64,
    /// Bytes of blocks alone.
    pub block_bytes: u64,
    /// How many blocks.
    pub blocks: u64,
    /// How many of them are known to be damaged.
    pub damaged_blocks: u64,
    /// Bytes of records that are no longer needed and have not been given back to the file system yet.
    pub dead_bytes: u64,
    /// The most bytes that may be used.
    pub quota_bytes: u64,
    /// How much of the quota uploads must leave for repair.
    pub repair_reserve_bytes: u64,
}

impl Store {
    /// Opens the store in the folder `path`, or makes it. Reads back what was written since the index was last flushed,
    /// at most two segments, and nothing else.
    ///
    /// Refuses a folder that another process has open ([`StoreError::InUse`]) or that holds another format. A store of
    /// format 1 is converted, which reads all of it.
    pub fn open(path: impl AsRef<Path>, config: &StoreConfig) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let lock = folder::claim(path)?;
        let store = Self::open_claimed(path, config, lock)?;
        migration::finish(path, &store)?;
        Ok(store)
    }

    fn open_claimed(path: &Path, config: &StoreConfig, lock: File) -> Result<Self, StoreError> {
        let segments = Arc::new(Segments::new(path.join(folder::SEGMENTS), config.max_open_files / 2)?);
        let index = path.join(folder::INDEX);
        segments::make_folder(&index)?;
        let database = Arc::new(open_index(&index, config)?);
        let mut catalog = Catalog::load(Arc::clone(&database))?;
        let segment_bytes = config.segment_bytes();
        let before = catalog.applied();
        let end = replay::replay(&segments, &mut catalog, segment_bytes)?;
        if catalog.finish_loading()? {
            database.flush(true)?;
        } else if catalog.applied() != before
            && let Err(error) = database.flush(true)
        {
            tracing::warn!(%error, "the index is not flushed; the next start reads the last records again");
        }
        let segment = end.last_segment;
        let log = Log::new(Arc::clone(&segments), segment_bytes, end)?;
        let catalog = Arc::new(Mutex::new(catalog));
        let queue = Arc::new(Queue::new(log, Arc::clone(&catalog)));
        let writer =
            Writer { queue: Arc::clone(&queue), database: Arc::clone(&database), segment, failed_segment: None };
        let hasher = Hasher::start().map_err(|source| StoreError::folder(path, source))?;
        let thread = thread::Builder::new().name("chunkstore".to_owned()).spawn(|| writer.run());
        let thread = thread.map_err(|source| StoreError::folder(path, source))?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            segments,
            database,
            catalog,
            queue,
            writer: Some(thread),
            hasher,
            reserved_bytes: Mutex::new(0),
            scrubbed_bytes: AtomicU64::new(0),
            housekeeping: Mutex::new(()),
            segment_bytes,
            quota_bytes: config.quota_bytes.into(),
            repair_reserve_bytes: config.repair_reserve_bytes.into(),
            _lock: lock,
        })))
    }

    /// Stores a block with its references. When this returns `Ok`, both survive a power cut.
    ///
    /// Refuses a wrong length, bytes that are not the block `id`, no or too many references, references that were all
    /// deleted ([`StoreError::Deleted`]), and a block that does not fit under the quota ([`StoreError::Full`]). A
    /// block that is there already needs no room; it is read to be sure, and written anew if it is damaged.
    pub fn put(
        &self,
        id: BlockId,
        block: Bytes,
        references: &[Reference],
        room: Room,
    ) -> Result<PutOutcome, StoreError> {
        self.put_and(id, &block, references, room, |op| {
            let hashing = self.0.hasher.begin(&block);
            let pending = self.0.queue.submit_unverified(op, &block);
            let actual = hashing.finish(); // while the writer syncs it
            pending.judge(actual == id);
            let outcome = pending.wait();
            if actual == id { outcome } else { Err(StoreError::Mismatch { expected: id, actual }) }
        })
    }

    /// As [`Store::put`], of a block that need not be hashed any more.
    pub fn put_verified(&self, block: &Block, references: &[Reference], room: Room) -> Result<PutOutcome, StoreError> {
        let (id, bytes) = (block.id(), block.bytes());
        self.put_and(id, bytes, references, room, |op| self.0.queue.submit(op, bytes).wait())
    }

    fn put_and(
        &self,
        id: BlockId,
        block: &Bytes,
        references: &[Reference],
        room: Room,
        write: impl FnOnce(Op) -> Result<Outcome, StoreError>,
    ) -> Result<PutOutcome, StoreError> {
        if !(1..=MAX_BLOCK_BYTES).contains(&block.len()) {
            return Err(StoreError::Length { length: block.len() });
        }
        check_references(references)?;
        let found = self.compare(&id, block)?;
        if found == Found::Same && self.add_references(&[id], references)? == [Presence::Have] {
            return Ok(PutOutcome::Had);
        }
        let needed_bytes = bytes_on_disk(block.len(), references.len());
        let _reserved = self.reserve(needed_bytes, room)?;
        match write(Op::Put { id, length: block.len() as u32, references: references.to_vec() })? {
            Outcome::Stored => Ok(PutOutcome::Stored),
            Outcome::Deleted => Err(StoreError::Deleted { publication: references[0] }),
            Outcome::Had => {
                self.log_references(&id)?;
                // Unless the damage could not be noted and the damaged copy is still the one in force.
                if found == Found::Damaged {
                    self.read(&id)?;
                }
                Ok(PutOutcome::Had)
            }
            Outcome::Present(_) | Outcome::Gone(_) | Outcome::Ignored | Outcome::Done => Err(StoreError::Stopped),
        }
    }

    /// Reads a block, or `None` if it is not stored. The bytes have been checked against the id.
    ///
    /// A damaged block is [`StoreError::Corrupt`]; it is marked and counts as absent until it is put again.
    pub fn read(&self, id: &BlockId) -> Result<Option<Bytes>, StoreError> {
        self.read_by(id, |location| self.0.read_at(id, location))
    }

    /// As [`Store::read`], of bytes that are not checked: for a reader who does it in any case, and asks for a checked read if
    /// they are wrong, so that the damage is found here.
    pub fn read_unverified(&self, id: &BlockId) -> Result<Option<Bytes>, StoreError> {
        self.read_by(id, |location| self.0.read_unverified_at(location))
    }

    fn read_by(
        &self,
        id: &BlockId,
        read: impl Fn(Location) -> Result<Bytes, ReadError>,
    ) -> Result<Option<Bytes>, StoreError> {
        while let Some(location) = self.find(id)? {
            if location.is_damaged {
                return Err(StoreError::Corrupt { id: *id, reason: "it was found so before".to_owned() });
            }
            match read(location) {
                Ok(block) => return Ok(Some(block)),
                // It was moved or removed in between.
                Err(_) if self.find(id)? != Some(location) => {}
                Err(ReadError::Damaged(reason)) => {
                    drop(self.0.submit_damage(*id, location, true));
                    return Err(StoreError::Corrupt { id: *id, reason });
                }
                Err(ReadError::Failed(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether the block is stored and not known to be damaged. Does not read its body.
    pub fn has(&self, id: &BlockId) -> Result<bool, StoreError> {
        Ok(self.length(id)?.is_some())
    }

    /// Length in bytes of a block that the store has. Does not read its body.
    pub fn length(&self, id: &BlockId) -> Result<Option<u32>, StoreError> {
        Ok(self.find(id)?.filter(|location| !location.is_damaged).map(|location| location.length))
    }

    /// Adds all references to each of the blocks that the store has, durably, and says for each id in turn whether it is
    /// one. Refuses references that were all deleted.
    pub fn add_references(&self, ids: &[BlockId], references: &[Reference]) -> Result<Vec<Presence>, StoreError> {
        check_references(references)?;
        let mut presences = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_IDS) {
            presences.extend(match self.known_references(ids, references)? {
                Some(known) => known,
                None => self.refer(ids, references)?,
            });
        }
        Ok(presences)
    }

    /// The references of a block, in ascending order; none if it is not stored.
    pub fn references(&self, id: &BlockId) -> Result<Vec<Reference>, StoreError> {
        catalog::references(&*self.0.database, id, usize::MAX)
    }

    /// Whether a block is kept for a publication.
    pub fn has_reference(&self, id: &BlockId, reference: &Reference) -> Result<bool, StoreError> {
        catalog::has_reference(&*self.0.database, id, reference)
    }

    /// Up to `limit` stored blocks in ascending order of id, those above `after`. Fewer than `limit` are the last.
    ///
    /// It is no snapshot: blocks that come or go between two calls are shown or not, as it happens.
    pub fn list(&self, after: Option<BlockId>, limit: usize) -> Result<Vec<StoredBlock>, StoreError> {
        catalog::list(&*self.0.database, after, limit)
    }

    /// Removes a block with its references, durably. `false` if it was not stored.
    pub fn remove(&self, id: &BlockId) -> Result<bool, StoreError> {
        if self.find(id)?.is_none() {
            return Ok(false);
        }
        let outcome = self.0.submit(Op::Remove { ids: vec![*id] }).wait()?;
        Ok(outcome == Outcome::Gone(1))
    }

    /// Removes a block, durably, unless it has by then a reference besides these. `false` if it was not stored or stays.
    pub fn remove_if_only(&self, id: &BlockId, references: &[Reference]) -> Result<bool, StoreError> {
        // More than one record can name; it stays.
        if self.find(id)?.is_none() || references.len() > MAX_REFERENCES {
            return Ok(false);
        }
        let op = Op::Drop { id: *id, references: references.to_vec() };
        Ok(self.0.submit(op).wait()? == Outcome::Gone(1))
    }

    /// Deletes a publication: from now on no reference to it is taken, and [`Store::collect`] takes away those that are
    /// there. `false` if it was deleted already by this order or a later one.
    ///
    /// The caller has verified the order.
    pub fn delete(&self, deletion: Deletion) -> Result<bool, StoreError> {
        let length = deletion.order.len();
        if length > MAX_ORDER_BYTES {
            return Err(StoreError::Order { length, most: MAX_ORDER_BYTES });
        }
        let known = catalog::deletion(&*self.0.database, &deletion.publication)?;
        if known.is_some_and(|known| known.sequence >= deletion.sequence) {
            return Ok(false);
        }
        Ok(self.0.submit(Op::Delete(deletion)).wait()? == Outcome::Done)
    }

    /// Keeps a platform's signed word that a publication is one of its own, until the publication is deleted. Nothing is written
    /// for one that has such a word already.
    ///
    /// The caller has verified the signature. Refuses a word of more than 4,096 bytes, and a publication that was deleted.
    pub fn admit(&self, publication: &Reference, authority: &[u8]) -> Result<(), StoreError> {
        let length = authority.len();
        if length > MAX_ORDER_BYTES {
            return Err(StoreError::Order { length, most: MAX_ORDER_BYTES });
        }
        if self.authority(publication)?.is_some() {
            return Ok(());
        }
        let op = Op::Admit { publication: *publication, authority: authority.to_vec() };
        let _reserved = self.reserve(u64::from(op.pages()) * PAGE_BYTES, Room::Repair)?;
        match self.0.submit(op).wait()? {
            Outcome::Done => Ok(()),
            Outcome::Deleted => Err(StoreError::Deleted { publication: *publication }),
            Outcome::Stored | Outcome::Had | Outcome::Present(_) | Outcome::Gone(_) | Outcome::Ignored => {
                Err(StoreError::Stopped)
            }
        }
    }

    /// What [`Store::admit`] has kept for a publication.
    pub fn authority(&self, publication: &Reference) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(catalog::authority(&*self.0.database, publication)?.map(|(_, authority)| authority))
    }

    /// Whether a publication was deleted, as far as its tombstone is still kept.
    pub fn is_deleted(&self, publication: &Reference) -> Result<bool, StoreError> {
        catalog::is_deleted(&*self.0.database, publication)
    }

    /// Up to `limit` of a platform's deletions with a sequence number above `after`, in the order of those.
    pub fn deletions(
        &self,
        platform: &PlatformFingerprint,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Deletion>, StoreError> {
        catalog::deletions(&*self.0.database, platform, after, limit)
    }

    /// From now on [`Store::changes`] says which blocks have changed. `wake` is called after each change, from the thread that
    /// made it, and must not block. `false` if somebody watches already.
    pub fn watch(&self, wake: impl Fn() + Send + Sync + 'static) -> bool {
        self.0.queue.changes().watch(Box::new(wake))
    }

    /// Takes up to `limit` ids of blocks that have changed since [`Store::watch`], each once.
    pub fn changes(&self, limit: usize) -> Changed {
        self.0.queue.changes().take(limit)
    }

    /// One block as [`Store::list`] shows it; `None` if it is not stored or is known to be damaged.
    pub fn look(&self, id: &BlockId) -> Result<Option<StoredBlock>, StoreError> {
        let Some(length) = self.length(id)? else { return Ok(None) };
        Ok(Some(StoredBlock { id: *id, length, references: self.references(id)? }))
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        let totals = lock(&self.0.catalog).totals();
        Usage {
            used_bytes: totals.used_bytes() + *lock(&self.0.reserved_bytes),
            block_bytes: totals.block_bytes,
            blocks: totals.blocks,
            damaged_blocks: totals.damaged,
            dead_bytes: totals.dead_pages * PAGE_BYTES,
            quota_bytes: self.0.quota_bytes.load(Ordering::Relaxed),
            repair_reserve_bytes: self.0.repair_reserve_bytes.load(Ordering::Relaxed),
        }
    }

    /// Whether changes are taken: not while the index does not take what is durable already, nor after the disk has failed so that nothing
    /// more may be written. Says nothing about room.
    pub fn takes_changes(&self) -> bool {
        self.0.queue.takes_changes()
    }

    /// From now on this quota and this reserve count. What is stored beyond a smaller quota stays.
    pub fn set_quota(&self, quota_bytes: u64, repair_reserve_bytes: u64) {
        self.0.quota_bytes.store(quota_bytes, Ordering::Relaxed);
        self.0.repair_reserve_bytes.store(repair_reserve_bytes, Ordering::Relaxed);
    }

    /// Bytes that may still be put for a purpose.
    pub fn free_bytes(&self, room: Room) -> u64 {
        self.0.limit_bytes(room).saturating_sub(self.usage().used_bytes)
    }

    fn find(&self, id: &BlockId) -> Result<Option<Location>, StoreError> {
        catalog::find(&*self.0.database, id)
    }

    /// What is stored beside these bytes of the block; other bytes than the block's are refused.
    fn compare(&self, id: &BlockId, block: &Bytes) -> Result<Found, StoreError> {
        match self.read(id) {
            Ok(Some(stored)) if stored == *block => Ok(Found::Same),
            Ok(Some(_)) => Err(StoreError::Mismatch { expected: *id, actual: BlockId::of(block) }),
            Ok(None) => Ok(Found::Nothing),
            // Acknowledging a damaged copy would promise what cannot be read: it is written anew.
            Err(StoreError::Corrupt { .. }) => Ok(Found::Damaged),
            Err(error) => Err(error),
        }
    }

    /// What [`Store::add_references`] answers, if nothing has to be written for it.
    fn known_references(&self, ids: &[BlockId], references: &[Reference]) -> Result<Option<Vec<Presence>>, StoreError> {
        if self.0.queue.is_late() {
            return Ok(None);
        }
        for reference in references {
            if self.is_deleted(reference)? {
                return Ok(None);
            }
        }
        let mut presences = Vec::with_capacity(ids.len());
        for id in ids {
            if !self.has(id)? {
                presences.push(Presence::Need);
                continue;
            }
            for reference in references {
                if !self.has_reference(id, reference)? {
                    return Ok(None);
                }
            }
            presences.push(Presence::Have);
        }
        Ok(Some(presences))
    }

    fn refer(&self, ids: &[BlockId], references: &[Reference]) -> Result<Vec<Presence>, StoreError> {
        let op = Op::Refer { references: references.to_vec(), ids: ids.to_vec() };
        // What keeps blocks that are there may use the reserve. Of references, those that are there already cost nothing
        // once this is done.
        let index_bytes = (ids.len() * references.len()) as u64 * catalog::INDEX_BYTES_PER_REFERENCE;
        let _reserved = self.reserve(u64::from(op.pages()) * PAGE_BYTES + index_bytes, Room::Repair)?;
        match self.0.submit(op).wait()? {
            Outcome::Present(present) => {
                let presence = |is_there: bool| if is_there { Presence::Have } else { Presence::Need };
                Ok(present.into_iter().map(presence).collect())
            }
            Outcome::Deleted => Err(StoreError::Deleted { publication: references[0] }),
            Outcome::Stored | Outcome::Had | Outcome::Gone(_) | Outcome::Ignored | Outcome::Done => {
                Err(StoreError::Stopped)
            }
        }
    }

    /// Writes a record of all references of a block: another put was faster, whose record does not name those of this one,
    /// or the record that named the others was damaged. It takes all of them to build the index anew.
    fn log_references(&self, id: &BlockId) -> Result<(), StoreError> {
        for references in self.references(id)?.chunks(MAX_REFERENCES) {
            match self.refer(&[*id], references) {
                Ok(_) | Err(StoreError::Deleted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reserves room under the quota until the guard goes: by then the books have the block.
    fn reserve(&self, needed_bytes: u64, room: Room) -> Result<Reserved<'_>, StoreError> {
        let limit_bytes = self.0.limit_bytes(room);
        let mut reserved = lock(&self.0.reserved_bytes);
        let used_bytes = lock(&self.0.catalog).totals().used_bytes() + *reserved;
        if used_bytes.saturating_add(needed_bytes) > limit_bytes {
            return Err(StoreError::Full { needed_bytes, used_bytes, limit_bytes, room });
        }
        *reserved += needed_bytes;
        Ok(Reserved { reserved: &self.0.reserved_bytes, bytes: needed_bytes })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.0.path).field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Inner {
    fn submit(&self, op: Op) -> writer::Pending {
        self.queue.submit(op, &[])
    }

    fn submit_damage(&self, id: BlockId, location: Location, is_damaged: bool) -> writer::Pending {
        self.submit(Op::Damage { id, place: location.place, is_damaged })
    }

    /// Reads and verifies a block, or says what is wrong with it.
    fn read_at(&self, id: &BlockId, location: Location) -> Result<Bytes, ReadError> {
        let block = self.read_unverified_at(location)?;
        match BlockId::of(&block) {
            actual if actual == *id => Ok(block),
            actual => Err(ReadError::Damaged(format!("its bytes have the id {actual}"))),
        }
    }

    fn read_unverified_at(&self, location: Location) -> Result<Bytes, ReadError> {
        let Location { place, body_at, length, .. } = location;
        let read = || self.segments.read_block(place.segment, body_at.into(), length as usize);
        // A failure may pass: it tries twice before it says anything of the disk.
        match read().or_else(|_| read()) {
            Ok(block) => Ok(block),
            // The process, not the disk: the block may be whole.
            Err(error) if is_want(&error) => {
                Err(ReadError::Failed(StoreError::folder(&self.segments.path(place.segment), error)))
            }
            Err(error) => Err(ReadError::Damaged(format!("segment {}: {error}", place.segment))),
        }
    }

    fn limit_bytes(&self, room: Room) -> u64 {
        let quota_bytes = self.quota_bytes.load(Ordering::Relaxed);
        match room {
            Room::Upload => quota_bytes.saturating_sub(self.repair_reserve_bytes.load(Ordering::Relaxed)),
            Room::Repair => quota_bytes,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the block store's writer has panicked");
        }
        let ended = self.queue.finish_log().and_then(|()| self.database.flush(true));
        if let Err(error) = ended {
            tracing::warn!(%error, "the index is not flushed; the next start reads the last records again");
        }
    }
}

/// Opens the index. One that was being built when the process ended is thrown away, to be built from the beginning.
fn open_index(path: &Path, config: &StoreConfig) -> Result<Database, StoreError> {
    let database = Database::open(path, config)?;
    if !Catalog::is_unfinished(&database)? {
        return Ok(database);
    }
    drop(database);
    std::fs::remove_dir_all(path).map_err(|source| StoreError::folder(path, source))?;
    segments::make_folder(path)?;
    Database::open(path, config)
}

/// What a put finds in the place of its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Damaged,
    Same,
}

/// Why the bytes at a location are not a block.
enum ReadError {
    /// They are other bytes, or the disk cannot read them.
    Damaged(String),
    /// They were not read, which says nothing of them.
    Failed(StoreError),
}

/// Room that a put under way will need.
struct Reserved<'a> {
    reserved: &'a Mutex<u64>,
    bytes: u64,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        *lock(self.reserved) -= self.bytes;
    }
}

fn check_references(references: &[Reference]) -> Result<(), StoreError> {
    if (1..=MAX_REFERENCES).contains(&references.len()) {
        return Ok(());
    }
    Err(StoreError::References { count: references.len(), most: MAX_REFERENCES })
}

/// What a block with so many references takes under the quota.
fn bytes_on_disk(length: usize, references: usize) -> u64 {
    let record = record::pages(HEADER_BYTES + references * REFERENCE_BYTES + length);
    u64::from(record) * PAGE_BYTES
        + catalog::INDEX_BYTES_PER_BLOCK
        + references as u64 * catalog::INDEX_BYTES_PER_REFERENCE
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Upload => "uploads",
            Self::Repair => "repair",
        })
    }
}
