//! Frames: the fixed envelope and its limits (`docs/protocol.md` §4.2).

use super::TransferError;
use bytes::Bytes;
use chunkstore_block::MAX_BLOCK_BYTES;

pub(super) const ENVELOPE_BYTES: usize = 16;
pub(super) const MAX_HEAD_BYTES: usize = 65_536;
/// Set in the kind of a response.
pub(super) const RESPONSE: u8 = 0x80;

/// One message of the block plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) request_id: u32,
    /// CBOR.
    pub(super) head: Bytes,
    /// A block, or empty.
    pub(super) body: Bytes,
}

impl Frame {
    pub(super) fn envelope(&self) -> [u8; ENVELOPE_BYTES] {
        debug_assert!(self.head.len() <= MAX_HEAD_BYTES && self.body.len() <= MAX_BLOCK_BYTES);
        let mut envelope = [0; ENVELOPE_BYTES];
        envelope[0] = self.kind;
        envelope[4..8].copy_from_slice(&self.request_id.to_be_bytes());
        envelope[8..12].copy_from_slice(&(self.head.len() as u32).to_be_bytes());
        envelope[12..16].copy_from_slice(&(self.body.len() as u32).to_be_bytes());
        envelope
    }
}

/// A decoded envelope: what follows it, within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) kind: u8,
    pub(super) request_id: u32,
    pub(super) head_bytes: usize,
    pub(super) body_bytes: usize,
}

impl Envelope {
    /// Head and body.
    pub(super) fn payload_bytes(&self) -> usize {
        self.head_bytes + self.body_bytes
    }

    pub(super) fn decode(bytes: &[u8; ENVELOPE_BYTES]) -> Result<Self, TransferError> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[1..4] != [0; 3] {
            return Err(TransferError::Protocol("reserved bytes of a frame are not zero"));
        }
        let (head_bytes, body_bytes) = (word(8) as usize, word(12) as usize);
        if head_bytes > MAX_HEAD_BYTES {
            return Err(TransferError::Protocol("the head of a frame is longer than 65,536 bytes"));
        }
        if body_bytes > MAX_BLOCK_BYTES {
            return Err(TransferError::Protocol("the body of a frame is longer than 1,048,576 bytes"));
        }
        Ok(Self { kind: bytes[0], request_id: word(4), head_bytes, body_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_round_trip_and_are_bounded() {
        let frame = Frame { kind: 2, request_id: 7, head: Bytes::from_static(b"abc"), body: Bytes::from(vec![0; 9]) };
        let decoded = Envelope::decode(&frame.envelope()).unwrap();
        assert_eq!(decoded, Envelope { kind: 2, request_id: 7, head_bytes: 3, body_bytes: 9 });
        for (at, value) in [(1, 1), (3, 1), (9, 2), (13, 0x20)] {
            let mut bytes = frame.envelope();
            bytes[at] = value;
            assert!(Envelope::decode(&bytes).is_err(), "byte {at}");
        }
    }
}
