//! What is asked of a node.

use super::cbor::{
    HeadError, head, put_bytes, put_ids, put_lengths, put_references, put_text, put_uint, read_array, read_exact,
    read_id, read_map, read_reference,
};
use super::{Kind, MAX_IDS_PER_REQUEST, MAX_REFERENCE_IDS, MAX_REFERENCES_PER_REQUEST, Refusal, Status};
use crate::transfer::frame::Frame;
use bytes::Bytes;
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES, Reference};
use minicbor::Decoder;

/// Of an upload authority and of a deletion order.
const MAX_JWS_BYTES: usize = 4096;
/// Before a signed text in an answer.
const LENGTH_BYTES: usize = 2;
const POSITION_BITS: u64 = 256;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::transfer) enum Request {
    Get { id: BlockId },
    Put { id: BlockId, references: Vec<Reference>, authority: String, body: Bytes },
    Ref { ids: Vec<BlockId>, references: Vec<Reference>, authority: String },
    Has { ids: Vec<BlockId> },
    Digest(DigestRequest),
    Delete { order: String },
    Audit { id: BlockId, nonce: [u8; 32] },
    Offer { blocks: Vec<(BlockId, u32)> },
    Ping,
    References { ids: Vec<BlockId> },
    Pull { id: BlockId },
    Orders { epoch: u64, after: u64 },
    Revocations,
    Reach { port: u16 },
    Authorities { references: Vec<Reference> },
}

/// Of which positions a digest is wanted: those that begin with the first `bits` bits of `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestRequest {
    /// 0 to 256.
    pub bits: u16,
    /// Zeros after the first `bits`.
    pub prefix: [u8; 32],
}

impl Request {
    pub(in crate::transfer) fn kind(&self) -> Kind {
        match self {
            Self::Get { .. } => Kind::Get,
            Self::Put { .. } => Kind::Put,
            Self::Ref { .. } => Kind::Ref,
            Self::Has { .. } => Kind::Has,
            Self::Digest(_) => Kind::Digest,
            Self::Delete { .. } => Kind::Delete,
            Self::Audit { .. } => Kind::Audit,
            Self::Offer { .. } => Kind::Offer,
            Self::Ping => Kind::Ping,
            Self::References { .. } => Kind::References,
            Self::Pull { .. } => Kind::Pull,
            Self::Orders { .. } => Kind::Orders,
            Self::Revocations => Kind::Revocations,
            Self::Reach { .. } => Kind::Reach,
            Self::Authorities { .. } => Kind::Authorities,
        }
    }

    /// The most bytes that are in memory for the answer: its body, or the block that it is made from. What is only a few KiB does not
    /// count.
    pub(in crate::transfer) fn answer_bytes(&self) -> usize {
        match self {
            Self::Get { .. }
            | Self::Audit { .. }
            | Self::Pull { .. }
            | Self::References { .. }
            | Self::Orders { .. }
            | Self::Revocations => MAX_BLOCK_BYTES,
            Self::Put { .. }
            | Self::Ref { .. }
            | Self::Has { .. }
            | Self::Digest(_)
            | Self::Delete { .. }
            | Self::Offer { .. }
            | Self::Ping
            | Self::Reach { .. } => 0,
            Self::Authorities { references } => references.len() * (LENGTH_BYTES + MAX_JWS_BYTES),
        }
    }

    /// How many ids or references it asks about.
    pub(in crate::transfer) fn id_count(&self) -> usize {
        match self {
            Self::Get { .. } | Self::Put { .. } | Self::Audit { .. } | Self::Pull { .. } => 1,
            Self::Ref { ids, .. } | Self::Has { ids } | Self::References { ids } => ids.len(),
            Self::Offer { blocks } => blocks.len(),
            Self::Authorities { references } => references.len(),
            Self::Digest(_)
            | Self::Delete { .. }
            | Self::Ping
            | Self::Orders { .. }
            | Self::Revocations
            | Self::Reach { .. } => 0,
        }
    }

