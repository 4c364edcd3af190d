//! Records and segment headers, byte for byte as `docs/store.md` has them. Pure.

use chunkstore_block::{BlockId, MAX_BLOCK_BYTES, PlatformFingerprint, PublicationId, Reference};
use sha2::{Digest, Sha256};

/// The unit of space: every record begins on a page of its own.
pub(crate) const PAGE_BYTES: u64 = 4_096;
/// A segment begins with two copies of its header, a page each.
pub(crate) const HEADER_PAGES: u32 = 2;
/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 76;
/// The longest payload.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 65_536;
/// The most references that one call takes: as many as one record names.
pub const MAX_REFERENCES: usize = 600;
/// The most block ids in one record, beside as many references.
pub(crate) const MAX_IDS: usize = 1_000;
const _: () = assert!(8 + MAX_REFERENCES * REFERENCE_BYTES + MAX_IDS * ID_BYTES <= MAX_PAYLOAD_BYTES);
/// The longest signed order of a deletion, and the longest authority: the longest JWS that `docs/protocol.md` §6 allows.
pub(crate) const MAX_ORDER_BYTES: usize = 4_096;

pub(crate) const REFERENCE_BYTES: usize = 48;
pub(crate) const ID_BYTES: usize = 32;
pub(crate) const PLACE_BYTES: usize = 8;

const RECORD_MAGIC: &[u8; 8] = b"iMiraRec";
const SEGMENT_MAGIC: &[u8; 8] = b"iMiraSeg";
const SEGMENT_HEADER_BYTES: usize = 48;
const SEGMENT_FORMAT: u32 = 2;
const CHECK_BYTES: usize = 16;
/// What the check of a record covers, besides the nonce and the payload.
const CHECKED_BYTES: usize = HEADER_BYTES - CHECK_BYTES;

/// A random number in each segment's header and in the check of each of its records.
pub(crate) type Nonce = [u8; 16];

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) page: u32,
}

/// A change of the store: what a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A block comes, with references.
    Put { id: BlockId, length: u32, references: Vec<Reference> },
    /// The copy at `from` is exchanged for this one. The references are for rebuilding the index only.
    Move { id: BlockId, length: u32, from: Place, references: Vec<Reference> },
    /// Blocks that are there get references.
    Refer { references: Vec<Reference>, ids: Vec<BlockId> },
    /// A platform deletes one of its publications.
    Delete(Deletion),
    /// Blocks lose the reference to a deleted publication.
    Sweep { publication: Reference, ids: Vec<BlockId> },
    /// Blocks go, whatever references they have.
    Remove { ids: Vec<BlockId> },
    /// Tombstones go.
    Prune { publications: Vec<Reference> },
    /// The copy at a place is damaged, or whole after all.
    Damage { id: BlockId, place: Place, is_damaged: bool },
    /// A platform's signed word that a publication is one of its own.
    Admit { publication: Reference, authority: Vec<u8> },
    /// A block goes, unless it has a reference besides these.
    Drop { id: BlockId, references: Vec<Reference> },
}

/// A platform's order to delete one of its publications. The store does not check the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// What is deleted.
    pub publication: Reference,
    /// The platform's own number of the order, rising.
    pub sequence: u64,
    /// When this node learnt of it, in seconds since 1970: when the tombstone may go is counted from here.
    pub at_seconds: u64,
    /// The order as the platform signed it, at most 4,096 bytes, to be shown to nodes that were away.
    pub order: Vec<u8>,
}

/// A record that was read and whose check is right. Its body is not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) op: Op,
    /// Where the body begins, counted from the record.
    pub(crate) body_offset: u32,
    pub(crate) body_length: u32,
}

/// Lengths that a record's first bytes claim, before its check is known to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) payload_bytes: usize,
    pub(crate) body_bytes: usize,
}

impl Op {
    /// Length of the record's body; none for most.
    pub(crate) fn body_length(&self) -> u32 {
        match self {
            Self::Put { length, .. } | Self::Move { length, .. } => *length,
            Self::Refer { .. }
            | Self::Delete(_)
            | Self::Sweep { .. }
            | Self::Remove { .. }
            | Self::Prune { .. }
            | Self::Damage { .. }
            | Self::Admit { .. }
            | Self::Drop { .. } => 0,
        }
    }

    /// Pages of its record.
    pub(crate) fn pages(&self) -> u32 {
        pages(HEADER_BYTES + self.payload().len() + self.body_length() as usize)
    }

