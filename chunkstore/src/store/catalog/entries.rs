//! Keys and values of the tables, as `docs/store.md` has them.

use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};

use super::{Applied, Extent, Holds, Kept, Location, SegmentBooks, Totals};
use crate::store::StoreError;
use crate::store::index::Table;
use crate::store::record::{Place, REFERENCE_BYTES, reference, reference_bytes, take};

pub(super) const APPLIED: &[u8] = b"applied";
pub(super) const TOTALS: &[u8] = b"totals";
pub(super) const SEGMENT: &[u8] = b"segment";
pub(super) const SCRUB: &[u8] = b"scrub";
/// There while the index is being built from all segments.
pub(super) const REBUILDING: &[u8] = b"rebuilding";
/// Publications that were deleted and whose references are still being taken away.
pub(super) const UNSWEPT: &[u8] = b"unswept";

/// A tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tombstone {
    pub(super) sequence: u64,
    pub(super) at_seconds: u64,
    pub(super) record: Extent,
}

impl Totals {
    pub(super) fn numbers(&mut self) -> [&mut u64; 7] {
        let Self { blocks, block_bytes, references, damaged, live_pages, journal_pages, dead_pages } = self;
        [blocks, block_bytes, references, damaged, live_pages, journal_pages, dead_pages]
    }

    pub(super) fn to_bytes(mut self) -> Vec<u8> {
        self.numbers().into_iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut totals = Self::default();
        for number in totals.numbers() {
            *number = u64::from_be_bytes(take(&mut bytes)?);
        }
        bytes.is_empty().then_some(totals)
    }
}

impl Location {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let Self { place, body_at, length, is_damaged } = self;
        [&place.to_bytes()[..], &body_at.to_be_bytes(), &length.to_be_bytes(), &[is_damaged.into()]].concat()
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let place = Place::from_bytes(take(&mut bytes)?);
        let body_at = u32::from_be_bytes(take(&mut bytes)?);
        let length = u32::from_be_bytes(take(&mut bytes)?);
        let [flags] = take(&mut bytes)?;
        bytes.is_empty().then_some(Self { place, body_at, length, is_damaged: flags & 1 != 0 })
    }
}

impl Applied {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.next.to_bytes(), self.sequence.to_be_bytes()].concat()
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let next = Place::from_bytes(take(&mut bytes)?);
        let sequence = u64::from_be_bytes(take(&mut bytes)?);
        bytes.is_empty().then_some(Self { next, sequence })
    }
}

impl Tombstone {
    pub(super) fn to_bytes(self, order: &[u8]) -> Vec<u8> {
        let Self { sequence, at_seconds, record } = self;
        let numbers = [sequence.to_be_bytes(), at_seconds.to_be_bytes(), record.place.to_bytes()].concat();
        [&numbers, record.pages.to_be_bytes().as_slice(), order].concat()
    }

    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<(Self, Vec<u8>)> {
        let sequence = u64::from_be_bytes(take(&mut bytes)?);
        let at_seconds = u64::from_be_bytes(take(&mut bytes)?);
        let place = Place::from_bytes(take(&mut bytes)?);
        let pages = u32::from_be_bytes(take(&mut bytes)?);
        Some((Self { sequence, at_seconds, record: Extent { place, pages } }, bytes.to_vec()))
    }
}

/// A publication's authority and the record that brought it.
pub(super) fn authority_value(record: Extent, authority: &[u8]) -> Vec<u8> {
    [&record.place.to_bytes()[..], &record.pages.to_be_bytes(), authority].concat()
}

pub(super) fn parse_authority(mut bytes: &[u8]) -> Option<(Extent, Vec<u8>)> {
    let place = Place::from_bytes(take(&mut bytes)?);
    let pages = u32::from_be_bytes(take(&mut bytes)?);
    Some((Extent { place, pages }, bytes.to_vec()))
}

impl SegmentBooks {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.live, self.journal, self.dead].into_iter().flat_map(u32::to_be_bytes).collect()
    }
}

