//! Where the files of an upload are while it is received and processed.

use crate::files::sync_folder;
use control_api::{ErrorKind, Problem};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Bytes of a part that are copied between two looks whether to stop.
const JOINED_AT_ONCE: u64 = 64 << 20;

/// An upload's folder: the source file, parts of it, and what is made from it. It stays until it is removed: what was acknowledged must not go
/// with a task that is dropped, as it is when the node stops.
pub(crate) struct Staging {
    folder: PathBuf,
}

/// A file that has come whole, as far as its parts have been joined.
pub(crate) struct Received {
    pub(crate) staging: Staging,
    /// SHA-256 of the file, where it is known.
    pub(crate) source_sha256: Option<[u8; 32]>,
    /// Parts that are not joined yet; each with its length, in their order.
    pub(crate) parts: Vec<(u32, u64)>,
}

/// Making one file of parts, apart from the folder's owner: it runs on a thread of its own.
pub(crate) struct Joining {
    folder: PathBuf,
    parts: Vec<(u32, u64)>,
}

impl Received {
    pub(crate) fn joining(&self) -> Joining {
        Joining { folder: self.staging.folder.clone(), parts: self.parts.clone() }
    }
}

impl Staging {
    /// An empty folder; what an earlier attempt left there is gone.
    pub(crate) fn create(folder: PathBuf) -> io::Result<Self> {
        remove_folder(&folder)?;
        fs::create_dir(&folder)?;
        folder.parent().map_or(Ok(()), sync_folder)?;
        Ok(Self { folder })
    }

    /// The folder of an upload that has come or is coming.
    pub(crate) fn of(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Deletes the folder. A film's holds thousands of files. Blocks.
    pub(crate) fn remove(self) {
        if let Err(error) = remove_folder(&self.folder) {
            // It is cleared away at the next start.
            tracing::error!(folder = %self.folder.display(), %error, "an upload's folder cannot be deleted");
        }
    }

    /// An empty folder for FFmpeg to write into. It has a name of its own each time: the FFmpeg of a killed node lives on for a
    /// moment, and must not write among what its successor makes.
    pub(crate) async fn fresh_work(&self) -> io::Result<PathBuf> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || fresh_work(&folder)).await.map_err(io::Error::other)?
    }

    /// The uploaded file.
    pub(crate) fn source(&self) -> PathBuf {
        file_in(&self.folder, 0)
    }
}

impl Joining {
    /// Makes the source from the parts, each of which goes as soon as its bytes are in the source, so that the disk holds one
    /// part twice at most. It may be broken off at any place, and then begins again where it was. Blocks.
    pub(crate) fn run(&self, stop: &CancellationToken) -> io::Result<()> {
        let source = file_in(&self.folder, 0);
        if let Some((first, _)) = self.parts.first()
            && !source.exists()
        {
            fs::rename(file_in(&self.folder, *first), &source)?;
            sync_folder(&self.folder)?;
        }
        // `copy` of two plain files is copy_file_range(2): in the kernel, and without copying where the file system can share.
        let mut joined = OpenOptions::new().write(true).open(&source)?;
        let mut end = 0;
        for (number, length) in &self.parts {
            let path = file_in(&self.folder, *number);
            if path.exists() {
                joined.set_len(end)?;
                joined.seek(SeekFrom::Start(end))?;
                let mut part = File::open(&path)?;
                loop {
                    if stop.is_cancelled() {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    if io::copy(&mut (&mut part).take(JOINED_AT_ONCE), &mut joined)? == 0 {
                        break;
                    }
                }
                joined.sync_data()?;
                fs::remove_file(&path)?;
            }
            end += length;
        }
        if joined.metadata()?.len() == end { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The file that a number of [`super::record::Record::files`] stands for, in an upload's folder.
pub(crate) fn file_in(folder: &Path, number: u32) -> PathBuf {
    match number {
        0 => folder.join("source"),
        _ => folder.join(format!("part-{number}")),
    }
}

fn fresh_work(folder: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir()
            && let Err(error) = remove_folder(&path)
        {
            // It goes with the upload's folder.
            tracing::debug!(folder = %path.display(), %error, "what was made before cannot be removed yet");
        }
    }
    let random = u64::from_be_bytes(dht::random_bytes().map_err(io::Error::other)?);
    let work = folder.join(format!("work-{random:016x}"));
    fs::create_dir(&work)?;
    Ok(work)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What an uploader hears when the disk fails.
pub(crate) fn disk_failed(error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::StorageFull {
        return Problem::new(ErrorKind::NoRoom, "The node's disk is full. Ask the platform for another node.");
    }
    Problem::internal(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(folder: &Path) -> (Received, Joining) {
        let staging = Staging::create(folder.join("upload")).unwrap();
        for (number, bytes) in [(1, "one"), (2, "second"), (3, "3")] {
            fs::write(file_in(&staging.folder, number), bytes).unwrap();
        }
        let received = Received { staging, source_sha256: None, parts: vec![(2, 6), (1, 3), (3, 1)] };
        let joining = received.joining();
        (received, joining)
    }

    #[test]
    fn parts_are_joined_in_their_order_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let (received, joining) = staged(folder.path());
        for _ in 0..2 {
            joining.run(&CancellationToken::new()).unwrap();
            assert_eq!(fs::read_to_string(received.staging.source()).unwrap(), "secondone3");
            assert_eq!(fs::read_dir(&joining.folder).unwrap().count(), 1);
        }
        received.staging.remove();
        assert!(!joining.folder.exists());
    }

    #[test]
    fn joining_goes_on_where_it_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (received, joining) = staged(folder.path());
        let stopped = CancellationToken::new();
        stopped.cancel();
        assert_eq!(joining.run(&stopped).unwrap_err().kind(), io::ErrorKind::Interrupted);
        // Killed with the first renamed and part of the second copied.
        assert!(received.staging.source().exists());
        fs::write(received.staging.source(), "secondon").unwrap();
        joining.run(&CancellationToken::new()).unwrap();
        assert_eq!(fs::read_to_string(received.staging.source()).unwrap(), "secondone3");
    }

    #[test]
    fn a_part_that_is_missing_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (_received, joining) = staged(folder.path());
        fs::remove_file(file_in(&joining.folder, 3)).unwrap();
        assert!(joining.run(&CancellationToken::new()).is_err());
    }
}
