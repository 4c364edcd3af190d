//! Requests and responses: the CBOR heads of frames (`docs/protocol.md` §4.2).

use super::TransferError;
use super::frame::{Frame, RESPONSE};
use bytes::Bytes;
use chunkstore_block::{BlockId, PlatformFingerprint, PublicationId, Reference};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// The most ids in one `ref` or `has`.
pub const MAX_IDS_PER_REQUEST: usize = 1024;
const MAX_REFERENCES: usize = 16;
const MAX_AUTHORITY_BYTES: usize = 4096;
const MAX_TEXT_BYTES: usize = 256;

const KIND_HELLO: u8 = 0x00;
const KIND_GET: u8 = 0x01;
const KIND_PUT: u8 = 0x02;
const KIND_REF: u8 = 0x03;
const KIND_HAS: u8 = 0x04;

/// What is asked of a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Get { id: BlockId },
    Put { id: BlockId, references: Vec<Reference>, authority: String, body: Bytes },
    Ref { ids: Vec<BlockId>, references: Vec<Reference>, authority: String },
    Has { ids: Vec<BlockId> },
}

/// What a holder answers; the kind follows the request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// To `get`.
    Block(Bytes),
    /// To `put`.
    Done,
    /// To `ref` and `has`, one for each id.
    Answers(Vec<bool>),
    Refused(Refusal),
}

/// The status codes of protocol version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done; for `put`: durable.
    Ok = 0,
    /// The block is not in the durable store.
    NotFound = 1,
    /// The upload authority does not allow it.
    Refused = 2,
    /// SHA-256 of the body is not the id.
    Mismatch = 3,
    /// No room.
    Full = 4,
    /// Over a limit.
    TooLarge = 5,
    /// The head lacks a key or has a wrong type.
    Malformed = 6,
    /// Too many requests.
    Busy = 7,
    /// A kind that the node does not know.
    Unsupported = 8,
    /// The node's own fault.
    Internal = 9,
}

impl Status {
    /// The name in the protocol document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not-found",
            Self::Refused => "refused",
            Self::Mismatch => "mismatch",
            Self::Full => "full",
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// A code that this version does not know is the peer's fault, whatever it was.
    fn from_code(code: u8) -> Self {
        const ALL: [Status; 10] = [
            Status::Ok,
            Status::NotFound,
            Status::Refused,
            Status::Mismatch,
            Status::Full,
            Status::TooLarge,
            Status::Malformed,
            Status::Busy,
            Status::Unsupported,
            Status::Internal,
        ];
        ALL.get(usize::from(code)).copied().unwrap_or(Self::Internal)
    }
}

/// A request that was answered with no: the status and a text for the peer's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Never [`Status::Ok`].
    pub status: Status,
    /// At most 256 bytes; longer ones are cut.
    pub text: String,
}

impl Refusal {
    /// A refusal with its reason.
    #[must_use]
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        debug_assert!(status != Status::Ok);
        Self { status, text: text.into() }
    }
}

/// The listener's first frame: version 1, up to `under_way` requests at a time.
pub(super) fn hello(under_way: u32) -> Frame {
    let head = head(3, |e| {
        put_uint(e, 0, 0);
        put_uint(e, 2, 1);
        put_uint(e, 3, u64::from(under_way));
    });
    Frame { kind: KIND_HELLO, request_id: 0, head, body: Bytes::new() }
}

pub(super) fn check_hello(frame: &Frame) -> Result<(), TransferError> {
    let bad = |_| TransferError::Protocol("the peer's hello does not decode");
    let mut version = None;
    read_map(&frame.head, |key, d| {
        match key {
            2 => version = Some(d.u32()?),
            _ => d.skip()?,
        }
        Ok(())
    })
    .map_err(bad)?;
    if frame.kind != KIND_HELLO || version != Some(1) {
        return Err(TransferError::Protocol("the peer does not greet with version 1"));
    }
    Ok(())
}

impl Request {
    /// How many ids it asks about.
    pub(super) fn id_count(&self) -> usize {
        match self {
            Self::Get { .. } | Self::Put { .. } => 1,
            Self::Ref { ids, .. } | Self::Has { ids } => ids.len(),
        }
    }

