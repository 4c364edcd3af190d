use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use chunkstore_block::{BlockId, MAX_BLOCK_BYTES, Reference};

use super::Room;

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
    /// A block or a reference without a publication, or with more than one record can name.
    #[error("a block is kept for 1 to {most} publications at a time, not {count}")]
    References {
        /// How many were given.
        count: usize,
        /// The most that are taken in one call.
        most: usize,
    },
    /// All publications that the block is for have been deleted.
    #[error("publication {} of platform {} was deleted", publication.publication, publication.platform)]
    Deleted {
        /// One of them.
        publication: Reference,
    },
    /// A deletion whose order is longer than 4,096 bytes.
    #[error("the order to delete has {length} bytes; at most {most} are kept")]
    Order {
        /// Its length in bytes.
        length: usize,
        /// The longest that is kept.
        most: usize,
    },
    /// The quota does not leave room for the block.
    #[error(
        "the store is full: {used_bytes} of {limit_bytes} bytes for {room} are used and {needed_bytes} more are needed"
    )]
    Full {
        /// What the block takes, its share of the index included.
        needed_bytes: u64,
        /// What is used, blocks that are being stored included.
        used_bytes: u64,
        /// The quota, less the reserve for repair if this is not one.
        limit_bytes: u64,
        /// What the room was asked for.
        room: Room,
    },
    /// The disk is full, though the quota is not reached.
    #[error("the disk of {path} is full: {source}; make room on it or lower the node's quota")]
    DiskFull {
        /// A folder or file of the store.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
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
    #[error("{path} holds a block store of format {found}; this program reads format {expected} and converts format 1")]
    Format {
        /// The store's folder.
        path: PathBuf,
        /// The format found, or "unknown".
        found: String,
        /// The format that this program reads.
        expected: u32,
    },
    /// A folder cannot take a backup or a restored store.
    #[error("{path} cannot take the copy: {reason}")]
    Target {
        /// The folder.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// A backup or restoration was broken off by whoever watched it.
    #[error("the copy was broken off; begin it again, and it goes on with what is missing")]
    Interrupted,
    /// A file or folder cannot be read or written.
    #[error("{path}: {source}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The index fails.
    #[error(
        "the block store's index: {0}. If it is damaged, stop the node, move the folder `index` of the store away and \
         start the node: it builds the index again from the segments"
    )]
    Database(#[from] rocksdb::Error),
    /// The index holds something that this program never writes.
    #[error(
        "the block store's table {table} holds an entry that is not one: {entry}. Stop the node, move the folder `index` \
         of the store away and start the node: it builds the index again from the segments"
    )]
    Entry {
        /// The table.
        table: &'static str,
        /// The entry, in hexadecimal digits.
        entry: String,
    },
    /// The thread that writes has ended, because the store is being closed or after an error that the log names.
    #[error("the block store does not write any more; restart the node")]
    Stopped,
}

impl StoreError {
    /// A file or folder cannot be read or written: because the disk is full, or for another reason.
    pub(super) fn folder(path: &Path, source: impl Into<std::io::Error>) -> Self {
        let (path, source) = (path.to_owned(), source.into());
        if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            return Self::DiskFull { path, source };
        }
        Self::Folder { path, source }
    }
}