    pub(in crate::transfer) fn into_frame(self, request_id: u32) -> Frame {
        let kind = self.kind() as u8;
        let mut body = Bytes::new();
        let head = match self {
            Self::Get { id } | Self::Pull { id } => head(1, |e| put_bytes(e, 1, id.as_bytes())),
            Self::Put { id, references, authority, body: block } => {
                body = block;
                head(3, |e| {
                    put_bytes(e, 1, id.as_bytes());
                    put_references(e, &references);
                    put_text(e, 3, &authority);
                })
            }
            Self::Ref { ids, references, authority } => head(3, |e| {
                put_ids(e, &ids);
                put_references(e, &references);
                put_text(e, 3, &authority);
            }),
            Self::Has { ids } | Self::References { ids } => head(1, |e| put_ids(e, &ids)),
            Self::Digest(DigestRequest { bits, prefix }) => head(2, |e| {
                put_uint(e, 1, bits.into());
                put_bytes(e, 2, &prefix[..usize::from(bits).div_ceil(8).min(prefix.len())]);
            }),
            Self::Delete { order } => head(1, |e| put_text(e, 1, &order)),
            Self::Audit { id, nonce } => head(2, |e| {
                put_bytes(e, 1, id.as_bytes());
                put_bytes(e, 2, &nonce);
            }),
            Self::Offer { blocks } => head(2, |e| {
                put_ids(e, &blocks.iter().map(|(id, _)| *id).collect::<Vec<_>>());
                put_lengths(e, 2, blocks.iter().map(|(_, length)| *length));
            }),
            Self::Ping | Self::Revocations => head(0, |_| ()),
            Self::Authorities { references } => head(1, |e| put_references(e, &references)),
            Self::Reach { port } => head(1, |e| put_uint(e, 1, port.into())),
            Self::Orders { epoch, after } => head(2, |e| {
                put_uint(e, 1, epoch);
                put_uint(e, 2, after);
            }),
        };
        Frame { kind, request_id, head, body }
    }

    /// The request, or what to answer instead.
    pub(in crate::transfer) fn from_frame(frame: Frame) -> Result<Self, Refusal> {
        // First of all: a newer peer's request is not malformed for being unknown.
        let kind = Kind::of_request(frame.kind)
            .ok_or_else(|| Refusal::new(Status::Unsupported, format!("kind {:#04x} is unknown here", frame.kind)))?;
        let mut fields = Fields::default();
        read_map(&frame.head, |key, d| fields.read(kind, key, d)).map_err(HeadError::into_refusal)?;
        match kind {
            Kind::Get => Ok(Self::Get { id: fields.id()? }),
            Kind::Put => fields.put(frame.body),
            Kind::Ref => Ok(Self::Ref {
                ids: fields.ids()?,
                references: fields.references()?,
                authority: fields.text("key 3, the upload authority, is missing")?,
            }),
            Kind::Has => Ok(Self::Has { ids: fields.ids()? }),
            Kind::Digest => fields.digest(),
            Kind::Delete => Ok(Self::Delete { order: fields.text("key 1, the deletion order, is missing")? }),
            Kind::Audit => Ok(Self::Audit { id: fields.id()?, nonce: fields.nonce()? }),
            Kind::Offer => fields.offer(),
            Kind::Ping => Ok(Self::Ping),
            Kind::References => Ok(Self::References { ids: fields.ids()? }),
            Kind::Pull => Ok(Self::Pull { id: fields.id()? }),
            Kind::Orders => Ok(Self::Orders { epoch: fields.number(0)?, after: fields.number(1)? }),
            Kind::Revocations => Ok(Self::Revocations),
            Kind::Reach => Ok(Self::Reach { port: fields.port()? }),
            Kind::Authorities => Ok(Self::Authorities { references: fields.references()? }),
        }
    }
}

/// The keys of a request's head as far as they came.
#[derive(Default)]
struct Fields {
    ids: Vec<BlockId>,
    references: Vec<Reference>,
    text: Option<String>,
    nonce: Option<[u8; 32]>,
    lengths: Vec<u32>,
    prefix: Option<Vec<u8>>,
    numbers: [Option<u64>; 2],
}

impl Fields {
    fn read(&mut self, kind: Kind, key: u64, d: &mut Decoder<'_>) -> Result<(), HeadError> {
        match (kind, key) {
            (Kind::Get | Kind::Put | Kind::Audit | Kind::Pull, 1) => self.ids = vec![read_id(d)?],
            (Kind::Ref | Kind::Has | Kind::Offer, 1) => self.ids = read_array(d, MAX_IDS_PER_REQUEST, read_id)?,
            (Kind::References, 1) => self.ids = read_array(d, MAX_REFERENCE_IDS, read_id)?,
            (Kind::Put | Kind::Ref | Kind::Authorities, 2) => {
                self.references = read_array(d, MAX_REFERENCES_PER_REQUEST, read_reference)?
            }
            (Kind::Put | Kind::Ref, 3) | (Kind::Delete, 1) => self.text = Some(read_jws(d)?),
            (Kind::Audit, 2) => self.nonce = Some(read_exact(d)?),
            (Kind::Offer, 2) => self.lengths = read_array(d, MAX_IDS_PER_REQUEST, |d| d.u32())?,
            (Kind::Digest, 2) => self.prefix = Some(d.bytes()?.to_vec()),
            (Kind::Digest | Kind::Orders | Kind::Reach, 1) => self.numbers[0] = Some(d.u64()?),
            (Kind::Orders, 2) => self.numbers[1] = Some(d.u64()?),
            _ => d.skip()?,
        }
        Ok(())
    }

