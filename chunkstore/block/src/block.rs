use bytes::Bytes;

use crate::BlockId;

/// A block whose bytes have the SHA-256 that its id says: only hashing them makes one, so who has one need not hash again.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    id: BlockId,
    bytes: Bytes,
}

impl Block {
    /// The block that these bytes are.
    pub fn of(bytes: Bytes) -> Self {
        Self { id: BlockId::of(&bytes), bytes }
    }

    /// The block `id`, if these bytes are it.
    pub fn check(id: BlockId, bytes: Bytes) -> Option<Self> {
        let block = Self::of(bytes);
        (block.id == id).then_some(block)
    }

    /// SHA-256 of the bytes.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// What is stored.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
