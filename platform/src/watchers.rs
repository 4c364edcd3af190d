//! One task for each upload under way: it mirrors the node's progress into the catalogue and, at the end, stores the
//! ordered fragments and the index block (white paper 4.2.1). Resumed at the start of the platform.

use std::sync::Arc;
use std::time::Duration;

use control_api::{DeliveryClient, ErrorKind, Phase, Problem, UploadStatus};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalogue::{ContentName, State};
use crate::ingest::{Ingest, IngestError};
use crate::store::{Content, Store, StoreError};
use crate::time::now;

/// An upload token lives this long (`docs/api.md` §2); what has no file by then never gets one.
const UPLOAD_SECONDS: i64 = 24 * 60 * 60;

/// How often nodes are asked, and when they are given up.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two questions while something moves.
    pub active: Duration,
    /// The longest pause while the file is awaited.
    pub idle: Duration,
    /// Silence after which an upload is given up.
    pub give_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            // Smooth enough for a progress bar.
            active: Duration::from_millis(500),
            // A file that starts late shows up this much later.
            idle: Duration::from_secs(10),
            // A node restarts faster than this; an upload that it forgot does not come back.
            give_up: Duration::from_secs(30),
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
    pace: Pace,
}

/// What one look at an upload says.
enum Sight {
    /// It is under way.
    Moving(UploadStatus),
    /// It is over, and the catalogue knows.
    Over,
    /// Nothing usable.
    Silent(String),
}

impl Watchers {
    /// Tasks run in `tasks` until `stop`.
    pub(crate) fn new(
        store: Store,
        delivery: DeliveryClient,
        pace: Pace,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { context: Arc::new(Context { store, ingest: Ingest::new(delivery), pace }), tasks, stop }
    }

    /// Follows a content until it is ready or rejected.
    pub(crate) fn watch(&self, publication: &str) {
        let (context, stop, publication) = (Arc::clone(&self.context), self.stop.clone(), publication.to_owned());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                outcome = context.follow(&publication) => if let Err(error) = outcome {
                    tracing::error!(%publication, %error, "content no longer watched; it is taken up at the next start");
                }
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
    async fn follow(&self, publication: &str) -> Result<(), StoreError> {
        let name = ContentName::Publication(publication.to_owned());
        let Some(content) = self.store.find(&name).await?.into_iter().next() else {
            return Ok(());
        };
        let begun = Instant::now();
        let mut last_heard = Instant::now();
        let mut noted = content.progress.clone();
        loop {
            let pause = match self.look(&content).await? {
                Sight::Over => return Ok(()),
                Sight::Moving(status) => {
                    last_heard = Instant::now();
                    self.note(&content, &status, &mut noted).await?;
                    self.pause(status.phase, begun.elapsed())
                }
                Sight::Silent(why) if last_heard.elapsed() >= self.pace.give_up => {
                    return self.give_up(&content, &why).await;
                }
                Sight::Silent(_) => self.pace.active,
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, content: &Content) -> Result<Sight, StoreError> {
        let status = match self.ingest.status(content).await {
            Ok(status) => status,
            Err(error) => return Ok(Sight::Silent(error.to_string())),
        };
        if status.phase == Phase::Waiting && now() > content.created.saturating_add(UPLOAD_SECONDS) {
            return self.reject(content, &expired()).await;
        }
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
            Err(IngestError::Silent(why)) => Ok(Sight::Silent(why)),
            Err(IngestError::Lies(why)) => self.reject(content, &liar(&content.node, &why)).await,
        }
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

    async fn give_up(&self, content: &Content, why: &str) -> Result<(), StoreError> {
        let detail = format!(
            "The node that took the upload ({}) has not answered for {} s ({why}), so the upload is given up. Upload \
             the file again; another node will be asked.",
            content.node,
            self.pace.give_up.as_secs()
        );
        self.reject(content, &Problem::new(ErrorKind::NoNode, detail)).await.map(|_| ())
    }

    async fn reject(&self, content: &Content, problem: &Problem) -> Result<Sight, StoreError> {
        tracing::warn!(publication = %content.publication, kind = problem.kind.name(), "content rejected");
        self.store.reject(&content.publication, &json!(problem)).await?;
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
            | Phase::Ready
            | Phase::Rejected
            | Phase::Other => self.pace.active,
        }
    }
}

fn expired() -> Problem {
    Problem::new(
        ErrorKind::TokenExpired,
        "No file came within 24 hours, and the upload token has expired. Register the content again.",
    )
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
