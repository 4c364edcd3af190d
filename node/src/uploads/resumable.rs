//! Resumable uploads (docs/api.md §4): files that grow by `PATCH`, and parts that become one.

use super::record::{FileRecord, Record, Stage};
use super::staging::{Received, Staging, disk_failed, file_in};
use super::upload::Upload;
use super::writer::{Slot, Turn};
use super::{MAX_WRITERS_OF_ONE, REPORT_INTERVAL, Staged, Uploads, create, exists, sync_folder_of};
use bytes::Bytes;
use control_api::tus::{Append, Checker, Concat, Creation, FileId, FileState, MAX_METADATA_BYTES, MAX_PARTS};
use control_api::{ErrorKind, Phase, Problem, UploadStatus};
use futures::{Stream, StreamExt};
use std::io::{self, SeekFrom};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt, BufWriter};

/// After so many bytes the file is synced, so that a power cut in a long request costs no more.
const SYNC_EVERY: u64 = 64 << 20;

/// Bytes are written in pieces of this size; so much of an open request is lost if the process is killed.
const WRITE_BUFFER: usize = 256 << 10;

/// What a request did.
pub(crate) struct Step<T> {
    /// Its answer.
    pub(crate) answer: T,
    /// The file, if it is whole now.
    pub(crate) received: Option<Received>,
}

/// A body that is being written, and its place in the file.
struct Writing<'a> {
    upload: &'a Upload,
    turn: &'a Turn<'a>,
    number: u32,
    start: u64,
    length: u64,
    checker: Option<Checker>,
}

/// Where a file ends while it is written.
struct End {
    written: u64,
    synced: u64,
    /// The disk did not take something. What it says of that later counts for nothing: an error is told once.
    failed: bool,
}

impl Uploads {
    /// Creates the file of an upload, a part of it, or the file from its parts. What is there already stays.
    pub(crate) async fn create(
        &self,
        upload: &Arc<Upload>,
        creation: Creation,
        metadata: String,
        check_room: impl Fn(u64, Staged) -> Result<(), Problem>,
    ) -> Result<Step<FileId>, Problem> {
        let _creating = upload.creating.lock().await;
        upload.check_open()?;
        let size = upload.verified().grant.size;
        match creation {
            Creation::Whole { length } => {
                check_whole(length, size)?;
                let record = upload.record().await.clone();
                // Also after it has come whole: a client that did not hear the answer asks again.
                if record.joined.is_some() || !record.files.contains_key(&0) {
                    self.add(upload, FileId::Whole, length, metadata, check_room).await?;
                }
                Ok(Step { answer: FileId::Whole, received: None })
            }
            Creation::Part { length } => {
                if length > size {
                    return Err(too_large(size));
                }
                self.make_way_for(upload, length).await?;
                let number = upload.record().await.next_part();
                self.add(upload, FileId::Part(number), length, metadata, check_room).await?;
                Ok(Step { answer: FileId::Part(number), received: None })
            }
            Creation::Final { parts } => {
                let received = self.join(upload, parts, metadata).await?;
                Ok(Step { answer: FileId::Whole, received })
            }
        }
    }

    /// Adds a file to the record and to those that may be written.
    async fn add(
        &self,
        upload: &Arc<Upload>,
        file: FileId,
        length: u64,
        metadata: String,
        check_room: impl Fn(u64, Staged) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let number = number_of(file);
        if upload.slots().contains_key(&number) {
            return Ok(());
        }
        let is_first = !upload.is_resumable();
        if is_first {
            self.reserve(upload, &check_room)?;
        } else if upload.phase() != Phase::Receiving {
            return Err(exists());
        }
        let added = async {
            if number > 0 {
                self.reserve_joining(upload, length, &check_room)?;
            }
            if is_first {
                create(self.folder(upload)).await.map_err(|error| disk_failed(&error))?;
            }
            let file = FileRecord { length, checked: None, metadata };
            upload.change(|record| record.add(number, file)).await
        };
        if let Err(problem) = added.await {
            if is_first {
                upload.for_joining.store(0, Ordering::Relaxed);
                upload.status.send_modify(|status| *status = UploadStatus::waiting(status.upload_id, status.size));
            }
            return Err(problem);
        }
        upload.slots().insert(number, Arc::new(Slot::new(0)));
        Ok(())
    }

