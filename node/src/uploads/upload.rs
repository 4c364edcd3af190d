//! One upload: its state here and on disk, and how it ends.

use super::record::{Record, Records, Stage};
use super::staging::Staging;
use super::writer::Slot;
use super::{MAX_WRITERS_OF_ONE, remove};
use anyhow::Context;
use chunkstore_block::ContentKey;
use control_api::signing::VerifiedUpload;
use control_api::tokens::UPLOAD_LIFETIME;
use control_api::{Phase, Problem, TokenDigest, UploadStatus};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// After its token has ended, an upload is remembered so long, that whoever asks hears how it ended.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// One upload.
pub(crate) struct Upload {
    pub(crate) verified: Mutex<VerifiedUpload>,
    pub(crate) status: watch::Sender<UploadStatus>,
    /// One at a time creates files or takes them away.
    pub(super) creating: AsyncMutex<()>,
    /// The files of a resumable upload that are coming: 0 is the whole, others are parts.
    pub(super) slots: Mutex<BTreeMap<u32, Arc<Slot>>>,
    /// Requests that bring bytes of it at a time.
    pub(super) writers: Semaphore,
    /// What joining its parts will take of the disk besides.
    pub(super) for_joining: AtomicU64,
    end: End,
    record: Arc<AsyncMutex<Record>>,
    records: Arc<Records>,
    /// When its token ends.
    ends: Mutex<Instant>,
}

/// Whether an upload is to end before it is ready.
#[derive(Default)]
struct End {
    now: CancellationToken,
    why: OnceLock<Problem>,
}

impl Upload {
    pub(super) fn new(verified: VerifiedUpload, records: Arc<Records>) -> Self {
        let (publication, size) = (verified.grant.reference.publication, verified.grant.size);
        Self::with(verified, Record::new(publication, size), UploadStatus::waiting(publication, size), records)
    }

    /// One that an earlier run knew.
    pub(super) fn with(verified: VerifiedUpload, record: Record, status: UploadStatus, records: Arc<Records>) -> Self {
        Self {
            verified: Mutex::new(verified),
            status: watch::channel(status).0,
            creating: AsyncMutex::new(()),
            slots: Mutex::default(),
            writers: Semaphore::new(MAX_WRITERS_OF_ONE),
            for_joining: AtomicU64::new(0),
            end: End::default(),
            record: Arc::new(AsyncMutex::new(record)),
            records,
            ends: Mutex::new(Instant::now() + UPLOAD_LIFETIME),
        }
    }

