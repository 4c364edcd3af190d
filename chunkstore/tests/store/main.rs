//! The store from outside, on a real disk.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy's own exception ends at helpers of tests

mod authorities;
mod backup;
mod concurrency;
mod corruption;
mod deletion;
mod kill;
mod listing;
mod migration;
mod opening;
mod quota;
mod reclaiming;
mod replay;
mod scrub;
#[path = "../worker/mod.rs"]
mod worker;

use bytes::Bytes;
use chunkstore::{PutOutcome, Room, Store, StoreConfig, StoreError};
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

fn put(store: &Store, id: BlockId, bytes: &Bytes, references: &[Reference]) -> Result<PutOutcome, StoreError> {
    store.put(id, bytes.clone(), references, Room::Upload)
}

/// Stores a block of so many bytes for each seed, with reference 1.
fn fill(store: &Store, seeds: std::ops::Range<u64>, length: usize) -> Vec<(BlockId, Bytes)> {
    let blocks: Vec<_> = seeds.map(|seed| block(seed, length)).collect();
    for (id, bytes) in &blocks {
        put(store, *id, bytes, &[reference(1)]).unwrap();
    }
    blocks
}

/// What a block of so many bytes with so many references takes under the quota (`docs/store.md`).
fn used_by(length: u64, references: u64) -> u64 {
    (76 + 48 * references + length).div_ceil(4_096) * 4_096 + 256 + 224 * references
}

/// Does all that `reclaim` can do.
fn reclaim_all(store: &Store) {
    while !store.reclaim(u64::MAX).unwrap().is_done {}
}

/// The segment files of a closed or open store, in their order.
fn segments(folder: &TempDir) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder.path().join("segments")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Changes a bit in the middle of where `body` lies.
fn flip_a_bit(folder: &TempDir, body: &Bytes) {
    let mut flipped = 0;
    for path in segments(folder) {
        let mut bytes = std::fs::read(&path).unwrap();
        let probe = &body[..body.len().min(64)];
        if let Some(start) = bytes.windows(probe.len()).position(|window| window == probe) {
            bytes[start + body.len() / 2] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1, "the body lies in exactly one segment");
}