impl Kept {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.pages.to_be_bytes().to_vec();
        match self.holds {
            Holds::Block(id) => {
                bytes.push(1);
                bytes.extend(id.as_bytes());
            }
            Holds::Journal(publications) => {
                bytes.push(2);
                bytes.extend(publications.to_be_bytes());
            }
        }
        bytes
    }
}

pub(super) fn kept_entry(key: &[u8], mut value: &[u8]) -> Option<Kept> {
    let place = Place::from_bytes(key.try_into().ok()?);
    let pages = u32::from_be_bytes(take(&mut value)?);
    let holds = match take(&mut value)? {
        [1] => Holds::Block(BlockId::from_bytes(take(&mut value)?)),
        [2] => Holds::Journal(u32::from_be_bytes(take(&mut value)?)),
        _ => return None,
    };
    value.is_empty().then_some(Kept { place, pages, holds })
}

pub(super) fn dead_entry(key: &[u8], value: &[u8]) -> Option<Extent> {
    Some(Extent { place: Place::from_bytes(key.try_into().ok()?), pages: u32::from_be_bytes(value.try_into().ok()?) })
}

pub(super) fn segment_entry(key: &[u8], mut value: &[u8]) -> Option<(u32, SegmentBooks)> {
    let number = u32::from_be_bytes(key.strip_prefix(SEGMENT)?.try_into().ok()?);
    let mut next = || Some(u32::from_be_bytes(take(&mut value)?));
    let books = SegmentBooks { live: next()?, journal: next()?, dead: next()? };
    value.is_empty().then_some((number, books))
}

pub(super) fn segment_key(number: u32) -> Vec<u8> {
    [SEGMENT, &number.to_be_bytes()].concat()
}

pub(super) fn unswept_key(publication: &Reference) -> Vec<u8> {
    [UNSWEPT, &reference_bytes(publication)].concat()
}

pub(super) fn reference_key(id: &BlockId, reference: &Reference) -> Vec<u8> {
    [id.as_bytes().as_slice(), &reference_bytes(reference)].concat()
}

pub(super) fn publication_key(reference: &Reference, id: &BlockId) -> Vec<u8> {
    [&reference_bytes(reference), id.as_bytes().as_slice()].concat()
}

pub(super) fn journal_key(publication: &Reference, place: Place) -> Vec<u8> {
    [reference_bytes(publication).as_slice(), &place.to_bytes()].concat()
}

pub(super) fn journal_entry(key: &[u8]) -> Option<Place> {
    Some(Place::from_bytes(key.get(REFERENCE_BYTES..)?.try_into().ok()?))
}

/// Platform, sequence number, publication id: so that a platform's orders lie in their order.
pub(super) fn order_key(publication: &Reference, sequence: u64) -> Vec<u8> {
    let Reference { platform, publication } = publication;
    [platform.as_bytes().as_slice(), &sequence.to_be_bytes(), publication.as_bytes()].concat()
}

pub(super) fn order_entry(mut key: &[u8]) -> Option<Reference> {
    let platform: [u8; 32] = take(&mut key)?;
    let _sequence: [u8; 8] = take(&mut key)?;
    let publication: [u8; 16] = take(&mut key)?;
    let platform = PlatformFingerprint::from_bytes(platform);
    key.is_empty().then(|| Reference { platform, publication: PublicationId::from_bytes(publication) })
}

pub(super) fn parse_id(table: Table, key: &[u8]) -> Result<BlockId, StoreError> {
    key.try_into().map(BlockId::from_bytes).map_err(|_| entry(table, key))
}

/// The reference at the end of a key.
pub(super) fn parse_reference(table: Table, key: &[u8], offset: usize) -> Result<Reference, StoreError> {
    let bytes = key.get(offset..).and_then(|bytes| bytes.try_into().ok());
    bytes.map(reference).ok_or_else(|| entry(table, key))
}

pub(super) fn entry(table: Table, key: &[u8]) -> StoreError {
    StoreError::Entry { table: table.name(), entry: data_encoding::HEXLOWER.encode(key) }
}
