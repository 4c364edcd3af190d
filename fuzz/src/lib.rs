//! What the fuzz targets share: blocks out of a fuzzer's bytes, and what must hold for every range of a file.

mod members;

use std::collections::BTreeMap;
use std::ops::Range;

use chunkstore_block::{BlockId, Encoded, File, Index, IndexError, LoadedIndex, Loader, Part};

pub use members::{MEMBERS, Members, NOW, open_network};

/// A file may name its fragments again and again; so many parts are looked at.
const MAX_PARTS: usize = 10_000;

/// A root and the pages below it.
pub struct Blocks {
    root: BlockId,
    blocks: BTreeMap<BlockId, Vec<u8>>,
}

impl Blocks {
    /// Reads `name (32 bytes), length (2 bytes), bytes`, again and again, the root last. Blocks name the earlier ones
    /// by these names, which are changed to the true ids here: a fuzzer finds no SHA-256.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let (mut ids, mut blocks, mut root) = (BTreeMap::new(), BTreeMap::new(), None);
        while let Some((name, rest)) = bytes.split_first_chunk::<32>() {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
            let (block, rest) = rest.split_at(length);
            let block = with_true_ids(block.to_vec(), &ids);
            let id = BlockId::of(&block);
            ids.insert(*name, id);
            blocks.insert(id, block);
            root = Some(id);
            bytes = rest;
        }
        Some(Self { root: root?, blocks })
    }

    pub fn of(encoded: Encoded) -> Self {
        let root = encoded.root.id;
        let blocks = encoded.pages.into_iter().chain([encoded.root]).map(|block| (block.id, block.bytes)).collect();
        Self { root, blocks }
    }

    pub fn root(&self) -> BlockId {
        self.root
    }

    pub fn load(&self) -> Result<LoadedIndex, IndexError> {
        let mut loader = Loader::new(self.root, &self.blocks[&self.root])?;
        while let Some(page) = loader.wanted() {
            let Some(bytes) = self.blocks.get(&page.id) else { break };
            loader.supply(page.id, bytes)?;
        }
        loader.finish()
    }
}

/// Ids stand behind 0x58 0x20, the head of a byte string of 32 bytes.
fn with_true_ids(mut block: Vec<u8>, ids: &BTreeMap<[u8; 32], BlockId>) -> Vec<u8> {
    for place in 2..block.len().saturating_sub(31) {
        let (head, rest) = block.split_at_mut(place);
        let Some(name) = rest.first_chunk_mut::<32>() else { break };
        if head.ends_with(&[0x58, 0x20])
            && let Some(id) = ids.get(name)
        {
            *name = *id.as_bytes();
        }
    }
    block
}

/// The parts cover exactly the range, and only the first and the last may be less than their whole block: at most one
/// surplus piece at each end.
pub fn check_parts(index: &Index, file: &File, range: Range<u64>) -> Vec<Part> {
    let mut parts: Vec<_> = index.file_parts(file, range.clone()).take(MAX_PARTS + 1).collect();
    let whole = parts.len() <= MAX_PARTS;
    parts.truncate(MAX_PARTS);
    for (number, part) in parts.iter().enumerate() {
        let fragment = index.fragments.by_order(part.order).expect("a part is of a fragment");
        assert_eq!((part.id, part.block_length), (fragment.id, fragment.length));
        assert!(part.take > 0, "a part of nothing");
        assert!(part.skip == 0 || number == 0, "a block in the middle from its middle");
        let to_end = part.skip + part.take == part.block_length;
        assert!(to_end || (whole && number + 1 == parts.len()), "a block in the middle not to its end");
    }
    if whole {
        let size = file.size();
        let wanted = range.end.min(size).saturating_sub(range.start.min(size));
        assert_eq!(parts.iter().map(|part| u64::from(part.take)).sum::<u64>(), wanted);
    }
    parts
}