    fn id(&mut self) -> Result<BlockId, Refusal> {
        self.ids.pop().ok_or_else(|| malformed("key 1, the block id, is missing"))
    }

    fn ids(&mut self) -> Result<Vec<BlockId>, Refusal> {
        non_empty(std::mem::take(&mut self.ids), "key 1, the block ids, is missing or empty")
    }

    fn references(&mut self) -> Result<Vec<Reference>, Refusal> {
        non_empty(std::mem::take(&mut self.references), "key 2, the references, is missing or empty")
    }

    fn text(&mut self, otherwise: &str) -> Result<String, Refusal> {
        self.text.take().ok_or_else(|| malformed(otherwise))
    }

    fn nonce(&self) -> Result<[u8; 32], Refusal> {
        self.nonce.ok_or_else(|| malformed("key 2, the nonce, is missing"))
    }

    fn number(&self, index: usize) -> Result<u64, Refusal> {
        self.numbers[index].ok_or_else(|| malformed("a number is missing"))
    }

    fn port(&self) -> Result<u16, Refusal> {
        let port = u16::try_from(self.number(0)?).ok().filter(|port| *port != 0);
        port.ok_or_else(|| malformed("a port is 1 to 65,535"))
    }

    fn put(&mut self, body: Bytes) -> Result<Request, Refusal> {
        let (id, references) = (self.id()?, self.references()?);
        let authority = self.text("key 3, the upload authority, is missing")?;
        check_length(body.len())?;
        Ok(Request::Put { id, references, authority, body })
    }

    fn offer(&mut self) -> Result<Request, Refusal> {
        let (ids, lengths) = (self.ids()?, std::mem::take(&mut self.lengths));
        if lengths.len() != ids.len() {
            return Err(malformed("not one length for each id"));
        }
        lengths.iter().try_for_each(|length| check_length(*length as usize))?;
        Ok(Request::Offer { blocks: ids.into_iter().zip(lengths).collect() })
    }

    fn digest(&mut self) -> Result<Request, Refusal> {
        let bits = self.number(0)?;
        let bytes = self.prefix.take().ok_or_else(|| malformed("key 2, the prefix, is missing"))?;
        if bits > POSITION_BITS || bytes.len() as u64 != bits.div_ceil(8) {
            return Err(malformed("the prefix is not as long as it says"));
        }
        let mut prefix = [0; 32];
        prefix[..bytes.len()].copy_from_slice(&bytes);
        let unused = (8 - bits % 8) % 8;
        if bytes.last().is_some_and(|last| last.trailing_zeros() < unused as u32 && *last != 0) {
            return Err(malformed("unused bits of the prefix are not 0"));
        }
        Ok(Request::Digest(DigestRequest { bits: bits as u16, prefix }))
    }
}

fn read_jws(d: &mut Decoder<'_>) -> Result<String, HeadError> {
    let text = d.str()?;
    if text.len() > MAX_JWS_BYTES {
        return Err(HeadError::TooLarge("a signed text is longer than 4,096 bytes"));
    }
    Ok(text.to_owned())
}

fn malformed(text: &str) -> Refusal {
    Refusal::new(Status::Malformed, text)
}

fn check_length(bytes: usize) -> Result<(), Refusal> {
    if (1..=MAX_BLOCK_BYTES).contains(&bytes) { Ok(()) } else { Err(malformed("a block has 1 to 1,048,576 bytes")) }
}

