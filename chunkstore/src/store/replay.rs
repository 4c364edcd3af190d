//! Reads the records that the index does not have yet, and applies them.

use std::fs::File;
use std::io;

use chunkstore_block::BlockId;
use rustix::fs::fdatasync;

use super::StoreError;
use super::catalog::{Catalog, Written};
use super::index::Index;
use super::log::End;
use super::record::{Claimed, HEADER_BYTES, Head, Nonce, Op, PAGE_BYTES, Place, decode_segment_header, pages};
use super::segments::{Segments, read};

/// Brings the catalog to the end of the log. What was read is synced: it may not have been, when the process was killed
/// before it was acknowledged.
pub(super) fn replay<I: Index>(
    segments: &Segments,
    catalog: &mut Catalog<I>,
    segment_bytes: u64,
) -> Result<End, StoreError> {
    let from = catalog.applied();
    let mut end = End { sequence: from.sequence, last_segment: from.next.segment - 1, resume: None };
    for segment in segments.list()? {
        end.last_segment = end.last_segment.max(segment);
        end.resume = None;
        if segment < from.next.segment {
            continue;
        }
        let first = if segment == from.next.segment { from.next.page.max(1) } else { 1 };
        let path = segments.path(segment);
        let mut scan = Scan::open(segments, segment).map_err(|source| StoreError::folder(&path, source))?;
        let Some(nonce) = scan.nonce else {
            tracing::warn!(path = %path.display(), "a segment without its header is passed over");
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
    segment: u32,
    pages: u32,
    nonce: Option<Nonce>,
}

impl Scan {
    fn open(segments: &Segments, segment: u32) -> io::Result<Self> {
        let file = File::open(segments.path(segment))?;
        fdatasync(&file)?;
        let length = file.metadata()?.len();
        let header = if length < PAGE_BYTES { Vec::new() } else { read(&file, 0, PAGE_BYTES as usize)? };
        let nonce = decode_segment_header(&header, segment);
        Ok(Self { file, segment, pages: length.div_ceil(PAGE_BYTES) as u32, nonce })
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
            let Some(record) = self.record(page) else {
                page += 1;
                continue;
            };
            let length = record.pages();
            if record.head.sequence > *last_sequence {
                *last_sequence = record.head.sequence;
                let place = Place { segment: self.segment, page };
                let body_at = place.offset() as u32 + record.head.body_offset;
                let at = Written { place, pages: length, sequence: record.head.sequence, body_at };
                if record.is_whole {
                    catalog.apply(&record.head.op, at)?;
                } else {
                    catalog.discard(at)?;
                }
            }
            page += length;
            next = page;
        }
        Ok(next)
    }

    /// The record that begins at a page, if one does. What cannot be read is passed over: whether anything that was
    /// acknowledged is lost with it shows when the block is read.
    fn record(&self, page: u32) -> Option<Record> {
        let offset = u64::from(page) * PAGE_BYTES;
        let header = read(&self.file, offset, HEADER_BYTES).ok()?;
        let claimed = Claimed::read(header.first_chunk()?)?;
        let length = HEADER_BYTES + claimed.payload_bytes;
        let head = Head::decode(&read(&self.file, offset, length).ok()?, self.nonce.as_ref()?)?;
        let body = read(&self.file, offset + length as u64, claimed.body_bytes).unwrap_or_default();
        let is_whole = match &head.op {
            Op::Put { id, .. } | Op::Move { id, .. } => BlockId::of(&body) == *id,
            Op::Refer { .. }
            | Op::Delete(_)
            | Op::Sweep { .. }
            | Op::Remove { .. }
            | Op::Prune { .. }
            | Op::Damage { .. } => true,
        };
        Some(Record { head, is_whole })
    }
}

struct Record {
    head: Head,
    is_whole: bool,
}

impl Record {
    fn pages(&self) -> u32 {
        pages(self.head.body_offset as usize + self.head.body_length as usize)
    }
}