    pub(crate) fn verified(&self) -> MutexGuard<'_, VerifiedUpload> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.status.borrow().phase
    }

    /// Whether it has begun and is not over: it takes room.
    pub(crate) fn is_working(&self) -> bool {
        !matches!(self.phase(), Phase::Waiting | Phase::Ready | Phase::Rejected)
    }

    /// Whether its file comes by `PATCH`.
    pub(super) fn is_resumable(&self) -> bool {
        !self.slots().is_empty()
    }

    pub(super) fn is_remembered(&self) -> bool {
        self.is_working() || Instant::now() < self.ends() + REMEMBERED
    }

    /// When its token ends.
    pub(super) fn ends(&self) -> Instant {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ends_after(&self, remaining: Duration) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + remaining;
    }

    /// Whether its time is over. A request that was begun in time may run on, for as long as a token lives at most.
    pub(super) fn is_over_time(&self, now: Instant) -> bool {
        let ends = self.ends();
        let is_coming = self.slots().values().any(|slot| slot.is_taken());
        now >= ends && (!is_coming || now >= ends + UPLOAD_LIFETIME)
    }

    /// Its record as it is on disk, once its token is out.
    pub(super) async fn record(&self) -> AsyncMutexGuard<'_, Record> {
        self.record.lock().await
    }

    /// Changes the record, on disk first. What has begun to be written is written to its end, also when the future is dropped.
    ///
    /// Errors: those of `change`, which leave the record as it is, and `internal`.
    pub(super) async fn change<T>(
        &self,
        change: impl FnOnce(&mut Record) -> Result<T, Problem> + Send,
    ) -> Result<T, Problem> {
        let mut record = Arc::clone(&self.record).lock_owned().await;
        let mut changed = record.clone();
        let answer = change(&mut changed)?;
        let records = Arc::clone(&self.records);
        let written = tokio::task::spawn_blocking(move || {
            if changed.token.is_some() {
                records.write(&changed)?;
            }
            *record = changed;
            anyhow::Ok(())
        });
        match written.await.context("it panicked").and_then(|written| written) {
            Ok(()) => Ok(answer),
            Err(error) => Err(Problem::internal(&format!("an upload's record cannot be kept: {error:#}"))),
        }
    }

    /// Its file, or these parts of it, has come whole.
    pub(super) async fn receive(&self, parts: Vec<(u32, u64)>, source_sha256: Option<[u8; 32]>) -> Result<(), Problem> {
        self.change(|record| {
            record.stage = Stage::Received { parts, tries: 0, source_sha256 };
            Ok(())
        })
        .await
    }

    /// Keeps what a restart needs. `expires` in seconds since 1970.
    pub(super) async fn keep_token(&self, token: TokenDigest, expires: u64) -> Result<(), Problem> {
        let verified = self.verified().clone();
        self.change(|record| {
            record.size = verified.grant.size;
            record.authority = verified.authority_jws;
            record.authority_bytes = verified.authority.bytes;
            record.authority_expires = verified.authority.expires;
            (record.token, record.expires) = (Some(token), expires);
            Ok(())
        })
        .await
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

    /// Says how much of the file is here, and how long the rest takes if it comes as fast as `came` bytes did.
    pub(super) fn report_received(&self, received: u64, came: u64, elapsed: Duration) {
        self.status.send_modify(|status| {
            status.received_bytes = received;
            let missing = status.size.saturating_sub(received);
            status.percent = received as f64 / status.size.max(1) as f64 * 100.0;
            let remaining = missing as f64 / (came as f64 / elapsed.as_secs_f64());
            status.remaining_seconds = Some(remaining).filter(|seconds| seconds.is_finite());
        });
    }

    /// Nobody is sending; how much is here.
    pub(super) fn report_pause(&self, received: u64) {
        self.status.send_modify(|status| {
            status.received_bytes = received;
            status.percent = received as f64 / status.size.max(1) as f64 * 100.0;
            status.remaining_seconds = None;
        });
    }

    /// Has it end, wherever it is: what is at work for it notices. The first reason counts.
    pub(super) fn end(&self, why: Problem) {
        // Set before it is told, and never again.
        self.end.why.get_or_init(|| why);
        self.end.now.cancel();
    }

    /// Waits until it is to end, and says why.
    pub(crate) async fn ended(&self) -> Problem {
        self.end.now.cancelled().await;
        match self.end.why.get() {
            Some(why) => why.clone(),
            None => std::future::pending().await,
        }
    }

    /// Why it is to end, if it is.
    pub(crate) fn why_ended(&self) -> Option<Problem> {
        self.end.why.get().cloned()
    }

    /// Refuses when it is to end.
    pub(super) fn check_open(&self) -> Result<(), Problem> {
        self.why_ended().map_or(Ok(()), Err)
    }

    /// Rejects it, if only because it was to end meanwhile.
    pub(crate) async fn reject(&self, problem: Problem) {
        let problem = self.why_ended().unwrap_or(problem);
        self.settle(Stage::Rejected { problem: problem.clone() }).await;
        self.reject_now(problem);
    }

    /// Rejects it until a restart.
    pub(crate) fn reject_now(&self, problem: Problem) {
        let problem = self.why_ended().unwrap_or(problem);
        self.slots().clear();
        self.status.send_modify(|status| reject(status, problem));
    }

    /// Rejects it when its files are of no use any more. They go once the record says so, and before the status does.
    pub(crate) async fn reject_with(&self, problem: Problem, files: Staging) {
        let problem = self.why_ended().unwrap_or(problem);
        if self.settle(Stage::Rejected { problem: problem.clone() }).await {
            remove(files).await;
        }
        self.reject_now(problem);
    }

    /// Its content is there and may be previewed, unless it was to end meanwhile. Its files go once the record says so: a node that ended in between
    /// would miss them, and a film that is on its holders be given up. Before the status says so, nothing is left on disk.
    pub(crate) async fn finish(&self, (key, duration_ms, blocks): (ContentKey, u64, u64), files: Staging) {
        if self.settle(Stage::Ready { content_key: key, duration_ms, blocks }).await {
            remove(files).await;
        }
        let mut ended = None;
        self.status.send_modify(|status| {
            ended = self.why_ended();
            match ended.clone() {
                Some(why) => reject(status, why),
                None => ready(status, key, duration_ms, blocks),
            }
        });
        if let Some(problem) = ended {
            self.settle(Stage::Rejected { problem }).await;
        }
    }

    /// How often the processing was begun and not ended, in the record.
    pub(crate) async fn count_tries(&self, change: impl FnOnce(u32) -> u32 + Send) {
        let counted = self.change(|record| {
            if let Stage::Received { tries, .. } = &mut record.stage {
                *tries = change(*tries);
            }
            Ok(())
        });
        self.tell_if_not_kept(counted.await);
    }

    /// Its parts have become one file.
    pub(crate) async fn joined(&self) {
        let joined = self.change(|record| {
            if let Stage::Received { parts, .. } = &mut record.stage {
                parts.clear();
            }
            Ok(())
        });
        self.tell_if_not_kept(joined.await);
        self.for_joining.store(0, Ordering::Relaxed);
    }

    /// Whether the record says it now.
    async fn settle(&self, stage: Stage) -> bool {
        let settled = self.change(|record| {
            record.stage = stage;
            Ok(())
        });
        self.tell_if_not_kept(settled.await)
    }

    /// What is not kept counts until the process ends; after a restart the upload is where it was before. Whether it is kept.
    fn tell_if_not_kept(&self, kept: Result<(), Problem>) -> bool {
        if kept.is_err() {
            let publication = self.verified().grant.reference.publication;
            tracing::error!(%publication, "how far the upload is would not outlive the process");
        }
        kept.is_ok()
    }
}

pub(super) fn reject(status: &mut UploadStatus, problem: Problem) {
    status.phase = Phase::Rejected;
    status.remaining_seconds = None;
    status.content_key = None;
    status.error = Some(problem);
}

pub(super) fn ready(status: &mut UploadStatus, key: ContentKey, duration_ms: u64, blocks: u64) {
    status.phase = Phase::Ready;
    status.percent = 100.0;
    status.remaining_seconds = None;
    status.content_key = Some(key);
    status.duration_ms = Some(duration_ms);
    status.blocks = Some(blocks);
}

/// Percent done, and the seconds that remain if the rest goes as the part that is done did; none before there is one.
pub(crate) fn estimate(done: u64, total: u64, elapsed: Duration) -> (f64, Option<f64>) {
    let part = (done as f64 / total.max(1) as f64).min(1.0);
    let remaining = (1.0 - part) * elapsed.as_secs_f64() / part;
    (part * 100.0, remaining.is_finite().then_some(remaining))
}
