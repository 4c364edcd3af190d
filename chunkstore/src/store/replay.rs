//! Reads the records that the index does not have yet, and applies them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use chunkstore_block::BlockId;
use rustix::fs::fdatasync;

use super::StoreError;
use super::catalog::{Catalog, Written};
use super::index::Index;
use super::log::End;
use super::record::{Claimed, HEADER_BYTES, HEADER_PAGES, Head, Nonce, Op, PAGE_BYTES, Place, pages};
use super::segments::{Segments, is_want, nonce, read};

/// Brings the catalog to the end of the log. What was read is synced: it may not have been, when the process was killed
/// before it was acknowledged.
pub(super) fn replay<I: Index>(
    segments: &Segments,
    catalog: &mut Catalog<I>,
    segment_bytes: u64,
) -> Result<End, StoreError> {
    let from = catalog.applied();
    // The segment of the last record is gone if the disk has lost it: its number is not used again.
    let last_segment = if from.next.page > 0 { from.next.segment } else { from.next.segment - 1 };
    let mut end = End { sequence: from.sequence, last_segment, resume: None };
    for segment in segments.list()? {
        end.last_segment = end.last_segment.max(segment);
        end.resume = None;
        if segment < from.next.segment {
            continue;
        }
        let first = if segment == from.next.segment { from.next.page.max(HEADER_PAGES) } else { HEADER_PAGES };
        let path = segments.path(segment);
        let mut scan = Scan::open(segments, segment).map_err(|source| StoreError::folder(&path, source))?;
        let Some(nonce) = scan.nonce else {
            // Both copies are synced before the first record is written.
            if scan.pages > HEADER_PAGES {
                tracing::error!(path = %path.display(), "a segment whose headers are damaged is passed over, and kept");
            }
            continue;
        };
        let next_page = scan.apply(first, &mut end.sequence, catalog)?;
        if u64::from(next_page) * PAGE_BYTES < segment_bytes {
            end.resume = Some((nonce, next_page));
        }
    }
    Ok(end)
}

/// A segment that is read record by record.
struct Scan {
    file: File,
    path: PathBuf,
    segment: u32,
    pages: u32,
    nonce: Option<Nonce>,
}

impl Scan {
    fn open(segments: &Segments, segment: u32) -> io::Result<Self> {
        let path = segments.path(segment);
        let file = File::open(&path)?;
        fdatasync(&file)?;
        let length = file.metadata()?.len();
        let nonce = nonce(&file, segment)?;
        Ok(Self { file, path, segment, pages: length.div_ceil(PAGE_BYTES) as u32, nonce })
    }

    /// Applies the records from a page on; returns the page behind the last of them.
    fn apply<I: Index>(
        &mut self,
        first: u32,
        last_sequence: &mut u64,
        catalog: &mut Catalog<I>,
    ) -> Result<u32, StoreError> {
        let (mut page, mut next) = (first, first);
        while page < self.pages {
            let record = self.record(page).map_err(|error| unreadable(&self.path, page, &error))?;
            let Some(record) = record else {
                page += 1;
                continue;
            };
            let length = record.pages();
            if record.head.sequence > *last_sequence {
                *last_sequence = record.head.sequence;
                let place = Place { segment: self.segment, page };
                let body_at = place.offset() as u32 + record.head.body_offset;
                let at = Written { place, pages: length, sequence: record.head.sequence, body_at };
                record.apply(at, catalog)?;
            }
            page += length;
            next = page;
        }
        Ok(next)
    }

    /// The record that begins at a page, if one does.
    fn record(&self, page: u32) -> io::Result<Option<Record>> {
        let Some(nonce) = &self.nonce else { return Ok(None) };
        let offset = u64::from(page) * PAGE_BYTES;
        let header = self.read(offset, HEADER_BYTES)?;
        let claimed = header.first_chunk().and_then(Claimed::read);
        let Some(claimed) = claimed else { return Ok(None) };
        let length = HEADER_BYTES + claimed.payload_bytes;
        let head = Head::decode(&self.read(offset, length)?, nonce);
        let Some(head) = head else { return Ok(None) };
        let body = match &head.op {
            Op::Put { id, .. } | Op::Move { id, .. } => self.body(id, offset + length as u64, claimed.body_bytes)?,
            Op::Refer { .. }
            | Op::Delete(_)
            | Op::Sweep { .. }
            | Op::Remove { .. }
            | Op::Prune { .. }
            | Op::Damage { .. }
            | Op::Admit { .. }
            | Op::Drop { .. } => Body::Whole,
        };
        Ok(Some(Record { head, body }))
    }

    fn body(&self, id: &BlockId, offset: u64, length: usize) -> io::Result<Body> {
        match self.read(offset, length) {
            Ok(body) if BlockId::of(&body) == *id => Ok(Body::Whole),
            Ok(_) => Ok(Body::Wrong),
            Err(error) if is_want(&error) => Err(error),
            Err(_) => Ok(Body::Unreadable),
        }
    }

    /// What lies behind the end is missing from the result. Other failures may pass: it tries twice.
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let read = || read(&self.file, offset, length);
        match read().or_else(|_| read()) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
            outcome => outcome,
        }
    }
}

struct Record {
    head: Head,
    body: Body,
}

/// What is known of a record's body.
enum Body {
    /// It is what the id says, or there is none.
    Whole,
    /// It is not: it was never acknowledged, or has been damaged since.
    Wrong,
    /// The disk does not read it. It may well have been acknowledged.
    Unreadable,
}

/// Going on without what cannot be read would lose it for good.
fn unreadable(path: &Path, page: u32, error: &io::Error) -> StoreError {
    let reason = format!(
        "page {page} cannot be read ({error}); copy the folder to a disk that works, as far as it can be read, and start the \
         node there"
    );
    StoreError::folder(path, io::Error::new(error.kind(), reason))
}

impl Record {
    fn apply<I: Index>(&self, at: Written, catalog: &mut Catalog<I>) -> Result<(), StoreError> {
        match self.body {
            Body::Wrong => return catalog.discard(at),
            Body::Whole | Body::Unreadable => {}
        }
        catalog.apply(&self.head.op, at)?;
        match (&self.body, &self.head.op) {
            (Body::Unreadable, Op::Put { id, .. } | Op::Move { id, .. }) => catalog.note_damaged(id, at.place),
            _ => Ok(()),
        }
    }

    fn pages(&self) -> u32 {
        pages(self.head.body_offset as usize + self.head.body_length as usize)
    }
}
