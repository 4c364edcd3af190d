//! An authenticated TCP connection that carries frames in Noise transport messages.

#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;

use super::TransferError;
use super::buffers::{Body, SCRATCH_BYTES, Scratch};
use super::cipher::{Opening, Sealing, TAG_BYTES};
use super::frame::{ENVELOPE_BYTES, Envelope, Frame};
use crate::Admission;
use libp2p::PeerId;
use socket2::SockRef;
use std::io;
use std::ops::Range;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout_at};

const LENGTH_BYTES: usize = 2;
/// The most plaintext in one Noise message (Noise specification §3: a message is at most 65,535 bytes).
const MAX_PIECE: usize = 65_535 - TAG_BYTES;
/// What the system keeps for a peer that does not read, besides what is on its way. Its own limit is 4 MiB and more, which
/// would hide from us that the peer is slow, and hold whole blocks outside every budget.
const UNSENT_BYTES: u32 = 256 * 1024;

/// A connection after its handshake.
pub(super) struct Channel {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) admission: Admission,
}

/// The half that writes.
pub(super) struct Sender {
    stream: OwnedWriteHalf,
    cipher: Sealing,
}

/// The half that reads.
pub(super) struct Receiver {
    stream: OwnedReadHalf,
    cipher: Opening,
    /// Ciphertext that has come, in `unread` of it. None while nothing is under way: most connections are idle.
    buffer: Option<Scratch>,
    unread: Range<usize>,
}

/// A frame whose envelope has come.
pub(super) struct Begun {
    envelope: Envelope,
    /// Where the plaintext behind it is, in the buffer.
    first: Range<usize>,
    /// The whole frame is to be there by then.
    deadline: Instant,
}

impl Channel {
    /// # Errors
    /// The system's, when the socket cannot be set up.
    pub(super) fn new(
        stream: TcpStream,
        (sealing, opening): (Sealing, Opening),
        admission: Admission,
    ) -> Result<Self, TransferError> {
        SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
        let (reading, writing) = stream.into_split();
        Ok(Self {
            sender: Sender { stream: writing, cipher: sealing },
            receiver: Receiver { stream: reading, cipher: opening, buffer: None, unread: 0..0 },
            admission,
        })
    }

    /// Makes the end abrupt: what the system still has for a peer that does not read is thrown away, where it would be kept
    /// for a quarter of an hour.
    pub(super) fn abandon(&self) {
        let set = SockRef::from(self.sender.stream.as_ref()).set_linger(Some(Duration::ZERO));
        if let Err(error) = set {
            tracing::debug!(%error, "cannot make a connection end at once");
        }
    }

    /// The peer that the handshake proved.
    pub(super) fn peer(&self) -> PeerId {
        self.admission.peer()
    }
}

impl Sender {
    /// Encrypts a frame and writes it, two messages at a time: the peer decrypts the first while the next are encrypted, and
    /// the ciphertext stays in the processor's cache. `TCP_NODELAY` is set, so no write waits for an acknowledgement.
    /// If it is not polled to its end, the connection is of no more use.
    pub(super) async fn send(&mut self, frame: &Frame) -> Result<(), TransferError> {
        // Envelope and head, filled up with the start of the body to whole messages; the rest goes without a copy.
        let mut start = [&frame.envelope()[..], &frame.head].concat();
        let missing = start.len().next_multiple_of(MAX_PIECE) - start.len();
        let (filling, rest) = frame.body.split_at(missing.min(frame.body.len()));
        start.extend_from_slice(filling);
        let mut batch = Scratch::take();
        let mut used = 0;
        for piece in start.chunks(MAX_PIECE).chain(rest.chunks(MAX_PIECE)) {
            if used + LENGTH_BYTES + piece.len() + TAG_BYTES > SCRATCH_BYTES {
                self.stream.write_all(&batch[..used]).await?;
                used = 0;
            }
            used += self.seal(piece, &mut batch[used..])?;
        }
        Ok(self.stream.write_all(&batch[..used]).await?)
    }

    /// One Noise message with its length before it; how many bytes that is.
    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<usize, TransferError> {
        // A piece is at most MAX_PIECE bytes, so the message fits two bytes of length.
        let length = plaintext.len() + TAG_BYTES;
        out[..LENGTH_BYTES].copy_from_slice(&(length as u16).to_be_bytes());
        let message = &mut out[LENGTH_BYTES..LENGTH_BYTES + length];
        message[..plaintext.len()].copy_from_slice(plaintext);
        self.cipher.seal(message)?;
        Ok(LENGTH_BYTES + length)
    }