    /// Header and payload of its record: what comes before the body.
    pub(crate) fn encode(&self, sequence: u64, nonce: &Nonce) -> Vec<u8> {
        let payload = self.payload();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend(RECORD_MAGIC);
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(self.kind().to_be_bytes());
        bytes.extend((payload.len() as u32).to_be_bytes()); // at most MAX_PAYLOAD_BYTES
        bytes.extend(self.body_length().to_be_bytes());
        match self {
            Self::Put { id, .. } | Self::Move { id, .. } => bytes.extend(id.as_bytes()),
            Self::Refer { .. }
            | Self::Delete(_)
            | Self::Sweep { .. }
            | Self::Remove { .. }
            | Self::Prune { .. }
            | Self::Damage { .. }
            | Self::Admit { .. }
            | Self::Drop { .. } => bytes.extend([0; ID_BYTES]),
        }
        let check = check(nonce, &bytes, &payload);
        bytes.extend(check);
        bytes.extend(payload);
        bytes
    }

    fn kind(&self) -> u32 {
        match self {
            Self::Put { .. } => 1,
            Self::Refer { .. } => 2,
            Self::Delete(_) => 3,
            Self::Sweep { .. } => 4,
            Self::Remove { .. } => 5,
            Self::Prune { .. } => 6,
            Self::Damage { .. } => 7,
            Self::Move { .. } => 8,
            Self::Admit { .. } => 9,
            Self::Drop { .. } => 10,
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Put { references, .. } => extend_references(&mut bytes, references),
            Self::Move { from, references, .. } => {
                bytes.extend(from.to_bytes());
                extend_references(&mut bytes, references);
            }
            Self::Refer { references, ids } => {
                bytes.extend((references.len() as u32).to_be_bytes()); // at most MAX_REFERENCES
                extend_references(&mut bytes, references);
                extend_ids(&mut bytes, ids);
            }
            Self::Delete(Deletion { publication, sequence, at_seconds, order }) => {
                extend_references(&mut bytes, &[*publication]);
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(at_seconds.to_be_bytes());
                bytes.extend(order);
            }
            Self::Sweep { publication, ids } => {
                extend_references(&mut bytes, &[*publication]);
                extend_ids(&mut bytes, ids);
            }
            Self::Remove { ids } => extend_ids(&mut bytes, ids),
            Self::Prune { publications } => extend_references(&mut bytes, publications),
            Self::Admit { publication, authority } => {
                extend_references(&mut bytes, &[*publication]);
                bytes.extend(authority);
            }
            Self::Drop { id, references } => {
                extend_ids(&mut bytes, &[*id]);
                extend_references(&mut bytes, references);
            }
            Self::Damage { id, place, is_damaged } => {
                bytes.push((*is_damaged).into());
                bytes.extend(place.to_bytes());
                bytes.extend(id.as_bytes());
            }
        }
        bytes
    }

    fn decode(kind: u32, id: BlockId, body_bytes: usize, payload: &[u8]) -> Option<Self> {
        let mut rest = payload;
        let length = body_bytes as u32; // at most MAX_BLOCK_BYTES
        let has_body = matches!(kind, 1 | 8);
        if has_body != (body_bytes > 0) {
            return None;
        }
        let op = match kind {
            1 => Self::Put { id, length, references: references(rest)? },
            2 => {
                let count = u32::from_be_bytes(take(&mut rest)?) as usize;
                let (front, back) = rest.split_at_checked(count.checked_mul(REFERENCE_BYTES)?)?;
                Self::Refer { references: references(front)?, ids: ids(back)? }
            }
            3 => Self::Delete(Deletion {
                publication: reference(&take(&mut rest)?),
                sequence: u64::from_be_bytes(take(&mut rest)?),
                at_seconds: u64::from_be_bytes(take(&mut rest)?),
                order: rest.to_vec(),
            }),
            4 => Self::Sweep { publication: reference(&take(&mut rest)?), ids: ids(rest)? },
            5 => Self::Remove { ids: ids(rest)? },
            6 => Self::Prune { publications: references(rest)? },
            7 => {
                let [flag] = take(&mut rest)?;
                let place = Place::from_bytes(take(&mut rest)?);
                Self::Damage { id: BlockId::from_bytes(take(&mut rest)?), place, is_damaged: flag != 0 }
            }
            8 => Self::Move { id, length, from: Place::from_bytes(take(&mut rest)?), references: references(rest)? },
            9 => Self::Admit { publication: reference(&take(&mut rest)?), authority: rest.to_vec() },
            10 => Self::Drop { id: BlockId::from_bytes(take(&mut rest)?), references: references(rest)? },
            _ => return None,
        };
        Some(op)
    }
}

