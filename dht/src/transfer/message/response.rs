//! What a node answers.

use super::cbor::{
    cut, head, put_bytes, put_references, put_text, put_uint, read_array, read_exact, read_map, read_reference,
};
use super::{Kind, Refusal, Status};
use crate::core::OfferAnswer;
use crate::transfer::TransferError;
use crate::transfer::buffers::SCRATCH_BYTES;
use crate::transfer::frame::{Frame, RESPONSE};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use chunkstore_block::{BlockId, MAX_BLOCK_BYTES, PlatformFingerprint, PublicationId, Reference};

const MAX_TEXT_BYTES: usize = 256;
/// Entries of a digest, and its children otherwise.
const MAX_ENTRIES: usize = 256;
const CHILDREN: usize = 16;
/// Id, digest and length.
const ENTRY_BYTES: usize = 32 + 16 + 4;
/// Count and sum.
const CHILD_BYTES: usize = 4 + 16;
const REFERENCE_BYTES: usize = 48;
/// How many references follow.
const COUNT_BYTES: usize = 2;
/// References of one block that an answer to `pull` or `refs` carries at most; the others come with the next comparison.
pub const MAX_NAMED_REFERENCES: usize = 1_024;

/// One answer; the kind follows the request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::transfer) enum Response {
    /// To `get`.
    Block(Bytes),
    /// To `put` and `delete`.
    Done,
    /// To `ref` and `has`, one for each id.
    Answers(Vec<bool>),
    Digest(DigestAnswer),
    /// To `audit`.
    Proof([u8; 32]),
    /// To `offer`, one for each id.
    Offered(Vec<OfferAnswer>),
    /// To `ping`.
    Status(PeerStatus),
    /// To `refs`.
    References(ReferencesPage),
    /// To `pull`.
    Pulled(Bytes, Vec<Reference>),
    Orders(OrdersPage),
    Revocations(Bytes),
    Reached(Reached),
    /// To `authorities`, one for each reference; empty for one that is not known.
    Authorities(Vec<String>),
    Refused(Refusal),
}

/// What a node has of a part of the keyspace, among what the asker is to have too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DigestAnswer {
    /// For each continuation of the prefix by four bits: how many entries, and the sum of their digests modulo 2^128.
    Children(Box<[(u32, u128); CHILDREN]>),
    /// All of them, at most 256.
    Entries(Vec<WireEntry>),
}

/// One block in a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireEntry {
    /// Which block.
    pub id: BlockId,
    /// Of its id and references.
    pub digest: [u8; 16],
    /// Its bytes.
    pub length: u32,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Whether it takes blocks.
    pub room: bool,
    /// Of its list of deletion orders; another one at each start.
    pub epoch: u64,
    /// How many orders it has.
    pub orders: u64,
    /// The sum of the numbers of its revocation lists; 0 if it has none.
    pub revocations: u64,
    /// [`crate::Membership::revocations_digest`]. `None`: a peer of before.
    pub revocations_digest: Option<[u8; 8]>,
}

/// Whether a peer could connect to this node anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The block plane.
    pub tcp: bool,
    /// Discovery.
    pub udp: bool,
}

/// Deletion orders after a place in a node's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrdersPage {
    /// Of the list.
    pub epoch: u64,
    /// Where the next page begins.
    pub next: u64,
    /// Signed texts of at most 4,096 bytes each, 1 MiB together.
    pub orders: Vec<String>,
}

/// The references of the first of some blocks, in the order in which they were asked for: as many blocks as fit one answer, at
/// least one. Whoever asked asks again for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferencesPage {
    of_ids: Vec<Vec<Reference>>,
    bytes: usize,
}

impl ReferencesPage {
    /// Adds those of the next block, at most [`MAX_NAMED_REFERENCES`] of them. `false`, and nothing is added, when it is full.
    pub fn push(&mut self, references: impl IntoIterator<Item = Reference>) -> bool {
        let references: Vec<_> = references.into_iter().take(MAX_NAMED_REFERENCES).collect();
        let bytes = self.bytes + COUNT_BYTES + references.len() * REFERENCE_BYTES;
        if bytes > MAX_BLOCK_BYTES {
            return false;
        }
        self.bytes = bytes;
        self.of_ids.push(references);
        true
    }

    /// For each block its references.
    #[must_use]
    pub fn into_inner(self) -> Vec<Vec<Reference>> {
        self.of_ids
    }

    fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.bytes);
        for references in &self.of_ids {
            // At most 1,024.
            body.put_u16(references.len() as u16);
            for reference in references {
                body.put_slice(reference.platform.as_bytes());
                body.put_slice(reference.publication.as_bytes());
            }
        }
        body.freeze()
    }

    fn decode(mut body: Bytes, ids: usize) -> Result<Self, TransferError> {
        let bad = || TransferError::Protocol("references are not as long as they say");
        let mut page = Self::default();
        while body.has_remaining() {
            let count = usize::from(body.try_get_u16().map_err(|_| bad())?);
            if count > MAX_NAMED_REFERENCES || body.remaining() < count * REFERENCE_BYTES {
                return Err(bad());
            }
            page.push((0..count).map(|_| read_packed(&mut body)));
        }
        // Nothing for the first would be asked for for ever.
        let fits = (ids.min(1)..=ids).contains(&page.of_ids.len());
        if fits { Ok(page) } else { Err(TransferError::Protocol("references of other blocks than were asked for")) }
    }
}

impl Response {
    /// What a node's memory holds for a block while it is sent, with the buffer that it is encrypted in. 0 for what is
    /// short.
    pub(in crate::transfer) fn counted_bytes(&self) -> usize {
        let body_bytes = match self {
            Self::Block(body) | Self::Pulled(body, _) | Self::Revocations(body) => body.len(),
            Self::References(page) => page.bytes,
            Self::Orders(OrdersPage { orders: texts, .. }) | Self::Authorities(texts) => {
                texts.iter().map(|text| 2 + text.len()).sum()
            }
            Self::Done
            | Self::Answers(_)
            | Self::Digest(_)
            | Self::Proof(_)
            | Self::Offered(_)
            | Self::Status(_)
            | Self::Reached(_)
            | Self::Refused(_) => 0,
        };
        if body_bytes == 0 { 0 } else { body_bytes + SCRATCH_BYTES }
    }

    /// The frame that answers a request of `kind`.
    pub(in crate::transfer) fn into_frame(self, kind: u8, request_id: u32) -> Frame {
        let ok = || head(1, |e| put_uint(e, 0, 0));
        let (head, body) = match self {
            Self::Block(body) | Self::Revocations(body) => (ok(), body),
            Self::Done => (ok(), Bytes::new()),
            Self::Answers(answers) => {
                (answer_bytes(&answers.into_iter().map(u8::from).collect::<Vec<_>>()), Bytes::new())
            }
            Self::Offered(answers) => {
                (answer_bytes(&answers.into_iter().map(|answer| answer as u8).collect::<Vec<_>>()), Bytes::new())
            }
            Self::Proof(proof) => (answer_bytes(&proof), Bytes::new()),
            Self::Digest(digest) => digest.encode(),
            Self::Status(status) => (status.encode(), Bytes::new()),
            Self::References(page) => (ok(), page.encode()),
            Self::Pulled(body, references) => {
                let head = head(2, |e| {
                    put_uint(e, 0, 0);
                    put_references(e, &references);
                });
                (head, body)
            }
            Self::Reached(Reached { tcp, udp }) => {
                let head = head(3, |e| {
                    put_uint(e, 0, 0);
                    put_uint(e, 2, tcp.into());
                    put_uint(e, 3, udp.into());
                });
                (head, Bytes::new())
            }
            Self::Orders(page) => page.encode(),
            Self::Authorities(authorities) => (ok(), encode_texts(&authorities)),
            Self::Refused(refusal) => {
                let text = cut(&refusal.text, MAX_TEXT_BYTES);
                let head = head(2, |e| {
                    put_uint(e, 0, refusal.status as u64);
                    put_text(e, 1, text);
                });
                (head, Bytes::new())
            }
        };
        Frame { kind: kind | RESPONSE, request_id, head, body }
    }

    /// The answer to a request of `kind` with `request_id` that asked about `ids` ids.
    pub(in crate::transfer) fn from_frame(
        frame: Frame,
        kind: Kind,
        request_id: u32,
        ids: usize,
    ) -> Result<Self, TransferError> {
        if frame.kind != kind as u8 | RESPONSE || frame.request_id != request_id {
            return Err(TransferError::Protocol("an answer to a question that was not asked"));
        }
        let fields = Fields::read(kind, &frame.head)?;
        let status = fields.status.ok_or(TransferError::Protocol("an answer without a status"))?;
        let status = Status::from_code(status);
        if status == Status::Ok {
            fields.into_response(kind, frame.body, ids)
        } else {
            Ok(Self::Refused(Refusal { status, text: fields.text }))
        }
    }
}

/// `{0: 0, 2: bytes}`.
fn answer_bytes(bytes: &[u8]) -> Bytes {
    head(2, |e| {
        put_uint(e, 0, 0);
        put_bytes(e, 2, bytes);
    })
}

