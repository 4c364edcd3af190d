//! Reads an index from its blocks without doing any IO: it says which pages it wants, and is given them.

use std::collections::{BTreeMap, BTreeSet};

use super::check::check_index;
use super::wire::{Below, Items, Kind, List, Page, PageEntry, PageRef, Root, check_total};
use super::{File, Fragment, Fragments, Index, IndexError, Rendition};
use crate::{BlockId, ContentKey};

/// A whole index with the names of the blocks it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedIndex {
    /// The id of the index block: the content key.
    pub key: ContentKey,
    /// What the blocks say.
    pub index: Index,
    /// The ids of all pages, in ascending order; the index block is not among them.
    pub pages: Vec<BlockId>,
}

/// Puts an index together from its blocks. Pages may be supplied in any order, several may be fetched at once.
///
/// Polling: while [`wanted`](Self::wanted) names a page, fetch it and [`supply`](Self::supply) it; then
/// [`finish`](Self::finish). It never wants a page twice. After an error that is about the content
/// ([`IndexError`] says which) there is no use in going on.
#[derive(Debug)]
pub struct Loader {
    key: ContentKey,
    source_sha256: [u8; 32],
    duration_ms: u64,
    renditions: Vec<Rendition>,
    fragments: Branch<Fragment>,
    files: Branch<File>,
    wanted: BTreeMap<BlockId, Wanted>,
    pages: BTreeSet<BlockId>,
}

/// Where a page belongs: in which tree, at which place of each level from the top, and what it must be.
#[derive(Debug)]
struct Wanted {
    entry: PageEntry,
    level: u8,
    place: Vec<u16>,
}

/// A part of a tree.
#[derive(Debug)]
enum Branch<T> {
    Missing,
    Pages(Vec<Branch<T>>),
    Leaves(Vec<T>),
}

impl Loader {
    /// Begins with the index block, named by content key or block id. Its bytes are checked against `root`, whoever they came from.
    pub fn new(root: impl Into<ContentKey>, root_bytes: &[u8]) -> Result<Self, IndexError> {
        let root = root.into();
        check_id(root.block_id(), root_bytes)?;
        let Root { source_sha256, duration_ms, renditions, fragments, files } = Root::decode(root_bytes)?;
        let mut loader = Self {
            key: root,
            source_sha256,
            duration_ms,
            renditions,
            fragments: Branch::Missing,
            files: Branch::Missing,
            wanted: BTreeMap::new(),
            pages: BTreeSet::new(),
        };
        for List { level, items, .. } in [fragments, files] {
            loader.place(level, &[], items)?;
        }
        Ok(loader)
    }

    /// A page that is needed next, the same one until it is supplied; `None` when all are there.
    pub fn wanted(&self) -> Option<PageRef> {
        self.all_wanted().next()
    }

