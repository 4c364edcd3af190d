//! Sealed streams: ChaCha20-Poly1305 records over a QUIC stream (`docs/protocol.md` §3.2).

use crate::gate::{Role, Session};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use futures::{AsyncRead, AsyncWrite, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The most plaintext in one record.
const MAX_PLAINTEXT: usize = 16_384;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 2;
/// Bit 15 of the header: the last record of this direction.
const LAST: u16 = 0x8000;

/// A stream whose two directions are sealed, each under its own key.
///
/// The end is authenticated: a stream that stops without its last record reads as an error, not as an end.
#[derive(Debug)]
pub struct SealedStream<S> {
    inner: S,
    sealer: Sealer,
    opener: Opener,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl<S> SealedStream<S> {
    /// Seals `inner`, the stream with QUIC id `stream_id`, for the end that has `role` on the connection.
    pub(crate) fn new(inner: S, session: &Session, stream_id: u64, role: Role) -> Self {
        let cipher = |sender| ChaCha20Poly1305::new((&*session.stream_key(stream_id, sender)).into());
        Self {
            inner,
            sealer: Sealer { cipher: cipher(role), next: 0, closed: false },
            opener: Opener { cipher: cipher(role.other()), next: 0, ended: false },
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SealedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let copied = this.incoming.take_plaintext(buf);
            if copied > 0 || buf.is_empty() {
                return Poll::Ready(Ok(copied));
            }
            if this.opener.ended {
                return Poll::Ready(Ok(0));
            }
            ready!(this.incoming.poll_record(cx, &mut this.inner))?;
            this.incoming.open(&mut this.opener)?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SealedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.outgoing.poll_drain(cx, &mut this.inner))?;
        let piece = &buf[..buf.len().min(MAX_PLAINTEXT)];
        this.sealer.seal(piece, false, &mut this.outgoing.bytes)?;
        // Offer it at once; what the stream does not take now goes with the next write or flush.
        if let Poll::Ready(Err(error)) = this.outgoing.poll_drain(cx, &mut this.inner) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.outgoing.poll_drain(cx, &mut this.inner))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.outgoing.poll_drain(cx, &mut this.inner))?;
        if !this.sealer.closed {
            this.sealer.seal(&[], true, &mut this.outgoing.bytes)?;
            ready!(this.outgoing.poll_drain(cx, &mut this.inner))?;
        }
        Pin::new(&mut this.inner).poll_close(cx)
    }
}

/// One direction, the sender's end.
struct Sealer {
    cipher: ChaCha20Poly1305,
    next: u64,
    closed: bool,
}

impl Sealer {
    /// Appends one record to `out`.
    fn seal(&mut self, plaintext: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), SealError> {
        if self.closed {
            return Err(SealError::AfterTheEnd);
        }
        let length = (plaintext.len() + TAG_BYTES) as u16 | if last { LAST } else { 0 };
        let header = length.to_be_bytes();
        out.extend_from_slice(&header);
        let start = out.len();
        out.extend_from_slice(plaintext);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce(self.next), &header, (&mut out[start..]).into())
            .map_err(|_| SealError::DoesNotOpen)?;
        out.extend_from_slice(&tag);
        self.next += 1;
        self.closed = last;
        Ok(())
    }
}

/// One direction, the receiver's end.
struct Opener {
    cipher: ChaCha20Poly1305,
    next: u64,
    ended: bool,
}

impl Opener {
    /// Opens one record in place; on return `body` is the plaintext.
    fn open(&mut self, header: [u8; HEADER_BYTES], body: &mut Vec<u8>) -> Result<(), SealError> {
        let last = u16::from_be_bytes(header) & LAST != 0;
        let length = body.len().checked_sub(TAG_BYTES).ok_or(SealError::BadLength)?;
        if length == 0 && !last {
            return Err(SealError::BadLength);
        }
        let (text, tag) = body.split_at_mut(length);
        let tag = Tag::try_from(&*tag).map_err(|_| SealError::BadLength)?;
        self.cipher
            .decrypt_inout_detached(&nonce(self.next), &header, text.into(), &tag)
            .map_err(|_| SealError::DoesNotOpen)?;
        body.truncate(length);
        self.next += 1;
        self.ended = last;
        Ok(())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(next: {})", self.next)
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener(next: {})", self.next)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce.into()
}

/// The record being read, and the plaintext not yet taken. Holds one record at the most.
#[derive(Debug, Default)]
struct Incoming {
    header: [u8; HEADER_BYTES],
    /// Bytes of header and body read so far.
    filled: usize,
    body: Vec<u8>,
    /// Where the plaintext in `body` has been taken to; meaningful while `plain`.
    taken: usize,
    plain: bool,
}

impl Incoming {
    fn take_plaintext(&mut self, buf: &mut [u8]) -> usize {
        if !self.plain {
            return 0;
        }
        let rest = &self.body[self.taken..];
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        if self.taken == self.body.len() {
            self.plain = false;
            self.taken = 0;
            self.body.clear();
        }
        count
    }

