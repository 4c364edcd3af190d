//! The durable block store of a node and its cache of verified blocks (`docs/store.md`).
//!
//! The calls block: a caller inside an async runtime uses `spawn_blocking`. What a block is, and the index format, is
//! in the crate `chunkstore-block`.

mod cache;
mod processor;
mod store;

pub use cache::{Cache, CacheStats};
pub use processor::{ProcessorError, check_processor};
pub use store::{
    BackupProgress, Changed, Collected, Deletion, MAX_REFERENCES, Presence, PutOutcome, Reclaimed, Room, Scrubbed,
    Store, StoreConfig, StoreError, StoredBlock, Usage, restore,
};
