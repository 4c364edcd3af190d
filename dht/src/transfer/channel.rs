//! An authenticated TCP connection that carries frames in Noise transport messages.

use super::TransferError;
use super::frame::{ENVELOPE_BYTES, Envelope, Frame};
use bytes::{Bytes, BytesMut};
use libp2p::PeerId;
use snow::TransportState;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const NOISE_TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// The most plaintext in one Noise message (Noise specification §3: a message is at most 65,535 bytes).
const MAX_PIECE: usize = 65_535 - NOISE_TAG_BYTES;
/// Read in pieces of about four Noise messages: fewer system calls, and 256 KiB a connection.
const READ_BUFFER: usize = 256 * 1024;

/// A connection after its handshake. One request at a time; owned by whoever is talking.
pub(super) struct Channel {
    stream: BufReader<TcpStream>,
    noise: TransportState,
    peer: PeerId,
    /// Ciphertext of the frame being written; kept so that its memory is touched once.
    outgoing: Vec<u8>,
    /// Ciphertext of the Noise message being read.
    incoming: Vec<u8>,
    /// Plaintext of a first or odd Noise message.
    piece: Vec<u8>,
}

impl Channel {
    pub(super) fn new(stream: TcpStream, noise: TransportState, peer: PeerId) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BUFFER, stream),
            noise,
            peer,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            piece: vec![0; MAX_PIECE],
        }
    }

    /// The peer that the handshake proved.
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    /// Encrypts a frame and writes it in one call: a short write followed by a wait for the answer would meet the
    /// peer's delayed acknowledgement (40 ms).
    pub(super) async fn send(&mut self, frame: &Frame) -> Result<(), TransferError> {
        self.outgoing.clear();
        let envelope = frame.envelope();
        let mut first = Vec::with_capacity(MAX_PIECE);
        first.extend_from_slice(&envelope);
        let head = frame.head.as_ref();
        let head_room = (MAX_PIECE - first.len()).min(head.len());
        first.extend_from_slice(&head[..head_room]);
        let body_room = (MAX_PIECE - first.len()).min(if head_room == head.len() { frame.body.len() } else { 0 });
        first.extend_from_slice(&frame.body[..body_room]);
        self.seal_piece(&first)?;
        // A head that overflows the first message goes on in the second, together with what fits of the body.
        let rest_of_head = &head[head_room..];
        if rest_of_head.is_empty() {
            for piece in frame.body[body_room..].chunks(MAX_PIECE) {
                self.seal_piece(piece)?;
            }
        } else {
            let rest = [rest_of_head, &frame.body].concat();
            for piece in rest.chunks(MAX_PIECE) {
                self.seal_piece(piece)?;
            }
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

    /// Reads the next frame; `None` when the peer closed between frames.
    pub(super) async fn receive(&mut self) -> Result<Option<Frame>, TransferError> {
        let Some(length) = self.next_message().await? else { return Ok(None) };
        let first = self.open_into_piece(length)?;
        let (envelope, rest) = self.piece[..first]
            .split_first_chunk::<ENVELOPE_BYTES>()
            .ok_or(TransferError::Protocol("a frame is shorter than its envelope"))?;
        let envelope = Envelope::decode(envelope)?;
        let total = envelope.head_bytes + envelope.body_bytes;
        if rest.len() > total {
            return Err(TransferError::Protocol("a frame is longer than its envelope says"));
        }
        let mut payload = BytesMut::with_capacity(total);
        payload.extend_from_slice(rest);
        while payload.len() < total {
            let length = self.next_message().await?.ok_or(TransferError::Protocol("a frame was cut off"))?;
            self.open_onto(length, &mut payload, total)?;
        }
        let body: Bytes = payload.split_off(envelope.head_bytes).freeze();
        let head = Bytes::copy_from_slice(&payload);
        Ok(Some(Frame { kind: envelope.kind, request_id: envelope.request_id, head, body }))
    }

    /// Reads one Noise message into `incoming`; its length, or `None` at a clean end.
    async fn next_message(&mut self) -> Result<Option<usize>, TransferError> {
        let mut length = [0; LENGTH_BYTES];
        if self.stream.read(&mut length[..1]).await? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut length[1..]).await?;
        let length = usize::from(u16::from_be_bytes(length));
        if length < NOISE_TAG_BYTES {
            return Err(TransferError::Protocol("a message is shorter than its tag"));
        }
        self.incoming.resize(length, 0);
        self.stream.read_exact(&mut self.incoming).await?;
        Ok(Some(length))
    }

    fn open_into_piece(&mut self, length: usize) -> Result<usize, TransferError> {
        self.noise
            .read_message(&self.incoming[..length], &mut self.piece)
            .map_err(|_| TransferError::Protocol("a message does not decrypt"))
    }

    /// Decrypts straight onto the end of `payload`, which may not pass `total`.
    fn open_onto(&mut self, length: usize, payload: &mut BytesMut, total: usize) -> Result<(), TransferError> {
        let plain = length - NOISE_TAG_BYTES;
        let start = payload.len();
        if plain == 0 || start + plain > total {
            return Err(TransferError::Protocol("a frame's messages do not add up to its length"));
        }
        payload.resize(start + plain, 0);
        self.noise
            .read_message(&self.incoming[..length], &mut payload[start..])
            .map_err(|_| TransferError::Protocol("a message does not decrypt"))?;
        Ok(())
    }
}
