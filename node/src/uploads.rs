//! Uploads this node knows: their files while they come, and their states until the platform has seen them.

mod record;
mod restore;
mod resumable;
mod staging;
mod upload;
mod writer;

pub(crate) use restore::Restored;
pub(crate) use resumable::Step;
pub(crate) use staging::{Received, Staging, disk_failed};
pub(crate) use upload::{Upload, estimate};

use crate::files::sync_folder;
use crate::pace::Pace;
use bytes::Bytes;
use chunkstore_block::{PlatformFingerprint, PublicationId, Reference};
use control_api::signing::VerifiedUpload;
use control_api::{ErrorKind, Phase, Problem, TokenDigest, UploadStatus};
use futures::{Stream, StreamExt};
use record::{Records, Stage};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::{MutexGuard as AsyncMutexGuard, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Uploads that are remembered; the next one is refused. Each costs about 12 KiB, most of it authority and metadata.
const MAX_UPLOADS: usize = 4096;
/// Requests that bring bytes at a time. Each holds a buffer of 1 MiB and a file.
const MAX_WRITERS: usize = 256;
/// Of them, those of one upload, which comes in parts: nobody's slow parts keep the others' uploads out.
const MAX_WRITERS_OF_ONE: usize = 8;
/// The file is written in pieces of this size: fewer system calls than the pieces that come over the network.
const WRITE_BUFFER: usize = 1 << 20;
/// Between two reports of received bytes: four a second are shown (docs/api.md).
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is looked which uploads are over time.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// All uploads of this node.
pub(crate) struct Uploads {
    staging: PathBuf,
    records: Arc<Records>,
    known: Mutex<HashMap<PublicationId, Arc<Upload>>>,
    writers: Semaphore,
    pace: Pace,
    stop: CancellationToken,
}

/// What the uploads under way take of the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Staged {
    /// Sizes of their files.
    pub(crate) bytes: u64,
    /// The part of these that has not come yet, and what joining parts takes besides.
    pub(crate) still_coming: u64,
}

impl Staged {
    fn of<'a>(uploads: impl Iterator<Item = &'a Arc<Upload>>) -> Self {
        uploads.filter(|upload| upload.is_working()).fold(Self::default(), |sum, upload| {
            let status = upload.status.borrow();
            let coming =
                if status.phase == Phase::Receiving { status.size - status.received_bytes.min(status.size) } else { 0 };
            let still_coming = sum.still_coming + coming + upload.for_joining.load(Ordering::Relaxed);
            Self { bytes: sum.bytes + status.size, still_coming }
        })
    }
}

impl Uploads {
    /// `staging` is for files, `records` for what outlives the process; both folders are there.
    pub(crate) fn new(staging: PathBuf, records: PathBuf, bytes_per_s: u64, stop: CancellationToken) -> Self {
        Self {
            staging,
            records: Arc::new(Records::new(records)),
            known: Mutex::new(HashMap::new()),
            writers: Semaphore::new(MAX_WRITERS),
            pace: Pace::new(bytes_per_s),
            stop,
        }
    }

    /// Makes an upload known. Again for one whose file has not come whole: the newer authority counts.
    pub(crate) fn register(&self, verified: VerifiedUpload) -> Result<(), Problem> {
        let mut known = self.known();
        let publication = verified.grant.reference.publication;
        if let Some(upload) = known.get(&publication) {
            upload.check_open()?;
            let same = upload.verified().authority.reference == verified.authority.reference;
            let (phase, size) = (upload.phase(), upload.status.borrow().size);
            let goes_on = phase == Phase::Receiving && upload.is_resumable() && size == verified.grant.size;
            if !same || !(phase == Phase::Waiting || goes_on) {
                return Err(exists());
            }
            upload.status.send_modify(|status| status.size = verified.grant.size);
            *upload.verified() = verified;
            return Ok(());
        }
        if known.len() >= MAX_UPLOADS {
            return Err(Problem::new(ErrorKind::Busy, "This node remembers too many uploads. Use another node."));
        }
        known.insert(publication, Arc::new(Upload::new(verified, Arc::clone(&self.records))));
        Ok(())
    }

