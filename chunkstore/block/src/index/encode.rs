//! Writes an index as blocks: lists that do not fit in the index block become trees of pages.

use super::check::check_index;
use super::wire::{Below, Kind, MAX_LEVEL, PageEntry, PageRef, Total, Writer};
use super::{Index, IndexError};
use crate::{BlockId, MAX_BLOCK_BYTES};

/// What a writer keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest index block or page, in bytes: 1 MiB by default, the format's own limit. Tests take less, so that
    /// small contents make deep trees.
    pub page_bytes: usize,
}

/// A whole index as blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The index block; its id is the content key.
    pub root: EncodedBlock,
    /// The pages that it names, lower levels first, fragments before files.
    pub pages: Vec<EncodedBlock>,
}

/// A block and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBlock {
    /// SHA-256 of the bytes.
    pub id: BlockId,
    /// The stored bytes.
    pub bytes: Vec<u8>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { page_bytes: MAX_BLOCK_BYTES }
    }
}

impl EncodedBlock {
    fn new(bytes: Vec<u8>) -> Self {
        Self { id: BlockId::of(&bytes), bytes }
    }
}

/// Writes an index. The same index and limits always give the same bytes.
///
/// Both lists are inline when the whole then fits in the index block. Otherwise the fragments go into the lowest tree
/// whose top fits, and then the files into the lowest one that fits beside it, inline if that can be.
///
/// Refuses what the format does not allow, and, only with small limits, what does not fit in a tree of level 4.
pub fn encode(index: &Index, limits: &Limits) -> Result<Encoded, IndexError> {
    check_index(index)?;
    let limit = limits.page_bytes.min(MAX_BLOCK_BYTES);
    let mut start = Writer::new();
    start.root_start(index.source_sha256, index.duration_ms, &index.renditions);
    let start = start.finish();
    let mut fragments = Tree::new(Kind::Fragments, fragment_row(index), limit);
    let mut files = Tree::new(Kind::Files, file_row(index), limit);
    let (fragment_level, file_level) = choose_levels(start.len(), &mut fragments, &mut files, limit)?;
    let mut bytes = start;
    fragments.write_list(6, fragment_level, &mut bytes);
    files.write_list(7, file_level, &mut bytes);
    let mut pages = fragments.into_pages(fragment_level);
    pages.extend(files.into_pages(file_level));
    Ok(Encoded { root: EncodedBlock::new(bytes), pages })
}

/// Chooses the levels of the two lists as `docs/index-format.md`, "Pages", says.
fn choose_levels(start: usize, fragments: &mut Tree, files: &mut Tree, limit: usize) -> Result<(u8, u8), IndexError> {
    let inline = start + fragments.list_length(0) + files.list_length(0);
    if inline <= limit {
        return Ok((0, 0));
    }
    let mut shortest = inline;
    for fragment_level in fragments.lowest_level()..=fragments.highest_level() {
        fragments.grow(fragment_level)?;
        let used = start + fragments.list_length(fragment_level);
        for file_level in 0..=files.highest_level() {
            files.grow(file_level)?;
            let bytes = used + files.list_length(file_level);
            if bytes <= limit {
                return Ok((fragment_level, file_level));
            }
            shortest = shortest.min(bytes);
        }
    }
    Err(IndexError::TooLong { field: "index", bytes: shortest, limit })
}

/// The rows of a tree from level 0 up, as far as they have been made.
struct Tree {
    kind: Kind,
    limit: usize,
    rows: Vec<Row>,
    /// `pages[i]` hold the entries of `rows[i]` and are named by `rows[i + 1]`.
    pages: Vec<Vec<EncodedBlock>>,
}

/// All entries of one level, encoded one behind the other.
#[derive(Default)]
struct Row {
    cbor: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where an entry ends in the row, and what it says.
struct Entry {
    end: usize,
    below: Below,
}

impl Row {
    fn push(&mut self, below: Below, write: impl FnOnce(&mut Writer)) {
        let mut writer = Writer::new();
        write(&mut writer);
        self.cbor.extend(writer.finish());
        self.entries.push(Entry { end: self.cbor.len(), below });
    }

    /// The encoded entries `from..to`.
    fn slice(&self, from: usize, to: usize) -> &[u8] {
        &self.cbor[self.start_of(from)..self.start_of(to)]
    }

    fn start_of(&self, entry: usize) -> usize {
        entry.checked_sub(1).map_or(0, |before| self.entries[before].end)
    }
}

impl Tree {
    fn new(kind: Kind, leaves: Row, limit: usize) -> Self {
        Self { kind, limit, rows: vec![leaves], pages: Vec::new() }
    }