    pub(super) fn into_frame(self, request_id: u32) -> Frame {
        let (kind, head, body) = match self {
            Self::Get { id } => (KIND_GET, head(1, |e| put_id(e, &id)), Bytes::new()),
            Self::Put { id, references, authority, body } => {
                let head = head(3, |e| {
                    put_id(e, &id);
                    put_references(e, &references);
                    put_text(e, 3, &authority);
                });
                (KIND_PUT, head, body)
            }
            Self::Ref { ids, references, authority } => {
                let head = head(3, |e| {
                    put_ids(e, &ids);
                    put_references(e, &references);
                    put_text(e, 3, &authority);
                });
                (KIND_REF, head, Bytes::new())
            }
            Self::Has { ids } => (KIND_HAS, head(1, |e| put_ids(e, &ids)), Bytes::new()),
        };
        Frame { kind, request_id, head, body }
    }

    /// The request, or what to answer instead.
    pub(super) fn from_frame(frame: Frame) -> Result<Self, Refusal> {
        // First of all: a newer peer's request is not malformed for being unknown.
        if !matches!(frame.kind, KIND_GET | KIND_PUT | KIND_REF | KIND_HAS) {
            return Err(Refusal::new(Status::Unsupported, format!("kind {:#04x} is unknown here", frame.kind)));
        }
        let mut fields = RequestFields::default();
        let ids = matches!(frame.kind, KIND_REF | KIND_HAS);
        read_map(&frame.head, |key, d| fields.read(key, ids, d)).map_err(HeadError::into_refusal)?;
        match frame.kind {
            KIND_GET => Ok(Self::Get { id: fields.id()? }),
            KIND_PUT => Ok(Self::Put {
                id: fields.id()?,
                references: fields.references()?,
                authority: fields.authority()?,
                body: frame.body,
            }),
            KIND_REF => {
                Ok(Self::Ref { ids: fields.ids()?, references: fields.references()?, authority: fields.authority()? })
            }
            _ => Ok(Self::Has { ids: fields.ids()? }),
        }
    }
}

/// What is wrong with a head.
#[derive(Debug)]
enum HeadError {
    Malformed(minicbor::decode::Error),
    /// Over a limit of the protocol document; which one.
    TooLarge(&'static str),
}

impl HeadError {
    fn into_refusal(self) -> Refusal {
        match self {
            Self::Malformed(error) => Refusal::new(Status::Malformed, error.to_string()),
            Self::TooLarge(what) => Refusal::new(Status::TooLarge, what),
        }
    }
}

impl From<minicbor::decode::Error> for HeadError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self::Malformed(error)
    }
}

/// The keys of a request's head as far as they came.
#[derive(Default)]
struct RequestFields {
    ids: Vec<BlockId>,
    references: Vec<Reference>,
    authority: Option<String>,
}

impl RequestFields {
    fn read(&mut self, key: u64, many: bool, d: &mut Decoder<'_>) -> Result<(), HeadError> {
        match key {
            1 if many => self.ids = read_array(d, MAX_IDS_PER_REQUEST, read_id)?,
            1 => self.ids = vec![read_id(d)?],
            2 => self.references = read_array(d, MAX_REFERENCES, read_reference)?,
            3 => {
                let text = d.str()?;
                if text.len() > MAX_AUTHORITY_BYTES {
                    return Err(HeadError::TooLarge("the upload authority is longer than 4,096 bytes"));
                }
                self.authority = Some(text.to_owned());
            }
            _ => d.skip()?,
        }
        Ok(())
    }

    fn id(&mut self) -> Result<BlockId, Refusal> {
        self.ids.pop().ok_or_else(|| Refusal::new(Status::Malformed, "key 1, the block id, is missing"))
    }

    fn ids(&mut self) -> Result<Vec<BlockId>, Refusal> {
        non_empty(std::mem::take(&mut self.ids), "key 1, the block ids, is missing or empty")
    }

    fn references(&mut self) -> Result<Vec<Reference>, Refusal> {
        non_empty(std::mem::take(&mut self.references), "key 2, the references, is missing or empty")
    }

    fn authority(&mut self) -> Result<String, Refusal> {
        self.authority.take().ok_or_else(|| Refusal::new(Status::Malformed, "key 3, the upload authority, is missing"))
    }
}

fn non_empty<T>(items: Vec<T>, otherwise: &str) -> Result<Vec<T>, Refusal> {
    if items.is_empty() { Err(Refusal::new(Status::Malformed, otherwise)) } else { Ok(items) }
}