impl DigestAnswer {
    fn encode(&self) -> (Bytes, Bytes) {
        let mut body = BytesMut::new();
        let form = match self {
            Self::Children(children) => {
                for (count, sum) in children.iter() {
                    body.put_u32(*count);
                    body.put_u128(*sum);
                }
                0
            }
            Self::Entries(entries) => {
                debug_assert!(entries.len() <= MAX_ENTRIES);
                for entry in entries {
                    body.put_slice(entry.id.as_bytes());
                    body.put_slice(&entry.digest);
                    body.put_u32(entry.length);
                }
                1
            }
        };
        let head = head(2, |e| {
            put_uint(e, 0, 0);
            put_uint(e, 2, form);
        });
        (head, body.freeze())
    }

    fn decode(form: u64, mut body: Bytes) -> Result<Self, TransferError> {
        let bad = TransferError::Protocol("a digest has the wrong length or form");
        match form {
            0 if body.len() == CHILDREN * CHILD_BYTES => {
                Ok(Self::Children(Box::new(std::array::from_fn(|_| (body.get_u32(), body.get_u128())))))
            }
            1 if body.len().is_multiple_of(ENTRY_BYTES) && body.len() <= MAX_ENTRIES * ENTRY_BYTES => {
                let mut entries = Vec::with_capacity(body.len() / ENTRY_BYTES);
                while body.has_remaining() {
                    let mut id = [0; 32];
                    body.copy_to_slice(&mut id);
                    let mut digest = [0; 16];
                    body.copy_to_slice(&mut digest);
                    entries.push(WireEntry { id: BlockId::from_bytes(id), digest, length: body.get_u32() });
                }
                Ok(Self::Entries(entries))
            }
            _ => Err(bad),
        }
    }
}

impl PeerStatus {
    fn encode(self) -> Bytes {
        head(5 + u64::from(self.revocations_digest.is_some()), |e| {
            put_uint(e, 0, 0);
            put_uint(e, 2, self.room.into());
            put_uint(e, 3, self.epoch);
            put_uint(e, 4, self.orders);
            put_uint(e, 5, self.revocations);
            if let Some(digest) = &self.revocations_digest {
                put_bytes(e, 6, digest);
            }
        })
    }
}

/// The caller has looked that there is one.
fn read_packed(body: &mut Bytes) -> Reference {
    let (mut platform, mut publication) = ([0; 32], [0; 16]);
    body.copy_to_slice(&mut platform);
    body.copy_to_slice(&mut publication);
    Reference {
        platform: PlatformFingerprint::from_bytes(platform),
        publication: PublicationId::from_bytes(publication),
    }
}

impl OrdersPage {
    fn encode(&self) -> (Bytes, Bytes) {
        let head = head(3, |e| {
            put_uint(e, 0, 0);
            put_uint(e, 2, self.epoch);
            put_uint(e, 3, self.next);
        });
        (head, encode_texts(&self.orders))
    }

    fn decode(epoch: u64, next: u64, body: Bytes) -> Result<Self, TransferError> {
        let orders = decode_texts(body)?;
        if orders.iter().any(String::is_empty) {
            return Err(TransferError::Protocol("an order is empty"));
        }
        Ok(Self { epoch, next, orders })
    }
}

/// Signed texts, each with its length before it.
fn encode_texts(texts: &[String]) -> Bytes {
    let mut body = BytesMut::new();
    for text in texts {
        // At most 4,096 bytes.
        body.put_u16(text.len() as u16);
        body.put_slice(text.as_bytes());
    }
    body.freeze()
}

fn decode_texts(mut body: Bytes) -> Result<Vec<String>, TransferError> {
    let bad = || TransferError::Protocol("signed texts are not as long as they say");
    let mut texts = Vec::new();
    while body.has_remaining() {
        let length = usize::from(body.try_get_u16().map_err(|_| bad())?);
        if body.remaining() < length {
            return Err(bad());
        }
        texts.push(String::from_utf8(body.split_to(length).to_vec()).map_err(|_| bad())?);
    }
    Ok(texts)
}

/// The keys of an answer's head as far as they came.
#[derive(Default)]
struct Fields {
    status: Option<u8>,
    text: String,
    bytes: Option<Vec<u8>>,
    digest: Option<[u8; 8]>,
    references: Vec<Reference>,
    numbers: [Option<u64>; 4],
}