impl Claimed {
    /// What the first [`HEADER_BYTES`] of a record claim; `None` if there is no record.
    pub(crate) fn read(header: &[u8; HEADER_BYTES]) -> Option<Self> {
        let mut rest = header.strip_prefix(RECORD_MAGIC)?;
        let _sequence: [u8; 8] = take(&mut rest)?;
        let _kind: [u8; 4] = take(&mut rest)?;
        let payload_bytes = u32::from_be_bytes(take(&mut rest)?) as usize;
        let body_bytes = u32::from_be_bytes(take(&mut rest)?) as usize;
        (payload_bytes <= MAX_PAYLOAD_BYTES && body_bytes <= MAX_BLOCK_BYTES)
            .then_some(Self { payload_bytes, body_bytes })
    }
}

impl Head {
    /// Reads header and payload; `None` if they are not what was written into this segment.
    pub(crate) fn decode(bytes: &[u8], nonce: &Nonce) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let claimed = Claimed::read(header)?;
        let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + claimed.payload_bytes)?;
        let (checked, found) = header.split_at(CHECKED_BYTES);
        if check(nonce, checked, payload) != found {
            return None;
        }
        let mut rest = &header[RECORD_MAGIC.len()..];
        let sequence = u64::from_be_bytes(take(&mut rest)?);
        let kind = u32::from_be_bytes(take(&mut rest)?);
        let _lengths: [u8; 8] = take(&mut rest)?;
        let id = BlockId::from_bytes(take(&mut rest)?);
        let op = Op::decode(kind, id, claimed.body_bytes, payload)?;
        let body_offset = (HEADER_BYTES + claimed.payload_bytes) as u32; // at most 65,612
        Some(Self { sequence, op, body_offset, body_length: claimed.body_bytes as u32 })
    }
}

impl Place {
    pub(crate) fn to_bytes(self) -> [u8; PLACE_BYTES] {
        ((u64::from(self.segment) << 32) | u64::from(self.page)).to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; PLACE_BYTES]) -> Self {
        let number = u64::from_be_bytes(bytes);
        Self { segment: (number >> 32) as u32, page: number as u32 }
    }

    /// Offset in the segment.
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.page) * PAGE_BYTES
    }
}

/// Each of the first two pages of a segment, without its padding.
pub(crate) fn encode_segment_header(segment: u32, nonce: &Nonce) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    bytes.extend(SEGMENT_MAGIC);
    bytes.extend(SEGMENT_FORMAT.to_be_bytes());
    bytes.extend(segment.to_be_bytes());
    bytes.extend(nonce);
    let check = check(&[0; 16], &bytes, &[]);
    bytes.extend(&check);
    bytes
}

/// The nonce of a segment, if the header is one of ours for this number.
pub(crate) fn decode_segment_header(bytes: &[u8], segment: u32) -> Option<Nonce> {
    let mut rest = bytes.get(16..32)?;
    let nonce = take(&mut rest)?;
    (bytes.get(..SEGMENT_HEADER_BYTES)? == encode_segment_header(segment, &nonce)).then_some(nonce)
}

pub(crate) fn pages(bytes: usize) -> u32 {
    (bytes as u64).div_ceil(PAGE_BYTES) as u32 // a record has at most 274 pages
}

pub(crate) fn reference(bytes: &[u8; REFERENCE_BYTES]) -> Reference {
    let mut rest = bytes.as_slice();
    // Both parts are there: 32 + 16 bytes.
    let platform = PlatformFingerprint::from_bytes(take(&mut rest).unwrap_or_default());
    Reference { platform, publication: PublicationId::from_bytes(take(&mut rest).unwrap_or_default()) }
}

pub(crate) fn reference_bytes(reference: &Reference) -> [u8; REFERENCE_BYTES] {
    let mut bytes = [0; REFERENCE_BYTES];
    bytes[..32].copy_from_slice(reference.platform.as_bytes());
    bytes[32..].copy_from_slice(reference.publication.as_bytes());
    bytes
}

/// Takes an array off the front.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (front, back) = rest.split_first_chunk()?;
    *rest = back;
    Some(*front)
}

fn check(nonce: &Nonce, header: &[u8], payload: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(nonce).chain_update(header).chain_update(payload).finalize();
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&digest[..CHECK_BYTES]);
    check
}

fn extend_references(bytes: &mut Vec<u8>, references: &[Reference]) {
    bytes.extend(references.iter().flat_map(reference_bytes));
}

fn extend_ids(bytes: &mut Vec<u8>, ids: &[BlockId]) {
    bytes.extend(ids.iter().flat_map(|id| *id.as_bytes()));
}

fn references(bytes: &[u8]) -> Option<Vec<Reference>> {
    let (chunks, rest) = bytes.as_chunks();
    rest.is_empty().then(|| chunks.iter().map(reference).collect())
}

