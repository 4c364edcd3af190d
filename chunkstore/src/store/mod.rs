mod database;
mod error;
mod keys;
mod ledger;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES, Reference};
use rocksdb::{Direction, ErrorKind, IteratorMode, ReadOptions, WriteBatch};

use database::{BLOCKS, Database, LENGTHS, REFERENCES, durable};
use keys::{parse_id, parse_length, parse_reference_key, reference_key};
use ledger::{Ledger, Stock};

pub use error::StoreError;

/// The blocks that this node stores, on disk. Clones share one store; the last one to go closes it.
///
/// **Every call blocks** on the disk: a caller inside an async runtime uses `spawn_blocking`. Calls may be made from
/// any number of threads; those that change the same block wait for each other, others do not.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    database: Database,
    ledger: Ledger,
    quota_bytes: u64,
}

/// How a store is opened. What each knob costs is in `docs/store.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The most bytes of blocks. The disk needs more than that: see `docs/store.md`, "Space".
    pub quota_bytes: u64,
    /// Memory for keys, lengths and references that were read lately; bodies are in the system's page cache.
    pub block_cache_bytes: usize,
    /// Memory in which bodies wait to be written to blob files; there are two such buffers.
    pub write_buffer_bytes: usize,
    /// Open files of the database.
    pub max_open_files: i32,
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
    /// Bytes of blocks, those being written included.
    pub used_bytes: u64,
    /// How many blocks.
    pub blocks: u64,
    /// The most bytes of blocks.
    pub quota_bytes: u64,
}

impl StoreConfig {
    /// A quota, and memory of about 100 MiB.
    pub fn new(quota_bytes: u64) -> Self {
        Self { quota_bytes, block_cache_bytes: 32 << 20, write_buffer_bytes: 32 << 20, max_open_files: 512 }
    }
}

impl Store {
    /// Opens the store in the folder `path`, or makes it. Reads the length of every block once, but no bodies.
    ///
    /// Refuses a folder that another process has open ([`StoreError::InUse`]) or that holds another format.
    pub fn open(path: impl AsRef<Path>, config: &StoreConfig) -> Result<Self, StoreError> {
        let database = Database::open(path.as_ref(), config)?;
        let ledger = Ledger::new(count(&database)?);
        Ok(Self(Arc::new(Inner { database, ledger, quota_bytes: config.quota_bytes })))
    }

    /// Stores a block with its references. When this returns `Ok`, both survive a power cut.
    ///
    /// Refuses, before anything is written: a wrong length, bytes that are not the block `id`, and a block that does
    /// not fit under the quota ([`StoreError::Full`]). A block that is there already needs no room; it is read to be sure,
    /// and written anew if it is damaged.
    pub fn put(&self, id: BlockId, block: &[u8], references: &[Reference]) -> Result<PutOutcome, StoreError> {
        check_block(id, block)?;
        let inner = &*self.0;
        let _claim = inner.ledger.claim(&[id]);
        match self.read(&id) {
            Ok(Some(_)) => {
                self.write_references(&[id], references)?;
                return Ok(PutOutcome::Had);
            }
            Ok(None) => {}
            // The right bytes are at hand: acknowledging the damaged copy would promise what cannot be read.
            Err(StoreError::Corrupt { .. }) => {
                inner.write_block(id, block, references)?;
                return Ok(PutOutcome::Had);
            }
            Err(error) => return Err(error),
        }
        let room = inner.ledger.reserve(block.len() as u64, inner.quota_bytes).map_err(|stock| StoreError::Full {
            needed_bytes: block.len() as u64,
            used_bytes: stock.bytes,
            quota_bytes: inner.quota_bytes,
        })?;
        inner.write_block(id, block, references)?;
        room.keep();
        Ok(PutOutcome::Stored)
    }

