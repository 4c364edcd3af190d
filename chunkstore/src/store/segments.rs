//! The segment files: names, reading, giving space back.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, pread};

use super::StoreError;
use super::buffers::Buffers;
use super::catalog::Extent;
use super::record::{HEADER_PAGES, Nonce, PAGE_BYTES, decode_segment_header};

const EXTENSION: &str = "seg";

/// The segments of a store, for reading.
pub(super) struct Segments {
    folder: PathBuf,
    open: Mutex<LruCache<u32, Arc<File>>>,
    /// The highest number, of the segment that may still be written.
    last: AtomicU32,
    /// Whether the file system takes holes, as far as is known.
    takes_holes: AtomicBool,
    buffers: Buffers,
}

impl Segments {
    /// The segments in a folder, which is made if it is not there; so many files are kept open.
    pub(super) fn new(folder: PathBuf, open_files: usize) -> Result<Self, StoreError> {
        make_folder(&folder)?;
        let open_files = NonZeroUsize::new(open_files).unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            folder,
            open: Mutex::new(LruCache::new(open_files)),
            last: AtomicU32::new(0),
            takes_holes: AtomicBool::new(true),
            buffers: Buffers::default(),
        })
    }

    /// Whether a segment is never written any more.
    pub(super) fn is_sealed(&self, segment: u32) -> bool {
        segment < self.last.load(Ordering::Acquire)
    }

    pub(super) fn set_last(&self, segment: u32) {
        self.last.store(segment, Ordering::Release);
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn path(&self, segment: u32) -> PathBuf {
        self.folder.join(name(segment))
    }

    /// The numbers of all segments, rising.
    pub(super) fn list(&self) -> Result<Vec<u32>, StoreError> {
        list(&self.folder).map_err(|source| StoreError::folder(&self.folder, source))
    }

    /// A segment, open for reading.
    pub(super) fn file(&self, segment: u32) -> io::Result<Arc<File>> {
        if let Some(file) = self.lock().get(&segment) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(self.path(segment))?);
        self.lock().put(segment, Arc::clone(&file));
        Ok(file)
    }

    /// The nonce of a segment; `None` if neither of its headers is one.
    pub(super) fn nonce(&self, segment: u32) -> io::Result<Option<Nonce>> {
        nonce(&*self.file(segment)?, segment)
    }

    /// Bytes of a segment, in memory of their own. What lies behind the end is an error.
    pub(super) fn read(&self, segment: u32, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        read(&*self.file(segment)?, offset, length)
    }

    /// A block's bytes, in memory of their own. What lies behind the end is an error.
    pub(super) fn read_block(&self, segment: u32, offset: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = self.buffers.take(length);
        read_into(&mut buffer, &*self.file(segment)?, offset, length)?;
        Ok(self.buffers.block(buffer))
    }

    /// Gives pages back to the file system. `false` if it does not take holes.
    pub(super) fn punch(&self, extent: Extent) -> Result<bool, StoreError> {
        if !self.takes_holes.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let path = self.path(extent.place.segment);
        let length = u64::from(extent.pages) * PAGE_BYTES;
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let file = File::options().write(true).open(&path);
        let punched = file.and_then(|file| Ok(fallocate(&file, mode, extent.place.offset(), length)?));
        match punched {
            Ok(()) => Ok(true),
            // The segment went as a whole.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.takes_holes.store(false, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(StoreError::folder(&path, error)),
        }
    }

    /// Removes a segment in which nothing must stay.
    pub(super) fn remove(&self, segment: u32) -> Result<(), StoreError> {
        self.lock().pop(&segment);
        let path = self.path(segment);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::folder(&path, error)),
            _ => Ok(()),
        }
    }

    /// No code of others runs under the lock.
    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<u32, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A segment's file name.
pub(super) fn name(segment: u32) -> String {
    format!("{segment:010}.{EXTENSION}")
}

/// Whether a read failed for want of file descriptors or memory, which says nothing of the disk.
pub(super) fn is_want(error: &io::Error) -> bool {
    let errors = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| errors.contains(&error))
}

/// The nonce of a segment, from one header or the other.
pub(super) fn nonce(file: &File, segment: u32) -> io::Result<Option<Nonce>> {
    for page in 0..HEADER_PAGES {
        match read(file, u64::from(page) * PAGE_BYTES, PAGE_BYTES as usize) {
            Ok(header) => {
                if let Some(nonce) = decode_segment_header(&header, segment) {
                    return Ok(Some(nonce));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            // The other one may be read.
            Err(error) if page + 1 == HEADER_PAGES => return Err(error),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// The numbers of the segments in a folder, rising. Other files are passed over.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = PathBuf::from(entry?.file_name());
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            numbers.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok()));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads exactly so many bytes, straight into new memory that was not cleared before.
pub(super) fn read(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    read_into(&mut bytes, file, offset, length)?;
    Ok(bytes)
}

/// The same into an empty buffer that has room for it.
fn read_into(bytes: &mut Vec<u8>, file: &File, offset: u64, length: usize) -> io::Result<()> {
    while bytes.len() < length {
        let at = offset + bytes.len() as u64;
        match pread(file, spare_capacity(bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length); // there may be room for more than was asked for
    Ok(())
}

/// Makes a folder and those above it where they are missing, to stay: a power cut forgets a name that was not synced.
pub(super) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::folder(folder, error)),
        _ => sync_folder(parent),
    }
}

/// What was made, removed or renamed in a folder is on disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| StoreError::folder(folder, source))
}
