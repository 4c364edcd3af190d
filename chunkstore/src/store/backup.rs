//! A copy of the store in another folder, made while the store is in use.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, SeekFrom, renameat_with, seek, statvfs};
use rustix::io::Errno;

use super::writer::lock;
use super::{Store, StoreError, folder, segments};

/// How far a backup or a restoration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupProgress {
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// Bytes that have to be, without the index.
    pub total_bytes: u64,
    /// Bytes that an earlier backup in the same folder has already.
    pub kept_bytes: u64,
}

/// The index of a backup while it is being written.
const NEW_INDEX: &str = "index.new";
/// What a file is called while it is being written.
const NEW: &str = "new";
/// So much is copied between two looks at whether to go on.
const PIECE_BYTES: u64 = 16 << 20;

impl Store {
    /// Writes the store as it is now into a folder, which is made if it is not there: a store like any other. A folder that
    /// holds an earlier backup of this store gets what is new, and loses what is gone.
    ///
    /// Refuses a folder inside the store's own, one that holds another store, and one on a disk without enough room
    /// ([`StoreError::Target`]).
    ///
    /// Puts and reads go on meanwhile. Interrupted, also by `progress`, it leaves the earlier backup's index beside some newer
    /// segments, which is still a store; run it again.
    pub fn backup(
        &self,
        to: &Path,
        mut progress: impl FnMut(BackupProgress) -> ControlFlow<()>,
    ) -> Result<BackupProgress, StoreError> {
        refuse_inside(&self.0.path, to)?;
        let _housekeeping = lock(&self.0.housekeeping); // every page that the index names must stay
        let own = folder::read_format(&self.0.path)?;
        let claim = folder::claim_as(to, own.as_ref());
        if let Err(StoreError::Format { .. }) = claim {
            return Err(target(to, "it holds something else than a backup; take an empty folder"));
        }
        let _claim = claim?;
        if folder::read_format(to)? != own {
            return Err(target(to, "it holds another store, or a backup of another; take an empty folder"));
        }
        let new_segments = to.join(folder::SEGMENTS);
        let from = self.0.segments.folder();
        let is_sealed = |segment| self.0.segments.is_sealed(segment);
        let index_bytes = folder_bytes(&self.0.path.join(folder::INDEX));
        Plan::make(from, &new_segments, is_sealed)?.check_room(to, index_bytes)?;
        let new_index = to.join(NEW_INDEX);
        remove_folder(&new_index)?;
        self.0.database.checkpoint(&new_index)?;
        // Anew, since a segment may have been begun meanwhile that the index names.
        let plan = Plan::make(from, &new_segments, is_sealed)?;
        let state = plan.carry_out(&mut progress)?;
        let index = to.join(folder::INDEX);
        take_place(&new_index, &index).map_err(|source| StoreError::folder(&index, source))?;
        segments::sync_folder(to)?;
        // Only now: the index of before may have named them.
        plan.remove_gone()?;
        remove_folder(&new_index)?;
        Ok(state)
    }
}

/// Makes a store in a new folder from a backup. The backup stays as it is.
///
/// Broken off, the folder holds a part of a store: delete it and begin again.
pub fn restore(
    backup: &Path,
    to: &Path,
    mut progress: impl FnMut(BackupProgress) -> ControlFlow<()>,
) -> Result<BackupProgress, StoreError> {
    let Some(format) = folder::read_format(backup)? else {
        let found = "unknown".to_owned();
        return Err(StoreError::Format { path: backup.to_owned(), found, expected: folder::FORMAT });
    };
    let (segments, index) = (to.join(folder::SEGMENTS), to.join(folder::INDEX));
    if segments.exists() || index.exists() {
        return Err(target(to, "there is a store here; restore into a new folder"));
    }
    let _backup_lock = folder::claim(backup)?;
    let claim = folder::claim_new(to);
    if let Err(StoreError::Format { .. }) = claim {
        return Err(target(to, "there is something in it; restore into a new folder"));
    }
    let _lock = claim?;
    let old_index = backup.join(folder::INDEX);
    if !old_index.exists() {
        let source =
            io::Error::new(io::ErrorKind::NotFound, "the backup was broken off and is not whole; run it again");
        return Err(StoreError::folder(&old_index, source));
    }
    let plan = Plan::make(&backup.join(folder::SEGMENTS), &segments, |_| true)?;
    plan.check_room(to, folder_bytes(&old_index))?;
    let state = plan.carry_out(&mut progress)?;
    let new_index = to.join(NEW_INDEX);
    remove_folder(&new_index)?;
    copy_folder(&old_index, &new_index).map_err(|source| StoreError::folder(&index, source))?;
    fs::rename(&new_index, &index).map_err(|source| StoreError::folder(&index, source))?;
    segments::sync_folder(to)?;
    folder::finish_copy(to, &format)?;
    Ok(state)
}

/// Which segments must be copied, and which removed.
struct Plan {
    from: PathBuf,
    to: PathBuf,
    copy: Vec<u32>,
    gone: Vec<u32>,
    state: BackupProgress,
}

