//! What the tables say.

use chunkstore_block::{BlockId, PlatformFingerprint, Reference};

use super::entries::{
    SCRUB, Tombstone, UNSWEPT, dead_entry, entry, journal_entry, kept_entry, order_entry, parse_authority, parse_id,
    parse_reference, reference_key, unswept_key,
};
use super::{Extent, Kept, Location};
use crate::store::index::{Index, Table};
use crate::store::record::{Deletion, ID_BYTES, Place, REFERENCE_BYTES, reference_bytes};
use crate::store::{StoreError, StoredBlock};

/// Where a block lies.
pub(in crate::store) fn find(index: &impl Index, id: &BlockId) -> Result<Option<Location>, StoreError> {
    let value = index.get(Table::Blocks, id.as_bytes())?;
    value.map(|value| Location::from_bytes(&value).ok_or_else(|| entry(Table::Blocks, id.as_bytes()))).transpose()
}

/// Up to `limit` of a block's references, in ascending order.
pub(in crate::store) fn references(
    index: &impl Index,
    id: &BlockId,
    limit: usize,
) -> Result<Vec<Reference>, StoreError> {
    let keys = index.scan(Table::References, id.as_bytes(), id.as_bytes(), limit)?;
    keys.iter().map(|(key, _)| parse_reference(Table::References, key, ID_BYTES)).collect()
}

pub(in crate::store) fn has_reference(
    index: &impl Index,
    id: &BlockId,
    reference: &Reference,
) -> Result<bool, StoreError> {
    Ok(index.get(Table::References, &reference_key(id, reference))?.is_some())
}

/// Up to `limit` blocks with an id above `after`.
pub(in crate::store) fn list(
    index: &impl Index,
    after: Option<BlockId>,
    limit: usize,
) -> Result<Vec<StoredBlock>, StoreError> {
    let mut from = after.map_or(Vec::new(), |after| after.as_bytes().to_vec());
    if after.is_some() {
        from.push(0); // the least key above
    }
    let found = index.scan(Table::Blocks, &[], &from, limit)?;
    let blocks = found.into_iter().map(|(key, value)| {
        let id = parse_id(Table::Blocks, &key)?;
        let location = Location::from_bytes(&value).ok_or_else(|| entry(Table::Blocks, &key))?;
        Ok(StoredBlock { id, length: location.length, references: references(index, &id, usize::MAX)? })
    });
    blocks.collect()
}

/// Up to `limit` records that must stay, in the order in which they lie.
pub(in crate::store) fn layout(index: &impl Index, from: Place, limit: usize) -> Result<Vec<Kept>, StoreError> {
    let found = index.scan(Table::Layout, &[], &from.to_bytes(), limit)?;
    found.iter().map(|(key, value)| kept_entry(key, value).ok_or_else(|| entry(Table::Layout, key))).collect()
}

/// Up to `limit` dead records, in the order in which they lie.
pub(in crate::store) fn dead(index: &impl Index, from: Place, limit: usize) -> Result<Vec<Extent>, StoreError> {
    let found = index.scan(Table::Dead, &[], &from.to_bytes(), limit)?;
    found.iter().map(|(key, value)| dead_entry(key, value).ok_or_else(|| entry(Table::Dead, key))).collect()
}

/// The record at a place, if it must stay.
pub(super) fn kept(index: &impl Index, place: Place) -> Result<Option<Kept>, StoreError> {
    let key = place.to_bytes();
    let value = index.get(Table::Layout, &key)?;
    value.map(|value| kept_entry(&key, &value).ok_or_else(|| entry(Table::Layout, &key))).transpose()
}

/// Where records lie that name a publication; some may have been written anew elsewhere.
pub(super) fn journal(index: &impl Index, publication: &Reference) -> Result<Vec<Place>, StoreError> {
    let prefix = reference_bytes(publication);
    let found = index.scan(Table::Journal, &prefix, &prefix, usize::MAX)?;
    found.iter().map(|(key, _)| journal_entry(key).ok_or_else(|| entry(Table::Journal, key))).collect()
}

/// The dead records of a segment.
pub(super) fn dead_in(index: &impl Index, segment: u32) -> Result<Vec<Extent>, StoreError> {
    let prefix = segment.to_be_bytes();
    let found = index.scan(Table::Dead, &prefix, &prefix, usize::MAX)?;
    found.iter().map(|(key, value)| dead_entry(key, value).ok_or_else(|| entry(Table::Dead, key))).collect()
}

/// Whether the publication was deleted and its tombstone is still there.
pub(in crate::store) fn is_deleted(index: &impl Index, publication: &Reference) -> Result<bool, StoreError> {
    Ok(tombstone(index, publication)?.is_some())
}

