//! A connection that is closed when its other side takes no bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Fails when a write has waited for `patience`.
///
/// The kernel's own limit (`super::set_user_timeout`) begins anew with each byte that the other side takes. This one ends when the
/// kernel has room for more, which is a third of its buffer for the connection: one byte a second is not enough to go on.
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Made at the first wait, and used again at the next.
    limit: Option<Pin<Box<Sleep>>>,
    waits: Waits,
}

/// Whether a connection has bytes that the kernel has not taken yet.
#[derive(Clone, Default)]
pub(super) struct Waits(Arc<AtomicBool>);

impl Waits {
    /// What it was when the connection was last driven.
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, limit: None, waits: Waits::default() }
    }

    pub(super) fn waits(&self) -> Waits {
        self.waits.clone()
    }

    fn after<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits.0.store(false, Ordering::Relaxed);
            return written;
        }
        let patience = self.patience;
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(patience)));
        if !self.waits.0.swap(true, Ordering::Relaxed) {
            limit.as_mut().reset(Instant::now() + patience);
        }
        ready!(limit.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side takes no bytes")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.after(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.after(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn who_takes_nothing_is_given_up() {
        let (ours, _theirs) = duplex(16);
        let failed = Patient::new(ours, Duration::from_millis(20)).write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_is_slow_and_goes_on_is_served() {
        let (ours, mut theirs) = duplex(16);
        // Together the pauses are longer than its patience, each is much shorter.
        let (patience, pause) = (Duration::from_secs(2), Duration::from_millis(250));
        let sender = tokio::spawn(async move { Patient::new(ours, patience).write_all(&[7; 100]).await });
        for _ in 0..10 {
            sleep(pause).await;
            theirs.read_exact(&mut [0; 10]).await.unwrap();
        }
        sender.await.unwrap().unwrap();
    }
}
