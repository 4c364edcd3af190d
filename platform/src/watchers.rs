//! One task for each upload under way: it mirrors the node's progress into the catalogue and, at the end, stores the
//! ordered fragments and the index block (white paper 4.2.1). Resumed at the start of the platform.

use std::sync::Arc;
use std::time::Duration;

use control_api::{ErrorKind, Phase, Problem, UploadStatus};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::catalogue::{ContentName, State};
use crate::ingest::{Ingest, IngestError};
use crate::store::{Content, Store, StoreError};
use crate::time::now;

/// What a node has processed and not given out by then, it never will: its authority to place blocks has ended, too.
const UNREAD_SECONDS: i64 = 7 * 24 * 60 * 60;

/// How often nodes are asked, and when they are given up.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two questions while something moves.
    pub active: Duration,
    /// The longest pause while the file is awaited, and the pause after a failure here.
    pub idle: Duration,
    /// Silence of the node after which an upload is given up that has come whole, or has not begun to come.
    pub give_up: Duration,
    /// The same of one that is coming, which its node keeps until its token ends.
    pub give_up_coming: Duration,
    /// How long the node may say that it does not know the upload.
    pub forgotten: Duration,
    /// How long an upload that broke off may wait for its file to be sent again.
    pub broken: Duration,
    /// How long after its registration a content may wait for the first byte. Counted in whole seconds.
    pub no_file: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            // Smooth enough for a progress bar.
            active: Duration::from_millis(500),
            // A file that starts late shows up this much later.
            idle: Duration::from_secs(10),
            // Longer than a restart of the machine: what was sent and processed for hours is not lost to it.
            give_up: Duration::from_secs(10 * 60),
            give_up_coming: Duration::from_secs(24 * 60 * 60),
            // A node that forgot an upload does not remember it again; a proxy before it may be confused for a moment.
            forgotten: Duration::from_secs(30),
            // Time for a person or a script to try again at once; nobody looks at a bar that stands still for longer.
            broken: Duration::from_secs(60),
            // Whoever registers sends at once; the file may be chosen anew, the computer may have slept.
            no_file: Duration::from_secs(60 * 60),
        }
    }
}

/// The watching tasks.
pub struct Watchers {
    context: Arc<Context>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Context {
    store: Store,
    ingest: Ingest,
    broker: Arc<Broker>,
    pace: Pace,
}

/// What one look at an upload says.
enum Sight {
    /// It is under way.
    Moving(UploadStatus),
    /// It is over, and the catalogue knows.
    Over,
    /// The file is processed, and what came of it cannot be read yet.
    Unread(String),
    /// The node does not know the upload.
    Forgotten,
    /// Nothing usable.
    Silent(String),
}

/// What a watching task remembers between two looks.
struct Watch {
    begun: Instant,
    /// When the node last gave a usable answer.
    last_heard: Instant,
    /// Since when it does not know the upload.
    forgotten: Option<Instant>,
    /// Whether bytes of the file ever came.
    begun_to_arrive: bool,
    /// Since when the node waits again for a file that had begun to arrive.
    broken: Option<Instant>,
    /// The progress in the catalogue.
    noted: Option<Value>,
}

impl Watchers {
    /// Tasks run in `tasks` until `stop`.
    pub(crate) fn new(
        store: Store,
        ingest: Ingest,
        broker: Arc<Broker>,
        pace: Pace,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { context: Arc::new(Context { store, ingest, broker, pace }), tasks, stop }
    }

    /// Follows a content until it is ready or rejected.
    pub(crate) fn watch(&self, publication: &str) {
        let (context, stop, publication) = (Arc::clone(&self.context), self.stop.clone(), publication.to_owned());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = context.follow(&publication) => {}
            }
        });
    }

    /// Takes up everything that was under way when the platform stopped; returns how many.
    pub(crate) async fn resume(&self) -> Result<usize, StoreError> {
        let unfinished = self.context.store.unfinished().await?;
        for content in &unfinished {
            self.watch(&content.publication);
        }
        Ok(unfinished.len())
    }
}

