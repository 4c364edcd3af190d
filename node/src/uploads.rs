//! Uploads this node knows: their files while they come, and their states until the platform has seen them.

use crate::deletions::deleted;
use anyhow::{Context, Result};
use bytes::Bytes;
use chunkstore_block::{ContentKey, PublicationId, Reference};
use control_api::signing::VerifiedUpload;
use control_api::{ErrorKind, Phase, Problem, UploadStatus};
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Uploads that are remembered; the next one is refused. Each costs about 6 KiB, most of it the authority.
const MAX_UPLOADS: usize = 4096;
/// An upload token lives a day, and the preview needs the state as long.
const REMEMBERED: Duration = Duration::from_secs(25 * 3600);
/// The file is written in pieces of this size: fewer system calls than the pieces that come over the network.
const WRITE_BUFFER: usize = 1 << 20;
/// Between two reports of received bytes: four a second are shown (docs/api.md).
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// All uploads of this node.
pub(crate) struct Uploads {
    staging: PathBuf,
    known: Mutex<HashMap<PublicationId, Arc<Upload>>>,
}

/// One upload.
pub(crate) struct Upload {
    pub(crate) verified: Mutex<VerifiedUpload>,
    pub(crate) status: watch::Sender<UploadStatus>,
    /// The publication was deleted: whatever is under way for it ends.
    pub(crate) deleted: CancellationToken,
    known_since: Mutex<Instant>,
}

/// What the uploads under way take of the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Staged {
    /// Sizes of their files.
    pub(crate) bytes: u64,
    /// The part of these that has not come yet.
    pub(crate) still_coming: u64,
}

impl Staged {
    fn of<'a>(uploads: impl Iterator<Item = &'a Arc<Upload>>) -> Self {
        uploads.filter(|upload| upload.is_working()).fold(Self::default(), |sum, upload| {
            let status = upload.status.borrow();
            let coming =
                if status.phase == Phase::Receiving { status.size - status.received_bytes.min(status.size) } else { 0 };
            Self { bytes: sum.bytes + status.size, still_coming: sum.still_coming + coming }
        })
    }
}

/// A file that has come whole: where it is, and its SHA-256. Its folder goes when this does.
pub(crate) struct Received {
    pub(crate) staging: Staging,
    pub(crate) source_sha256: [u8; 32],
}

/// An upload's folder: the source file and what is made from it. Deleted when dropped.
pub(crate) struct Staging {
    folder: PathBuf,
    /// Bytes of the source; counted against the node's room while the folder is there.
    size: u64,
}

impl Uploads {
    pub(crate) fn new(staging: PathBuf) -> Self {
        Self { staging, known: Mutex::new(HashMap::new()) }
    }

    /// Makes an upload known. Again for one that waits for its file: the newer authority counts.
    pub(crate) fn register(&self, verified: VerifiedUpload) -> Result<(), Problem> {
        let mut known = self.known();
        known.retain(|_, upload| upload.is_remembered());
        let publication = verified.grant.reference.publication;
        if let Some(upload) = known.get(&publication) {
            let same = upload.verified().authority.reference == verified.authority.reference;
            if upload.deleted.is_cancelled() {
                return Err(deleted());
            }
            if !same || upload.status.borrow().phase != Phase::Waiting {
                return Err(exists());
            }
            upload.status.send_modify(|status| status.size = verified.grant.size);
            *upload.verified() = verified;
            *upload.known_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(());
        }
        if known.len() >= MAX_UPLOADS {
            return Err(Problem::new(ErrorKind::Busy, "This node remembers too many uploads. Use another node."));
        }
        let (status, _) = watch::channel(UploadStatus::waiting(publication, verified.grant.size));
        let upload = Upload {
            verified: Mutex::new(verified),
            status,
            deleted: CancellationToken::new(),
            known_since: Mutex::new(Instant::now()),
        };
        known.insert(publication, Arc::new(upload));
        Ok(())
    }

