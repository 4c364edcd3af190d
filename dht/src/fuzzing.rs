//! The decoders of what peers send, for the fuzz targets (`fuzz/`). Feature `fuzzing` only; not an interface.
//!
//! Each function takes a fuzzer's bytes and panics where the decoder breaks what it promises.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs, reason = "a broken promise is to end the run")]

pub use crate::gate::fuzzing as gate;
pub use crate::membership::fuzzing as membership;
pub use crate::seal::fuzzing as seal;
pub use crate::transfer::fuzzing as transfer;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};

/// A stream whose other end has said all that it will say and listens to nothing.
pub(crate) struct Said<'b>(pub(crate) &'b [u8]);

impl AsyncRead for Said<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(io::Read::read(&mut self.0, buf))
    }
}

impl AsyncWrite for Said<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