impl Fields {
    fn read(kind: Kind, bytes: &[u8]) -> Result<Self, TransferError> {
        let mut fields = Self::default();
        read_map(bytes, |key, d| {
            match (kind, key) {
                (_, 0) => fields.status = Some(d.u8()?),
                (_, 1) => fields.text = cut(d.str()?, MAX_TEXT_BYTES).to_owned(),
                (Kind::Ref | Kind::Has | Kind::Offer | Kind::Audit, 2) => fields.bytes = Some(d.bytes()?.to_vec()),
                (Kind::Ping, 6) => fields.digest = Some(read_exact(d)?),
                (Kind::Pull, 2) => fields.references = read_array(d, MAX_NAMED_REFERENCES, read_reference)?,
                (Kind::Digest | Kind::Ping | Kind::Orders | Kind::Reach, 2..=5) => {
                    fields.numbers[key as usize - 2] = Some(d.u64()?)
                }
                _ => d.skip()?,
            }
            Ok(())
        })
        .map_err(|_| TransferError::Protocol("the head of an answer does not decode"))?;
        Ok(fields)
    }

    fn into_response(self, kind: Kind, body: Bytes, ids: usize) -> Result<Response, TransferError> {
        match kind {
            Kind::Get => Ok(Response::Block(body)),
            Kind::Put | Kind::Delete => Ok(Response::Done),
            Kind::Ref | Kind::Has => {
                Ok(Response::Answers(self.answers(ids)?.into_iter().map(|byte| byte == 1).collect()))
            }
            Kind::Offer => {
                let answers: Option<_> = self.answers(ids)?.into_iter().map(OfferAnswer::from_wire).collect();
                Ok(Response::Offered(answers.ok_or(TransferError::Protocol("an unknown answer to an offer"))?))
            }
            Kind::Audit => {
                let proof = self.bytes.and_then(|bytes| bytes.try_into().ok());
                Ok(Response::Proof(proof.ok_or(TransferError::Protocol("a proof has 32 bytes"))?))
            }
            Kind::Digest => Ok(Response::Digest(DigestAnswer::decode(self.number(2)?, body)?)),
            Kind::Ping => Ok(Response::Status(PeerStatus {
                room: self.number(2)? == 1,
                epoch: self.number(3)?,
                orders: self.number(4)?,
                revocations: self.number(5)?,
                revocations_digest: self.digest,
            })),
            Kind::References => Ok(Response::References(ReferencesPage::decode(body, ids)?)),
            Kind::Pull => Ok(Response::Pulled(body, self.references)),
            Kind::Orders => Ok(Response::Orders(OrdersPage::decode(self.number(2)?, self.number(3)?, body)?)),
            Kind::Revocations => Ok(Response::Revocations(body)),
            Kind::Authorities => {
                let authorities = decode_texts(body)?;
                match authorities.len() == ids {
                    true => Ok(Response::Authorities(authorities)),
                    false => Err(TransferError::Protocol("not one authority for each reference")),
                }
            }
            Kind::Reach => Ok(Response::Reached(Reached { tcp: self.number(2)? == 1, udp: self.number(3)? == 1 })),
        }
    }

    fn answers(self, ids: usize) -> Result<Vec<u8>, TransferError> {
        let answers = self.bytes.filter(|bytes| bytes.len() == ids);
        answers.ok_or(TransferError::Protocol("not one answer for each id"))
    }