    /// Keeps an upload's token over a restart, as its hash. It ends `expires`, seconds since 1970, when it is `now`.
    pub(crate) async fn keep_token(
        &self,
        publication: PublicationId,
        token: TokenDigest,
        (now, expires): (u64, u64),
    ) -> Result<(), Problem> {
        let upload = self.get(publication).ok_or_else(|| unknown_upload("Ask for a token again."))?;
        let _creating = upload.creating.lock().await;
        upload.check_open()?;
        upload.ends_after(Duration::from_secs(expires.saturating_sub(now)));
        upload.keep_token(token, expires).await
    }

    pub(crate) fn get(&self, publication: PublicationId) -> Option<Arc<Upload>> {
        self.known().get(&publication).cloned()
    }

    /// Ends an upload whose publication was deleted, and its preview.
    pub(crate) async fn delete(&self, publication: &Reference) {
        let Some(upload) = self.get(publication.publication) else { return };
        // Two platforms may have drawn the same id; this one deletes what is its own.
        let same = upload.verified().authority.reference == *publication;
        if same {
            self.end(&upload, crate::deletions::deleted()).await;
        }
    }

    /// What the uploads under way take of the disk.
    pub(crate) fn staged(&self) -> Staged {
        Staged::of(self.known().values())
    }

    /// The same without one of them, which may be about to go on.
    pub(crate) fn staged_beside(&self, publication: PublicationId) -> Staged {
        others(&self.known(), publication)
    }

    /// Ends the uploads of platforms that are no longer served.
    pub(crate) async fn end_of(&self, platforms: &BTreeSet<PlatformFingerprint>) {
        let of_them = |upload: &&Arc<Upload>| platforms.contains(&upload.verified().grant.reference.platform);
        let uploads: Vec<_> = self.known().values().filter(of_them).cloned().collect();
        for upload in uploads.into_iter().filter(|upload| !upload.phase().is_final()) {
            let detail = "The operator no longer serves the platform that this upload is for. Ask the platform for another node.";
            self.end(&upload, Problem::new(ErrorKind::UploadTerminated, detail)).await;
        }
    }

    /// How many uploads are being received or processed.
    pub(crate) fn working(&self) -> usize {
        self.known().values().filter(|upload| upload.is_working()).count()
    }

    /// How many are in each phase, by its name in docs/api.md.
    pub(crate) fn by_phase(&self) -> BTreeMap<String, u64> {
        let mut phases = BTreeMap::new();
        for upload in self.known().values() {
            *phases.entry(upload.status.borrow().phase.name()).or_default() += 1;
        }
        phases
    }

    /// Writes an upload's file to disk as it comes, if `check_room` finds room for it beside the others. On an error the upload waits again
    /// and nothing is left on disk.
    pub(crate) async fn receive<S>(
        &self,
        upload: &Arc<Upload>,
        check_room: impl Fn(u64, Staged) -> Result<(), Problem>,
        body: S,
    ) -> Result<Received, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin,
    {
        let received = self.receive_whole(upload, check_room, body).await;
        if let (Err(_), Some(why)) = (&received, upload.why_ended()) {
            upload.reject(why).await;
        }
        received
    }

    async fn receive_whole<S>(
        &self,
        upload: &Arc<Upload>,
        check_room: impl Fn(u64, Staged) -> Result<(), Problem>,
        body: S,
    ) -> Result<Received, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin,
    {
        let _writer = self.writer()?;
        let size = self.reserve(upload, check_room)?;
        let turn = ReceivingTurn { upload };
        let staging = create(self.folder(upload)).await.map_err(|error| disk_failed(&error))?;
        let source = staging.source();
        let written = async {
            let source_sha256 = tokio::select! {
                written = self.write_body(&source, upload, size, body) => written?,
                why = upload.ended() => return Err(why),
            };
            upload.receive(Vec::new(), Some(source_sha256)).await?;
            Ok(source_sha256)
        };
        match written.await {
            Ok(source_sha256) => {
                turn.keep();
                Ok(Received { staging, source_sha256: Some(source_sha256), parts: Vec::new() })
            }
            Err(problem) => {
                remove(staging).await;
                Err(problem)
            }
        }
    }