    /// Takes away parts of which nothing has come, the oldest first, where a new one of `length` would not fit: the client that created one and did
    /// not hear its URL creates another.
    async fn make_way_for(&self, upload: &Arc<Upload>, length: u64) -> Result<(), Problem> {
        let is_empty = |(number, slot): &(&u32, &Arc<Slot>)| **number > 0 && slot.written() == 0 && !slot.is_taken();
        let empty: Vec<u32> = upload.slots().iter().filter(is_empty).map(|(number, _)| *number).collect();
        let leaving = {
            let record = upload.record().await;
            let length_of = |number: &u32| record.files.get(number).map_or(0, |file| file.length);
            let fits = |gone: usize| {
                let freed: u64 = empty[..gone].iter().map(length_of).sum();
                record.files.len() - gone < MAX_PARTS && length <= record.unassigned() + freed
            };
            // None goes where that would not help.
            (0..=empty.len()).find(|gone| fits(*gone)).unwrap_or(0)
        };
        for number in &empty[..leaving] {
            self.take_away(upload, *number).await?;
        }
        Ok(())
    }

    /// Takes the parts for the whole file; they are joined when it is processed.
    async fn join(&self, upload: &Upload, parts: Vec<u32>, metadata: String) -> Result<Option<Received>, Problem> {
        let slots = upload.slots().clone();
        // Nobody writes to them meanwhile, and afterwards it is too late.
        let mut turns = Vec::with_capacity(parts.len());
        for slot in parts.iter().filter_map(|part| slots.get(part)) {
            turns.push(slot.turn().await?);
        }
        let is_whole = |record: &Record, part: &u32| match (record.files.get(part), slots.get(part)) {
            (Some(file), Some(slot)) => (slot.offset() == file.length).then_some((*part, file.length)),
            _ => None,
        };
        let joined = upload.change(|record| {
            if record.joined.as_ref() == Some(&parts) {
                return Ok(None);
            }
            if record.joined.is_some() || !matches!(record.stage, Stage::Receiving) {
                return Err(exists());
            }
            let incomplete = || {
                let detail = format!(
                    "The parts must be there whole, and have {} bytes together. Ask for each with HEAD, and send what is missing.",
                    record.size
                );
                Problem::new(ErrorKind::UploadIncomplete, detail)
            };
            let lengths: Option<Vec<_>> = parts.iter().map(|part| is_whole(record, part)).collect();
            let lengths = lengths.ok_or_else(incomplete)?;
            if lengths.iter().map(|(_, length)| length).sum::<u64>() != record.size {
                return Err(incomplete());
            }
            record.check_metadata(&metadata)?;
            record.files.insert(0, FileRecord { length: record.size, checked: None, metadata });
            record.joined = Some(parts);
            record.stage = Stage::Received { parts: lengths.clone(), tries: 0, source_sha256: None };
            Ok(Some(lengths))
        });
        let Some(parts) = joined.await? else { return Ok(None) };
        let received = self.received(upload, parts);
        drop(turns);
        Ok(Some(received))
    }

    fn received(&self, upload: &Upload, parts: Vec<(u32, u64)>) -> Received {
        upload.slots().clear();
        Received { staging: Staging::of(self.folder(upload)), source_sha256: None, parts }
    }

