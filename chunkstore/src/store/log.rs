//! Appends records to the last segment.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::{Errno, pwritev};

use super::StoreError;
use super::catalog::Written;
use super::record::{HEADER_PAGES, Nonce, Op, PAGE_BYTES, Place, encode_segment_header};
use super::segments::{Segments, sync_folder};

/// Preallocation makes a sync cheap, since the file's size does not change with each record.
const STEP_PAGES: u32 = (16 << 20) / PAGE_BYTES as u32;
/// Kept allocated ahead of every put, so that records without bodies can be written on a full disk: a deletion must not
/// need room. Enough to sweep 100,000 blocks away (32 bytes each) before their pages come back.
const SPARE_PAGES: u32 = (4 << 20) / PAGE_BYTES as u32;
/// Of small segments one part in so many is spare.
const SPARE_PARTS: u32 = 4;
/// Left free on the disk, so that the index can be flushed (16 MiB) and compacted (a file of a level and the ten that it
/// overlaps of the next, 44 MiB).
const LEFT_FREE_BYTES: u64 = 64 << 20;

static ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// The end of the log.
pub(super) struct Log {
    segments: Arc<Segments>,
    /// Most pages of a segment.
    segment_pages: u32,
    last_sequence: u64,
    /// The highest number that any segment has or had.
    last_segment: u32,
    open: Option<Open>,
}

/// The segment that is written.
struct Open {
    file: Arc<File>,
    path: PathBuf,
    number: u32,
    nonce: Nonce,
    next_page: u32,
    allocated_pages: u32,
    /// So far pages are preallocated ahead of what is needed.
    segment_pages: u32,
}

/// Where the log ends, as found on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) sequence: u64,
    pub(super) last_segment: u32,
    /// The last segment's nonce and its next page, if it can be written on.
    pub(super) resume: Option<(Nonce, u32)>,
}

impl Log {
    pub(super) fn new(segments: Arc<Segments>, segment_bytes: u64, end: End) -> Result<Self, StoreError> {
        let segment_pages = (segment_bytes / PAGE_BYTES) as u32;
        let End { sequence: last_sequence, last_segment, resume } = end;
        segments.set_last(last_segment);
        let mut log = Self { segments, segment_pages, last_sequence, last_segment, open: None };
        if let Some((nonce, next_page)) = resume {
            let path = log.segments.path(last_segment);
            let open = |path| -> io::Result<_> {
                let file = File::options().read(true).write(true).open(path)?;
                let length = file.metadata()?.len();
                Ok((file, length))
            };
            let (file, length) = open(&path).map_err(|source| StoreError::folder(&path, source))?;
            let allocated_pages = (length / PAGE_BYTES) as u32;
            let number = last_segment;
            log.open =
                Some(Open { file: Arc::new(file), path, number, nonce, next_page, allocated_pages, segment_pages });
            log.take_spare(); // somebody else may fill the disk before the first put
        }
        Ok(log)
    }

    fn spare_pages(&self) -> u32 {
        SPARE_PAGES.min(self.segment_pages / SPARE_PARTS)
    }

