//! Memory of blocks that were read, used again for the next ones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chunkstore_block::MAX_BLOCK_BYTES;

/// Buffers that are kept for the next reads, of 1 MiB each. As many as viewers are read for at a time; a guess.
const KEPT: usize = 16;
/// A block that fills less of a buffer gets memory of its own: what a cache counts is then what it holds, within a sixteenth.
const LEAST_BYTES: usize = MAX_BLOCK_BYTES / 16 * 15;

/// Buffers for whole blocks, given back by the last one who holds the block.
///
/// The system takes 256 page faults to give a block fresh memory, a fifth of what it costs to read, check and send it.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A block's bytes, whose buffer goes back.
struct Lent {
    bytes: Vec<u8>,
    buffers: Buffers,
}

impl Buffers {
    /// An empty buffer for so many bytes.
    pub(super) fn take(&self, length: usize) -> Vec<u8> {
        if !is_lent(length) {
            return Vec::with_capacity(length);
        }
        self.kept().pop().unwrap_or_else(|| Vec::with_capacity(MAX_BLOCK_BYTES))
    }

    /// What was read into a buffer, as a block.
    pub(super) fn block(&self, bytes: Vec<u8>) -> Bytes {
        match is_lent(bytes.len()) {
            true => Bytes::from_owner(Lent { bytes, buffers: self.clone() }),
            false => bytes.into(),
        }
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.kept();
        if kept.len() < KEPT && buffer.capacity() >= MAX_BLOCK_BYTES {
            kept.push(buffer);
            return;
        }
        // To give memory back takes the system a while.
        drop(kept);
        drop(buffer);
    }

    /// Each change is a single call.
    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_lent(length: usize) -> bool {
    (LEAST_BYTES..=MAX_BLOCK_BYTES).contains(&length)
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffers: &Buffers, length: usize, byte: u8) -> Bytes {
        let mut buffer = buffers.take(length);
        assert!(buffer.is_empty() && buffer.capacity() >= length);
        buffer.resize(length, byte);
        buffers.block(buffer)
    }

    #[test]
    fn a_buffer_comes_back_when_the_last_holder_has_gone_and_not_before() {
        let buffers = Buffers::default();
        let block = read(&buffers, MAX_BLOCK_BYTES, 1);
        let (at, part) = (block.as_ptr(), block.slice(5..9));
        drop(block);
        let other = read(&buffers, MAX_BLOCK_BYTES, 2);
        assert!(other.as_ptr() != at && part == [1; 4].as_slice());
        drop(part);
        let again = read(&buffers, MAX_BLOCK_BYTES - 1, 3);
        assert_eq!((again.as_ptr(), again.len()), (at, MAX_BLOCK_BYTES - 1));
        assert!(again.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn small_blocks_have_their_own_memory_and_few_buffers_are_kept() {
        let buffers = Buffers::default();
        drop(read(&buffers, LEAST_BYTES - 1, 1));
        assert!(buffers.kept().is_empty());
        let many: Vec<_> = (0..2 * KEPT).map(|_| read(&buffers, MAX_BLOCK_BYTES, 1)).collect();
        drop(many);
        assert_eq!(buffers.kept().len(), KEPT);
    }
}