    /// Says that nothing more comes.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

impl Receiver {
    /// Waits until there is something to read, and says whether there is: `false` when the peer has closed between frames.
    /// May be dropped at any time.
    pub(super) async fn ready(&mut self) -> Result<bool, TransferError> {
        if !self.unread.is_empty() {
            return Ok(true);
        }
        // The buffer is taken when there is something to put into it.
        self.buffer = None;
        self.stream.readable().await?;
        Ok(self.fill().await? > 0)
    }

    /// The next frame, all of it within `deadline` of its first byte. `None` when the peer has closed between frames.
    pub(super) async fn receive(&mut self, deadline: Duration) -> Result<Option<Frame>, TransferError> {
        if !self.ready().await? {
            return Ok(None);
        }
        let begun = self.begin(deadline).await?;
        self.finish(begun).await.map(Some)
    }

    /// Reads the first message of a frame. All of the frame must be there within `deadline`.
    pub(super) async fn begin(&mut self, deadline: Duration) -> Result<Begun, TransferError> {
        let deadline = Instant::now() + deadline;
        let first = timeout_at(deadline, self.next_message()).await.map_err(|_| timed_out())??;
        let plaintext = self.buffered(&first);
        let (envelope, _) = plaintext
            .split_first_chunk::<ENVELOPE_BYTES>()
            .ok_or(TransferError::Protocol("a frame is shorter than its envelope"))?;
        let envelope = Envelope::decode(envelope)?;
        if first.len() != MAX_PIECE.min(ENVELOPE_BYTES + envelope.payload_bytes()) {
            return Err(not_cut_as_said());
        }
        Ok(Begun { envelope, first: first.start + ENVELOPE_BYTES..first.end, deadline })
    }

    /// Reads the rest of a frame.
    pub(super) async fn finish(&mut self, begun: Begun) -> Result<Frame, TransferError> {
        timeout_at(begun.deadline, self.finish_in_time(begun)).await.map_err(|_| timed_out())?
    }

    /// Reads the rest of a frame and forgets it, a message at a time.
    pub(super) async fn skip(&mut self, begun: &Begun) -> Result<(), TransferError> {
        timeout_at(begun.deadline, self.skip_in_time(begun)).await.map_err(|_| timed_out())?
    }

    async fn skip_in_time(&mut self, begun: &Begun) -> Result<(), TransferError> {
        let mut missing = begun.payload_bytes() - begun.first.len();
        while missing > 0 {
            missing -= self.next_piece(missing).await?.len();
        }
        Ok(())
    }

    /// The next message of a frame of which so many bytes are missing.
    async fn next_piece(&mut self, missing: usize) -> Result<Range<usize>, TransferError> {
        let message = self.next_message().await?;
        if message.len() == MAX_PIECE.min(missing) { Ok(message) } else { Err(not_cut_as_said()) }
    }

    async fn finish_in_time(&mut self, begun: Begun) -> Result<Frame, TransferError> {
        let Envelope { kind, request_id, head_bytes, body_bytes } = begun.envelope;
        let (mut head, mut body) = (Vec::new(), Body::of_length(body_bytes));
        let mut missing = begun.envelope.payload_bytes() - begun.first.len();
        let mut place = |bytes: &[u8], body: &mut Body| {
            let (to_head, to_body) = bytes.split_at((head_bytes - head.len()).min(bytes.len()));
            head.extend_from_slice(to_head);
            body.extend(to_body);
        };
        place(self.buffered(&begun.first), &mut body);
        while missing > body_bytes {
            let message = self.next_piece(missing).await?;
            missing -= message.len();
            place(self.buffered(&message), &mut body);
        }
        self.fill_body(&mut body, missing).await?;
        Ok(Frame { kind, request_id, head: head.into(), body: body.into_bytes() })
    }