    /// Writes a body behind what is there; the offset afterwards, which is on disk.
    pub(crate) async fn append<S>(
        &self,
        upload: &Arc<Upload>,
        append: Append,
        check_room: impl Fn(u64, Staged) -> Result<(), Problem>,
        body: S,
    ) -> Result<Step<u64>, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin,
    {
        let number = number_of(append.file);
        if append.announced == Some(0) {
            // As a client sends it that has not heard of the last byte's arrival.
            let state = self.file(upload, append.file).await?;
            if state.offset == Some(append.offset) && append.offset == state.length {
                return Ok(Step { answer: append.offset, received: None });
            }
        }
        let slot = self.slot(upload, append.file, check_room).await?;
        let turn = slot.turn().await?;
        // Whoever waits for a turn does not keep others from writing.
        let _writer = self.writer()?;
        let _one_of_its_own = upload.writers.try_acquire().map_err(|_| {
            let detail = format!(
                "{MAX_WRITERS_OF_ONE} parts of this upload are coming at the moment. Go on with this one when one of them has come."
            );
            Problem::new(ErrorKind::Busy, detail)
        })?;
        upload.check_open()?;
        let (length, checked) = upload.coming(number).await?;
        check_offset(&append, slot.offset(), length)?;
        self.count_from(upload, number, checked, append.checksum.is_some().then_some(append.offset)).await?;
        let writing = Writing {
            upload,
            turn: &turn,
            number,
            start: append.offset,
            length,
            checker: append.checksum.as_ref().map(|checksum| checksum.checker()),
        };
        let (end, outcome) = self.write(writing, body).await;
        // A body may break behind its last byte, and the client, which is told that all has come, does not come again.
        let has_all = end == length && end > append.offset && upload.why_ended().is_none();
        let outcome = if has_all { Ok(()) } else { outcome };
        let noted = if append.checksum.is_some() && outcome.is_ok() {
            upload.change(|record| record.set_checked(number, Some(end))).await
        } else {
            Ok(())
        };
        let is_whole = append.file == FileId::Whole && end == length && outcome.is_ok() && noted.is_ok();
        let received = if is_whole { upload.receive(Vec::new(), None).await } else { Ok(()) };
        let offset = match (&noted, &received) {
            // What is told counts on disk, too.
            (Err(_), _) => append.offset,
            // With the last byte the client leaves, so that one comes again where the node could not note that it begins to process.
            (Ok(()), Err(_)) => length - 1,
            (Ok(()), Ok(())) => end,
        };
        turn.advance(offset);
        upload.report_pause(upload.received_bytes());
        outcome.and(noted).and(received)?;
        Ok(Step { answer: offset, received: is_whole.then(|| self.received(upload, Vec::new())) })
    }

    /// Notes, before bytes come, whether those behind the offset count as they come (`None`) or only once their checksum has been checked.
    async fn count_from(
        &self,
        upload: &Upload,
        number: u32,
        checked: Option<u64>,
        wanted: Option<u64>,
    ) -> Result<(), Problem> {
        if let (Some(checked), None) = (checked, wanted) {
            // What lies there unchecked must not begin to count.
            let path = file_in(&self.folder(upload), number);
            let cut = async { open_at(&path, checked).await?.sync_all().await };
            cut.await.map_err(|error| disk_failed(&error))?;
        }
        if checked != wanted {
            upload.change(|record| record.set_checked(number, wanted)).await?;
        }
        Ok(())
    }

    /// The file that is to grow; the whole is made when its first bytes come.
    async fn slot(
        &self,
        upload: &Arc<Upload>,
        file: FileId,
        check_room: impl Fn(u64, Staged) -> Result<(), Problem>,
    ) -> Result<Arc<Slot>, Problem> {
        let find = || upload.slots().get(&number_of(file)).cloned();
        if let Some(slot) = find() {
            return Ok(slot);
        }
        upload.check_open()?;
        let record = upload.record().await.clone();
        if record.joined.is_some() {
            return Err(final_upload());
        }
        if !matches!(record.stage, Stage::Waiting | Stage::Receiving) {
            return Err(exists());
        }
        if file == FileId::Whole && !upload.is_resumable() {
            let whole = Creation::Whole { length: upload.verified().grant.size };
            self.create(upload, whole, String::new(), check_room).await?;
        }
        find().ok_or_else(no_such_file)
    }

