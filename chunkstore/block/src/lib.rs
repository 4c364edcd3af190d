//! Block ids and the index block format, version 1 (`docs/index-format.md`).
//!
//! Pure: no IO, no clock, no randomness, no hash maps, and nothing that compiles RocksDB, so that the simulator,
//! the fuzzers and every node run the same code. The durable store is the crate `chunkstore`.

mod block;
mod id;
mod index;

pub use block::Block;
pub use id::{BlockId, ContentKey, IdError, MAX_BLOCK_BYTES, NetworkId, PlatformFingerprint, PublicationId, Reference};
pub use index::{
    Encoded, EncodedBlock, File, Fragment, Fragments, Index, IndexBuilder, IndexError, Limits, LoadedIndex, Loader,
    MAX_FILES, MAX_FRAGMENTS, MAX_LANGUAGE_BYTES, MAX_LEVEL, MAX_MEDIA_TYPE_BYTES, MAX_NAME_BYTES, MAX_PATH_BYTES,
    MAX_RENDITIONS, MAX_RUNS, PageRef, Part, Rendition, RenditionKind, Run, check_media_type, check_path, encode,
};
