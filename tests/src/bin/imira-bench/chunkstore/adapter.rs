//! All that this suite knows of the store's interface.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use chunkstore::{PutOutcome, Room, Store, StoreConfig};
use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};

/// More than any run stores.
const QUOTA_BYTES: u64 = 1 << 40;
/// Every block has one reference, as after the upload of one film.
const REFERENCE: Reference =
    Reference { platform: PlatformFingerprint::from_bytes([7; 32]), publication: PublicationId::from_bytes([9; 16]) };

pub(super) fn open(folder: &Path) -> Result<Store> {
    Ok(Store::open(folder, &StoreConfig::new(QUOTA_BYTES))?)
}

/// Durable when it returns. The block must be new: storing it again would be no measurement.
pub(super) fn put(store: &Store, id: BlockId, body: &Bytes) -> Result<()> {
    let outcome = store.put(id, body.clone(), &[REFERENCE], Room::Upload)?;
    ensure!(outcome == PutOutcome::Stored, "the block {id} was there already");
    Ok(())
}

/// Reads and verifies everything, on one thread; returns how many bytes of blocks that was.
pub(super) fn scrub(store: &Store) -> Result<u64> {
    store.restart_scrub()?;
    let scrubbed = store.scrub(u64::MAX, 1)?;
    ensure!(scrubbed.damaged.is_empty(), "blocks are damaged: {:?}", scrubbed.damaged);
    Ok(scrubbed.bytes)
}

/// The verified body of a block that is stored.
pub(super) fn read(store: &Store, id: &BlockId) -> Result<Bytes> {
    store.read(id)?.with_context(|| format!("the block {id} is gone"))
}
