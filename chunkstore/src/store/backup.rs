//! A copy of the store in another folder, made while the store is in use.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::writer::lock;
use super::{Store, StoreError, folder, segments};

/// How far a backup or a restoration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupProgress {
    /// Bytes of segments that are in the copy.
    pub copied_bytes: u64,
    /// Bytes of all segments.
    pub total_bytes: u64,
}

/// The index of a backup while it is being written.
const NEW_INDEX: &str = "index.new";

impl Store {
    /// Writes the store as it is now into a folder, which is made if it is not there: a store like any other. A folder that
    /// holds an earlier backup of this store gets what is new, and loses what is gone.
    ///
    /// Puts and reads go on meanwhile. Interrupted, it leaves the earlier backup's index beside some newer segments, which
    /// is still a store; run it again.
    pub fn backup(&self, to: &Path, mut progress: impl FnMut(BackupProgress)) -> Result<(), StoreError> {
        let _housekeeping = lock(&self.0.housekeeping); // every page that the index names must stay
        let _claim = folder::claim(to)?;
        let new_index = to.join(NEW_INDEX);
        remove_folder(&new_index)?;
        self.0.database.checkpoint(&new_index)?;
        let from = self.0.segments.folder();
        let target = to.join(folder::SEGMENTS);
        copy_segments(from, &target, |segment| self.0.segments.is_sealed(segment), &mut progress)?;
        let index = to.join(folder::INDEX);
        remove_folder(&index)?;
        fs::rename(&new_index, &index).map_err(|source| StoreError::folder(&index, source))?;
        segments::sync_folder(to)
    }
}

/// Makes a store in a new folder from a backup. The backup stays as it is.
pub fn restore(backup: &Path, to: &Path, mut progress: impl FnMut(BackupProgress)) -> Result<(), StoreError> {
    let found = folder::read_format(backup)?.unwrap_or_else(|| "unknown".to_owned());
    if found.trim() != folder::FORMAT.to_string() {
        let found = found.trim().to_owned();
        return Err(StoreError::Format { path: backup.to_owned(), found, expected: folder::FORMAT });
    }
    let _backup_lock = folder::claim(backup)?;
    let _lock = folder::claim(to)?;
    let (segments, index) = (to.join(folder::SEGMENTS), to.join(folder::INDEX));
    for taken in [&segments, &index] {
        if taken.exists() {
            let source =
                io::Error::new(io::ErrorKind::AlreadyExists, "there is a store here; restore into a new folder");
            return Err(StoreError::folder(taken, source));
        }
    }
    copy_segments(&backup.join(folder::SEGMENTS), &segments, |_| true, &mut progress)?;
    let new_index = to.join(NEW_INDEX);
    remove_folder(&new_index)?;
    copy_folder(&backup.join(folder::INDEX), &new_index).map_err(|source| StoreError::folder(&index, source))?;
    fs::rename(&new_index, &index).map_err(|source| StoreError::folder(&index, source))?;
    segments::sync_folder(to)
}

/// Copies those segments that the target lacks or that may have grown, and removes those that the source no longer has.
fn copy_segments(
    from: &Path,
    to: &Path,
    is_sealed: impl Fn(u32) -> bool,
    progress: &mut impl FnMut(BackupProgress),
) -> Result<(), StoreError> {
    let failed = |source| StoreError::folder(to, source);
    segments::make_folder(to)?;
    let (ours, theirs) = (segments::list(from).map_err(failed)?, segments::list(to).map_err(failed)?);
    let name = |segment: &u32| segments::name(*segment);
    let length = |segment: &u32| fs::metadata(from.join(name(segment))).map(|file| file.len());
    let mut state = BackupProgress::default();
    for segment in &ours {
        state.total_bytes += length(segment).map_err(failed)?;
    }
    for segment in &ours {
        let (source, target) = (from.join(name(segment)), to.join(name(segment)));
        let bytes = length(segment).map_err(failed)?;
        let has_it = is_sealed(*segment) && fs::metadata(&target).is_ok_and(|file| file.len() == bytes);
        if !has_it {
            copy_file(&source, &target).map_err(|error| StoreError::folder(&target, error))?;
        }
        state.copied_bytes += bytes;
        progress(state);
    }
    for segment in theirs.iter().filter(|segment| ours.binary_search(segment).is_err()) {
        fs::remove_file(to.join(name(segment))).map_err(failed)?;
    }
    segments::sync_folder(to)
}

/// Comes into being whole, by a rename. The system shares or copies the bytes itself where it can.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, to)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_file(&entry.path(), &to.join(entry.file_name()))?;
    }
    File::open(to)?.sync_all()
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::folder(path, error)),
        _ => Ok(()),
    }
}