    /// Whether a record of so many pages has room in the segment that is open. Those without a body may go on into the
    /// spare pages behind it: a new segment would need room.
    fn fits(&self, pages: u32, has_body: bool) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let end = open.next_page + pages;
            end <= self.segment_pages || (!has_body && end <= open.allocated_pages)
        })
    }

    /// Begins a new segment, then gives back what was preallocated in the old one: should the first fail, that stays.
    fn roll(&mut self) -> Result<(), StoreError> {
        let number = self.last_segment + 1;
        let path = self.segments.path(number);
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce).map_err(|error| StoreError::folder(&path, io::Error::other(error.to_string())))?;
        let header = encode_segment_header(number, &nonce);
        let create = || -> io::Result<File> {
            // One that is there is left of a start that failed before anything was acknowledged in it.
            let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
            let page: [&[u8]; 2] = [&header, &ZEROS[header.len()..]];
            write_all(&file, 0, &[page, page].concat())?;
            file.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(|error| {
            let _ = std::fs::remove_file(&path); // or the next start would warn of it
            StoreError::folder(&path, error)
        })?;
        sync_folder(self.segments.folder())?;
        if let Err(error) = self.close() {
            tracing::warn!(%error, "a segment keeps room that it does not need");
        }
        self.last_segment = number;
        self.segments.set_last(number);
        let file = Arc::new(file);
        let segment_pages = self.segment_pages;
        self.open = Some(Open {
            file,
            path,
            number,
            nonce,
            next_page: HEADER_PAGES,
            allocated_pages: HEADER_PAGES,
            segment_pages,
        });
        Ok(())
    }

    /// Writes a record, not yet durably, and says where, and which file is to be synced.
    pub(super) fn append(&mut self, op: &Op, body: &[u8]) -> Result<(Written, Arc<File>), StoreError> {
        let pages = op.pages();
        let spare = if body.is_empty() { 0 } else { self.spare_pages() };
        if !self.fits(pages, !body.is_empty()) {
            if spare > 0 {
                self.check_room_to_roll(pages + spare)?;
            }
            self.roll()?;
        }
        let sequence = self.last_sequence + 1;
        let Some(open) = self.open.as_mut() else { return Err(StoreError::Stopped) };
        let place = Place { segment: open.number, page: open.next_page };
        let head = op.encode(sequence, &open.nonce);
        let padding = pages as usize * PAGE_BYTES as usize - head.len() - body.len();
        let written = open
            .allocate(pages, spare)
            .and_then(|()| write_all(&open.file, place.offset(), &[&head, body, &ZEROS[..padding]]));
        if let Err(error) = written {
            let path = open.path.clone();
            return Err(StoreError::folder(&path, error));
        }
        open.next_page += pages;
        self.last_sequence = sequence;
        let body_at = place.offset() as u32 + head.len() as u32; // a segment is below 4 GiB
        Ok((Written { place, pages, sequence, body_at }, Arc::clone(&open.file)))
    }

    /// A segment is not written any more.
    pub(super) fn abandon(&mut self, segment: u32) {
        self.open.take_if(|open| open.number == segment);
    }

    /// Gives back the spare pages, so that the index can be flushed on a full disk. They are taken again with the next record.
    pub(super) fn give_up_spare(&mut self) -> Result<(), StoreError> {
        self.open.as_mut().map_or(Ok(()), |open| {
            open.end().and_then(|()| open.file.sync_all()).map_err(|source| StoreError::folder(&open.path, source))
        })
    }

    /// Takes spare pages, if there is room.
    pub(super) fn take_spare(&mut self) {
        let spare = self.spare_pages();
        let Some(open) = &mut self.open else { return };
        let wanted = open.next_page + spare;
        if wanted > open.allocated_pages
            && let Err(error) = open.extend(wanted)
        {
            tracing::warn!(%error, "no room on the disk is kept for deletions");
        }
    }

    /// Gives back what was preallocated.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        if let Some(mut open) = self.open.take() {
            open.end().map_err(|source| StoreError::folder(&open.path, source))?;
        }
        Ok(())
    }

    fn check_room_to_roll(&self, pages: u32) -> Result<(), StoreError> {
        let Some(open) = &self.open else { return Ok(()) };
        open.check_free(pages + 1).map_err(|error| StoreError::folder(&open.path, error))
    }
}

impl Open {
    /// Sees to it that so many pages, and the spare ones behind them, have their place on disk. Without spare ones the
    /// record is one that must go through: it takes what there is, and no more than it needs when that is little.
    fn allocate(&mut self, pages: u32, spare: u32) -> io::Result<()> {
        let wanted = self.next_page + pages + spare;
        if wanted <= self.allocated_pages {
            return Ok(());
        }
        let step = wanted.max((self.allocated_pages + STEP_PAGES).min(self.segment_pages));
        match self.check_free(step - self.allocated_pages) {
            Ok(()) => self.extend(step),
            // The last room is as good as any, but the index needs some to be flushed.
            Err(_) if self.check_free(wanted - self.allocated_pages).is_ok() || spare == 0 => self.extend(wanted),
            Err(error) => Err(error),
        }
    }

    fn extend(&mut self, end_page: u32) -> io::Result<()> {
        let (from, to) = (u64::from(self.allocated_pages) * PAGE_BYTES, u64::from(end_page) * PAGE_BYTES);
        match fallocate(&self.file, FallocateFlags::empty(), from, to - from) {
            // A file system that cannot preallocate takes the writes as they come.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.allocated_pages = end_page;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether so many pages more leave the disk the room that the index needs.
    fn check_free(&self, pages: u32) -> io::Result<()> {
        let disk = fstatvfs(&self.file)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < u64::from(pages) * PAGE_BYTES + LEFT_FREE_BYTES {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    /// Ends the file where its records end.
    fn end(&mut self) -> io::Result<()> {
        self.allocated_pages = self.next_page;
        self.file.set_len(u64::from(self.next_page) * PAGE_BYTES)
    }
}

/// Writes all parts, one behind the other, from an offset on.
fn write_all(file: &File, mut offset: u64, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match pwritev(file, rest, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