impl Response {
    /// The frame that answers a request of `kind`.
    pub(super) fn into_frame(self, kind: u8, request_id: u32) -> Frame {
        let (head, body) = match self {
            Self::Block(body) => (head(1, |e| put_uint(e, 0, 0)), body),
            Self::Done => (head(1, |e| put_uint(e, 0, 0)), Bytes::new()),
            Self::Answers(answers) => {
                let bytes: Vec<u8> = answers.into_iter().map(u8::from).collect();
                let head = head(2, |e| {
                    put_uint(e, 0, 0);
                    put_bytes(e, 2, &bytes);
                });
                (head, Bytes::new())
            }
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
    pub(super) fn from_frame(frame: Frame, kind: u8, request_id: u32, ids: usize) -> Result<Self, TransferError> {
        if frame.kind != kind | RESPONSE || frame.request_id != request_id {
            return Err(TransferError::Protocol("an answer to a question that was not asked"));
        }
        let mut status = None;
        let mut text = String::new();
        let mut answers = Vec::new();
        read_map(&frame.head, |key, d| {
            match key {
                0 => status = Some(d.u8()?),
                1 => text = cut(d.str()?, MAX_TEXT_BYTES).to_owned(),
                2 => answers = d.bytes()?.iter().map(|byte| *byte == 1).collect(),
                _ => d.skip()?,
            }
            Ok(())
        })
        .map_err(|_| TransferError::Protocol("the head of an answer does not decode"))?;
        let status = status.ok_or(TransferError::Protocol("an answer without a status"))?;
        match (Status::from_code(status), kind) {
            (Status::Ok, KIND_GET) => Ok(Self::Block(frame.body)),
            (Status::Ok, KIND_REF | KIND_HAS) if answers.len() == ids => Ok(Self::Answers(answers)),
            (Status::Ok, KIND_REF | KIND_HAS) => Err(TransferError::Protocol("not one answer for each id")),
            (Status::Ok, _) => Ok(Self::Done),
            (status, _) => Ok(Self::Refused(Refusal { status, text })),
        }
    }
}

/// The longest prefix of at most `limit` bytes that is whole characters.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

type HeadEncoder = Encoder<Vec<u8>>;

/// A CBOR map of `entries` entries, which `fill` writes in ascending order of their keys.
fn head(entries: u64, fill: impl FnOnce(&mut HeadEncoder)) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    written(encoder.map(entries));
    fill(&mut encoder);
    encoder.into_writer().into()
}

/// Writing to a vector cannot fail; the error type says so.
fn written<T>(result: Result<T, minicbor::encode::Error<std::convert::Infallible>>) {
    debug_assert!(result.is_ok());
}

fn put_uint(e: &mut HeadEncoder, key: u64, value: u64) {
    written(e.u64(key).and_then(|e| e.u64(value)));
}

fn put_bytes(e: &mut HeadEncoder, key: u64, value: &[u8]) {
    written(e.u64(key).and_then(|e| e.bytes(value)));
}

fn put_text(e: &mut HeadEncoder, key: u64, value: &str) {
    written(e.u64(key).and_then(|e| e.str(value)));
}

fn put_id(e: &mut HeadEncoder, id: &BlockId) {
    put_bytes(e, 1, id.as_bytes());
}

fn put_ids(e: &mut HeadEncoder, ids: &[BlockId]) {
    written(e.u64(1).and_then(|e| e.array(ids.len() as u64)));
    for id in ids {
        written(e.bytes(id.as_bytes()));
    }
}

fn put_references(e: &mut HeadEncoder, references: &[Reference]) {
    written(e.u64(2).and_then(|e| e.array(references.len() as u64)));
    for reference in references {
        written(
            e.array(2)
                .and_then(|e| e.bytes(reference.platform.as_bytes()))
                .and_then(|e| e.bytes(reference.publication.as_bytes())),
        );
    }
}

/// Reads a map with ascending unsigned keys and nothing after it; `entry` reads each value.
fn read_map(
    bytes: &[u8],
    mut entry: impl FnMut(u64, &mut Decoder<'_>) -> Result<(), HeadError>,
) -> Result<(), HeadError> {
    let mut decoder = Decoder::new(bytes);
    let entries = decoder.map()?.ok_or_else(|| minicbor::decode::Error::type_mismatch(Type::MapIndef))?;
    let mut previous = None;
    for _ in 0..entries {
        let key = decoder.u64()?;
        if previous.is_some_and(|previous| previous >= key) {
            return Err(minicbor::decode::Error::message("the keys of the head do not ascend").into());
        }
        previous = Some(key);
        entry(key, &mut decoder)?;
    }
    if decoder.position() != bytes.len() {
        return Err(minicbor::decode::Error::message("bytes after the head").into());
    }
    Ok(())
}

fn read_array<T>(
    d: &mut Decoder<'_>,
    limit: usize,
    item: impl Fn(&mut Decoder<'_>) -> Result<T, minicbor::decode::Error>,
) -> Result<Vec<T>, HeadError> {
    let count = d.array()?.ok_or_else(|| minicbor::decode::Error::type_mismatch(Type::ArrayIndef))?;
    if count > limit as u64 {
        return Err(HeadError::TooLarge("a list is longer than allowed"));
    }
    Ok((0..count).map(|_| item(d)).collect::<Result<_, _>>()?)
}

fn read_id(d: &mut Decoder<'_>) -> Result<BlockId, minicbor::decode::Error> {
    read_bytes(d).map(BlockId::from_bytes)
}

fn read_reference(d: &mut Decoder<'_>) -> Result<Reference, minicbor::decode::Error> {
    if d.array()? != Some(2) {
        return Err(minicbor::decode::Error::message("a reference is a list of two"));
    }
    let platform = PlatformFingerprint::from_bytes(read_bytes(d)?);
    let publication = PublicationId::from_bytes(read_bytes(d)?);
    Ok(Reference { platform, publication })
}

fn read_bytes<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], minicbor::decode::Error> {
    d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("a byte string has the wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let id = BlockId::of(b"x");
        let references = vec![Reference {
            platform: PlatformFingerprint::from_bytes([1; 32]),
            publication: PublicationId::from_bytes([2; 16]),
        }];
        let authority = "header.claims.signature".to_owned();
        vec![
            Request::Get { id },
            Request::Put {
                id,
                references: references.clone(),
                authority: authority.clone(),
                body: Bytes::from_static(b"x"),
            },
            Request::Ref { ids: vec![id, BlockId::of(b"y")], references, authority },
            Request::Has { ids: vec![id; MAX_IDS_PER_REQUEST] },
        ]
    }

    #[test]
    fn requests_round_trip() {
        for request in requests() {
            assert_eq!(Request::from_frame(request.clone().into_frame(3)), Ok(request));
        }
    }

    #[test]
    fn responses_round_trip() {
        for (kind, response, ids) in [
            (KIND_GET, Response::Block(Bytes::from_static(b"abc")), 1),
            (KIND_PUT, Response::Done, 1),
            (KIND_HAS, Response::Answers(vec![true, false]), 2),
            (KIND_PUT, Response::Refused(Refusal::new(Status::Full, "no room")), 1),
        ] {
            let frame = response.clone().into_frame(kind, 9);
            assert_eq!(Response::from_frame(frame.clone(), kind, 9, ids).unwrap(), response);
            assert!(Response::from_frame(frame, kind, 8, ids).is_err(), "another request's answer");
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
        let frame = Frame { kind: 0x05, request_id: 1, head: later, body: Bytes::new() };
        assert_eq!(Request::from_frame(frame).unwrap_err().status, Status::Unsupported);
        let frame = Frame { kind: KIND_PUT, request_id: 1, head: head(0, |_| ()), body: Bytes::new() };
        assert_eq!(Request::from_frame(frame).unwrap_err().status, Status::Malformed);
    }

    #[test]
    fn what_is_over_a_limit_is_too_large() {
        let [_, put, _, _] = requests().try_into().unwrap();
        let Request::Put { id, references, body, .. } = put else { panic!("the second is a put") };
        let long = Request::Put { id, references: references.clone(), authority: "x".repeat(4097), body };
        let many = Request::Ref { ids: vec![id], references: vec![references[0]; 17], authority: "x".into() };
        let ids = Request::Has { ids: vec![id; MAX_IDS_PER_REQUEST + 1] };
        for request in [long, many, ids] {
            assert_eq!(Request::from_frame(request.into_frame(1)).unwrap_err().status, Status::TooLarge);
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("abc", 256), "abc");
    }
}
