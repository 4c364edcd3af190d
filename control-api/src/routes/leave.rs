//! What goes out under a token: within its life and a little beyond, within its scope, and counted.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use chunkstore_block::Part;
use futures::stream;
use tokio::sync::watch;

use super::Shared;
use crate::backend::{Content, NodeBackend};
use crate::meter::{Meter, Sent};
use crate::problem::{ErrorKind, Problem};
use crate::scope::{Confined, MAX_PLAYLIST_BYTES, Times};
use crate::state::Clock;
use crate::tokens::{Cut, Grant, Issued};
use crate::types::UploadStatus;

/// What a live token opens.
pub(super) struct Opened {
    pub(super) content: Arc<Content>,
    pub(super) remaining: Duration,
    pub(super) leave: Leave,
}

impl Opened {
    /// What of the content is open; `None` for all of it.
    pub(super) async fn confined<B: NodeBackend>(&self, app: &Shared<B>) -> Result<Option<Confined<'_>>, Problem> {
        let Grant::Playback(grant) = self.leave.issued.grant() else { return Ok(None) };
        let Some(scope) = grant.scope.as_deref() else { return Ok(None) };
        let times = match scope.lapse {
            Some(_) => Some(times(app, &self.content).await?),
            None => None,
        };
        Ok(Some(Confined::new(scope, self.content.index(), self.content.attribution(), times)))
    }
}

/// When the content's segments are played, by its media playlists, which are read once.
async fn times<'a, B: NodeBackend>(app: &Shared<B>, content: &'a Content) -> Result<&'a Times, Problem> {
    let read = || async {
        let index = content.index();
        let mut times = Times::new(index);
        for rendition in &index.renditions {
            let Some(file) = index.file(&rendition.playlist) else { continue };
            if file.size() > MAX_PLAYLIST_BYTES {
                continue;
            }
            let mut text = Vec::new();
            for part in index.file_parts(file, 0..file.size()) {
                text.extend_from_slice(&slice(&app.backend.block(part.id).await?, part)?);
            }
            times.add(index, &rendition.playlist, &String::from_utf8_lossy(&text));
        }
        Ok(times)
    };
    content.times.get_or_try_init(read).await
}

/// The bytes of a piece.
pub(super) fn slice(block: &Bytes, part: Part) -> Result<Bytes, Problem> {
    let (skip, end) = (part.skip as usize, part.skip as usize + part.take as usize);
    match block.len() == part.block_length as usize && end <= block.len() {
        true => Ok(block.slice(skip..end)),
        false => Err(Problem::internal(&format_args!("block {} has another length than the index says", part.id))),
    }
}

/// Leave to send, asked for with every piece at the moment when the connection takes it.
#[derive(Clone)]
pub(super) struct Leave {
    issued: Arc<Issued>,
    content: Arc<Content>,
    /// Of a preview: ends when the publication is deleted.
    upload: Option<watch::Receiver<UploadStatus>>,
    meter: Arc<Meter>,
    clock: Arc<dyn Clock>,
}

impl Leave {
    pub(super) fn new<B>(
        app: &Shared<B>,
        issued: Arc<Issued>,
        content: Arc<Content>,
        upload: Option<watch::Receiver<UploadStatus>>,
    ) -> Self {
        Self { issued, content, upload, meter: Arc::clone(&app.meter), clock: Arc::clone(&app.clock) }
    }

    /// Lets a piece of the fragment `order` pass (0: of none), and counts it.
    pub(super) fn pass(&self, order: u32, piece: Bytes) -> Result<Bytes, Problem> {
        if self.upload.as_ref().is_some_and(|status| is_deleted(&status.borrow())) {
            return Err(cut(Cut::Revoked));
        }
        let bytes = piece.len() as u64;
        self.issued.take(bytes, self.clock.now(), self.content.overtime_bytes()).map_err(cut)?;
        let attribution = self.content.attribution();
        self.meter.add(
            &self.issued,
            &Sent {
                content: self.content.key(),
                bytes,
                played_ms: attribution.played_ms(order, bytes),
                start: attribution.is_start(order) && self.issued.note_start(),
                at: self.clock.unix_seconds(),
            },
        );
        Ok(piece)
    }

    /// A body that is in memory. Nothing is counted if nobody reads it, as for HEAD.
    pub(super) fn body(&self, bytes: Bytes) -> Body {
        let leave = self.clone();
        Body::from_stream(stream::once(async move { leave.pass(0, bytes) }))
    }
}

pub(super) fn is_deleted(status: &UploadStatus) -> bool {
    status.error.as_ref().is_some_and(|problem| problem.kind == ErrorKind::Deleted)
}

/// Nobody reads it: the head has been sent, so all that can be done is to break the response off.
fn cut(why: Cut) -> Problem {
    match why {
        Cut::Revoked => Problem::new(ErrorKind::TokenRevoked, "The token was taken back while the response ran."),
        Cut::Overtime => Problem::new(
            ErrorKind::TokenExpired,
            "The token has expired, and what a response may still send then is sent. Ask for the rest with a new one.",
        ),
    }
}
