//! Opens RocksDB: its tables, its options, and the check that the folder is ours.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, IteratorMode, Options, WriteOptions,
};

use super::{StoreConfig, StoreError};

/// Block id -> the block's bytes, in blob files.
pub(super) const BLOCKS: &str = "blocks";
/// Block id || platform fingerprint || publication id -> nothing.
pub(super) const REFERENCES: &str = "references";
/// Block id -> length of the block, 4 bytes big-endian. A block is stored if and only if it is here.
pub(super) const LENGTHS: &str = "lengths";
/// The version of the format.
const META: &str = "meta";

const FORMAT_KEY: &[u8] = b"format";
/// Format 1 is `docs/store.md`.
const FORMAT: u32 = 1;
const LOCK_FILE: &str = "imira.lock";

/// Smaller values stay in the table files, where they cost no read of their own. One disk sector group.
const MIN_BLOB_BYTES: u64 = 4_096;
/// The unit in which space comes back after blocks are removed. RocksDB's default.
const BLOB_FILE_BYTES: u64 = 256 << 20;
/// Memory of a table that holds keys only, before it is flushed.
const SMALL_WRITE_BUFFER_BYTES: usize = 4 << 20;
/// One buffer that is filled while another is flushed.
const WRITE_BUFFERS: i32 = 2;
/// RocksDB's own log of what it does: so many files of so many bytes.
const LOG_FILES: usize = 4;
const LOG_FILE_BYTES: usize = 4 << 20;

/// An open database and the lock that keeps others out. Fields drop in this order.
pub(super) struct Database {
    pub(super) db: DB,
    _lock: File,
}

impl Database {
    /// Opens the folder, or makes it.
    pub(super) fn open(path: &Path, config: &StoreConfig) -> Result<Self, StoreError> {
        fs::create_dir_all(path).map_err(|source| StoreError::Folder { path: path.to_owned(), source })?;
        let lock = lock(path)?;
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let db = DB::open_cf_descriptors(&options(config), path, tables(path, config, &cache))?;
        check_format(&db, path)?;
        Ok(Self { db, _lock: lock })
    }

    /// A table by its name.
    #[expect(clippy::expect_used, reason = "`open` creates every table that this crate names")]
    pub(super) fn table(&self, name: &str) -> &rocksdb::ColumnFamily {
        self.db.cf_handle(name).expect("every table is created when the database is opened")
    }
}

/// An acknowledged write survives a power cut.
pub(super) fn durable() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// Our own lock, because RocksDB tells a lock that is held from other failures only by the wording of its message.
fn lock(path: &Path) -> Result<File, StoreError> {
    let file_path = path.join(LOCK_FILE);
    let folder = |source| StoreError::Folder { path: file_path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&file_path).map_err(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}

/// What each of these costs is in `docs/store.md`.
fn options(config: &StoreConfig) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_allow_mmap_reads(true);
    options.set_max_open_files(config.max_open_files);
    options.set_max_total_wal_size(4 * config.write_buffer_bytes as u64);
    options.set_keep_log_file_num(LOG_FILES);
    options.set_max_log_file_size(LOG_FILE_BYTES);
    options
}

/// Our tables, and any that a later version of this program may have made, since RocksDB opens all or nothing: so the
/// format is what is refused, by its number.
fn tables(path: &Path, config: &StoreConfig, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let ours = [
        (BLOCKS, block_table(config, cache)),
        (REFERENCES, key_table(cache)),
        (LENGTHS, key_table(cache)),
        (META, key_table(cache)),
    ];
    let mut tables: Vec<_> =
        ours.into_iter().map(|(name, options)| ColumnFamilyDescriptor::new(name, options)).collect();
    let found = DB::list_cf(&Options::default(), path).unwrap_or_default(); // a new folder has none
    let others = found.iter().filter(|name| ![BLOCKS, REFERENCES, LENGTHS, META].contains(&name.as_str()));
    tables.extend(others.map(|name| ColumnFamilyDescriptor::new(name, key_table(cache))));
    tables
}

fn block_table(config: &StoreConfig, cache: &Cache) -> Options {
    let mut options = key_table(cache);
    options.set_write_buffer_size(config.write_buffer_bytes);
    options.set_enable_blob_files(true);
    options.set_min_blob_size(MIN_BLOB_BYTES);
    options.set_blob_file_size(BLOB_FILE_BYTES);
    options.set_blob_compression_type(DBCompressionType::None); // media does not compress
    options.set_enable_blob_gc(true);
    options
}

fn key_table(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true); // else they would be outside the bounded memory
    table.set_bloom_filter(10.0, false); // 1 % false positives (RocksDB wiki, "RocksDB Bloom Filter")
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::None); // hashes do not compress
    options.set_write_buffer_size(SMALL_WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options
}

/// Marks a new database with our format and refuses every other.
fn check_format(db: &DB, path: &Path) -> Result<(), StoreError> {
    let refuse = |found| Err(StoreError::Format { path: path.to_owned(), found, expected: FORMAT });
    let Some(meta) = db.cf_handle(META) else { return refuse("unknown".to_owned()) };
    match db.get_cf(meta, FORMAT_KEY)? {
        Some(found) if found == FORMAT.to_be_bytes() => Ok(()),
        Some(found) => refuse(format_name(&found)),
        // A process that was killed here before it could write the format has not written anything else either.
        None if is_empty(db)? => {
            let mut batch = rocksdb::WriteBatch::default();
            batch.put_cf(meta, FORMAT_KEY, FORMAT.to_be_bytes());
            Ok(db.write_opt(batch, &durable())?)
        }
        None => refuse("unknown".to_owned()),
    }
}

fn format_name(found: &[u8]) -> String {
    <[u8; 4]>::try_from(found).map_or("unknown".to_owned(), |bytes| u32::from_be_bytes(bytes).to_string())
}

fn is_empty(db: &DB) -> Result<bool, StoreError> {
    let Some(lengths) = db.cf_handle(LENGTHS) else { return Ok(true) };
    let mut entries = db.iterator_cf(lengths, IteratorMode::Start).chain(db.iterator(IteratorMode::Start));
    Ok(entries.next().transpose()?.is_none())
}