/// A deleted publication of which blocks may be left: the first, or the first above another one.
pub(in crate::store) fn unswept(index: &impl Index, after: Option<Reference>) -> Result<Option<Reference>, StoreError> {
    let from = after.map_or(UNSWEPT.to_vec(), |after| [unswept_key(&after).as_slice(), &[0]].concat());
    let found = index.scan(Table::Meta, UNSWEPT, &from, 1)?;
    found.first().map(|(key, _)| parse_reference(Table::Meta, key, UNSWEPT.len())).transpose()
}

/// Up to `limit` blocks of a publication.
pub(in crate::store) fn blocks_of(
    index: &impl Index,
    publication: &Reference,
    limit: usize,
) -> Result<Vec<BlockId>, StoreError> {
    let prefix = reference_bytes(publication);
    let found = index.scan(Table::Publications, &prefix, &prefix, limit)?;
    found.iter().map(|(key, _)| parse_id(Table::Publications, key.get(REFERENCE_BYTES..).unwrap_or_default())).collect()
}

/// Up to `limit` orders of a platform with a sequence number above `after`, in their order.
pub(in crate::store) fn deletions(
    index: &impl Index,
    platform: &PlatformFingerprint,
    after: u64,
    limit: usize,
) -> Result<Vec<Deletion>, StoreError> {
    let prefix = platform.as_bytes();
    let Some(above) = after.checked_add(1) else { return Ok(Vec::new()) };
    let from = [prefix.as_slice(), &above.to_be_bytes()].concat();
    let found = index.scan(Table::Orders, prefix, &from, limit)?;
    let mut deletions = Vec::with_capacity(found.len());
    for (key, _) in found {
        let publication = order_entry(&key).ok_or_else(|| entry(Table::Orders, &key))?;
        deletions.extend(deletion(index, &publication)?);
    }
    Ok(deletions)
}

/// Of up to `limit` tombstones behind `after`: those that are older than `before_seconds` and of whose publications
/// nothing is left; and where to go on, if there are more.
pub(in crate::store) fn prunable(
    index: &impl Index,
    after: Option<Reference>,
    before_seconds: u64,
    limit: usize,
) -> Result<(Vec<Reference>, Option<Reference>), StoreError> {
    let mut from = after.map_or(Vec::new(), |after| reference_bytes(&after).to_vec());
    if after.is_some() {
        from.push(0);
    }
    let found = index.scan(Table::Tombstones, &[], &from, limit)?;
    let (mut old, mut last) = (Vec::new(), None);
    for (key, value) in &found {
        let publication = parse_reference(Table::Tombstones, key, 0)?;
        let (tombstone, _) = Tombstone::from_bytes(value).ok_or_else(|| entry(Table::Tombstones, key))?;
        let is_swept = index.get(Table::Meta, &unswept_key(&publication))?.is_none();
        if tombstone.at_seconds < before_seconds && is_swept {
            old.push(publication);
        }
        last = Some(publication);
    }
    Ok((old, last.filter(|_| found.len() == limit)))
}

/// The order by which a publication was deleted.
pub(in crate::store) fn deletion(index: &impl Index, publication: &Reference) -> Result<Option<Deletion>, StoreError> {
    let key = reference_bytes(publication);
    let Some(value) = index.get(Table::Tombstones, &key)? else { return Ok(None) };
    let (tombstone, order) = Tombstone::from_bytes(&value).ok_or_else(|| entry(Table::Tombstones, &key))?;
    let Tombstone { sequence, at_seconds, .. } = tombstone;
    Ok(Some(Deletion { publication: *publication, sequence, at_seconds, order }))
}

/// The platform's word that a publication is one of its own, and the record that it lies in.
pub(in crate::store) fn authority(
    index: &impl Index,
    publication: &Reference,
) -> Result<Option<(Extent, Vec<u8>)>, StoreError> {
    let key = reference_bytes(publication);
    let value = index.get(Table::Authorities, &key)?;
    value.map(|value| parse_authority(&value).ok_or_else(|| entry(Table::Authorities, &key))).transpose()
}

/// Where the scrub goes on.
pub(in crate::store) fn scrub(index: &impl Index) -> Result<Place, StoreError> {
    let bytes = index.get(Table::Meta, SCRUB)?;
    let place = bytes.and_then(|bytes| Some(Place::from_bytes(bytes.try_into().ok()?)));
    Ok(place.unwrap_or(Place { segment: 0, page: 0 }))
}

pub(super) fn tombstone(index: &impl Index, publication: &Reference) -> Result<Option<Tombstone>, StoreError> {
    let key = reference_bytes(publication);
    let Some(value) = index.get(Table::Tombstones, &key)? else { return Ok(None) };
    let (tombstone, _) = Tombstone::from_bytes(&value).ok_or_else(|| entry(Table::Tombstones, &key))?;
    Ok(Some(tombstone))
}