    /// The number under a key from 2 to 5.
    fn number(&self, key: usize) -> Result<u64, TransferError> {
        self.numbers[key - 2].ok_or(TransferError::Protocol("an answer lacks a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(number: u8) -> Reference {
        Reference {
            platform: PlatformFingerprint::from_bytes([number; 32]),
            publication: PublicationId::from_bytes([number; 16]),
        }
    }

    /// Of blocks with so many references each.
    fn page(counts: &[usize]) -> ReferencesPage {
        let mut page = ReferencesPage::default();
        assert!(counts.iter().all(|count| page.push(vec![reference(1); *count])));
        page
    }

    /// 256 blocks with 1,024 references each are 12.6 MB, which no frame carries.
    #[test]
    fn references_of_as_many_blocks_are_answered_as_fit_a_body() {
        let mut page = ReferencesPage::default();
        let fitting = (0..256).take_while(|_| page.push(vec![reference(1); 2_000])).count();
        assert_eq!(fitting, MAX_BLOCK_BYTES / (2 + 1_024 * REFERENCE_BYTES));
        let response = Response::References(page);
        let frame = response.clone().into_frame(Kind::References as u8, 1);
        assert!(frame.body.len() <= MAX_BLOCK_BYTES && response.counted_bytes() == frame.body.len() + SCRATCH_BYTES);
        assert_eq!(Response::from_frame(frame.clone(), Kind::References, 1, 256).unwrap(), response);
        assert!(Response::from_frame(frame, Kind::References, 1, fitting - 1).is_err(), "more than were asked for");
        let nothing = Response::References(ReferencesPage::default()).into_frame(Kind::References as u8, 1);
        assert!(Response::from_frame(nothing, Kind::References, 1, 2).is_err(), "nothing for the first");
        let too_many = [&1_025_u16.to_be_bytes()[..], &vec![0; 1_025 * REFERENCE_BYTES]].concat();
        assert!(ReferencesPage::decode(too_many.into(), 1).is_err());
    }

    fn responses() -> Vec<(Kind, Response, usize)> {
        let id = BlockId::of(b"x");
        let entry = WireEntry { id, digest: [9; 16], length: 1 << 20 };
        let children = Box::new(std::array::from_fn(|i| (i as u32, u128::MAX - i as u128)));
        let status =
            PeerStatus { room: true, epoch: u64::MAX, orders: 3, revocations: 4, revocations_digest: Some([9; 8]) };
        let status_of_before = PeerStatus { revocations_digest: None, ..status };
        let orders = vec!["a.b.c".to_owned(), "x".repeat(4_096)];
        vec![
            (Kind::Get, Response::Block(Bytes::from_static(b"abc")), 1),
            (Kind::Put, Response::Done, 1),
            (Kind::Has, Response::Answers(vec![true, false]), 2),
            (Kind::Put, Response::Refused(Refusal::new(Status::Full, "no room")), 1),
            (Kind::Digest, Response::Digest(DigestAnswer::Children(children)), 0),
            (Kind::Digest, Response::Digest(DigestAnswer::Entries(vec![entry; MAX_ENTRIES])), 0),
            (Kind::Digest, Response::Digest(DigestAnswer::Entries(vec![])), 0),
            (Kind::Audit, Response::Proof([7; 32]), 1),
            (Kind::Offer, Response::Offered(vec![OfferAnswer::Full, OfferAnswer::NotMine]), 2),
            (Kind::Ping, Response::Status(status), 0),
            (Kind::Ping, Response::Status(status_of_before), 0),
            (Kind::References, Response::References(page(&[2, 0])), 2),
            // Fewer than were asked for.
            (Kind::References, Response::References(page(&[1])), 2),
            (Kind::Pull, Response::Pulled(Bytes::from_static(b"x"), vec![reference(1); MAX_NAMED_REFERENCES]), 1),
            (Kind::Orders, Response::Orders(OrdersPage { epoch: 1, next: 2, orders }), 0),
            (Kind::Revocations, Response::Revocations(Bytes::from_static(b"list")), 0),
            (Kind::Reach, Response::Reached(Reached { tcp: true, udp: false }), 0),
            (Kind::Authorities, Response::Authorities(vec!["x".repeat(4_096), String::new(), "a.b.c".to_owned()]), 3),
        ]
    }

    #[test]
    fn responses_round_trip() {
        for (kind, response, ids) in responses() {
            let frame = response.clone().into_frame(kind as u8, 9);
            assert!(frame.head.len() <= 65_536, "{kind:?}");
            assert_eq!(Response::from_frame(frame.clone(), kind, 9, ids).unwrap(), response);
            assert!(Response::from_frame(frame, kind, 8, ids).is_err(), "another request's answer");
        }
    }

    #[test]
    fn changed_answers_never_panic() {
        for (kind, response, ids) in responses() {
            let frame = response.into_frame(kind as u8, 1);
            for at in 0..frame.head.len().min(200) {
                for flip in [1, 0x20, 0x80] {
                    let mut head = frame.head.to_vec();
                    head[at] ^= flip;
                    drop(Response::from_frame(Frame { head: head.into(), ..frame.clone() }, kind, 1, ids));
                }
            }
            for at in 0..frame.body.len().min(400) {
                let cut_off = Frame { body: frame.body.slice(..at), ..frame.clone() };
                let decoded = Response::from_frame(cut_off, kind, 1, ids);
                let is_whole_somewhere =
                    at % ENTRY_BYTES == 0 || matches!(kind, Kind::Get | Kind::Pull | Kind::Revocations);
                let ends_with_a_block = kind == Kind::References && at == 2 + 2 * REFERENCE_BYTES;
                let ends_with_an_order = kind == Kind::Orders && (at == 0 || at == 2 + "a.b.c".len());
                assert!(
                    decoded.is_err() || is_whole_somewhere || ends_with_a_block || ends_with_an_order,
                    "{kind:?} cut at {at}"
                );
            }
        }
    }
}