    pub(crate) fn get(&self, publication: PublicationId) -> Option<Arc<Upload>> {
        self.known().get(&publication).cloned()
    }

    /// Ends an upload whose publication was deleted, and its preview.
    pub(crate) fn delete(&self, publication: &Reference) {
        let Some(upload) = self.get(publication.publication) else { return };
        // Two platforms may have drawn the same id; this one deletes what is its own.
        if upload.verified().authority.reference == *publication {
            upload.delete();
        }
    }

    /// What the uploads under way take of the disk.
    pub(crate) fn staged(&self) -> Staged {
        Staged::of(self.known().values())
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

    /// Writes an upload's file to disk as it comes, if `check_room` finds room for it beside the others. On an error, or when
    /// the future is dropped, the upload waits again and nothing is left on disk.
    pub(crate) async fn receive<S>(
        &self,
        upload: &Upload,
        check_room: impl FnOnce(u64, Staged) -> Result<(), Problem>,
        body: S,
    ) -> Result<Received, Problem>
    where
        S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin,
    {
        let publication = upload.verified().grant.reference.publication;
        let turn = {
            // One at a time, so that two files are not both given the last room.
            let known = self.known();
            let turn = upload.begin_receiving()?;
            let others = known.values().filter(|other| !std::ptr::eq(&***other, upload));
            check_room(turn.size, Staged::of(others))?;
            turn
        };
        let staging = Staging::create(&self.staging.join(publication.to_string()), turn.size)
            .map_err(|error| Problem::internal(&format!("{error:#}")))?;
        let source = staging.source();
        let source_sha256 = tokio::select! {
            written = write_body(&source, upload, body) => written?,
            () = upload.deleted.cancelled() => return Err(deleted()),
        };
        turn.keep();
        Ok(Received { staging, source_sha256 })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PublicationId, Arc<Upload>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    pub(crate) fn verified(&self) -> MutexGuard<'_, VerifiedUpload> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_remembered(&self) -> bool {
        let known_since = *self.known_since.lock().unwrap_or_else(PoisonError::into_inner);
        known_since.elapsed() < REMEMBERED || self.is_working()
    }

    fn is_working(&self) -> bool {
        !matches!(self.status.borrow().phase, Phase::Waiting | Phase::Ready | Phase::Rejected)
    }

    /// Enters a phase, at 0 percent.
    pub(crate) fn enter(&self, phase: Phase) {
        self.status.send_modify(|status| {
            status.phase = phase;
            status.percent = 0.0;
            status.remaining_seconds = None;
        });
    }

    /// Says how far the phase is; `remaining` in seconds, where there is an honest estimate.
    pub(crate) fn report(&self, percent: f64, remaining: Option<f64>) {
        self.status.send_modify(|status| {
            status.percent = percent.clamp(0.0, 100.0);
            status.remaining_seconds = remaining;
        });
    }

    /// Rejects it, if only because it was deleted meanwhile.
    pub(crate) fn reject(&self, problem: Problem) {
        let problem = if self.deleted.is_cancelled() { deleted() } else { problem };
        self.status.send_modify(|status| reject(status, problem));
    }

    /// Its content is there and may be previewed, unless it was deleted meanwhile.
    pub(crate) fn finish(&self, key: ContentKey, duration_ms: u64, blocks: u64) {
        self.status.send_modify(|status| {
            if self.deleted.is_cancelled() {
                return reject(status, deleted());
            }
            status.phase = Phase::Ready;
            status.percent = 100.0;
            status.remaining_seconds = None;
            status.content_key = Some(key);
            status.duration_ms = Some(duration_ms);
            status.blocks = Some(blocks);
        });
    }

    fn delete(&self) {
        self.deleted.cancel();
        // What is at work notices, and says so itself once nothing of it is left on disk.
        self.status.send_if_modified(|status| {
            let is_idle = matches!(status.phase, Phase::Waiting | Phase::Ready);
            if is_idle {
                reject(status, deleted());
            }
            is_idle
        });
    }

    /// From waiting to receiving, by one caller only.
    fn begin_receiving(&self) -> Result<ReceivingTurn<'_>, Problem> {
        let began = self.status.send_if_modified(|status| {
            let waiting = status.phase == Phase::Waiting;
            if waiting {
                status.phase = Phase::Receiving;
            }
            waiting
        });
        match began {
            true => Ok(ReceivingTurn { upload: self, size: self.status.borrow().size }),
            false if self.deleted.is_cancelled() => Err(deleted()),
            false => Err(exists()),
        }
    }
}