    /// Writes a body; where the file ends afterwards, with all before that on disk, and how it went.
    async fn write<S>(&self, mut writing: Writing<'_>, mut body: S) -> (u64, Result<(), Problem>)
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin,
    {
        let path = file_in(&self.folder(writing.upload), writing.number);
        let checks = writing.checker.is_some();
        let mut file = match open_at(&path, writing.start).await {
            Ok(file) => BufWriter::with_capacity(WRITE_BUFFER, file),
            Err(error) => return (writing.start, Err(disk_failed(&error))),
        };
        let mut end = End { written: writing.start, synced: writing.start, failed: false };
        let mut outcome = self.copy(&mut writing, &mut body, &mut file, &mut end).await;
        if outcome.is_ok()
            && let Some(checker) = writing.checker.take()
        {
            outcome = checker.finish();
        }
        let discard = outcome.as_ref().is_err_and(|problem| {
            writing.checker.is_some() || matches!(problem.kind, ErrorKind::ChecksumMismatch | ErrorKind::UploadTooLarge)
        });
        // What had been synced before counts.
        let kept = if discard || checks { writing.start } else { end.synced };
        match settle(file, if discard || end.failed { Err(kept) } else { Ok(end.written) }).await {
            Ok(end) => (end, outcome),
            Err(error) => {
                tracing::warn!(%error, "bytes of an upload could not be written");
                let cut = async { open_at(&path, kept).await?.sync_all().await };
                if let Err(error) = cut.await {
                    tracing::error!(path = %path.display(), %error, "what was not written well cannot be cut off");
                }
                (kept, outcome.and(Err(disk_failed(&error))))
            }
        }
    }

    async fn copy<S>(
        &self,
        writing: &mut Writing<'_>,
        body: &mut S,
        file: &mut BufWriter<File>,
        end: &mut End,
    ) -> Result<(), Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin,
    {
        let upload = writing.upload;
        let before = upload.received_bytes();
        let (begun, mut reported) = (Instant::now(), Instant::now());
        let report = || {
            let received = upload.received_bytes();
            // What comes by other requests meanwhile counts, too.
            upload.report_received(received, received.saturating_sub(before), begun.elapsed());
        };
        loop {
            let turn = writing.turn;
            let mut next = pin!(async {
                let piece = body.next().await;
                if let Some(Ok(bytes)) = &piece {
                    turn.heard();
                    self.pace.pass(bytes.len()).await;
                    // Waiting for its place in the pace was no silence of the client's.
                    turn.heard();
                }
                piece
            });
            let piece = loop {
                tokio::select! {
                    piece = &mut next => break piece,
                    why = upload.ended() => return Err(why),
                    () = turn.interrupt.cancelled() => return Err(made_way()),
                    () = self.stop.cancelled() => return Err(stopping()),
                    // So that what came just before a pause is seen, too.
                    () = tokio::time::sleep(REPORT_INTERVAL) => report(),
                }
            };
            let Some(piece) = piece.transpose()? else { return Ok(()) };
            if piece.len() as u64 > writing.length - end.written {
                return Err(too_large(writing.length));
            }
            if let Some(checker) = &mut writing.checker {
                checker.update(&piece);
            }
            let is_due = end.written + piece.len() as u64 - end.synced >= SYNC_EVERY;
            let written = async {
                file.write_all(&piece).await?;
                if is_due {
                    file.flush().await?;
                    file.get_ref().sync_data().await?;
                }
                io::Result::Ok(())
            };
            if let Err(error) = written.await {
                end.failed = true;
                return Err(disk_failed(&error));
            }
            end.written += piece.len() as u64;
            writing.turn.wrote(end.written);
            if is_due {
                end.synced = end.written;
            }
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                report();
            }
        }
    }

    /// How far a file is.
    pub(crate) async fn file(&self, upload: &Upload, file: FileId) -> Result<FileState, Problem> {
        let error = upload.status.borrow().error.clone();
        if let Some(problem) = upload.why_ended().or(error.filter(|problem| problem.status == 410)) {
            return Err(problem);
        }
        let number = number_of(file);
        let slot = upload.slots().get(&number).cloned();
        let record = upload.record().await;
        let coming = matches!(record.stage, Stage::Waiting | Stage::Receiving);
        let expires = coming.then_some(record.expires);
        let Some(kept) = record.files.get(&number) else {
            // An upload whose first bytes have not come, and one whose file came by PUT.
            let plain = file == FileId::Whole && record.files.is_empty();
            let offset = Some(if coming { 0 } else { record.size });
            let state = FileState { offset, length: record.size, metadata: String::new(), concat: None, expires };
            return if plain { Ok(state) } else { Err(no_such_file()) };
        };
        let concat = match (file, &record.joined) {
            (FileId::Part(_), _) => Some(Concat::Partial),
            (FileId::Whole, Some(parts)) => Some(Concat::Final(parts.clone())),
            (FileId::Whole, None) => None,
        };
        let is_joining = matches!(&record.stage, Stage::Received { parts, .. } if !parts.is_empty());
        let offset = match slot {
            Some(slot) => Some(slot.offset()),
            None if file == FileId::Whole && is_joining => None,
            None if coming => Some(0),
            None => Some(kept.length),
        };
        Ok(FileState { offset, length: kept.length, metadata: kept.metadata.clone(), concat, expires })
    }