fn non_empty<T>(items: Vec<T>, otherwise: &str) -> Result<Vec<T>, Refusal> {
    if items.is_empty() { Err(malformed(otherwise)) } else { Ok(items) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chunkstore_block::{PlatformFingerprint, PublicationId};

    fn requests() -> Vec<Request> {
        let id = BlockId::of(b"x");
        let references = vec![Reference {
            platform: PlatformFingerprint::from_bytes([1; 32]),
            publication: PublicationId::from_bytes([2; 16]),
        }];
        let authorized = vec![references[0]; MAX_REFERENCES_PER_REQUEST];
        let authority = "header.claims.signature".to_owned();
        let body = Bytes::from_static(b"x");
        let mut prefix = [0; 32];
        prefix[..2].copy_from_slice(&[0xff, 0xa0]);
        vec![
            Request::Put { id, references: references.clone(), authority: authority.clone(), body },
            Request::Get { id },
            Request::Ref { ids: vec![id, BlockId::of(b"y")], references, authority: authority.clone() },
            Request::Has { ids: vec![id; MAX_IDS_PER_REQUEST] },
            Request::Digest(DigestRequest { bits: 11, prefix }),
            Request::Digest(DigestRequest { bits: 0, prefix: [0; 32] }),
            Request::Digest(DigestRequest { bits: 256, prefix: [0xff; 32] }),
            Request::Delete { order: authority },
            Request::Audit { id, nonce: [3; 32] },
            Request::Offer { blocks: vec![(id, 1), (BlockId::of(b"y"), MAX_BLOCK_BYTES as u32)] },
            Request::Ping,
            Request::References { ids: vec![id; MAX_REFERENCE_IDS] },
            Request::Pull { id },
            Request::Orders { epoch: u64::MAX, after: 7 },
            Request::Revocations,
            Request::Reach { port: 65_535 },
            Request::Authorities { references: authorized },
        ]
    }

    #[test]
    fn requests_round_trip() {
        for request in requests() {
            assert_eq!(Request::from_frame(request.clone().into_frame(3)), Ok(request));
        }
    }

    #[test]
    fn changed_heads_never_panic_and_never_change_the_kind() {
        for request in requests() {
            let frame = request.into_frame(1);
            for at in 0..frame.head.len() {
                for flip in [1, 0x20, 0x80] {
                    let mut head = frame.head.to_vec();
                    head[at] ^= flip;
                    if let Ok(request) = Request::from_frame(Frame { head: head.into(), ..frame.clone() }) {
                        assert_eq!(request.into_frame(1).kind, frame.kind);
                    }
                }
                let cut_off = Frame { head: frame.head.slice(..at), ..frame.clone() };
                assert!(Request::from_frame(cut_off).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn unknown_kinds_and_missing_keys_are_named() {
        // A later version's request, whose key 1 is of another type.
        let later = head(1, |e| put_text(e, 1, "a range"));
        let frame = Frame { kind: 0x7f, request_id: 1, head: later, body: Bytes::new() };
        assert_eq!(Request::from_frame(frame).unwrap_err().status, Status::Unsupported);
        for kind in 0x00..=0x10 {
            let frame = Frame { kind, request_id: 1, head: head(0, |_| ()), body: Bytes::new() };
            let asked = Request::from_frame(frame).map_err(|refusal| refusal.status);
            // 0x00 is the hello, which nobody asks for, and 0x10 is not given yet.
            let expected = match kind {
                0x00 | 0x10 => Err(Status::Unsupported),
                0x09 => Ok(Request::Ping),
                0x0d => Ok(Request::Revocations),
                _ => Err(Status::Malformed),
            };
            assert_eq!(asked, expected, "kind {kind:#04x}");
        }
    }

    #[test]
    fn a_port_is_one() {
        for port in [0, 65_536, u64::MAX] {
            let frame = Frame {
                kind: Kind::Reach as u8,
                request_id: 1,
                head: head(1, |e| put_uint(e, 1, port)),
                body: Bytes::new(),
            };
            assert_eq!(Request::from_frame(frame).unwrap_err().status, Status::Malformed, "{port}");
        }
    }

    #[test]
    fn a_prefix_is_as_long_as_it_says_and_zero_behind() {
        for (bits, bytes) in [(0, &[0][..]), (9, &[0xff]), (9, &[0xff, 0x40]), (257, &[0xff; 33]), (1, &[1])] {
            let head = head(2, |e| {
                put_uint(e, 1, bits);
                put_bytes(e, 2, bytes);
            });
            let frame = Frame { kind: Kind::Digest as u8, request_id: 1, head, body: Bytes::new() };
            assert_eq!(Request::from_frame(frame).unwrap_err().status, Status::Malformed, "{bits} bits of {bytes:?}");
        }
    }

    #[test]
    fn what_is_over_a_limit_is_too_large() {
        let Some(Request::Put { id, references, body, .. }) = requests().into_iter().next() else {
            panic!("the first is a put")
        };
        let without_body =
            Request::Put { id, references: references.clone(), authority: "x".into(), body: Bytes::new() };
        let long = Request::Put { id, references: references.clone(), authority: "x".repeat(4097), body };
        let many = Request::Ref { ids: vec![id], references: vec![references[0]; 17], authority: "x".into() };
        let ids = Request::Has { ids: vec![id; MAX_IDS_PER_REQUEST + 1] };
        let some = Request::References { ids: vec![id; MAX_REFERENCE_IDS + 1] };
        let offer = Request::Offer { blocks: vec![(id, 1); MAX_IDS_PER_REQUEST + 1] };
        let order = Request::Delete { order: "x".repeat(4097) };
        for request in [long, many, ids, some, offer, order] {
            assert_eq!(Request::from_frame(request.into_frame(1)).unwrap_err().status, Status::TooLarge);
        }
        for empty in [Request::Offer { blocks: vec![(id, 0)] }, without_body] {
            assert_eq!(Request::from_frame(empty.into_frame(1)).unwrap_err().status, Status::Malformed);
        }
    }
}