    /// Reads a block, or `None` if it is not stored. The bytes have been checked against the id.
    ///
    /// A damaged block is [`StoreError::Corrupt`]; it stays where it is.
    pub fn read(&self, id: &BlockId) -> Result<Option<Bytes>, StoreError> {
        match self.read_unverified(id)? {
            Some(block) => verified(id, block).map(Some),
            None => self.read_again(id),
        }
    }

    /// Whether the block is stored. Does not read its body.
    pub fn has(&self, id: &BlockId) -> Result<bool, StoreError> {
        Ok(self.length(id)?.is_some())
    }

    /// Length of a stored block in bytes. Does not read its body.
    pub fn length(&self, id: &BlockId) -> Result<Option<u32>, StoreError> {
        let database = &self.0.database;
        let length = database.db.get_pinned_cf(database.table(LENGTHS), id.as_bytes())?;
        length.map(|bytes| parse_length(&bytes)).transpose()
    }

    /// Adds all references to each of the blocks that are stored, durably, and says for each id in turn whether it is.
    pub fn add_references(&self, ids: &[BlockId], references: &[Reference]) -> Result<Vec<Presence>, StoreError> {
        let _claim = self.0.ledger.claim(ids);
        let mut presences = Vec::with_capacity(ids.len());
        let mut stored = Vec::new();
        for id in ids {
            let presence = if self.has(id)? { Presence::Have } else { Presence::Need };
            if presence == Presence::Have {
                stored.push(*id);
            }
            presences.push(presence);
        }
        self.write_references(&stored, references)?;
        Ok(presences)
    }

    /// The references of a block, in ascending order; none if it is not stored.
    pub fn references(&self, id: &BlockId) -> Result<Vec<Reference>, StoreError> {
        let database = &self.0.database;
        let from = IteratorMode::From(id.as_bytes(), Direction::Forward);
        let mut references = Vec::new();
        for entry in database.db.iterator_cf(database.table(REFERENCES), from) {
            let (key, _) = entry?;
            if !key.starts_with(id.as_bytes()) {
                break;
            }
            references.push(parse_reference_key(&key)?);
        }
        Ok(references)
    }

    /// Up to `limit` stored blocks in ascending order of id, those above `after`. Fewer than `limit` are the last.
    ///
    /// It is no snapshot: blocks that come or go between two calls are shown or not, as it happens.
    pub fn list(&self, after: Option<BlockId>, limit: usize) -> Result<Vec<StoredBlock>, StoreError> {
        let database = &self.0.database;
        let from = match &after {
            Some(after) => IteratorMode::From(after.as_bytes(), Direction::Forward),
            None => IteratorMode::Start,
        };
        let entries = database.db.iterator_cf(database.table(LENGTHS), from);
        let is_after = |key: &[u8]| after.is_none_or(|after| key > after.as_bytes().as_slice());
        entries
            .filter(|entry| entry.as_ref().map_or(true, |(key, _)| is_after(key)))
            .take(limit)
            .map(|entry| {
                let (key, length) = entry?;
                let id = parse_id(&key)?;
                Ok(StoredBlock { id, length: parse_length(&length)?, references: self.references(&id)? })
            })
            .collect()
    }

    /// Removes a block with its references, durably. `false` if it was not stored.
    ///
    /// The quota has its room at once, the disk when RocksDB next collects the blob file (`docs/store.md`, "Space").
    pub fn remove(&self, id: &BlockId) -> Result<bool, StoreError> {
        let inner = &*self.0;
        let _claim = inner.ledger.claim(&[*id]);
        let database = &inner.database;
        let Some(length) = database.db.get_pinned_cf(database.table(LENGTHS), id.as_bytes())? else {
            return Ok(false);
        };
        let length = parse_length(&length)?;
        let mut batch = WriteBatch::default();
        batch.delete_cf(database.table(BLOCKS), id.as_bytes());
        batch.delete_cf(database.table(LENGTHS), id.as_bytes());
        for reference in self.references(id)? {
            batch.delete_cf(database.table(REFERENCES), reference_key(id, &reference));
        }
        database.db.write_opt(batch, &durable())?;
        inner.ledger.remove(length.into());
        Ok(true)
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        let Stock { bytes, blocks } = self.0.ledger.stock();
        Usage { used_bytes: bytes, blocks, quota_bytes: self.0.quota_bytes }
    }