    /// Reads until a whole record is there.
    fn poll_record<S: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, inner: &mut S) -> Poll<io::Result<()>> {
        while self.filled < HEADER_BYTES {
            let count = ready!(Pin::new(&mut *inner).poll_read(cx, &mut self.header[self.filled..]))?;
            self.advance(count)?;
            if self.filled == HEADER_BYTES {
                let length = usize::from(u16::from_be_bytes(self.header) & !LAST);
                if !(TAG_BYTES..=MAX_PLAINTEXT + TAG_BYTES).contains(&length) {
                    return Poll::Ready(Err(SealError::BadLength.into()));
                }
                self.body.resize(length, 0);
            }
        }
        while self.filled < HEADER_BYTES + self.body.len() {
            let at = self.filled - HEADER_BYTES;
            let count = ready!(Pin::new(&mut *inner).poll_read(cx, &mut self.body[at..]))?;
            self.advance(count)?;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, count: usize) -> Result<(), SealError> {
        if count == 0 {
            return Err(SealError::CutOff);
        }
        self.filled += count;
        Ok(())
    }

    fn open(&mut self, opener: &mut Opener) -> Result<(), SealError> {
        opener.open(self.header, &mut self.body)?;
        self.filled = 0;
        self.taken = 0;
        self.plain = !self.body.is_empty();
        Ok(())
    }
}

/// Sealed bytes that the stream has not taken yet. Holds two records at the most.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    fn poll_drain<S: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, inner: &mut S) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let count = ready!(Pin::new(&mut *inner).poll_write(cx, &self.bytes[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.bytes.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// Why a sealed stream is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The record was changed, moved, replayed or made with another key.
    #[error("a sealed record does not open")]
    DoesNotOpen,
    /// Longer than a record may be, or empty without being the last.
    #[error("a sealed record has a length that is not allowed")]
    BadLength,
    /// The stream stopped without its last record.
    #[error("the sealed stream was cut off")]
    CutOff,
    /// A write after the last record.
    #[error("the sealed stream was closed before this was written")]
    AfterTheEnd,
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        let kind = if error == SealError::CutOff { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
        Self::new(kind, error)
    }
}

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    fn session() -> Session {
        Session::from_secret([5; 32])
    }

    /// What the initiator puts on the wire for these writes, closed at the end.
    async fn sealed(writes: &[&[u8]]) -> Vec<u8> {
        let mut stream = SealedStream::new(Cursor::new(Vec::new()), &session(), 4, Role::Initiator);
        for write in writes {
            stream.write_all(write).await.unwrap();
        }
        stream.close().await.unwrap();
        stream.inner.into_inner()
    }

    async fn opened_as(wire: &[u8], stream_id: u64, role: Role) -> io::Result<Vec<u8>> {
        let mut stream = SealedStream::new(Cursor::new(wire.to_vec()), &session(), stream_id, role);
        let mut plain = Vec::new();
        stream.read_to_end(&mut plain).await?;
        Ok(plain)
    }

    async fn opened(wire: &[u8]) -> io::Result<Vec<u8>> {
        opened_as(wire, 4, Role::Responder).await
    }

    #[tokio::test]
    async fn both_directions_carry_more_than_a_record() {
        let (left, right) = tokio::io::duplex(1000);
        let mut left = SealedStream::new(left.compat(), &session(), 4, Role::Initiator);
        let mut right = SealedStream::new(right.compat(), &session(), 4, Role::Responder);
        let question: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
        let ask = async {
            left.write_all(&question).await.unwrap();
            left.close().await.unwrap();
            let mut answer = Vec::new();
            left.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let echo = async {
            let mut heard = Vec::new();
            right.read_to_end(&mut heard).await.unwrap();
            right.write_all(&heard).await.unwrap();
            right.close().await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask, echo);
        assert_eq!(answer, question);
    }

    #[tokio::test]
    async fn every_changed_byte_is_noticed() {
        let wire = sealed(&[b"hello", b"world"]).await;
        assert_eq!(opened(&wire).await.unwrap(), b"helloworld");
        for position in 0..wire.len() {
            let mut changed = wire.clone();
            changed[position] ^= 1;
            assert!(opened(&changed).await.is_err(), "byte {position}");
        }
    }

    #[tokio::test]
    async fn every_truncation_is_noticed() {
        let wire = sealed(&[b"hello"]).await;
        for length in 0..wire.len() {
            let error = opened(&wire[..length]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {length}");
        }
    }

    #[tokio::test]
    async fn records_cannot_be_replayed_reordered_reflected_or_moved() {
        let wire = sealed(&[b"first", b"other"]).await;
        let record = HEADER_BYTES + 5 + TAG_BYTES;
        let (first, second, last) = (&wire[..record], &wire[record..2 * record], &wire[2 * record..]);
        assert!(opened(&[first, first, last].concat()).await.is_err(), "replayed");
        assert!(opened(&[second, first, last].concat()).await.is_err(), "reordered");
        assert!(opened(&[first, last].concat()).await.is_err(), "left out");
        assert!(opened_as(&wire, 4, Role::Initiator).await.is_err(), "reflected to its sender");
        assert!(opened_as(&wire, 8, Role::Responder).await.is_err(), "moved to another stream");
    }
}
