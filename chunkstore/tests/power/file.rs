//! A file on the disk: what programs see, and what would be left of it after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::worker::chance::Chance;

/// The unit in which the system's page cache goes to the disk.
pub(crate) const PAGE_BYTES: u64 = 4_096;
/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_BYTES as usize];

/// A file has two contents: the one that programs read and write, and the one that has been synced.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    now: Content,
    durable: Content,
    /// Pages that may differ between the two.
    dirty: BTreeSet<u64>,
    /// The smallest size to which the file was cut since it was synced.
    shrunk_to: Option<u64>,
}

/// Pages that are missing are zeros. Bytes of the last page beyond the size are zeros.
#[derive(Clone, Debug, Default)]
struct Content {
    size: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl File {
    pub(crate) fn size(&self) -> u64 {
        self.now.size
    }

    /// Bytes of the pages that are not holes.
    pub(crate) fn allocated(&self) -> u64 {
        self.now.pages.len() as u64 * PAGE_BYTES
    }

    /// Fewer bytes than `length` at the end of the file.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        self.now.read(offset..(offset.saturating_add(length)).min(self.now.size))
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        for (page, part) in pages_of(offset..end) {
            let from = (page * PAGE_BYTES + part.start as u64 - offset) as usize;
            let part_length = part.len();
            self.now.page_mut(page)[part].copy_from_slice(&bytes[from..from + part_length]);
            self.dirty.insert(page);
        }
        self.now.size = self.now.size.max(end);
    }

    pub(crate) fn resize(&mut self, size: u64) {
        if size < self.now.size {
            self.dirty.extend(self.now.pages.range(size / PAGE_BYTES..).map(|(page, _)| *page));
            self.shrunk_to = Some(self.shrunk_to.map_or(size, |smallest| smallest.min(size)));
        }
        self.now.resize(size);
    }

    /// Makes the file at least so long. Pages without bytes cost nothing here, so nothing else needs to be set aside.
    pub(crate) fn extend(&mut self, size: u64) {
        self.now.size = self.now.size.max(size);
    }

    /// Makes zeros of the bytes, and holes of whole pages.
    pub(crate) fn punch(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length).min(self.now.size);
        for (page, part) in pages_of(offset..end.max(offset)) {
            if !self.now.pages.contains_key(&page) {
                continue;
            }
            self.dirty.insert(page);
            if part.len() as u64 == PAGE_BYTES {
                self.now.pages.remove(&page);
            } else {
                self.now.page_mut(page)[part].fill(0);
            }
        }
    }

    /// What is there now survives a power cut.
    pub(crate) fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.durable.take_page(page, &self.now);
        }
        self.durable.size = self.now.size;
        self.shrunk_to = None;
    }

    /// What was not synced never will be.
    pub(crate) fn forget_unsynced(&mut self) {
        self.dirty.clear();
        self.shrunk_to = None;
    }

    /// The file after a power cut: as it was synced, and with `luck` some of what was not.
    pub(crate) fn survivor(&self, luck: Option<&mut Chance>) -> Self {
        let content = match luck {
            Some(chance) => self.torn(chance),
            None => self.durable.clone(),
        };
        Self { now: content.clone(), durable: content, ..Self::default() }
    }

    /// The system writes pages in any order and the disk sectors, so each unsynced page may be there, or not, or in
    /// part; and the file may have grown or not. That it became shorter is in a journal: it did or it did not, and what
    /// was written after it needs it.
    fn torn(&self, chance: &mut Chance) -> Content {
        let mut content = self.durable.clone();
        let mut reach = u64::MAX;
        match self.shrunk_to {
            Some(size) if chance.holds(128) => content.resize(size.min(content.size)),
            Some(size) => reach = size / PAGE_BYTES,
            None => {}
        }
        // Of some files much has reached the disk by itself and of others little.
        let arrives = *chance.pick(&[0, 16, 128, 240, 256]);
        for &page in self.dirty.range(..reach) {
            if chance.holds(arrives) {
                content.take_page(page, &self.now);
            } else if chance.holds(32) {
                content.take_sectors(page, &self.now, chance);
            }
        }
        if reach == u64::MAX && content.size < self.now.size {
            content.size = grown(content.size, self.now.size, chance);
        }
        content.resize(content.size);
        content
    }
}

impl Content {
    fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(range.end.saturating_sub(range.start) as usize);
        for (page, part) in pages_of(range) {
            match self.pages.get(&page) {
                Some(page) => bytes.extend_from_slice(&page[part]),
                None => bytes.resize(bytes.len() + part.len(), 0),
            }
        }
        bytes
    }

    fn page_mut(&mut self, page: u64) -> &mut Page {
        Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize])))
    }

    fn resize(&mut self, size: u64) {
        self.size = size;
        self.pages.split_off(&size.div_ceil(PAGE_BYTES));
        let rest = (size % PAGE_BYTES) as usize;
        if rest > 0 && self.pages.contains_key(&(size / PAGE_BYTES)) {
            self.page_mut(size / PAGE_BYTES)[rest..].fill(0);
        }
    }

    fn take_page(&mut self, page: u64, from: &Self) {
        match from.pages.get(&page) {
            Some(bytes) => self.pages.insert(page, Arc::clone(bytes)),
            None => self.pages.remove(&page),
        };
    }

    fn take_sectors(&mut self, page: u64, from: &Self, chance: &mut Chance) {
        let bytes = from.pages.get(&page).map_or([0; PAGE_BYTES as usize], |page| **page);
        let sectors = self.page_mut(page).chunks_mut(SECTOR_BYTES).zip(bytes.chunks(SECTOR_BYTES));
        for (old, new) in sectors {
            if chance.holds(128) {
                old.copy_from_slice(new);
            }
        }
    }
}