    /// From waiting to receiving, by one caller only, with room for the file; its size.
    fn reserve(
        &self,
        upload: &Arc<Upload>,
        check_room: impl Fn(u64, Staged) -> Result<(), Problem>,
    ) -> Result<u64, Problem> {
        upload.check_open()?;
        // One at a time, so that two files are not both given the last room.
        let known = self.known();
        let (phase, size) = (upload.phase(), upload.status.borrow().size);
        if phase != Phase::Waiting {
            return Err(exists());
        }
        check_room(size, others(&known, upload.verified().grant.reference.publication))?;
        upload.status.send_modify(|status| status.phase = Phase::Receiving);
        Ok(size)
    }

    /// Joined parts lie on the disk twice for a moment, one at a time: room for the longest of them, beside what has still to come.
    fn reserve_joining(
        &self,
        upload: &Arc<Upload>,
        part: u64,
        check_room: impl Fn(u64, Staged) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let known = self.known();
        if part > upload.for_joining.load(Ordering::Relaxed) {
            let (size, received) = (upload.status.borrow().size, upload.received_bytes());
            check_room(
                size.saturating_sub(received).saturating_add(part),
                others(&known, upload.verified().grant.reference.publication),
            )?;
            upload.for_joining.store(part, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn write_body<S>(&self, path: &Path, upload: &Upload, size: u64, mut body: S) -> Result<[u8; 32], Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin,
    {
        let file = File::create_new(path).await.map_err(|error| disk_failed(&error))?;
        let mut file = BufWriter::with_capacity(WRITE_BUFFER, file);
        let mut hash = Sha256::new();
        let (begun, mut reported, mut received) = (Instant::now(), Instant::now(), 0_u64);
        while let Some(piece) = body.next().await {
            let piece = piece?;
            self.pace.pass(piece.len()).await;
            hash.update(&piece);
            file.write_all(&piece).await.map_err(|error| disk_failed(&error))?;
            received += piece.len() as u64;
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                upload.report_received(received, received, begun.elapsed());
            }
        }
        file.flush().await.map_err(|error| disk_failed(&error))?;
        file.get_ref().sync_all().await.map_err(|error| disk_failed(&error))?;
        sync_folder_of(path).await.map_err(|error| disk_failed(&error))?;
        debug_assert_eq!(received, size, "the router counts");
        upload.report_received(received, received, begun.elapsed());
        Ok(hash.finalize().into())
    }

    /// Ends an upload wherever it is: at once what is idle, and what is at work says so itself as soon as nothing of it is left
    /// on disk.
    async fn end(&self, upload: &Arc<Upload>, why: Problem) {
        upload.end(why.clone());
        let creating = upload.creating.lock().await;
        self.end_idle(upload, why, &creating).await;
    }

    /// Nobody else creates or renews meanwhile.
    async fn end_idle(&self, upload: &Arc<Upload>, why: Problem, _creating: &AsyncMutexGuard<'_, ()>) {
        upload.end(why.clone());
        let stage = upload.record().await.stage.clone();
        match stage {
            Stage::Waiting if upload.phase() == Phase::Waiting => upload.reject(why).await,
            Stage::Ready { .. } => upload.reject(why).await,
            Stage::Receiving => {
                let slots: Vec<_> = upload.slots().values().cloned().collect();
                for slot in &slots {
                    // Whoever comes after it finds the upload ended.
                    drop(slot.take_turn().await);
                }
                remove(Staging::of(self.folder(upload))).await;
                upload.reject(why).await;
            }
            // The request that brings its file, or its processing, notices.
            Stage::Waiting | Stage::Received { .. } => {}
            Stage::Rejected { .. } => {}
        }
    }

    /// Ends what is over time and forgets what is long over, until the node stops.
    pub(crate) async fn sweep(self: Arc<Self>) {
        while tokio::time::timeout(SWEEP_EVERY, self.stop.cancelled()).await.is_err() {
            self.sweep_once(Instant::now()).await;
        }
    }

    async fn sweep_once(&self, now: Instant) {
        let known: Vec<_> =
            self.known().iter().map(|(publication, upload)| (*publication, Arc::clone(upload))).collect();
        for (publication, upload) in known {
            if upload.is_resumable() && upload.phase() == Phase::Receiving && now >= upload.ends() {
                // Whoever renews the token does so before this or finds the upload ended. Whoever is at it keeps nobody else from being swept.
                if let Ok(creating) = upload.creating.try_lock()
                    && upload.is_over_time(now)
                {
                    tracing::info!(%publication, "an upload was not finished in time");
                    self.end_idle(&upload, expired(), &creating).await;
                }
            }
            if !upload.is_remembered() {
                let records = Arc::clone(&self.records);
                let removed = tokio::task::spawn_blocking(move || records.remove(publication)).await;
                if !matches!(removed, Ok(Ok(()))) {
                    tracing::error!(%publication, "an upload's record cannot be removed");
                }
                // Last: a new one of this name would have a record of its own.
                self.known().remove(&publication);
            }
        }
    }

    fn writer(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.writers.try_acquire().map_err(|_| {
            let detail = format!("{MAX_WRITERS} uploads are coming to this node now. Go on with this one in a moment.");
            Problem::new(ErrorKind::Busy, detail)
        })
    }

    fn folder(&self, upload: &Upload) -> PathBuf {
        self.staging.join(upload.verified().grant.reference.publication.to_string())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PublicationId, Arc<Upload>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller's turn to send the file; unless kept, the upload waits again when it ends.
struct ReceivingTurn<'a> {
    upload: &'a Upload,
}

impl ReceivingTurn<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for ReceivingTurn<'_> {
    fn drop(&mut self) {
        self.upload.status.send_modify(|status| {
            *status = UploadStatus::waiting(status.upload_id, status.size);
            if let Some(why) = self.upload.why_ended() {
                upload::reject(status, why);
            }
        });
    }
}

fn others(known: &HashMap<PublicationId, Arc<Upload>>, publication: PublicationId) -> Staged {
    Staged::of(known.iter().filter(|(other, _)| **other != publication).map(|(_, upload)| upload))
}

/// Brings to disk that a file is in its folder.
async fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().map(ToOwned::to_owned).unwrap_or_default();
    tokio::task::spawn_blocking(move || sync_folder(&folder)).await.map_err(io::Error::other)?
}

/// An upload's folder, empty.
async fn create(folder: PathBuf) -> io::Result<Staging> {
    tokio::task::spawn_blocking(move || Staging::create(folder)).await.map_err(io::Error::other)?
}

/// Deletes an upload's folder.
pub(crate) async fn remove(staging: Staging) {
    if tokio::task::spawn_blocking(move || staging.remove()).await.is_err() {
        tracing::error!("an upload's folder could not be deleted");
    }
}

/// What a client hears whose upload is not known here.
pub(crate) fn unknown_upload(what_to_do: &str) -> Problem {
    Problem::new(ErrorKind::NotFound, format!("This node does not know the upload. {what_to_do}"))
}

fn exists() -> Problem {
    Problem::new(
        ErrorKind::UploadExists,
        "This upload has its file already, or is receiving it; one that was begun with PATCH goes on with PATCH. \
         To send another file, register a new content.",
    )
}

fn expired() -> Problem {
    Problem::new(
        ErrorKind::UploadExpired,
        "The file did not come in the time of its token, and what had come was deleted. Upload it again.",
    )
}

#[cfg(test)]
mod tests;
