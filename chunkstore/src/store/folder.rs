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

/// What the file `format` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Of a store of this format: which store it is, in hexadecimal digits. Its backups say the same.
    pub(super) store: String,
}

/// Locks the folder, which is made if it is not there, and sees to it that its format is ours. A new store gets a name.
pub(super) fn claim(path: &Path) -> Result<File, StoreError> {
    claim_as(path, None)
}

/// The same, and a new store gets the name of another one, of which it will be a copy.
pub(super) fn claim_as(path: &Path, format: Option<&Format>) -> Result<File, StoreError> {
    make_folder(path)?;
    let lock = lock(path)?;
    if read_format(path)?.is_some() {
        return Ok(lock);
    }
    // A new folder, or one of format 1, whose files lie beside ours until they are converted.
    if !is_new(path)? && !super::migration::is_format_1(path)? {
        return Err(unknown(path, "unknown"));
    }
    match format {
        Some(format) => write_format(path, format)?,
        None => write_format(path, &Format::new(path)?)?,
    }
    Ok(lock)
}

impl Format {
    fn new(path: &Path) -> Result<Self, StoreError> {
        let mut name = [0; 16];
        let failed = |error: getrandom::Error| StoreError::folder(path, io::Error::other(error.to_string()));
        getrandom::fill(&mut name).map_err(failed)?;
        Ok(Self { store: data_encoding::HEXLOWER.encode(&name) })
    }
}

/// Locks a folder in which a store is being made from a backup: it is none until [`finish_copy`].
pub(super) fn claim_new(path: &Path) -> Result<File, StoreError> {
    make_folder(path)?;
    let lock = lock(path)?;
    if read_format(path)?.is_some() || !is_new(path)? { Err(unknown(path, "unknown")) } else { Ok(lock) }
}

/// The copy in the folder is whole: from now on it is a store.
pub(super) fn finish_copy(path: &Path, format: &Format) -> Result<(), StoreError> {
    write_format(path, format)
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

/// What the folder says of itself; `None` if nothing. Other formats than ours are refused.
pub(super) fn read_format(path: &Path) -> Result<Option<Format>, StoreError> {
    let file = path.join(FORMAT_FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(unknown(path, "unknown")),
        Err(source) => return Err(StoreError::folder(&file, source)),
    };
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(format), Some(store)) if format == FORMAT.to_string() => Ok(Some(Format { store: store.to_owned() })),
        (Some(format), _) if format.parse::<u32>().is_ok_and(|format| format != FORMAT) => Err(unknown(path, format)),
        _ => Err(unknown(path, "unknown")),
    }
}

/// Comes into being whole, by a rename.
fn write_format(path: &Path, format: &Format) -> Result<(), StoreError> {
    let (file, new) = (path.join(FORMAT_FILE), path.join("format.new"));
    let write = || -> io::Result<()> {
        fs::write(&new, format!("{FORMAT}\n{}\n", format.store))?;
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
