//! Indexes put together by hand, right or with one fault each.

use std::collections::BTreeMap;

use chunkstore_block::BlockId;

use crate::cbor::{Cbor, array, map};

/// Blocks under the ids that name them, and the id of the first: the content key.
#[derive(Clone)]
pub(crate) struct Blocks {
    pub(crate) key: BlockId,
    pub(crate) blocks: BTreeMap<BlockId, Vec<u8>>,
}

impl Blocks {
    pub(crate) fn of(root: &[u8]) -> Self {
        Self { key: BlockId::of(root), blocks: BTreeMap::from([(BlockId::of(root), root.to_vec())]) }
    }

    pub(crate) fn and(mut self, pages: &[&Cbor]) -> Self {
        self.blocks.extend(pages.iter().map(|page| (id_of(page), page.encode())));
        self
    }

    /// Puts other bytes where an id is named.
    pub(crate) fn with_false(mut self, id: BlockId, bytes: Vec<u8>) -> Self {
        self.blocks.insert(id, bytes);
        self
    }
}

impl From<Cbor> for Blocks {
    fn from(root: Cbor) -> Self {
        Self::of(&root.encode())
    }
}

pub(crate) const FRAGMENTS: u64 = 0;
pub(crate) const FILES: u64 = 1;
/// Keys of the index block.
pub(crate) const IN_FRAGMENTS: u64 = 6;
pub(crate) const IN_FILES: u64 = 7;

/// Six fragments of 10 to 60 bytes and two files, all in one block.
pub(crate) fn inline() -> Cbor {
    index(fragments(1..=6), 210, two_files())
}

pub(crate) fn index(fragments: Vec<Cbor>, bytes: u64, files: Cbor) -> Cbor {
    let count = fragments.len() as u64;
    index_of(array![0, count, bytes, fragments], array![0, 2, files])
}

pub(crate) fn index_of(fragments: Cbor, files: Cbor) -> Cbor {
    let renditions = array![rendition()];
    map(["imira-index".into(), 1.into(), 0.into(), [0x33; 32].into(), 5_000.into(), renditions, fragments, files])
}

/// The keys 0 to 6, 11 and 12.
pub(crate) fn rendition() -> Cbor {
    let keys = [0, 1, 2, 3, 4, 5, 6, 11, 12].map(Cbor::Uint);
    let numbers = [900_000, 800_000, 640, 360].map(Cbor::Uint);
    let texts = ["de", "v/media.m3u8"].map(Cbor::from);
    let values = [Cbor::Uint(0), "360p".into(), "avc1.64001e".into()].into_iter().chain(numbers).chain(texts);
    Cbor::Map(keys.into_iter().zip(values).collect())
}

pub(crate) fn fragment(number: u64) -> Cbor {
    array![*BlockId::of(&number.to_be_bytes()).as_bytes(), 10 * number]
}

pub(crate) fn fragments(numbers: impl Iterator<Item = u64>) -> Vec<Cbor> {
    numbers.map(fragment).collect()
}

/// `a.m4s` of fragments 1 and 2, `b.mp4` of 4 to 6 and then 1.
pub(crate) fn two_files() -> Cbor {
    array![file("a.m4s", 30, array![array![1, 2, 30]]), file("b.mp4", 160, array![array![4, 3, 150], array![1, 1, 10]])]
}

pub(crate) fn file(path: &str, size: u64, runs: Cbor) -> Cbor {
    array![path, "video/mp4", size, runs]
}

pub(crate) fn page(list: u64, level: u64, entries: Vec<Cbor>) -> Cbor {
    map(["imira-page".into(), 1.into(), list.into(), level.into(), entries.into()])
}

pub(crate) fn id_of(page: &Cbor) -> BlockId {
    BlockId::of(&page.encode())
}

/// An entry that names a page of fragments or files; `last` is its bytes or its first path.
pub(crate) fn entry(page: &Cbor, count: u64, last: impl Into<Cbor>) -> Cbor {
    array![*id_of(page).as_bytes(), page.encode().len() as u64, count, last.into()]
}

/// The same content in pages: fragments at level 2 over pages of three and two and one, files at level 1.
pub(crate) struct Paged {
    pub(crate) leaves: [Cbor; 3],
    pub(crate) middle: [Cbor; 2],
    pub(crate) files: [Cbor; 2],
}

impl Paged {
    pub(crate) fn new() -> Self {
        let leaves = [1..=3, 4..=5, 6..=6].map(|numbers| page(FRAGMENTS, 0, fragments(numbers)));
        let Cbor::Array(files) = two_files() else { unreachable!("an array") };
        let files = [0, 1].map(|number: usize| page(FILES, 0, vec![files[number].clone()]));
        Self { middle: middle(&leaves), leaves, files }
    }

    /// With other leaves, named as the right ones would be.
    pub(crate) fn with_leaves(mut self, change: impl FnOnce(&mut [Cbor; 3])) -> Self {
        change(&mut self.leaves);
        self.middle = middle(&self.leaves);
        self
    }

    pub(crate) fn root(&self) -> Cbor {
        let [left, right] = &self.middle;
        let [one, two] = &self.files;
        index_of(
            array![2, 6, 210, array![entry(left, 5, 150), entry(right, 1, 60)]],
            array![1, 2, array![entry(one, 1, "a.m4s"), entry(two, 1, "b.mp4")]],
        )
    }

    /// With this block over the pages.
    pub(crate) fn under(&self, root: Cbor) -> Blocks {
        let pages: Vec<_> = self.leaves.iter().chain(&self.middle).chain(&self.files).collect();
        Blocks::from(root).and(&pages)
    }

    pub(crate) fn blocks(&self) -> Blocks {
        self.under(self.root())
    }
}

fn middle(leaves: &[Cbor; 3]) -> [Cbor; 2] {
    let [one, two, three] = leaves;
    let left = page(FRAGMENTS, 1, vec![entry(one, 3, 60), entry(two, 2, 90)]);
    [left, page(FRAGMENTS, 1, vec![entry(three, 1, 60)])]
}
