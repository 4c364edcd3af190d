//! Memory that is used again: touching fresh pages costs more than decrypting what goes into them.

use bytes::Bytes;
use chunkstore_block::MAX_BLOCK_BYTES;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Two Noise messages of full length with their lengths before them: what is read, and what is written, in one call.
pub(super) const SCRATCH_BYTES: usize = 2 * (2 + 65_535);
/// Bodies from this length on come in buffers of [`MAX_BLOCK_BYTES`]; for shorter ones too much of such a buffer would lie
/// idle for as long as somebody keeps the body.
const POOLED_BODY_BYTES: usize = MAX_BLOCK_BYTES / 8 * 7;

/// What a body is longer by while it is ciphertext, at most: 17 messages with a length and a tag each.
const CIPHERTEXT_BYTES: usize = 512;

/// At most 16 MiB stay here while nothing is read.
static BODIES: BufferPool = BufferPool::new(MAX_BLOCK_BYTES + CIPHERTEXT_BYTES, 16);
/// At most 4 MiB.
static SCRATCH: BufferPool = BufferPool::new(SCRATCH_BYTES, 32);

/// Buffers of one length, kept for the next who needs one. Shared by all connections of the process.
struct BufferPool {
    idle: Mutex<Vec<Vec<u8>>>,
    buffer_bytes: usize,
    most_idle: usize,
}

impl BufferPool {
    const fn new(buffer_bytes: usize, most_idle: usize) -> Self {
        Self { idle: Mutex::new(Vec::new()), buffer_bytes, most_idle }
    }

    fn take(&self) -> Vec<u8> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| vec![0; self.buffer_bytes])
    }

    fn give(&self, buffer: Vec<u8>) {
        debug_assert_eq!(buffer.len(), self.buffer_bytes);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most_idle {
            idle.push(buffer);
        }
    }
}

/// [`SCRATCH_BYTES`] of ciphertext on its way; goes back when dropped.
pub(super) struct Scratch(Vec<u8>);

impl Scratch {
    pub(super) fn take() -> Self {
        Self(SCRATCH.take())
    }
}

impl Deref for Scratch {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.give(mem::take(&mut self.0));
    }
}

/// A body as it comes. It never has to grow, and what has not come has not been touched unless the buffer was used before.
pub(super) struct Body {
    /// Longer than the body, so that it can be decrypted in its place.
    buffer: Vec<u8>,
    filled: usize,
    length: usize,
}

impl Body {
    pub(super) fn of_length(length: usize) -> Self {
        let buffer = if length >= POOLED_BODY_BYTES { BODIES.take() } else { vec![0; length + CIPHERTEXT_BYTES] };
        Self { buffer, filled: 0, length }
    }

    /// Where the rest goes, with room for its ciphertext.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So many bytes were written into [`Body::room`].
    pub(super) fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
        debug_assert!(self.filled <= self.length);
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// The whole body. A pooled buffer comes back when the last clone is gone.
    pub(super) fn into_bytes(mut self) -> Bytes {
        debug_assert_eq!(self.filled, self.length);
        if self.length >= POOLED_BODY_BYTES {
            return Bytes::from_owner(self);
        }
        let mut buffer = mem::take(&mut self.buffer);
        buffer.truncate(self.length);
        buffer.into()
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.length >= POOLED_BODY_BYTES {
            BODIES.give(mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_every_length_hold_what_was_put_into_them() {
        for length in [0, 1, 1000, POOLED_BODY_BYTES - 1, POOLED_BODY_BYTES, MAX_BLOCK_BYTES] {
            let mut body = Body::of_length(length);
            body.extend(&vec![7; length / 2]);
            let rest = length - length / 2;
            body.room()[..rest].fill(8);
            body.advance(rest);
            let bytes = body.into_bytes();
            assert_eq!(bytes.len(), length);
            assert!(bytes[..length / 2].iter().all(|byte| *byte == 7));
            assert!(bytes[length / 2..].iter().all(|byte| *byte == 8));
        }
    }

    #[test]
    fn a_pool_keeps_a_bounded_number_of_buffers() {
        let pool = BufferPool::new(8, 2);
        (0..5).map(|_| pool.take()).collect::<Vec<_>>().into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.idle.lock().unwrap().len(), 2);
    }
}
