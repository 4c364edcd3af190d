//! Frames and heads of a fuzzer.
#![allow(clippy::expect_used, missing_docs, reason = "a broken promise is to end the run")]

use super::frame::{Envelope, Frame, MAX_HEAD_BYTES};
use super::message::{Kind, Request, Response, check_hello};
use bytes::Bytes;
use chunkstore_block::MAX_BLOCK_BYTES;

pub use super::channel::fuzzing::frames;
pub use super::handshake::fuzzing::{member, stranger};

/// What is read as a request is written so that it is read as the same.
pub fn request(kind: u8, head: &[u8], body: &[u8]) {
    if let Ok(request) = Request::from_frame(frame(kind, head, body)) {
        let again = Request::from_frame(request.clone().into_frame(7));
        assert_eq!(again, Ok(request));
    }
}

/// What is read as an answer to a question about `ids` ids is written so that it is read as the same.
pub fn response(kind: u8, ids: usize, head: &[u8], body: &[u8]) {
    let Some(asked) = Kind::of_request(kind) else { return };
    let answer = frame(asked as u8 | super::frame::RESPONSE, head, body);
    let Ok(response) = Response::from_frame(answer, asked, 7, ids) else { return };
    // A text that is too long is cut when it is written.
    if !matches!(response, Response::Refused(_)) {
        let again = Response::from_frame(response.clone().into_frame(kind, 7), asked, 7, ids);
        assert_eq!(again.expect("what was written is read"), response);
    }
}

pub fn hello(kind: u8, head: &[u8]) {
    if let Ok(under_way) = check_hello(&frame(kind, head, &[])) {
        assert!((1..=16).contains(&under_way));
    }
}

pub fn envelope(bytes: &[u8; 16]) {
    if let Ok(envelope) = Envelope::decode(bytes) {
        assert!(envelope.payload_bytes() <= MAX_HEAD_BYTES + MAX_BLOCK_BYTES);
    }
}

fn frame(kind: u8, head: &[u8], body: &[u8]) -> Frame {
    let (head, body) = (Bytes::copy_from_slice(head), Bytes::copy_from_slice(body));
    Frame { kind, request_id: 7, head, body }
}
