//! The store's folder: its lock and the format that it has.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use super::StoreError;
use super::segments::{make_folder, sync_folder};

pub(super) const SEGMENTS: &str = "segments";
pub(super) const INDEX: &str = "index";
const LOCK: &str = "imira.lock";
const FORMAT_FILE: &str = "format";
/// Format 2 is `docs/store.md`.
pub(super) const FORMAT: u32 = 2;

/// Locks the folder, which is made if it is not there, and sees to it that its format is ours.
pub(super) fn claim(path: &Path) -> Result<File, StoreError> {
    make_folder(path)?;
    let lock = lock(path)?;
    check_format(path)?;
    Ok(lock)
}

/// Our own lock, because RocksDB tells a lock that is held from other failures only by the wording of its message.
fn lock(path: &Path) -> Result<File, StoreError> {
    let file_path = path.join(LOCK);
    let folder = |source| StoreError::folder(&file_path, source);
    let file = File::options().create(true).truncate(false).write(true).open(&file_path).map_err(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(folder(source)),
    }
}

fn check_format(path: &Path) -> Result<(), StoreError> {
    match read_format(path)? {
        Some(found) if found.trim() == FORMAT.to_string() => Ok(()),
        Some(found) => Err(unknown(path, found.trim())),
        // A new folder, or one of format 1, whose files lie beside ours until they are converted.
        None if is_new(path)? || super::migration::is_format_1(path) => write_format(path),
        None => Err(unknown(path, "unknown")),
    }
}

/// The format that a folder says it has, if it says so.
pub(super) fn read_format(path: &Path) -> Result<Option<String>, StoreError> {
    let file = path.join(FORMAT_FILE);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some("unknown".to_owned())),
        Err(source) => Err(StoreError::folder(&file, source)),
    }
}

/// Comes into being whole, by a rename.
pub(super) fn write_format(path: &Path) -> Result<(), StoreError> {
    let (file, new) = (path.join(FORMAT_FILE), path.join("format.new"));
    let write = || -> io::Result<()> {
        fs::write(&new, format!("{FORMAT}\n"))?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &file)
    };
    write().map_err(|source| StoreError::folder(&file, source))?;
    sync_folder(path)
}

/// Whether nothing is in the folder but what an interrupted first start leaves.
fn is_new(path: &Path) -> Result<bool, StoreError> {
    let entries = fs::read_dir(path).map_err(|source| StoreError::folder(path, source))?;
    for entry in entries {
        let name = entry.map_err(|source| StoreError::folder(path, source))?.file_name();
        if name != LOCK && name != "format.new" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unknown(path: &Path, found: &str) -> StoreError {
    StoreError::Format { path: path.to_owned(), found: found.to_owned(), expected: FORMAT }
}