    /// Ends an upload, or takes a part away; nothing of it is left on disk afterwards.
    pub(crate) async fn terminate(&self, upload: &Arc<Upload>, file: FileId) -> Result<(), Problem> {
        if let FileId::Part(number) = file {
            self.file(upload, file).await?;
            let _creating = upload.creating.lock().await;
            return self.take_away(upload, number).await;
        }
        upload.check_open()?;
        let phase = upload.phase();
        if phase == Phase::Ready {
            let detail = "The film is stored already. Delete its content at the platform.";
            return Err(Problem::new(ErrorKind::UploadExists, detail));
        }
        if phase == Phase::Rejected {
            // It has ended, and its status says why.
            return Ok(());
        }
        self.end(upload, terminated()).await;
        // It may be at work, and says so when it has ended. An error means that nobody reports any more.
        drop(upload.status.subscribe().wait_for(|status| status.phase.is_final()).await);
        Ok(())
    }

    /// Takes a part away, for whoever holds `creating`.
    async fn take_away(&self, upload: &Arc<Upload>, number: u32) -> Result<(), Problem> {
        upload.check_open()?;
        let Some(slot) = upload.slots().get(&number).cloned() else { return Err(exists()) };
        let _turn = slot.take_turn().await;
        // From the record first: what is told to be there is there.
        let (is_last, longest) = upload
            .change(|record| {
                record.files.remove(&number);
                let is_last = record.files.is_empty();
                if is_last {
                    record.stage = Stage::Waiting;
                }
                Ok((is_last, record.longest_part()))
            })
            .await?;
        upload.slots().remove(&number);
        upload.for_joining.store(longest, Ordering::Relaxed);
        let path = file_in(&self.folder(upload), number);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It goes with the upload's folder.
                tracing::warn!(path = %path.display(), %error, "a part of an upload cannot be removed yet");
            }
            Ok(()) | Err(_) => {}
        }
        if is_last {
            upload.status.send_modify(|status| *status = UploadStatus::waiting(status.upload_id, status.size));
        } else {
            upload.report_pause(upload.received_bytes());
        }
        Ok(())
    }
}

impl Upload {
    /// Bytes of all its files that have come.
    pub(super) fn received_bytes(&self) -> u64 {
        self.slots().values().map(|slot| slot.written()).sum()
    }

    /// The length of a file that is coming, and from where on its bytes count only once their checksum has been checked.
    async fn coming(&self, number: u32) -> Result<(u64, Option<u64>), Problem> {
        let record = self.record().await;
        if record.joined.is_some() {
            return Err(final_upload());
        }
        if !matches!(record.stage, Stage::Receiving) {
            return Err(exists());
        }
        record.files.get(&number).map(|file| (file.length, file.checked)).ok_or_else(no_such_file)
    }
}

impl Record {
    /// A number that no part has had.
    fn next_part(&self) -> u32 {
        self.last_part + 1
    }

    /// Bytes of the upload that are no file's yet.
    fn unassigned(&self) -> u64 {
        self.size.saturating_sub(self.files.values().map(|file| file.length).sum())
    }

    fn add(&mut self, number: u32, file: FileRecord) -> Result<(), Problem> {
        let has_whole = self.files.contains_key(&0);
        if has_whole || (number == 0 && !self.files.is_empty()) {
            return Err(exists());
        }
        if file.length == 0 {
            return Err(Problem::new(ErrorKind::UploadEmpty, "A part must have bytes."));
        }
        if file.length > self.unassigned() {
            return Err(too_large(self.size));
        }
        if self.files.len() >= MAX_PARTS {
            let detail = format!("An upload has {MAX_PARTS} parts at most. Make larger ones.");
            return Err(Problem::new(ErrorKind::Invalid, detail));
        }
        self.check_metadata(&file.metadata)?;
        self.last_part = self.last_part.max(number);
        self.files.insert(number, file);
        self.stage = Stage::Receiving;
        Ok(())
    }

