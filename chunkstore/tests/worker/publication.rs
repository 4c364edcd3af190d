//! Publications by number.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use chunkstore::Deletion;
use chunkstore_block::{PlatformFingerprint, PublicationId, Reference};

use super::chance::Chance;

/// Why a block is kept. Numbers below 256 are never deleted; the others are used by one writer each, and never again
/// after their deletion has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Publication(u64);

const PERMANENT: u64 = 256;
const PLATFORMS: u64 = 16;
const OLD_SECONDS: u64 = 1_000;
const NEW_SECONDS: u64 = 3_000;
/// What [`chunkstore::Store::prune`] is told: it forgets half of the deletions.
pub(super) const PRUNE_BEFORE_SECONDS: u64 = 2_000;

impl Publication {
    pub(crate) fn permanent(number: u8) -> Self {
        Self(number.into())
    }

    /// One that nobody has used, for a writer.
    pub(super) fn new(chance: &mut Chance, writer: usize, writers: usize) -> Self {
        let (writer, writers) = (writer as u64, writers as u64);
        let number = chance.next() | 1 << 63;
        Self(number - number % writers + writer)
    }

    pub(super) fn of(reference: &Reference) -> Self {
        let [.., a, b, c, d, e, f, g, h] = *reference.publication.as_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    pub(super) fn platforms() -> impl Iterator<Item = PlatformFingerprint> {
        (0..PLATFORMS).map(platform)
    }

    pub(super) fn reference(self) -> Reference {
        let id = (u128::from(self.0) << 64 | u128::from(self.0)).to_be_bytes();
        Reference { platform: platform(self.0 / 16 % PLATFORMS), publication: PublicationId::from_bytes(id) }
    }

    pub(super) fn can_be_deleted(self) -> bool {
        self.0 >= PERMANENT
    }

    /// Whether this writer uses it, of so many.
    pub(super) fn is_used_by(self, writer: usize, writers: usize) -> bool {
        !self.can_be_deleted() || self.0 % writers as u64 == writer as u64
    }

    /// Whether its deletion may be pruned.
    pub(crate) fn is_old(self) -> bool {
        self.0 & 1 << 62 != 0
    }

    /// The platform's order to delete it.
    pub(super) fn deletion(self) -> Deletion {
        let at_seconds = if self.is_old() { OLD_SECONDS } else { NEW_SECONDS };
        // Up to the longest that the store takes.
        let order = self.0.to_be_bytes().repeat((self.0 >> 8) as usize % 513);
        Deletion { publication: self.reference(), sequence: self.0, at_seconds, order }
    }
}

fn platform(number: u64) -> PlatformFingerprint {
    PlatformFingerprint::from_bytes([number as u8; 32])
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Publication {
    type Err = ParseIntError;

    fn from_str(number: &str) -> Result<Self, Self::Err> {
        number.parse().map(Self)
    }
}
