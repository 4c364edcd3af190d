//! The tables that the catalog is kept in: what it needs of them, and RocksDB.

use std::io;
use std::path::Path;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, Direction, ErrorKind, FlushOptions,
    IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};
use rustix::fs::statvfs;
use rustix::io::Errno;

use super::{StoreConfig, StoreError};

/// A table of the index (`docs/store.md`, "Index").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Blocks,
    References,
    Publications,
    Tombstones,
    Orders,
    Authorities,
    Layout,
    Journal,
    Dead,
    Meta,
}

/// One write into a table: a value, or none to delete the key.
pub(super) type Change = (Table, Vec<u8>, Option<Vec<u8>>);
/// A key and its value.
pub(super) type Entry = (Box<[u8]>, Box<[u8]>);

/// Ordered tables of bytes, in which several changes are made at once or not at all.
pub(super) trait Index {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Up to `limit` entries in the order of their keys that are not below `from` and begin with `prefix`.
    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError>;
    fn write(&self, changes: Vec<Change>) -> Result<(), StoreError>;
}

/// The index of a store on disk.
pub(super) struct Database(DB);

/// Level 1, which is rewritten for nearly every flush since the keys are random: small, so that this costs little.
const LEVEL_1_BYTES: u64 = 16 << 20;
const TABLE_FILE_BYTES: u64 = 4 << 20;
/// RocksDB's own log of what it does: so many files of so many bytes.
const LOG_FILES: usize = 2;
const LOG_FILE_BYTES: usize = 1 << 20;
/// Memory of a table comes in pieces of one part in so many of all: else eight nearly empty tables would count as full.
const PIECES: usize = 64;
/// What a flush writes besides the tables' entries: filters, indexes, footers, the manifest.
const FLUSH_MORE_BYTES: u64 = 1 << 20;
/// Files of a table that wait to be compacted, from which on RocksDB makes writers wait. They never do while there is
/// room; on a full disk a writer that waits would hold up everything, deletions too, and those are what makes room.
const WAITING_FILES: i32 = 10_000;
/// The same of memory that waits to be flushed: what changes during a flush that then fails must not fill it.
const WAITING_BUFFERS: i32 = 4;

impl Table {
    pub(super) const ALL: [Self; 10] = [
        Self::Blocks,
        Self::References,
        Self::Publications,
        Self::Tombstones,
        Self::Orders,
        Self::Authorities,
        Self::Layout,
        Self::Journal,
        Self::Dead,
        Self::Meta,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::References => "references",
            Self::Publications => "publications",
            Self::Tombstones => "tombstones",
            Self::Orders => "orders",
            Self::Authorities => "authorities",
            Self::Layout => "layout",
            Self::Journal => "journal",
            Self::Dead => "dead",
            Self::Meta => "meta",
        }
    }
}

impl Database {
    pub(super) fn open(path: &Path, config: &StoreConfig) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let tables = Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), table_options(config, &cache)));
        let opened = DB::open_cf_descriptors(&options(config), path, tables);
        opened.map(Self).map_err(|error| failure(path, error))
    }

    /// Makes durable what was applied so far, in all tables up to the same point. Returns at once unless told to wait.
    ///
    /// Does not try when the disk has no room for it: after a flush that fails RocksDB takes no changes until it has
    /// recovered.
    pub(super) fn flush(&self, wait: bool) -> Result<(), StoreError> {
        if !self.has_room_to_flush() {
            return Err(disk_full(self.0.path(), Errno::NOSPC.into()));
        }
        let mut options = FlushOptions::new();
        options.set_wait(wait);
        let tables = Table::ALL.map(|table| self.table(table));
        self.0.flush_cfs_opt(&tables.each_ref(), &options).map_err(|error| self.failure(error))
    }

    fn has_room_to_flush(&self) -> bool {
        let memory = |table| self.0.property_int_value_cf(self.table(table), "rocksdb.cur-size-all-mem-tables");
        let bytes: u64 = Table::ALL.into_iter().filter_map(|table| memory(table).ok().flatten()).sum();
        // Where the system does not say what is free, the flush is tried.
        statvfs(self.0.path())
            .map_or(true, |disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes + FLUSH_MORE_BYTES)
    }

    fn failure(&self, error: rocksdb::Error) -> StoreError {
        failure(self.0.path(), error)
    }

    /// Writes the index as it is now into a new folder, sharing files where the file system can.
    pub(super) fn checkpoint(&self, folder: &Path) -> Result<(), StoreError> {
        let written = Checkpoint::new(&self.0).and_then(|checkpoint| checkpoint.create_checkpoint(folder));
        written.map_err(|error| self.failure(error))
    }

    #[expect(clippy::expect_used, reason = "`open` makes every table")]
    fn table(&self, table: Table) -> &rocksdb::ColumnFamily {
        self.0.cf_handle(table.name()).expect("every table is made when the database is opened")
    }
}