/// The size of a file that was growing: as before, as after, or in between.
fn grown(old: u64, new: u64, chance: &mut Chance) -> u64 {
    match chance.below(3) {
        0 => old,
        1 => new,
        _ => old + chance.below(new - old),
    }
}

/// The pages that the bytes lie in, and which bytes of each.
fn pages_of(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let last = if range.is_empty() { range.start / PAGE_BYTES } else { range.end.div_ceil(PAGE_BYTES) };
    (range.start / PAGE_BYTES..last).map(move |page| {
        let first = page * PAGE_BYTES;
        let (from, to) = (range.start.max(first) - first, range.end.min(first + PAGE_BYTES) - first);
        (page, from as usize..to as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut file = File::default();
        file.write(5_000, b"words");
        assert_eq!((file.size(), file.allocated()), (5_005, PAGE_BYTES));
        assert_eq!(file.read(4_998, 100), b"\0\0words");
        file.write(4_094, b"border");
        assert_eq!(file.read(4_094, 6), b"border");
        assert_eq!(file.read(5_005, 1), b"");
        assert_eq!(file.read(9_000, 1), b"");
    }

    #[test]
    fn a_file_made_shorter_and_longer_has_zeros_where_it_was_cut() {
        let mut file = File::default();
        file.write(0, &[7; 10_000]);
        file.resize(5_000);
        file.resize(10_000);
        assert_eq!(file.read(4_999, 3), [7, 0, 0]);
        assert_eq!(file.read(9_000, 1_000), [0; 1_000]);
    }

    #[test]
    fn punched_bytes_are_zeros_and_whole_pages_cost_nothing() {
        let mut file = File::default();
        file.write(0, &[7; 12_288]);
        file.punch(4_000, 5_000);
        assert_eq!(file.read(3_999, 2), [7, 0]);
        assert_eq!(file.read(8_999, 2), [0, 7]);
        assert_eq!((file.size(), file.allocated()), (12_288, 2 * PAGE_BYTES));
        file.punch(20_000, 1 << 40);
        assert_eq!(file.size(), 12_288);
    }

    #[test]
    fn without_luck_only_what_was_synced_survives() {
        let mut file = File::default();
        file.write(0, &[1; 9_000]);
        file.sync();
        file.write(4_000, &[2; 9_000]);
        file.punch(0, 100);
        assert_eq!(file.survivor(None).read(0, 20_000), [1; 9_000]);
        file.resize(10);
        assert_eq!(file.survivor(None).read(0, 20_000), [1; 9_000]);
        file.sync();
        assert_eq!(file.survivor(None).read(0, 20_000), [0; 10]);
    }

    /// Sectors of the two contents may mix in every way, and every way must come up; but nothing else may.
    #[test]
    fn with_luck_each_sector_is_old_or_new() {
        let mut file = File::default();
        file.write(0, &[1; 8_192]);
        file.sync();
        file.write(4_096, &[2; 8_192]);
        let mut kinds = BTreeSet::new();
        for seed in 0..500 {
            let bytes = file.survivor(Some(&mut Chance::new(seed))).read(0, 20_000);
            assert_eq!(bytes[..4_096], [1; 4_096], "what was synced and not written again");
            assert!((8_192..=12_288).contains(&bytes.len()));
            for sector in bytes[4_096..].chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}");
                assert!(sector[0] <= 2);
            }
            let old = bytes[4_096..8_192].contains(&1);
            let new = bytes[4_096..8_192].contains(&2);
            kinds.insert((old, new, bytes.len() > 8_192));
        }
        assert_eq!(kinds.len(), 6, "{kinds:?}");
    }

    #[test]
    fn with_luck_a_file_made_shorter_is_so_as_a_whole() {
        let mut file = File::default();
        file.write(0, &[1; 20_000]);
        file.sync();
        file.resize(5_000);
        file.write(5_000, &[2; 100]);
        let mut sizes = BTreeSet::new();
        for seed in 0..200 {
            let bytes = file.survivor(Some(&mut Chance::new(seed))).read(0, 20_000);
            assert_eq!(bytes[..4_096], [1; 4_096]);
            if bytes.len() == 20_000 {
                assert_eq!(bytes, [1; 20_000], "seed {seed}");
            }
            sizes.insert(bytes.len());
        }
        assert!(sizes.contains(&20_000) && sizes.contains(&5_100), "{sizes:?}");
        assert!(sizes.iter().all(|size| *size == 20_000 || (5_000..=5_100).contains(size)), "{sizes:?}");
    }

    #[test]
    fn a_survivor_is_synced() {
        let mut file = File::default();
        file.write(0, &[3; 6_000]);
        for seed in 0..20 {
            let survivor = file.survivor(Some(&mut Chance::new(seed)));
            assert_eq!(survivor.survivor(None).read(0, 10_000), survivor.read(0, 10_000));
        }
    }
}