fn ids(bytes: &[u8]) -> Option<Vec<BlockId>> {
    let (chunks, rest) = bytes.as_chunks();
    rest.is_empty().then(|| chunks.iter().map(|id| BlockId::from_bytes(*id)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = [7; 16];

    fn any_id() -> impl Strategy<Value = BlockId> {
        any::<[u8; 32]>().prop_map(BlockId::from_bytes)
    }

    fn any_reference() -> impl Strategy<Value = Reference> {
        any::<[[u8; 16]; 3]>().prop_map(|parts| reference(&parts.concat().try_into().unwrap()))
    }

    fn any_place() -> impl Strategy<Value = Place> {
        any::<(u32, u32)>().prop_map(|(segment, page)| Place { segment, page })
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let length = 1..=MAX_BLOCK_BYTES as u32;
        let references = || prop::collection::vec(any_reference(), 0..5);
        let ids = || prop::collection::vec(any_id(), 0..5);
        prop_oneof![
            (any_id(), length.clone(), references()).prop_map(|(id, length, references)| Op::Put {
                id,
                length,
                references
            }),
            (any_id(), length, any_place(), references()).prop_map(|(id, length, from, references)| Op::Move {
                id,
                length,
                from,
                references
            }),
            (references(), ids()).prop_map(|(references, ids)| Op::Refer { references, ids }),
            (any_reference(), any::<(u64, u64)>(), prop::collection::vec(any::<u8>(), 0..50)).prop_map(
                |(publication, (sequence, at_seconds), order)| {
                    Op::Delete(Deletion { publication, sequence, at_seconds, order })
                }
            ),
            (any_reference(), ids()).prop_map(|(publication, ids)| Op::Sweep { publication, ids }),
            ids().prop_map(|ids| Op::Remove { ids }),
            references().prop_map(|publications| Op::Prune { publications }),
            (any_id(), references()).prop_map(|(id, references)| Op::Drop { id, references }),
            (any_reference(), prop::collection::vec(any::<u8>(), 0..50))
                .prop_map(|(publication, authority)| Op::Admit { publication, authority }),
            (any_id(), any_place(), any::<bool>()).prop_map(|(id, place, is_damaged)| Op::Damage {
                id,
                place,
                is_damaged
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(op in any_op(), sequence: u64) {
            let bytes = op.encode(sequence, &NONCE);
            let head = Head::decode(&bytes, &NONCE).unwrap();
            prop_assert_eq!(head.body_offset as usize, bytes.len());
            prop_assert_eq!(head.body_length, op.body_length());
            prop_assert_eq!(op.pages(), pages(bytes.len() + op.body_length() as usize));
            prop_assert_eq!((head.sequence, head.op), (sequence, op));
        }

        #[test]
        fn a_changed_bit_or_another_segment_is_no_record(op in any_op(), place: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = op.encode(1, &NONCE);
            prop_assert_eq!(Head::decode(&bytes, &[8; 16]), None);
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert_eq!(Head::decode(&bytes, &NONCE), None);
            prop_assert_eq!(Head::decode(&bytes[..place], &NONCE), None);
        }

        #[test]
        fn arbitrary_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let magic = [RECORD_MAGIC.as_slice(), &bytes].concat();
            prop_assert_eq!(Head::decode(&bytes, &NONCE), None);
            prop_assert_eq!(Head::decode(&magic, &NONCE), None);
            prop_assert_eq!(decode_segment_header(&bytes, 1), None);
        }
    }

    /// The layout that `docs/store.md` gives, byte by byte.
    #[test]
    fn a_put_is_laid_out_as_documented() {
        let kept_for = Reference {
            platform: PlatformFingerprint::from_bytes([2; 32]),
            publication: PublicationId::from_bytes([3; 16]),
        };
        let op = Op::Put { id: BlockId::from_bytes([1; 32]), length: 1_000_000, references: vec![kept_for] };
        let bytes = op.encode(0x0102_0304, &NONCE);
        let head = [
            b"iMiraRec".as_slice(),
            &[0, 0, 0, 0, 1, 2, 3, 4],
            &[0, 0, 0, 1],
            &[0, 0, 0, 48],
            &[0, 0x0f, 0x42, 0x40],
            &[1; 32],
        ]
        .concat();
        let payload = [[2; 32].as_slice(), &[3; 16]].concat();
        let check = Sha256::digest([NONCE.as_slice(), &head, &payload].concat());
        assert_eq!(bytes, [head.as_slice(), &check[..16], &payload].concat());
        let header = encode_segment_header(5, &NONCE);
        let first = [b"iMiraSeg".as_slice(), &[0, 0, 0, 2], &[0, 0, 0, 5], &NONCE].concat();
        assert_eq!(header[..32], first);
        // The check of a header covers sixteen zeros in the place of the nonce before its bytes.
        assert_eq!(header[32..], Sha256::digest([[0; 16].as_slice(), &first].concat())[..16]);
        assert_eq!(decode_segment_header(&header, 5), Some(NONCE));
        assert_eq!(decode_segment_header(&header, 6), None);
    }
}
