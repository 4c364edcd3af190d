//! Requests and responses: the CBOR heads of frames (`docs/protocol.md` §4.2).

mod cbor;
mod request;
mod response;

use super::TransferError;
use super::frame::Frame;
use bytes::Bytes;
use cbor::{head, put_uint, read_map};

pub use request::DigestRequest;
pub(super) use request::Request;
pub(super) use response::Response;
pub use response::{DigestAnswer, MAX_NAMED_REFERENCES, OrdersPage, PeerStatus, Reached, ReferencesPage, WireEntry};

/// The most ids in one `ref`, `has` or `offer`.
pub const MAX_IDS_PER_REQUEST: usize = 1024;
/// The most ids in one `refs`.
pub const MAX_REFERENCE_IDS: usize = 256;

/// The most references in one request.
pub const MAX_REFERENCES_PER_REQUEST: usize = 16;
/// The most requests under way on a connection (protocol §4.2), whatever a peer's hello allows.
pub(super) const MAX_UNDER_WAY: usize = 16;

const KIND_HELLO: u8 = 0x00;

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Get = 0x01,
    Put = 0x02,
    Ref = 0x03,
    Has = 0x04,
    Digest = 0x05,
    Delete = 0x06,
    Audit = 0x07,
    Offer = 0x08,
    Ping = 0x09,
    References = 0x0a,
    Pull = 0x0b,
    Orders = 0x0c,
    Revocations = 0x0d,
    Reach = 0x0e,
    Authorities = 0x0f,
}

impl Kind {
    pub(super) fn of_request(code: u8) -> Option<Self> {
        const ALL: [Kind; 15] = [
            Kind::Get,
            Kind::Put,
            Kind::Ref,
            Kind::Has,
            Kind::Digest,
            Kind::Delete,
            Kind::Audit,
            Kind::Offer,
            Kind::Ping,
            Kind::References,
            Kind::Pull,
            Kind::Orders,
            Kind::Revocations,
            Kind::Reach,
            Kind::Authorities,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// The status codes of protocol version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done; for `put`: durable.
    Ok = 0,
    /// The block is not in the durable store.
    NotFound = 1,
    /// The upload authority does not allow it, or the order is not one that the node heeds.
    Refused = 2,
    /// SHA-256 of the body is not the id.
    Mismatch = 3,
    /// No room.
    Full = 4,
    /// Over a limit.
    TooLarge = 5,
    /// The head lacks a key or has a wrong type, or a block has no bytes.
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
pub(super) fn hello(under_way: usize) -> Frame {
    let head = head(3, |e| {
        put_uint(e, 0, 0);
        put_uint(e, 2, 1);
        put_uint(e, 3, under_way as u64);
    });
    Frame { kind: KIND_HELLO, request_id: 0, head, body: Bytes::new() }
}

/// How many requests the listener lets be under way.
pub(super) fn check_hello(frame: &Frame) -> Result<usize, TransferError> {
    let bad = |_| TransferError::Protocol("the peer's hello does not decode");
    let (mut version, mut under_way) = (None, None);
    read_map(&frame.head, |key, d| {
        match key {
            2 => version = Some(d.u32()?),
            3 => under_way = Some(d.u32()?),
            _ => d.skip()?,
        }
        Ok(())
    })
    .map_err(bad)?;
    if frame.kind != KIND_HELLO || version != Some(1) {
        return Err(TransferError::Protocol("the peer does not greet with version 1"));
    }
    let under_way =
        under_way.filter(|allowed| *allowed > 0).ok_or(TransferError::Protocol("the peer allows no requests"))?;
    Ok(MAX_UNDER_WAY.min(under_way as usize))
}