/// One caller's turn to send the file; unless kept, the upload waits again when it ends.
struct ReceivingTurn<'a> {
    upload: &'a Upload,
    size: u64,
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
            if self.upload.deleted.is_cancelled() {
                reject(status, deleted());
            }
        });
    }
}

fn reject(status: &mut UploadStatus, problem: Problem) {
    status.phase = Phase::Rejected;
    status.remaining_seconds = None;
    status.content_key = None;
    status.error = Some(problem);
}

async fn write_body<S>(path: &Path, upload: &Upload, mut body: S) -> Result<[u8; 32], Problem>
where
    S: Stream<Item = Result<Bytes, Problem>> + Send + Unpin,
{
    let file = File::create_new(path).await.map_err(|error| disk_failed(&error))?;
    let mut file = BufWriter::with_capacity(WRITE_BUFFER, file);
    let mut hash = Sha256::new();
    let (begun, mut reported, mut received) = (Instant::now(), Instant::now(), 0_u64);
    while let Some(piece) = body.next().await {
        let piece = piece?;
        hash.update(&piece);
        file.write_all(&piece).await.map_err(|error| disk_failed(&error))?;
        received += piece.len() as u64;
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            report_received(upload, received, begun.elapsed());
        }
    }
    file.flush().await.map_err(|error| disk_failed(&error))?;
    file.get_ref().sync_all().await.map_err(|error| disk_failed(&error))?;
    report_received(upload, received, begun.elapsed());
    Ok(hash.finalize().into())
}

fn report_received(upload: &Upload, received: u64, elapsed: Duration) {
    upload.status.send_modify(|status| {
        status.received_bytes = received;
        (status.percent, status.remaining_seconds) = estimate(received, status.size, elapsed);
    });
}

/// Percent done, and the seconds that remain if the rest goes as the part that is done did; none before there is one.
pub(crate) fn estimate(done: u64, total: u64, elapsed: Duration) -> (f64, Option<f64>) {
    let part = (done as f64 / total.max(1) as f64).min(1.0);
    let remaining = (1.0 - part) * elapsed.as_secs_f64() / part;
    (part * 100.0, remaining.is_finite().then_some(remaining))
}

impl Staging {
    fn create(folder: &Path, size: u64) -> Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let staging = Self { folder: folder.to_owned(), size };
        std::fs::create_dir(staging.work()).with_context(|| format!("cannot make {}", staging.work().display()))?;
        Ok(staging)
    }

    /// The uploaded file.
    pub(crate) fn source(&self) -> PathBuf {
        self.folder.join("source")
    }

    /// Where FFmpeg writes.
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::error!(folder = %self.folder.display(), bytes = self.size, %error, "an upload's folder cannot be deleted");
        }
    }
}

fn exists() -> Problem {
    Problem::new(
        ErrorKind::UploadExists,
        "This upload has its file already, or is receiving it. Register a new content.",
    )
}

fn disk_failed(error: &std::io::Error) -> Problem {
    if error.kind() == std::io::ErrorKind::StorageFull {
        return Problem::new(ErrorKind::NoRoom, "The node's disk is full. Ask the platform for another node.");
    }
    Problem::internal(error)
}