impl Context {
    /// Ends when the content is finished. A database that fails for a while delays it and no more.
    async fn follow(&self, publication: &str) {
        let name = ContentName::Publication(publication.to_owned());
        let content = loop {
            match self.store.find(&name).await {
                Ok(found) => break found.into_iter().next(),
                Err(error) => self.wait_for_store(publication, &error).await,
            }
        };
        let Some(content) = content else { return };
        let begun = Instant::now();
        let mut watch = Watch {
            begun,
            last_heard: begun,
            forgotten: None,
            begun_to_arrive: content.state == State::Processing,
            broken: None,
            noted: content.progress.clone(),
        };
        loop {
            match self.step(&content, &mut watch).await {
                Ok(Some(pause)) => tokio::time::sleep(pause).await,
                // Somebody else brought it to an end.
                Ok(None) | Err(StoreError::WrongState) => return,
                Err(error) => self.wait_for_store(publication, &error).await,
            }
        }
    }

    async fn wait_for_store(&self, publication: &str, error: &StoreError) {
        tracing::error!(%publication, %error, "an upload's progress cannot be noted; trying again");
        tokio::time::sleep(self.pace.idle).await;
    }

    /// One look and what follows from it; answers how long to wait before the next, or `None` when it was the last.
    async fn step(&self, content: &Content, watch: &mut Watch) -> Result<Option<Duration>, StoreError> {
        let sight = self.look(content).await?;
        match &sight {
            Sight::Silent(_) | Sight::Over => {}
            Sight::Forgotten => watch.last_heard = Instant::now(),
            Sight::Moving(_) | Sight::Unread(_) => {
                watch.last_heard = Instant::now();
                watch.forgotten = None;
            }
        }
        match sight {
            Sight::Over => Ok(None),
            Sight::Moving(status) => {
                if let Some(problem) = self.missing(content, &status, watch) {
                    return self.reject(content, &problem).await.map(|_| None);
                }
                self.note(content, &status, &mut watch.noted).await?;
                Ok(Some(self.pause(status.phase, watch.begun.elapsed())))
            }
            Sight::Unread(why) => {
                tracing::warn!(publication = %content.publication, %why, "a processed upload cannot be read; trying again");
                Ok(Some(self.pace.idle))
            }
            Sight::Forgotten if watch.forgotten.get_or_insert_with(Instant::now).elapsed() >= self.pace.forgotten => {
                self.reject(content, &forgotten()).await.map(|_| None)
            }
            Sight::Silent(why) if watch.last_heard.elapsed() >= self.patience(watch) => {
                tracing::warn!(publication = %content.publication, node = %content.node, %why, "its node is silent");
                self.reject(content, &silent(self.patience(watch))).await.map(|_| None)
            }
            Sight::Forgotten | Sight::Silent(_) => Ok(Some(self.pace.active)),
        }
    }

    /// For how long the node may be silent.
    fn patience(&self, watch: &Watch) -> Duration {
        let phase = watch.noted.as_ref().and_then(|progress| progress["phase"].as_str());
        if phase == Some(&Phase::Receiving.name()) { self.pace.give_up_coming } else { self.pace.give_up }
    }

    async fn look(&self, content: &Content) -> Result<Sight, StoreError> {
        let status = match self.ingest.status(content).await {
            Ok(status) => status,
            Err(IngestError::Unknown) => return Ok(Sight::Forgotten),
            Err(error) => return Ok(Sight::Silent(error.to_string())),
        };
        if status.phase == Phase::Rejected {
            return self.reject(content, &status.error.unwrap_or_else(unexplained)).await;
        }
        if status.phase != Phase::Ready {
            return Ok(Sight::Moving(status));
        }
        match self.ingest.stored(content, &status).await {
            Ok(stored) => {
                self.store.complete(&content.publication, &stored).await?;
                tracing::info!(
                    publication = %content.publication, content_key = %stored.content_key,
                    fragments = stored.fragments.len(), "content ready"
                );
                Ok(Sight::Over)
            }
            Err(IngestError::Silent(_) | IngestError::Unknown)
                if now() > content.created.saturating_add(UNREAD_SECONDS) =>
            {
                self.reject(content, &unread(&content.node)).await
            }
            Err(error @ (IngestError::Silent(_) | IngestError::Unknown)) => Ok(Sight::Unread(error.to_string())),
            Err(IngestError::Lies(why)) => self.reject(content, &liar(&content.node, &why)).await,
        }
    }

