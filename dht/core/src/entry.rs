//! What nodes tell each other of the blocks they have (`docs/protocol.md` §10.3).

use crate::{Position, Prefix, prefix::CHILDREN};
use chunkstore_block::{BlockId, Reference};
use sha2::{Digest as _, Sha256};

/// The most entries of an answer to `digest`; above it, the answer is sixteen buckets.
pub const MAX_DIGEST_ENTRIES: usize = 256;

/// The first 16 bytes of SHA-256(`"imira/1/entry"` || block id || its references): equal on two nodes that have the same
/// block for the same publications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryDigest([u8; 16]);

impl EntryDigest {
    /// Of a block with these references, which must be ascending.
    #[must_use]
    pub fn of(id: &BlockId, references: &[Reference]) -> Self {
        debug_assert!(references.is_sorted(), "references are ascending");
        let mut hash = Sha256::new();
        hash.update(b"imira/1/entry");
        hash.update(id.as_bytes());
        for reference in references {
            hash.update(reference.platform.as_bytes());
            hash.update(reference.publication.as_bytes());
        }
        let whole: [u8; 32] = hash.finalize().into();
        Self(std::array::from_fn(|i| whole[i]))
    }

    /// From the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) const fn as_number(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

/// A block that a node has, undamaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which block.
    pub id: BlockId,
    /// Its bytes, at most 1,048,576.
    pub length: u32,
    /// Of the block and its references there.
    pub digest: EntryDigest,
}

impl Entry {
    /// Where the block stands in the keyspace.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::of_block(&self.id)
    }
}

/// How many entries, and the sum of their digests modulo 2^128: equal sets have equal buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Number of entries.
    pub count: u32,
    /// Sum of their digests, read as big-endian numbers, modulo 2^128.
    pub sum: u128,
}

impl Bucket {
    pub(crate) const fn add(&mut self, entry: &Entry) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.wrapping_add(entry.digest.as_number());
    }
}

/// The answer to `digest`: a set of entries within a prefix, in full or in sixteen sums.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "lives for one call; few are under way")]
pub enum Digest {
    /// For each continuation of the prefix by four bits.
    Children([Bucket; CHILDREN]),
    /// All of them, in ascending order of position, at most 256.
    Entries(Vec<Entry>),
}

impl Digest {
    /// Summarizes `entries`, which are in ascending order of position and all in `prefix`.
    pub(crate) fn of<'a>(prefix: &Prefix, entries: impl Iterator<Item = (&'a Position, &'a Entry)>) -> Self {
        let mut buckets = [Bucket::default(); CHILDREN];
        let mut listed = Vec::new();
        // Fewer than four bits are left below very long prefixes: there, a list is short enough in any case.
        let dividable = prefix.children().is_some();
        let mut count = 0_usize;
        for (position, entry) in entries {
            count += 1;
            if count <= MAX_DIGEST_ENTRIES {
                listed.push(*entry);
            }
            if dividable {
                buckets[prefix.child_of(position)].add(entry);
            }
        }
        if dividable && count > MAX_DIGEST_ENTRIES { Self::Children(buckets) } else { Self::Entries(listed) }
    }
}