    /// The lowest level when not everything fits inline: fragments then make way first, unless there are none.
    fn lowest_level(&self) -> u8 {
        u8::from(!self.rows[0].entries.is_empty())
    }

    /// A list of pages is never empty, so an empty list stays inline.
    fn highest_level(&self) -> u8 {
        if self.rows[0].entries.is_empty() { 0 } else { MAX_LEVEL }
    }

    /// Makes the rows up to `level`.
    fn grow(&mut self, level: u8) -> Result<(), IndexError> {
        while self.rows.len() <= usize::from(level) {
            self.add_row()?;
        }
        Ok(())
    }

    /// Fills pages with the highest row from the left, and makes the row that names them.
    fn add_row(&mut self) -> Result<(), IndexError> {
        let level = (self.rows.len() - 1) as u8; // at most MAX_LEVEL rows
        let below = &self.rows[usize::from(level)];
        let (mut row, mut pages, mut from) = (Row::default(), Vec::new(), 0);
        while from < below.entries.len() {
            let to = self.page_end(below, level, from)?;
            let page = EncodedBlock::new(self.page_bytes(below, level, from, to));
            let page_ref = PageRef { id: page.id, length: page.bytes.len() as u32 }; // at most 1 MiB
            let entry = PageEntry { page: page_ref, below: sum(&below.entries[from..to]) };
            row.push(entry.below.clone(), |writer| writer.page_entry(&entry));
            pages.push(page);
            from = to;
        }
        self.rows.push(row);
        self.pages.push(pages);
        Ok(())
    }

    /// The end of the longest page that begins with entry `from`: at least one entry.
    fn page_end(&self, row: &Row, level: u8, from: usize) -> Result<usize, IndexError> {
        let length = |to: usize| self.page_start(level, to - from).len() + row.start_of(to) - row.start_of(from);
        if length(from + 1) > self.limit {
            return Err(IndexError::TooLong { field: "page", bytes: length(from + 1), limit: self.limit });
        }
        // Longer pages never become shorter, so the candidates can be halved.
        let (mut fits, mut too_far) = (from + 1, row.entries.len() + 1);
        while too_far - fits > 1 {
            let middle = fits + (too_far - fits) / 2;
            if length(middle) <= self.limit { fits = middle } else { too_far = middle }
        }
        Ok(fits)
    }

    fn page_bytes(&self, row: &Row, level: u8, from: usize, to: usize) -> Vec<u8> {
        let mut bytes = self.page_start(level, to - from);
        bytes.extend_from_slice(row.slice(from, to));
        bytes
    }

    fn page_start(&self, level: u8, entries: usize) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.page_start(self.kind, level, entries);
        writer.finish()
    }

    /// Length of the list in the index block with its key, when it names the row of this level.
    fn list_length(&self, level: u8) -> usize {
        self.list_start(level).len() + 1 + self.rows[usize::from(level)].cbor.len()
    }

    fn list_start(&self, level: u8) -> Vec<u8> {
        let row = &self.rows[usize::from(level)];
        let total = row.entries.iter().map(|entry| entry.below.total()).fold(Total::default(), Total::plus);
        let mut writer = Writer::new();
        writer.list_start(self.kind, level, total, row.entries.len());
        writer.finish()
    }

    fn write_list(&self, key: u8, level: u8, bytes: &mut Vec<u8>) {
        let mut writer = Writer::new();
        writer.uint(key.into()); // one byte, as `list_length` counts it
        bytes.extend(writer.finish());
        bytes.extend(self.list_start(level));
        bytes.extend_from_slice(&self.rows[usize::from(level)].cbor);
    }

    /// The pages under a list of this level.
    fn into_pages(self, level: u8) -> Vec<EncodedBlock> {
        self.pages.into_iter().take(level.into()).flatten().collect()
    }
}

fn fragment_row(index: &Index) -> Row {
    let mut row = Row::default();
    for fragment in index.fragments.iter() {
        let total = Total { count: 1, bytes: fragment.length.into() };
        row.push(Below::Fragments(total), |writer| writer.fragment(fragment));
    }
    row
}

fn file_row(index: &Index) -> Row {
    let mut row = Row::default();
    for file in &index.files {
        row.push(Below::Files { count: 1, first_path: file.path.clone() }, |writer| writer.file(file));
    }
    row
}

/// What the entry of a page says of these entries in it. `entries` is not empty.
fn sum(entries: &[Entry]) -> Below {
    let total = entries.iter().map(|entry| entry.below.total()).fold(Total::default(), Total::plus);
    match &entries[0].below {
        Below::Fragments(_) => Below::Fragments(total),
        Below::Files { first_path, .. } => Below::Files { count: total.count, first_path: first_path.clone() },
    }
}