    /// Whether the file has been missing for too long.
    fn missing(&self, content: &Content, status: &UploadStatus, watch: &mut Watch) -> Option<Problem> {
        if status.phase != Phase::Waiting {
            (watch.begun_to_arrive, watch.broken) = (true, None);
            return None;
        }
        if watch.begun_to_arrive {
            let broken = watch.broken.get_or_insert_with(Instant::now);
            return (broken.elapsed() >= self.pace.broken).then(broken_off);
        }
        let limit = i64::try_from(self.pace.no_file.as_secs()).unwrap_or(i64::MAX);
        (now() > content.created.saturating_add(limit)).then(|| never_came(self.pace.no_file))
    }

    async fn note(
        &self,
        content: &Content,
        status: &UploadStatus,
        noted: &mut Option<Value>,
    ) -> Result<(), StoreError> {
        let progress = json!({
            "phase": status.phase,
            "percent": status.percent,
            "remaining_seconds": status.remaining_seconds,
        });
        if noted.as_ref() == Some(&progress) {
            return Ok(());
        }
        let state = if status.phase == Phase::Waiting { State::Pending } else { State::Processing };
        self.store.note_progress(&content.publication, state, &progress).await?;
        *noted = Some(progress);
        Ok(())
    }

    async fn reject(&self, content: &Content, problem: &Problem) -> Result<Sight, StoreError> {
        tracing::warn!(publication = %content.publication, kind = problem.kind.name(), "content rejected");
        if is_before_storing(problem.kind) {
            self.store.reject(&content.publication, &json!(problem)).await?;
        } else {
            let sign = self.broker.deletion_of(content)?;
            self.store.reject_and_order(content, &json!(problem), now(), sign).await?;
        }
        Ok(Sight::Over)
    }

    /// Asks less often the longer a file is awaited: after a minute every 3 s, after 200 s every 10 s.
    fn pause(&self, phase: Phase, watched: Duration) -> Duration {
        match phase {
            Phase::Waiting => (watched / 20).clamp(self.pace.active, self.pace.idle),
            Phase::Receiving
            | Phase::Probing
            | Phase::Transcoding
            | Phase::Storing
            | Phase::Replicating
            | Phase::Ready
            | Phase::Rejected
            | Phase::Other => self.pace.active,
        }
    }
}

/// Whether an upload that ended so has no block anywhere. After any other end some may be stored, or will be: a node
/// that was silent may still be at work.
fn is_before_storing(kind: ErrorKind) -> bool {
    use ErrorKind::{NotAVideo, UploadIncomplete, VideoDamaged, VideoUnsupported};
    matches!(kind, NotAVideo | UploadIncomplete | VideoDamaged | VideoUnsupported)
}

fn broken_off() -> Problem {
    Problem::new(ErrorKind::UploadIncomplete, "The upload was broken off. Upload the file again.")
}

fn never_came(limit: Duration) -> Problem {
    let detail = format!("No file came within {} minutes. Upload the file again.", limit.as_secs() / 60);
    Problem::new(ErrorKind::UploadIncomplete, detail)
}

fn forgotten() -> Problem {
    Problem::new(
        ErrorKind::NotFound,
        "The node that took the upload does not know it any more (it was restarted, perhaps). Upload the file again.",
    )
}

fn silent(silence: Duration) -> Problem {
    let detail = format!(
        "The node that took the upload has given no usable answer about it for {} s, so the upload is given up. Upload the \
         file again; another node will be asked.",
        silence.as_secs()
    );
    Problem::new(ErrorKind::NoNode, detail)
}

fn unread(node: &str) -> Problem {
    let detail = format!(
        "The node {node} says that the upload is ready, and for 7 days its index could not be read. Upload the file again, \
         and tell the operator of the node."
    );
    Problem::new(ErrorKind::Unavailable, detail)
}

fn unexplained() -> Problem {
    Problem::new(ErrorKind::Internal, "The node rejected the upload and did not say why. Upload the file again.")
}

fn liar(node: &str, why: &str) -> Problem {
    let detail = format!(
        "What the node {node} stored does not fit the content key that it gave: {why}. Upload the file again, and tell \
         the operator of the node."
    );
    Problem::new(ErrorKind::Internal, detail)
}
