//! The store from outside, on a real disk.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy's own exception ends at helpers of tests

mod concurrency;
mod corruption;
mod kill;
mod listing;
mod opening;
mod quota;
#[path = "../worker/mod.rs"]
mod worker;

use bytes::Bytes;
use chunkstore::{Store, StoreConfig};
use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Does nothing when run as a test.
#[test]
fn child_does_its_part() {
    worker::do_part();
}

/// A store in a folder of its own, with room for 64 MiB.
fn new_store() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    (folder, store)
}

fn open(folder: &TempDir) -> Store {
    Store::open(folder.path(), &StoreConfig::new(64 * MIB)).unwrap()
}

/// A block of so many bytes that depends on the seed and does not compress.
fn block(seed: u64, length: usize) -> (BlockId, Bytes) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Bytes = (0..length)
        .map(|_| {
            // xorshift64 (Marsaglia 2003)
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    (BlockId::of(&bytes), bytes)
}

fn reference(number: u8) -> Reference {
    Reference {
        platform: PlatformFingerprint::from_bytes([number / 16; 32]),
        publication: PublicationId::from_bytes([number; 16]),
    }
}