impl Index for Database {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get_cf(self.table(table), key)?)
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut options = ReadOptions::default();
        if let Some(end) = successor(prefix) {
            options.set_iterate_upper_bound(end); // else it would read on through what was deleted behind
        }
        let mode = IteratorMode::From(from.max(prefix), Direction::Forward);
        let entries = self.0.iterator_cf_opt(self.table(table), options, mode);
        Ok(entries.take(limit).collect::<Result<_, _>>()?)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for (table, key, value) in changes {
            match value {
                Some(value) => batch.put_cf(self.table(table), key, value),
                None => batch.delete_cf(self.table(table), key),
            }
        }
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true); // the segments are the log
        self.0.write_opt(batch, &unlogged).map_err(|error| self.failure(error))
    }
}

/// A full disk is not for the operator to mend as a damaged index is. RocksDB tells it only in words: its own of the code,
/// and the system's.
fn failure(index: &Path, error: rocksdb::Error) -> StoreError {
    if error.kind() == ErrorKind::IOError && error.as_ref().contains("No space left on device") {
        return disk_full(index, io::Error::new(io::ErrorKind::StorageFull, error.into_string()));
    }
    error.into()
}

fn disk_full(index: &Path, source: io::Error) -> StoreError {
    StoreError::DiskFull { path: index.parent().unwrap_or(index).to_owned(), source }
}

/// The least key that is above all keys with this prefix.
pub(super) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// What each of these costs is in `docs/store.md`.
fn options(config: &StoreConfig) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(config.write_buffer_bytes);
    options.set_max_open_files(i32::try_from(config.max_open_files / 2).unwrap_or(i32::MAX));
    options.set_keep_log_file_num(LOG_FILES);
    options.set_max_log_file_size(LOG_FILE_BYTES);
    options
}

fn table_options(config: &StoreConfig, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true); // else they would be outside the bounded memory
    blocks.set_bloom_filter(10.0, false); // 1 % false positives (RocksDB wiki, "RocksDB Bloom Filter")
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::None); // hashes do not compress
    // After a full disk RocksDB goes on when so much is free.
    options.set_write_buffer_size(config.write_buffer_bytes);
    options.set_max_write_buffer_number(WAITING_BUFFERS);
    options.set_arena_block_size(config.write_buffer_bytes / PIECES);
    options.set_level_zero_slowdown_writes_trigger(WAITING_FILES);
    options.set_level_zero_stop_writes_trigger(WAITING_FILES);
    options.set_max_bytes_for_level_base(LEVEL_1_BYTES);
    options.set_target_file_size_base(TABLE_FILE_BYTES);
    options
}

/// Tables in memory, for tests of the catalog. A clone is what a flush writes.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct MemoryIndex(std::sync::Mutex<MemoryTables>);

#[cfg(test)]
type MemoryTables = std::collections::BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[cfg(test)]
impl MemoryIndex {
    fn lock(&self) -> std::sync::MutexGuard<'_, MemoryTables> {
        self.0.lock().unwrap()
    }
}

#[cfg(test)]
impl Clone for MemoryIndex {
    fn clone(&self) -> Self {
        Self(self.lock().clone().into())
    }
}

#[cfg(test)]
impl Index for MemoryIndex {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Entry>, StoreError> {
        let entries = self.lock();
        let from = (table, from.max(prefix).to_vec());
        let found = entries.range(from..).take_while(|((at, key), _)| *at == table && key.starts_with(prefix));
        Ok(found.take(limit).map(|((_, key), value)| (key.clone().into(), value.clone().into())).collect())
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut entries = self.lock();
        for (table, key, value) in changes {
            match value {
                Some(value) => drop(entries.insert((table, key), value)),
                None => drop(entries.remove(&(table, key))),
            }
        }
        Ok(())
    }
}
