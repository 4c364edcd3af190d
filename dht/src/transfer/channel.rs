//! An authenticated TCP connection that carries frames in Noise transport messages.

use super::TransferError;
use super::frame::{ENVELOPE_BYTES, Envelope, Frame};
use crate::Admission;
use bytes::{Bytes, BytesMut};
use libp2p::PeerId;
use snow::TransportState;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const NOISE_TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// The most plaintext in one Noise message (Noise specification §3: a message is at most 65,535 bytes).
const MAX_PIECE: usize = 65_535 - NOISE_TAG_BYTES;
/// A frame whose first byte has come is there by then: 1 MiB at 50 KB/s, with room.
const FRAME_DEADLINE: Duration = Duration::from_secs(25);
/// Read in pieces of about four Noise messages: fewer system calls, and 256 KiB a connection.
const READ_BUFFER: usize = 256 * 1024;

/// A connection after its handshake. One request at a time; owned by whoever is talking.
pub(super) struct Channel {
    stream: BufReader<TcpStream>,
    noise: TransportState,
    admission: Admission,
    /// Ciphertext of the frame being written; kept so that its memory is touched once.
    outgoing: Vec<u8>,
    /// Ciphertext of the Noise message being read.
    incoming: Vec<u8>,
    /// Plaintext of a first or odd Noise message.
    piece: Vec<u8>,
}

impl Channel {
    pub(super) fn new(stream: TcpStream, noise: TransportState, admission: Admission) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BUFFER, stream),
            noise,
            admission,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            piece: vec![0; MAX_PIECE],
        }
    }

    /// The peer that the handshake proved.
    pub(super) fn peer(&self) -> PeerId {
        self.admission.peer()
    }

    /// By what the peer was let in.
    pub(super) fn admission(&self) -> Admission {
        self.admission
    }

    /// Encrypts a frame and writes it in one call: a short write followed by a wait for the answer would meet the
    /// peer's delayed acknowledgement (40 ms).
    pub(super) async fn send(&mut self, frame: &Frame) -> Result<(), TransferError> {
        self.outgoing.clear();
        // Envelope and head, filled up with the start of the body to whole messages; the rest goes without a copy.
        let mut start = [&frame.envelope()[..], &frame.head].concat();
        let missing = start.len().next_multiple_of(MAX_PIECE) - start.len();
        let (filling, rest) = frame.body.split_at(missing.min(frame.body.len()));
        start.extend_from_slice(filling);
        for piece in start.chunks(MAX_PIECE).chain(rest.chunks(MAX_PIECE)) {
            self.seal_piece(piece)?;
        }
        self.stream.get_mut().write_all(&self.outgoing).await?;
        Ok(())
    }

    fn seal_piece(&mut self, plaintext: &[u8]) -> Result<(), TransferError> {
        let start = self.outgoing.len();
        self.outgoing.resize(start + LENGTH_BYTES + plaintext.len() + NOISE_TAG_BYTES, 0);
        let out = &mut self.outgoing[start..];
        let length = self
            .noise
            .write_message(plaintext, &mut out[LENGTH_BYTES..])
            .map_err(|_| TransferError::Protocol("a message could not be encrypted"))?;
        // A piece is at most MAX_PIECE bytes, so the message fits two bytes of length.
        out[..LENGTH_BYTES].copy_from_slice(&(length as u16).to_be_bytes());
        Ok(())
    }

    /// Reads the next frame. `None` when the peer closed between frames, or sent nothing for `idle`. A frame that has begun
    /// must be there within [`FRAME_DEADLINE`].
    pub(super) async fn receive(&mut self, idle: Duration) -> Result<Option<Frame>, TransferError> {
        let Ok(begun) = timeout(idle, self.stream.fill_buf()).await else { return Ok(None) };
        if begun?.is_empty() {
            return Ok(None);
        }
        let frame = timeout(FRAME_DEADLINE, self.receive_begun()).await;
        frame.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Some)
    }

    async fn receive_begun(&mut self) -> Result<Frame, TransferError> {
        self.next_message().await?;
        let first = self.open_into_piece()?;
        let (envelope, rest) = self.piece[..first]
            .split_first_chunk::<ENVELOPE_BYTES>()
            .ok_or(TransferError::Protocol("a frame is shorter than its envelope"))?;
        let envelope = Envelope::decode(envelope)?;
        let total = envelope.head_bytes + envelope.body_bytes;
        if first != MAX_PIECE.min(ENVELOPE_BYTES + total) {
            return Err(TransferError::Protocol("a frame is not cut as the protocol says"));
        }
        let mut payload = BytesMut::with_capacity(total);
        payload.extend_from_slice(rest);
        while payload.len() < total {
            self.next_message().await?;
            self.open_onto(&mut payload, total)?;
        }
        let body: Bytes = payload.split_off(envelope.head_bytes).freeze();
        let head = Bytes::copy_from_slice(&payload);
        Ok(Frame { kind: envelope.kind, request_id: envelope.request_id, head, body })
    }

    /// Reads one Noise message into `incoming`.
    async fn next_message(&mut self) -> Result<(), TransferError> {
        let length = usize::from(self.stream.read_u16().await?);
        if length < NOISE_TAG_BYTES {
            return Err(TransferError::Protocol("a message is shorter than its tag"));
        }
        self.incoming.resize(length, 0);
        self.stream.read_exact(&mut self.incoming).await?;
        Ok(())
    }

    fn open_into_piece(&mut self) -> Result<usize, TransferError> {
        self.noise
            .read_message(&self.incoming, &mut self.piece)
            .map_err(|_| TransferError::Protocol("a message does not decrypt"))
    }

    /// Decrypts straight onto the end of `payload`, which is `total` bytes long in the end.
    fn open_onto(&mut self, payload: &mut BytesMut, total: usize) -> Result<(), TransferError> {
        let start = payload.len();
        let piece = MAX_PIECE.min(total - start);
        if self.incoming.len() != piece + NOISE_TAG_BYTES {
            return Err(TransferError::Protocol("a frame is not cut as the protocol says"));
        }
        payload.resize(start + piece, 0);
        self.noise
            .read_message(&self.incoming, &mut payload[start..])
            .map_err(|_| TransferError::Protocol("a message does not decrypt"))?;
        Ok(())
    }
}