impl Plan {
    /// Those that the target lacks or may have only a part of are copied. The target's last may have been copied while it was
    /// still being written, and filled up since to the length that was preallocated then: it is always copied again.
    fn make(from: &Path, to: &Path, is_sealed: impl Fn(u32) -> bool) -> Result<Self, StoreError> {
        let failed = |source| StoreError::folder(to, source);
        segments::make_folder(to)?;
        let (ours, theirs) = (segments::list(from).map_err(failed)?, segments::list(to).map_err(failed)?);
        let mut plan = Self {
            from: from.to_owned(),
            to: to.to_owned(),
            copy: Vec::new(),
            gone: theirs.iter().copied().filter(|segment| ours.binary_search(segment).is_err()).collect(),
            state: BackupProgress::default(),
        };
        for segment in ours {
            let source = fs::metadata(from.join(segments::name(segment))).map_err(failed)?;
            let there = fs::metadata(to.join(segments::name(segment)));
            let is_there = there.is_ok_and(|there| there.len() == source.len());
            if is_there && is_sealed(segment) && theirs.last() != Some(&segment) {
                plan.state.kept_bytes += data_bytes(&source);
            } else {
                plan.state.total_bytes += data_bytes(&source);
                plan.copy.push(segment);
            }
        }
        Ok(plan)
    }

    fn check_room(&self, to: &Path, index_bytes: u64) -> Result<(), StoreError> {
        let disk = statvfs(to).map_err(|error| StoreError::folder(to, error))?;
        let (free, needed) = (disk.f_bavail.saturating_mul(disk.f_frsize), self.state.total_bytes + index_bytes);
        if needed <= free {
            return Ok(());
        }
        let (needed, free) = (needed.div_ceil(1 << 20), free >> 20);
        let reason = format!("it takes {needed} MiB and its disk has {free} MiB free; make room or take another disk");
        Err(target(to, &reason))
    }

    fn carry_out(
        &self,
        progress: &mut impl FnMut(BackupProgress) -> ControlFlow<()>,
    ) -> Result<BackupProgress, StoreError> {
        let Self { from, to, copy, .. } = self;
        let mut state = self.state;
        remove_unfinished(to).map_err(|source| StoreError::folder(to, source))?;
        // From the first to the last, or a part of one could pass for the whole: see `make`.
        for segment in copy {
            let (source, target) = (from.join(segments::name(*segment)), to.join(segments::name(*segment)));
            let mut advance = |bytes: u64| {
                state.copied_bytes = (state.copied_bytes + bytes).min(state.total_bytes);
                progress(state)
            };
            let is_whole = copy_sparse(&source, &target, &mut advance);
            if !is_whole.map_err(|error| StoreError::folder(&target, error))? {
                return Err(StoreError::Interrupted);
            }
        }
        segments::sync_folder(to)?;
        // Preallocated room was counted and is not copied.
        state.copied_bytes = state.total_bytes;
        let _ = progress(state);
        Ok(state)
    }

    fn remove_gone(&self) -> Result<(), StoreError> {
        for segment in &self.gone {
            let path = self.to.join(segments::name(*segment));
            fs::remove_file(&path).map_err(|error| StoreError::folder(&path, error))?;
        }
        segments::sync_folder(&self.to)
    }
}

/// A copy inside the store would be part of itself, and be mixed up with it.
fn refuse_inside(store: &Path, to: &Path) -> Result<(), StoreError> {
    let there = to.ancestors().find_map(|above| match above.as_os_str().is_empty() {
        true => Path::new(".").canonicalize().ok(),
        false => above.canonicalize().ok(),
    });
    let store = store.canonicalize().map_err(|source| StoreError::folder(store, source))?;
    match there.is_some_and(|there| there.starts_with(&store)) {
        true => Err(target(to, "it lies in the store's own folder; take another, best on another disk")),
        false => Ok(()),
    }
}

fn target(path: &Path, reason: &str) -> StoreError {
    StoreError::Target { path: path.to_owned(), reason: reason.to_owned() }
}

/// Gives a folder the name of another one, which afterwards has this one's or is gone. At no time is there none of the name, where the
/// file system can do that.
fn take_place(new: &Path, old: &Path) -> io::Result<()> {
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Err(Errno::NOENT) => fs::rename(new, old),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::remove_dir_all(old)?;
            fs::rename(new, old)
        }
        exchanged => Ok(exchanged?),
    }
}

/// What a file takes on disk, without its holes.
fn data_bytes(file: &fs::Metadata) -> u64 {
    file.len().min(file.blocks().saturating_mul(512)) // stat(2): st_blocks is in units of 512 bytes
}

/// 0 if it cannot be told.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// Comes into being whole, by a rename. `false` if `advance`, which is told of bytes as they are copied, broke it off.
fn copy_sparse(from: &Path, to: &Path, advance: &mut impl FnMut(u64) -> ControlFlow<()>) -> io::Result<bool> {
    let new = to.with_extension(NEW);
    let (mut source, mut copy) = (File::open(from)?, File::create(&new)?);
    let length = source.metadata()?.len();
    copy.set_len(length)?;
    let mut at = 0;
    while let Some((start, end)) = next_data(&source, at, length)? {
        at = start;
        source.seek(io::SeekFrom::Start(at))?;
        copy.seek(io::SeekFrom::Start(at))?;
        while at < end {
            // The system shares or copies the bytes itself where it can.
            let copied = io::copy(&mut (&source).take(PIECE_BYTES.min(end - at)), &mut copy)?;
            if copied == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += copied;
            if advance(copied).is_break() {
                drop(copy);
                fs::remove_file(&new)?;
                return Ok(false);
            }
        }
    }
    copy.sync_all()?;
    fs::rename(&new, to)?;
    Ok(true)
}

/// The next part of a file from `at` on that is no hole: where it begins and ends.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, length))), // it knows no holes
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end.min(length))).filter(|_| start < length))
}

/// Removes what a backup that was killed left.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new(NEW)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_sparse(&entry.path(), &to.join(entry.file_name()), &mut |_| ControlFlow::Continue(()))?;
    }
    File::open(to)?.sync_all()
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::folder(path, error)),
        _ => Ok(()),
    }
}
