use std::path::PathBuf;

use chunkstore_block::{BlockId, MAX_BLOCK_BYTES};

/// Why the store refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A block of no bytes, or of more than 1 MiB.
    #[error("a block has 1 to {MAX_BLOCK_BYTES} bytes, not {length}")]
    Length {
        /// Its length in bytes.
        length: usize,
    },
    /// The bytes are not the block that they are said to be.
    #[error("the bytes have the id {actual}, not {expected}")]
    Mismatch {
        /// The id given.
        expected: BlockId,
        /// SHA-256 of the bytes.
        actual: BlockId,
    },
    /// The quota does not leave room for the block.
    #[error("the store is full: {used_bytes} of {quota_bytes} bytes are used and {needed_bytes} more are needed")]
    Full {
        /// Length of the block.
        needed_bytes: u64,
        /// Bytes of blocks stored and being stored.
        used_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// A stored block is damaged. Its bytes are not given to anyone.
    #[error("block {id} is damaged on disk: {reason}")]
    Corrupt {
        /// The block.
        id: BlockId,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the store open, or this one has it open twice.
    #[error("another imira-node uses {path}; stop it, or give this one a folder of its own")]
    InUse {
        /// The store's folder.
        path: PathBuf,
    },
    /// The folder was written by another version of this program, or is not a block store.
    #[error("{path} holds a block store of format {found}; this program reads format {expected}")]
    Format {
        /// The store's folder.
        path: PathBuf,
        /// The format found, or "unknown".
        found: String,
        /// The format that this program reads.
        expected: u32,
    },
    /// The folder cannot be made or locked.
    #[error("{path}: {source}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The database fails, for example because the disk is full.
    #[error("the block store's database: {0}")]
    Database(#[from] rocksdb::Error),
    /// The database holds something that this program never writes.
    #[error("the block store's table {table} holds an entry that is not one: {entry}")]
    Entry {
        /// The column family.
        table: &'static str,
        /// The entry, in hexadecimal digits.
        entry: String,
    },
}