    /// All pages that are known to be needed. Those below them become known as these are supplied.
    pub fn all_wanted(&self) -> impl Iterator<Item = PageRef> + '_ {
        self.wanted.values().map(|wanted| wanted.entry.page)
    }

    /// Takes a wanted page. After an error nothing has changed: the page is still wanted.
    pub fn supply(&mut self, id: BlockId, bytes: &[u8]) -> Result<(), IndexError> {
        let wanted = self.wanted.get(&id).ok_or(IndexError::NotWanted(id))?;
        check_id(id, bytes)?;
        let page = Page::decode(bytes)?;
        check_page(wanted, &page, bytes.len())?;
        let place = wanted.place.clone();
        self.place(page.level, &place, page.items)?;
        self.wanted.remove(&id);
        Ok(())
    }

    /// The whole, checked, when no page is wanted any more.
    pub fn finish(self) -> Result<LoadedIndex, IndexError> {
        if !self.wanted.is_empty() {
            return Err(IndexError::Incomplete { missing: self.wanted.len() });
        }
        let index = Index {
            source_sha256: self.source_sha256,
            duration_ms: self.duration_ms,
            renditions: self.renditions,
            fragments: Fragments::from(self.fragments.flatten()),
            files: self.files.flatten(),
        };
        check_index(&index)?;
        Ok(LoadedIndex { key: self.key, index, pages: self.pages.into_iter().collect() })
    }

    /// Puts what a list or page of this level holds at its place, and wants the pages that it names.
    fn place(&mut self, level: u8, place: &[u16], items: Items) -> Result<(), IndexError> {
        match items {
            Items::Fragments(fragments) => self.fragments.set(place, Branch::Leaves(fragments)),
            Items::Files(files) => self.files.set(place, Branch::Leaves(files)),
            Items::Pages(entries) => self.place_pages(level, place, entries)?,
        }
        Ok(())
    }

    fn place_pages(&mut self, level: u8, place: &[u16], entries: Vec<PageEntry>) -> Result<(), IndexError> {
        self.check_new(&entries)?;
        let Some(kind) = entries.first().map(|entry| entry.below.kind()) else { return Ok(()) };
        match kind {
            Kind::Fragments => self.fragments.set(place, Branch::missing(entries.len())),
            Kind::Files => self.files.set(place, Branch::missing(entries.len())),
        }
        for (number, entry) in (0..).zip(entries) {
            let place = place.iter().copied().chain([number]).collect();
            self.pages.insert(entry.page.id);
            self.wanted.insert(entry.page.id, Wanted { entry, level: level - 1, place });
        }
        Ok(())
    }

    /// Refuses pages that were named before: their entries would be there twice.
    fn check_new(&self, entries: &[PageEntry]) -> Result<(), IndexError> {
        let mut new = BTreeSet::new();
        match entries.iter().map(|entry| entry.page.id).find(|id| self.pages.contains(id) || !new.insert(*id)) {
            Some(id) => Err(IndexError::RepeatedPage(id)),
            None => Ok(()),
        }
    }
}

impl<T> Branch<T> {
    fn missing(pages: usize) -> Self {
        Self::Pages((0..pages).map(|_| Self::Missing).collect())
    }

    /// Sets the branch at a place that an earlier one made.
    fn set(&mut self, place: &[u16], branch: Self) {
        match (self, place) {
            (here, []) => *here = branch,
            (Self::Pages(branches), [first, rest @ ..]) => {
                if let Some(below) = branches.get_mut(usize::from(*first)) {
                    below.set(rest, branch);
                }
            }
            (Self::Missing | Self::Leaves(_), [_, ..]) => {}
        }
    }

    fn flatten(self) -> Vec<T> {
        match self {
            Self::Missing => Vec::new(),
            Self::Leaves(leaves) => leaves,
            Self::Pages(branches) => branches.into_iter().flat_map(Self::flatten).collect(),
        }
    }
}

fn check_id(expected: BlockId, bytes: &[u8]) -> Result<(), IndexError> {
    let actual = BlockId::of(bytes);
    if actual == expected { Ok(()) } else { Err(IndexError::Mismatch { expected, actual }) }
}

/// Checks a page against all that the entry above says of it.
fn check_page(wanted: &Wanted, page: &Page, length: usize) -> Result<(), IndexError> {
    let PageRef { id, length: claimed } = wanted.entry.page;
    let below = &wanted.entry.below;
    if length != claimed as usize {
        return Err(IndexError::PageLength { id, claimed, actual: length });
    }
    if page.kind != below.kind() {
        return Err(IndexError::Value { field: "page.list", found: page.kind as u64 });
    }
    if page.level != wanted.level {
        let (found, expected) = (page.level.into(), wanted.level.into());
        return Err(IndexError::Level { field: "page.level", found, expected });
    }
    check_total(page.kind, below.total(), page.items.total())?;
    check_first_path(below, page.items.first_path())
}

fn check_first_path(below: &Below, actual: Option<&str>) -> Result<(), IndexError> {
    match (below, actual) {
        (Below::Files { first_path, .. }, Some(actual)) if first_path != actual => {
            Err(IndexError::FirstPath { claimed: first_path.clone(), actual: actual.to_owned() })
        }
        _ => Ok(()),
    }
}