    fn read_unverified(&self, id: &BlockId) -> Result<Option<Bytes>, StoreError> {
        let database = &self.0.database;
        match database.db.get_pinned_cf_opt(database.table(BLOCKS), id.as_bytes(), &unchecked()) {
            Ok(block) => Ok(block.map(|block| Bytes::copy_from_slice(&block))),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                Err(StoreError::Corrupt { id: *id, reason: error.to_string() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Looks for a block that was not found once more, while nobody can put or remove it: then a block that the store
    /// should have and has no bytes of is damaged.
    fn read_again(&self, id: &BlockId) -> Result<Option<Bytes>, StoreError> {
        if !self.has(id)? {
            return Ok(None);
        }
        let _claim = self.0.ledger.claim(&[*id]);
        match self.read_unverified(id)? {
            Some(block) => verified(id, block).map(Some),
            None if self.has(id)? => Err(StoreError::Corrupt { id: *id, reason: "its bytes are gone".to_owned() }),
            None => Ok(None),
        }
    }

    /// Writes those of the references that are not there yet, in one durable write. The ids are claimed and stored.
    fn write_references(&self, ids: &[BlockId], references: &[Reference]) -> Result<(), StoreError> {
        let database = &self.0.database;
        let table = database.table(REFERENCES);
        let mut batch = WriteBatch::default();
        for id in ids {
            for reference in references {
                let key = reference_key(id, reference);
                if database.db.get_pinned_cf(table, key)?.is_none() {
                    batch.put_cf(table, key, []);
                }
            }
        }
        if !batch.is_empty() {
            database.db.write_opt(batch, &durable())?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("usage", &self.usage()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Body, length and references come together or not at all.
    fn write_block(&self, id: BlockId, block: &[u8], references: &[Reference]) -> Result<(), StoreError> {
        let length = block.len() as u32; // at most MAX_BLOCK_BYTES
        let mut batch = WriteBatch::default();
        batch.put_cf(self.database.table(BLOCKS), id.as_bytes(), block);
        batch.put_cf(self.database.table(LENGTHS), id.as_bytes(), length.to_be_bytes());
        for reference in references {
            batch.put_cf(self.database.table(REFERENCES), reference_key(&id, reference), []);
        }
        Ok(self.database.db.write_opt(batch, &durable())?)
    }
}

fn check_block(id: BlockId, block: &[u8]) -> Result<(), StoreError> {
    if !(1..=MAX_BLOCK_BYTES).contains(&block.len()) {
        return Err(StoreError::Length { length: block.len() });
    }
    match BlockId::of(block) {
        actual if actual == id => Ok(()),
        actual => Err(StoreError::Mismatch { expected: id, actual }),
    }
}

fn verified(id: &BlockId, block: Bytes) -> Result<Bytes, StoreError> {
    match BlockId::of(&block) {
        actual if actual == *id => Ok(block),
        actual => Err(StoreError::Corrupt { id: *id, reason: format!("its bytes have the id {actual}") }),
    }
}

/// Without RocksDB's checksums: SHA-256 of the body checks more, and two checks cost twice (`docs/store.md`).
fn unchecked() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(false);
    options
}

/// Adds up the lengths: 36 bytes for each block and no bodies.
fn count(database: &Database) -> Result<Stock, StoreError> {
    let mut stock = Stock::default();
    for entry in database.db.iterator_cf(database.table(LENGTHS), IteratorMode::Start) {
        let (_, length) = entry?;
        stock.blocks += 1;
        stock.bytes += u64::from(parse_length(&length)?);
    }
    Ok(stock)
}