    /// Reads the `missing` bytes of a body, all of the rest of the frame. The ciphertext is read to where the plaintext is to be, and
    /// each message moves to its place while it is decrypted: nothing is copied.
    async fn fill_body(&mut self, body: &mut Body, missing: usize) -> Result<(), TransferError> {
        let messages = missing.div_ceil(MAX_PIECE);
        let (room, end) = (body.room(), missing + messages * (LENGTH_BYTES + TAG_BYTES));
        let (mut opened, mut next, mut come) = (0, 0, self.take_unread(&mut room[..end]));
        while opened < missing {
            let piece = MAX_PIECE.min(missing - opened);
            let behind = next + LENGTH_BYTES + piece + TAG_BYTES;
            loop {
                // As soon as it is there: what comes behind a message of another length may not come at all.
                let said = u16::from_be_bytes([room[next], room[next + 1]]);
                if come >= next + LENGTH_BYTES && usize::from(said) != piece + TAG_BYTES {
                    return Err(not_cut_as_said());
                }
                if come >= behind {
                    break;
                }
                // Not everything at once: what was read is still in the processor's cache when it is decrypted.
                let most = end.min(come + SCRATCH_BYTES);
                come += some(self.stream.read(&mut room[come..most]).await?)?;
            }
            opened += self.cipher.open(&mut room[opened..behind], next + LENGTH_BYTES - opened)?;
            next = behind;
        }
        body.advance(missing);
        Ok(())
    }

    /// Moves what has been read already, as much as fits; how much that is.
    fn take_unread(&mut self, to: &mut [u8]) -> usize {
        let count = self.unread.len().min(to.len());
        let taken = self.unread.start..self.unread.start + count;
        to[..count].copy_from_slice(self.buffered(&taken));
        self.unread.start += count;
        count
    }

    /// Reads one Noise message and decrypts it where it is, in the buffer.
    async fn next_message(&mut self) -> Result<Range<usize>, TransferError> {
        self.have(LENGTH_BYTES).await?;
        let at = self.unread.start;
        let length = self.buffer.as_ref().map_or(0, |b| usize::from(u16::from_be_bytes([b[at], b[at + 1]])));
        if length < TAG_BYTES {
            return Err(TransferError::Protocol("a message is shorter than its tag"));
        }
        self.have(LENGTH_BYTES + length).await?;
        let start = self.unread.start + LENGTH_BYTES;
        self.unread.start = start + length;
        let message = self.buffer.as_mut().map(|buffer| &mut buffer[start..start + length]);
        let opened = self.cipher.open(message.unwrap_or_default(), 0)?;
        Ok(start..start + opened)
    }

    /// Bytes of the buffer.
    fn buffered(&self, range: &Range<usize>) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[range.clone()])
    }

    /// Waits until so many bytes are unread, at most [`SCRATCH_BYTES`].
    async fn have(&mut self, bytes: usize) -> Result<(), TransferError> {
        while self.unread.len() < bytes {
            some(self.fill().await?)?;
        }
        Ok(())
    }

    /// Reads what there is, and moves what is unread to the front when there is no room for a message behind it.
    async fn fill(&mut self) -> io::Result<usize> {
        let buffer = self.buffer.get_or_insert_with(Scratch::take);
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.start + LENGTH_BYTES + usize::from(u16::MAX) > SCRATCH_BYTES {
            buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let count = self.stream.read(&mut buffer[self.unread.end..]).await?;
        self.unread.end += count;
        Ok(count)
    }

    /// Reads and forgets until the peer closes: closing with bytes unread would take from it what it has not read yet.
    pub(super) async fn discard(&mut self) {
        self.unread = 0..0;
        while self.fill().await.is_ok_and(|count| count > 0) {
            self.unread = 0..0;
        }
    }
}

impl Begun {
    /// Head and body, as announced.
    pub(super) fn payload_bytes(&self) -> usize {
        self.envelope.payload_bytes()
    }

    /// What it asks, by its kind and the number that its answer has to have.
    pub(super) fn request(&self) -> (u8, u32) {
        (self.envelope.kind, self.envelope.request_id)
    }

    /// It was we who did not read on for so long.
    pub(super) fn allow(&mut self, waited: Duration) {
        self.deadline += waited;
    }
}

/// The peer has closed where there is more to come.
fn some(count: usize) -> Result<usize, TransferError> {
    if count > 0 { Ok(count) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) }
}

fn not_cut_as_said() -> TransferError {
    TransferError::Protocol("a frame is not cut as the protocol says")
}

fn timed_out() -> TransferError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}
