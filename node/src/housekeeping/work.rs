//! Long work that the operator asks the running node for: a verification at full speed, and a backup.

use super::{Housekeeper, Inner};
use chunkstore::{BackupProgress, Scrubbed, StoreError};
use control_api::work::{BackupReport, VerifyReport, WorkLine, WorkProgress, WorkStream};
use control_api::{ErrorKind, Problem};
use futures::{StreamExt, stream};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes that a verification reads between two looks at whether to go on: less than a second of a hard disk.
pub(crate) const VERIFY_STEP_BYTES: u64 = 64 << 20;
/// The most damaged blocks that a report names.
const NAMED_BLOCKS: usize = 1_000;
/// How often the asker is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// How long a verification waits for the scrub's step to end.
const STEP_LIMIT: Duration = Duration::from_secs(10);

impl Housekeeper {
    /// Reads every block. Counts as a round of the scrub; what is damaged is repaired as if the scrub had found it.
    pub(crate) async fn verify(&self) -> Result<WorkStream, Problem> {
        let rounds = tokio::time::timeout(STEP_LIMIT, Arc::clone(&self.0.rounds).lock_owned()).await;
        let mut rounds = rounds.map_err(|_| busy("Another verification is running. Wait until it has ended."))?;
        let (own, told) = (self.clone(), watch::Sender::new(WorkProgress::default()));
        let seen = told.subscribe();
        let ended = self.0.stop.child_token();
        let until = ended.clone();
        let worker = tokio::spawn(async move {
            let now = own.0.clock.unix_seconds();
            own.begin_round(&mut rounds, now);
            let outcome = own.read_all(&told, &until).await;
            if matches!(outcome, Ok(Some(_))) {
                own.finish_round(&mut rounds);
            }
            match outcome {
                Ok(Some(report)) => WorkLine::Verified(report),
                Ok(None) => WorkLine::Failed(stopping()),
                Err(error) => WorkLine::Failed(Problem::internal(&error)),
            }
        });
        Ok(told_while(worker, seen, ended))
    }

    /// `None` if it was broken off.
    async fn read_all(
        &self,
        told: &watch::Sender<WorkProgress>,
        until: &CancellationToken,
    ) -> Result<Option<VerifyReport>, StoreError> {
        let Inner { durable, .. } = &*self.0;
        durable.with(|store| store.restart_scrub()).await?;
        let mut report = VerifyReport::default();
        while !until.is_cancelled() {
            let scrubbed = durable.with(|store| store.scrub(VERIFY_STEP_BYTES, processors())).await?;
            self.note_damaged(&scrubbed.damaged);
            add_step(&mut report, &scrubbed);
            let total_bytes = durable.store().usage().block_bytes.max(report.bytes);
            told.send_replace(WorkProgress { done_bytes: report.bytes, total_bytes });
            if scrubbed.is_round_complete {
                return Ok(Some(report));
            }
        }
        Ok(None)
    }

    /// Copies the store into a folder.
    pub(crate) fn backup(&self, folder: PathBuf) -> Result<WorkStream, Problem> {
        let turn = Arc::clone(&self.0.backup).try_lock_owned();
        let turn = turn.map_err(|_| busy("Another backup is running. Wait until it has ended."))?;
        let (own, told) = (self.clone(), watch::Sender::new(WorkProgress::default()));
        let seen = told.subscribe();
        let ended = self.0.stop.child_token();
        let until = ended.clone();
        let worker = tokio::spawn(async move {
            let _turn = turn;
            let progress = move |progress: BackupProgress| {
                told.send_replace(WorkProgress {
                    done_bytes: progress.copied_bytes,
                    total_bytes: progress.total_bytes,
                });
                if until.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            match own.0.durable.with(move |store| store.backup(&folder, progress)).await {
                Ok(done) => {
                    WorkLine::BackedUp(BackupReport { copied_bytes: done.copied_bytes, kept_bytes: done.kept_bytes })
                }
                Err(StoreError::Interrupted) => WorkLine::Failed(stopping()),
                // The operator reads the whole reason, paths included: it is their machine.
                Err(error) => WorkLine::Failed(Problem::new(ErrorKind::Invalid, format!("{error}."))),
            }
        });
        Ok(told_while(worker, seen, ended))
    }
}

/// Adds what a step found.
pub(crate) fn add_step(report: &mut VerifyReport, step: &Scrubbed) {
    report.blocks += step.blocks;
    report.bytes += step.bytes;
    report.damaged_blocks += step.damaged.len() as u64;
    let room = NAMED_BLOCKS.saturating_sub(report.damaged.len());
    report.damaged.extend(step.damaged.iter().take(room));
}

/// All processors: whoever verifies waits for it.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Lines while the worker works, and its own at the end. Dropped, it ends the worker.
fn told_while(
    worker: JoinHandle<WorkLine>,
    progress: watch::Receiver<WorkProgress>,
    ended: CancellationToken,
) -> WorkStream {
    let start = Some(Telling { worker, progress, _ended: ended.drop_guard() });
    stream::unfold(start, |telling| async { telling?.next().await }).boxed()
}

struct Telling {
    worker: JoinHandle<WorkLine>,
    progress: watch::Receiver<WorkProgress>,
    _ended: DropGuard,
}

impl Telling {
    async fn next(mut self) -> Option<(WorkLine, Option<Self>)> {
        match tokio::time::timeout(TELL_EVERY, &mut self.worker).await {
            Ok(Ok(last)) => Some((last, None)),
            Ok(Err(panicked)) => Some((WorkLine::Failed(Problem::internal(&panicked)), None)),
            Err(_) => {
                let progress = *self.progress.borrow();
                Some((WorkLine::Progress(progress), Some(self)))
            }
        }
    }
}

fn busy(detail: &str) -> Problem {
    Problem::new(ErrorKind::Busy, detail)
}

fn stopping() -> Problem {
    Problem::new(ErrorKind::Unavailable, "The node is stopping. Begin again when it is up.")
}