    fn check_metadata(&self, more: &str) -> Result<(), Problem> {
        let kept: usize = self.files.values().map(|file| file.metadata.len()).sum();
        if kept + more.len() > MAX_METADATA_BYTES {
            let detail = format!("Upload-Metadata of an upload and its parts have {MAX_METADATA_BYTES} bytes at most.");
            return Err(Problem::new(ErrorKind::Invalid, detail));
        }
        Ok(())
    }

    pub(super) fn set_checked(&mut self, number: u32, checked: Option<u64>) -> Result<(), Problem> {
        self.files.get_mut(&number).ok_or_else(no_such_file)?.checked = checked;
        Ok(())
    }
}

/// The file, cut off at `offset`, from where it is written.
async fn open_at(path: &Path, offset: u64) -> io::Result<File> {
    let is_new = offset == 0 && !tokio::fs::try_exists(path).await?;
    let mut file = OpenOptions::new().write(true).create(is_new).open(path).await?;
    if is_new {
        sync_folder_of(path).await?;
    }
    file.set_len(offset).await?;
    file.seek(SeekFrom::Start(offset)).await?;
    Ok(file)
}

/// Brings to disk what was written up to `Ok`, or takes it back to `Err`.
async fn settle(mut file: BufWriter<File>, end: Result<u64, u64>) -> io::Result<u64> {
    let end = match end {
        Ok(end) => {
            file.flush().await?;
            end
        }
        Err(start) => {
            // What is still in the buffer is dropped with it; what was handed on must be done before it can be cut off.
            file.get_mut().flush().await?;
            file.get_mut().set_len(start).await?;
            start
        }
    };
    file.get_mut().sync_data().await?;
    Ok(end)
}

fn number_of(file: FileId) -> u32 {
    match file {
        FileId::Whole => 0,
        FileId::Part(number) => number,
    }
}

fn check_whole(length: u64, size: u64) -> Result<(), Problem> {
    match length {
        length if length > size => Err(too_large(size)),
        length if length < size => {
            let detail = format!("The platform announced {size} bytes. Give that as Upload-Length.");
            Err(Problem::new(ErrorKind::UploadIncomplete, detail))
        }
        _ => Ok(()),
    }
}

fn check_offset(append: &Append, offset: u64, length: u64) -> Result<(), Problem> {
    if append.offset != offset {
        let detail = format!("The file has {offset} bytes here. Go on there: Upload-Offset: {offset}.");
        return Err(Problem::new(ErrorKind::WrongOffset, detail));
    }
    match append.announced {
        Some(announced) if announced > length - offset => Err(too_large(length)),
        Some(_) | None => Ok(()),
    }
}

fn too_large(size: u64) -> Problem {
    let detail = format!("That would be more than the {size} bytes that were announced, and was not kept.");
    Problem::new(ErrorKind::UploadTooLarge, detail)
}

fn final_upload() -> Problem {
    Problem::new(ErrorKind::FinalUpload, "This upload is joined from its parts. It takes no bytes.")
}

fn no_such_file() -> Problem {
    Problem::new(ErrorKind::NotFound, "Nothing was created here, or it was taken away. Create it with POST.")
}

fn made_way() -> Problem {
    let detail = "No bytes came for a while, and another request has taken over. Ask with HEAD where to go on.";
    Problem::new(ErrorKind::UploadLocked, detail)
}

fn stopping() -> Problem {
    let detail = "The node is shutting down. What came is kept; ask with HEAD where to go on, in a moment.";
    Problem::new(ErrorKind::Busy, detail)
}

fn terminated() -> Problem {
    let detail = "Whoever sent the film ended the upload. To send it after all, register a new content.";
    Problem::new(ErrorKind::UploadTerminated, detail)
}

/// The folder of an upload is made anew when it begins, so a file in it is of this upload. After a power cut its length is no more than what was
/// written: ext4 (`data=ordered`), XFS and btrfs note a greater length once the bytes are there.
pub(super) fn length_of(folder: &Path, number: u32) -> io::Result<u64> {
    match std::fs::File::open(file_in(folder, number)) {
        Ok(file) => {
            // What an ended process had written counts from now on, so it must be as durable as what is told.
            file.sync_data()?;
            Ok(file.metadata()?.len())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
